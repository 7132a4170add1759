"""Sets of the phantom for benchmarks: centred particles, all views alike, CTFs of all kinds."""

import torch
from torch import Tensor

from cryogan.io.mrc import Map
from cryogan.particles import Particles
from cryogan.phantom import phantom_map
from cryogan.physics.distributions import PoseDistribution
from cryogan.simulation.in_memory import simulate_particles
from cryogan.simulation.microscope import random_ctf


def phantom_set(
    box_size: int, pixel_size_A: float, count: int, snr_dB: float, seed: int
) -> tuple[Particles, Map]:
    """Images with white noise, and the phantom."""
    return set_of_map(phantom_map(box_size, pixel_size_A), pixel_size_A, count, snr_dB, seed)


def set_of_map(
    truth: Tensor, pixel_size_A: float, count: int, snr_dB: float, seed: int
) -> tuple[Particles, Map]:
    """Images of a map (D, D, D) with white noise, and the map."""
    generator = torch.Generator().manual_seed(seed)
    made = simulate_particles(
        truth,
        pixel_size_A=pixel_size_A,
        n=count,
        ctf=random_ctf(count, generator),
        poses=PoseDistribution(),
        snr_dB=snr_dB,
        generator=generator,
    )
    return made.particles, Map(truth, pixel_size_A)
