"""The real images: what is measured on them, and how a stage gets them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.particles import ArrayStack, CTFParams, Particles
from cryogan.physics.ctf import ctf
from cryogan.physics.imaging import Preprocessing, preprocess
from cryogan.physics.noise import BackgroundPatches, radial_spectrum
from cryogan.physics.spectra import PowerSpectra, fit_spectra, power_sums
from cryogan.training.stream import PreprocessedStack, RealImages, hold_or_stream

_CHUNK = 512
_MEASURED_IMAGES = 8192
_MEASURED_BOX = 128


@dataclass(frozen=True)
class Measurement:
    """Spectra of a particle set and the unit of its images.

    Attributes:
        spectra: power per shell in units of the noise, up to box 128 or the images' own.
        power: (as `spectra`) mean power of the images, in the same units.
        gain: what images are multiplied by so that their noise has about unit variance.
        patch_gain: the same for the measured noise patches, or None without patches.
    """

    spectra: PowerSpectra
    power: Tensor
    gain: float
    patch_gain: float | None


def measure(particles: Particles, background: BackgroundPatches | None) -> Measurement:
    """Measure noise and signal on up to 8,192 images, taken evenly from the set.

    With measured background, the shape of the noise spectrum is the patches'; its level is the
    largest that leaves the images more power than the noise in nine tenths of the upper half of
    the shells, where the signal is weakest.
    """
    size = _even_box(min(_MEASURED_BOX, particles.box_size))
    crop = Preprocessing(size)
    pixel_size_A = particles.pixel_size_A * particles.box_size / size
    step = max(1, len(particles) // _MEASURED_IMAGES)
    total = None
    for index in torch.split(torch.arange(0, len(particles), step), _CHUNK):
        images = preprocess(particles.stack.read(index), crop)
        sums = power_sums(images, ctf(particles.ctf[index], size, pixel_size_A))
        total = sums if total is None else total + sums
    assert total is not None
    spectra = fit_spectra(total)
    power = fourier.shell_mean(total.power / total.count, size).float()
    patch_gain = None
    if background is not None:
        everything = torch.arange(len(background.stack))
        shape = radial_spectrum(preprocess(background.stack.read(everything), crop))
        upper = slice(size // 4, size // 2)
        level = (power / shape.clamp_min(1e-20))[upper].quantile(0.1)
        spectra = fit_spectra(total, noise=torch.minimum(shape * level, power))
        patch_gain = float(level.sqrt())
    noise_variance = _pixel_variance(spectra.noise, size)
    gain = noise_variance**-0.5
    if patch_gain is not None:
        patch_gain *= gain
    return Measurement(spectra.scaled(gain), power * gain**2, gain, patch_gain)


def _pixel_variance(spectrum: Tensor, size: int) -> float:
    """Mean of a shell spectrum over all coefficients below Nyquist."""
    count = fourier.shell_sum(torch.ones(size, size // 2 + 1), size)[: size // 2]
    return float((count * spectrum[: size // 2]).sum() / count.sum()) + 1e-20


def _even_box(box_size: int) -> int:
    return box_size - box_size % 2


@dataclass(frozen=True)
class StageData:
    """What a stage is played with, on the training device.

    Attributes:
        images: the real ones as the critic sees them, held in memory or streamed.
        ctf: their CTF parameters.
        pixel_size_A: at the stage's box.
        spectra: signal and noise power at the stage's box, in units of the noise.
        patches: measured noise at the stage's box, in the same units, or None.
    """

    images: RealImages
    ctf: CTFParams
    pixel_size_A: float
    spectra: PowerSpectra
    patches: BackgroundPatches | None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def box_size(self) -> int:
        return self.images.box_size


def prepare_stage(
    particles: Particles,
    settings: Preprocessing,
    measurement: Measurement,
    background: BackgroundPatches | None,
    memory_GB: float,
    device: torch.device,
) -> StageData:
    """The particle set at the stage's box: read now if it fits into `memory_GB`, else streamed."""
    size = settings.box_size
    stack = PreprocessedStack(particles, measurement.gain, settings)
    patches = None
    if background is not None and measurement.patch_gain is not None:
        everything = background.stack.read(torch.arange(len(background.stack)))
        cropped = preprocess(everything * measurement.patch_gain, Preprocessing(size))
        patches = BackgroundPatches(ArrayStack(cropped))
    return StageData(
        hold_or_stream(stack, memory_GB, device),
        particles.ctf.to(device),
        stack.pixel_size_A,
        PowerSpectra(
            at_box(measurement.spectra.signal, size), at_box(measurement.spectra.noise, size)
        ),
        patches,
    )


def at_box(values: Tensor, size: int) -> Tensor:
    """Shell values (size // 2 + 1,): cropped, or continued with the outermost whole shell.

    The crop to a smaller box is unitary, so that shells keep their values.
    """
    missing = size // 2 + 1 - len(values)
    if missing <= 0:
        return values[: size // 2 + 1]
    return torch.cat((values[:-1], values[-2].expand(missing + 1)))
