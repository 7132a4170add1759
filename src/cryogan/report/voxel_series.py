"""Maps as bytes for the page's own volume renderer: one grid, one grey scale, one threshold."""

import base64
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cryogan import fourier
from cryogan.report.isosurface import contour_levels

# Voxels of all maps of a page together, a byte each (4/3 in the page), and of a side at most.
_MAX_VOXELS = 1_500_000
_MAX_SIDE = 64

# White lies this far beyond the level "fully inside the molecule", so that surfaces at any level
# have grey values on both sides.
_HEADROOM = 1.5


@dataclass(frozen=True)
class VoxelSeries:
    """Maps cut to the cube that the molecule needs, on a grid of about the same fineness.

    Attributes:
        side: S voxels along each side of the cube; its centre is voxel S // 2.
        voxel_size_A: of them.
        low: grey value of byte 0.
        high: grey value of byte 255.
        data: base64 of (n, S, S, S) bytes; z, y, x.
    """

    side: int
    voxel_size_A: float
    low: float
    high: float
    data: str


def voxel_series(volumes: Tensor, pixel_size_A: float) -> VoxelSeries | None:
    """Maps (n, D, D, D) as bytes from their mean to well inside; None if they are flat.

    Coarse maps are Fourier-interpolated, at most twofold; fine ones are Fourier-cropped.
    """
    lowest = [contour_levels(volume)[:1] for volume in volumes]
    if not all(lowest):
        return None
    box_size = volumes.shape[-1]
    inside = max(float(np.quantile(volume.numpy(), 0.999)) for volume in volumes)
    low = float(volumes.mean())
    high = low + _HEADROOM * (inside - low)
    occupied = (volumes >= min(level for (level,) in lowest)).any(dim=0).nonzero()
    reach = min(int((occupied - box_size // 2).abs().max()) + 2, box_size // 2)
    finest = min(_MAX_SIDE, int((_MAX_VOXELS / len(volumes)) ** (1 / 3)))
    size = min(2 * box_size, int(finest * box_size / (2 * reach)))
    side = min(size, 2 * round(reach * size / box_size))
    grids = torch.stack(
        [fourier.crop_or_pad(fourier.resample(volume, size, 3), side, 3) for volume in volumes]
    )
    scaled = ((grids - low) * (255.0 / (high - low))).round().clamp(0.0, 255.0)
    return VoxelSeries(
        side,
        pixel_size_A * box_size / size,
        low,
        high,
        base64.b64encode(scaled.to(torch.uint8).numpy().tobytes()).decode(),
    )
