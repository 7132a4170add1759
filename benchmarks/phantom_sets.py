"""Sets of the phantom for benchmarks: all views alike, CTFs of all kinds, white noise."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryogan.data.padding import PaddedBox
from cryogan.io.mrc import Map
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.particles import Particles
from cryogan.phantom import phantom_map
from cryogan.physics.distributions import PoseDistribution
from cryogan.physics.spectra import PowerSpectra
from cryogan.simulation.in_memory import SimulatedSet, simulate_particles
from cryogan.simulation.microscope import random_ctf


def phantom_images(
    box_size: int,
    pixel_size_A: float,
    count: int,
    snr_dB: float,
    seed: int,
    *,
    poses: PoseDistribution | None = None,
    volume: Tensor | None = None,
) -> tuple[SimulatedSet, Tensor]:
    """Images with what is true of them, and the map; the phantom unless maps are given."""
    generator = torch.Generator().manual_seed(seed)
    truth = phantom_map(box_size, pixel_size_A) if volume is None else volume
    made = simulate_particles(
        truth,
        pixel_size_A=pixel_size_A,
        n=count,
        ctf=random_ctf(count, generator),
        poses=poses or PoseDistribution(),
        snr_dB=snr_dB,
        generator=generator,
    )
    return made, truth


def phantom_set(
    box_size: int, pixel_size_A: float, count: int, snr_dB: float, seed: int
) -> tuple[Particles, Map]:
    """Centred images with white noise, and the phantom."""
    return set_of_map(phantom_map(box_size, pixel_size_A), pixel_size_A, count, snr_dB, seed)


def set_of_map(
    truth: Tensor, pixel_size_A: float, count: int, snr_dB: float, seed: int
) -> tuple[Particles, Map]:
    """Centred images of a map (D, D, D) with white noise, and the map."""
    made, _ = phantom_images(truth.shape[-1], pixel_size_A, count, snr_dB, seed, volume=truth)
    return made.particles, Map(truth, pixel_size_A)


@dataclass(frozen=True)
class KnownHalfSet:
    """Images with the true noise and map, as the likelihood has them.

    Attributes:
        half: the images, padded, with their true noise.
        maps: (1, D, D, D) the map in the padded box, in the images' units.
        config: assumptions.
    """

    half: HalfSet
    maps: Tensor
    config: LikelihoodConfig


def known_half_set(
    particles: Particles, noise_sigma: float, volume: Tensor, max_shift_percent: float = 0.0
) -> KnownHalfSet:
    """Of images with white noise of a standard deviation, and the map supposed."""
    assumptions = Assumptions(max_shift_percent=max_shift_percent)
    padded = PaddedBox.of(particles.box_size, assumptions.reach)
    half = HalfSet.of(particles, None, padded)
    measured, gain = half.measurement, half.measurement.gain
    flat = torch.full_like(measured.spectra.noise, (noise_sigma * gain) ** 2)
    spectra = PowerSpectra(measured.spectra.signal, flat)
    half = replace(half, measurement=replace(measured, spectra=spectra))
    config = LikelihoodConfig(assumptions=assumptions).padded(padded.share)
    return KnownHalfSet(half, padded.pad(volume[None] * gain), config)
