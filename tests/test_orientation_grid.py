"""Orientation grids: uniform directions, nested levels, and the twist between their frames."""

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


@pytest.mark.parametrize("nside", [2, 8])
def test_twist_leads_to_the_nearest_in_plane_angle(nside: int) -> None:
    """Of all angles, half a degree apart, ψ + twist is nearest to the parent's pose at ψ."""
    level = orientation_grid(nside, CPU)
    psi = torch.tensor(0.7)
    pose = orientation_grid(nside // 2, CPU).frame.repeat_interleave(4, dim=0) @ about_z(psi[None])
    line = torch.arange(720) * (2.0 * math.pi / 720)
    tried = level.frame.double()[:, None] @ about_z(line.double())
    best = line[angle_between(tried, pose.double()[:, None]).argmin(1)]
    difference = best - psi - level.twist
    wrapped = torch.atan2(difference.sin(), difference.cos()).abs()
    assert float(wrapped.max()) < math.radians(0.3)
    assert float(level.twist.abs().max()) > 0.1  # without it, poles would be missed
