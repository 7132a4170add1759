"""Samplers of poses against the densities that they are to follow."""

import math

import healpix
import numpy as np
import pytest
import torch
from scipy import stats

from cryogan.physics.distributions import (
    AngularCentralGaussian,
    Gaussian,
    Listed,
    PoseDistribution,
    SideViews,
    SphereDensity,
    Triangular,
    Uniform,
)
from cryogan.physics.rotations import euler_to_matrix, matrix_to_euler, random_rotations

COUNT = 100_000
NSIDE = 4
CELLS = 12 * NSIDE**2
# Every p-value below is that of one fixed seed: a right sampler falls short once in a thousand
# seeds, a wrong one always.
PLAUSIBLE = 1e-3
WRONG = 1e-9


def cell_counts(rotation, nside=NSIDE):
    """How many viewing directions fall into each HEALPix cell, RING order."""
    cell = healpix.vec2pix(nside, *rotation[:, :, 2].double().numpy().T)
    return np.bincount(cell, minlength=12 * nside**2)


def p_value(counts, probability):
    """χ² test of counts against the probabilities of the cells."""
    return stats.chisquare(counts, probability * counts.sum() / probability.sum()).pvalue


def cell_probabilities(distribution):
    """Integrals of a density over the cells, 256 points a cell; RING order."""
    fine = NSIDE * 16
    points = np.stack(healpix.pix2vec(fine, np.arange(12 * fine**2), nest=True), axis=-1)
    density = distribution.density(torch.from_numpy(points)).numpy()
    nested = density.reshape(CELLS, 256).mean(1) * 4 * math.pi / CELLS
    return nested[healpix.ring2nest(NSIDE, np.arange(CELLS))]


def every_kind():
    weights = torch.rand(48, generator=torch.Generator().manual_seed(1))
    rotation = random_rotations(5, torch.Generator().manual_seed(2))
    return [
        Uniform(),
        AngularCentralGaussian(2.0),
        SideViews(5.0),
        SphereDensity(weights),
        Listed(rotation),
    ]


@pytest.mark.parametrize("orientations", every_kind(), ids=lambda kind: type(kind).__name__)
def test_orientations_are_rotations_that_follow_the_generator(orientations):
    first, same, other = (
        orientations.sample(40, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert first.shape == (40, 3, 3)
    assert first.dtype == torch.float32
    identity = torch.eye(3).expand(40, 3, 3)
    torch.testing.assert_close(first @ first.mT, identity, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(first), torch.ones(40))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("shifts", [Triangular(9.0), Gaussian(3.0)])
def test_shifts_follow_the_generator(shifts):
    first, same, other = (
        shifts.sample(40, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert first.shape == (40, 2)
    assert first.dtype == torch.float32
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    "orientations", [Uniform(), AngularCentralGaussian(1.0), SphereDensity(torch.ones(12))]
)
def test_uniform_views_fill_cells_of_equal_area_alike(orientations, generator):
    counts = cell_counts(orientations.sample(COUNT, generator))
    assert p_value(counts, np.ones(CELLS)) > PLAUSIBLE


def test_views_that_are_not_uniform_are_found_out(generator):
    """The test above has the power to fail: uniform Euler angles, and a σ of 1.1."""
    angles = torch.rand(COUNT, 3, generator=generator) * torch.tensor([360.0, 180.0, 360.0])
    naive = cell_counts(euler_to_matrix(angles))
    assert p_value(naive, np.ones(CELLS)) < WRONG
    nearly = cell_counts(AngularCentralGaussian(1.1).sample(COUNT, generator))
    assert p_value(nearly, np.ones(CELLS)) < WRONG


@pytest.mark.parametrize("sigma", [0.4, 2.0, 3.0])
def test_angular_gaussian_follows_its_density(sigma, generator):
    distribution = AngularCentralGaussian(sigma)
    counts = cell_counts(distribution.sample(COUNT, generator))
    probability = cell_probabilities(distribution)
    assert probability.sum() == pytest.approx(1.0, abs=1e-3)
    assert p_value(counts, probability) > PLAUSIBLE
    assert p_value(counts, cell_probabilities(AngularCentralGaussian(1.1 * sigma))) < WRONG


def test_angular_gaussian_density_at_known_directions():
    """In units of 1 / 4π: (1/σ)⁻³ / σ = σ² at the poles, 1 / σ on the equator."""
    directions = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    density = AngularCentralGaussian(3.0).density(directions) * 4 * math.pi
    assert density.tolist() == pytest.approx([9.0, 1 / 3, 1 / 3])
    flat = AngularCentralGaussian(1.0).density(directions) * 4 * math.pi
    assert flat.tolist() == pytest.approx([1.0, 1.0, 1.0])


@pytest.mark.parametrize("orientations", every_kind()[:4], ids=lambda kind: type(kind).__name__)
def test_in_plane_angles_are_uniform_whatever_the_view(orientations, generator):
    rot, _, psi = matrix_to_euler(orientations.sample(COUNT, generator).double()).T.numpy()
    assert stats.kstest(psi, stats.uniform(-180, 360).cdf).pvalue > PLAUSIBLE
    table = np.histogram2d(rot, psi, bins=6, range=[[-180, 180]] * 2)[0]
    assert stats.chi2_contingency(table).pvalue > PLAUSIBLE


def test_side_views_tilt_normally_about_90_degrees(generator):
    rotation = SideViews(7.0).sample(COUNT, generator)
    rot, tilt, _ = matrix_to_euler(rotation.double()).T.numpy()
    assert stats.kstest(tilt, stats.norm(90.0, 7.0).cdf).pvalue > PLAUSIBLE
    assert stats.kstest(tilt, stats.norm(90.0, 7.5).cdf).pvalue < WRONG
    assert stats.kstest(rot, stats.uniform(-180, 360).cdf).pvalue > PLAUSIBLE


def test_side_views_without_spread_lie_on_the_equator(generator):
    assert SideViews(0.0).sample(1000, generator)[:, 2, 2].abs().max() < 1e-6


@pytest.mark.parametrize("nside", [1, 3, 8])
def test_a_map_of_weights_comes_back(nside, generator):
    """Counts follow the weights cell by cell; a cell of weight 0 stays empty, the last too."""
    cells = 12 * nside**2
    weights = torch.rand(cells, generator=generator)
    weights[[0, cells // 2, -1]] = 0.0
    counts = cell_counts(SphereDensity(weights).sample(COUNT, generator), nside)
    empty = weights.numpy() == 0
    assert counts[empty].sum() == 0
    assert p_value(counts[~empty], weights.double().numpy()[~empty]) > PLAUSIBLE


def test_views_are_uniform_within_a_cell(generator):
    """A polar and an equatorial cell of the coarsest map, seen on one sixteen times finer."""
    fine = np.arange(12 * 4**2)
    coarse_of = healpix.nest2ring(1, healpix.ring2nest(4, fine) // 16)
    for cell in (0, 5):
        weights = torch.zeros(12)
        weights[cell] = 2.0
        counts = cell_counts(SphereDensity(weights).sample(20_000, generator))
        assert counts[coarse_of != cell].sum() == 0
        assert p_value(counts[coarse_of == cell], np.ones(16)) > PLAUSIBLE


def test_listed_orientations_are_drawn_alike(generator):
    rotation = random_rotations(7, generator)
    drawn = Listed(rotation).sample(20_000, generator)
    matches = (drawn[:, None] == rotation).all(-1).all(-1)
    assert (matches.sum(1) == 1).all()
    assert p_value(matches.sum(0).numpy(), np.ones(7)) > PLAUSIBLE


def test_triangular_shifts_follow_their_density(generator):
    shift = Triangular(12.0).sample(COUNT, generator).double().numpy()
    for axis in shift.T:
        assert stats.kstest(axis, stats.triang(0.5, -12.0, 24.0).cdf).pvalue > PLAUSIBLE
        assert stats.kstest(axis, stats.norm(0.0, axis.std()).cdf).pvalue < WRONG
    assert stats.pearsonr(*shift.T).pvalue > PLAUSIBLE


def test_gaussian_shifts_follow_their_density(generator):
    shift = Gaussian(4.0).sample(COUNT, generator).double().numpy()
    for axis in shift.T:
        assert stats.kstest(axis, stats.norm(0.0, 4.0).cdf).pvalue > PLAUSIBLE
        assert stats.kstest(axis, stats.norm(0.0, 4.3).cdf).pvalue < WRONG
    assert stats.pearsonr(*shift.T).pvalue > PLAUSIBLE


def test_orientations_are_drawn_before_shifts():
    """The order is part of what a seed means."""
    pose = PoseDistribution(shifts=Triangular(5.0)).sample(6, torch.Generator().manual_seed(9))
    generator = torch.Generator().manual_seed(9)
    assert torch.equal(pose.rotation, random_rotations(6, generator))
    uniform = torch.rand(6, 2, 2, generator=generator)
    torch.testing.assert_close(pose.shift_A, 5.0 * (uniform.sum(-1) - 1.0))


def test_default_poses_are_uniform_and_centred(generator):
    pose = PoseDistribution().sample(COUNT, generator)
    assert p_value(cell_counts(pose.rotation), np.ones(CELLS)) > PLAUSIBLE
    assert torch.equal(pose.shift_A, torch.zeros(COUNT, 2))
