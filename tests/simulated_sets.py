"""Simulated particles that many tests start from."""

import math

from torch import Generator, Tensor, arange

from cryogan.particles import CTFParams
from cryogan.phantom import phantom_map
from cryogan.physics.distributions import PoseDistribution
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
