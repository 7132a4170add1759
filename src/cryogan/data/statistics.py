"""What is measured on particles without poses: spectra of signal and noise, and their unit."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.data.background import LARGEST_RADIUS, background_power, background_weight
from cryogan.data.parts import in_parts
from cryogan.particles import Particles
from cryogan.physics.ctf import ctf
from cryogan.physics.imaging import Preprocessing, preprocess
from cryogan.physics.noise import NoiseModel
from cryogan.physics.spectra import PowerSpectra, bounded_spectra, fit_spectra, power_sums

_MEASURED_IMAGES = 8192
_MEASURED_BOX = 128


@dataclass(frozen=True)
class Measurement:
    """Spectra of a particle set and the unit of its images.

    Attributes:
        spectra: power per shell in units of the noise, up to box 128 or the images' own.
        power: (as `spectra`) mean power of the images, in the same units.
        gain: what images are multiplied by so that their noise has about unit variance.
        noise_gain: the same for a given noise model's images, or None without one.
    """

    spectra: PowerSpectra
    power: Tensor
    gain: float
    noise_gain: float | None


def measure(
    particles: Particles,
    noise: NoiseModel | None = None,
    *,
    radius: float = LARGEST_RADIUS,
    window: Tensor | None = None,
) -> Measurement:
    """Measure noise and signal on up to 8,192 images, taken evenly from the set.

    Without a noise model, lines through |Y|² against CTF² and the images' background bound the
    noise (`physics.spectra.bounded_spectra`).

    With a noise model, such as measured background, the shape of the noise spectrum is the
    model's; its level is the largest that leaves the images more power than the noise in nine
    tenths of the upper half of the shells, where the signal is weakest.

    Args:
        particles: the images.
        noise: their noise, or None.
        radius: of what may be particle in an image, as a fraction of half the box.
        window: (D, D) that multiplies the images before they are measured.
    """
    size = _even_box(min(_MEASURED_BOX, particles.box_size))
    crop = Preprocessing(size)
    pixel_size_A = particles.pixel_size_A * particles.box_size / size
    step = max(1, len(particles) // _MEASURED_IMAGES)
    outside = background_weight(particles.box_size, radius)
    background = torch.zeros(particles.box_size // 2 + 1, dtype=torch.float64)
    total = None
    for index in in_parts(torch.arange(0, len(particles), step), particles.stack):
        images = particles.stack.read(index)
        background += len(index) * background_power(images, outside)
        images = preprocess(images if window is None else images * window, crop)
        sums = power_sums(images, ctf(particles.ctf[index], size, pixel_size_A))
        total = sums if total is None else total + sums
    assert total is not None
    share = 1.0 if window is None else float(window.square().mean())
    background = at_box(share * background / total.count, size)
    spectra = bounded_spectra(total, background, float(outside.square().mean()))
    power = fourier.shell_mean(total.power / total.count, size).float()
    noise_gain = None
    if noise is not None:
        shape = noise.transformed(partial(preprocess, settings=crop)).power()
        upper = slice(size // 4, size // 2)
        level = (power / shape.clamp_min(1e-20))[upper].quantile(0.1)
        spectra = fit_spectra(total, noise=torch.minimum(shape * level, power))
        noise_gain = float(level.sqrt())
    noise_variance = _pixel_variance(spectra.noise, size)
    gain = noise_variance**-0.5
    if noise_gain is not None:
        noise_gain *= gain
    return Measurement(spectra.scaled(gain), power * gain**2, gain, noise_gain)


def shell_amplitude(signal: Tensor, box_size: int) -> Tensor:
    """Modulus of 3D Fourier coefficients per shell from the power of projections.

    A central slice is a projection's spectrum, so |F3|² = |F2|² = S D² (`physics.spectra`).
    """
    return signal.clamp_min(0.0).sqrt() * box_size


def _pixel_variance(spectrum: Tensor, size: int) -> float:
    """Mean of a shell spectrum over all coefficients below Nyquist."""
    count = fourier.shell_sum(torch.ones(size, size // 2 + 1), size)[: size // 2]
    return float((count * spectrum[: size // 2]).sum() / count.sum()) + 1e-20


def _even_box(box_size: int) -> int:
    return box_size - box_size % 2


def at_box(values: Tensor, size: int) -> Tensor:
    """Shell values (size // 2 + 1,): cropped, or continued with the outermost whole shell.

    The crop to a smaller box is unitary, so that shells keep their values.
    """
    missing = size // 2 + 1 - len(values)
    if missing <= 0:
        return values[: size // 2 + 1]
    return torch.cat((values[:-1], values[-2].expand(missing + 1)))
