"""Rings, orders and viewing directions against analytic images and molecules."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from cryogan.fourier import radius_grid
from cryogan.likelihood.polar import Polar
from cryogan.likelihood.views import views
from cryogan.physics.projection import volume_spectrum
from cryogan.physics.rotations import angle_between, euler_to_matrix, random_rotations

BOX, RINGS, RADIUS_PX = 24, 10, 10.5
SIGMA_PX = 1.5
CPU = torch.device("cpu")
POLAR = Polar(BOX, RINGS, RADIUS_PX, CPU)

# Gaussian blobs well inside the disc; weights of both signs, so that the mean can be zero
CENTRE_PX = torch.tensor([[3.0, 1.0, -2.0], [-2.5, 2.0, 1.0], [0.5, -3.5, 2.0], [1.0, 0.5, 3.5]])
WEIGHT = torch.tensor([1.0, 0.7, -0.9, 0.4])
NEUTRAL = WEIGHT - WEIGHT.mean()


def blobs(centre_px: Tensor, weight: Tensor) -> Tensor:
    """(BOX, ...) grid of normalised Gaussians at (m, 2) or (m, 3) centres (x, y[, z])."""
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    grid = torch.stack(torch.meshgrid(*[axis] * centre_px.shape[1], indexing="ij")[::-1], -1)
    apart = grid[..., None, :] - centre_px.double()
    each = torch.exp(-0.5 * (apart / SIGMA_PX).square().sum(-1))
    norm = (2.0 * math.pi * SIGMA_PX**2) ** (centre_px.shape[1] / 2)
    return (each @ weight.double() / norm).float()


def seen_from(rotation: Tensor, weight: Tensor = WEIGHT) -> Tensor:
    """(n, BOX, BOX) analytic projections: blobs at the first two of Rᵀ c."""
    return torch.stack([blobs((CENTRE_PX @ each)[:, :2], weight) for each in rotation])


def in_disc(n: int, generator: torch.Generator, radius_px: float = RADIUS_PX) -> Tensor:
    """Random images that vanish outside the disc."""
    return torch.randn(n, BOX, BOX, generator=generator) * (radius_grid(BOX) <= radius_px)


def dft(images: Tensor, k: np.ndarray) -> np.ndarray:
    """(n, K) values of `Σ a(x) exp(-2πi k·x)` at frequencies (K, 2) of (kx, ky), in float64."""
    axis = np.arange(BOX) - BOX // 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    phase = -2j * np.pi * (np.outer(x.ravel(), k[:, 0]) + np.outer(y.ravel(), k[:, 1]))
    return images.double().flatten(1).numpy() @ np.exp(phase)


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def about_z(psi: Tensor) -> Tensor:
    zero = torch.zeros_like(psi)
    return euler_to_matrix(torch.stack((zero, zero, torch.rad2deg(psi)), -1))


# Rings


def test_orders_are_those_of_densely_sampled_rings(generator: torch.Generator) -> None:
    """`F(r, m) = ∫ f(r, θ) exp(-i m θ) dθ / 2π` by 512 points on whole rings; 9e-6 measured.

    The rings have far fewer points of their own. Orders that are left out stay below 6e-4.
    """
    images = in_disc(3, generator)
    found = POLAR.of_images(images).numpy()
    theta = 2.0 * np.pi * np.arange(512) / 512
    unit = np.stack((np.cos(theta), np.sin(theta)), -1)
    scale = np.abs(found).max()
    for ring, top in enumerate(POLAR.highest_orders, start=1):
        on_ring = dft(images, unit * (ring / BOX))
        orders = np.fft.fft(on_ring, axis=1)[:, : top + 1] / 512
        mine = found[:, (POLAR.ring == ring).numpy()]
        assert mine.shape == orders.shape
        np.testing.assert_allclose(mine, orders, atol=5e-5 * scale)
        beyond = np.fft.fft(on_ring, axis=1)[:, top + 1 : 256] / 512
        assert np.abs(beyond).max() < 1e-3 * scale  # no order of note is left out


def test_samples_are_values_of_the_transform(generator: torch.Generator) -> None:
    images = in_disc(2, generator)
    wanted = dft(images, POLAR.frequency.double().numpy())
    found = POLAR.to_samples(POLAR.of_images(images)).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-3 * np.abs(wanted).max())


def test_samples_and_orders_are_inverse(generator: torch.Generator) -> None:
    coefficients = torch.randn(4, len(POLAR.order), dtype=torch.complex64, generator=generator)
    coefficients[:, POLAR.order == 0] = coefficients[:, POLAR.order == 0].real + 0j  # f is real
    samples = POLAR.to_samples(coefficients)
    assert samples.shape == (4, len(POLAR.sample_ring))
    torch.testing.assert_close(POLAR.to_orders(samples), coefficients, atol=2e-5, rtol=0)


def test_what_lies_outside_the_disc_is_not_looked_at(generator: torch.Generator) -> None:
    inside = in_disc(2, generator)
    outside = torch.randn(2, BOX, BOX, generator=generator) * (radius_grid(BOX) > RADIUS_PX)
    assert torch.equal(POLAR.of_images(inside + 100.0 * outside), POLAR.of_images(inside))


def test_weights_make_inner_products(generator: torch.Generator) -> None:
    """`Σ_x p a` by orders and by samples, for smooth images of zero mean: 4e-4 measured.

    The power of images with dipole moments d rises as 2π² |d|² (r / D)²; a sum over whole rings
    exceeds the integral by that power's third derivative / 720 (Euler and Maclaurin), 0.2 % here.
    """
    rotation = random_rotations(6, generator)
    images = seen_from(rotation, NEUTRAL)
    dipole = torch.stack([NEUTRAL @ (CENTRE_PX @ each)[:, :2] for each in rotation])
    wanted = images.flatten(1) @ images.flatten(1).T
    wanted = wanted + 24.0 * math.pi**3 / 720.0 / BOX**4 * dipole @ dipole.T
    c = POLAR.of_images(images)
    by_orders = ((c.conj()[:, None] * c[None]).real * POLAR.weight).sum(-1)
    s = POLAR.to_samples(c)
    by_samples = ((s.conj()[:, None] * s[None]).real * POLAR.sample_weight).sum(-1)
    assert relative(by_orders, wanted) < 8e-4
    assert relative(by_samples, wanted) < 8e-4
    assert POLAR.ring_weight.sum() == pytest.approx(
        math.pi * RINGS * (RINGS + 1) / BOX**2, rel=1e-5
    )


def test_turning_is_a_phase() -> None:
    """Turned by ψ, the image is p(Rz(ψ) x): blobs at Rz(-ψ) c."""
    psi = torch.tensor([0.3, -1.2, 2.9])
    plain = POLAR.of_images(blobs(CENTRE_PX[:, :2], WEIGHT)[None])
    turned = torch.stack([blobs((CENTRE_PX @ about_z(p[None])[0])[:, :2], WEIGHT) for p in psi])
    found = POLAR.turned(plain.expand(3, -1), psi)
    assert relative(found, POLAR.of_images(turned)) < 5e-6
    assert relative(plain.expand(3, -1), POLAR.of_images(turned)) > 0.1


def test_slices_are_transforms_of_projections(generator: torch.Generator) -> None:
    """Against analytic projections: 0.6 % measured, what trilinear interpolation leaves."""
    rotation = random_rotations(5, generator)
    spectrum = volume_spectrum(blobs(CENTRE_PX, WEIGHT))
    found = POLAR.slices(spectrum, rotation)
    assert relative(found, POLAR.of_images(seen_from(rotation))) < 0.015


def test_turned_slices_are_slices_of_turned_poses(generator: torch.Generator) -> None:
    """A pose is frame · Rz(ψ)."""
    frame = random_rotations(4, generator)
    psi = torch.tensor([0.4, 1.7, -2.2, 3.0])
    spectrum = volume_spectrum(blobs(CENTRE_PX, WEIGHT), 4.0)
    found = POLAR.turned(POLAR.slices(spectrum, frame), psi)
    assert relative(found, POLAR.slices(spectrum, frame @ about_z(psi))) < 0.01


def test_fewer_rings_are_the_first_of_all(generator: torch.Generator) -> None:
    band = POLAR.within(4)
    m, n = len(band.order), len(band.sample_ring)
    assert band.rings == 4
    assert int(band.ring[-1]) == 4
    assert int(POLAR.ring[m]) == 5
    for name in ("ring", "order", "weight"):
        assert torch.equal(getattr(band, name), getattr(POLAR, name)[:m])
    for name in ("sample_ring", "frequency", "sample_weight"):
        assert torch.equal(getattr(band, name), getattr(POLAR, name)[:n])
    images = in_disc(2, generator)
    torch.testing.assert_close(
        band.of_images(images), POLAR.of_images(images)[:, :m], rtol=1e-4, atol=1e-4
    )


# Viewing directions


@pytest.mark.parametrize("nside", [1, 2, 8])
def test_directions_are_uniform(nside: int) -> None:
    """HEALPix pixels: no mean direction, no preferred axis, neighbours a spacing apart."""
    level = views(nside, CPU)
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
    child, parent = views(nside, CPU).frame[:, :, 2], views(nside // 2, CPU)
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
    level = views(nside, CPU)
    psi = torch.tensor(0.7)
    pose = views(nside // 2, CPU).frame.repeat_interleave(4, dim=0) @ about_z(psi[None])
    line = torch.arange(720) * (2.0 * math.pi / 720)
    tried = level.frame.double()[:, None] @ about_z(line.double())
    best = line[angle_between(tried, pose.double()[:, None]).argmin(1)]
    difference = best - psi - level.twist
    wrapped = torch.atan2(difference.sin(), difference.cos()).abs()
    assert float(wrapped.max()) < math.radians(0.3)
    assert float(level.twist.abs().max()) > 0.1  # without it, poles would be missed
