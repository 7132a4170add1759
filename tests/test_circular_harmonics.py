"""Circular harmonics against analytic images and molecules."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from cryogan.fourier import radius_grid
from cryogan.objectives.likelihood.orientation_grid import orientation_grid
from cryogan.physics.circular_harmonics import CircularHarmonics
from cryogan.physics.projection import volume_spectrum
from cryogan.physics.rotations import euler_to_matrix, random_rotations

BOX, RINGS, RADIUS_PX = 24, 10, 10.5
SIGMA_PX = 1.5
CPU = torch.device("cpu")
HARMONICS = CircularHarmonics(BOX, RINGS, RADIUS_PX, CPU)

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


def projections(rotation: Tensor, weight: Tensor = WEIGHT) -> Tensor:
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


def test_harmonics_are_those_of_densely_sampled_rings(generator: torch.Generator) -> None:
    """`F(r, m) = ∫ f(r, θ) exp(-i m θ) dθ / 2π` by 512 points on whole rings; 9e-6 measured.

    The rings have far fewer points of their own. Orders that are left out stay below 6e-4.
    """
    images = in_disc(3, generator)
    found = HARMONICS.of_images(images).numpy()
    theta = 2.0 * np.pi * np.arange(512) / 512
    unit = np.stack((np.cos(theta), np.sin(theta)), -1)
    scale = np.abs(found).max()
    for ring, top in enumerate(HARMONICS.highest_orders, start=1):
        on_ring = dft(images, unit * (ring / BOX))
        orders = np.fft.fft(on_ring, axis=1)[:, : top + 1] / 512
        mine = found[:, (HARMONICS.ring == ring).numpy()]
        assert mine.shape == orders.shape
        np.testing.assert_allclose(mine, orders, atol=5e-5 * scale)
        beyond = np.fft.fft(on_ring, axis=1)[:, top + 1 : 256] / 512
        assert np.abs(beyond).max() < 1e-3 * scale  # no order that matters is left out


def test_samples_are_values_of_the_fourier_transform(generator: torch.Generator) -> None:
    images = in_disc(2, generator)
    wanted = dft(images, HARMONICS.frequency.double().numpy())
    found = HARMONICS.to_samples(HARMONICS.of_images(images)).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-3 * np.abs(wanted).max())


def test_samples_and_harmonics_are_inverse(generator: torch.Generator) -> None:
    coefficients = torch.randn(4, len(HARMONICS.order), dtype=torch.complex64, generator=generator)
    coefficients[:, HARMONICS.order == 0] = (
        coefficients[:, HARMONICS.order == 0].real + 0j
    )  # f is real
    samples = HARMONICS.to_samples(coefficients)
    assert samples.shape == (4, len(HARMONICS.sample_ring))
    torch.testing.assert_close(HARMONICS.to_orders(samples), coefficients, atol=2e-5, rtol=0)


def test_pixels_outside_the_disc_have_no_influence(generator: torch.Generator) -> None:
    inside = in_disc(2, generator)
    outside = torch.randn(2, BOX, BOX, generator=generator) * (radius_grid(BOX) > RADIUS_PX)
    assert torch.equal(HARMONICS.of_images(inside + 100.0 * outside), HARMONICS.of_images(inside))


def test_quadrature_weights_give_inner_products(generator: torch.Generator) -> None:
    """`Σ_x p a` by orders and by samples, for smooth images of zero mean: 4e-4 measured.

    The power of images with dipole moments d rises as 2π² |d|² (r / D)²; a sum over whole rings
    exceeds the integral by that power's third derivative / 720 (Euler and Maclaurin), 0.2 % here.
    """
    rotation = random_rotations(6, generator)
    images = projections(rotation, NEUTRAL)
    dipole = torch.stack([NEUTRAL @ (CENTRE_PX @ each)[:, :2] for each in rotation])
    wanted = images.flatten(1) @ images.flatten(1).T
    wanted = wanted + 24.0 * math.pi**3 / 720.0 / BOX**4 * dipole @ dipole.T
    c = HARMONICS.of_images(images)
    by_orders = ((c.conj()[:, None] * c[None]).real * HARMONICS.weight).sum(-1)
    s = HARMONICS.to_samples(c)
    by_samples = ((s.conj()[:, None] * s[None]).real * HARMONICS.sample_weight).sum(-1)
    assert relative(by_orders, wanted) < 8e-4
    assert relative(by_samples, wanted) < 8e-4
    assert HARMONICS.ring_weight.sum() == pytest.approx(
        math.pi * RINGS * (RINGS + 1) / BOX**2, rel=1e-5
    )


def test_in_plane_rotation_is_a_phase() -> None:
    """Rotated by ψ, the image is p(Rz(ψ) x): blobs at Rz(-ψ) c."""
    psi = torch.tensor([0.3, -1.2, 2.9])
    plain = HARMONICS.of_images(blobs(CENTRE_PX[:, :2], WEIGHT)[None])
    rotated = torch.stack([blobs((CENTRE_PX @ about_z(p[None])[0])[:, :2], WEIGHT) for p in psi])
    found = HARMONICS.turned(plain.expand(3, -1), psi)
    assert relative(found, HARMONICS.of_images(rotated)) < 5e-6
    assert relative(plain.expand(3, -1), HARMONICS.of_images(rotated)) > 0.1


def test_slices_are_transforms_of_projections(generator: torch.Generator) -> None:
    """Against analytic projections: 0.6 % measured, what trilinear interpolation leaves."""
    rotation = random_rotations(5, generator)
    spectrum = volume_spectrum(blobs(CENTRE_PX, WEIGHT))
    found = HARMONICS.slices(spectrum, rotation)
    assert relative(found, HARMONICS.of_images(projections(rotation))) < 0.015


def test_rotated_slices_are_slices_of_rotated_poses(generator: torch.Generator) -> None:
    """A pose is frame · Rz(ψ)."""
    frame = random_rotations(4, generator)
    psi = torch.tensor([0.4, 1.7, -2.2, 3.0])
    spectrum = volume_spectrum(blobs(CENTRE_PX, WEIGHT), 4.0)
    found = HARMONICS.turned(HARMONICS.slices(spectrum, frame), psi)
    assert relative(found, HARMONICS.slices(spectrum, frame @ about_z(psi))) < 0.01


def test_slices_from_the_other_side_are_mirrored(generator: torch.Generator) -> None:
    """Every direction of a level has an opposite one, whose frame is turned by π about x."""
    grid = orientation_grid(4, torch.device("cpu"))
    assert grid.opposite is not None
    half_turn = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    torch.testing.assert_close(grid.frame[grid.opposite], grid.frame @ half_turn, atol=1e-5, rtol=0)
    spectrum = volume_spectrum(blobs(CENTRE_PX, WEIGHT), 2.0)
    found = HARMONICS.slices(spectrum, grid.frame)
    assert relative(HARMONICS.mirrored(found), found[grid.opposite]) < 1e-4


def test_a_narrower_band_is_the_first_rings(generator: torch.Generator) -> None:
    band = HARMONICS.within(4)
    m, n = len(band.order), len(band.sample_ring)
    assert band.rings == 4
    assert int(band.ring[-1]) == 4
    assert int(HARMONICS.ring[m]) == 5
    for name in ("ring", "order", "weight"):
        assert torch.equal(getattr(band, name), getattr(HARMONICS, name)[:m])
    for name in ("sample_ring", "frequency", "sample_weight"):
        assert torch.equal(getattr(band, name), getattr(HARMONICS, name)[:n])
    images = in_disc(2, generator)
    torch.testing.assert_close(
        band.of_images(images), HARMONICS.of_images(images)[:, :m], rtol=1e-4, atol=1e-4
    )
