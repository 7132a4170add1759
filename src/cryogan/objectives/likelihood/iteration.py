"""One EM iteration of both half-sets, from a state to the next.

Only the half-map FSC is shared between the half-sets: it sets the prior of both maps and the band
in which poses are searched (Scheres, J. Struct. Biol. 180, 2012).
"""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cryogan.evaluation.fsc import resolution_A
from cryogan.evaluation.resampling import translated
from cryogan.objectives.likelihood.agreeing_initial_models import record_of_batch
from cryogan.objectives.likelihood.bands import (
    box_for,
    fsc_of_basis,
    harmonics_for,
    limited,
    mask_for,
    search_for,
)
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.em_state import EMState
from cryogan.objectives.likelihood.em_step import (
    EStep,
    e_step,
    parameter_expanded,
    signal_prior_of,
    with_residual_noise,
)
from cryogan.objectives.likelihood.half_maps import (
    aligned,
    cutoff_shells,
    maps_without_prior,
    moved_maps,
    prior_from_fsc,
)
from cryogan.objectives.likelihood.half_set import HalfSet, PowerSplit
from cryogan.objectives.likelihood.image_model import ImageModel
from cryogan.objectives.likelihood.latent_grid import latent_grid_of
from cryogan.objectives.likelihood.normal_equations import solve
from cryogan.objectives.likelihood.search_levels import under_views
from cryogan.objectives.likelihood.shifts import shift_prior
from cryogan.objectives.likelihood.side_by_side import SideBySide
from cryogan.objectives.likelihood.view_density import ViewDensity
from cryogan.physics.imaging import rescale_volume
from cryogan.physics.rotations import angle_between
from cryogan.randomness import generator_for
from cryogan.symmetry import symmetry_matrices

_BLUR = 0.25  # radians in the finest ring: shifts that make less are not searched
_VIEW_IMAGES = 2500  # of each half-set, that the density of viewing directions is made of
_CONVERGED = 0.02  # change of the distribution over a latent in an iteration


def first_state(
    halves: tuple[HalfSet, HalfSet],
    maps: Tensor,
    prior: Tensor,
    images_seen: int,
    config: LikelihoodConfig,
) -> EMState:
    """Before the first iteration, from basis volumes (2, C, D, D, D)."""
    fsc = fsc_of_basis(maps)
    fsc[1:] = 0.0  # these began alike in both halves, so that their FSC means nothing
    return EMState(
        0,
        0,
        are_few(halves, config, maps.shape[1]),
        maps,
        halves[0].particles.box_size,
        fsc,
        prior,
        images_seen,
        False,
        shift_sd_percent=config.assumptions.shift_sd_percent,
    )


def mean_map(state: EMState, config: LikelihoodConfig) -> Tensor:
    """(D, D, D) the mean map of all particles."""
    average = state.average
    grid = latent_grid_of(config, len(average), state.prior)
    return torch.einsum("c,czyx->zyx", grid.average.to(average), average)


def are_few(halves: tuple[HalfSet, HalfSet], config: LikelihoodConfig, basis_volumes: int) -> bool:
    """Whether all images make up a subset at most."""
    return min(len(half) for half in halves) <= config.subset_size * basis_volumes


@dataclass(frozen=True)
class _Iterated:
    """A half-set in an iteration.

    Attributes:
        step: posteriors of its images.
        images: how many.
        split: `PowerSplit.record` after it.
        maps: (C, D, D, D) with the signal's power as prior.
    """

    step: EStep
    images: int
    split: Tensor
    maps: Tensor


def iteration(
    state: EMState,
    halves: tuple[HalfSet, HalfSet],
    config: LikelihoodConfig,
    seed: int,
    device: torch.device,
    sides: SideBySide,
) -> tuple[EMState, dict[str, Any]]:
    """One EM iteration of both half-sets, and their FSC."""
    box_size = halves[0].particles.box_size
    basis_volumes = state.halves.shape[1]
    most = box_for(box_size, box_size) // 2 - 1
    width_A = box_size * halves[0].particles.pixel_size_A
    rings = limited(min(state.rings, most), width_A, config)
    finest = min(math.ceil(1.25 * rings) + 3, most)
    size = box_for(finest, box_size)
    pixel_size_A = halves[0].stack(size).pixel_size_A
    harmonics = harmonics_for(size, finest, config, device)
    shifts = config.assumptions.with_shift_sd(state.shift_sd_percent)
    searched = replace(config, assumptions=shifts.resolving(rings, _BLUR))
    search = search_for(harmonics, searched, rings)
    mask = mask_for(size, pixel_size_A, config, device)
    latent_grid = latent_grid_of(config, basis_volumes, state.prior)

    def work(number: int) -> _Iterated:
        half = halves[number]
        levels = under_views(search, ViewDensity(state.views[number]))
        generator = generator_for(seed, "EM iteration", state.done, number)
        index = torch.randperm(len(half), generator=generator)
        index = index if state.whole else index[: config.subset_size * basis_volumes]
        maps = rescale_volume(state.halves[number].to(device), size)
        image_model = ImageModel(state.contrast_sd, state.junk_share)
        if state.splits is not None:
            half = half.divided(PowerSplit.read(state.splits[number], half.width_A))
        else:
            half = with_residual_noise(
                half, maps, latent_grid, levels, harmonics, image_model, generator
            )
        found = e_step(
            half,
            index.sort().values,
            maps,
            latent_grid,
            levels,
            rings,
            harmonics,
            image_model=image_model,
            generator=generator,
            view_images=_VIEW_IMAGES if config.view_density else 0,
        )
        prior = signal_prior_of(half, size, finest, basis_volumes, config).to(device)
        assert found.left is not None
        split = half.with_residuals(*found.left).power_split.record
        return _Iterated(found, len(index), split, solve(found.equations, prior, mask, maps))

    found = sides.both(work)
    first_step, second_step = (each.step for each in found)
    drift, fsc = sides.once(
        partial(
            aligned,
            found[1].maps,
            found[0].maps,
            pixel_size_A,
            state.fsc if state.done else None,
        )
    )
    images = sum(each.images for each in found)
    change = max(first_step.change, second_step.change)
    finer = cutoff_shells(fsc) > cutoff_shells(state.fsc)
    if basis_volumes == 1 and rings >= most - 1:
        finer = False  # in the last two shells of the box, nothing worth an iteration can be gained
    better = finer or change > _CONVERGED
    done, full = state.done + 1, state.full + (state.whole and not better)
    late = done >= config.iterations - config.last_iterations
    latent = None if basis_volumes == 1 else config.assumptions.latent_space
    learnt = latent is not None and latent.is_discrete
    shift_sd_percent, move_px = state.shift_sd_percent, torch.zeros(3)
    measured_shifts = config.assumptions.shift_sd_percent > 0.0
    if measured_shifts and first_step.shifts is not None and second_step.shifts is not None:
        operators = symmetry_matrices(config.assumptions.symmetry)
        sd_px, move_px = shift_prior((first_step.shifts, second_step.shifts), operators)
        shift_sd_percent = min(100.0 * sd_px / size, config.assumptions.shift_sd_percent)
    views = state.views
    if first_step.views is not None and second_step.views is not None:
        operators = symmetry_matrices(config.assumptions.symmetry)
        before = [ViewDensity(each) for each in state.views]
        one_half = first_step.views.density(before[0], operators)
        other = second_step.views.density(before[1], operators, drift.rotation)
        views = torch.stack((one_half.weight, other.weight))
    images_model = (first_step.images + second_step.images).model
    finished = full >= config.last_iterations or done >= config.iterations

    def solved(number: int) -> tuple[Tensor, Tensor | None]:
        """The next maps of a half-set and, at last, those without prior."""
        equations, before = found[number].step.equations, found[number].maps
        maps = solve(equations, prior_from_fsc(fsc, equations, finest), mask, before)
        maps = parameter_expanded(maps, found[number].step, config)
        return maps, maps_without_prior(equations, before, finest) if finished else None

    (one, plain_one), (two, plain_two) = sides.both(solved)
    maps = torch.stack((one, moved_maps(two, drift, pixel_size_A)))
    unfiltered = None
    if plain_one is not None and plain_two is not None:
        unfiltered = torch.stack((plain_one, moved_maps(plain_two, drift, pixel_size_A)))
        unfiltered = translated(unfiltered, move_px)
    after = EMState(
        done,
        full,
        state.whole or late or not better,
        translated(maps, move_px),
        box_size,
        fsc,
        0.5 * (first_step.latent + second_step.latent).cpu() if learnt else state.prior,
        state.images_seen + images,
        finished,
        unfiltered,
        finest,
        shift_sd_percent,
        images_model.contrast_sd,
        images_model.junk_share,
        torch.stack([each.split for each in found]),
        views,
        state.symmetry_search,
    )
    log_likelihood = 0.5 * (first_step.log_likelihood + second_step.log_likelihood)
    return after, record_of_batch("refinement", after.images_seen, rings, log_likelihood) | {
        "iteration": done,
        "images": images,
        "box_size": size,
        "nside": search[-1].nside,
        "drift_deg": float(angle_between(drift.rotation, torch.eye(3).to(drift.rotation))),
        "half_map_0.143_A": resolution_A(fsc[0], 0.143, pixel_size_A),
        "latent_change": change,
        "contrast_sd": images_model.contrast_sd,
        "junk_share": images_model.junk_share,
        "shift_sd_A": shift_sd_percent / 100.0 * width_A,
        "view_evenness": ViewDensity(views.mean(0)).evenness,
        "effective_poses": 0.5 * (first_step.effective_poses + second_step.effective_poses),
    }
