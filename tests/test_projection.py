"""The projector against analytic projections, another implementation and its own adjoint."""

import pytest
import torch
from torch_fourier_slice import project_3d_to_2d

from cryogan import fourier
from cryogan.particles import Pose
from cryogan.phantom import phantom_atoms, phantom_map, residue_density
from cryogan.physics.imaging import form_images
from cryogan.physics.projection import (
    project,
    sample_adjoint,
    sample_spectrum,
    volume_spectrum,
    volume_spectrum_adjoint,
)
from cryogan.physics.rotations import euler_to_matrix, random_rotations

SIGMA = 1.5


def pixels(box_size, dims):
    axis = torch.arange(box_size, dtype=torch.float32) - box_size // 2
    return torch.stack(torch.meshgrid(*[axis] * dims, indexing="ij")[::-1], dim=-1)


def blobs(centres, box_size):
    """Σ exp(-|x - c|² / 2σ²) on the grid whose dimension the centres have."""
    grid = pixels(box_size, centres.shape[1])
    return sum(torch.exp(-(grid - c).square().sum(-1) / (2.0 * SIGMA**2)) for c in centres)


def analytic_projection(centres, rotation, box_size):
    """A Gaussian's line integral is a Gaussian times σ √(2π), at the turned centre Rᵀ c."""
    images = [blobs((centres @ r)[:, :2], box_size) for r in rotation]
    return SIGMA * (2.0 * torch.pi) ** 0.5 * torch.stack(images)


def random_centres(n, radius, generator):
    direction = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=1)
    return direction * radius * torch.rand(n, 1, generator=generator) ** (1.0 / 3.0)


def relative_error(result, expected):
    return float((result - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("radius", "padding", "bound"),
    [(16, 2.0, 0.012), (24, 2.0, 0.02), (16, 1.5, 0.03), (16, 3.0, 0.006)],
)
def test_projection_equals_the_analytic_one(radius, padding, bound, generator):
    centres = random_centres(20, radius, generator)
    rotation = random_rotations(8, generator)
    result = project(blobs(centres, 64), rotation, padding)
    assert relative_error(result, analytic_projection(centres, rotation, 64)) < bound


@pytest.mark.parametrize("box_size", [33, 47])
def test_odd_boxes_have_their_origin_at_half_the_box_rounded_down(box_size, generator):
    centres = random_centres(10, box_size / 4, generator)
    rotation = random_rotations(6, generator)
    result = project(blobs(centres, box_size), rotation)
    assert relative_error(result, analytic_projection(centres, rotation, box_size)) < 0.015


def test_phantom_projects_to_its_atoms_projection(generator):
    rotation = random_rotations(6, generator)
    result = project(phantom_map(64, 3.0), rotation)
    turned = [(phantom_atoms() @ r.double())[:, :2] for r in rotation]
    expected = torch.stack([residue_density(t, 64, 3.0) for t in turned]) / 3.0
    inside = fourier.band_mask(64, 30.0)  # the projector leaves out the corners of the spectrum

    def limited(images):
        return fourier.irfft(fourier.rfft(images) * inside, 64)

    assert relative_error(limited(result), limited(expected)) < 0.015


def test_identity_sums_along_z_and_quarter_turns_permute_axes(generator):
    volume = blobs(random_centres(8, 10, generator), 48)
    euler = torch.tensor([[0.0, 0.0, 0.0], [0.0, 90.0, 0.0], [0.0, 0.0, 90.0]])
    plain, side, turned = project(volume, euler_to_matrix(euler), padding=3.0)
    along_z, along_x = volume.sum(0), volume.sum(2)  # [y, x], [z, y]
    inner = slice(1, None)  # pixel 0 of an even box has no partner under inversion
    assert relative_error(plain, along_z) < 0.015
    # Ry(90°): image x is -z of the molecule and the view is along +x.
    expected = along_x.T.flip(1)
    assert relative_error(side[:, inner], expected[:, :-1]) < 0.015
    # Rz(90°): image x is +y of the molecule, image y is -x.
    expected = along_z.T.flip(0)
    assert relative_error(turned[inner], expected[:-1]) < 0.015


def test_projection_equals_torch_fourier_slice(generator):
    volume = fourier.resample(phantom_map(32, 6.0), 64, dims=3)  # nothing near Nyquist
    volume = volume * fourier.soft_disc(64, 24.0, 6.0, dims=3)
    rotation = random_rotations(8, generator)
    theirs = project_3d_to_2d(volume, rotation, pad_factor=2.0)
    assert relative_error(project(volume, rotation), theirs) < 1e-3


def test_a_mirror_image_is_the_view_from_the_opposite_direction(generator):
    """Of any volume: a critic that sees images and their mirror images sees both directions."""
    volume = blobs(random_centres(12, 5.0, generator), 24)
    rotation = random_rotations(4, generator)
    around = euler_to_matrix(torch.tensor([0.0, 180.0, 0.0]))
    opposite = rotation @ around
    torch.testing.assert_close(opposite[:, :, 2], -rotation[:, :, 2])
    images = project(volume, rotation)
    views = project(volume, opposite)
    assert relative_error(fourier.dihedral(images, 4), views) < 0.005
    assert relative_error(images, views) > 0.1


def test_one_volume_and_copies_of_it_give_the_same_images(generator):
    volume = torch.randn(16, 16, 16, generator=generator)
    rotation = random_rotations(5, generator)
    copies = project(volume.expand(5, -1, -1, -1), rotation)
    torch.testing.assert_close(project(volume, rotation), copies, atol=1e-4, rtol=1e-4)


def test_each_volume_is_projected_at_its_own_pose(generator):
    volumes = torch.randn(3, 16, 16, 16, generator=generator)
    rotation = random_rotations(3, generator)
    each = torch.cat([project(v, r[None]) for v, r in zip(volumes, rotation, strict=True)])
    torch.testing.assert_close(project(volumes, rotation), each, atol=1e-4, rtol=1e-4)


def test_total_density_is_kept(generator):
    """Within what linear interpolation allows: the envelope's correction is too much at k = 0."""
    volume = blobs(random_centres(8, 10, generator), 48)
    total = project(volume, random_rotations(10, generator)).sum((1, 2))
    torch.testing.assert_close(total, volume.sum().expand(10), rtol=0.025, atol=0.0)


def test_arguments_are_not_written_to(generator):
    volume, rotation = torch.randn(16, 16, 16), random_rotations(3, generator)
    before = volume.clone(), rotation.clone()
    project(volume, rotation)
    assert torch.equal(volume, before[0])
    assert torch.equal(rotation, before[1])


def images_of(volume, rotation, shift_A, transfer):
    return form_images(
        volume_spectrum(volume),
        Pose(rotation, shift_A),
        transfer,
        box_size=volume.shape[-1],
        pixel_size_A=2.0,
    )


@pytest.mark.parametrize("box_size", [16, 17])
def test_gradient_is_the_adjoint(box_size, generator):
    """⟨A v, y⟩ = ⟨v, Aᵀ y⟩ with Aᵀ from autograd, and A is linear."""
    rotation = random_rotations(4, generator)
    shift_A = torch.randn(4, 2, generator=generator)
    transfer = torch.randn(4, box_size, box_size // 2 + 1, generator=generator)
    volume = torch.randn(*(box_size,) * 3, generator=generator, requires_grad=True)
    other = torch.randn(*(box_size,) * 3, generator=generator)
    y = torch.randn(4, box_size, box_size, generator=generator)
    (images_of(volume, rotation, shift_A, transfer) * y).sum().backward()
    left = (images_of(other, rotation, shift_A, transfer).double() * y).sum()
    right = (other.double() * volume.grad).sum()
    assert float(left) == pytest.approx(float(right), rel=1e-4, abs=1e-2)


def test_the_adjoint_of_sampling(generator):
    """<sample(F), v> = <F, adjoint(v)>, at points of both signs and outside the spectrum too."""
    size = 12
    shape = (size, size, size // 2 + 1)
    spectrum = torch.randn(shape, dtype=torch.complex64, generator=generator)
    point = (torch.rand(7, 40, 3, generator=generator) - 0.5) * 1.2 * size
    found = sample_spectrum(spectrum, point)
    values = found + torch.randn(7, 40, dtype=torch.complex64, generator=generator)
    left = (found.conj() * values).real.sum()
    right = (spectrum.conj() * sample_adjoint(values, point, size)).real.sum()
    assert float(left) == pytest.approx(float(right), rel=1e-4)
    assert float(left) > 10.0


@pytest.mark.parametrize(("box_size", "padding"), [(10, 2.0), (9, 2.0), (10, 1.5)])
def test_the_adjoint_of_the_spectrum(box_size, padding, generator):
    """<F(V), g> over what is stored = <V, adjoint(g)>."""
    volume = torch.randn(*(box_size,) * 3, generator=generator)
    spectrum = volume_spectrum(volume, padding)
    values = spectrum + torch.randn(spectrum.shape, dtype=torch.complex64, generator=generator)
    left = (spectrum.conj() * values).real.sum()
    right = (volume * volume_spectrum_adjoint(values, box_size)).sum()
    assert float(left) == pytest.approx(float(right), rel=1e-4)
    assert float(left) > 10.0


def test_gradient_equals_finite_differences(generator):
    """A quadratic loss: the central difference has no truncation error."""
    rotation = random_rotations(4, generator)
    shift_A = torch.randn(4, 2, generator=generator)
    volume = torch.randn(12, 12, 12, generator=generator, requires_grad=True)
    target = torch.randn(4, 12, 12, generator=generator)

    def loss(v):
        return (images_of(v, rotation, shift_A, None) - target).double().square().mean()

    (gradient,) = torch.autograd.grad(loss(volume), volume)
    for _ in range(3):
        step = torch.randn(12, 12, 12, generator=generator)
        with torch.no_grad():
            difference = (loss(volume + step) - loss(volume - step)) / 2.0
        assert float((gradient * step).sum()) == pytest.approx(float(difference), rel=1e-3)
