"""Local resolution: the FSC of two half-maps in a window that moves over the box."""

import math

import torch
from torch import Tensor

from cryogan import fourier

THRESHOLD = 0.5
"""FSC at which a local resolution is read.

A window holds few independent coefficients a shell. Where there is no signal their FSC scatters by
more than 0.143 about 0, so that a curve stays above that for too long. Bsoft's manual names 0.5 or
0.3.
"""

OUTSIDE_A = 0.0
"""Value of voxels outside the mask, which have no resolution."""

_WINDOW_RESOLUTIONS = 7.0  # width of the window in resolutions of the whole map
_LEAST_WINDOW = 12
_STEPS = 4  # of the window along its own width
_VOXELS = 1 << 23  # of windows in memory at once


def window_size(box_size: int, resolution_px: float) -> int:
    """Even width of a window of about seven resolutions; at least 12 pixels, at most half a box.

    Bsoft's manual advises five to seven; smaller windows give values that are too fine.
    """
    wanted = 2 * round(_WINDOW_RESOLUTIONS * resolution_px / 2)
    return max(min(wanted, 2 * (box_size // 4)), min(_LEAST_WINDOW, 2 * (box_size // 2)))


def local_resolution(
    half1: Tensor,
    half2: Tensor,
    mask: Tensor,
    pixel_size_A: float,
    *,
    window: int,
    band_end_A: float = 0.0,
    threshold: float = THRESHOLD,
    outside_A: float = OUTSIDE_A,
) -> Tensor:
    """Local resolution by windowed FSC (blocres; Cardone, Heymann & Steven 2013).

    Both half-maps are multiplied by a ball of the window's width that falls as a raised cosine from
    its centre, which leaks least from strong shells into weak ones, at points a quarter of that
    width apart. Where the FSC first falls below the threshold is read by
    linear interpolation in spatial frequency, which is then interpolated to the voxels. A window
    that agrees nowhere has its own width as resolution. The means of both maps in the window are
    subtracted first.

    Args:
        half1: (D, D, D), without filter and mask.
        half2: (D, D, D), in the frame of `half1`.
        mask: (D, D, D); voxels above 0.5 are given a value.
        pixel_size_A: of the maps.
        window: even width in voxels, at most D.
        band_end_A: where the maps' band ends; no value is finer.
        threshold: of the FSC.
        outside_A: value of all other voxels.

    Returns:
        (D, D, D) in Å.
    """
    size, step = half1.shape[-1], max(window // _STEPS, 1)
    count = math.ceil((size - 1) / step) + 1
    inside = mask > 0.5
    wanted = _grid_near(inside, step, count)
    ball = fourier.soft_disc(window, 0.0, window / 2, 3, half1.device)
    before, after = window // 2, (count - 1) * step + window // 2 - size
    halves = torch.nn.functional.pad(torch.stack((half1, half2)), (before, max(after, 0)) * 3)
    places = wanted.nonzero()
    frequency = half1.new_full(wanted.shape, 1.0 / (window * pixel_size_A))
    for some in torch.split(places, max(_VOXELS // window**3, 1)):
        corners = (some * step).tolist()
        windows = torch.stack(
            [halves[:, z : z + window, y : y + window, x : x + window] for z, y, x in corners]
        )
        frequency[tuple(some.T)] = _cut_off(windows, ball, threshold) / (window * pixel_size_A)
    found = _interpolated(frequency, step, size)
    return torch.where(inside, (1.0 / found).clamp_min(band_end_A), outside_A)


def _grid_near(inside: Tensor, step: int, count: int) -> Tensor:
    """(count, count, count) points of the coarse grid around any voxel that is inside."""
    reach = count * step + 1 - inside.shape[-1]
    padded = torch.nn.functional.pad(inside.float(), (step, max(reach, 0)) * 3)
    near = torch.nn.functional.max_pool3d(padded[None], 2 * step + 1, step)[0]
    return near[:count, :count, :count] > 0


def _cut_off(windows: Tensor, ball: Tensor, threshold: float) -> Tensor:
    """(n,) shells of windows (n, 2, w, w, w) at which the FSC falls below the threshold."""
    size = ball.shape[-1]
    mean = (windows * ball).sum((-3, -2, -1), keepdim=True) / ball.sum()
    a, b = fourier.rfft((windows - mean) * ball, 3).unbind(1)
    cross, power_a, power_b = (
        fourier.shell_sum(values, size, 3)
        for values in ((a * b.conj()).real, a.abs().square(), b.abs().square())
    )
    norm = (power_a * power_b).sqrt()
    curve = torch.where(norm > 0, cross / norm.clamp_min(1e-30), 0.0)[:, 1:]
    below = curve < threshold
    first = below.int().argmax(1)
    after = curve.gather(1, first[:, None])[:, 0]
    before = curve.gather(1, (first - 1).clamp_min(0)[:, None])[:, 0]
    fraction = (before - threshold) / (before - after).clamp_min(1e-6)
    crossing = torch.where(first > 0, first + fraction, 1.0)  # shell `first` is curve[first - 1]
    return torch.where(below.any(1), crossing, size / 2)


def _interpolated(values: Tensor, step: int, size: int) -> Tensor:
    """A coarse grid, linearly interpolated to the voxels 0 ... size - 1 of the box."""
    fine = (values.shape[-1] - 1) * step + 1
    if step == 1:
        return values[:size, :size, :size]
    found = torch.nn.functional.interpolate(
        values[None, None], (fine, fine, fine), mode="trilinear", align_corners=True
    )
    return found[0, 0, :size, :size, :size]
