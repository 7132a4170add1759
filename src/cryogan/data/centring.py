"""Where particles are in their images, measured without poses, and images centred on them.

At wavelengths above the particle's diameter all its projections look much the same: like their mean
over all in-plane angles, a blob. That mean and the displacements of the images from it are
estimated together, by expectation-maximisation with a Gaussian density of displacements. What the
particle's own shape adds to a projection acts as further noise: of the signal's power less that of
the mean, so that each image's uncertainty is neither too small nor too large. (Finer wavelengths
would centre images on the densest part of the molecule.)
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.data.extent import diameter_of
from cryogan.data.statistics import Measurement, at_box, measure
from cryogan.particles import DerivedStack, Particles
from cryogan.physics.ctf import ctf
from cryogan.physics.imaging import Preprocessing, preprocess

_CHUNK = 512
_SAMPLE = 2000
_ITERATIONS = 12
_RINGS = 1.25  # of the box over the diameter
_LARGEST_BOX = 32
_FARTHEST = 0.35  # of the box
_START = 0.15  # of the box: the first standard deviation
_SHAPE = 0.1  # of the signal's power: the least that the particle's shape adds
_UNKNOWN = 0.03  # of the box
_LEAST = 0.4  # pixels of that box: a narrower density would fall between them


@dataclass(frozen=True)
class Displacements:
    """Where the particles of a set are in their images.

    Attributes:
        centre_px: (n, 2) int64 (x, y), the posterior mean of each image, in whole pixels.
        sd_A: standard deviation of the displacements along an axis.
        remaining_sd_A: the same once images are centred: of the posteriors.
        diameter_A: of the particle in the centred images; None if their power has no bounds.
    """

    centre_px: Tensor
    sd_A: float
    remaining_sd_A: float
    diameter_A: float | None


@dataclass(frozen=True)
class CentredStack(DerivedStack):
    """The images of `parent`, rolled by whole pixels: an `ImageStack`.

    What leaves the box on one side comes in on the other, so that noise stays what it was.
    """

    centre_px: Tensor

    def read(self, index: Tensor) -> Tensor:
        images, size = self.parent.read(index), self.box_size
        pixel = torch.arange(size)
        x, y = self.centre_px[index].T
        row = (pixel + y[:, None]) % size
        column = (pixel + x[:, None]) % size
        number = torch.arange(len(images))[:, None, None]
        return images[number, row[:, :, None], column[:, None, :]]


def centred(particles: Particles) -> tuple[Particles, Displacements]:
    """The particles (normalised) with centred images, and where they were.

    What was found is added to the summary of the particles' source.

    Raises:
        InputError: an image cannot be read.
    """
    measured = measure(particles)
    found = measure_displacements(particles, measured)
    stack = CentredStack(particles.stack, found.centre_px)
    after = replace(particles, stack=stack)
    found = replace(found, diameter_A=diameter_of(after.subset(_sample(after)), measured))
    source = particles.source
    if source is not None:
        if found.diameter_A is None:
            words = (
                "the power of the images has no bounds: neither the particles' size nor where they "
                f"are can be measured; shifts of {found.sd_A:.1f} Å (standard deviation along each "
                "axis) are supposed"
            )
        else:
            words = (
                f"images centred on reading: particles are {found.sd_A:.1f} Å off centre along "
                f"each axis, {found.remaining_sd_A:.1f} Å once centred (standard deviations); "
                f"their diameter is about {found.diameter_A:.0f} Å"
            )
        source = replace(source, summary=f"{source.summary}\n{words}")
    return replace(after, source=source), found


def measure_displacements(particles: Particles, measured: Measurement) -> Displacements:
    """Displacements of flat images; their density and the mean image are learnt on 2,000 of them.

    Images whose power has no bounds are left where they are, with a standard deviation of 3 % of
    the box: there is nothing to measure displacements by.

    Args:
        particles: the images.
        measured: their spectra and unit.
    """
    sample = _sample(particles)
    width_A = particles.box_size * particles.pixel_size_A
    found_A = diameter_of(particles.subset(sample), measured)
    if found_A is None:
        unmoved = torch.zeros(len(particles), 2, dtype=torch.int64)
        return Displacements(unmoved, _UNKNOWN * width_A, _UNKNOWN * width_A, None)
    size = min(_LARGEST_BOX, particles.box_size - particles.box_size % 2)
    rings = min(max(2, round(_RINGS * width_A / found_A)), size // 2 - 1)
    model = _Blob.first(measured, size, rings)
    few = list(_spectra(particles, measured, sample, size))
    for _ in range(_ITERATIONS):
        model = model.better(few)
    found = [
        model.posterior(*part)[:2]
        for part in _spectra(particles, measured, torch.arange(len(particles)), size)
    ]
    mean, variance = (torch.cat(column) for column in zip(*found, strict=True))
    pixels_A = width_A / particles.box_size
    return Displacements(
        (mean * width_A / pixels_A).round().long(),
        float(model.variance.sqrt()) * width_A,
        float((variance.mean() / 2.0).sqrt()) * width_A,
        found_A,
    )


def _sample(particles: Particles) -> Tensor:
    return torch.linspace(0, len(particles) - 1, min(_SAMPLE, len(particles))).round().long()


def _spectra(
    particles: Particles, measured: Measurement, index: Tensor, size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Per chunk the unitary Fourier coefficients y and the CTFs C (n, D, D // 2 + 1)."""
    pixel_size_A = particles.pixel_size_A * particles.box_size / size
    for part in torch.split(index, _CHUNK):
        images = preprocess(particles.stack.read(part) * measured.gain, Preprocessing(size))
        yield fourier.rfft(images) / size, ctf(particles.ctf[part], size, pixel_size_A)


@dataclass(frozen=True)
class _Blob:
    """The mean image and the density of its displacements.

    Attributes:
        profile: (size // 2 + 1,) real Fourier coefficients of the mean image by shell.
        middle: (2,) mean displacement (x, y), in units of the box.
        variance: of displacements along an axis, same unit.
        signal: (size // 2 + 1,) power of the projections, the mean's included.
        noise: (size // 2 + 1,) power of the noise.
        rings: the shells that are used.
    """

    profile: Tensor
    middle: Tensor
    variance: Tensor
    signal: Tensor
    noise: Tensor
    rings: int

    @classmethod
    def first(cls, measured: Measurement, size: int, rings: int) -> "_Blob":
        """A blob of half the signal's power."""
        signal = at_box(measured.spectra.signal, size).clamp_min(0.0)
        profile = torch.where(torch.arange(len(signal)) <= rings, (0.5 * signal).sqrt(), 0.0)
        noise = at_box(measured.spectra.noise, size)
        return cls(profile, torch.zeros(2), torch.tensor(_START**2), signal, noise, rings)

    @property
    def size(self) -> int:
        return 2 * (len(self.profile) - 1)

    def weighted(self, plane: Tensor, transfer: Tensor) -> tuple[Tensor, Tensor]:
        """C y / P and C² / P in the rings, P the power of noise and of what shape adds."""
        shells = fourier.shell_index(self.size)
        inside = (shells > 0) & (shells <= self.rings)
        shape = torch.maximum(self.signal - self.profile.square(), _SHAPE * self.signal)
        noise, shape = (each[shells.clamp_max(self.size // 2)] for each in (self.noise, shape))
        weight = transfer * inside / (noise + transfer.square() * shape).clamp_min(1e-20)
        return plane * weight, transfer * weight

    def posterior(self, plane: Tensor, transfer: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Means (n, 2) and variances (n,), of x and y together, and densities (n, D, D)."""
        size = self.size
        image, weight = self.weighted(plane, transfer)
        mean_image = self.profile[fourier.shell_index(size).clamp_max(size // 2)]
        half = fourier.half_weights(size)
        x = (torch.arange(size) - size // 2) / size
        apart = (x[:, None] - self.middle[1]).square() + (x - self.middle[0]).square()
        score = fourier.irfft(image * mean_image, size) * size**2
        score = score - 0.5 * (weight * half * mean_image.square()).sum((-2, -1))[:, None, None]
        score = score - 0.5 * apart / self.variance
        score = torch.where(x[:, None].square() + x.square() <= _FARTHEST**2, score, -math.inf)
        density = torch.softmax(score.flatten(1), dim=1).view_as(score)
        mean = torch.stack(((density.sum(1) * x).sum(1), (density.sum(2) * x).sum(1)), dim=1)
        second = (density * (x[:, None].square() + x.square())).sum((-2, -1))
        return mean, second - mean.square().sum(1), density

    def better(self, chunks: list[tuple[Tensor, Tensor]]) -> "_Blob":
        """After an iteration of expectation-maximisation."""
        size = self.size
        moved, total = torch.zeros(size, size // 2 + 1), torch.zeros(size, size // 2 + 1)
        means, variances = [], []
        for plane, transfer in chunks:
            mean, variance, density = self.posterior(plane, transfer)
            image, weight = self.weighted(plane, transfer)
            moved += (image * fourier.rfft(density).conj()).real.sum(0)
            total += weight.sum(0)
            means.append(mean)
            variances.append(variance)
        mean, variance = torch.cat(means), torch.cat(variances)
        middle = mean.mean(0)
        profile = fourier.shell_sum(moved, size) / fourier.shell_sum(total, size).clamp_min(1e-20)
        spread = ((mean - middle).square().sum(1) + variance).mean() / 2.0
        spread = spread.clamp_min((_LEAST / size) ** 2)
        return replace(self, profile=profile, middle=middle, variance=spread)
