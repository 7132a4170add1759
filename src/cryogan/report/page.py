"""The page: from a run folder to one self-contained HTML file."""

import html
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from plotly.offline import get_plotlyjs

from cryogan.files import write_text
from cryogan.io.mrc import Map
from cryogan.report import figures, template
from cryogan.report.images import GreyRange, grey_png, grey_range
from cryogan.report.isosurface import (
    DEFAULT_LEVEL,
    contour_levels,
    enclosed_volume_A3,
    isosurfaces,
    level_enclosing,
)
from cryogan.report.run_folder import FloatArray, RunFolder, read_run_folder

MAP_NAMES = {
    "map": "map",
    "half1": "half map 1",
    "half2": "half map 2",
    "truth": "known structure",
}

# All meshes of a page together (24 bytes a vertex), so that it stays under about 12 MB.
MAX_VERTICES = 220_000

# Protein of partial specific volume 0.73 cm³/g fills 1.21 Å³ a dalton.
PROTEIN_A3_PER_DA = 1.21

# Columns of a strip of pictures; one with fewer leaves the rest of the width empty.
MIN_COLUMNS, MAX_COLUMNS = 6, 8


def write_report(run_folder: Path) -> Path:
    """Write `report.html` into a run folder and return its path.

    The page needs no network and no file beside it: pictures, curves, surfaces and plotly's
    JavaScript are inside. Whatever the run folder lacks is left out, with a line saying so.

    Raises:
        InputError: the folder is not a run folder, or a file in it cannot be understood.
    """
    run = read_run_folder(run_folder)
    sections = [
        _header(run),
        _section("Structure", _structure(run)),
        _section("Sections and projections", _slices(run)),
        _section("Resolution", _fsc(run)),
        _section("Real beside simulated images", _examples(run)),
        _section("Training", _training(run)),
        _section("The molecule appearing", _progress(run)),
        _section("Details", _details(run)),
    ]
    path = run_folder / "report.html"
    write_text(
        path,
        template.PAGE.format(
            title=_escape(f"{run.path.resolve().name}: cryogan report"),
            style=template.STYLE,
            plotly=get_plotlyjs(),
            body="\n".join(sections),
            behaviour=template.BEHAVIOUR,
        ),
    )
    return path


def _escape(value: object) -> str:
    return html.escape(str(value))


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{_escape(title)}</h2>\n{body}\n</section>"


def _missing(what: str) -> str:
    return f'<p class="missing">Left out: {_escape(what)}.</p>'


def _object(parent: dict[str, Any], key: str) -> dict[str, Any]:
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def _number(parent: dict[str, Any], key: str) -> float | None:
    value = parent.get(key)
    return float(value) if isinstance(value, int | float) else None


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _angstrom(value: float, digits: int = 1) -> str:
    return f"{value:.{digits}f} Å" if math.isfinite(value) else "not reached"


# ---- resolution -----------------------------------------------------------------------------


def _resolutions(run: RunFolder) -> Iterator[tuple[str, str, float, bool, float]]:
    """(key, pair of maps, FSC threshold, in a mask?, Å) of every resolution of the summary."""
    for key, value in _object(run.summary, "resolution_A").items():
        match = re.fullmatch(r"(.+)_(\d*\.\d+)(_masked)?", key)
        if match and isinstance(value, int | float):
            yield key, match[1], float(match[2]), match[3] is not None, float(value)


def _pair_name(pair: str) -> str:
    names = {"half_map": "half map 1 against half map 2", "truth": "map against known structure"}
    return names.get(pair, pair.replace("_", " "))


def _definition(pair: str, threshold: float, masked: bool) -> str:
    return f"{_pair_name(pair)}, FSC = {threshold:g}, {'soft mask' if masked else 'no mask'}"


def _crossings(run: RunFolder) -> list[tuple[str, float, float]]:
    return [
        (pair + ("_masked" if masked else ""), threshold, value)
        for _, pair, threshold, masked, value in _resolutions(run)
    ]


# ---- header ---------------------------------------------------------------------------------


def _header(run: RunFolder) -> str:
    particles = _object(run.config, "particles")
    count, box_size = _number(particles, "count"), _number(particles, "box_size")
    pixel_size_A = _number(particles, "pixel_size_A")
    timings = _object(run.summary, "timings_s")
    total_s, seen = _number(timings, "total_wall"), _number(run.summary, "images_seen")
    resolutions = [
        (
            _angstrom(value),
            f"FSC = {threshold:g}, {'soft mask' if masked else 'no mask'}",
            _pair_name(pair),
        )
        for _, pair, threshold, masked, value in _resolutions(run)
    ]
    facts = []
    if count is not None:
        box = f"boxes of {box_size:.0f} px" if box_size is not None else ""
        facts.append((f"{count:,.0f}", "particles", box))
    if pixel_size_A is not None:
        limit = f"Nyquist limit {2 * pixel_size_A:.4g} Å"
        facts.append((f"{pixel_size_A:.4g} Å", "pixel size", limit))
    if total_s is not None:
        device = f"on {run.config['device']}" if "device" in run.config else ""
        facts.append((_duration(total_s), "wall time", device))
    if seen is not None:
        rate = _number(run.summary, "images_per_s")
        speed = f"{rate:,.0f} a second" if rate is not None else ""
        facts.append((f"{seen:,.0f}", "images seen", speed))
    return (
        f'<div class="overline">cryogan reconstruction report</div>\n'
        f"<h1>{_escape(run.path.resolve().name)}</h1>\n"
        f'<p class="verdict">{_escape(_verdict(run))}</p>\n{_cards(resolutions)}{_cards(facts)}'
    )


def _cards(cards: list[tuple[str, str, str]]) -> str:
    """Tiles of a value, what it is, and how it is to be read."""
    tiles = "".join(
        f'<div class="card"><b>{_escape(value)}</b><span class="what">{_escape(what)}</span>'
        f"<span>{_escape(how)}</span></div>"
        for value, what, how in cards
    )
    return f'<div class="cards">{tiles}</div>\n' if cards else ""


def _verdict(run: RunFolder) -> str:
    particles = _object(run.config, "particles")
    count, pixel_size_A = _number(particles, "count"), _number(particles, "pixel_size_A")
    images = f"{count:,.0f} particle images" if count is not None else "the particle images"
    values = {key: value for key, _, _, _, value in _resolutions(run)}
    half, truth = values.get("half_map_0.143"), values.get("truth_0.5")
    if "map" not in run.maps:
        opening = f"No map has been written yet from {images}."
    else:
        opening = f"One map from {images}, without estimating a pose."
    sentences = [opening]
    if half is None:
        sentences.append("No half maps were compared, so its reproducibility is not known.")
    elif not math.isfinite(half):
        sentences.append("The two half maps do not agree at any resolution (FSC = 0.143).")
    else:
        limit = ""
        if pixel_size_A is not None and half <= 2.04 * pixel_size_A:
            limit = ", the Nyquist limit of these images"
        sentences.append(
            f"Two independent halves of the data agree to {_angstrom(half)} "
            f"(FSC = 0.143, no mask){limit}."
        )
    if truth is not None and math.isfinite(truth):
        sentences.append(
            f"The map agrees with the known structure to {_angstrom(truth)} (FSC = 0.5, no mask)."
        )
    return " ".join(sentences)


# ---- structure ------------------------------------------------------------------------------


def _structure(run: RunFolder) -> str:
    if "map" not in run.maps:
        return _missing("the run folder has no map.mrc")
    map_ = run.maps["map"]
    levels = contour_levels(map_.volume)
    if not levels:
        return _missing("map.mrc is flat, so it has no surface")
    volumes_A3 = [enclosed_volume_A3(map_.volume, level, map_.pixel_size_A) for level in levels]
    columns = {name: run.maps[name] for name in ("map", "truth") if name in run.maps}
    budget = MAX_VERTICES // (len(columns) * len(levels))
    surfaces = {"map": isosurfaces(map_.volume, map_.pixel_size_A, levels, budget)}
    if "truth" in columns:
        truth, size_A = columns["truth"].volume, columns["truth"].pixel_size_A
        same = [level_enclosing(truth, size_A, volume_A3) for volume_A3 in volumes_A3]
        surfaces["truth"] = isosurfaces(truth, size_A, same, budget)
    mean, sigma = float(map_.volume.mean()), float(map_.volume.std())
    labels = [
        f"{(level - mean) / sigma:.1f} σ · encloses {volume_A3:,.0f} Å³, "
        f"as {volume_A3 / PROTEIN_A3_PER_DA / 1000:,.0f} kDa of protein"
        for level, volume_A3 in zip(levels, volumes_A3, strict=True)
    ]
    headings = "".join(f"<div>{_escape(MAP_NAMES[name])}</div>" for name in columns)
    comparison = (
        " The known structure is drawn at the level that encloses the same volume."
        if "truth" in columns
        else " No known structure was given to compare with."
    )
    return (
        '<p class="note">Drag to turn, scroll to zoom. Levels are in standard deviations σ above '
        "the mean of the whole box; protein is taken as 1.21 Å³ per dalton. Particle images do "
        f"not tell a molecule from its mirror image.{comparison}</p>\n"
        f'<div class="level"><label for="level">contour level</label>'
        f'<input type="range" id="level" min="0" max="{len(levels) - 1}" step="1" '
        f'value="{DEFAULT_LEVEL}" data-labels="{_escape(json.dumps(labels))}">'
        f'<output id="level-label">{_escape(labels[DEFAULT_LEVEL])}</output></div>\n'
        f'<div class="scenes">{headings}</div>\n'
        + figures.to_html(figures.isosurface_figure(surfaces, DEFAULT_LEVEL), "isosurface")
    )


# ---- strips of images -----------------------------------------------------------------------


def _strip(heads: list[str], rows: list[tuple[str, list[str]]]) -> str:
    """A grid of pictures: a heading a column, a label and a list of HTML cells a row."""
    cells = [f'<div class="head">{_escape(head)}</div>' for head in ["", *heads]]
    for label, pictures in rows:
        cells.append(f'<div class="row" style="grid-column: 1">{_escape(label)}</div>')
        cells.extend(pictures)
    columns = f"118px repeat({max(len(heads), MIN_COLUMNS)}, minmax(0, 1fr))"
    return f'<div class="strip" style="grid-template-columns: {columns}">{"".join(cells)}</div>'


def _picture(image: FloatArray, limits: GreyRange, what: str, bar: str = "") -> str:
    address = grey_png(image, limits)
    return f'<figure><img alt="{_escape(what)}" src="{address}">{bar}</figure>'


def _scale_bar(width_A: float) -> str:
    """A bar of a round length, about a quarter of a picture that is `width_A` wide."""
    length_A = max((n for n in (5, 10, 20, 50, 100, 200, 500) if n <= 0.4 * width_A), default=1)
    return (
        f'<div class="bar" style="width: {100 * length_A / width_A:.1f}%"><i>{length_A} Å</i></div>'
    )


def _slices(run: RunFolder) -> str:
    if not run.maps:
        return _missing("the run folder has no map.mrc, half1.mrc or half2.mrc")
    heads = [
        f"{kind} {plane}" for kind in ("section", "projection") for plane in ("xy", "xz", "yz")
    ]
    rows = [(MAP_NAMES[name], _views(map_, MAP_NAMES[name])) for name, map_ in run.maps.items()]
    absent = [name for name in ("map", "half1", "half2") if name not in run.maps]
    note = "".join(_missing(f"the run folder has no {name}.mrc") for name in absent)
    return (
        '<p class="note">Central sections through the origin and projections along z, y and x; the second '
        "axis named runs downwards. "
        "Each volume has one grey range for its sections and one for its projections.</p>\n"
        f"{_strip(heads, rows)}{note}"
    )


def _views(map_: Map, name: str) -> list[str]:
    volume = map_.volume.numpy().astype(np.float64)
    centre = volume.shape[0] // 2
    views = {
        "section": [volume[centre], volume[:, centre], volume[:, :, centre]],
        "projection": [volume.sum(axis) for axis in range(3)],
    }
    bar = _scale_bar(volume.shape[0] * map_.pixel_size_A)
    return [
        _picture(image, grey_range(np.stack(images)), f"{kind} {plane} of {name}",
                 bar if (kind, plane) == ("section", "xy") else "")
        for kind, images in views.items()
        for plane, image in zip(("xy", "xz", "yz"), images, strict=True)
    ]  # fmt: skip


# ---- curves ---------------------------------------------------------------------------------


def _fsc(run: RunFolder) -> str:
    parts = []
    if run.fsc is None:
        parts.append(_missing("the run folder has no fsc.csv"))
    else:
        parts.append(
            '<p class="note">Solid: whole box. Dashed: inside a soft mask. Rings mark the quoted '
            "resolutions.</p>"
        )
        parts.append(figures.to_html(figures.fsc_figure(run.fsc, _crossings(run)), "fsc"))
    rows = [
        (_definition(pair, threshold, masked), _angstrom(value, 2))
        for _, pair, threshold, masked, value in _resolutions(run)
    ]
    if rows:
        parts.append(_table(rows))
    else:
        parts.append(_missing("summary.json quotes no resolution"))
    parts.append(
        '<p class="note" style="margin-top: 12px">A resolution is the spatial frequency, going '
        "outward, at which the Fourier shell correlation first falls below the threshold, by "
        "linear interpolation in frequency between shells; a curve that stays above it is quoted "
        "at the Nyquist limit. Shell k holds the Fourier coefficients whose distance from the "
        "origin rounds to k pixels. Maps are aligned over rotation, shift and hand before they "
        "are compared. Agreement of half maps shows that a result is reproducible; only "
        "agreement with an independent structure shows that it is right.</p>"
    )
    return "\n".join(parts)


def _training(run: RunFolder) -> str:
    figure = figures.training_figure(run.stats)
    if figure is None:
        return _missing("the run folder has no sub-folder with a stats.jsonl")
    return (
        '<p class="note">Distance is the critic\'s estimate of how far simulated images are from '
        "real ones: it falls when the volume learns faster than the critic. Long logs are "
        f"averaged in blocks.</p>\n{figures.to_html(figure, 'training')}"
    )


def _examples(run: RunFolder) -> str:
    kinds = {
        "clean": "simulated: projection",
        "ctf": "after the CTF",
        "noisy": "with noise",
        "real": "real particles",
    }
    present = [kind for kind in kinds if kind in run.examples]
    if not present:
        return _missing("the run folder has no examples.npz")
    shown = min(MAX_COLUMNS, *(len(run.examples[kind]) for kind in present))
    images = {kind: run.examples[kind][:shown] for kind in present}
    seen = [images[kind] for kind in ("noisy", "real") if kind in images]
    common = grey_range(np.concatenate([image.ravel() for image in seen])) if seen else (0.0, 1.0)
    rows = [
        (
            kinds[kind],
            [
                _picture(
                    image,
                    common if kind in ("noisy", "real") else grey_range(images[kind]),
                    f"{kind} {number + 1}",
                )
                for number, image in enumerate(images[kind])
            ],
        )
        for kind in present
    ]
    parts = [
        '<p class="note">As the critic sees them. The first three rows are the same simulated '
        "particles, step by step; the last row holds real particles, which are others. Simulated "
        "images with noise and real images share one grey scale: they should look alike.</p>",
        _strip([""] * shown, rows),
    ]
    if "noisy" in images and "real" in images:
        parts.append(
            "<h3>Power spectra of these images</h3>"
            + figures.to_html(figures.power_figure(images), "power")
        )
    return "\n".join(parts)


def _progress(run: RunFolder) -> str:
    if run.progress.keys() != {"images_seen", "slices"}:
        return _missing("the run folder has no progress.npz")
    slices, images_seen = run.progress["slices"], run.progress["images_seen"]
    count = min(len(slices), len(images_seen))
    if count == 0:
        return _missing("progress.npz is empty")
    moments = np.unique(np.linspace(0, count - 1, MAX_COLUMNS).round().astype(int))
    limits = {m: grey_range(slices[m]) for m in moments}
    rows = [
        (
            f"section {plane}",
            [
                _picture(slices[m, p], limits[m], f"{plane} at {images_seen[m]:.0f}")
                for m in moments
            ],
        )
        for p, plane in enumerate(("xy", "xz", "yz"))
    ]
    heads = [f"{images_seen[m]:,.0f}" for m in moments]
    return (
        '<p class="note">Central sections of the averaged volume after the given number of images '
        "seen by the critic. Every column has its own grey range.</p>\n" + _strip(heads, rows)
    )


# ---- details --------------------------------------------------------------------------------


def _table(rows: list[tuple[str, str]]) -> str:
    cells = "".join(
        f'<tr><th>{_escape(name)}</th><td class="number">{_escape(value)}</td></tr>'
        for name, value in rows
    )
    return f"<table>{cells}</table>"


def _flatten(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value)


def _details(run: RunFolder) -> str:
    config, particles = run.config, _object(run.config, "particles")
    parts = ["<h3>Particles</h3>"]
    if "summary" in particles or "star" in particles:
        lines = [str(particles[key]) for key in ("star", "summary") if key in particles]
        parts.append(f"<pre>{_escape(chr(10).join(lines))}</pre>")
    else:
        parts.append(_missing("config.json does not describe the particles"))
    made = [
        (label, str(config[key]))
        for key, label in (
            ("cryogan_version", "cryogan"),
            ("torch_version", "PyTorch"),
            ("python_version", "Python"),
            ("device", "device"),
            ("started", "started"),
        )
        if key in config
    ]
    if "command" in config:
        command = config["command"]
        text = " ".join(map(str, command)) if isinstance(command, list) else str(command)
        parts.append(f"<h3>Command</h3><pre>{_escape(text)}</pre>")
    timings = [
        (name.replace("_", " "), _duration(float(value)))
        for name, value in _object(run.summary, "timings_s").items()
        if isinstance(value, int | float)
    ]
    for key, label in (("images_seen", "images seen"), ("images_per_s", "images per second")):
        value = _number(run.summary, key)
        if value is not None:
            timings.append((label, f"{value:,.0f}"))
    parts.append(
        '<div class="tables"><div><h3>Versions</h3>'
        + (_table(made) if made else _missing("config.json names no versions"))
        + "</div><div><h3>Time</h3>"
        + (_table(timings) if timings else _missing("summary.json holds no timings"))
        + "</div></div>"
    )
    settings = list(_flatten(_object(config, "config")))
    half = (len(settings) + 1) // 2
    parts.append(
        "<h3>Settings</h3>"
        + (
            f'<div class="tables">{_table(settings[:half])}{_table(settings[half:])}</div>'
            if settings
            else _missing("config.json holds no settings")
        )
    )
    return "\n".join(parts)
