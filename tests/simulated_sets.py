"""Simulated particles that many tests start from."""

from torch import Generator, Tensor

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
