"""Conformations: latents, subspace, U-Net, their images, and the path that is reported."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from cryogan import fourier
from cryogan.models.conformations import Latent, Subspace
from cryogan.models.generator import Mixture
from cryogan.models.unet import UNet
from cryogan.models.volume import Volume
from cryogan.particles import Pose
from cryogan.physics.imaging import form_images
from cryogan.physics.projection import volume_spectrum
from cryogan.physics.rotations import random_rotations
from cryogan.training import losses
from cryogan.training.series import conformations

LATENTS = {
    "uniform": Latent("uniform"),
    "uniform2d": Latent("uniform2d"),
    "circle": Latent("circle"),
    "discrete": Latent("discrete", classes=5),
}


def volume(box_size=16, positivity="none", parametrisation="fourier"):
    return Volume(
        box_size,
        parametrisation=parametrisation,
        shell_amplitude=10.0 / (1.0 + torch.arange(box_size // 2 + 1)),
        positivity=positivity,
        mask_radius=0.8,
        mask_edge=0.15,
    )


def subspace(kind="uniform", basis=3, **options):
    torch.manual_seed(4)
    made = Subspace(volume(**options), LATENTS[kind], basis, start=0.5)
    with torch.no_grad():
        made.mean.parameter.normal_()
    return made


# Latents


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
def test_amounts_are_the_constant_and_the_functions(kind, generator):
    latent = LATENTS[kind].sample(7, generator)
    amounts = LATENTS[kind].amounts(latent, 4)
    assert torch.equal(amounts[:, 0], torch.ones(7))
    assert torch.equal(amounts[:, 1:], LATENTS[kind].functions(latent, 3))
    assert torch.equal(LATENTS[kind].amounts(latent, 1), torch.ones(7, 1))


@pytest.mark.parametrize("kind", LATENTS)
def test_the_slowest_functions_are_those_of_frequency_one(kind):
    frequency = 1.0 / LATENTS[kind].falling(4)
    slowest = LATENTS[kind].slowest
    assert bool((frequency[:slowest] == 1).all())
    assert bool((frequency[slowest:] > 1).all())


def test_moments_on_a_line():
    """A node is its part of the axis: no knowledge is 1/2 ± 1/√12, one node ± 1/√12 of a part."""
    line = LATENTS["uniform"]
    nodes = line.grid(16)
    some = torch.zeros(16)
    some[[3, 11]] = torch.tensor([0.25, 0.75])
    mean, spread = line.moments(torch.stack((torch.full((16,), 1 / 16), nodes[:, 0] == 0.34375,
                                             some)), nodes)  # fmt: skip
    cell = 1 / 12 / 256
    wanted = [0.5, 5.5 / 16, 0.25 * 3.5 / 16 + 0.75 * 11.5 / 16]
    torch.testing.assert_close(mean, torch.tensor(wanted)[:, None])
    apart = 0.25 * 0.75 * (8 / 16) ** 2
    wanted = torch.tensor([1 / 12, cell, apart + cell]).sqrt()[:, None]
    torch.testing.assert_close(spread, wanted, rtol=1e-4, atol=0)


def test_moments_on_a_circle():
    """A mean of directions: either side of 0 is near 0, and a turn turns the mean alone."""
    circle = LATENTS["circle"]
    nodes = circle.grid(16)
    seam = torch.zeros(1, 16)
    seam[0, [0, 15]] = 0.5
    mean, spread = circle.moments(seam, nodes)
    assert min(float(mean), 1.0 - float(mean)) == pytest.approx(0.0, abs=1e-5)
    assert float(spread) == pytest.approx(math.sqrt((1 / 32) ** 2 + 1 / 12 / 256), rel=1e-4)
    peak = torch.exp(-((torch.arange(16.0) - 3.0) ** 2) / 4.0)[None]
    peak[0, 5] *= 3.0
    peak = peak / peak.sum()
    rolled = torch.cat([peak.roll(step, 1) for step in range(16)])
    mean, spread = circle.moments(rolled, nodes)
    assert mean.shape == spread.shape == (16, 1)
    assert bool(((mean >= 0) & (mean <= 1)).all())
    steps = (mean - mean[:1])[:, 0] % 1.0
    torch.testing.assert_close(steps, torch.arange(16) / 16, atol=1e-5, rtol=0)
    torch.testing.assert_close(spread, spread[:1].expand(16, 1), rtol=1e-4, atol=0)
    flat = circle.moments(torch.full((1, 16), 1 / 16), nodes)[1]
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


# Images


@pytest.mark.parametrize("folded", [False, True])
def test_images_of_mixtures_are_those_of_mixed_volumes(folded, generator):
    components = torch.randn(3, 16, 16, 16, generator=generator)
    amounts = torch.randn(5, 3, generator=generator)
    pose = Pose(random_rotations(5, generator), torch.zeros(5, 2))
    options = {"box_size": 16, "pixel_size_A": 3.0, "folded": folded}
    mixed = torch.einsum("nk,kzyx->nzyx", amounts, components)
    expected = form_images(volume_spectrum(mixed, 3.0), pose, None, **options)
    spectrum = volume_spectrum(components, 3.0)
    found = form_images(spectrum, pose, None, amounts=amounts, **options)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


def test_several_volumes_are_shown_in_turn(generator):
    volumes = torch.randn(2, 16, 16, 16, generator=generator)
    pose = Pose(random_rotations(6, generator), torch.zeros(6, 2))
    options = {"box_size": 16, "pixel_size_A": 3.0, "folded": True}
    found = form_images(volume_spectrum(volumes, 2.0), pose, None, **options)
    each = volumes.repeat_interleave(3, dim=0)
    expected = form_images(volume_spectrum(each, 2.0), pose, None, **options)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


# Subspace


@pytest.mark.parametrize("kind", LATENTS)
def test_a_volume_is_the_mean_and_the_functions_times_the_basis(kind, generator):
    made = subspace(kind)
    components = made.components(generator).detach()
    latent = made.latent.sample(7, generator)
    functions = made.latent.functions(latent, 3)
    expected = components[0] + sum(functions[:, k, None, None, None] * components[k + 1]
                                   for k in range(3))  # fmt: skip
    torch.testing.assert_close(made.volumes(components, latent), expected)
    amounts = made.mixture(7, generator).amounts
    torch.testing.assert_close(amounts[:, 0], torch.ones(7))
    assert amounts.shape == (7, 4)


@pytest.mark.parametrize("parametrisation", ["fourier", "voxels"])
@pytest.mark.parametrize("positivity", ["none", "leaky"])
def test_a_subspace_goes_on_from_its_snapshot(positivity, parametrisation, generator):
    options = {"positivity": positivity, "parametrisation": parametrisation}
    made, other = subspace(**options), subspace(**options)
    for part in (made, other):  # exactly representable: the mask alone would change it
        part.mean.mask.fill_(1.0)
        part.leak = 0.5
    with torch.no_grad():
        other.basis.zero_()
    if parametrisation == "fourier":  # shells that no coefficient reaches
        made.start_from(made.snapshot().detach())
    snapshot = made.snapshot().detach()
    other.start_from(snapshot)
    torch.testing.assert_close(other.snapshot().detach()[1:], snapshot[1:], atol=1e-4, rtol=1e-3)
    if positivity == "none":
        torch.testing.assert_close(other.snapshot().detach()[0], snapshot[0], atol=1e-4, rtol=1e-3)


def test_a_mean_alone_leaves_the_basis_as_it_is(generator):
    made = subspace()
    basis = made.basis.detach().clone()
    molecule = torch.randn(16, 16, 16, generator=generator)
    made.start_from(molecule)
    assert torch.equal(made.basis, basis)
    reference = volume()
    reference.start_from(molecule)
    assert torch.equal(made.components(generator)[0], reference())


def test_basis_volumes_count_less_the_faster_they_vary(generator):
    made = subspace(basis=4)
    with torch.no_grad():
        made.basis.copy_(made.basis[0].clone().expand_as(made.basis))
    components = made.components(generator)
    for k in (2, 3, 4):
        torch.testing.assert_close(components[k] * k, components[1])
    assert LATENTS["circle"].falling(5).tolist() == pytest.approx([1, 1, 1 / 2, 1 / 2, 1 / 3])
    square = LATENTS["uniform2d"].falling(4)
    assert square.tolist() == pytest.approx([1, 1, 1 / math.sqrt(2), 1 / 2])


def test_populations_weight_the_classes_exactly(generator):
    """Any function of the class has the mean that the populations give it, and its gradient."""
    made = subspace("discrete", basis=4)
    with torch.no_grad():
        made.logits.copy_(torch.tensor([1.0, 0.0, -1.0, 0.5, 2.0]))
    value = torch.tensor([3.0, -1.0, 4.0, 1.0, -5.0])  # a loss for every class
    corners = made.amounts(made.latent.grid(0))
    mixture = made.mixture(52, generator)
    number = torch.cdist(mixture.amounts, corners).argmin(dim=1)
    found = losses.expectation(value[number], mixture.importance)
    population = made.logits.detach().clone().requires_grad_()
    expected = (population.softmax(0) * value).sum()
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found, made.logits)
    (wanted,) = torch.autograd.grad(expected, population)
    torch.testing.assert_close(gradient, wanted)
    assert losses.expectation(value, None) == value.mean()


def test_the_mean_of_classes_is_weighted_by_their_populations(generator):
    made = subspace("discrete", basis=4)
    with torch.no_grad():
        made.logits.copy_(torch.tensor([0.0, -50.0, -50.0, math.log(3.0), -50.0]))
    snapshot = made.snapshot().detach()
    first, fourth = made.volumes(snapshot, torch.tensor([[0.0], [3.0]]))
    torch.testing.assert_close(made.mean_volume(snapshot), 0.25 * first + 0.75 * fourth)


# The published network


def test_the_u_net_has_the_published_layers():
    """DESIGN section 4, from Gupta et al. 2020: every convolution's output, in order."""
    made = UNet(32, 2, torch.ones(17), torch.ones(32, 32, 32))
    shapes, joined = [], []

    def record(module, arguments, output):
        shapes.append((output.shape[1], output.shape[2]))
        joined.append(arguments[0].shape[1])

    for module in made.network.modules():
        if isinstance(module, nn.Conv3d):
            assert module.kernel_size == (3, 3, 3)
            module.register_forward_hook(record)
    made.components(torch.Generator().manual_seed(0))
    down = [(c, d) for c, d in ((16, 32), (32, 16), (64, 8), (128, 4), (256, 2)) for _ in range(2)]
    up = [(c, d) for c, d in ((128, 4), (64, 8), (32, 16), (16, 32)) for _ in range(3)]
    assert shapes == [*down, *up, (1, 32)]
    # With the four concatenations these are 27 layers; each doubles the channels of the next.
    assert len(shapes) + 4 == 27
    assert joined[11::3] == [256, 128, 64, 32]
    assert sum(isinstance(m, nn.BatchNorm3d) for m in made.network.modules()) == 22


def test_the_u_net_joins_what_was_before_the_pooling(generator):
    """The concatenated second half is the output of layers 8, 6, 4 and 2."""
    network = UNet(16, 2, torch.ones(9), torch.ones(16, 16, 16)).network
    kept, joined = [], []
    for level in network.down:
        level.register_forward_hook(lambda _, arguments, output: kept.append(output))
    for level in network.joining:
        level.register_forward_hook(lambda _, arguments, output: joined.append(arguments[0]))
    network(torch.randn(2, 1, 16, 16, 16, generator=generator))
    for values, before_pooling in zip(joined, reversed(kept[:-1]), strict=True):
        assert torch.equal(values[:, values.shape[1] // 2 :], before_pooling)


def test_a_u_net_goes_on_from_its_snapshot(generator):
    torch.manual_seed(0)
    mask = fourier.soft_disc(16, 6.0, 2.0, 3)
    made, other = (UNet(16, 4, torch.ones(9), mask) for _ in range(2))
    made.components(generator)  # moves the running statistics
    latent = torch.tensor([[0.1], [0.8]])
    snapshot = made.snapshot().detach()
    other.ends.copy_(made.ends)
    assert not torch.equal(other.snapshot(), snapshot)
    other.start_from(snapshot)
    assert torch.equal(other.snapshot(), snapshot)
    volumes = made.volumes(snapshot, latent)
    assert torch.equal(other.volumes(snapshot, latent), volumes)
    assert volumes[:, mask == 0].abs().max() == 0.0
    made.network.eval()
    between = torch.stack([0.9 * made.ends[0] + 0.1 * made.ends[1]])
    expected = made.network(between[:, None])[0, 0] * made.unit * mask
    torch.testing.assert_close(volumes[0], expected)


# The path that is reported


def line(place):
    """Volumes on a straight line, at place(z)."""
    direction = torch.randn(8, 8, 8, generator=torch.Generator().manual_seed(1))
    return lambda latent: place(latent)[:, :, None, None] * direction


def test_maps_lie_at_equal_steps_of_change_and_weigh_what_they_span():
    """place(z) = z²: the middle of piece i is at z = sqrt((i + ½) / n)."""
    found = conformations(LATENTS["uniform"], line(torch.square), 10)
    middle = ((torch.arange(10) + 0.5) / 10).sqrt()
    edge = (torch.arange(11) / 10).sqrt()
    torch.testing.assert_close(found.latents[:, 0], middle, atol=2e-3, rtol=0)
    torch.testing.assert_close(found.weights, edge.diff(), atol=3e-3, rtol=0)
    assert float(found.weights.sum()) == pytest.approx(1.0)
    steps = (found.volumes[1:] - found.volumes[:-1]).flatten(1).norm(dim=1)
    torch.testing.assert_close(steps, steps.mean().expand(9), rtol=0.02, atol=0)


def test_without_motion_maps_lie_at_equal_steps_of_the_latent():
    found = conformations(LATENTS["uniform"], line(torch.zeros_like), 4)
    torch.testing.assert_close(found.latents[:, 0], (torch.arange(4) + 0.5) / 4)
    torch.testing.assert_close(found.weights, torch.full((4,), 0.25))


def test_classes_are_reported_with_their_populations(generator):
    made = subspace("discrete", basis=4)
    with torch.no_grad():
        made.logits.copy_(torch.tensor([0.1, 0.2, 0.3, 0.25, 0.15]).log())
    volumes = partial(made.volumes, made.snapshot().detach())
    found = conformations(made.latent, volumes, 20, made.populations())
    assert torch.equal(found.volumes, volumes(made.latent.grid(0)))
    assert found.latents[:, 0].tolist() == [0, 1, 2, 3, 4]
    torch.testing.assert_close(found.weights, torch.tensor([0.1, 0.2, 0.3, 0.25, 0.15]))
    equal = conformations(made.latent, volumes, 20)
    torch.testing.assert_close(equal.weights, torch.full((5,), 0.2))


def test_a_square_is_reported_as_a_grid():
    made = subspace("uniform2d")
    found = conformations(made.latent, partial(made.volumes, made.snapshot().detach()), 20)
    assert found.latents.shape == (16, 2)
    assert len({tuple(point) for point in found.latents.tolist()}) == 16
    assert float(found.weights.sum()) == pytest.approx(1.0)


def test_a_plain_volume_is_a_generator_too(generator):
    made = volume()
    assert made.mixture(8, generator) == Mixture(None, None)
    assert torch.equal(made.components(generator), made())
    assert torch.equal(made.mean_volume(made.snapshot()), made())
