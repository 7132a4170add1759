"""Discrete Fourier transforms with the origin at pixel D // 2: the project's only fftshift.

Real-space arrays are indexed [..., (z,) y, x] with the origin at pixel `D // 2` of each axis
(RELION's convention, for odd D too). "Half" spectra are those of a real array: axes
[..., (kz,) ky, kx] with ky, kz in FFT order (0, 1, ..., -1) and kx = 0 ... D // 2, the phase
origin being pixel `D // 2`. Frequencies are in cycles per pixel unless a name says otherwise.
"""

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


def _norm(vectors: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(vectors, dim=-1)
    return length


def _real_axes(dims: int) -> tuple[int, ...]:
    return tuple(range(-dims, 0))


def rfft(array: Tensor, dims: int = 2) -> Tensor:
    """Half spectrum of real `array` over its last `dims` axes (unnormalised)."""
    axes = _real_axes(dims)
    spectrum: Tensor = torch.fft.rfftn(torch.fft.ifftshift(array, dim=axes), dim=axes)
    return spectrum


def rfft_padded(array: Tensor, padded_size: int, dims: int = 2) -> Tensor:
    """`rfft(crop_or_pad(array, padded_size))` for a larger box, with half the memory."""
    box_size = array.shape[-1]
    axes = _real_axes(dims)
    array = torch.fft.ifftshift(array, dim=axes)
    for axis in axes:
        positive, negative = torch.tensor_split(array, [box_size - box_size // 2], dim=axis)
        gap = list(array.shape)
        gap[axis] = padded_size - box_size
        array = torch.cat((positive, array.new_zeros(gap), negative), dim=axis)
    spectrum: Tensor = _RealTransform.apply(array, axes)  # type: ignore[no-untyped-call]
    return spectrum


class _RealTransform(torch.autograd.Function):
    """`torch.fft.rfftn` with its adjoint as derivative.

    Torch's own derivative goes through the full complex spectrum: twice the memory and time,
    which for a padded volume is most of what a training step needs at large boxes.
    """

    @staticmethod
    def forward(ctx: Any, array: Tensor, axes: tuple[int, ...]) -> Tensor:
        ctx.axes, ctx.box_size = axes, array.shape[-1]
        spectrum: Tensor = torch.fft.rfftn(array, dim=axes)
        return spectrum

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _RealTransformAdjoint.apply(gradient, ctx.axes, ctx.box_size), None  # type: ignore[no-untyped-call]


class _RealTransformAdjoint(torch.autograd.Function):
    """Sum over the stored half of the spectrum; its own adjoint is `_RealTransform`."""

    @staticmethod
    def forward(ctx: Any, spectrum: Tensor, axes: tuple[int, ...], box_size: int) -> Tensor:
        ctx.axes = axes
        once = spectrum / half_weights(box_size, spectrum.device).to(spectrum.real.dtype)
        sizes = (box_size,) * len(axes)
        array: Tensor = torch.fft.irfftn(once, s=sizes, dim=axes, norm="forward")
        return array

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _RealTransform.apply(gradient, ctx.axes), None, None  # type: ignore[no-untyped-call]


def irfft(spectrum: Tensor, box_size: int, dims: int = 2) -> Tensor:
    """Inverse of `rfft` for a (square, cubic) array of `box_size`."""
    axes = _real_axes(dims)
    array: Tensor = torch.fft.irfftn(spectrum, s=(box_size,) * dims, dim=axes)
    return array.roll([box_size // 2] * dims, dims=axes)


def rfft_of_padded(array: Tensor, padded_size: int, dims: int = 3) -> Tensor:
    """`rfft_padded` without derivatives: lines of zeros are not transformed."""
    box_size = array.shape[-1]
    axes = _real_axes(dims)
    found: Tensor = torch.fft.ifftshift(array, dim=axes)
    for axis in reversed(axes):
        positive, negative = torch.tensor_split(found, [box_size - box_size // 2], dim=axis)
        gap = list(found.shape)
        gap[axis] = padded_size - box_size
        found = torch.cat((positive, found.new_zeros(gap), negative), dim=axis)
        found = torch.fft.fft(found, dim=axis) if axis < -1 else torch.fft.rfft(found)
    return found


def irfft_cropped(
    spectrum: Tensor, padded_size: int, box_size: int, dims: int = 3, gain: Tensor | None = None
) -> Tensor:
    """`crop_or_pad(irfft(spectrum, padded_size), box_size)`: lines that are cut are not made.

    Args:
        spectrum: half spectrum of a box of `padded_size`.
        padded_size: P.
        box_size: D, no more than P.
        dims: of the box.
        gain: (P // 2 + 1,) that columns of kx are multiplied by first.
    """
    found = spectrum
    for axis in _real_axes(dims):
        if axis < -1:
            found = torch.fft.ifft(found, dim=axis)
        else:
            found = found if gain is None else found * gain
            found = torch.fft.irfft(found, n=padded_size)
        positive = found.narrow(axis, 0, box_size - box_size // 2)
        negative = found.narrow(axis, padded_size - box_size // 2, box_size // 2)
        found = torch.cat((negative, positive), dim=axis)
    return found


def shift_zero_to_centre(spectrum: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Move frequency 0 of the given axes from index 0 to index D // 2."""
    return spectrum.roll([spectrum.shape[axis] // 2 for axis in axes], dims=axes)


@lru_cache(maxsize=64)
def _grid(box_size: int, dims: int, device: torch.device) -> Tensor:
    full = torch.fft.fftfreq(box_size, device=device)
    half = torch.fft.rfftfreq(box_size, device=device)
    axes = [full] * (dims - 1) + [half]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], dim=-1)


def frequency_grid(box_size: int, dims: int = 2, device: torch.device | str = "cpu") -> Tensor:
    """Frequencies (kx, ky[, kz]) of a half spectrum, cycles/pixel: (..., D, D//2+1, dims)."""
    return _grid(box_size, dims, torch.device(device))


@lru_cache(maxsize=64)
def _shells(box_size: int, dims: int, device: torch.device) -> Tensor:
    return (_norm(_grid(box_size, dims, device)) * box_size).round().long()


def shell_index(box_size: int, dims: int = 2, device: torch.device | str = "cpu") -> Tensor:
    """Shell number round(|k| D) of every coefficient of a half spectrum."""
    return _shells(box_size, dims, torch.device(device))


def half_weights(box_size: int, device: torch.device | str = "cpu") -> Tensor:
    """How often each kx of a half spectrum stands in the full one: 1 or 2; (D // 2 + 1,)."""
    weights = torch.full((box_size // 2 + 1,), 2.0, device=device)
    weights[0] = 1.0
    if box_size % 2 == 0:
        weights[-1] = 1.0
    return weights


def shell_sum(values: Tensor, box_size: int, dims: int = 2) -> Tensor:
    """Sum real half-spectrum `values` over full-spectrum shells 0 ... D // 2.

    Args:
        values: (..., D, D // 2 + 1) (or 3D) real tensor.

    Returns:
        (..., D // 2 + 1) sums; coefficients beyond shell D // 2 are left out.
    """
    shells = shell_index(box_size, dims, values.device).flatten()
    weighted = (values * half_weights(box_size, values.device)).flatten(-dims)
    count = box_size // 2 + 1
    total = weighted.new_zeros((*weighted.shape[:-1], int(shells.max()) + 1))
    return total.index_add_(-1, shells, weighted)[..., :count]


def shell_mean(values: Tensor, box_size: int, dims: int = 2) -> Tensor:
    """Mean of real half-spectrum `values` over full-spectrum shells 0 ... D // 2."""
    ones = torch.ones(values.shape[-dims:], device=values.device)
    return shell_sum(values, box_size, dims) / shell_sum(ones, box_size, dims)


def band_mask(
    box_size: int, radius: float, dims: int = 2, device: torch.device | str = "cpu"
) -> Tensor:
    """1.0 where |k| D < `radius` (in Fourier pixels), else 0.0; half-spectrum shape."""
    return (_norm(frequency_grid(box_size, dims, device)) * box_size < radius).float()


def rings_within(box_size: int, band: float) -> int:
    """Number of whole shells 1, 2, ... strictly inside a fraction `band` of Nyquist."""
    return min(math.ceil(band * box_size / 2), box_size // 2) - 1


def low_pass(box_size: int, resolution_px: float, dims: int = 2) -> Tensor:
    """Gaussian gains of a half spectrum, 1/2 at the frequency 1 / `resolution_px`.

    In real space a Gaussian of σ = 0.187 × resolution, one of the conventions of `molmap`
    (UCSF Chimera).
    """
    return torch.exp2(-(frequency_grid(box_size, dims) * resolution_px).square().sum(-1))


def resize(spectrum: Tensor, box_size: int, new_size: int, dims: int = 2) -> Tensor:
    """Crop or zero-pad a half spectrum to the box `new_size`, same field of view.

    Values are kept as they are (no normalisation). The Nyquist coefficients of an even box
    have no partner of opposite sign, so they are set to zero when the size changes.
    """
    if new_size == box_size:
        return spectrum
    small = min(box_size, new_size)
    keep = (small - 1) // 2
    result = spectrum.new_zeros(
        (*spectrum.shape[:-dims], *[new_size] * (dims - 1), new_size // 2 + 1)
    )
    positive = slice(0, keep + 1)
    negative = slice(-keep, None)
    corners: list[tuple[Any, ...]] = [(positive,)]
    for _ in range(dims - 1):
        corners = [(half, *rest) for rest in corners for half in (positive, negative)]
    for corner in corners:
        block: tuple[Any, ...] = (..., *corner)
        result[block] = spectrum[block]
    return result


def resample(array: Tensor, new_size: int, dims: int = 2) -> Tensor:
    """Fourier-resample real `array` to box `new_size`, same field of view, grey values kept."""
    box_size = array.shape[-1]
    if new_size == box_size:
        return array
    spectrum = resize(rfft(array, dims), box_size, new_size, dims)
    return irfft(spectrum, new_size, dims) * (new_size / box_size) ** dims


def crop_or_pad(array: Tensor, new_size: int, dims: int = 2) -> Tensor:
    """Cut out or zero-pad real `array` about its origin (pixel D // 2), same pixel size."""
    box_size = array.shape[-1]
    before = new_size // 2 - box_size // 2
    after = new_size - box_size - before
    return torch.nn.functional.pad(array, (before, after) * dims)


@lru_cache(maxsize=64)
def _radius(box_size: int, dims: int, device: torch.device) -> Tensor:
    axis = torch.arange(box_size, device=device, dtype=torch.float32) - box_size // 2
    return torch.stack(torch.meshgrid(*[axis] * dims, indexing="ij")).square().sum(0).sqrt()


def radius_grid(box_size: int, dims: int = 2, device: torch.device | str = "cpu") -> Tensor:
    """Distance of every pixel (voxel) from the origin, in pixels."""
    return _radius(box_size, dims, torch.device(device))


def soft_disc(
    box_size: int, radius: float, edge: float, dims: int = 2, device: torch.device | str = "cpu"
) -> Tensor:
    """Raised-cosine disc (ball): 1 inside `radius` px, 0 beyond `radius + edge` px."""
    distance = (radius_grid(box_size, dims, device) - radius) / max(edge, 1e-6)
    return 0.5 + 0.5 * torch.cos(torch.pi * distance.clamp(0.0, 1.0))


def dihedral(images: Tensor, code: int) -> Tensor:
    """One of the 8 symmetries of the pixel grid about the origin pixel D // 2.

    `code % 4` quarter turns, after a mirror (x to -x) if `code >= 4`. For even D the row and
    column at -D / 2, which have no partner, stay what they are (the image is periodic).
    """
    back = 1 - images.shape[-1] % 2
    if code >= 4:
        images = images.flip(-1).roll(back, -1)
    turns = code % 4
    if turns == 0:
        return images
    turned = torch.rot90(images, turns, dims=(-2, -1))
    offset = {1: (back, 0), 2: (back, back), 3: (0, back)}[turns]
    return turned.roll(offset, dims=(-2, -1))
