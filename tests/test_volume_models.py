"""Volume models: one volume, a subspace, the published network, and images of their mixtures."""

import math

import pytest
import torch
from torch import nn

from cryogan import fourier
from cryogan.conformations.latent import make_latent
from cryogan.models.base import Mixture
from cryogan.models.subspace import Subspace
from cryogan.models.unet import UNet
from cryogan.models.volume import Volume
from cryogan.objectives.adversarial import losses
from cryogan.particles import Pose
from cryogan.physics.imaging import form_images
from cryogan.physics.projection import volume_spectrum
from cryogan.physics.rotations import random_rotations

LATENTS = {
    name: make_latent(name, classes=5) for name in ("uniform", "uniform2d", "circle", "discrete")
}


def volume(box_size=16, positivity="none", parametrisation="fourier"):
    half = box_size / 2
    return Volume(
        box_size,
        parametrisation=parametrisation,
        shell_amplitude=10.0 / (1.0 + torch.arange(box_size // 2 + 1)),
        positivity=positivity,
        mask=fourier.soft_disc(box_size, 0.8 * half, 0.15 * half, 3),
    )


def subspace(kind="uniform", basis=3, **options):
    torch.manual_seed(4)
    made = Subspace(volume(**options), LATENTS[kind], basis, start=0.5)
    with torch.no_grad():
        made.mean.parameter.normal_()
    return made


# Images


@pytest.mark.parametrize("folded", [False, True])
def test_images_of_mixtures_are_those_of_mixed_volumes(folded, generator):
    volumes = torch.randn(3, 16, 16, 16, generator=generator)
    coefficients = torch.randn(5, 3, generator=generator)
    pose = Pose(random_rotations(5, generator), torch.zeros(5, 2))
    options = {"box_size": 16, "pixel_size_A": 3.0, "folded": folded}
    mixed = torch.einsum("nk,kzyx->nzyx", coefficients, volumes)
    expected = form_images(volume_spectrum(mixed, 3.0), pose, None, **options)
    spectrum = volume_spectrum(volumes, 3.0)
    found = form_images(spectrum, pose, None, coefficients=coefficients, **options)
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
    volumes = made.basis(generator).detach()
    latent = made.latent.sample(7, generator)
    functions = made.latent.functions(latent, 3)
    expected = volumes[0] + sum(functions[:, k, None, None, None] * volumes[k + 1]
                                   for k in range(3))  # fmt: skip
    torch.testing.assert_close(made.volumes(volumes, latent), expected)
    coefficients = made.mixture(7, generator).coefficients
    torch.testing.assert_close(coefficients[:, 0], torch.ones(7))
    assert coefficients.shape == (7, 4)


@pytest.mark.parametrize("parametrisation", ["fourier", "voxels"])
@pytest.mark.parametrize("positivity", ["none", "leaky"])
def test_a_subspace_goes_on_from_its_snapshot(positivity, parametrisation, generator):
    options = {"positivity": positivity, "parametrisation": parametrisation}
    made, other = subspace(**options), subspace(**options)
    for part in (made, other):  # exactly representable: the mask alone would change it
        part.mean.mask.fill_(1.0)
        part.leak = 0.5
    with torch.no_grad():
        other.parts.zero_()
    if parametrisation == "fourier":  # shells that no coefficient reaches
        made.start_from(made.snapshot().detach())
    snapshot = made.snapshot().detach()
    other.start_from(snapshot)
    torch.testing.assert_close(other.snapshot().detach()[1:], snapshot[1:], atol=1e-4, rtol=1e-3)
    if positivity == "none":
        torch.testing.assert_close(other.snapshot().detach()[0], snapshot[0], atol=1e-4, rtol=1e-3)


def test_a_mean_alone_leaves_the_basis_as_it_is(generator):
    made = subspace()
    parts = made.parts.detach().clone()
    molecule = torch.randn(16, 16, 16, generator=generator)
    made.start_from(molecule)
    assert torch.equal(made.parts, parts)
    reference = volume()
    reference.start_from(molecule)
    assert torch.equal(made.basis(generator)[0], reference())


def test_basis_volumes_count_less_the_faster_they_vary(generator):
    made = subspace(basis=4)
    with torch.no_grad():
        made.parts.copy_(made.parts[0].clone().expand_as(made.parts))
    volumes = made.basis(generator)
    for k in (2, 3, 4):
        torch.testing.assert_close(volumes[k] * k, volumes[1])


def test_populations_weight_the_classes_exactly(generator):
    """Any function of the class has the mean that the populations give it, and its gradient."""
    made = subspace("discrete", basis=4)
    with torch.no_grad():
        made.logits.copy_(torch.tensor([1.0, 0.0, -1.0, 0.5, 2.0]))
    value = torch.tensor([3.0, -1.0, 4.0, 1.0, -5.0])  # a loss for every class
    corners = made.coefficients(made.latent.grid(0))
    mixture = made.mixture(52, generator)
    number = torch.cdist(mixture.coefficients, corners).argmin(dim=1)
    found = losses.expectation(value[number], mixture.importance)
    torch.testing.assert_close(made.populations(), made.logits.softmax(0))
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
    made.basis(torch.Generator().manual_seed(0))
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
    made.basis(generator)  # moves the running statistics
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


def test_one_volume_is_a_volume_model_too(generator):
    made = volume()
    assert made.mixture(8, generator) == Mixture(None, None)
    assert torch.equal(made.basis(generator), made())
    assert torch.equal(made.mean_volume(made.snapshot()), made())
