"""Noise of known statistics: white, coloured, or measured background.

One description serves simulation, adversarial training (which draws from it) and the likelihood
(which needs its power). A noise model of your own needs `box_size` and `sample`; one that is made
by a function of the particles can be named as `package.module:function`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.particles import ArrayStack, ImageStack, Particles


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
    return fourier.irfft(fourier.rfft(images) * _ring_amplitude(spectrum, box_size), box_size)


def _ring_amplitude(spectrum: Tensor, box_size: int) -> Tensor:
    """(D, D // 2 + 1) root of a radial spectrum, 0 beyond Nyquist."""
    shells = fourier.shell_index(box_size, 2, spectrum.device)
    gain = torch.cat((spectrum.clamp_min(0.0).sqrt(), spectrum.new_zeros(1)))
    return gain[shells.clamp_max(box_size // 2 + 1)]


def radial_spectrum(images: Tensor) -> Tensor:
    """Mean power of each shell, in `colour`'s units: 1 for white noise of unit variance."""
    box_size = images.shape[-1]
    power = fourier.rfft(images).abs().square() / box_size**2
    return fourier.shell_mean(power, box_size).mean(0)


class NoiseModel(ABC):
    """A distribution of noise images (D, D).

    Example:
        >>> import torch
        >>> from cryogan.physics.noise import WhiteNoise
        >>> noise = WhiteNoise(32, sigma=2.0)
        >>> noise.sample(4, torch.Generator().manual_seed(0)).shape
        torch.Size([4, 32, 32])
        >>> noise.power()[1:4]
        tensor([4., 4., 4.])
    """

    @property
    @abstractmethod
    def box_size(self) -> int:
        """D."""

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, D, D) on the CPU."""

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, D, D) the random part of `sample`, on the CPU; by default all of it."""
        return self.sample(n, generator)

    def finish(self, images: Tensor) -> Tensor:
        """What `draw` has left to do, image by image, on any device; by default nothing."""
        return images

    def power(self) -> Tensor:
        """(D // 2 + 1,) mean power of each ring, in `radial_spectrum`'s units.

        Measured on `examples`, unless a model knows better.
        """
        return radial_spectrum(self.examples())

    def examples(self) -> Tensor:
        """(n, D, D) on which its spectrum can be measured: 1,024 samples, or all there is."""
        return self.sample(1024, torch.Generator().manual_seed(0))

    def transformed(self, change: Callable[[Tensor], Tensor]) -> NoiseModel:
        """The distribution of `change`, linear, of images (n, D, D): scaled, cropped, windowed."""
        return _Transformed(self, change)


NoiseFactory = Callable[[Particles], NoiseModel]
"""Makes the noise model of particles as they are in their file, not cropped."""


@dataclass(frozen=True)
class _Transformed(NoiseModel):
    parent: NoiseModel
    change: Callable[[Tensor], Tensor]

    @property
    def box_size(self) -> int:
        size = self.parent.box_size
        return int(self.change(torch.zeros(1, size, size)).shape[-1])

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return self.change(self.parent.sample(n, generator))


@dataclass(frozen=True)
class WhiteNoise(NoiseModel):
    """Independent Gaussian pixels of standard deviation `sigma`; zeros where that is 0."""

    size: int
    sigma: float = 1.0

    @property
    def box_size(self) -> int:
        return self.size

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        if self.sigma == 0.0:
            return torch.zeros(n, self.size, self.size)
        images = white(n, self.size, generator)
        return images if self.sigma == 1.0 else self.sigma * images

    def power(self) -> Tensor:
        return torch.full((self.size // 2 + 1,), self.sigma**2)


def white_noise(particles: Particles) -> NoiseModel:
    """White noise for particles."""
    return WhiteNoise(particles.box_size)


@dataclass(frozen=True, eq=False)
class ColouredNoise(NoiseModel):
    """Gaussian noise whose power depends on spatial frequency.

    Attributes:
        amplitude: (D, D // 2 + 1) what the coefficients of unit white noise are multiplied by.
    """

    amplitude: Tensor

    @classmethod
    def of_spectrum(cls, spectrum: Tensor, box_size: int) -> ColouredNoise:
        """With a radial power spectrum (D // 2 + 1,), in `colour`'s units."""
        return cls(_ring_amplitude(spectrum, box_size))

    @property
    def box_size(self) -> int:
        return self.amplitude.shape[0]

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return self.finish(self.draw(n, generator))

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        return white(n, self.box_size, generator)

    def finish(self, images: Tensor) -> Tensor:
        plane = fourier.rfft(images) * self.amplitude.to(images.device)
        return fourier.irfft(plane, self.box_size)

    def power(self) -> Tensor:
        return fourier.shell_mean(self.amplitude.square()[None], self.box_size)[0]


@dataclass(frozen=True)
class BackgroundPatches(NoiseModel):
    """Noise resampled from measured, particle-free patches of the micrographs.

    A patch is turned by a random multiple of 90° and flipped at random: the noise of a detector
    has these symmetries, and eight times as many images come of the same patches.
    """

    stack: ImageStack

    @property
    def box_size(self) -> int:
        return self.stack.box_size

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

    def transformed(self, change: Callable[[Tensor], Tensor]) -> NoiseModel:
        return BackgroundPatches(ArrayStack(change(self.examples())))

    def examples(self) -> Tensor:
        """All patches as they are."""
        return self.stack.read(torch.arange(len(self.stack)))
