"""The conformations of a run: a series of maps in motion, its sections, and what sets it apart."""

from typing import Any

import numpy as np
from markupsafe import Markup
from torch import Tensor

from cryogan.conformations.folder import ConformationFolder
from cryogan.conformations.series import Series
from cryogan.report import figures
from cryogan.report.conformation_figures import (
    amplitudes_figure,
    density_figure,
    difference_figure,
)
from cryogan.report.formats import angstrom
from cryogan.report.images import GreyRange, grey_png, grey_range
from cryogan.report.isosurface import LEVEL_FRACTIONS
from cryogan.report.template import render
from cryogan.report.voxel_series import VoxelSeries, voxel_series
from cryogan.run.contents import FloatArray, RunContents, mapping, number

# Sections of a series are Fourier-cropped to this many pixels, to keep the page light.
_SECTION_PIXELS = 64

_PLANES = ("xy", "xz", "yz")

_AGREEMENT = (
    ("halves_mean_fsc_0.5_A", "maps of half-set 2 against those of half-set 1, FSC = 0.5"),
    ("halves_motion_fsc_0.5_A", "the motion alone (maps less their mean), FSC = 0.5"),
    ("amplitude_half1", "amplitude of the motion, half-set 1, ‖V - mean‖ / ‖mean‖"),
    ("amplitude_half2", "amplitude of the motion, half-set 2, ‖V - mean‖ / ‖mean‖"),
)


def conformation_section(run: RunContents) -> Markup:
    """The body of the section; the folder must hold a series."""
    found = run.conformations
    assert found is not None
    series, labels = found.series, _labels(found.series)
    voxels = voxel_series(series.volumes, series.pixel_size_A)
    player = None if voxels is None else _player(found, voxels, labels)
    return render(
        "conformations",
        player=player,
        planes=_PLANES,
        differences=None
        if found.differences is None
        else figures.to_html(difference_figure(found), "differences"),
        has_components=found.amplitudes is not None,
        amplitudes=None
        if found.amplitudes is None or not found.amplitudes.shape[1]
        else figures.to_html(amplitudes_figure(found), "amplitudes"),
        density=figures.to_html(density_figure(found), "density"),
        agreement=_agreement(run),
        maps=list(zip(series.names, labels, strict=True)),
    )


def _player(found: ConformationFolder, voxels: VoxelSeries, labels: list[str]) -> dict[str, Any]:
    """What the renderer, its controls and the sections beside it are made from."""
    series = found.series
    mean = series.mean
    grey = float(mean.mean())
    counts = series.grid or (len(series),)
    inside = float(np.quantile(mean.numpy(), 0.999))
    fractions = (LEVEL_FRACTIONS[0] / 2, LEVEL_FRACTIONS[2], LEVEL_FRACTIONS[-1] + 0.1)
    axes = {"path": ["map"], "classes": ["class"], "grid": ["latent z0", "latent z1"]}[series.kind]
    count = len(series)
    return {
        "explanation": {
            "path": f"{count} maps along the path.",
            "classes": f"{count} classes; nothing lies between them.",
            "grid": f"{count} maps on a grid of the two latents.",
        }[series.kind],
        "axes": list(zip(axes, counts, strict=True)),
        "threshold": [f"{grey + fraction * (inside - grey):.6g}" for fraction in fractions],
        "data": {
            "side": voxels.side,
            "voxel_A": voxels.voxel_size_A,
            "low": voxels.low,
            "high": voxels.high,
            "mean": grey,
            "sigma": float(mean.std()),
            "labels": labels,
            "grid": counts,
            "kind": series.kind,
            "closed": series.kind == "classes" or _closed(found),
            "sections": _sections(series, mean),
            "voxels": voxels.data,
        },
    }


def _closed(found: ConformationFolder) -> bool:
    """Whether the last map is as near to the first as neighbours are to one another."""
    if found.differences is None or len(found.series) < 4:
        return False
    steps = found.differences.diagonal(1)
    return bool(found.differences[0, -1] <= 2.0 * steps.max())


def _labels(series: Series) -> list[str]:
    what = "class" if series.kind == "classes" else "map"
    labels = []
    rows = zip(series.coordinate.tolist(), series.weight.tolist(), strict=True)
    for row, (coordinate, weight) in enumerate(rows):
        latent = ", ".join(f"{value:.3f}" for value in coordinate)
        known = f" · latent {latent}" if latent and series.kind != "classes" else ""
        share = f"{100 * weight:.1f} % of the particles"
        labels.append(f"{what} {row} (of 0 to {len(series) - 1}){known} · {share}")
    return labels


def _sections(series: Series, mean: Tensor) -> list[list[str]]:
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
            for p in range(len(_PLANES))
        ]
        for row in range(len(maps))
    ]


def _central(volumes: Tensor) -> FloatArray:
    """(n, 3, D, D) sections through the origin: xy, xz, yz."""
    values = volumes.numpy().astype(np.float64)
    middle = values.shape[-1] // 2
    return np.stack((values[:, middle], values[:, :, middle], values[:, :, :, middle]), axis=1)


def _agreement(run: RunContents) -> list[tuple[str, str]]:
    """How well the half-sets' independent series agree, where the summary says so."""
    found = mapping(run.summary, "conformations")
    rows = []
    for key, label in _AGREEMENT:
        value = number(found, key)
        if value is not None:
            rows.append((label, angstrom(value) if key.endswith("_A") else f"{value:.3f}"))
    return rows
