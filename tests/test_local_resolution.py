"""Local resolution of maps whose resolution is known, region by region."""

import math

import pytest
import torch

from cryogan import fourier
from cryogan.evaluation.local_resolution import local_resolution, window_size

SIZE, PIXEL_SIZE_A = 48, 2.0


def texture(generator: torch.Generator, resolution_px: float) -> torch.Tensor:
    """White noise, low-passed so that its power equals that of unit white noise at a resolution.

    There the FSC of two halves with such noise is 1/2; it falls from 0.98 at the origin.
    """
    frequency = fourier.frequency_grid(SIZE, 3).norm(dim=-1)
    gain = torch.exp(2.0 * (1.0 - (resolution_px * frequency).square()))
    white = torch.randn(SIZE, SIZE, SIZE, generator=generator)
    return fourier.irfft(gain * fourier.rfft(white, 3), SIZE, 3)


def with_noise(generator: torch.Generator, volume: torch.Tensor) -> torch.Tensor:
    return volume + torch.randn(volume.shape, generator=generator)


def test_two_halves_of_the_box_of_two_resolutions(generator: torch.Generator) -> None:
    left = (torch.arange(SIZE) < SIZE // 2).float()
    signal = texture(generator, 6.0) * left + texture(generator, 3.5) * (1.0 - left)
    halves = [with_noise(generator, signal) for _ in range(2)]
    mask = fourier.soft_disc(SIZE, 20.0, 2.0, 3)
    found = local_resolution(*halves, mask, PIXEL_SIZE_A, window=24)
    assert found.shape == (SIZE, SIZE, SIZE)
    x, inside = torch.arange(SIZE), mask > 0.5
    assert found[inside & (x < SIZE // 2 - 8)].median() == pytest.approx(12.0, rel=0.1)
    assert found[inside & (x > SIZE // 2 + 8)].median() == pytest.approx(7.0, rel=0.1)
    middle = found[inside & (x > SIZE // 2 - 2) & (x < SIZE // 2 + 2)].median()
    assert 7.0 < middle < 12.0
    assert (found[~inside] == 0.0).all()
    assert (found[inside] > 0.0).all()


def test_noise_alone_has_the_width_of_the_window(generator: torch.Generator) -> None:
    halves = [torch.randn(SIZE, SIZE, SIZE, generator=generator) for _ in range(2)]
    found = local_resolution(
        *halves, torch.ones(SIZE, SIZE, SIZE), PIXEL_SIZE_A, window=16, outside_A=-1.0
    )
    assert found.median() > 0.7 * 16 * PIXEL_SIZE_A
    assert found.max() <= 16 * PIXEL_SIZE_A * 1.001


def test_equal_halves_reach_nyquist(generator: torch.Generator) -> None:
    half = torch.randn(SIZE, SIZE, SIZE, generator=generator)
    found = local_resolution(half, half, torch.ones_like(half), PIXEL_SIZE_A, window=16)
    torch.testing.assert_close(found, torch.full_like(found, 2 * PIXEL_SIZE_A))


@pytest.mark.parametrize("window", [12, 14, 20])
@pytest.mark.parametrize("size", [31, 32])
def test_every_voxel_of_the_mask_is_reached(
    size: int, window: int, generator: torch.Generator
) -> None:
    half = torch.randn(size, size, size, generator=generator)
    mask = torch.zeros(size, size, size)
    mask[0, 0, -1] = mask[-1, 3, 5] = 1.0
    found = local_resolution(half, half, mask, 1.0, window=window, outside_A=99.0)
    assert found[mask > 0.5].tolist() == pytest.approx([2.0, 2.0])
    assert (found[mask <= 0.5] == 99.0).all()


def test_lower_thresholds_give_finer_resolutions(generator: torch.Generator) -> None:
    signal = texture(generator, 5.0)
    halves = [with_noise(generator, signal) for _ in range(2)]
    mask = fourier.soft_disc(SIZE, 12.0, 2.0, 3)
    fine, coarse = (
        local_resolution(*halves, mask, 1.0, window=28, threshold=t)[mask > 0.5].median()
        for t in (0.143, 0.5)
    )
    # ln SSNR = 4 (1 - (5 / d)²), and FSC = SSNR / (1 + SSNR)
    assert coarse == pytest.approx(5.0, rel=0.1)
    assert fine == pytest.approx(5.0 / (1.0 + math.log(0.857 / 0.143) / 4.0) ** 0.5, rel=0.1)


def test_windows_follow_the_resolution_within_the_box() -> None:
    assert window_size(192, 3.0) == 20
    assert window_size(64, 20.0) == 32
    assert window_size(64, 1.0) == 12
    assert window_size(16, 2.0) == 12
