"""Gaussian atoms on a grid against sums in real and in Fourier space."""

import math

import pytest
import torch

from cryogan import fourier
from cryogan.physics.density import gaussian_density, molmap_density


def grid_A(box_size, pixel_size_A, dims):
    axis = (torch.arange(box_size, dtype=torch.float64) - box_size // 2) * pixel_size_A
    return torch.stack(torch.meshgrid(*[axis] * dims, indexing="ij")[::-1], dim=-1)


def sampled(positions_A, weights, sigma_A, box_size, pixel_size_A):
    """Σ w (2πσ²)^(-d/2) exp(-|x - r|² / 2σ²) at the voxels."""
    dims = positions_A.shape[1]
    grid = grid_A(box_size, pixel_size_A, dims)
    total = sum(
        weight * torch.exp(-(grid - position).square().sum(-1) / (2.0 * sigma_A**2))
        for position, weight in zip(positions_A, weights, strict=True)
    )
    return total / (2.0 * math.pi * sigma_A**2) ** (dims / 2)


@pytest.fixture
def atoms(generator):
    positions = (torch.rand(15, 3, generator=generator, dtype=torch.float64) - 0.5) * 24.0
    return positions, torch.rand(15, generator=generator, dtype=torch.float64) + 0.5


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("box_size", [48, 51])
def test_fine_grid_shows_the_sampled_gaussians(atoms, dims, box_size):
    positions, weights = atoms
    found = gaussian_density(
        positions[:, :dims], box_size=box_size, pixel_size_A=1.3, sigma_A=2.6, weights=weights
    )
    expected = sampled(positions[:, :dims], weights, 2.6, box_size, 1.3)
    assert found.dtype == torch.float32
    assert float((found - expected).abs().max()) < 1e-5 * float(expected.max())


@pytest.mark.parametrize("box_size", [16, 17])
def test_coarse_grid_holds_the_gaussians_coefficients_and_nothing_at_nyquist(atoms, box_size):
    positions, weights = atoms
    pixel_size_A, sigma_A = 2.0, 0.8
    found = gaussian_density(
        positions, box_size=box_size, pixel_size_A=pixel_size_A, sigma_A=sigma_A, weights=weights
    )
    frequency = fourier.frequency_grid(box_size, 3).double()
    k = frequency / pixel_size_A
    phase = torch.exp(-2j * math.pi * torch.einsum("zyxc,nc->nzyx", k, positions))
    expected = torch.einsum("n,nzyx->zyx", weights.to(phase.dtype), phase)
    expected = expected * torch.exp(-2.0 * (math.pi * sigma_A) ** 2 * k.square().sum(-1))
    expected[(frequency.abs() >= 0.5).any(dim=-1)] = 0.0
    error = fourier.rfft(found.double(), dims=3) * pixel_size_A**3 - expected
    assert float(error.abs().max()) < 1e-5 * float(expected.abs().max())


def test_weights_are_integrals_and_default_to_one(atoms):
    positions, weights = atoms
    for given, expected in ((weights, float(weights.sum())), (None, 15.0)):
        volume = gaussian_density(
            positions, box_size=20, pixel_size_A=3.0, sigma_A=1.0, weights=given
        )
        assert float(volume.sum()) * 27.0 == pytest.approx(expected, rel=1e-5)


def test_projection_of_the_volume_is_the_density_of_the_projected_atoms(atoms):
    positions, weights = atoms
    options = {"box_size": 24, "pixel_size_A": 2.5, "sigma_A": 1.5, "weights": weights}
    volume, image = (gaussian_density(positions[:, :dims], **options) for dims in (3, 2))
    torch.testing.assert_close(volume.sum(0) * 2.5, image, atol=1e-6, rtol=1e-5)


def test_many_atoms_are_the_sum_of_parts(generator):
    """20,000 atoms are more than are held at a time."""
    positions = 6.0 * torch.randn(20_000, 3, generator=generator)
    weights = torch.rand(20_000, generator=generator)
    options = {"box_size": 24, "pixel_size_A": 2.5, "sigma_A": 1.5}
    whole = gaussian_density(positions, weights=weights, **options)
    parts = [
        gaussian_density(some, weights=those, **options)
        for some, those in zip(positions.split(4_000), weights.split(4_000), strict=True)
    ]
    torch.testing.assert_close(whole, torch.stack(parts).sum(0), atol=1e-4, rtol=1e-4)


def test_molmap_is_a_sum_of_gaussians_weighted_by_atomic_number(atoms):
    positions, numbers = atoms[0], torch.tensor([6, 7, 8, 16, 15] * 3)
    found = molmap_density(positions, numbers, box_size=48, pixel_size_A=1.3, resolution_A=12.0)
    expected = sampled(positions, numbers, 12.0 * 0.2250790790, 48, 1.3)
    assert float((found - expected).abs().max()) < 1e-5 * float(expected.max())


def test_molmap_falls_to_1_over_e_at_the_resolution():
    volume = molmap_density(
        torch.zeros(1, 3), torch.tensor([8]), box_size=36, pixel_size_A=1.0, resolution_A=9.0
    )
    spectrum = fourier.rfft(volume, dims=3).real
    assert float(spectrum[0, 0, 0]) == pytest.approx(8.0, rel=1e-5)
    assert float(spectrum[0, 0, 4]) == pytest.approx(8.0 / math.e, rel=1e-4)  # 4 / 36 Å
