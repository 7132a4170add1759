"""Conformations from random numbers, given coarse maps of one structure."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.em_step import parameter_expanded, signal_prior_of
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.initial_band import InitialBand, batches, log_likelihood_of
from cryogan.objectives.likelihood.initial_model import InitialStep, random_volume
from cryogan.objectives.likelihood.latent_grid import latent_grid_of
from cryogan.objectives.likelihood.normal_equations import solve
from cryogan.objectives.likelihood.side_by_side import SideBySide

_START = 0.2  # amplitude of the first random basis volumes, in units of the mean's
_COARSE = 8  # rings of the first random basis volumes


def initialise_conformations(
    halves: tuple[HalfSet, HalfSet],
    means: Tensor,
    config: LikelihoodConfig,
    generator: torch.Generator,
    device: torch.device,
    sides: SideBySide,
) -> Iterator[InitialStep]:
    """Conformations from random numbers, given a coarse map of each half-set.

    The slowest functions of the latent come first, then all. Every batch uses the whole band of the
    initial model. In a narrower one a molecule may look like its mirror image, so that images of a
    conformation are explained by the mirror image of another: a path that was folded like that
    stays folded, as every iteration finds the poses that fit it. The basis volumes are common to
    both half-sets, like a low-passed reference: they decide in which order each has its latent.
    Last of all, each half-set gets a mean map of its own, from its images in the poses that go with
    these conformations; those of one structure may be wrong by what the molecule moves.

    Args:
        halves: the two half-sets.
        means: (2, D, D, D) maps in one frame.
        config: settings.
        generator: of everything random.
        device: where it is computed.
        sides: where the half-sets are worked on.
    """
    band = InitialBand.of(halves, config, device)
    wanted = config.assumptions.volumes
    first = min(1 + config.assumptions.latent_space.slowest, wanted)
    noise = [
        random_volume(halves[0], band.size, _COARSE, config, generator, device) * band.mask
        for _ in range(1, first)
    ]
    maps = torch.cat((band.of_map(means.mean(0))[None], _START * torch.stack(noise)))
    for number in range(config.conformation_batches):
        is_last = number == config.conformation_batches - 1
        is_coarse = 2 * number < config.conformation_batches and not is_last
        if not is_coarse:
            maps = torch.cat((maps, maps.new_zeros(wanted - len(maps), *maps.shape[1:])))
        grid = latent_grid_of(config, len(maps))
        batch = batches(
            halves, config.subset_size if is_last else config.conformation_batch_size, generator
        )
        # conformations out of random numbers may be wrong
        annealing = config.annealing[1] if is_coarse else math.inf
        found = band.e_steps(halves, batch, (maps, maps), grid, sides, annealing)
        prior = signal_prior_of(halves[0], band.size, band.rings, len(maps), config).to(device)
        common = found[0].equations + found[1].equations
        equations = [common, *(each.equations for each in found if is_last)]
        solved = [solve(each, prior, band.mask, maps) for each in equations]
        for each in found if not is_coarse else ():  # the mean of two small changes
            solved = [0.5 * (own + parameter_expanded(own, each, config)) for own in solved]
        maps, *own = solved
        both = maps.expand(2, *maps.shape)
        if is_last:
            both = torch.stack([torch.cat((each[:1], maps[1:])) for each in own])
        yield InitialStep(both, band.rings, log_likelihood_of(found), sum(map(len, batch)))
