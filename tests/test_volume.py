"""The volume: what its parameters can represent, and what its constraints forbid."""

import pytest
import torch

from cryogan import fourier
from cryogan.models.volume import Volume, initial_blob, symmetrise
from cryogan.physics.imaging import Preprocessing, preprocess, rescale_volume
from cryogan.physics.projection import project
from cryogan.physics.rotations import random_rotations
from cryogan.symmetry import symmetry_matrices

KINDS = ["voxels", "fourier"]


def make(box_size, parametrisation="fourier", positivity="none", symmetry="C1"):
    return Volume(
        box_size,
        parametrisation=parametrisation,
        shell_amplitude=10.0 / (1.0 + torch.arange(box_size // 2 + 1)),
        positivity=positivity,
        mask=fourier.soft_disc(box_size, 0.8 * box_size / 2, 0.15 * box_size / 2, 3),
        symmetry=symmetry,
    )


def blobs(box_size, sigma, radius, generator, count=6):
    """Gaussians of different heights within `radius` of the origin; no symmetry."""
    axis = torch.arange(box_size, dtype=torch.float32) - box_size // 2
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")[::-1], dim=-1)
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    centres = direction * radius * torch.rand(count, 1, generator=generator)
    return sum(
        (number + 1.0) * torch.exp(-(grid - c).square().sum(-1) / (2.0 * sigma**2))
        for number, c in enumerate(centres)
    )


def turned(volume, operator):
    """V(R x) for an operator that permutes the grid's axes, by indexing; 0 from outside."""
    size = volume.shape[-1]
    axis = torch.arange(size) - size // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    source = torch.stack((x, y, z), dim=-1) @ operator.round().long().T + size // 2
    inside = ((source >= 0) & (source < size)).all(-1)
    index = source.clamp(0, size - 1)
    return volume[index[..., 2], index[..., 1], index[..., 0]] * inside


def relative_error(result, expected):
    return float((result - expected).detach().norm() / expected.detach().norm())


@pytest.mark.parametrize("positivity", ["none", "leaky", "relu"])
@pytest.mark.parametrize("parametrisation", KINDS)
@pytest.mark.parametrize("box_size", [32, 33])
def test_a_molecule_inside_mask_and_band_is_reproduced(
    box_size, parametrisation, positivity, generator
):
    molecule = blobs(box_size, 2.0, 4.0, generator)
    volume = make(box_size, parametrisation, positivity)
    volume.start_from(molecule)
    assert relative_error(volume(), molecule) < 1e-5


def test_fourier_parameters_are_in_units_of_the_expected_amplitude(generator):
    """Parameters of modulus 1 give every shell its expected amplitude, to the Nyquist shell."""
    volume = make(32)
    with torch.no_grad():
        noise = torch.randn(32, 32, 32, generator=generator)
        volume.parameter.copy_(torch.view_as_real(torch.sgn(fourier.rfft(noise, 3))))
        volume.mask.fill_(1.0)
    power = fourier.shell_mean(fourier.rfft(volume().detach(), 3).abs().square(), 32, 3)
    expected = (10.0 / (1.0 + torch.arange(17))).square()
    torch.testing.assert_close(power[:16], expected[:16], rtol=0.05, atol=0.0)
    beyond = fourier.frequency_grid(32, 3).norm(dim=-1) >= 0.5
    assert fourier.rfft(volume(), 3)[beyond].abs().max() < 1e-4


@pytest.mark.parametrize("parametrisation", KINDS)
def test_positivity(parametrisation, generator):
    """ "relu" clips, "leaky" scales negative values by the leak, "none" leaves them."""
    results = {}
    parameters = torch.randn(make(16, parametrisation).parameter.shape, generator=generator)
    for positivity in ("none", "leaky", "relu"):
        volume = make(16, parametrisation, positivity)
        with torch.no_grad():
            volume.parameter.copy_(parameters)
        results[positivity] = volume().detach()
    plain = results["none"]
    assert plain.min() < -0.01
    assert torch.equal(results["relu"], plain.clamp_min(0.0))
    assert torch.equal(results["leaky"], torch.where(plain < 0, 0.1 * plain, plain))
    volume = make(16, parametrisation, "leaky")
    volume.leak = 1.0
    with torch.no_grad():
        volume.parameter.copy_(parameters)
    assert torch.equal(volume(), plain)


@pytest.mark.parametrize("leak", [0.1, 1.0])
def test_a_volume_with_negative_values_is_reproduced_at_any_leak(leak, generator):
    """What is carried from stage to stage keeps its negative values."""
    inside = make(16, "voxels").mask == 1.0
    values = torch.randn(16, 16, 16, generator=generator) * inside
    volume = make(16, "voxels", "leaky")
    volume.leak = leak
    volume.start_from(values)
    torch.testing.assert_close(volume().detach(), values)


@pytest.mark.parametrize("parametrisation", KINDS)
def test_nothing_is_left_beyond_the_mask(parametrisation, generator):
    volume = make(20, parametrisation)
    volume.start_from(torch.randn(20, 20, 20, generator=generator))
    radius = fourier.radius_grid(20, 3) / 10
    assert volume()[radius >= 0.95].abs().max() == 0.0
    assert (volume()[radius < 0.95] != 0).all()


@pytest.mark.parametrize("box_size", [16, 17])
@pytest.mark.parametrize("symmetry", ["C2", "C4", "D2", "D4", "O"])
def test_symmetry_that_permutes_the_axes_is_exact(symmetry, box_size, generator):
    volume = make(box_size, "voxels", symmetry=symmetry)
    volume.start_from(torch.randn(*(box_size,) * 3, generator=generator))
    result = volume().detach()
    assert result.std() > 0.05
    for operator in symmetry_matrices(symmetry):
        torch.testing.assert_close(turned(result, operator), result, atol=2e-5, rtol=0.0)


def test_symmetrising_is_the_mean_over_the_group(generator):
    values = torch.randn(17, 17, 17, generator=generator)
    group = symmetry_matrices("O")
    expected = torch.stack([turned(values, operator) for operator in group]).mean(0)
    torch.testing.assert_close(symmetrise(values, group[1:]), expected, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize(
    ("symmetry", "bound"), [("C3", 0.02), ("D2", 1e-4), ("T", 0.02), ("O", 1e-4), ("I", 0.02)]
)
def test_projections_at_symmetry_related_poses_are_equal(symmetry, bound, generator):
    """Trilinear interpolation in real space smooths what does not fall on the grid."""
    volume = make(32, "fourier", symmetry=symmetry)
    molecule = blobs(32, 2.5, 9.0, generator)
    volume.start_from(molecule)
    rotation = random_rotations(4, generator)
    reference = project(volume().detach(), rotation)
    plain = project(molecule, rotation)
    for operator in symmetry_matrices(symmetry)[1:5]:
        assert relative_error(project(volume().detach(), operator @ rotation), reference) < bound
        assert relative_error(project(molecule, operator @ rotation), plain) > 0.2


@pytest.mark.parametrize("symmetry", ["C1", "D2"])
@pytest.mark.parametrize("positivity", ["none", "leaky", "relu"])
@pytest.mark.parametrize("parametrisation", KINDS)
def test_gradient_reaches_every_parameter_of_an_empty_volume(
    parametrisation, positivity, symmetry, generator
):
    """The published recipe starts at zero: no constraint may hold the volume there."""
    volume = make(16, parametrisation, positivity, symmetry)
    weight = torch.randn(16, 16, 16, generator=generator)
    (volume() * weight).sum().backward()
    gradient = volume.parameter.grad
    if parametrisation == "voxels":
        reached = fourier.radius_grid(16, 3) < 0.95 * 8
        assert (gradient[reached] != 0).all()
    else:
        reached = fourier.band_mask(16, 8, 3).bool()
        assert (gradient[reached].abs().amax(-1) != 0).all()
        assert int((gradient[reached] == 0).sum()) == 1  # the imaginary part of the mean
    assert (gradient[~reached] == 0).all()


@pytest.mark.parametrize("positivity", ["none", "leaky", "relu"])
@pytest.mark.parametrize("parametrisation", KINDS)
def test_gradient_equals_finite_differences(parametrisation, positivity, generator):
    volume = make(16, parametrisation, positivity, "D2").double()
    volume.start_from(torch.randn(16, 16, 16, generator=generator).double())
    weight = torch.randn(16, 16, 16, generator=generator).double()
    direction = torch.randn(volume.parameter.shape, generator=generator).double()
    (volume() * weight).sum().backward()
    expected = float((volume.parameter.grad * direction).sum())
    start, step = volume.parameter.detach().clone(), 1e-6
    values = []
    for sign in (1.0, -1.0):
        with torch.no_grad():
            volume.parameter.copy_(start + sign * step * direction)
            values.append(float((volume() * weight).sum()))
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("fine", "coarse"), [(64, 32), (65, 32), (48, 32)])
def test_a_rescaled_volume_projects_to_the_preprocessed_images(fine, coarse, generator):
    """A stage that goes on from the volume of another simulates the images that one ended with."""
    scale = fine / coarse
    molecule = blobs(fine, 2.5 * scale, 5.0 * scale, generator)
    rotation = random_rotations(6, generator)
    small = project(rescale_volume(molecule, coarse), rotation)
    settings = Preprocessing(coarse)
    expected = preprocess(project(molecule, rotation), settings)
    assert relative_error(small, expected) < 2e-3
    back = rescale_volume(rescale_volume(molecule, coarse), fine)
    assert relative_error(back, molecule) < 1e-5
    assert relative_error(preprocess(project(back, rotation), settings), small) < 2e-3


def test_initial_blob_is_centred_round_and_of_the_stated_mass():
    amplitude = 50.0 / (1.0 + torch.arange(13))
    blob = initial_blob(24, amplitude)
    assert float(blob.sum()) == pytest.approx(0.3 * 50.0, rel=1e-5)
    for operator in symmetry_matrices("O"):
        inner = slice(1, None)  # index 0 of an even box has no partner
        image = turned(blob, operator)[inner, inner, inner]
        torch.testing.assert_close(image, blob[inner, inner, inner])
    assert (blob == blob.max()).nonzero().tolist() == [[12, 12, 12]]
