"""Strips of grey-scale pictures: the maps, the images of both streams, the volume growing."""

import numpy as np

from cryogan.io.mrc import Map
from cryogan.report import figures
from cryogan.report.conformation_files import FloatArray
from cryogan.report.images import GreyRange, grey_png, grey_range
from cryogan.report.markup import escape, missing
from cryogan.report.run_folder import MAP_NAMES, RunFolder

# Columns of a strip of pictures; one with fewer leaves the rest of the width empty.
MIN_COLUMNS, MAX_COLUMNS = 6, 8


def sections_and_projections(run: RunFolder) -> str:
    """Three central sections and three projections of every map."""
    if not run.maps:
        return missing("the run folder has no map.mrc, half1.mrc or half2.mrc")
    heads = [
        f"{kind} {plane}" for kind in ("section", "projection") for plane in ("xy", "xz", "yz")
    ]
    rows = [(MAP_NAMES[name], _views(map_, MAP_NAMES[name])) for name, map_ in run.maps.items()]
    absent = [name for name in ("map", "half1", "half2") if name not in run.maps]
    note = "".join(missing(f"the run folder has no {name}.mrc") for name in absent)
    return (
        '<p class="note">Central sections through the origin and projections along z, y and x; '
        "the second axis named runs downwards. Each volume has one grey range for its sections "
        "and one for its projections.</p>\n"
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


def real_and_simulated(run: RunFolder) -> str:
    """Simulated images step by step above real ones, and the power spectra of both."""
    kinds = {
        "clean": "simulated: projection",
        "ctf": "after the CTF",
        "noisy": "with noise",
        "real": "real particles",
    }
    present = [kind for kind in kinds if kind in run.examples]
    if not present:
        return missing("the run folder has no examples.npz")
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
        '<p class="note">As the critic sees them (phase-flipped, unless that is switched off). '
        "The first three rows are the same simulated particles, step by step; the last row holds "
        "real particles, which are others. Simulated images with noise and real images share "
        "one grey scale: they should look alike.</p>",
        _strip([""] * shown, rows),
    ]
    if "noisy" in images and "real" in images:
        parts.append(
            "<h3>Power spectra of these images</h3>"
            + figures.to_html(figures.power_figure(images), "power")
        )
    return "\n".join(parts)


def molecule_appearing(run: RunFolder) -> str:
    """Central sections of the volume at several moments of training."""
    if run.progress.keys() != {"images_seen", "slices"}:
        return missing("the run folder has no progress.npz")
    slices, images_seen = run.progress["slices"], run.progress["images_seen"]
    count = min(len(slices), len(images_seen))
    if count == 0:
        return missing("progress.npz is empty")
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


def _strip(heads: list[str], rows: list[tuple[str, list[str]]]) -> str:
    """A grid of pictures: a heading a column, a label and a list of HTML cells a row."""
    cells = [f'<div class="head">{escape(head)}</div>' for head in ["", *heads]]
    for label, pictures in rows:
        cells.append(f'<div class="row" style="grid-column: 1">{escape(label)}</div>')
        cells.extend(pictures)
    columns = f"118px repeat({max(len(heads), MIN_COLUMNS)}, minmax(0, 1fr))"
    return f'<div class="strip" style="grid-template-columns: {columns}">{"".join(cells)}</div>'


def _picture(image: FloatArray, limits: GreyRange, what: str, bar: str = "") -> str:
    address = grey_png(image, limits)
    return f'<figure><img alt="{escape(what)}" src="{address}">{bar}</figure>'


def _scale_bar(width_A: float) -> str:
    """A bar of a round length, about a quarter of a picture that is `width_A` wide."""
    length_A = max((n for n in (5, 10, 20, 50, 100, 200, 500) if n <= 0.4 * width_A), default=1)
    return (
        f'<div class="bar" style="width: {100 * length_A / width_A:.1f}%"><i>{length_A} Å</i></div>'
    )
