"""The phantom is one molecule: at every box size, at every hinge angle, and of one hand."""

import pytest
import torch

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.phantom import (
    ATOM_SIGMA_A,
    RESIDUE_VOLUME_A3,
    phantom_atoms,
    phantom_map,
    residue_density,
)
from cryogan.physics.rotations import random_rotations
from cryogan.symmetry import symmetry_matrices


def correlation(a, b):
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (a.norm() * b.norm()))


@pytest.mark.parametrize("symmetry", ["C1", "D2"])
def test_fine_map_cropped_in_fourier_space_is_the_coarse_map(symmetry):
    coarse = phantom_map(32, 6.0, symmetry=symmetry)
    for box_size in (64, 96):
        fine = phantom_map(box_size, 192.0 / box_size, symmetry=symmetry)
        assert (fourier.resample(fine, 32, dims=3) - coarse).abs().max() < 1e-5 * coarse.max()


def test_fine_map_is_the_sum_of_gaussians():
    atoms = phantom_atoms()
    box_size, pixel_size_A = 160, 1.0  # σ = 2 px: nothing left at Nyquist
    volume = residue_density(atoms, box_size, pixel_size_A)
    points = torch.tensor([[80, 80, 80], [85, 72, 91], [60, 101, 77]])  # z, y, x
    centre = (points - box_size // 2).flip(-1).double() * pixel_size_A
    squared = (centre[:, None] - atoms).square().sum(-1)
    norm = RESIDUE_VOLUME_A3 / (2.0 * torch.pi * ATOM_SIGMA_A**2) ** 1.5
    expected = norm * torch.exp(-squared / (2.0 * ATOM_SIGMA_A**2)).sum(1)
    for index, value in zip(points.tolist(), expected, strict=True):
        assert abs(float(volume[tuple(index)] - value)) < 1e-4


def test_integral_is_the_volume_of_the_residues_in_even_and_odd_boxes():
    for box_size, pixel_size_A in ((32, 6.0), (47, 4.0), (64, 3.0)):
        volume = phantom_map(box_size, pixel_size_A)
        expected = RESIDUE_VOLUME_A3 * len(phantom_atoms())
        assert float(volume.sum()) * pixel_size_A**3 == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("symmetry", ["C1", "D2"])
@pytest.mark.parametrize("angle", [-40.0, 0.0, 40.0])
def test_molecule_fits_the_soft_mask_of_the_demonstration(symmetry, angle):
    radius = phantom_atoms(symmetry=symmetry, hinge_angle_deg=angle).norm(dim=1).max()
    assert radius < 0.4 * 192.0 - 3.0 * ATOM_SIGMA_A


def test_centre_of_mass_is_the_origin():
    for symmetry in ("C1", "D2"):
        assert phantom_atoms(symmetry=symmetry).mean(dim=0).norm() < 1e-9


def test_hinge_turns_the_last_domain_rigidly_and_moves_little_else():
    closed, open_ = phantom_atoms(), phantom_atoms(hinge_angle_deg=30.0)
    assert closed.shape == open_.shape
    moved = (closed - open_).norm(dim=1) > 1e-6
    assert 0.1 < float(moved.double().mean()) < 0.35
    last = slice(-100, None)  # well inside the hinged domain
    distances = torch.cdist(closed[last], closed[last]), torch.cdist(open_[last], open_[last])
    assert (distances[0] - distances[1]).abs().max() < 1e-4
    a, b = (x[last] - x[last].mean(0) for x in (closed, open_))
    u, _, vh = torch.linalg.svd(a.T @ b)
    angle = torch.rad2deg(torch.arccos(((u @ vh).trace() - 1.0) / 2.0))
    assert float(angle) == pytest.approx(30.0, abs=1e-6)


def test_helices_are_right_handed():
    """Consecutive Cα of an α-helix have a pseudo-dihedral near +50° (a left one: -50°)."""
    atoms = phantom_atoms()
    steps = atoms.diff(dim=0)
    spacing = steps.norm(dim=1)
    helical = ((spacing - 3.83).abs() < 0.05).unfold(0, 3, 1).all(dim=1)
    first, second, third = steps[:-2], steps[1:-1], steps[2:]
    n1, n2 = torch.linalg.cross(first, second), torch.linalg.cross(second, third)
    sine = (torch.linalg.cross(n1, n2) * second).sum(1) / spacing[1:-1]
    dihedral = torch.rad2deg(torch.atan2(sine, (n1 * n2).sum(1)))[helical]
    assert helical.double().mean() > 0.7
    assert ((dihedral - 50.0).abs() < 2.0).double().mean() > 0.95


def test_d2_map_has_its_symmetry_and_c1_has_not():
    d2, c1 = phantom_atoms(symmetry="D2"), phantom_atoms()
    for operator in symmetry_matrices("D2").double()[1:]:
        assert torch.cdist(d2 @ operator.T, d2).min(dim=1).values.max() < 1e-4
        turned = residue_density(c1 @ operator.T, 32, 6.0)
        assert correlation(turned, phantom_map(32, 6.0)) < 0.7


def test_mirror_image_is_another_molecule():
    """No rotation of a coarse search brings the mirror image near the molecule."""
    atoms = phantom_atoms()
    generator = torch.Generator().manual_seed(1)
    rotations = random_rotations(600, generator).double()
    volume = residue_density(atoms, 16, 12.0)

    def best(points):
        turned = (residue_density(points @ rotation.T, 16, 12.0) for rotation in rotations)
        return max(correlation(t, volume) for t in turned)

    assert best(-atoms) < best(atoms) - 0.03


def test_too_small_a_box_is_refused():
    with pytest.raises(InputError, match="does not fit in a box of 32 pixels"):
        phantom_map(32, 3.0)
