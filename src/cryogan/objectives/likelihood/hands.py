"""Mean maps that mix both hands: maps of one hand, from two classes that begin as mirror images.

At 25 Å many molecules resemble their mirror image, most of all where a part of them moves: one
position is nearly the mirror image of another. EM from random numbers then ends in a map that some
images fit in the pose of the wrong hand, and iterations do not leave it. Two classes, the map and
its mirror image in the same place, can separate those images from the others.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from cryogan.evaluation.alignment import alignments, apply_alignment
from cryogan.objectives.likelihood.bands import symmetrised
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.em_step import signal_prior_of
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.initial_band import InitialBand, batches, log_likelihood_of
from cryogan.objectives.likelihood.initial_model import InitialStep
from cryogan.objectives.likelihood.latent_grid import SINGLE_STRUCTURE, latent_grid_of
from cryogan.objectives.likelihood.normal_equations import solve
from cryogan.objectives.likelihood.side_by_side import SideBySide

_BATCHES = 5


def mirror_image(volume: Tensor, pixel_size_A: float, config: LikelihoodConfig) -> Tensor:
    """(D, D, D) the mirror image of a map, where it overlaps with the map most.

    Where images are centred it is not shifted, and explains them exactly as well as the map.
    """
    placed = alignments(volume, volume, pixel_size_A, hands=(True,))[0]
    if config.assumptions.max_shift_percent == 0.0:
        placed = replace(placed, shift_A=torch.zeros(3))
    return symmetrised(apply_alignment(volume, placed, pixel_size_A), config)


def map_of_one_hand(
    halves: tuple[HalfSet, HalfSet],
    mean: Tensor,
    config: LikelihoodConfig,
    generator: torch.Generator,
    device: torch.device,
    sides: SideBySide,
) -> Iterator[InitialStep]:
    """Two classes from a map and its mirror image; the last step has the better of both.

    Args:
        halves: the two half-sets, to which the classes are common.
        mean: (D, D, D) of one structure.
        config: settings; the band is that of the initial model.
        generator: of the batches.
        device: where it is computed.
        sides: where the half-sets are worked on.

    Yields:
        A step a batch, with the mean (D, D, D) of both classes; at last the class that has the
        higher log-likelihood as the map of one structure.
    """
    band = InitialBand.of(halves, config, device)
    mean = band.of_map(mean)
    mirrored = sides.once(partial(mirror_image, mean, band.pixel_size_A, config)).to(mean)
    two = config.of_two_classes
    grid = latent_grid_of(two, 2)
    maps = torch.linalg.solve(grid.coefficients.to(mean), torch.stack((mean, mirrored)).flatten(1))
    maps = maps.view(2, *mean.shape)
    for _ in range(_BATCHES):
        batch = batches(halves, config.conformation_batch_size, generator)
        found = band.e_steps(halves, batch, (maps, maps), grid, sides)
        prior = signal_prior_of(halves[0], band.size, band.rings, 2, two).to(device)
        maps = solve(found[0].equations + found[1].equations, prior, band.mask, maps)
        grid = latent_grid_of(two, 2, 0.5 * (found[0].latent + found[1].latent).cpu())
        images = sum(map(len, batch))
        yield InitialStep(maps[0], band.rings, log_likelihood_of(found), images)
    classes = torch.einsum("lc,czyx->lzyx", grid.coefficients.to(maps), maps)
    batch = batches(halves, config.conformation_batch_size, generator)
    both = [(each, each) for each in classes]
    of_classes = log_likelihoods(halves, both, batch, config, device, sides)
    chosen = of_classes.index(max(of_classes))
    yield InitialStep(classes[chosen], band.rings, of_classes[chosen], sum(map(len, batch)))


def log_likelihoods(
    halves: tuple[HalfSet, HalfSet],
    candidates: Sequence[tuple[Tensor, Tensor]],
    batch: tuple[Tensor, Tensor],
    config: LikelihoodConfig,
    device: torch.device,
    sides: SideBySide,
) -> list[float]:
    """Mean log-likelihood of the images of a batch with each of some pairs of half-maps.

    All have the same band and noise, and views alike; images of a half-set have the map (D, D, D)
    of the other, in which they have no part.
    """
    band = InitialBand.of(halves, config, device)
    found = []
    for first, second in candidates:
        maps = band.of_map(second)[None], band.of_map(first)[None]
        steps = band.e_steps(halves, batch, maps, SINGLE_STRUCTURE, sides)
        found.append(log_likelihood_of(steps))
    return found
