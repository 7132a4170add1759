"""Alignment against phantoms of Gaussian blobs, moved exactly by moving the blobs' centres."""

from pathlib import Path

import mrcfile
import pytest
import roma
import torch
from torch import Tensor

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.evaluation.alignment import Alignment, align, apply_alignment
from cryogan.evaluation.fsc import fourier_shell_correlation, resolution_A
from cryogan.physics.rotations import angle_between, random_rotations
from cryogan.symmetry import symmetry_matrices

pytestmark = pytest.mark.slow

PIXEL_SIZE_A = 4.0


def blob_centres(symmetry: str, extent: float, generator: torch.Generator) -> Tensor:
    """Centres (n, 3) as x, y, z in pixels, of a chiral molecule with a point group."""
    matrices = symmetry_matrices(symmetry)
    unit = torch.randn(max(4, 40 // len(matrices)), 3, generator=generator)
    unit = unit.clamp(-1.7, 1.7) * extent
    return torch.einsum("sij,nj->nsi", matrices, unit).reshape(-1, 3)


def blob_map(centres: Tensor, size: int, sigma: float = 1.1) -> Tensor:
    """Sum of Gaussians of different weights on the grid, origin at voxel size // 2."""
    axis = torch.arange(size) - size // 2
    line = torch.exp(-((axis[:, None] - centres[:, None, :]) ** 2) / (2.0 * sigma**2))
    weight = 1.0 + torch.arange(len(centres)) // 4 % 3
    return torch.einsum("n,nz,ny,nx->zyx", weight, line[..., 2], line[..., 1], line[..., 0])


def moved(centres: Tensor, rotation: Tensor, shift: Tensor, mirrored: bool) -> Tensor:
    return (-centres if mirrored else centres) @ rotation.T + shift


def angle_modulo(symmetry: str, found: Tensor, true: Tensor) -> float:
    """Angle in degrees between two rotations that a symmetric molecule cannot tell apart."""
    return float(angle_between(found @ symmetry_matrices(symmetry), true[None]).min())


@pytest.mark.parametrize(
    ("size", "symmetry", "mirrored"),
    [
        (32, "C1", False),
        (33, "C1", True),
        (32, "D2", True),
        (32, "O", False),
        (32, "O", True),
        (24, "C1", True),
    ],
)
def test_recovers_rotation_shift_and_hand(
    size: int, symmetry: str, mirrored: bool, generator: torch.Generator
) -> None:
    centres = blob_centres(symmetry, 0.12 * size, generator)
    rotation = random_rotations(1, generator)[0]
    shift = torch.tensor([0.13, -0.1, 0.08]) * size
    moving = blob_map(centres, size)
    reference = blob_map(moved(centres, rotation, shift, mirrored), size)

    found = align(moving, reference, PIXEL_SIZE_A)
    assert found.mirrored is mirrored
    assert angle_modulo(symmetry, found.rotation, rotation) < 0.5
    assert (found.shift_A - shift * PIXEL_SIZE_A).norm() < 0.1 * PIXEL_SIZE_A

    aligned = apply_alignment(moving, found, PIXEL_SIZE_A)
    curve = fourier_shell_correlation(aligned, reference)
    assert curve[1 : int(0.4 * size) + 1].min() > 0.99


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_blurred_and_noisy_map_still_finds_its_pose_and_hand(
    mirrored: bool, generator: torch.Generator
) -> None:
    size = 32
    centres = blob_centres("C1", 0.12 * size, generator)
    rotation = random_rotations(1, generator)[0]
    reference = blob_map(moved(centres, rotation, torch.zeros(3), mirrored), size)
    blurred = blob_map(centres, size, sigma=2.0)
    noise = torch.randn(size, size, size, generator=generator)
    found = align(blurred + blurred.std() * noise, reference, PIXEL_SIZE_A)
    assert found.mirrored is mirrored
    assert angle_modulo("C1", found.rotation, rotation) < 1.5


def test_the_hand_is_kept_when_asked(generator: torch.Generator) -> None:
    centres = blob_centres("C1", 4.0, generator)
    moving, reference = blob_map(centres, 32), blob_map(-centres, 32)
    kept = align(moving, reference, PIXEL_SIZE_A, allow_mirror=False)
    free = align(moving, reference, PIXEL_SIZE_A)
    assert not kept.mirrored
    assert free.mirrored
    assert kept.correlation < 0.9 < 0.999 < free.correlation


def test_low_resolution_is_enough_when_asked(generator: torch.Generator) -> None:
    """Beyond 20 Å the reference is another molecule's: only the band that is asked for counts."""
    size = 32
    centres = blob_centres("C1", 0.12 * size, generator)
    rotation = random_rotations(1, generator)[0]
    true = blob_map(moved(centres, rotation, torch.zeros(3), False), size)
    other = torch.randn(size, size, size, generator=generator)
    band = fourier.band_mask(size, size * PIXEL_SIZE_A / 20.0, 3)
    spectrum = torch.where(band > 0, fourier.rfft(true, 3), 3.0 * fourier.rfft(other, 3))
    reference = fourier.irfft(spectrum, size, 3)
    found = align(blob_map(centres, size), reference, PIXEL_SIZE_A, resolution_A=22.0)
    assert angle_modulo("C1", found.rotation, rotation) < 1.5
    assert found.correlation > 0.95
    assert align(blob_map(centres, size), reference, PIXEL_SIZE_A).correlation < 0.7


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("angle_deg", [0.0, 0.4, 90.0, 131.0])
@pytest.mark.parametrize("size", [32, 33])
def test_applying_an_alignment_is_accurate(
    size: int, angle_deg: float, mirrored: bool, generator: torch.Generator
) -> None:
    centres = blob_centres("C1", 0.1 * size, generator)
    axis = torch.tensor([0.6, 0.0, 0.8]) if angle_deg < 90.0 else torch.tensor([0.0, 0.0, 1.0])
    rotation = roma.rotvec_to_rotmat(torch.deg2rad(torch.tensor(angle_deg)) * axis)
    shift = torch.tensor([0.3, -1.4, 0.7])
    exact = blob_map(moved(centres, rotation, shift, mirrored), size, sigma=1.3)
    alignment = Alignment(rotation, shift * PIXEL_SIZE_A, mirrored, 1.0)
    got = apply_alignment(blob_map(centres, size, sigma=1.3), alignment, PIXEL_SIZE_A)
    assert (got - exact).norm() / exact.norm() < 3e-3


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_inverse_moves_back(mirrored: bool, generator: torch.Generator) -> None:
    centres = blob_centres("C1", 3.2, generator)
    rotation = random_rotations(1, generator)[0]
    shift = torch.tensor([0.3, -1.4, 0.7])
    there = Alignment(rotation, shift * PIXEL_SIZE_A, mirrored, 1.0)
    away = blob_map(moved(centres, rotation, shift, mirrored), 32, sigma=1.3)
    original = blob_map(centres, 32, sigma=1.3)
    back = apply_alignment(away, there.inverse(), PIXEL_SIZE_A)
    assert (back - original).norm() / original.norm() < 3e-3


def test_a_real_map_in_an_odd_box(shared_data: Path, generator: torch.Generator) -> None:
    with mrcfile.open(shared_data / "models" / "ribosome_70S_65.mrc") as file:
        truth = torch.from_numpy(file.data.copy()).float()
    rotation = random_rotations(1, generator)[0]
    there = Alignment(rotation, torch.tensor([20.0, -12.0, 8.0]), True, 1.0)
    noisy = truth + truth.std() * torch.randn(truth.shape, generator=generator)
    found = align(apply_alignment(noisy, there, PIXEL_SIZE_A), truth, PIXEL_SIZE_A)
    assert found.mirrored
    assert angle_modulo("C1", found.rotation, rotation.T) < 0.3
    back = apply_alignment(apply_alignment(noisy, there, PIXEL_SIZE_A), found, PIXEL_SIZE_A)
    ideal = fourier_shell_correlation(noisy, truth)
    got = fourier_shell_correlation(back, truth)
    limit = resolution_A(ideal, 0.5, PIXEL_SIZE_A, 65)
    assert resolution_A(got, 0.5, PIXEL_SIZE_A, 65) < 1.05 * limit


@pytest.mark.parametrize(
    ("moving", "reference", "words"),
    [
        (torch.rand(20, 20, 20), torch.rand(24, 24, 24), "same box"),
        (torch.rand(8, 8, 8), torch.rand(8, 8, 8), "at least 16"),
        (torch.ones(16, 16, 16), torch.rand(16, 16, 16), "map to align is constant"),
        (torch.rand(16, 16, 16), torch.full((16, 16, 16), torch.nan), "reference map"),
    ],
)
def test_what_cannot_be_aligned_is_refused(moving: Tensor, reference: Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        align(moving, reference, 1.0)
