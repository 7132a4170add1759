"""How long a run takes: E- and M-steps on noise in two coarse bands, timed and extrapolated.

What an iteration costs is a part for each image and a part for the iteration; both follow from two
numbers of images, and their growth with the band from two bands. The estimate is right within a
factor of 3: how soon a run converges, and how narrow its posteriors are, is not known.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from cryogan.data.padding import PaddedBox
from cryogan.objectives.likelihood.bands import (
    box_for,
    coarse_search_for,
    harmonics_for,
    mask_for,
    search_for,
)
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.em_step import e_step, signal_prior_of
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.image_model import FIRST
from cryogan.objectives.likelihood.latent_grid import SINGLE_STRUCTURE
from cryogan.objectives.likelihood.normal_equations import solve
from cryogan.objectives.memory import noise_particles
from cryogan.particles import Particles

_FEW, _MANY = 32, 128  # images
_SIGNAL = 2000.0  # of a projection, in units of a pixel's noise: posteriors are narrow
_COARSE, _FINE = 6, 14  # rings
_ITERATIONS = 3  # in the last band over a subset, before one over all images
_MEASURED = 512  # images whose spectra are measured
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Cost:
    """CPU seconds of an iteration in a band: of each image, and of the iteration."""

    image_s: float
    iteration_s: float

    def of(self, images: int) -> float:
        return self.image_s * images + self.iteration_s


@dataclass(frozen=True)
class CpuTime:
    """Of a run from random numbers, one structure.

    Attributes:
        image_s: CPU seconds of an image in an iteration at the last resolution.
        run_s: CPU seconds of the run.
    """

    image_s: float
    run_s: float


def estimate_cpu_time(
    config: LikelihoodConfig, particles: Particles, resolution_A: float
) -> CpuTime:
    """CPU time of a run of these particles up to a resolution; no image is read.

    Args:
        config: settings of one structure.
        particles: the set.
        resolution_A: that it will reach.
    """
    padded = PaddedBox.of(particles.box_size, config.assumptions.reach)
    inside, width_px = config.padded(padded.share), padded.width_px
    half = HalfSet.of(noise_particles(particles, _MEASURED), None, padded)
    most = box_for(width_px, width_px) // 2 - 1
    last = min(most, max(5, int(width_px * particles.pixel_size_A / resolution_A)))
    bands = sorted({min(_COARSE, most), min(_FINE, most)})
    costs = [_cost(half, inside, rings) for rings in bands]
    first, end = inside.initial_rings
    of_bands = {rings: _at(rings, bands, costs) for rings in range(first, min(end, most) + 1)}
    finest = _at(last, bands, costs)
    return CpuTime(finest.image_s, run_s(config, len(particles), of_bands, finest))


def run_s(
    config: LikelihoodConfig, particles: int, initial: Mapping[int, Cost], finest: Cost
) -> float:
    """CPU seconds of a run.

    Args:
        config: settings.
        particles: how many there are.
        initial: costs of the bands of the initial model, by their rings.
        finest: of the band of all later iterations.
    """
    count = particles // 2
    batch = min(count, config.initial_batch_size)
    middle = (min(initial) + max(initial)) // 2
    total = 0.0
    for rings, cost in initial.items():
        started = config.initialisations if rings <= middle else 1
        total += 2 * config.initial_batches * started * cost.of(batch)
    few = min(_ITERATIONS, max(0, config.iterations - 1))
    return total + 2 * few * finest.of(min(count, config.subset_size)) + 2 * finest.of(count)


def _cost(half: HalfSet, config: LikelihoodConfig, rings: int) -> Cost:
    few_s, many_s = (_timed(half, config, rings, count) for count in (_FEW, _MANY))
    image_s = max(many_s - few_s, 0.1 * many_s) / (_MANY - _FEW)
    return Cost(image_s, max(few_s - _FEW * image_s, 0.0))


def _timed(half: HalfSet, config: LikelihoodConfig, rings: int, count: int) -> float:
    """CPU seconds of an iteration over so many images."""
    size = box_for(rings, half.particles.box_size)
    harmonics = harmonics_for(size, rings, config, _CPU)
    search = coarse_search_for if rings <= config.initial_rings[0] else search_for
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(1, size, size, size, generator=generator) * math.sqrt(_SIGNAL / size**3)
    mask = mask_for(size, half.stack(size).pixel_size_A, config, _CPU)
    prior = signal_prior_of(half, size, rings, 1, config).clamp_min(1e-6)
    index = torch.arange(min(count, len(half)))
    begun_s = time.process_time()
    levels = search(harmonics, config)
    found = e_step(half, index, maps, SINGLE_STRUCTURE, levels, rings, harmonics, image_model=FIRST)
    solve(found.equations, prior, mask, maps)
    return time.process_time() - begun_s


def _at(rings: int, bands: list[int], costs: list[Cost]) -> Cost:
    """The cost in another band: a power of its rings between 0.5 and 2."""
    if len(costs) == 1:
        return costs[0]

    def power(coarse: float, fine: float) -> float:
        if min(coarse, fine) <= 0.0:
            return fine
        growth = math.log(fine / coarse) / math.log(bands[1] / bands[0])
        near = fine if rings >= bands[1] else coarse
        at = bands[1] if rings >= bands[1] else bands[0]
        return near * math.pow(rings / at, min(max(growth, 0.5), 1.5))

    first, second = costs
    return Cost(power(first.image_s, second.image_s), power(first.iteration_s, second.iteration_s))
