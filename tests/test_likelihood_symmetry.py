"""Symmetry in the likelihood: one asymmetric unit is searched, all of its copies are filled."""

import math
from dataclasses import replace

import healpix
import pytest
import torch
from torch import Tensor

from cryogan import fourier
from cryogan.evaluation.fsc import fourier_shell_correlation
from cryogan.objectives.likelihood.normal_equations import (
    WeightedPoses,
    normal_equations,
    solve,
)
from cryogan.objectives.likelihood.observations import Observations, observations_of
from cryogan.objectives.likelihood.orientation_grid import (
    asymmetric_directions,
    orientation_grid,
)
from cryogan.particles import CTFParams, Pose
from cryogan.physics.circular_harmonics import CircularHarmonics
from cryogan.physics.ctf import ctf
from cryogan.physics.imaging import simulate_images
from cryogan.physics.rotations import random_rotations
from cryogan.symmetry import symmetry_matrices

pytestmark = pytest.mark.slow
CPU = torch.device("cpu")
BOX, RINGS, PIXEL_A = 32, 15, 5.0
HARMONICS = CircularHarmonics(BOX, RINGS, 15.0, CPU)
GROUPS = ["C3", "D3", "T", "O", "I"]


@pytest.mark.parametrize("symmetry", ["C1", "C2", "C7", "D2", "D7", "T", "O", "I"])
def test_every_direction_has_an_equivalent_in_the_cells_that_are_searched(symmetry, generator):
    group = symmetry_matrices(symmetry)
    found = asymmetric_directions(8, symmetry, CPU)
    direction = random_rotations(2000, generator)[:, :, 2].double()
    copies = torch.einsum("gij,nj->gni", group.double(), direction)
    tilt, rot = copies[..., 2].clamp(-1, 1).acos(), torch.atan2(copies[..., 1], copies[..., 0])
    cell = torch.from_numpy(
        healpix.ang2pix(8, tilt.numpy(), rot.numpy() % (2 * math.pi), nest=True)
    )
    assert bool(torch.isin(cell, found).any(dim=0).all())
    assert len(found) >= 768 / len(group)
    # cells on the unit's edge are searched too: a rim, half a cell wide on each side
    area, rim = 768 / len(group), 4.0 * math.sqrt(math.pi * 768 / len(group))
    assert len(found) < area + rim or symmetry == "C1"


def molecule(symmetry: str, generator: torch.Generator) -> Tensor:
    """Gaussian balls of 0.7 px at all equivalents of ten places: analytic, exactly symmetric."""
    place = 9.0 * torch.randn(10, 3, generator=generator) / 2.0
    place = place * (10.0 / place.norm(dim=1, keepdim=True)).clamp_max(1.0)
    places = (symmetry_matrices(symmetry)[:, None] @ place[None, :, :, None])[..., 0].view(-1, 3)
    axis = torch.arange(BOX) - BOX // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    grid = torch.stack((x, y, z), dim=-1).float()
    volume = torch.zeros(BOX, BOX, BOX)
    for point in places:
        volume += torch.exp(-(grid - point).square().sum(-1) / (2 * 0.7**2))
    return volume


def some_poses(n: int, generator: torch.Generator) -> WeightedPoses:
    """One known pose an image, on the grid of nside 16, anywhere on the sphere."""
    direction = torch.randint(12 * 16**2, (n,), generator=generator)
    psi = 2.0 * math.pi * torch.rand(n, generator=generator)
    one = torch.ones(n, 1)
    return WeightedPoses(torch.arange(n), direction, psi, torch.zeros(n, 2), one, one)


def observed(volume: Tensor, poses: WeightedPoses, noise: Tensor | float) -> Observations:
    n = len(poses.image)
    cosine, sine, zero = poses.psi.cos(), poses.psi.sin(), torch.zeros(n)
    turn = torch.stack((cosine, -sine, zero, sine, cosine, zero, zero, zero, zero + 1), 1)
    rotation = orientation_grid(16, CPU).frame[poses.direction] @ turn.view(n, 3, 3)
    transfer = ctf(CTFParams.constant(n, defocus_u_A=torch.linspace(8e3, 2e4, n)), BOX, PIXEL_A)
    images = simulate_images(
        volume, Pose(rotation, torch.zeros(n, 2)), transfer, pixel_size_A=PIXEL_A, padding=4.0
    )
    return observations_of(images + noise, transfer, torch.ones(BOX // 2 + 1), HARMONICS)


def test_equations_are_the_sums_over_all_equivalents_of_the_poses(generator):
    poses = some_poses(20, generator)
    seen = observed(molecule("C1", generator), poses, 0.0)
    grid = orientation_grid(4, CPU)  # coarse, so that kernels are of the directions themselves
    poses = replace(poses, direction=poses.direction // 16)
    found = normal_equations(seen, poses, grid, HARMONICS, operators=symmetry_matrices("T"))
    turned = [
        normal_equations(
            seen, poses, replace(grid, frame=operator @ grid.frame, opposite=None), HARMONICS
        )
        for operator in symmetry_matrices("T")
    ]
    for name in ("backprojection", "kernel"):
        total = torch.stack([getattr(each, name) for each in turned]).sum(0)
        difference = getattr(found, name) - total
        assert float(difference.norm() / total.norm()) < 1e-5


@pytest.mark.parametrize("symmetry", GROUPS)
def test_a_symmetric_map_keeps_its_gain_to_the_edge_of_the_band(symmetry, generator):
    """Trilinear symmetrisation of the map took half of its outermost shells (I: 0.53)."""
    truth = molecule(symmetry, generator)
    poses = some_poses(max(20, 3000 // len(symmetry_matrices(symmetry))), generator)
    seen = observed(truth, poses, 0.0)
    equations = normal_equations(
        seen, poses, orientation_grid(16, CPU), HARMONICS, operators=symmetry_matrices(symmetry)
    )
    power = fourier.shell_mean(fourier.rfft(truth, 3).abs().square(), BOX, 3)
    prior = 1e2 * power[None].clamp_min(1e-6)
    mask = fourier.soft_disc(BOX, 14.5, 1.0, 3, CPU)
    (found,) = solve(equations, prior, mask, torch.zeros(1, BOX, BOX, BOX), iterations=30)
    one, other = fourier.rfft(found, 3), fourier.rfft(truth, 3)
    gain = fourier.shell_mean((one * other.conj()).real, BOX, 3) / power
    assert float((gain[2:15] - 1.0).abs().mean()) < 0.03  # 0.02 to 0.08 in single shells
    assert float((gain[2:15] - 1.0).abs().max()) < 0.1
    assert float(fourier_shell_correlation(found, truth)[1:15].min()) > 0.96


def test_symmetry_is_worth_as_many_images(generator):
    """FSC of 60 images with T is that of 720 images without, both with noise."""
    truth = molecule("T", generator)
    mask = fourier.soft_disc(BOX, 14.5, 1.0, 3, CPU)
    power = fourier.shell_mean(fourier.rfft(truth, 3).abs().square(), BOX, 3)
    curves = []
    for count, symmetry in ((60, "T"), (720, "C1")):
        poses = some_poses(count, generator)
        seen = observed(truth, poses, 3.0 * torch.randn(count, BOX, BOX, generator=generator))
        equations = normal_equations(
            seen, poses, orientation_grid(16, CPU), HARMONICS, operators=symmetry_matrices(symmetry)
        )
        (found,) = solve(
            equations, power[None].clamp_min(1e-6), mask, torch.zeros(1, BOX, BOX, BOX)
        )
        curves.append(fourier_shell_correlation(found, truth)[1:15])
    assert float(curves[0].min()) < 0.95
    apart = (curves[0] - curves[1]).abs()  # of other images, with other noise
    assert float(apart.mean()) < 0.04
    assert float(apart.max()) < 0.1
