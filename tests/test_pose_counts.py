"""Every pose of a search counts once, and none but those."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from cryogan.objectives.likelihood.central_slices import MapSpectrum, Reference, reference
from cryogan.objectives.likelihood.observations import Observations, moved
from cryogan.objectives.likelihood.pose_search import (
    Cells,
    log_marginal_likelihood,
    log_marginal_likelihood_of_all,
    log_marginal_likelihood_refined,
    poses_searched,
    search,
)
from cryogan.objectives.likelihood.search_levels import Level, in_plane_angles, levels_for
from cryogan.objectives.likelihood.view_density import ViewDensity
from cryogan.physics.circular_harmonics import CircularHarmonics
from cryogan.physics.density import gaussian_density

CPU = torch.device("cpu")
BOX = 32
CENTRES_PX = torch.tensor([[3.0, 1.0, -2.0], [-2.5, 2.0, 1.0], [0.5, -3.5, 2.0]])


def harmonics(rings: int) -> CircularHarmonics:
    return CircularHarmonics(BOX, rings, BOX / 2, CPU)


def found(levels: list[Level], rings: int, scale: float, generator: torch.Generator) -> Cells:
    """Cells of images of noise `scale` times as strong as the molecule's slices say."""
    band = harmonics(rings)
    a = scale * torch.randn(4, len(band.order), dtype=torch.complex64, generator=generator)
    seen = Observations(a * band.weight, scale * band.ring_weight.expand(4, -1).clone())
    molecule = gaussian_density(CENTRES_PX, box_size=BOX, pixel_size_A=1.0, sigma_A=2.0)
    spectrum = MapSpectrum(molecule, band)
    return search(seen, [reference(spectrum, level) for level in levels], levels)


@pytest.mark.parametrize("rings", [5, 8, 13])
def test_poses_without_shifts_are_orientations(rings: int) -> None:
    levels = levels_for(harmonics(rings), BOX / 2, 0.0)
    nside = levels[-1].nside
    orientations = 12 * nside**2 * len(in_plane_angles(nside, CPU))
    assert poses_searched(levels) == pytest.approx(orientations)


@pytest.mark.parametrize("rings", [5, 8, 13])
def test_poses_with_shifts_are_those_of_the_finest_grid(rings: int) -> None:
    levels = levels_for(harmonics(rings), BOX / 2, 4.0)
    first, last = levels[0], levels[-1]
    alone = poses_searched(levels_for(harmonics(rings), BOX / 2, 0.0))
    per_shift = (first.shift_step_px / last.shift_step_px) ** 2
    assert poses_searched(levels) == pytest.approx(
        alone * (2 * first.shift_steps + 1) ** 2 * per_shift
    )


@pytest.mark.parametrize("sd_px", [0.2, 0.4, 0.8, 1.5])
def test_shifts_count_with_their_prior(sd_px: float) -> None:
    """A narrow prior allows one shift of the coarse grid, not all that the fine grid has there."""
    levels = levels_for(harmonics(13), BOX / 2, 6.0 * sd_px, shift_sd_px=sd_px)
    step_px = levels[-1].shift_step_px
    assert levels[0].shift_step_px >= 2.0 * step_px
    place_px = step_px * torch.arange(-200, 201)
    along = (-0.5 * (place_px / sd_px).square()).exp().sum()
    alone = poses_searched(levels_for(harmonics(13), BOX / 2, 0.0))
    assert poses_searched(levels) == pytest.approx(alone * float(along) ** 2, rel=0.01)


@pytest.mark.parametrize("largest_px", [0.0, 2.0])
def test_images_that_tell_nothing_are_as_likely_as_noise(
    largest_px: float, generator: torch.Generator
) -> None:
    """Where no pose is left out, the mean likelihood of a flat one is that of noise alone."""
    steps = math.ceil(largest_px)
    levels = [Level(8, 6, 10**9, shift_step_px=1.5, shift_steps=steps)]
    cells = found(levels, 6, 0.0, generator)
    torch.testing.assert_close(
        log_marginal_likelihood(cells, levels), torch.zeros(4), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("rings", [5, 8, 13])
def test_no_pose_is_scored_twice(rings: int, generator: torch.Generator) -> None:
    """Neighbouring shifts have neighbours in common, at every level of nested grids."""
    levels = levels_for(harmonics(rings), BOX / 2, 4.0, shift_sd_px=2.0)
    for before, after in pairwise(levels):
        assert before.shift_step_px / after.shift_step_px in (1.0, 2.0)
    cells = found(levels, rings, 1e-3, generator)
    place = cells.shift_px / levels[-1].shift_step_px
    torch.testing.assert_close(place, place.round(), atol=1e-3, rtol=0)
    turn = 2.0 * math.pi / 4096
    for image in range(4):
        real = cells.score[image].isfinite()
        pose = torch.stack(
            (
                cells.direction[image].double(),
                (cells.psi[image] / turn).round().double() % 4096,
                *place[image].round().double().unbind(-1),
            ),
            dim=1,
        )[real]
        assert len(pose) > 8
        assert len(pose.unique(dim=0)) == len(pose)


def weak_images(
    levels: list[Level], rings: int, generator: torch.Generator, contrast: float = 1.0
) -> tuple[Observations, list[Reference]]:
    """Four images that tell little of their poses, and slices of a molecule of some contrast."""
    band = harmonics(rings)
    a = 0.3 * torch.randn(4, len(band.order), dtype=torch.complex64, generator=generator)
    seen = Observations(a * band.weight, 0.3 * band.ring_weight.expand(4, -1).clone())
    molecule = gaussian_density(CENTRES_PX, box_size=BOX, pixel_size_A=1.0, sigma_A=2.0)
    spectrum = MapSpectrum(contrast * molecule, band)
    return seen, [reference(spectrum, level) for level in levels]


@pytest.mark.parametrize("uneven", [False, True])
def test_the_likelihood_over_all_poses_leaves_none_out(
    uneven: bool, generator: torch.Generator
) -> None:
    """The mean over all orientations, each pose scored by a search that keeps every one."""
    level = Level(8, 6, 10**9)
    if uneven:
        weight = torch.rand(12 * 8**2, generator=generator) + 0.1
        level = replace(level, views=ViewDensity(weight / weight.mean()))
    seen, references = weak_images([level], 6, generator)
    cells = search(seen, references, [level])
    assert cells.score.shape[1] == 12 * 8**2 * len(in_plane_angles(8, CPU))
    found = log_marginal_likelihood_of_all(seen, references, [level])[0]
    torch.testing.assert_close(found, log_marginal_likelihood(cells, [level]), atol=1e-3, rtol=1e-4)
    few = [replace(level, keep=24, most=192)]
    left_out = log_marginal_likelihood(search(seen, references, few), few)
    assert bool((left_out < found - 1.0).all())  # else this shows nothing


def test_the_likelihood_over_all_poses_is_the_mean_over_all_shifts(
    generator: torch.Generator,
) -> None:
    """Of each shift on its own: images that are moved back by it, weighted with its prior."""
    level = Level(8, 6, 10**9, shift_step_px=1.5, shift_steps=1, shift_sd_px=1.2)
    seen, references = weak_images([level], 6, generator)
    shifts_px = level.shifts_px(CPU)
    none = [replace(level, shift_steps=0)]
    each = []
    for shift_px in shifts_px:
        moved_back = moved(seen.a, shift_px.view(1, 1, 2), harmonics(6))[:, 0]
        each.append(
            log_marginal_likelihood_of_all(Observations(moved_back, seen.b), references, none)[0]
        )
    prior = level.log_prior_of_shifts(shifts_px)
    expected = torch.logsumexp(torch.stack(each, 1) + prior, 1) - torch.logsumexp(prior, 0)
    found = log_marginal_likelihood_of_all(seen, references, [level])[0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("largest_px", [0.0, 4.0])
def test_an_empty_map_explains_as_much_as_noise_alone(
    largest_px: float, generator: torch.Generator
) -> None:
    levels = levels_for(harmonics(8), BOX / 2, largest_px)
    seen, references = weak_images(levels, 8, generator)
    empty = [
        reference(MapSpectrum(torch.zeros(BOX, BOX, BOX), harmonics(8)), level) for level in levels
    ]
    found = log_marginal_likelihood_of_all(seen, empty, levels)[0]
    torch.testing.assert_close(found, torch.zeros(4), atol=1e-4, rtol=0)
    assert bool((log_marginal_likelihood_of_all(seen, references, levels).abs() > 1e-3).all())


def test_contrasts_are_factors_of_the_map(generator: torch.Generator) -> None:
    level = Level(8, 6, 24, shift_step_px=1.5, shift_steps=1)
    seen, references = weak_images([level], 6, generator)
    found = log_marginal_likelihood_of_all(seen, references, [level], (1.0, 0.5))
    _, weaker = weak_images([level], 6, generator, 0.5)
    expected = log_marginal_likelihood_of_all(seen, weaker, [level])[0]
    torch.testing.assert_close(found[1], expected, atol=1e-4, rtol=1e-4)
    assert bool(((found[0] - found[1]).abs() > 1e-2).any())


def images_of_a_molecule(
    levels: list[Level], contrast: float, generator: torch.Generator
) -> tuple[Observations, list[Reference]]:
    """Four noisy slices of a molecule, weak or strong."""
    band = harmonics(13)
    molecule = gaussian_density(CENTRES_PX, box_size=BOX, pixel_size_A=1.0, sigma_A=1.5)
    references = [reference(MapSpectrum(molecule, band), level) for level in levels]
    plane, _ = references[-1].take(torch.tensor([5, 700, 1400, 2000]))
    noise = torch.randn(4, len(band.order), dtype=torch.complex64, generator=generator)
    b = contrast * band.ring_weight.expand(4, -1).clone()
    a = contrast * plane * band.weight + (contrast * band.weight).sqrt() * noise
    return Observations(a, b), references


@pytest.mark.parametrize("contrast", [3.0, 100.0, 3000.0])
def test_the_refined_likelihood_leaves_no_pose_out(
    contrast: float, generator: torch.Generator
) -> None:
    """Held against a search that hands on every pose that counts."""
    levels = levels_for(harmonics(13), BOX / 2, 0.0)
    assert len(levels) == 2
    seen, references = images_of_a_molecule(levels, contrast, generator)
    seen = seen[:1]
    every = [replace(level, keep=10**6, most=0) for level in levels]
    expected = log_marginal_likelihood(search(seen, references, every), every)
    found = log_marginal_likelihood_refined(seen, references, levels)
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0.01)


@pytest.mark.parametrize("contrast", [3.0, 3000.0])
def test_the_refined_likelihood_with_shifts(contrast: float, generator: torch.Generator) -> None:
    """Of weak images that of the coarse grids, of strong ones that of the few poses they tell."""
    levels = levels_for(harmonics(13), BOX / 2, 3.0, shift_sd_px=1.0)
    seen, references = images_of_a_molecule(levels, contrast, generator)
    found = log_marginal_likelihood_refined(seen, references, levels)
    kept = log_marginal_likelihood(search(seen, references, levels), levels)
    coarse = log_marginal_likelihood_of_all(seen, references, levels)[0]
    assert bool((found > kept).all())
    expected = coarse if contrast < 10.0 else kept
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0.01)
