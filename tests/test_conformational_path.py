"""The conformational path that a run reports: equal steps of change, classes, grids."""

import pytest
import torch

from cryogan.conformations.latent import Circle, Classes, Line, Square
from cryogan.conformations.path import sample_conformations


def line(place):
    """Volumes on a straight line, at place(z)."""
    direction = torch.randn(8, 8, 8, generator=torch.Generator().manual_seed(1))
    return lambda latent: place(latent)[:, :, None, None] * direction


@pytest.mark.parametrize("latent", [Line(), Circle()])
def test_maps_lie_at_equal_steps_of_change_and_weigh_what_they_span(latent):
    """place(z) = z²: the middle of piece i is at z = sqrt((i + ½) / n)."""
    found = sample_conformations(latent, line(torch.square), 10)
    middle = ((torch.arange(10) + 0.5) / 10).sqrt()
    edge = (torch.arange(11) / 10).sqrt()
    torch.testing.assert_close(found.latents[:, 0], middle, atol=2e-3, rtol=0)
    torch.testing.assert_close(found.weights, edge.diff(), atol=3e-3, rtol=0)
    assert float(found.weights.sum()) == pytest.approx(1.0)
    steps = (found.volumes[1:] - found.volumes[:-1]).flatten(1).norm(dim=1)
    torch.testing.assert_close(steps, steps.mean().expand(9), rtol=0.02, atol=0)


def test_without_motion_maps_lie_at_equal_steps_of_the_latent():
    found = sample_conformations(Line(), line(torch.zeros_like), 4)
    torch.testing.assert_close(found.latents[:, 0], (torch.arange(4) + 0.5) / 4)
    torch.testing.assert_close(found.weights, torch.full((4,), 0.25))


def test_classes_are_reported_with_their_populations():
    populations = torch.tensor([0.1, 0.2, 0.3, 0.25, 0.15])
    volumes = line(torch.square)
    found = sample_conformations(Classes(5), volumes, 20, populations)
    assert torch.equal(found.volumes, volumes(torch.arange(5.0)[:, None]))
    assert found.latents[:, 0].tolist() == [0, 1, 2, 3, 4]
    torch.testing.assert_close(found.weights, populations)
    equal = sample_conformations(Classes(5), volumes, 20)
    torch.testing.assert_close(equal.weights, torch.full((5,), 0.2))


def test_a_square_is_reported_as_a_grid():
    found = sample_conformations(Square(), line(lambda z: z.sum(dim=1, keepdim=True)), 20)
    assert found.latents.shape == (16, 2)
    assert len({tuple(point) for point in found.latents.tolist()}) == 16
    assert float(found.weights.sum()) == pytest.approx(1.0)
