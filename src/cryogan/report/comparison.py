"""The page that compares runs: from two run folders or more to one self-contained HTML file."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from markupsafe import Markup
from plotly.offline import get_plotlyjs

from cryogan.errors import InputError
from cryogan.evaluation.comparison import Comparison
from cryogan.files import refuse_overwriting, write_text
from cryogan.report.comparison_maps import (
    compare_maps,
    field_of_view_sentences,
    fsc_of_maps,
    half_map_curves,
    pairs_without_structure,
    sections,
)
from cryogan.report.comparison_table import runs_table
from cryogan.report.formats import angstrom
from cryogan.report.header import warning
from cryogan.report.template import render
from cryogan.run.contents import RunContents, read_run_contents, require_finished

Tile = tuple[str, str, str]


def write_comparison(folders: Sequence[Path], path: Path) -> Path:
    """Write a page that compares finished runs, and return its path.

    The maps of all others are resampled to the box of the first run's map and aligned to it over
    rotation, shift and hand. The page needs no network and no file beside it; no run is changed.

    Args:
        folders: two run folders or more; the first is the one that others are compared with.
        path: the HTML file, written atomically; a page that is there is written over.

    Raises:
        InputError: fewer than two folders, one of them twice, one that holds no finished run or a
            file that cannot be understood, maps that cannot be aligned, or a path that is a file of
            a run or cannot be written.
    """
    _require_different(folders)
    runs = dict(zip(_labels(folders), map(_finished, folders), strict=True))
    refuse_overwriting(path, _files_of(folders), "a file of a run that is compared")
    refuse_overwriting(path, _inputs_of(runs), "which a run that is compared was made from")
    compared = compare_maps(runs)
    title = _listed(list(runs))
    page = render(
        "page",
        title=f"{title}: cryogan comparison",
        plotly=Markup(get_plotlyjs()),
        header=_header(title, runs, compared),
        sections=[
            ("Runs side by side", runs_table(runs)),
            ("Half-map FSC", half_map_curves(runs)),
            ("Map sections", sections(runs, compared)),
            ("FSC between the maps", fsc_of_maps(runs, compared)),
        ],
        scripts=[],
    )
    write_text(path, page)
    return path


def _header(
    title: str, runs: Mapping[str, RunContents], compared: Mapping[str, Comparison]
) -> Markup:
    """Title, result in words, what must be known before, and tiles for each pair of maps."""
    first = next(iter(runs))
    none = pairs_without_structure(runs)
    return render(
        "header",
        overline="cryogan comparison of runs",
        name=title,
        warning=" ".join(
            f"{label}: {said}" for label, run in runs.items() if (said := warning(run))
        ),
        verdict=" ".join(
            [
                *(_sentence(label, first, c, label in none) for label, c in compared.items()),
                *field_of_view_sentences(runs),
            ]
        ),
        resolutions=[
            tile for label, c in compared.items() for tile in _tiles(label, first, c, label in none)
        ],
        facts=[],
    )


def _sentence(label: str, first: str, found: Comparison, without_structure: bool) -> str:
    width_A = found.truth.shape[-1] * found.pixel_size_A
    half_A, last_A = found.resolution_A(0.5), found.resolution_A(0.143)
    if without_structure:
        agree = "are compared, and no resolution is quoted"
    elif not half_A < 0.999 * width_A:
        agree = "do not agree at any resolution (FSC < 0.5, no mask)"
    elif half_A == last_A:
        agree = f"agree to {angstrom(half_A)}, the end of the curve (FSC > 0.5, no mask)"
    else:
        agree = f"agree to {angstrom(half_A)} (FSC = 0.5) and {angstrom(last_A)} (0.143), no mask"
    hand = (
        f" The map of {label} is compared as its mirror image: it has the other hand, which "
        "particle images do not tell."
    )
    return f"The maps of {first} and {label} {agree}.{hand if found.alignment.mirrored else ''}"


def _tiles(label: str, first: str, found: Comparison, without_structure: bool) -> Iterator[Tile]:
    """Resolutions, unless there is no structure, and the correlation."""
    pair = f"{label} against {first}"
    thresholds = () if without_structure else (0.5, 0.143)
    for masked, threshold in itertools.product((False, True), thresholds):
        where = "soft mask" if masked else "no mask"
        value = angstrom(found.resolution_A(threshold, masked=masked))
        yield value, f"FSC = {threshold:g}, {where}", pair
    yield f"{found.correlation:.3f}", "correlation, no mask", pair


def _finished(folder: Path) -> RunContents:
    run = read_run_contents(folder)
    require_finished(folder, "map.mrc", "fsc.csv", "summary.json")
    return run


def _require_different(folders: Sequence[Path]) -> None:
    if len(folders) < 2:
        raise InputError("A comparison needs two run folders; give two or more.")
    for one, other in itertools.combinations(folders, 2):
        if one.resolve() == other.resolve():
            raise InputError(f"{one} and {other} are the same run; give different run folders.")


def _labels(folders: Sequence[Path]) -> list[str]:
    """The folders' names, with as many of those above as tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(part[-depth:]) for part in parts]
        if len(set(labels)) == len(labels):
            break
    return labels


def _files_of(folders: Sequence[Path]) -> Iterator[Path]:
    """All files of runs; other pages than a run's report may be earlier comparisons."""
    for folder in folders:
        for file in folder.rglob("*"):
            if file.is_file() and (file.suffix != ".html" or file.name == "report.html"):
                yield file


def _inputs_of(runs: Mapping[str, RunContents]) -> Iterator[Path]:
    """Particle and noise files of runs, where they still are."""
    for run in runs.values():
        for key in ("star", "noise"):
            file = Path(str(run.particles.get(key) or ""))
            if file.is_file():
                yield file


def _listed(names: Sequence[str]) -> str:
    """A, B and C."""
    return f"{', '.join(names[:-1])} and {names[-1]}"
