"""Accurate resampling of maps: another grid, another pose."""

import math

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.errors import InputError

_PADDING = 2
_TAPS = 4  # width of the interpolation kernel along each axis
_SHAPE = math.pi * math.sqrt((_TAPS / _PADDING) ** 2 * (_PADDING - 0.5) ** 2 - 0.8)
_CHUNK_POINTS = 1 << 18


def resample_map(
    volume: Tensor, pixel_size_A: float, new_pixel_size_A: float, new_size: int
) -> Tensor:
    """A map at another pixel size and in another box, origin kept.

    Trigonometric interpolation, band-limited to the coarser of the two grids, exact for any
    ratio of pixel sizes; voxels outside the old box are 0. Density values are kept.

    Args:
        volume: (D, D, D), odd or even.
        pixel_size_A: of the volume.
        new_pixel_size_A: of the result.
        new_size: box of the result.

    Returns:
        (new_size, new_size, new_size).

    Raises:
        InputError: not a cube, or a pixel size is not positive.
    """
    if volume.ndim != 3 or len(set(volume.shape)) != 1:
        raise InputError(
            f"A map of {tuple(volume.shape)} voxels cannot be compared; give a cubic map."
        )
    if not (pixel_size_A > 0 and new_pixel_size_A > 0):
        raise InputError(
            f"Pixel sizes of {pixel_size_A} and {new_pixel_size_A} Å cannot be compared; give "
            "both maps a positive pixel size."
        )
    if math.isclose(pixel_size_A, new_pixel_size_A, rel_tol=1e-4):
        return fourier.crop_or_pad(volume, new_size, 3)
    size = volume.shape[-1]
    ratio = new_pixel_size_A / pixel_size_A
    highest = min((size - 1) // 2, math.ceil(size / (2.0 * ratio)) - 1)
    old = torch.arange(size, dtype=torch.float64) - size // 2
    new = (torch.arange(new_size, dtype=torch.float64) - new_size // 2) * ratio
    k = torch.arange(-highest, highest + 1, dtype=torch.float64) / size
    at_old, at_new = (2.0 * torch.pi * x[:, None] * k for x in (old, new))
    matrix = (at_new.cos() @ at_old.cos().T + at_new.sin() @ at_old.sin().T) / size
    matrix = matrix * ((new >= old[0] - 0.5) & (new < old[-1] + 0.5))[:, None]
    matrix = matrix.to(volume)
    resampled: Tensor = torch.tensordot(matrix, matrix @ volume @ matrix.T, dims=1)
    return resampled


def move_map(volume: Tensor, rotation: Tensor, shift_px: Tensor, mirrored: bool) -> Tensor:
    """Invert a map through its origin if `mirrored`, then rotate it, then shift it.

    One interpolation, in the twofold padded spectrum, with a Kaiser-Bessel kernel of four
    points whose envelope is divided out of the map (Beatty et al., IEEE Trans. Med. Imaging 24,
    2005); the shift is exact. Coefficients beyond the Nyquist sphere go.

    Args:
        volume: (D, D, D).
        rotation: (3, 3); density at x moves to `rotation @ (±x) + shift_px`.
        shift_px: (3,) as x, y, z.
        mirrored: whether the sign is minus.

    Returns:
        (D, D, D).
    """
    size = volume.shape[-1]
    padded_size = _PADDING * size
    axis = (torch.arange(size, dtype=volume.dtype, device=volume.device) - size // 2) / padded_size
    root = (_SHAPE**2 - (torch.pi * _TAPS * axis).square()).sqrt()
    envelope = root.sinh() / root  # of the kernel, up to a factor that `_kernel` leaves out too
    flat = volume / (envelope[:, None, None] * envelope[:, None] * envelope)
    half = fourier.rfft(fourier.crop_or_pad(flat, padded_size, 3), 3)
    inner = half[..., 1 : (padded_size + 1) // 2]
    spectrum = torch.cat((half, inner.flip((0, 1, 2)).roll((1, 1), (0, 1)).conj()), dim=-1)

    # Corners of the box turn to 0.87 of it from the origin: at this period they fold back
    # outside the box that is kept.
    period = 2 * math.ceil(0.7 * size)
    grid = fourier.frequency_grid(period, 3, volume.device)
    inside = grid.norm(dim=-1) <= 0.5
    k = grid[inside]
    points = (k @ rotation) * padded_size
    value = torch.cat([_interpolate(spectrum, part) for part in torch.split(points, _CHUNK_POINTS)])
    phase = -2.0 * torch.pi * (k @ shift_px)
    value = (value.conj() if mirrored else value) * torch.polar(torch.ones_like(phase), phase)
    moved = torch.zeros(inside.shape, dtype=value.dtype, device=volume.device)
    moved[inside] = value
    return fourier.crop_or_pad(fourier.irfft(moved, period, 3), size, 3)


def translated(maps: Tensor, by_px: Tensor) -> Tensor:
    """Maps (..., D, D, D) moved by (x, y, z), exactly; what leaves the box comes in again.

    Example:
        >>> import torch
        >>> maps = torch.zeros(1, 4, 4, 4)
        >>> maps[0, 2, 2, 2] = 1.0
        >>> bool(translated(maps, torch.tensor([1.0, 0.0, 0.0]))[0, 2, 2, 3] > 0.99)
        True
    """
    size = maps.shape[-1]
    phase = -2.0 * torch.pi * (fourier.frequency_grid(size, 3, maps.device) @ by_px.to(maps))
    wave = torch.polar(torch.ones_like(phase), phase)
    return fourier.irfft(fourier.rfft(maps, 3) * wave, size, 3)


def _kernel(distance: Tensor) -> Tensor:
    """Kaiser-Bessel window; its Fourier transform is sinh(r) / r, r² = shape² - (π taps x)²."""
    inside = (1.0 - (2.0 / _TAPS * distance).square()).clamp_min(0.0)
    window: Tensor = torch.special.i0(_SHAPE * inside.sqrt()) / _TAPS
    return window


def _interpolate(spectrum: Tensor, points: Tensor) -> Tensor:
    """Values at points (n, 3) of (kx, ky, kz), in pixels, of a full spectrum in FFT order."""
    size = spectrum.shape[-1]
    first = points.floor() - (_TAPS // 2 - 1)
    taps = first[..., None] + torch.arange(_TAPS, device=points.device)  # (n, 3, taps)
    weight = _kernel(points[..., None] - taps)
    index = taps.long() % size
    flat = spectrum.reshape(-1)
    value = torch.zeros(len(points), dtype=spectrum.dtype, device=points.device)
    for z in range(_TAPS):
        for y in range(_TAPS):
            row = (index[:, 2, z] * size + index[:, 1, y]) * size
            along_x = (flat[row[:, None] + index[:, 0]] * weight[:, 0]).sum(-1)
            value += along_x * (weight[:, 2, z] * weight[:, 1, y])
    return value
