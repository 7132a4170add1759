"""Comparison with a truth of another grid, frame and hand; half maps; masks."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.evaluation.comparison import (
    compare_to_truth,
    correlation,
    half_map_comparison,
)
from cryogan.evaluation.masks import soft_mask
from cryogan.evaluation.resampling import resample_map
from cryogan.physics.rotations import angle_between, random_rotations

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class GridMap:
    volume: Tensor
    pixel_size_A: float


def blobs(centres_A: Tensor, size: int, pixel_size_A: float, sigma_A: float = 7.0) -> GridMap:
    """Sum of Gaussians at centres (n, 3) as x, y, z in Å."""
    axis = (torch.arange(size) - size // 2) * pixel_size_A
    line = torch.exp(-((axis[:, None] - centres_A[:, None, :]) ** 2) / (2.0 * sigma_A**2))
    volume = torch.einsum("nz,ny,nx->zyx", line[..., 2], line[..., 1], line[..., 0])
    return GridMap(volume, pixel_size_A)


def molecule(generator: torch.Generator) -> Tensor:
    return 18.0 * torch.randn(30, 3, generator=generator).clamp(-1.7, 1.7)


@pytest.mark.parametrize(
    ("size", "pixel_size_A", "new_size", "new_pixel_size_A"),
    [(48, 4.0, 33, 5.3), (33, 5.3, 48, 4.0), (48, 4.0, 48, 4.0), (40, 4.0, 51, 4.0)],
)
def test_resampling_is_exact_for_any_grid(
    size: int,
    pixel_size_A: float,
    new_size: int,
    new_pixel_size_A: float,
    generator: torch.Generator,
) -> None:
    centres = molecule(generator)
    old = blobs(centres, size, pixel_size_A)
    expected = blobs(centres, new_size, new_pixel_size_A).volume
    got = resample_map(old.volume, pixel_size_A, new_pixel_size_A, new_size)
    assert (got - expected).norm() / expected.norm() < 1e-3


def test_nothing_is_made_up_outside_the_old_box() -> None:
    got = resample_map(torch.ones(16, 16, 16), 2.0, 3.0, 32)
    assert torch.allclose(got[11:21, 11:21, 11:21], torch.ones(10, 10, 10), atol=1e-5)
    assert got[:10].abs().max() == 0.0
    assert got[22:].abs().max() == 0.0


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_perfect_map_in_another_frame_is_resolved_to_nyquist(
    mirrored: bool, generator: torch.Generator
) -> None:
    centres = molecule(generator)
    rotation = random_rotations(1, generator)[0]
    turned = (-centres if mirrored else centres) @ rotation.T + torch.tensor([9.0, -5.0, 12.0])
    map_ = blobs(centres, 32, 6.0)
    result = compare_to_truth(map_, blobs(turned, 45, 4.7))
    assert result.truth.shape == result.aligned.shape == map_.volume.shape
    assert result.alignment.mirrored is mirrored
    assert angle_between(result.alignment.rotation, rotation) < 0.5
    assert result.correlation > 0.999
    assert result.fsc[1:14].min() > 0.99
    assert result.resolution_A(0.5) == result.resolution_A(0.5, masked=True) == 12.0

    table = result.table()
    assert "FSC with truth = 0.5         12.00 Å     12.00 Å" in table
    assert ("mirror image" in table) is mirrored
    assert "linear in spatial frequency" in table
    assert f"\ncFAR{result.cfar():>44.2f}\n" in table
    assert result.cfar() > 0.8


def test_the_resolution_of_a_low_passed_map_is_its_filter(generator: torch.Generator) -> None:
    truth = blobs(molecule(generator), 48, 4.0, sigma_A=4.0)
    band = fourier.band_mask(48, 8.5, 3)  # shells 0 ... 8 of 192 Å
    noise = torch.randn(48, 48, 48, generator=generator) * truth.volume.std()
    spectrum = fourier.rfft(truth.volume, 3) * band + fourier.rfft(noise, 3) * (1.0 - band)
    map_ = replace(truth, volume=fourier.irfft(spectrum, 48, 3))
    result = compare_to_truth(map_, truth)
    assert 192 / 9 < result.resolution_A(0.5) < 192 / 8


def test_half_maps_of_either_hand_average_to_a_better_map(generator: torch.Generator) -> None:
    centres = molecule(generator)
    rotation = random_rotations(1, generator)[0]
    truth = blobs(centres, 32, 6.0).volume
    other = blobs(-centres @ rotation.T, 32, 6.0).volume
    noise = 0.5 * truth.std() * torch.randn(2, 32, 32, 32, generator=generator)
    result = half_map_comparison(truth + noise[0], other + noise[1], 6.0, generator=generator)
    assert result.alignment.mirrored
    assert angle_between(result.alignment.rotation, rotation.T) < 1.5
    assert correlation(result.average, truth) > correlation(result.half1, truth) + 0.01
    assert correlation(result.average, truth) > correlation(result.aligned_half2, truth) + 0.01
    assert result.fsc[1:5].min() > 0.95
    assert result.fsc[13:].abs().max() < 0.3
    assert result.fsc_masked[1:5].min() > 0.95


def test_correlation_is_weighted(generator: torch.Generator) -> None:
    a = torch.randn(8, 8, 8, generator=generator)
    b = a.clone()
    b[4:] = torch.randn(4, 8, 8, generator=generator)
    weight = torch.zeros(8, 8, 8)
    weight[:4] = 1.0
    assert correlation(a, b, weight) == pytest.approx(1.0, abs=1e-5)
    assert correlation(a, 3.0 * a + 5.0) == pytest.approx(1.0, abs=1e-5)
    assert correlation(a, b) == pytest.approx(
        float(torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1]), abs=1e-5
    )


def test_bad_maps_are_refused(generator: torch.Generator) -> None:
    good = blobs(molecule(generator), 24, 8.0)
    with pytest.raises(InputError, match="cubic"):
        compare_to_truth(good, GridMap(torch.rand(4, 8, 8), 1.0))
    with pytest.raises(InputError, match="positive pixel size"):
        compare_to_truth(good, replace(good, pixel_size_A=0.0))


def test_the_mask_encloses_the_molecule_and_drops_specks(generator: torch.Generator) -> None:
    """A ball of radius 40 Å, a speck 90 Å away from it, and noise."""
    size, pixel_size_A = 64, 4.0
    distance_A = fourier.radius_grid(size, 3) * pixel_size_A
    volume = fourier.soft_disc(size, 10.0, 0.5, 3)
    volume = volume + fourier.soft_disc(size, 1.5, 0.5, 3).roll(22, 0)
    volume = volume + 0.3 * torch.randn(volume.shape, generator=generator)
    mask = soft_mask(volume, pixel_size_A, dilation_A=8.0, edge_A=16.0)
    assert mask.min() >= 0.0
    assert mask.max() <= 1.0
    assert mask[distance_A < 42.0].min() > 0.99
    assert mask[distance_A > 40.0 + 8.0 + 16.0 + 8.0].max() < 1e-3
    edge = mask[(distance_A - 56.0).abs() < 2.0]
    assert 0.2 < edge.mean() < 0.8


def test_a_molecule_at_the_border_does_not_leak_to_the_other_side() -> None:
    volume = fourier.soft_disc(32, 5.0, 0.5, 3).roll(-9, 0)
    mask = soft_mask(volume, 4.0)
    assert mask[0].max() > 0.5
    assert mask[20:].max() < 1e-3


@pytest.mark.parametrize("value", [0.0, torch.nan])
def test_no_mask_without_density(value: float) -> None:
    with pytest.raises(InputError, match="No mask"):
        soft_mask(torch.full((16, 16, 16), value), 1.0)
