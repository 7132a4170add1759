"""Reading density maps."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.io.mrc.header import read_header
from cryogan.io.ranges import require_possible


@dataclass(frozen=True)
class Map:
    """A density map.

    Attributes:
        volume: (D, D, D) float32, axes z, y, x.
        pixel_size_A: edge of a voxel.
    """

    volume: Tensor
    pixel_size_A: float


def read_map(path: Path | str, pixel_size_A: float | None = None) -> Map:
    """Read a cubic map; axes are brought into the order z, y, x.

    Args:
        path: an MRC (CCP4) file.
        pixel_size_A: goes before that of the header; needed where the header has none, 0 or 1 Å.

    Raises:
        InputError: besides `read_header`'s reasons, the map is not cubic, has unequal voxel
            edges, NaN or infinite voxels, or no pixel size that is possible.
    """
    header = read_header(path)
    size = header.shape[0]
    if header.shape != (size, size, size):
        raise InputError(
            f"{path} is not a cubic map: it has {' x '.join(map(str, header.shape[::-1]))} "
            "voxels; crop or pad it to a cube."
        )
    voxel = header.voxel_size_A
    if max(voxel) - min(voxel) > 1e-3 * max(map(abs, voxel)):
        raise InputError(
            f"{path} has voxels of unequal edges ({voxel[0]:.4g} x {voxel[1]:.4g} x "
            f"{voxel[2]:.4g} Å) in its header; resample it to cubic voxels or correct the header."
        )
    if pixel_size_A is None:
        pixel_size_A = header.known_pixel_size_A
    if pixel_size_A is None:
        raise InputError(
            f"{path} has no pixel size in its header, where {voxel[0]:g} Å means that it is not "
            "set; give it with --apix, or write it into the header."
        )
    require_possible("pixel_size_A", pixel_size_A, f"The pixel size of {path}")
    pixels = header.map_pixels().transpose([header.axes.index(axis) for axis in (3, 2, 1)])
    volume = torch.from_numpy(pixels.astype(np.float32, order="C"))
    if not bool(torch.isfinite(volume).all()):
        raise InputError(f"{path} holds NaN or infinite voxels; repair the map first.")
    return Map(volume, float(pixel_size_A))
