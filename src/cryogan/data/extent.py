"""How large a particle is and how far off-centre, from images of unknown pose."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.data.parts import in_parts
from cryogan.data.statistics import Measurement, at_box
from cryogan.particles import ArrayStack, Particles
from cryogan.physics.ctf import ctf
from cryogan.physics.imaging import Preprocessing, preprocess
from cryogan.physics.spectra import PowerSpectra

_CHUNK = 256
_LEVEL = 0.02
_SHAPE = 0.04  # of the diameter: spread that an asymmetric particle shows when it is centred
_DIAMETER_OVER_RADIUS = 3.0
"""Diameter over the radius at which the power has fallen to 2 %: 2.8 to 3.1 for the molecules of
`cryogan.phantom`, whose outermost residues are in few projections."""

_AGREEMENT = 0.7  # correlation of the profiles of two halves of the images
_LARGEST_BOX = 64  # size and shifts are in the low frequencies


@dataclass(frozen=True)
class Extent:
    """What images suggest.

    Attributes:
        diameter_A: of the particle; None where the images' power has no bounded centre.
        shift_sd_A: standard deviation of the displacement along an axis; None if it is not
            significantly above 0.
        shift_below_A: what it is below, with two standard errors.
        profile_radius_A, profile: power of the images after Wiener filtering against the
            distance from the centre, less that of the background, relative to the largest.
    """

    diameter_A: float | None
    shift_sd_A: float | None
    shift_below_A: float
    profile_radius_A: tuple[float, ...]
    profile: tuple[float, ...]

    @property
    def is_centred(self) -> bool:
        """Whether the spread is no more than the shape of a particle makes by itself."""
        return self.shift_sd_A is None or self.shift_sd_A < _SHAPE * (self.diameter_A or 0.0)

    @property
    def max_shift_A(self) -> float:
        """Half the width of the triangular density of that standard deviation, or of its bound."""
        sd = self.shift_below_A if self.shift_sd_A is None else self.shift_sd_A
        return math.sqrt(6.0) * sd


def diameter_of(particles: Particles, measured: Measurement) -> float | None:
    """Diameter (Å) of the particle in flat images, by the radius of their power; or None."""
    size = min(_LARGEST_BOX, particles.box_size)
    spectra = measured.spectra.scaled(1.0 / measured.gain)
    spectra = PowerSpectra(at_box(spectra.signal, size), at_box(spectra.noise, size))
    return _diameter(*power_profile(_cropped(particles, size), spectra))


def measure_extent(particles: Particles, spectra: PowerSpectra) -> Extent:
    """Diameter and shifts of flat images with their spectra (in the images' own unit)."""
    size = min(_LARGEST_BOX, particles.box_size)
    particles = _cropped(particles, size)
    spectra = PowerSpectra(at_box(spectra.signal, size), at_box(spectra.noise, size))
    radius_A, profile = power_profile(particles, spectra)
    diameter_A = _diameter(radius_A, profile)
    width_A = particles.box_size * particles.pixel_size_A
    variance, error = shift_variance(particles, diameter_A or 0.5 * width_A)
    below = math.sqrt(max(variance, 0.0) + 2.0 * error)
    return Extent(
        diameter_A,
        math.sqrt(variance) if variance > 2.0 * error else None,
        below,
        tuple(radius_A.tolist()),
        tuple(profile.tolist()),
    )


def _cropped(particles: Particles, size: int) -> Particles:
    """Images cropped to `size` px; the crop is unitary, so that shells keep their power."""
    images = [
        preprocess(particles.stack.read(index), Preprocessing(size))
        for index in in_parts(torch.arange(len(particles)), particles.stack, _CHUNK)
    ]
    pixel_size_A = particles.pixel_size_A * particles.box_size / size
    return Particles(ArrayStack(torch.cat(images)), particles.ctf, pixel_size_A)


def power_profile(particles: Particles, spectra: PowerSpectra) -> tuple[Tensor, Tensor]:
    """Radii (Å) and relative power of Wiener-filtered images, less that of the background.

    Noise is the same everywhere in an image, so that what is above its level is signal. The level
    is that of the weakest ring beyond the strongest: neighbours are stronger. The outermost eighth
    is left out, as resampling may have spoilt it. Zero if the profiles of two halves of the images
    do not agree.
    """
    size = particles.box_size
    shells = fourier.shell_index(size).clamp_max(size // 2)
    signal, noise = spectra.signal[shells], spectra.noise[shells]
    power = torch.zeros(2, size, size)
    for index in in_parts(torch.arange(len(particles)), particles.stack, _CHUNK):
        transfer = ctf(particles.ctf[index], size, particles.pixel_size_A)
        weight = transfer * signal / (transfer.square() * signal + noise).clamp_min(1e-30)
        weight[:, 0, 0] = 0.0
        plane = fourier.rfft(particles.stack.read(index)) * weight
        filtered = fourier.irfft(plane, size).square()
        for number in (0, 1):
            power[number] += filtered[number::2].sum(0)
    count = size // 2 - size // 16
    rings = fourier.radius_grid(size).round().long()
    inside = rings < count
    total = torch.zeros(2, count).index_add_(1, rings[inside], power[:, inside])
    halves = total / torch.bincount(rings[inside], minlength=count)
    profile = halves.mean(0)
    radius_A = torch.arange(count) * particles.pixel_size_A
    if float(torch.corrcoef(halves)[0, 1]) < _AGREEMENT:
        return radius_A, torch.zeros(count)
    start = _strongest(profile)
    profile = profile - profile[start:].min()
    return radius_A, profile / profile[start].clamp_min(1e-30)


def _strongest(profile: Tensor) -> int:
    """Ring of the largest power in the inner two thirds."""
    return int(profile[: 2 * len(profile) // 3].argmax())


def _diameter(radius_A: Tensor, profile: Tensor) -> float | None:
    """From where the power, followed outwards from its maximum, has fallen but for 2 %.

    The rest of its fall is that within an eighth of the box: beyond the particle the level may
    still drift.
    """
    start = _strongest(profile)
    ahead = max(2, len(profile) // 4)
    padded = torch.cat((profile[start:], profile[-1:].expand(ahead)))
    least = padded.unfold(0, ahead + 1, 1).amin(dim=1)
    fall, left = profile[start] - least, profile[start:] - least
    most = profile[start] - profile[start:].min()
    share = torch.where(fall > 0.5 * most, left / fall.clamp_min(1e-30), 1.0)
    below = (share < _LEVEL).nonzero()[:, 0]
    if float(most) <= 0.0 or len(below) == 0 or int(below[0]) == 0:
        return None
    outer = int(below[0])
    inner_value, outer_value = float(share[outer - 1]), float(share[outer])
    part = (inner_value - _LEVEL) / max(inner_value - outer_value, 1e-12)
    step_A = float(radius_A[1])
    return _DIAMETER_OVER_RADIUS * (float(radius_A[start + outer - 1]) + part * step_A)


def shift_variance(particles: Particles, diameter_A: float) -> tuple[float, float]:
    """Variance (Å²) of displacements along an axis, and its standard error.

    A displacement s gives a coefficient the phase -2π k·s relative to that of the mean over all
    in-plane angles, which is real. At wavelengths above 0.8 diameters the particle's own shape
    hardly adds to that. Each image's s is estimated by weighted least squares twice, from two
    disjoint sets of coefficients; their noise is independent, so that their covariance over the
    images is the variance of s alone, however noisy the images are. What the shape adds remains:
    2 to 4 % of the diameter in standard deviation, for an asymmetric particle.
    """
    size, pixel_size_A = particles.box_size, particles.pixel_size_A
    shells = fourier.shell_index(size)
    half = fourier.half_weights(size)
    last = min(max(2, round(1.25 * size * pixel_size_A / diameter_A)), size // 2 - 1)
    real = torch.zeros(size, size // 2 + 1)
    ctf2, power = torch.zeros_like(real), torch.zeros_like(real)
    chunks = in_parts(torch.arange(len(particles)), particles.stack, _CHUNK)
    for index in chunks:
        transfer = ctf(particles.ctf[index], size, pixel_size_A)
        plane = fourier.rfft(particles.stack.read(index))
        real += (transfer * plane.real).sum(0)
        ctf2 += transfer.square().sum(0)
        power += plane.abs().square().sum(0)
    rings = shells.clamp_max(size // 2)
    mean = (fourier.shell_mean(real, size) / fourier.shell_mean(ctf2, size).clamp_min(1e-20))[rings]
    weight = half / fourier.shell_mean(power, size)[rings].clamp_min(1e-30)
    weight = weight * ((shells > 0) & (shells <= last))
    frequency = fourier.frequency_grid(size)
    parity = (frequency * size).round().long().sum(-1) % 2
    per_A = 2.0 * torch.pi * frequency / pixel_size_A
    found: list[list[Tensor]] = [[], []]
    for index in chunks:
        expected = ctf(particles.ctf[index], size, pixel_size_A) * mean
        imaginary = fourier.rfft(particles.stack.read(index)).imag
        for number in (0, 1):
            used = weight * (parity == number)
            above = torch.einsum("nyx,yxc->nc", -imaginary * expected * used, per_A)
            below = torch.einsum("nyx,yxc->nc", expected.square() * used, per_A.square())
            found[number].append(above / below.clamp_min(1e-30))
    first, second = (torch.cat(each).double() for each in found)
    products = (first - first.mean(0)) * (second - second.mean(0))
    n = products.numel()
    return float(products.mean()), float(products.std()) / math.sqrt(n) if n > 2 else math.inf
