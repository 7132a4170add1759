"""Displacements of particles, measured without poses; images and maps that are centred."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cryogan.data.centring import CentredStack, centred, measure_displacements
from cryogan.data.halves import split_halves
from cryogan.data.normalisation import normalised
from cryogan.data.statistics import measure
from cryogan.evaluation.alignment import align
from cryogan.evaluation.resampling import translated
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.em import expectation_maximisation
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.orientation_grid import orientation_grid
from cryogan.objectives.likelihood.pose_search import Cells
from cryogan.objectives.likelihood.shifts import ShiftMoments
from cryogan.particles import ArrayStack
from cryogan.phantom import phantom_map
from cryogan.physics.distributions import PoseDistribution, Triangular
from cryogan.physics.imaging import rescale_volume
from cryogan.physics.rotations import euler_to_matrix
from cryogan.simulation.in_memory import SimulatedSet, simulate_particles
from cryogan.simulation.microscope import random_ctf
from cryogan.symmetry import symmetry_matrices

BOX, PIXEL_A = 32, 6.0


def displaced(largest_A: float, n: int = 1500, snr_dB: float = -6.0) -> SimulatedSet:
    """A phantom with triangular shifts; their standard deviation is largest_A / √6."""
    generator = torch.Generator().manual_seed(3)
    return simulate_particles(
        phantom_map(BOX, PIXEL_A),
        pixel_size_A=PIXEL_A,
        n=n,
        ctf=random_ctf(n, generator),
        poses=PoseDistribution(shifts=Triangular(largest_A)),
        snr_dB=snr_dB,
        generator=generator,
    )


def test_centred_images_are_those_whose_particles_are_at_the_origin() -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(4, 7, 7, generator=generator)
    centre = torch.tensor([[0, 0], [2, 0], [0, -3], [-1, 2]])
    away = torch.stack(
        [image.roll((int(y), int(x)), (0, 1)) for image, (x, y) in zip(images, centre, strict=True)]
    )
    stack = CentredStack(ArrayStack(away), centre)
    assert torch.equal(stack.read(torch.arange(4)), images)
    assert torch.equal(stack.read(torch.tensor([3, 1])), images[[3, 1]])
    assert len(stack) == 4
    assert stack.box_size == 7


def test_displacements_are_found_with_their_uncertainty() -> None:
    """Spread, correlation with the truth, and the error that the posteriors claim."""
    largest_A = 0.2 * BOX * PIXEL_A
    made = displaced(largest_A)
    particles, _ = normalised(made.particles)
    found = measure_displacements(particles, measure(particles))
    sd_A = largest_A / math.sqrt(6.0)
    assert found.sd_A == pytest.approx(sd_A, rel=0.1)
    error_A = found.centre_px * PIXEL_A - made.pose.shift_A
    rms_A = float(error_A.square().mean().sqrt())
    assert rms_A < 0.6 * sd_A
    assert found.remaining_sd_A == pytest.approx(rms_A, rel=0.2)


@pytest.mark.parametrize("largest_percent", [5.0, 10.0])
def test_small_displacements_are_not_taken_for_none(largest_percent: float) -> None:
    """What a particle's shape adds to its projections is less than their power."""
    largest_A = largest_percent / 100.0 * BOX * PIXEL_A
    particles, _ = normalised(displaced(largest_A).particles)
    found = measure_displacements(particles, measure(particles))
    assert found.sd_A == pytest.approx(largest_A / math.sqrt(6.0), rel=0.3)


def test_junk_does_not_widen_the_displacements() -> None:
    """A fifth of the images are empty, or show the edge of a film: they are told apart."""
    largest_A = 0.2 * BOX * PIXEL_A
    made = displaced(largest_A)
    particles, _ = normalised(made.particles)
    clean = measure_displacements(particles, measure(particles))
    count = len(particles) // 10
    generator = torch.Generator().manual_seed(4)
    junk = made.noise_sigma * torch.randn(2 * count, BOX, BOX, generator=generator)
    axis = (torch.arange(BOX) - BOX // 2) / BOX
    angle, distance = torch.rand(2, count, 1, 1, generator=generator)
    angle = 2.0 * math.pi * angle
    side = angle.cos() * axis + angle.sin() * axis[:, None] - 0.5 * (distance - 0.5)
    junk[count:] += 3.0 * made.noise_sigma * (side > 0.0)
    images = made.particles.stack.read(torch.arange(len(particles)))
    images = torch.cat((junk, images[2 * count :]))
    particles, _ = normalised(replace(made.particles, stack=ArrayStack(images)))
    found = measure_displacements(particles, measure(particles))
    assert found.sd_A == pytest.approx(largest_A / math.sqrt(6.0), rel=0.1)
    assert found.remaining_sd_A == pytest.approx(clean.remaining_sd_A, rel=0.2)
    assert float(found.particle_probability[: 2 * count].mean()) < 0.1
    assert float(found.particle_probability[2 * count :].mean()) > 0.9
    after, _ = centred(particles)
    half = HalfSet.of(after.subset(torch.arange(1, len(after), 2)))
    shows = half.likely[half.likely >= count]  # half of 2 count images are junk
    assert len(half.likely) - len(shows) < 0.1 * count
    assert len(shows) > 0.9 * (len(half) - count)


def test_centred_particles_stay_where_they_are() -> None:
    particles, _ = normalised(displaced(0.0).particles)
    after, found = centred(particles)
    assert found.sd_A < 0.03 * BOX * PIXEL_A
    assert found.diameter_A is not None
    assert float((found.centre_px != 0).float().mean()) < 0.1
    same = (found.centre_px == 0).all(dim=1).nonzero()[:20, 0]
    assert torch.equal(after.stack.read(same), particles.stack.read(same))


def test_noise_has_no_centre() -> None:
    """Images without a particle: nothing is claimed to be known about where one is."""
    made = displaced(0.0, n=600)
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(600, BOX, BOX, generator=generator)
    particles = replace(made.particles, stack=ArrayStack(images))
    found = measure_displacements(particles, measure(particles))
    assert found.diameter_A is None
    assert not found.centre_px.any()
    assert found.remaining_sd_A == found.sd_A > 0.0


def cells_of(move_px: Tensor, sd_px: float, n: int = 400) -> tuple[Cells, Tensor]:
    """Known orientations and the shifts that a move of the map makes, with others besides."""
    generator = torch.Generator().manual_seed(2)
    grid = orientation_grid(8, torch.device("cpu"))
    direction = torch.randint(len(grid), (n, 1), generator=generator)
    psi = 2.0 * math.pi * torch.rand(n, 1, generator=generator)
    zero = torch.zeros(n)
    turn = euler_to_matrix(torch.stack((zero, zero, torch.rad2deg(psi[:, 0])), -1))
    rotation = grid.frame[direction[:, 0]] @ turn
    shift = torch.einsum("nji,j->ni", rotation, move_px)[:, :2]  # Rᵀ v
    shift = shift + sd_px * torch.randn(n, 2, generator=generator)
    return Cells(direction, psi, shift[:, None], torch.zeros(n, 1)), torch.ones(n, 1)


@pytest.mark.parametrize("symmetry", ["C1", "C3", "D2"])
def test_where_a_map_should_be_follows_from_its_shifts(symmetry: str) -> None:
    """Only as far as the symmetry leaves it free: along the axis of C3, nowhere with D2."""
    move = torch.tensor([1.0, -2.0, 0.5])
    operators = symmetry_matrices(symmetry)
    allowed = operators.mean(dim=0) @ move
    cells, one = cells_of(allowed, 0.3)
    grid = orientation_grid(8, torch.device("cpu"))
    half = len(one) // 2
    parts = [
        ShiftMoments.of(Cells(*(v[s] for v in vars(cells).values())), one[s], grid)
        for s in (slice(None, half), slice(half, None))
    ]
    moments = parts[0] + parts[1]
    found = moments.move_px(operators)
    torch.testing.assert_close(found.float(), allowed, atol=0.06, rtol=0.0)
    assert moments.sd_px(found) == pytest.approx(0.3, rel=0.1)


@pytest.mark.slow
def test_a_map_off_its_origin_is_moved_back() -> None:
    """Particles are at their origins, the half-maps that EM starts from 1.9 voxels away."""
    made = displaced(0.0, n=240, snr_dB=0.0)
    off_px = torch.tensor([1.2, -1.0, 1.0])
    halves = tuple(HalfSet.of(made.particles.subset(rows)) for rows in split_halves(240, 0))
    truth = translated(phantom_map(BOX, PIXEL_A), off_px)
    maps = torch.stack([half.scaled_to_images(truth) for half in halves])[:, None]
    assumptions = Assumptions().with_shifts(100.0 * 2.0 / BOX)
    config = LikelihoodConfig(iterations=2, full_iterations=3, assumptions=assumptions)
    device = torch.device("cpu")
    steps = expectation_maximisation(
        (halves[0], halves[1]), config, seed=1, device=device, maps=maps
    )
    left = []
    for step in steps:
        if step.state is not None:
            found = rescale_volume(step.state.halves[0, 0], BOX)
            moved = align(found, truth, 1.0)
            left.append(float((moved.shift_A - off_px).norm()))
    assert moved.correlation > 0.9
    assert max(left) < 0.2 * float(off_px.norm())
