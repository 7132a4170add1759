"""B-factors that were put in are found and undone; where nothing can be fitted, nothing is."""

import math

import pytest
import torch

from cryogan import fourier
from cryogan.evaluation.fsc import fourier_shell_correlation, resolution_A
from cryogan.evaluation.sharpening import guinier_plot, sharpened, signal_share

SIZE, PIXEL_SIZE_A = 64, 1.5


def white(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(SIZE, SIZE, SIZE, generator=generator)


def fallen(volume: torch.Tensor, b_factor_A2: float) -> torch.Tensor:
    """Amplitudes times exp(-B / (4 d²))."""
    d2 = (fourier.frequency_grid(SIZE, 3).norm(dim=-1) / PIXEL_SIZE_A).square()
    return fourier.irfft(fourier.rfft(volume, 3) * torch.exp(-0.25 * b_factor_A2 * d2), SIZE, 3)


def half_maps(generator: torch.Generator, b_factor_A2: float, sigma: float) -> list[torch.Tensor]:
    signal = fallen(white(generator), b_factor_A2)
    return [signal + sigma * white(generator) for _ in range(2)]


@pytest.mark.parametrize("b_factor_A2", [60.0, 150.0])
def test_a_known_b_factor_is_recovered_from_noisy_halves(
    b_factor_A2: float, generator: torch.Generator
) -> None:
    half1, half2 = half_maps(generator, b_factor_A2, 0.2)
    fsc, average = fourier_shell_correlation(half1, half2), 0.5 * (half1 + half2)
    found = guinier_plot(average, fsc, PIXEL_SIZE_A)
    assert found.reason == ""
    assert found.b_factor_A2 == pytest.approx(-b_factor_A2, rel=0.08)
    assert found.fit_to_A == resolution_A(fsc, 0.143, PIXEL_SIZE_A)
    assert math.exp(found.intercept) == pytest.approx(SIZE**1.5, rel=0.1)
    inside = found.fit.isfinite()
    assert (found.inverse_d2[inside].rsqrt() <= 10.0).all()
    assert (found.fit - found.ln_signal)[inside].abs().max() < 0.6


def test_without_the_weight_noise_hides_the_slope(generator: torch.Generator) -> None:
    half1, half2 = half_maps(generator, 150.0, 0.2)
    average = 0.5 * (half1 + half2)
    fsc = fourier_shell_correlation(half1, half2)
    end_A = resolution_A(fsc, 0.143, PIXEL_SIZE_A)
    plain = guinier_plot(average, torch.ones_like(fsc), PIXEL_SIZE_A, fit_to_A=end_A)
    assert plain.b_factor_A2 > -130.0


def test_sharpening_undoes_the_fall_up_to_the_resolution(generator: torch.Generator) -> None:
    original = white(generator)
    ones = torch.ones(SIZE // 2 + 1)
    found = sharpened(fallen(original, 100.0), ones, -100.0, PIXEL_SIZE_A, 4.8)
    ratio = fourier.rfft(found, 3).abs() / fourier.rfft(original, 3).abs()
    shell = fourier.frequency_grid(SIZE, 3).norm(dim=-1) * SIZE
    last = SIZE * PIXEL_SIZE_A / 4.8
    assert (ratio[shell <= last] - 1.0).abs().max() < 1e-3
    assert ratio[shell > last + 2.0].max() < 1e-4


def test_shells_are_weighted_by_their_fsc(generator: torch.Generator) -> None:
    original = white(generator)
    fsc = torch.linspace(1.0, -0.2, SIZE // 2 + 1)
    fsc[30:] = math.nan
    found = sharpened(original, fsc, 0.0, PIXEL_SIZE_A, 2 * PIXEL_SIZE_A)
    power, before = (
        fourier.shell_mean(fourier.rfft(v, 3).abs().square(), SIZE, 3) for v in (found, original)
    )
    torch.testing.assert_close(power / before, signal_share(fsc), rtol=1e-3, atol=1e-6)
    assert float(signal_share(torch.tensor([1.0 / 3.0]))) == pytest.approx(0.5)


def test_coarse_maps_have_no_b_factor(generator: torch.Generator) -> None:
    volume = white(generator)
    fsc = (torch.arange(SIZE // 2 + 1) < 12).float()  # 8 Å
    found = guinier_plot(volume, fsc, PIXEL_SIZE_A)
    assert found.b_factor_A2 is None
    assert found.intercept is None
    assert found.reason.startswith("no B-factor: the resolution, 8.")
    assert found.fit.isnan().all()


def test_small_boxes_have_too_few_shells(generator: torch.Generator) -> None:
    volume = torch.randn(16, 16, 16, generator=generator)
    assert guinier_plot(volume, torch.ones(9), 2.0).b_factor_A2 is not None  # shells 4 ... 8
    found = guinier_plot(volume, torch.ones(9), 2.0, fit_to_A=6.5)
    assert found.b_factor_A2 is None
    assert "only" in found.reason
