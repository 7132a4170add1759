"""Spectra of signal and noise in the sampled images, and how noise depends on direction."""

import math

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.data.noise_filter import measure_anisotropy
from cryogan.data.statistics import measure
from cryogan.inspection.findings import GroupSpectra, NoiseDirections
from cryogan.inspection.images_needed import signal_to_noise
from cryogan.particles import Particles
from cryogan.physics.ctf import ctf
from cryogan.physics.spectra import PowerSpectra


def measure_noise_directions(small: Particles) -> NoiseDirections | None:
    """How noise depends on direction; None where it does not, significantly."""
    found = measure_anisotropy(small)
    if found.is_isotropic:
        return None
    coarse_px, fine_px = found.band_px
    ratio, along_deg, at_px = found.largest
    pixel_size_A = small.pixel_size_A
    return NoiseDirections(
        coarse_px * pixel_size_A,
        fine_px * pixel_size_A,
        ratio,
        along_deg,
        at_px * pixel_size_A,
        found.signal_share,
        found.words(pixel_size_A),
    )


def measure_spectra(small: Particles) -> tuple[PowerSpectra, Tensor]:
    """Spectra in the images' own unit, and the ratio of signal to noise power in every shell."""
    measured = measure(small)
    size = small.box_size
    ctf2 = fourier.shell_mean(ctf(small.ctf, size, small.pixel_size_A).square().mean(0), size)
    spectra = measured.spectra
    return spectra.scaled(1.0 / measured.gain), signal_to_noise(spectra, ctf2)


def group_spectra(
    name: str, count: int, sampled: int, spectra: PowerSpectra, ratio: Tensor, width_A: float
) -> GroupSpectra:
    """The spectra of an optics group, in units of its noise.

    Args:
        name: of the group.
        count: particles in it.
        sampled: measured on so many.
        spectra, ratio: from `measure_spectra`.
        width_A: width of the box.
    """
    size = 2 * (len(ratio) - 1)
    used = slice(1, size // 2)
    unit = 1.0 / float(spectra.noise[used].mean())
    coefficients = torch.arange(1, size // 2)
    signal = (ratio * spectra.noise)[used]
    rings = 2.0 * math.pi * coefficients
    corners = (1.0 - math.pi / 4.0) * size**2 * spectra.noise[size // 2 - 1]
    noise = (rings * spectra.noise[used]).sum() + corners
    power_ratio = float((rings * signal).sum() / noise)
    return GroupSpectra(
        name,
        count,
        sampled,
        tuple((width_A / coefficients).tolist()),
        tuple((spectra.signal[used] * unit).tolist()),
        tuple((spectra.noise[used] * unit).tolist()),
        tuple(ratio[used].tolist()),
        10.0 * math.log10(max(power_ratio, 1e-12)),
    )
