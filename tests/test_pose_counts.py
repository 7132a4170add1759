"""Every pose of a search counts once, and none but those."""

import math
from itertools import pairwise

import pytest
import torch

from cryogan.objectives.likelihood.central_slices import reference
from cryogan.objectives.likelihood.observations import Observations
from cryogan.objectives.likelihood.pose_search import (
    Cells,
    log_marginal_likelihood,
    poses_searched,
    search,
)
from cryogan.objectives.likelihood.search_levels import Level, in_plane_angles, levels_for
from cryogan.physics.circular_harmonics import CircularHarmonics
from cryogan.physics.density import gaussian_density
from cryogan.physics.projection import volume_spectrum

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
    spectrum = volume_spectrum(molecule, 2.0)
    return search(seen, [reference(spectrum, band, level) for level in levels], levels)


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
