"""The resolution of a run that its held-out images support (docs/validation.md)."""

import math
from collections.abc import Sequence

import torch

from cryogan.data.padding import PaddedBox
from cryogan.evaluation.fsc import resolution_A
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.base import Maps
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.half_set import HalfSet, PowerSplit
from cryogan.objectives.likelihood.held_out_band import HeldOutBand, best_band
from cryogan.objectives.likelihood.view_density import UNIFORM, ViewDensity
from cryogan.particles import Particles
from cryogan.physics.noise import NoiseModel
from cryogan.randomness import generator_for

_FEWEST_SHELLS = 3


def held_out_resolution_A(
    maps: Maps,
    half_sets: tuple[Particles, Particles],
    assumptions: Assumptions,
    *,
    noise: NoiseModel | None,
    splits: Sequence[PowerSplit],
    views: Sequence[ViewDensity],
    seed: int,
    device: torch.device,
) -> float:
    """To which resolution each half-map explains images of the other half-set the better.

    Of the half-map that does so less far. No finer than that at which the FSC of the half-maps
    falls to 0.143, masked or not: what lies beyond is not asked.

    Args:
        maps: of the run.
        half_sets: its particles.
        assumptions: about the sample.
        noise: measured or known noise, or None.
        splits: how the run divided the power of each half-set's images, if it did.
        views: densities of the viewing directions of each half-set, if the run estimated them.
        seed: for the choice of images.
        device: where it is computed.
    """
    padded = PaddedBox.of(half_sets[0].box_size, assumptions.reach)
    config = LikelihoodConfig(assumptions=assumptions).padded(padded.share)
    box_size = maps.half1.shape[-1]
    curves = (maps.fsc, maps.fsc_masked)
    crossings_A = [resolution_A(curve, 0.143, maps.pixel_size_A, box_size) for curve in curves]
    width_A = box_size * maps.pixel_size_A / padded.share
    finest = (min(half_sets[0].box_size, box_size) // 2 - 1) / padded.share
    first = round(_FEWEST_SHELLS / padded.share)
    last = max(first, int(min(math.ceil(width_A / min(crossings_A)), finest)))
    fsc = padded.shells(maps.fsc.float().nan_to_num(0.0).clamp(0.0, 1.0))
    bands = []
    for number, half_map in enumerate((maps.half1, maps.half2)):
        half = HalfSet.of(half_sets[1 - number], noise, padded)
        half = half.divided(splits[1 - number] if splits else None)
        generator = generator_for(seed, "held-out band", number)
        volume = padded.pad(half_map)
        density = views[1 - number] if views else UNIFORM
        band = HeldOutBand.of(half, volume, fsc, last, config, generator, device, density)
        bands.append(best_band(band.log_likelihood, first, last))
    return min(crossings_A) if min(bands) == last else width_A / min(bands)
