"""Euler angles against SciPy; uniformity of random rotations."""

import math

import healpix
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from scipy.stats import chi2

from cryogan.physics.rotations import (
    angle_between,
    euler_to_matrix,
    matrix_to_euler,
    random_rotations,
)


def random_euler(n, generator):
    low = torch.tensor([-180.0, 0.0, -180.0], dtype=torch.float64)
    high = torch.tensor([180.0, 180.0, 180.0], dtype=torch.float64)
    return low + (high - low) * torch.rand(n, 3, generator=generator, dtype=torch.float64)


def test_matrix_is_scipys_intrinsic_zyz(generator):
    euler = random_euler(500, generator)
    expected = Rotation.from_euler("ZYZ", euler.numpy(), degrees=True).as_matrix()
    np.testing.assert_allclose(euler_to_matrix(euler).numpy(), expected, atol=1e-14)


def test_viewing_direction_is_that_of_rot_and_tilt():
    rot, tilt = math.radians(30.0), math.radians(70.0)
    view = euler_to_matrix(torch.tensor([[30.0, 70.0, -55.0]], dtype=torch.float64))[0, :, 2]
    expected = [
        math.cos(rot) * math.sin(tilt),
        math.sin(rot) * math.sin(tilt),
        math.cos(tilt),
    ]
    np.testing.assert_allclose(view.numpy(), expected, atol=1e-15)


def test_euler_angles_survive_the_round_trip(generator):
    euler = random_euler(500, generator)
    back = matrix_to_euler(euler_to_matrix(euler))
    np.testing.assert_allclose(back.numpy(), euler.numpy(), atol=1e-9)


@pytest.mark.parametrize("tilt", [0.0, 180.0])
def test_poles_give_the_same_matrix_with_rot_zero(tilt):
    euler = torch.tensor([[20.0, tilt, 35.0], [-170.0, tilt, 90.0]], dtype=torch.float64)
    matrix = euler_to_matrix(euler)
    back = matrix_to_euler(matrix)
    assert (back[:, 0] == 0).all()
    np.testing.assert_allclose(euler_to_matrix(back).numpy(), matrix.numpy(), atol=1e-12)


def test_angle_between_is_the_angle_of_the_relative_rotation(generator):
    first, second = random_rotations(200, generator), random_rotations(200, generator)
    relative = Rotation.from_matrix(first.numpy()).inv() * Rotation.from_matrix(second.numpy())
    expected = np.rad2deg(relative.magnitude())
    np.testing.assert_allclose(angle_between(first, second).numpy(), expected, atol=0.05)


def test_random_rotations_are_rotations(generator):
    rotation = random_rotations(1000, generator)
    eye = torch.eye(3).expand(1000, 3, 3)
    torch.testing.assert_close(rotation @ rotation.mT, eye, atol=1e-6, rtol=0.0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(1000))


def test_random_rotations_have_haar_moments(generator):
    """E R = 0 and E R_ij R_kl = δ_ik δ_jl / 3, within 5 standard errors."""
    n = 50_000
    flat = random_rotations(n, generator).reshape(n, 9).double()
    assert flat.mean(0).abs().max() < 5.0 * math.sqrt(1.0 / 3.0 / n)
    second = flat.T @ flat / n
    assert (second - torch.eye(9, dtype=torch.float64) / 3.0).abs().max() < 5.0 * 0.3 / n**0.5


def test_random_axes_fill_healpix_cells_evenly(generator):
    """χ² of the viewing directions and of the image's x axis over 192 equal-area cells."""
    n, nside = 40_000, 4
    rotation = random_rotations(n, generator).double().numpy()
    cells = healpix.nside2npix(nside)
    for axis in (0, 2):
        x, y, z = rotation[:, :, axis].T
        count = np.bincount(healpix.vec2pix(nside, x, y, z), minlength=cells)
        statistic = float(((count - n / cells) ** 2).sum() / (n / cells))
        assert 1e-3 < chi2.sf(statistic, cells - 1) < 1.0 - 1e-3


def test_random_rotations_follow_the_generator():
    first, second = (random_rotations(5, torch.Generator().manual_seed(3)) for _ in range(2))
    other = random_rotations(5, torch.Generator().manual_seed(4))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
