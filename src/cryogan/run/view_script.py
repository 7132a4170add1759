"""`view.cxc`: a ChimeraX script that opens the maps of a run, coloured by local resolution."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cryogan.files import write_text
from cryogan.io.mrc import read_map

VIEW = "view.cxc"

_MAPS = ("map.mrc", "half1.mrc", "half2.mrc", "map_sharpened.mrc")
_LOCAL_RESOLUTION = "local_resolution.mrc"
_INSIDE = 0.999  # quantile of the voxels that stands for the inside of the molecule
_SURFACE = 0.5  # of the way from the mean to there
_COLOURS = ("#3b4cc0", "#8db0fe", "#dddddd", "#f49a7b", "#b40426")  # from fine to coarse


def write_view(folder: Path, volume: Tensor, mask: Tensor) -> None:
    """Write the script for the maps that are there.

    It shows the surface of `map.mrc`, with colours from the finest local resolution inside it (5 %
    are finer) to the coarsest (5 % are coarser); half-maps and sharpened map are opened and hidden.

    Args:
        folder: of the run, its maps written.
        volume: `map.mrc`, (D, D, D).
        mask: `mask.mrc`, (D, D, D): outside there is no local resolution.

    Raises:
        InputError: the file cannot be written.
    """
    values = volume.double().numpy()
    mean = float(values.mean())
    level = mean + _SURFACE * (float(np.quantile(values, _INSIDE)) - mean)
    names = [name for name in (*_MAPS, _LOCAL_RESOLUTION) if (folder / name).is_file()]
    lines = [
        "# ChimeraX: open this file from its own folder, in a new session.",
        f"open {' '.join(names)}",
        f"volume #1 style surface step 1 level {level:.6g} color #b2b2b2",
    ]
    if len(names) > 1:
        lines.append(f"hide #2-{len(names)} models")
    if names[-1] == _LOCAL_RESOLUTION:
        local = read_map(folder / _LOCAL_RESOLUTION).volume.double().numpy()
        palette = _palette(local[(values >= level) & (mask.numpy() > 0.5)])
        lines.append(f"color sample #1 map #{len(names)} palette {palette} key true")
    lines.append("view")
    write_text(folder / VIEW, "\n".join([*lines, ""]))


def _palette(local_A: NDArray[np.float64]) -> str:
    """ChimeraX's palette, value,colour:value,colour ..., of local resolutions (n,) in Å."""
    finest, coarsest = np.quantile(local_A, (0.05, 0.95)) if len(local_A) else (1.0, 10.0)
    steps = np.linspace(finest, max(coarsest, 1.02 * finest), len(_COLOURS))
    return ":".join(f"{step:.2f},{colour}" for step, colour in zip(steps, _COLOURS, strict=True))
