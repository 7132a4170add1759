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
from cryogan.data.parts import in_parts, row_by_row
from cryogan.data.statistics import Measurement, at_box, measure
from cryogan.particles import DerivedStack, Particles
from cryogan.physics.ctf import ctf
from cryogan.physics.imaging import Preprocessing, preprocess

_SAMPLE = 2000
_ITERATIONS = 12
_RINGS = 1.25  # of the box over the diameter
_LARGEST_BOX = 32
_FARTHEST = 0.35  # of the box
_START = 0.15  # of the box: the first standard deviation
_SHAPE = 0.1  # of the signal's power: the least that the particle's shape adds
_UNKNOWN = 0.03  # of the box
_SUPPOSED_JUNK = 0.05
_LEAST_JUNK = 1e-3
_MOST_JUNK = 0.5
_FIELDS = (0.0, 1.0, 4.0)  # power of what junk adds, in units of the signal's
_LEAST = 0.4  # pixels of that box: a narrower density would fall between them


@dataclass(frozen=True)
class Displacements:
    """Where the particles of a set are in their images.

    Attributes:
        centre_px: (n, 2) int64 (x, y), the posterior mean of each image, in whole pixels.
        sd_A: standard deviation of the displacements along an axis.
        remaining_sd_A: the same once images are centred: of the posteriors.
        diameter_A: of the particle in the centred images; None if their power has no bounds.
        particle_probability: (n,) that an image shows a particle, and not noise alone, or what is
            stronger or spread otherwise.
    """

    centre_px: Tensor
    sd_A: float
    remaining_sd_A: float
    diameter_A: float | None
    particle_probability: Tensor


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

    What was found is added to the summary of the particles' source, and kept as
    `Particles.particle_probability`.

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
    return replace(after, source=source, particle_probability=found.particle_probability), found


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
        width_A *= _UNKNOWN
        return Displacements(unmoved, width_A, width_A, None, torch.ones(len(particles)))
    size = min(_LARGEST_BOX, particles.box_size - particles.box_size % 2)
    rings = min(max(2, round(_RINGS * width_A / found_A)), size // 2 - 1)
    used = _Coefficients.of(size, rings)
    model = _Blob.first(measured, size, rings)
    few = list(used.of_images(particles, measured, sample))
    for _ in range(_ITERATIONS):
        model = model.better(few, used)
    everything = used.of_images(particles, measured, torch.arange(len(particles)))
    located = (model.located(*part, used) for part in everything)
    found = ((each.mean, each.variance, each.particle) for each in located)
    mean, variance, particle = row_by_row(found, len(particles))
    remaining = 0.5 * (particle @ variance) / particle.sum().clamp_min(1e-6)
    return Displacements(
        (mean * particles.box_size).round().long(),
        float(model.variance.sqrt()) * width_A,
        float(remaining.sqrt()) * width_A,
        found_A,
        particle,
    )


def _sample(particles: Particles) -> Tensor:
    return torch.linspace(0, len(particles) - 1, min(_SAMPLE, len(particles))).round().long()


@dataclass(frozen=True)
class _Coefficients:
    """Which Fourier coefficients of an image are used, and what they are of a displaced point.

    Attributes:
        size: D, of the box.
        inside: (D, D // 2 + 1) those of rings 1, 2 ...
        ring: (K,) from 0.
        count: (K,) how often each counts: one that stands for its complex conjugate too, twice.
        places: (P, 2) displacements (x, y) that are possible, in units of the box.
        phase: (P, K) exp(-2πi k·d).
    """

    size: int
    inside: Tensor
    ring: Tensor
    count: Tensor
    places: Tensor
    phase: Tensor

    @classmethod
    def of(cls, size: int, rings: int) -> "_Coefficients":
        shells = fourier.shell_index(size)
        inside = (shells > 0) & (shells <= rings)
        count = fourier.half_weights(size).expand_as(shells)[inside]
        axis = (torch.arange(size) - size // 2) / size
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        places = torch.stack((x, y), dim=-1).flatten(0, 1)
        places = places[places.norm(dim=1) <= _FARTHEST]
        frequency = fourier.frequency_grid(size, 2)[inside] * size
        phase = torch.polar(torch.ones(()), -2.0 * math.pi * places @ frequency.T)
        return cls(size, inside, shells[inside] - 1, count, places, phase)

    def by_ring(self, values: Tensor) -> Tensor:
        """(R,) sums of (K,) values."""
        return values.new_zeros(int(self.ring.max()) + 1).index_add_(0, self.ring, values)

    def of_images(
        self, particles: Particles, measured: Measurement, index: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Per chunk the unitary Fourier coefficients y and the CTFs C, (n, K) each."""
        pixel_size_A = particles.pixel_size_A * particles.box_size / self.size
        for part in in_parts(index, particles.stack):
            images = particles.stack.read(part) * measured.gain
            images = preprocess(images, Preprocessing(self.size))
            transfer = ctf(particles.ctf[part], self.size, pixel_size_A)
            yield fourier.rfft(images)[:, self.inside] / self.size, transfer[:, self.inside]


@dataclass(frozen=True)
class _Located:
    """What is known of n images.

    Attributes:
        mean: (n, 2) posterior mean of the displacements, in units of the box.
        variance: (n,) of x and y together.
        density: (n, P) posterior of the displacements.
        particle: (n,) probability that an image shows a particle.
    """

    mean: Tensor
    variance: Tensor
    density: Tensor
    particle: Tensor


@dataclass(frozen=True)
class _Blob:
    """The mean image, the density of its displacements, and the share of images without it.

    Attributes:
        profile: (R,) real Fourier coefficients of the mean image by ring.
        middle: (2,) mean displacement (x, y), in units of the box.
        variance: of displacements along an axis, same unit.
        signal: (R,) power of the projections, the mean's included.
        noise: (R,) power of the noise.
        junk_share: of images without a particle.
    """

    profile: Tensor
    middle: Tensor
    variance: Tensor
    signal: Tensor
    noise: Tensor
    junk_share: float = _SUPPOSED_JUNK

    @classmethod
    def first(cls, measured: Measurement, size: int, rings: int) -> "_Blob":
        """A blob of half the signal's power."""
        signal, noise = (
            at_box(power, size)[1 : rings + 1].clamp_min(1e-20)
            for power in (measured.spectra.signal, measured.spectra.noise)
        )
        return cls((0.5 * signal).sqrt(), torch.zeros(2), torch.tensor(_START**2), signal, noise)

    def power(self, transfer: Tensor, used: _Coefficients) -> Tensor:
        """(n, K) of noise and of what the particle's shape adds."""
        shape = torch.maximum(self.signal - self.profile.square(), _SHAPE * self.signal)
        return self.noise[used.ring] + transfer.square() * shape[used.ring]

    def without_particle(self, plane: Tensor, transfer: Tensor, used: _Coefficients) -> Tensor:
        """(n,) log-likelihoods of noise, or of a field of one or four times the signal's power."""
        signal = transfer.square() * self.signal[used.ring]
        kinds = [_of_field(plane, self.noise[used.ring] + k * signal, used) for k in _FIELDS]
        return torch.logsumexp(torch.stack(kinds), dim=0) - math.log(len(kinds))

    def located(self, plane: Tensor, transfer: Tensor, used: _Coefficients) -> _Located:
        """Where the particles of images are, given Fourier coefficients and CTFs."""
        places, power = used.places, self.power(transfer, used)
        prior = -0.5 * (places - self.middle).square().sum(1) / self.variance
        mean_image = transfer * self.profile[used.ring]
        linear = plane * mean_image / power * used.count
        fixed = 0.5 * (mean_image.square() / power * used.count).sum(1)
        score = linear.real @ used.phase.real.T + linear.imag @ used.phase.imag.T
        score = score - fixed[:, None] + torch.log_softmax(prior, dim=0)
        density = torch.softmax(score, dim=1)
        mean = density @ places
        variance = density @ places.square().sum(1) - mean.square().sum(1)
        here = _of_field(plane, power, used) + torch.logsumexp(score, dim=1)
        odds = math.log((1.0 - self.junk_share) / self.junk_share)
        particle = torch.sigmoid(here - self.without_particle(plane, transfer, used) + odds)
        return _Located(mean, variance, density, particle)

    def better(self, chunks: list[tuple[Tensor, Tensor]], used: _Coefficients) -> "_Blob":
        """After an iteration of expectation-maximisation."""
        moved, weight, excess, square = torch.zeros(4, len(used.ring))
        found = []
        for plane, transfer in chunks:
            each = self.located(plane, transfer, used)
            here = torch.complex(each.density @ used.phase.real, each.density @ used.phase.imag)
            share = each.particle[:, None] * transfer / self.power(transfer, used)
            moved += (share * (plane * here.conj()).real).sum(0)
            weight += (share * transfer).sum(0)
            power = each.particle[:, None] * transfer.square()
            excess += (power * (plane.abs().square() - self.noise[used.ring])).sum(0)
            square += (power * transfer.square()).sum(0)
            found.append(each)
        mean = torch.cat([each.mean for each in found])
        variance = torch.cat([each.variance for each in found])
        particle = torch.cat([each.particle for each in found])
        share = particle / particle.sum().clamp_min(1e-6)
        middle = share @ mean
        spread = 0.5 * (share @ ((mean - middle).square().sum(1) + variance))
        profile, signal = (
            used.by_ring(over * used.count) / used.by_ring(under * used.count).clamp_min(1e-20)
            for over, under in ((moved, weight), (excess, square))
        )
        return replace(
            self,
            profile=profile,
            middle=middle,
            variance=spread.clamp_min((_LEAST / used.size) ** 2),
            signal=signal.clamp_min(1e-20),
            junk_share=min(max(1.0 - float(particle.mean()), _LEAST_JUNK), _MOST_JUNK),
        )


def _of_field(plane: Tensor, power: Tensor, used: _Coefficients) -> Tensor:
    """(n,) log-likelihoods of coefficients (n, K) of a Gaussian field of some power."""
    return -0.5 * (plane.abs().square() / power + power.log()) @ used.count
