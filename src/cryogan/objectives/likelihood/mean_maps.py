"""Mean maps of both half-sets, of one hand, with whose poses conformations are searched."""

import math
from collections.abc import Generator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from cryogan.evaluation.alignment import align
from cryogan.objectives.base import Step
from cryogan.objectives.likelihood.agreeing_initial_models import record_of_batch
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.em_state import EMState
from cryogan.objectives.likelihood.half_maps import moved_maps
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.hands import log_likelihoods, map_of_one_hand
from cryogan.objectives.likelihood.initial_band import batches
from cryogan.objectives.likelihood.iteration import are_few, first_state, iteration, mean_map
from cryogan.objectives.likelihood.latent_grid import latent_grid_of
from cryogan.objectives.likelihood.side_by_side import SideBySide
from cryogan.objectives.likelihood.view_density import UNIFORM
from cryogan.physics.imaging import rescale_volume
from cryogan.randomness import generator_for

_MOST = 8  # iterations of a candidate
_GAIN = 0.01  # of the log-likelihood: an iteration that gains less is the last
_ENDLESS = 1_000_000  # iterations: the refinement of one structure is not brought to its end


def mean_maps(
    halves: tuple[HalfSet, HalfSet],
    initial: Tensor,
    images_seen: int,
    config: LikelihoodConfig,
    seed: int,
    device: torch.device,
    sides: SideBySide,
    reference: Tensor | None = None,
) -> Generator[Step, None, EMState]:
    """One structure, after some iterations on subsets of the images.

    Poses found with a map that mixes both hands cannot be corrected by conformations. So there are
    two candidates, the map of the initial models and the better of two classes made from it and
    its mirror image (`map_of_one_hand`). Both are iterated until the log-likelihood hardly rises,
    and the one of the higher log-likelihood is kept.

    Args:
        halves: the two half-sets.
        initial: (2, 1, D, D, D) initial models in one frame.
        images_seen: so far.
        config: settings of the conformations.
        seed: of everything random.
        device: where it is computed.
        sides: where the half-sets are worked on.
        reference: (D, D, D) map whose frame and hand the result is to have, if there is one.
    """
    one = config.of_one_structure
    settings = replace(one, iterations=_ENDLESS, full_iterations=_ENDLESS)
    grid = latent_grid_of(one, 1)

    def iterations(state: EMState, phase: str) -> Generator[Step, None, EMState]:
        before = -math.inf
        for _ in range(_MOST):
            state = replace(state, whole=are_few(halves, one, 1))
            state, record = iteration(state, halves, settings, seed, device, sides)
            del record["iteration"]  # those of the refinement are counted
            yield Step(record | {"phase": phase}, map_so_far=partial(mean_map, state, one))
            now = record["log_likelihood"]
            if now - before < _GAIN * abs(now):
                break
            before = now
        return state

    state = first_state(halves, initial, grid.prior, images_seen, one)
    state = yield from iterations(state, "mean map")
    generator = generator_for(seed, "hands")
    seen = state.images_seen
    for step in map_of_one_hand(halves, state.halves[:, 0].mean(0), one, generator, device, sides):
        seen += step.images
        yield Step(
            record_of_batch("both hands", seen, step.rings, step.log_likelihood),
            map_so_far=partial(torch.clone, step.maps),
        )
    chosen = rescale_volume(step.maps, state.halves.shape[-1]).expand_as(state.halves)
    separated = replace(
        first_state(halves, chosen, grid.prior, seen, one),
        shift_sd_percent=state.shift_sd_percent,
        contrast_sd=state.contrast_sd,
        junk_share=state.junk_share,
        splits=state.splits,
    )
    separated = yield from iterations(separated, "map of one hand")
    batch = batches(halves, config.subset_size, generator)
    candidates = [(each.halves[0, 0], each.halves[1, 0]) for each in (state, separated)]
    found = log_likelihoods(halves, candidates, batch, one, device, sides)
    seen = separated.images_seen + 2 * sum(map(len, batch))
    yield Step({"phase": "hand comparison", "images_seen": seen, "log_likelihoods": found})
    kept = replace(state if found[0] >= found[1] else separated, images_seen=seen)
    return kept if reference is None else _in_frame_of(reference, kept, halves, sides)


def _in_frame_of(
    reference: Tensor, state: EMState, halves: tuple[HalfSet, HalfSet], sides: SideBySide
) -> EMState:
    """Both half-maps moved alike; the density of views is then as before the first iteration."""
    size = state.halves.shape[-1]
    pixel_size_A = halves[0].stack(size).pixel_size_A
    reference = rescale_volume(reference.to(state.halves.device), size)
    found = sides.once(partial(align, state.halves[:, 0].mean(0), reference, pixel_size_A))
    moved = torch.stack([moved_maps(maps, found, pixel_size_A) for maps in state.halves])
    return replace(state, halves=moved, views=UNIFORM.weight.repeat(2, 1))
