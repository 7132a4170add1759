"""Maximum likelihood by expectation-maximisation (EM), from random numbers or from maps.

Only the half-map FSC is shared between the half-sets: it sets the prior of both maps and the band
in which poses are searched (Scheres, J. Struct. Biol. 180, 2012). Without good maps to start from,
an initial model of each half-set is made first, on its own, from random numbers or from a poor
map, band by band, on small random batches; the prior is then the signal's power, which is measured
without poses.

Conformations have C basis volumes instead of one map. Each has an FSC, and a prior, of its own:
a motion that the half-sets do not share is suppressed.

A symmetry that is to be found is looked for when the resolution without it no longer improves:
a molecule may look symmetric as long as it is coarse.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.objectives.base import Step
from cryogan.objectives.data_parallel import SINGLE_PROCESS, ProcessGroup
from cryogan.objectives.likelihood.agreeing_initial_models import record_of_batch
from cryogan.objectives.likelihood.bands import fsc_cutoff_shell, fsc_of_basis, symmetrised
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.em_state import EMState
from cryogan.objectives.likelihood.found_symmetry import with_symmetry_found
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.initial_conformations import initialise_conformations
from cryogan.objectives.likelihood.iteration import are_few, first_state, iteration, mean_map
from cryogan.objectives.likelihood.latent_grid import latent_grid_of
from cryogan.objectives.likelihood.mean_maps import mean_maps
from cryogan.objectives.likelihood.side_by_side import side_by_side
from cryogan.objectives.likelihood.symmetric_initial_models import initial_models
from cryogan.objectives.likelihood.view_density import UNIFORM
from cryogan.randomness import generator_for


def expectation_maximisation(
    halves: tuple[HalfSet, HalfSet],
    config: LikelihoodConfig,
    *,
    seed: int,
    device: torch.device,
    maps: Tensor | None = None,
    populations: Tensor | None = None,
    state: EMState | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Iterator[Step]:
    """Initial models unless there are good maps, conformations if they are wanted, and refinement.

    Args:
        halves: the two half-sets.
        config: settings.
        seed: of everything random.
        device: where it is computed.
        maps: (2, C, D, D, D) basis volumes of each half, in one frame; of conformations yet to be
            found, the means alone. From single ones whose FSC is below 0.5 in a band of the
            initial model, an initial model is made too, from that band on: images assigned with
            poor maps may never leave the poses that these suggest.
        populations: (classes,) of a discrete latent, to start from; equal by default.
        state: that of an interrupted run, which goes on as if it had never stopped.
        group: the processes that share the work; all call this.

    Yields:
        After every batch and iteration; a run can go on from steps that have a state.

    Raises:
        InputError: an image cannot be used.
    """
    seen = 0
    settings, config = config, config.imposing("C1" if state is None else state.symmetry)
    wanted = config.assumptions.volumes
    if group.half is not None:
        smallest = min(config.initial_batch_size, *map(len, halves))
        if wanted > 1:
            smallest = min(smallest, config.conformation_batch_size)
        if smallest < group.half.size:
            raise InputError(
                f"{group.half.size} processes of a half-set cannot share {smallest} images; start "
                "fewer."
            )
        halves = replace(halves[0], group=group.half), replace(halves[1], group=group.half)
    with side_by_side(group) as sides:
        if state is None:
            reference = None
            if maps is not None:
                both = zip(halves, maps, strict=True)
                maps = torch.stack([half.basis_scaled_to_images(own) for half, own in both])
                maps = symmetrised(maps, config)
                reference = maps[0, 0]
            mean: EMState | None = None
            if maps is None or _poor(maps, config):
                maps, seen = yield from initial_models(halves, maps, config, seed, device, sides)
                if wanted > 1:
                    mean = yield from mean_maps(
                        halves, maps, seen, config, seed, device, sides, reference
                    )
                    maps, seen = mean.halves, mean.images_seen
                    config = config.with_shift_sd(mean.shift_sd_percent)
            if maps.shape[1] < wanted:
                generator = generator_for(seed, "conformations")
                for step in initialise_conformations(
                    halves, maps[:, 0], config, generator, device, sides
                ):
                    maps = step.maps
                    seen += step.images
                    yield Step(
                        record_of_batch("conformations", seen, step.rings, step.log_likelihood),
                        map_so_far=partial(torch.mean, maps[:, 0], 0),
                    )
            prior = latent_grid_of(config, maps.shape[1], populations).prior
            state = first_state(halves, maps, prior, seen, config)
            if mean is not None:
                state = replace(state, views=mean.views)
        while not state.finished:
            before = state
            config = settings.imposing(state.symmetry)
            state, record = iteration(state, halves, config, seed, device, sides)
            if settings.assumptions.finds_symmetry:
                record["symmetry"] = before.symmetry
                if _stalls(before, state):
                    state = sides.once(partial(_with_symmetry, state, halves, settings))
                if state.symmetry_search != before.symmetry_search:
                    record["symmetry_search"] = state.symmetry_search
            yield Step(
                record,
                state,
                finished=state.finished,
                milestone=True,
                map_so_far=partial(mean_map, state, config),
                live=state,
            )


def _stalls(before: EMState, after: EMState) -> bool:
    """Whether an iteration has not improved the resolution, or is the last."""
    return after.full > before.full or after.whole != before.whole or after.finished


def _with_symmetry(
    state: EMState, halves: tuple[HalfSet, HalfSet], config: LikelihoodConfig
) -> EMState:
    """Looked for a symmetry; where there is a larger one, it is imposed in an iteration at least.

    The first that is found may be a part of it.
    """
    pixel_size_A = halves[0].stack(state.halves.shape[-1]).pixel_size_A
    maps, found = with_symmetry_found(state.halves, state.symmetry, pixel_size_A, config)
    search = found | {"iteration": state.done}
    if maps is None:
        return replace(state, symmetry_search=search) if state.symmetry == "C1" else state
    return replace(
        state,
        symmetry_search=search,
        halves=maps,
        views=UNIFORM.weight.repeat(2, 1),  # those known were of the old frames
        fsc=fsc_of_basis(maps),
        full=0,
        whole=are_few(halves, config, 1),
        finished=False,
        unfiltered=None,
    )


def _poor(maps: Tensor, config: LikelihoodConfig) -> bool:
    """Whether to begin with initial models: single maps of low FSC in the bands of those."""
    last = min(config.initial_rings[1], maps.shape[-1] // 2 - 1)
    return maps.shape[1] == 1 and fsc_cutoff_shell(fsc_of_basis(maps)[0], 0.5) < last
