"""Mean maps that mix both hands: a map of one, from two classes that begin as mirror images.

At 25 Å many molecules resemble their mirror image, most of all where a part of them moves: one
position is nearly the mirror image of another. EM from random numbers then ends in a map that some
images fit in the pose of the wrong hand, which a small change of the map never improves. Two
classes, the map and its mirror image in the same place, can part those images from the others. A
map of one hand keeps nearly all images in its class.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from cryogan.evaluation.alignment import alignments, apply_alignment
from cryogan.objectives.likelihood.bands import box_for, harmonics_for, mask_for, search_for
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.em_step import EStep, e_step, signal_prior_of
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.initial_model import InitialStep
from cryogan.objectives.likelihood.latent_grid import SINGLE_STRUCTURE, LatentGrid, latent_grid_of
from cryogan.objectives.likelihood.normal_equations import solve
from cryogan.objectives.likelihood.side_by_side import SideBySide
from cryogan.physics.imaging import rescale_volume

_BATCHES = 5


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
        A step a batch, with the mean (D, D, D) of both; at last the class that explains the images
        better as one structure.
    """
    rings = config.initial_rings[1]
    size = box_for(rings, halves[0].particles.box_size)
    rings = min(rings, size // 2 - 1)
    harmonics = harmonics_for(size, rings, config, device)
    levels = search_for(harmonics, config)
    pixel_size_A = halves[0].stack(size).pixel_size_A
    mask = mask_for(size, pixel_size_A, config, device)
    mean = rescale_volume(mean.to(device), size)
    mirrored = alignments(mean, mean, pixel_size_A, hands=(True,))[0]
    other = apply_alignment(mean, mirrored, pixel_size_A)
    two = config.of_two_classes
    grid = latent_grid_of(two, 2)
    maps = torch.linalg.solve(grid.coefficients.to(mean), torch.stack((mean, other)).flatten(1))
    maps = maps.view(2, size, size, size)

    def batches() -> tuple[Tensor, Tensor]:
        first, second = (
            torch.randperm(len(half), generator=generator)[: config.conformation_batch_size]
            for half in halves
        )
        return first, second

    def compared(maps: Tensor, grid: LatentGrid, some: tuple[Tensor, Tensor], number: int) -> EStep:
        return e_step(halves[number], some[number], maps, grid, levels, rings, harmonics)

    for _ in range(_BATCHES):
        found = sides.both(partial(compared, maps, grid, batches()))
        prior = signal_prior_of(halves[0], size, rings, 2, two).to(device)
        maps = solve(found[0].equations + found[1].equations, prior, mask, maps)
        grid = latent_grid_of(two, 2, 0.5 * (found[0].latent + found[1].latent).cpu())
        yield InitialStep(maps[0], rings, _log_likelihood(found))
    some = batches()
    classes = torch.einsum("lc,czyx->lzyx", grid.coefficients.to(maps), maps)
    explained = [
        _log_likelihood(sides.both(partial(compared, each[None], SINGLE_STRUCTURE, some)))
        for each in classes
    ]
    better = int(torch.tensor(explained).argmax())
    yield InitialStep(classes[better], rings, explained[better])


def _log_likelihood(found: tuple[EStep, EStep]) -> float:
    return 0.5 * (found[0].log_likelihood + found[1].log_likelihood)
