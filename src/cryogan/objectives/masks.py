"""The mask of the volume: a soft ball, or a file."""

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.evaluation.resampling import resample_map
from cryogan.io.mrc import Map, read_header, read_map
from cryogan.objectives.assumptions import Assumptions

_NOTHING = 0.01  # of a mask: below this there is none
_SAME_WIDTH = 0.02


def volume_mask(
    assumptions: Assumptions, box_size: int, pixel_size_A: float, device: torch.device | str = "cpu"
) -> Tensor:
    """(D, D, D) mask from 0 to 1.

    Args:
        assumptions: of the sample, in fractions of this box.
        box_size: D.
        pixel_size_A: of the mask that is made.
        device: where it is made.

    Raises:
        InputError: the mask file cannot be read.
    """
    if assumptions.mask_file is None:
        half = box_size / 2
        radius, edge = assumptions.mask_radius * half, assumptions.mask_edge * half
        return fourier.soft_disc(box_size, radius, edge, 3, device)
    mask = _read(assumptions.mask_file)
    found = resample_map(mask.volume, mask.pixel_size_A, pixel_size_A, box_size)
    return found.clamp(0.0, 1.0).to(device)


def ball_around(path: str, width_A: float) -> float:
    """Radius of the ball about the origin that holds a mask, as a fraction of half of `width_A`.

    Raises:
        InputError: the file cannot be read, or is no mask; or it says that its pixels are of 1 Å,
            which many programs do that do not know, and it is not as wide as the particles.
    """
    mask = _read(path)
    side_A = mask.volume.shape[-1] * mask.pixel_size_A
    if read_header(path).known_pixel_size_A is None and abs(side_A / width_A - 1.0) > _SAME_WIDTH:
        raise InputError(
            f"{path} has a pixel size of 1 Å in its header, which means that it is not set, since "
            f"the particles are {width_A:.0f} Å wide; write the true one into its header."
        )
    radius = fourier.radius_grid(mask.volume.shape[-1], 3)
    return 2.0 * float(radius[mask.volume > _NOTHING].max()) * mask.pixel_size_A / width_A


def _read(path: str) -> Map:
    try:
        written = Path(path).stat().st_mtime_ns
    except OSError:
        written = 0
    return _read_once(path, written)


@lru_cache(maxsize=4)
def _read_once(path: str, written: int) -> Map:
    """A mask; `written` tells a file from what was there before under its name."""
    mask = read_map(path, read_header(path).voxel_size_A[0] or None)
    low, high = float(mask.volume.min()), float(mask.volume.max())
    if low < -0.01 or not 0.5 < high < 1.01:
        raise InputError(
            f"{path} has values from {low:.3g} to {high:.3g} and a mask is from 0 to 1; give a "
            "soft mask, such as relion_mask_create makes."
        )
    return mask
