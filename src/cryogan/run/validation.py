"""Directional FSC, local resolution, uncertainty and sharpening of a run's map.

docs/validation.md describes the files.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cryogan.evaluation.directional import directional_fsc
from cryogan.evaluation.fsc import resolution_A, write_fsc_csv
from cryogan.evaluation.local_resolution import THRESHOLD, local_resolution, window_size
from cryogan.evaluation.sharpening import guinier_plot, sharpened
from cryogan.evaluation.uncertainty import uncertainty
from cryogan.io.mrc import write_map
from cryogan.io.tables import write_columns
from cryogan.objectives.base import Maps
from cryogan.run.map_labels import in_words

_BINS = 24


def write_validation(folder: Path, maps: Maps, *, structure: bool) -> dict[str, Any]:
    """Write mask, uncertainty and, of a map that may show structure, what claims a resolution.

    Args:
        folder: of the run.
        maps: that it has come to; of conformations, their mean map.
        structure: False if the verdict is "no structure".

    Returns:
        What `summary.json` tells of it.

    Raises:
        InputError: a file cannot be written.
    """
    for name, volume in (("mask", maps.mask), ("uncertainty", uncertainty(maps.half1, maps.half2))):
        write_map(folder / f"{name}.mrc", volume, maps.pixel_size_A, in_words(folder, name))
    if not structure:
        return {}
    resolved_A = resolution_A(maps.fsc_masked, 0.143, maps.pixel_size_A, maps.mask.shape[-1])
    return {
        "directions": _directions(folder, maps),
        "local_resolution": _local_resolution(folder, maps, resolved_A),
        "sharpening": _sharpening(folder, maps, resolved_A),
    }


def _directions(folder: Path, maps: Maps) -> dict[str, Any]:
    """Conical FSC inside the mask, corrected for it: its range as a table, and the area ratio."""
    found = directional_fsc(maps.half1, maps.half2, maps.mask, last_shell=_last_shell(maps))
    curves = {"lowest": found.lowest, "mean": found.mean, "highest": found.highest}
    size = maps.mask.shape[-1]
    write_fsc_csv(folder / "directional_fsc.csv", maps.pixel_size_A, curves, size)
    areas = found.areas
    weakest, strongest = int(areas.argmin()), int(areas.argmax())
    return {
        "cfar": None if areas[strongest] == 0 else round(found.cfar, 4),
        "weakest_axis_xyz": _rounded(found.axes[weakest]),
        "strongest_axis_xyz": _rounded(found.axes[strongest]),
    }


def _local_resolution(folder: Path, maps: Maps, resolved_A: float) -> dict[str, Any]:
    """The map of it, and the volume at each resolution as a table."""
    size = maps.mask.shape[-1]
    window = window_size(size, resolved_A / maps.pixel_size_A)
    found = local_resolution(
        maps.half1,
        maps.half2,
        maps.mask,
        maps.pixel_size_A,
        window=window,
        band_end_A=size * maps.pixel_size_A / _last_shell(maps),
    )
    what = in_words(folder, "local resolution (A)")
    write_map(folder / "local_resolution.mrc", found, maps.pixel_size_A, what)
    inside = found[maps.mask > 0.5].double()
    low, middle, high = torch.quantile(_at_most(inside), torch.tensor([0.05, 0.5, 0.95]).double())
    finest, coarsest = float(inside.min()), float(inside.max())
    edges = torch.linspace(finest, max(1.0001 * coarsest, 1.02 * finest), _BINS + 1)
    volume_A3 = torch.histogram(inside.float(), edges).hist * maps.pixel_size_A**3
    columns = {"from_A": edges[:-1], "to_A": edges[1:], "volume_A3": volume_A3}
    write_columns(folder / "local_resolution.csv", columns)
    return {
        "threshold": THRESHOLD,
        "window_A": window * maps.pixel_size_A,
        "finest_5_percent_A": round(float(low), 3),
        "median_A": round(float(middle), 3),
        "coarsest_5_percent_A": round(float(high), 3),
    }


def _sharpening(folder: Path, maps: Maps, resolved_A: float) -> dict[str, Any]:
    """The Guinier plot as a table, and the sharpened map if a line can be fitted."""
    average = 0.5 * (maps.half1 + maps.half2)
    plot = guinier_plot(average, maps.fsc_masked, maps.pixel_size_A, mask=maps.mask)
    columns = {
        "inverse_d2_per_A2": plot.inverse_d2,
        "ln_amplitude": plot.ln_amplitude,
        "ln_signal": plot.ln_signal,
        "fit": plot.fit,
    }
    write_columns(folder / "guinier.csv", columns)
    if plot.b_factor_A2 is None:
        return {"b_factor_A2": None, "reason": plot.reason}
    sharp = sharpened(average, maps.fsc_masked, plot.b_factor_A2, maps.pixel_size_A, resolved_A)
    what = in_words(folder, "sharpened map")
    write_map(folder / "map_sharpened.mrc", sharp, maps.pixel_size_A, what)
    return {
        "b_factor_A2": round(plot.b_factor_A2, 2),
        "fit_from_A": plot.fit_from_A,
        "fit_to_A": round(plot.fit_to_A, 3),
    }


def _last_shell(maps: Maps) -> int:
    """The last shell of the band of the half-maps, at least 1."""
    return max(int(maps.fsc.isfinite().nonzero().max()), 1)


def _rounded(axis: Tensor) -> list[float]:
    return [round(value, 4) for value in axis.tolist()]


def _at_most(values: Tensor, count: int = 1_000_000) -> Tensor:
    """Evenly chosen values: `torch.quantile` takes no more than 16 million."""
    return values[:: 1 + len(values) // count]
