"""Orientation grids: uniform directions, nested levels, and their frames."""

import math

import pytest
import torch

from cryogan.objectives.likelihood.orientation_grid import orientation_grid
from cryogan.physics.rotations import angle_between, euler_to_matrix

CPU = torch.device("cpu")


def about_z(psi: torch.Tensor) -> torch.Tensor:
    zero = torch.zeros_like(psi)
    return euler_to_matrix(torch.stack((zero, zero, torch.rad2deg(psi)), -1))


@pytest.mark.parametrize("nside", [1, 2, 8])
def test_directions_are_uniform(nside: int) -> None:
    """HEALPix pixels: no mean direction, no preferred axis, neighbours a spacing apart."""
    level = orientation_grid(nside, CPU)
    direction = level.frame[:, :, 2]
    assert len(level) == 12 * nside**2
    torch.testing.assert_close(direction.mean(0), torch.zeros(3), atol=1e-6, rtol=0)
    second = direction.T @ direction / len(level)
    torch.testing.assert_close(second, torch.eye(3) / 3.0, atol=0.04 / nside**2, rtol=0)
    nearest = (direction @ direction.T - 2.0 * torch.eye(len(level))).max(1).values.acos()
    assert float(nearest.min()) > 0.6 * level.spacing
    assert float(nearest.max()) < 1.5 * level.spacing
    assert level.spacing == pytest.approx(math.radians(58.6) / nside, rel=1e-3)


@pytest.mark.parametrize("nside", [2, 4, 16])
def test_children_lie_about_their_parents(nside: int) -> None:
    child, parent = orientation_grid(nside, CPU).frame[:, :, 2], orientation_grid(nside // 2, CPU)
    mine = parent.frame[:, :, 2].repeat_interleave(4, dim=0)
    apart = (child * mine).sum(1).clamp(-1.0, 1.0).acos()
    assert float(apart.max()) < parent.spacing
    assert float(apart.mean()) < 0.5 * parent.spacing
    middle = torch.nn.functional.normalize(child.view(-1, 4, 3).mean(1), dim=1)
    nearest = (middle @ parent.frame[:, :, 2].T).argmax(1)
    assert torch.equal(nearest, torch.arange(len(parent)))


@pytest.mark.parametrize("nside", [2, 8, 64])
def test_in_plane_angles_mean_the_same_as_in_the_parent(nside: int) -> None:
    """Of all angles, half a degree apart, ψ is nearest to the parent's pose at ψ."""
    frame = orientation_grid(nside, CPU).frame
    parent = orientation_grid(nside // 2, CPU).frame.repeat_interleave(4, dim=0)
    some = torch.arange(0, len(frame), max(1, len(frame) // 768))
    line = torch.arange(720) * (2.0 * math.pi / 720)
    tried = frame[some].double()[:, None] @ about_z(line.double())
    pose = parent[some].double() @ about_z(line[80:81].double())
    assert torch.equal(angle_between(tried, pose[:, None]).argmin(1), torch.full_like(some, 80))


@pytest.mark.parametrize("nside", [1, 8, 64])
def test_frames_are_rotations_and_opposite_ones_half_a_turn_apart(nside: int) -> None:
    level = orientation_grid(nside, CPU)
    frame, half_turn = level.frame, torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    torch.testing.assert_close(frame @ frame.mT, torch.eye(3).expand_as(frame), atol=1e-5, rtol=0)
    assert bool((torch.linalg.det(frame) > 0.99).all())
    assert level.opposite is not None
    torch.testing.assert_close(frame[level.opposite], frame @ half_turn, atol=1e-5, rtol=0)
