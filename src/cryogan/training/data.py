"""The real images of one stage, and what is measured on them."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryogan.particles import ArrayStack, CTFParams, Particles
from cryogan.physics.ctf import ctf
from cryogan.physics.imaging import Preprocessing, preprocess
from cryogan.physics.noise import BackgroundPatches, radial_spectrum
from cryogan.physics.spectra import PowerSpectra, PowerSums, fit_spectra, power_sums

_CHUNK = 512


@dataclass(frozen=True)
class StageData:
    """Real images, preprocessed once and kept in memory, on the training device.

    Attributes:
        images: (n, D, D) as the critic sees them.
        ctf: their CTF parameters.
        pixel_size_A: at the stage's box.
        spectra: signal and noise power, in units of the noise (see `gain`).
        gain: what images are multiplied by so that their noise has about unit variance.
        patches: measured noise at the stage's box, in the same units, or None.
    """

    images: Tensor
    ctf: CTFParams
    pixel_size_A: float
    spectra: PowerSpectra
    gain: float
    patches: BackgroundPatches | None

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def box_size(self) -> int:
        return int(self.images.shape[-1])


def prepare_stage(
    particles: Particles,
    settings: Preprocessing,
    *,
    gain: float | None,
    patches: BackgroundPatches | None,
    device: torch.device,
) -> StageData:
    """Read, crop and measure the particle set at the stage's box.

    Args:
        gain: from an earlier stage; measured here if None.
        patches: particle-free background at the particles' own box and pixel size.
    """
    size = settings.box_size
    pixel_size_A = particles.pixel_size_A * particles.box_size / size
    linear = replace(settings, normalise=False, window_radius=None)
    chunks, total = [], None
    for index in torch.split(torch.arange(len(particles)), _CHUNK):
        cropped = preprocess(particles.stack.read(index), linear)
        sums = power_sums(cropped, ctf(particles.ctf[index], size, pixel_size_A))
        total = sums if total is None else total + sums
        chunks.append(cropped)
    assert total is not None
    images = torch.cat(chunks)
    cropped_patches = None
    if patches is not None:
        everything = torch.arange(len(patches.stack))
        cropped_patches = preprocess(patches.stack.read(everything), linear)
    measured = _measure(total, cropped_patches)
    if gain is None:
        gain = float(measured.noise[size // 4 : size // 2].mean().clamp_min(1e-20).rsqrt())
    spectra = PowerSpectra(measured.signal * gain**2, measured.noise * gain**2)
    for chunk in torch.split(images, _CHUNK):
        chunk.copy_(preprocess(chunk * gain, settings))
    return StageData(
        images.to(device),
        particles.ctf.to(device),
        pixel_size_A,
        spectra,
        gain,
        None if cropped_patches is None else _matched(cropped_patches * gain, spectra.noise),
    )


def _measure(sums: PowerSums, patches: Tensor | None) -> PowerSpectra:
    """Spectra by regression; with patches, the shape of the noise is theirs, the level fitted."""
    fitted = fit_spectra(sums)
    if patches is None:
        return fitted
    shape = radial_spectrum(patches)
    noise = shape * _level(shape, fitted.noise)
    return fit_spectra(sums, torch.minimum(noise, (sums.power / sums.count).float()))


def _level(measured: Tensor, wanted: Tensor) -> Tensor:
    """Factor that brings the power of the upper half of the shells to what is wanted."""
    upper = slice(len(wanted) // 2, len(wanted) - 1)
    return wanted[upper].sum() / measured[upper].sum().clamp_min(1e-20)


def _matched(patches: Tensor, noise: Tensor) -> BackgroundPatches:
    factor = _level(radial_spectrum(patches), noise).sqrt()
    return BackgroundPatches(ArrayStack(patches * factor))
