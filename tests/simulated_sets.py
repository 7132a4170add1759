"""Simulated particles that many tests start from."""

import math
from dataclasses import replace

from torch import Generator, Tensor, arange, full_like

from cryogan.data.padding import PaddedBox
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.particles import CTFParams, Particles
from cryogan.phantom import phantom_map
from cryogan.physics.distributions import PoseDistribution
from cryogan.physics.spectra import PowerSpectra
from cryogan.simulation.in_memory import SimulatedSet, simulate_particles
from cryogan.simulation.microscope import random_ctf


def centred_particles(
    states: Tensor, pixel_size_A: float, n: int, snr_dB: float, generator: Generator
) -> SimulatedSet:
    """Centred, all views alike, CTFs of all kinds, white noise; equally many of each state."""
    return simulate_particles(
        states,
        pixel_size_A=pixel_size_A,
        n=n,
        ctf=random_ctf(n, generator),
        poses=PoseDistribution(),
        snr_dB=snr_dB,
        generator=generator,
    )


def clean_phantom_images(
    box_size: int, pixel_size_A: float, n: int, seed: int
) -> tuple[Tensor, CTFParams]:
    """Images of the phantom at random poses and CTFs, no noise; and the CTF parameters."""
    simulated = centred_particles(
        phantom_map(box_size, pixel_size_A),
        pixel_size_A,
        n,
        math.inf,
        Generator().manual_seed(seed),
    )
    return simulated.particles.stack.read(arange(n)), simulated.particles.ctf


def known_half_set(
    particles: Particles, noise_sigma: float, volume: Tensor
) -> tuple[HalfSet, Tensor, LikelihoodConfig]:
    """Centred images as the likelihood has them, with known noise: and the map in their units.

    `volume` is a map, or basis volumes (C, D, D, D).
    """
    assumptions = Assumptions(max_shift_percent=0.0)
    padded = PaddedBox.of(particles.box_size, assumptions.reach)
    half = HalfSet.of(particles, None, padded)
    measured, gain = half.measurement, half.measurement.gain
    flat = full_like(measured.spectra.noise, (noise_sigma * gain) ** 2)
    spectra = PowerSpectra(measured.spectra.signal, flat)
    half = replace(half, measurement=replace(measured, spectra=spectra))
    config = LikelihoodConfig(assumptions=assumptions).padded(padded.share)
    basis = volume if volume.ndim == 4 else volume[None]
    return half, padded.pad(basis * gain), config
