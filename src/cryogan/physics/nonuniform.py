"""Spectra of images at any frequencies: an FFT twice as fine, interpolated.

The interpolating kernel is a Kaiser-Bessel function (Fessler & Sutton, IEEE Trans. Signal Process.
51, 2003; its shape: Beatty, Nishimura & Pauly, IEEE Trans. Med. Imaging 24, 2005), whose transform
is divided out of the image first. Errors are of the order of float32's rounding.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cryogan import fourier

_WIDTH = 8  # of the kernel, in pixels of the fine FFT
_FINER = 2
_SHAPE = math.pi * math.sqrt((_WIDTH / _FINER * (_FINER - 0.5)) ** 2 - 0.8)
_AT_ONCE = 64  # images


@dataclass(frozen=True)
class SpectrumSampler:
    """Reads the spectra of images (D, D) at N frequencies.

    Attributes:
        gain: (D, D) what images are multiplied by first.
        place: (N, 64) which coefficients of the fine half spectrum count.
        weight: (2, N, 64) how much, for their real and imaginary parts.
    """

    gain: Tensor
    place: Tensor
    weight: Tensor

    @classmethod
    def of(cls, window: Tensor, frequency: Tensor) -> "SpectrumSampler":
        """Of images times a window.

        Args:
            window: (D, D), D even.
            frequency: (N, 2) of (kx, ky), cycles per pixel, below half a cycle.
        """
        size, device = len(window), window.device
        fine = _FINER * size
        at = frequency.double() * fine
        near = at.floor()[..., None] + torch.arange(1 - _WIDTH // 2, 1 + _WIDTH // 2, device=device)
        kernel = _kernel(near - at[..., None])  # (N, 2, W)
        column, row = (near[:, 0, None, :], near[:, 1, :, None])
        column = (column + size - 1) % fine - size + 1  # of the period about 0
        mirrored = column < 0  # F(-k) = conj F(k)
        sign = torch.where(mirrored, -1.0, 1.0)
        place = (row * sign) % fine * (size + 1) + column.abs()
        weight = kernel[:, 1, :, None] * kernel[:, 0, None, :]
        both = torch.stack((weight, weight * sign)).flatten(2).float()
        line = torch.arange(size, device=device, dtype=torch.float64) - size // 2
        line = 1.0 / _transform(line / fine)
        return cls(window * (line[:, None] * line).float(), place.long().flatten(1), both)

    def __call__(self, images: Tensor) -> Tensor:
        """(n, N) complex, of images (n, D, D)."""
        fine = _FINER * images.shape[-1]
        found = images.new_empty(len(images), len(self.place), dtype=torch.complex64)
        for mine, part in zip(
            torch.split(found, _AT_ONCE), torch.split(images, _AT_ONCE), strict=True
        ):
            spectra = fourier.rfft_padded(part * self.gain, fine).flatten(1).T
            for values, side, weight in (
                (mine.real, spectra.real, self.weight[0]),
                (mine.imag, spectra.imag, self.weight[1]),
            ):
                values[:] = torch.nn.functional.embedding_bag(
                    self.place, side.contiguous(), per_sample_weights=weight, mode="sum"
                ).T
        return found

    @cached_property
    def _by_place(self) -> tuple[Tensor, Tensor, Tensor]:
        """Samples that a coefficient counts in, coefficient by coefficient; where each begins."""
        size = len(self.gain)
        order = self.place.flatten().argsort(stable=True)
        counts = torch.bincount(self.place.flatten(), minlength=_FINER * size * (size + 1))
        begins = counts.cumsum(0) - counts
        return order // self.place.shape[1], begins, self.weight.flatten(1)[:, order]

    def adjoint(self, samples: Tensor) -> Tensor:
        """The gradient of `Re Σ conj(self(images)) samples`: images (n, D, D).

        Args:
            samples: (n, N) complex.
        """
        size = len(self.gain)
        fine = _FINER * size
        sample, begins, weights = self._by_place
        images = samples.real.new_empty(len(samples), size, size)
        for mine, part in zip(
            torch.split(images, _AT_ONCE), torch.split(samples, _AT_ONCE), strict=True
        ):
            sides = [
                torch.nn.functional.embedding_bag(
                    sample,
                    side.T.contiguous(),
                    offsets=begins,
                    per_sample_weights=weight,
                    mode="sum",
                ).T
                for side, weight in zip((part.real, part.imag), weights, strict=True)
            ]
            spectra = torch.complex(*sides).view(len(part), fine, size + 1)
            once = fine**2 / fourier.half_weights(fine, samples.device)
            mine[:] = fourier.irfft_cropped(spectra, fine, size, dims=2, gain=once) * self.gain
        return images


def _kernel(distance: Tensor) -> Tensor:
    """At distances in pixels of the fine FFT."""
    inside = (1.0 - (2.0 * distance / _WIDTH).square()).clamp_min(0.0)
    value: Tensor = torch.special.i0(_SHAPE * inside.sqrt())
    return value


def _transform(position: Tensor) -> Tensor:
    """Fourier transform of the kernel, at positions as a fraction of the fine FFT's box."""
    root = (_SHAPE**2 - (math.pi * _WIDTH * position).square()).sqrt()
    return _WIDTH * root.sinh() / root
