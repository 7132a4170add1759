"""The conformations of a run: a series of maps in motion, its sections, and what sets it apart."""

from importlib import resources

import numpy as np
from torch import Tensor

from cryogan.report import figures
from cryogan.report.conformation_figures import (
    amplitudes_figure,
    density_figure,
    difference_figure,
)
from cryogan.report.conformation_files import Conformations, FloatArray
from cryogan.report.images import GreyRange, grey_png, grey_range
from cryogan.report.isosurface import LEVEL_FRACTIONS
from cryogan.report.markup import angstrom, escape, mapping, missing, number, script_json, table
from cryogan.report.run_folder import RunFolder
from cryogan.report.voxel_series import voxel_series

# Sections of a series are Fourier-cropped to this many pixels, to keep the page light.
_SECTION_PIXELS = 64

_PLANES = ("xy", "xz", "yz")

_AGREEMENT = (
    ("halves_mean_fsc_0.5_A", "maps of half 2 against those of half 1, FSC = 0.5"),
    ("halves_motion_fsc_0.5_A", "the motion alone (maps less their mean), FSC = 0.5"),
    ("amplitude_half1", "amplitude of the motion, half 1, ‖V - mean‖ / ‖mean‖"),
    ("amplitude_half2", "amplitude of the motion, half 2, ‖V - mean‖ / ‖mean‖"),
)


def conformations(run: RunFolder) -> str:
    """The body of the section; the folder must hold a series."""
    series = run.conformations
    assert series is not None
    return "\n".join((_player(series), _figures(series), _agreement(run), _list(series)))


def viewer_script() -> str:
    """The JavaScript that plays the series."""
    return resources.files("cryogan.report").joinpath("viewer.js").read_text()


def _player(series: Conformations) -> str:
    """The renderer's place, its controls and its data, and sections that follow them."""
    voxels = voxel_series(series.volumes, series.pixel_size_A)
    if voxels is None:
        return missing("a map of conformations/ is flat, so it has no surface")
    mean = series.mean
    sections, labels = _sections(series, mean), _labels(series)
    counts = series.grid or (len(series.names),)
    data = {
        "side": voxels.side,
        "voxel_A": voxels.voxel_size_A,
        "low": voxels.low,
        "high": voxels.high,
        "mean": float(mean.mean()),
        "sigma": float(mean.std()),
        "labels": labels,
        "grid": counts,
        "kind": series.kind,
        "closed": series.kind == "classes" or _closed(series),
        "sections": sections,
        "voxels": voxels.data,
    }
    inside = float(np.quantile(mean.numpy(), 0.999))
    fractions = (LEVEL_FRACTIONS[0] / 2, LEVEL_FRACTIONS[2], LEVEL_FRACTIONS[-1] + 0.1)
    low, default, high = (
        float(mean.mean()) + fraction * (inside - float(mean.mean())) for fraction in fractions
    )
    axes = {"path": ["map"], "classes": ["class"], "grid": ["latent z0", "latent z1"]}[series.kind]
    sliders = "".join(
        f'<div class="level"><button type="button" class="play" data-axis="{axis}">Play</button>'
        f'<label for="state{axis}">{label}</label>'
        f'<input type="range" class="state" id="state{axis}" min="0" max="{count - 1}" step="1" '
        'value="0"></div>'
        for axis, (label, count) in enumerate(zip(axes, counts, strict=True))
    )
    pictures = "".join(
        f'<figure><img class="section" alt="{kind} {plane}" src="{sections[0][3 * row + column]}">'
        "</figure>"
        for row, kind in enumerate(("section", "difference from the mean"))
        for column, plane in enumerate(_PLANES)
    )
    heads = "".join(f'<div class="head">section {plane}</div>' for plane in _PLANES)
    return (
        f'<p class="note">{_explanation(series)} Drag to turn, scroll to zoom; all maps are drawn '
        "at one threshold. Below the sections: the same, less the mean of all maps (white: more "
        "density than the mean, black: less); one grey range for all maps.</p>\n"
        f'<div class="player"><div><canvas id="motion" width="960" height="960"></canvas>'
        '<p class="missing" id="no-renderer" hidden>This browser has no WebGL 2, which the moving '
        "surface needs; the sections follow the slider all the same.</p></div>"
        f'<div>{sliders}<div class="level"><span></span><label for="threshold">threshold</label>'
        f'<input type="range" id="threshold" min="{low:.6g}" max="{high:.6g}" step="any" '
        f'value="{default:.6g}"></div>'
        f'<p class="state-label"><output id="state-label">{escape(labels[0])}</output><br>'
        '<output id="threshold-label"></output></p>'
        f'<div class="strip sections">{heads}{pictures}</div></div></div>\n'
        f"{script_json('series', data)}"
    )


def _explanation(series: Conformations) -> str:
    count = len(series.names)
    return {
        "path": f"{count} maps along the path.",
        "classes": f"{count} classes; nothing lies between them.",
        "grid": f"{count} maps on a grid of the two latents.",
    }[series.kind]


def _closed(series: Conformations) -> bool:
    """Whether the last map is as near to the first as neighbours are to one another."""
    if series.differences is None or len(series.names) < 4:
        return False
    return bool(series.differences[0, -1] <= 2.0 * np.diagonal(series.differences, 1).max())


def _labels(series: Conformations) -> list[str]:
    count = len(series.names)
    what = "class" if series.kind == "classes" else "map"
    labels = []
    for row, weight in enumerate(series.weights):
        latent = ", ".join(f"{value:.3f}" for value in series.latents[row])
        known = f" · latent {latent}" if latent and series.kind != "classes" else ""
        share = f"{100 * weight:.1f} % of the particles"
        labels.append(f"{what} {row} (of 0 to {count - 1}){known} · {share}")
    return labels


def _sections(series: Conformations, mean: Tensor) -> list[list[str]]:
    """Of each map three central sections and three of its difference from the mean, as PNG."""
    maps = _central(series.volumes)
    changes = maps - _central(mean[None])
    limits = grey_range(maps)
    reach = float(np.quantile(np.abs(changes), 0.999)) or 1.0
    pairs: list[tuple[FloatArray, GreyRange]] = [(maps, limits), (changes, (-reach, reach))]
    return [
        [
            grey_png(planes[row, p], grey, _SECTION_PIXELS)
            for planes, grey in pairs
            for p in range(3)
        ]
        for row in range(len(maps))
    ]


def _central(volumes: Tensor) -> FloatArray:
    """(n, 3, D, D) sections through the origin: xy, xz, yz."""
    values = volumes.numpy().astype(np.float64)
    middle = values.shape[-1] // 2
    return np.stack((values[:, middle], values[:, :, middle], values[:, :, :, middle]), axis=1)


def _figures(series: Conformations) -> str:
    parts = []
    pair = []
    if series.differences is None:
        parts.append(missing("conformations/ has no differences.csv"))
    else:
        pair.append(("Differences of the maps", difference_figure(series), "differences"))
    if series.amplitudes is None:
        parts.append(missing("conformations/ has no pca.csv"))
    elif series.amplitudes.shape[1]:
        pair.append(("Principal components", amplitudes_figure(series), "amplitudes"))
    pair.append(("Where the particles are", density_figure(series), "density"))
    blocks = "".join(
        f"<div{' class=wide' if name == 'density' else ''}><h3>{title}</h3>"
        f"{figures.to_html(figure, name)}</div>"
        for title, figure, name in pair
    )
    return f'<div class="tables figures">{blocks}</div>' + "\n".join(parts)


def _agreement(run: RunFolder) -> str:
    """How well the two halves' independent series agree, where the summary says so."""
    found = mapping(run.summary, "conformations")
    rows = []
    for key, label in _AGREEMENT:
        value = number(found, key)
        if value is not None:
            rows.append((label, angstrom(value) if key.endswith("_A") else f"{value:.3f}"))
    return f"<h3>Agreement of the two halves</h3>{table(rows)}" if rows else ""


def _list(series: Conformations) -> str:
    rows = list(zip(series.names, _labels(series), strict=True))
    return f"<details><summary>All maps</summary>{table(rows)}</details>"
