"""Noise of known statistics: white, coloured, or measured background."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.particles import ImageStack


def white(n: int, box_size: int, generator: torch.Generator) -> Tensor:
    """(n, D, D) standard normal pixels on the CPU."""
    return torch.randn(n, box_size, box_size, generator=generator)


def colour(images: Tensor, spectrum: Tensor) -> Tensor:
    """Give white images a radial power spectrum; differentiable in `spectrum`.

    Args:
        images: (n, D, D) of unit variance.
        spectrum: (D // 2 + 1,) variance per pixel that each shell contributes, relative to
            white noise: all ones returns the images without the corners beyond Nyquist.
    """
    box_size = images.shape[-1]
    shells = fourier.shell_index(box_size, 2, images.device)
    gain = torch.cat((spectrum.clamp_min(0.0).sqrt(), spectrum.new_zeros(1)))
    filtered = fourier.rfft(images) * gain[shells.clamp_max(box_size // 2 + 1)]
    return fourier.irfft(filtered, box_size)


def radial_spectrum(images: Tensor) -> Tensor:
    """Mean power of each shell, in `colour`'s units: 1 for white noise of unit variance."""
    box_size = images.shape[-1]
    power = fourier.rfft(images).abs().square() / box_size**2
    return fourier.shell_mean(power, box_size).mean(0)


@dataclass(frozen=True)
class BackgroundPatches:
    """Noise resampled from measured, particle-free patches of the micrographs.

    A patch is turned by a random multiple of 90° and flipped at random: the noise of a detector
    has these symmetries, and eight times as many images come of the same patches.
    """

    stack: ImageStack

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, D, D) patches, each of zero mean, on the CPU."""
        index = torch.randint(len(self.stack), (n,), generator=generator)
        turn = torch.randint(8, (n,), generator=generator)
        patches = self.stack.read(index)
        for code in range(8):
            chosen = turn == code
            if chosen.any():
                turned = torch.rot90(patches[chosen], code % 4, dims=(-2, -1))
                patches[chosen] = turned.flip(-1) if code >= 4 else turned
        return patches - patches.mean(dim=(-2, -1), keepdim=True)
