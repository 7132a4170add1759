"""Latents: orthonormal functions, draws that are spread evenly, moments of a posterior."""

import math

import pytest
import torch

from cryogan.conformations.latent import Circle, Classes, Line, Square, make_latent
from cryogan.errors import InputError

LATENTS = {
    "uniform": Line(),
    "uniform2d": Square(),
    "circle": Circle(),
    "discrete": Classes(5),
}


@pytest.mark.parametrize(("kind", "count"), [(k, 4) for k in LATENTS] + [("uniform2d", 9)])
def test_functions_are_orthonormal_over_the_distribution(kind, count):
    latent = LATENTS[kind]
    grid = latent.grid(65536)  # midpoints: 256 along an axis of the square
    values = latent.functions(grid, count).double()
    values = torch.cat((torch.ones(len(grid), 1), values), dim=1)
    gram = values.T @ values / len(grid)
    torch.testing.assert_close(gram, torch.eye(count + 1).double(), atol=2e-3, rtol=0)


def test_functions_are_those_named():
    z = torch.tensor([[0.0], [0.2], [0.9]])
    line = LATENTS["uniform"].functions(z, 2)
    wanted = torch.cat((math.sqrt(3) * (2 * z - 1), math.sqrt(5) * (6 * z.square() - 6 * z + 1)), 1)
    torch.testing.assert_close(line, wanted)
    circle = LATENTS["circle"].functions(z, 3)
    wanted = torch.cat((torch.cos(2 * math.pi * z), torch.sin(2 * math.pi * z)), 1)
    torch.testing.assert_close(circle[:, :2], math.sqrt(2) * wanted)
    torch.testing.assert_close(circle[:, 2:], math.sqrt(2) * torch.cos(4 * math.pi * z))
    latent_line = LATENTS["uniform"].functions
    square = LATENTS["uniform2d"].functions(torch.tensor([[0.2, 0.7]]), 5)[0]
    a, b = latent_line(torch.tensor([[0.2], [0.7]]), 2)
    # (0, 1), (1, 0), (1, 1), (0, 2), (2, 0)
    torch.testing.assert_close(square, torch.stack((b[0], a[0], a[0] * b[0], b[1], a[1])))


def test_the_ends_of_a_circle_meet():
    ends = LATENTS["circle"].functions(torch.tensor([[0.0], [1.0]]), 6)
    torch.testing.assert_close(ends[0], ends[1], atol=1e-5, rtol=0)


def test_classes_are_equally_far_apart():
    latent = LATENTS["discrete"]
    corners = latent.functions(latent.grid(0), 4)
    distances = torch.cdist(corners, corners)
    off = distances[~torch.eye(5, dtype=torch.bool)]
    torch.testing.assert_close(off, torch.full((20,), math.sqrt(10.0)))


@pytest.mark.parametrize("kind", LATENTS)
def test_coefficients_are_the_constant_and_the_functions(kind, generator):
    latent = LATENTS[kind].sample(7, generator)
    coefficients = LATENTS[kind].coefficients(latent, 4)
    assert torch.equal(coefficients[:, 0], torch.ones(7))
    assert torch.equal(coefficients[:, 1:], LATENTS[kind].functions(latent, 3))
    assert torch.equal(LATENTS[kind].coefficients(latent, 1), torch.ones(7, 1))


@pytest.mark.parametrize("kind", LATENTS)
def test_the_slowest_functions_are_those_of_frequency_one(kind):
    frequency = 1.0 / LATENTS[kind].falling(4)
    slowest = LATENTS[kind].slowest
    assert bool((frequency[:slowest] == 1).all())
    assert bool((frequency[slowest:] > 1).all())


def test_faster_functions_are_expected_to_count_less():
    """1 / k, k the frequency, or the root of the sum of squared degrees."""
    assert LATENTS["circle"].falling(5).tolist() == pytest.approx([1, 1, 1 / 2, 1 / 2, 1 / 3])
    square = LATENTS["uniform2d"].falling(4)
    assert square.tolist() == pytest.approx([1, 1, 1 / math.sqrt(2), 1 / 2])


def test_moments_on_a_line():
    """A point is its part of the axis: all alike give 1/2 ± 1/√12, one alone ± 1/√12 of a part."""
    line = LATENTS["uniform"]
    points = line.grid(16)
    some = torch.zeros(16)
    some[[3, 11]] = torch.tensor([0.25, 0.75])
    mean, spread = line.moments(torch.stack((torch.full((16,), 1 / 16), points[:, 0] == 0.34375,
                                             some)), points)  # fmt: skip
    cell = 1 / 12 / 256
    wanted = [0.5, 5.5 / 16, 0.25 * 3.5 / 16 + 0.75 * 11.5 / 16]
    torch.testing.assert_close(mean, torch.tensor(wanted)[:, None])
    apart = 0.25 * 0.75 * (8 / 16) ** 2
    wanted = torch.tensor([1 / 12, cell, apart + cell]).sqrt()[:, None]
    torch.testing.assert_close(spread, wanted, rtol=1e-4, atol=0)


def test_moments_on_a_circle():
    """A mean of directions: either side of 0 is near 0, and a turn turns the mean alone."""
    circle = LATENTS["circle"]
    points = circle.grid(16)
    seam = torch.zeros(1, 16)
    seam[0, [0, 15]] = 0.5
    mean, spread = circle.moments(seam, points)
    assert min(float(mean), 1.0 - float(mean)) == pytest.approx(0.0, abs=1e-5)
    assert float(spread) == pytest.approx(math.sqrt((1 / 32) ** 2 + 1 / 12 / 256), rel=1e-4)
    peak = torch.exp(-((torch.arange(16.0) - 3.0) ** 2) / 4.0)[None]
    peak[0, 5] *= 3.0
    peak = peak / peak.sum()
    rolled = torch.cat([peak.roll(step, 1) for step in range(16)])
    mean, spread = circle.moments(rolled, points)
    assert mean.shape == spread.shape == (16, 1)
    assert bool(((mean >= 0) & (mean <= 1)).all())
    steps = (mean - mean[:1])[:, 0] % 1.0
    torch.testing.assert_close(steps, torch.arange(16) / 16, atol=1e-5, rtol=0)
    torch.testing.assert_close(spread, spread[:1].expand(16, 1), rtol=1e-4, atol=0)
    flat = circle.moments(torch.full((1, 16), 1 / 16), points)[1]
    assert float(flat) == pytest.approx(1 / math.sqrt(12), rel=0.02)


def test_moments_on_a_square_are_those_of_its_axes(generator):
    square, line = LATENTS["uniform2d"], LATENTS["uniform"]
    first, second = torch.rand(2, 3, 5, generator=generator).softmax(-1)
    joint = (first[:, :, None] * second[:, None]).flatten(1)
    mean, spread = square.moments(joint, square.grid(25))
    for axis, own in enumerate((first, second)):
        wanted_mean, wanted_spread = line.moments(own, line.grid(5))
        torch.testing.assert_close(mean[:, axis, None], wanted_mean)
        torch.testing.assert_close(spread[:, axis, None], wanted_spread)


@pytest.mark.parametrize("kind", ["uniform", "uniform2d", "circle"])
def test_one_latent_falls_into_each_part_of_every_axis(kind, generator):
    n = 50
    latent = LATENTS[kind].sample(n, generator)
    assert latent.shape == (n, LATENTS[kind].dimension)
    for column in latent.T:
        assert sorted((column * n).long().tolist()) == list(range(n))
        assert not torch.equal(column, column.sort().values)


def test_classes_are_drawn_in_equal_numbers(generator):
    counts = torch.bincount(LATENTS["discrete"].sample(52, generator)[:, 0].long())
    assert sorted(counts.tolist()) == [10, 10, 10, 11, 11]


# Names


@pytest.mark.parametrize("kind", LATENTS)
def test_latents_are_made_by_name(kind):
    made = make_latent(kind, classes=5)
    assert type(made) is type(LATENTS[kind])
    assert torch.equal(made.grid(9), LATENTS[kind].grid(9))


def test_only_a_line_and_a_circle_are_paths():
    assert [kind for kind in LATENTS if LATENTS[kind].is_path] == ["uniform", "circle"]
    assert [kind for kind in LATENTS if LATENTS[kind].is_discrete] == ["discrete"]


def test_a_name_that_stands_for_no_latent_is_refused():
    with pytest.raises(InputError, match=r"latent 'unifrom' is unknown; did you mean 'uniform'\?"):
        make_latent("unifrom")
    with pytest.raises(InputError, match=r"'math:tau' is not a subclass of cryogan's Latent"):
        make_latent("math:tau")
    with pytest.raises(InputError, match=r"'no_such_module:Latent' cannot be imported"):
        make_latent("no_such_module:Latent")


def test_maps_fit_a_latent_if_their_coordinates_lie_on_it():
    """Strictly inside, as written by a run, and as many as there are basis volumes; all classes."""
    inside = torch.tensor([[0.1], [0.4], [0.9]])
    for latent in (Line(), Circle()):
        assert latent.fits(inside, 3)
        assert not latent.fits(inside, 4)
        assert not latent.fits(torch.tensor([[0.0], [1.0]]), 2)
        assert not latent.fits(inside.expand(3, 2), 2)
    assert Square().fits(inside.expand(3, 2), 3)
    assert Classes(3).fits(torch.arange(3.0)[:, None], 3)
    assert not Classes(3).fits(torch.arange(4.0)[:, None], 3)
    assert not Classes(3).fits(inside, 3)
