"""FSC against a loop over the full transform and against statistics with known answers."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.evaluation.fsc import (
    corrected_fsc,
    fourier_shell_correlation,
    resolution_A,
    write_fsc_csv,
)
from cryogan.evaluation.plots import plot_fsc


def full_transform_fsc(a: np.ndarray, b: np.ndarray) -> list[float]:
    """The definition, with numpy's full complex transform, one shell at a time."""
    size = a.shape[0]
    k = np.fft.fftfreq(size) * size
    shell = np.rint(np.sqrt(sum(x**2 for x in np.meshgrid(k, k, k)))).astype(int)
    fa, fb = np.fft.fftn(a), np.fft.fftn(b)
    curve = []
    for s in range(size // 2 + 1):
        pick = shell == s
        cross = (fa[pick] * fb[pick].conj()).sum().real
        curve.append(cross / np.sqrt((abs(fa[pick]) ** 2).sum() * (abs(fb[pick]) ** 2).sum()))
    return curve


@pytest.mark.parametrize("size", [16, 17])
def test_equals_the_definition_on_the_full_transform(size: int, generator: torch.Generator) -> None:
    a = torch.randn(size, size, size, generator=generator)
    b = a + torch.randn(size, size, size, generator=generator)
    expected = full_transform_fsc(a.double().numpy(), b.double().numpy())
    got = fourier_shell_correlation(a, b)
    assert torch.allclose(got, torch.tensor(expected, dtype=torch.float32), atol=1e-5)


def test_scale_sign_and_empty_shells(generator: torch.Generator) -> None:
    a = torch.randn(16, 16, 16, generator=generator)
    ones = torch.ones(9)
    assert torch.allclose(fourier_shell_correlation(a, 7.0 * a), ones, atol=1e-5)
    assert torch.allclose(fourier_shell_correlation(a, -a), -ones, atol=1e-5)
    band = fourier.band_mask(16, 4.5, 3)
    low = fourier.irfft(fourier.rfft(a, 3) * band, 16, 3)
    assert fourier_shell_correlation(low, torch.zeros_like(low)).abs().max() == 0.0


def test_noise_of_known_strength(generator: torch.Generator) -> None:
    """Signal variance 1, noise variance 3 in each half: FSC = 1 / (1 + 3)."""
    signal = torch.randn(48, 48, 48, generator=generator)
    halves = [signal + 3.0**0.5 * torch.randn(48, 48, 48, generator=generator) for _ in range(2)]
    curve = fourier_shell_correlation(*halves)
    assert torch.allclose(curve[12:], torch.tensor(0.25), atol=0.06)
    assert curve[6:].mean() == pytest.approx(0.25, abs=0.01)


def test_maps_of_different_boxes_are_refused() -> None:
    with pytest.raises(InputError, match="one box size"):
        fourier_shell_correlation(torch.zeros(8, 8, 8), torch.zeros(9, 9, 9))


def test_resolution_is_interpolated_in_frequency() -> None:
    # Box 20 of 2 Å: shell s is at s / 40 per Å. 0.5 lies a quarter of the way from shell 3 to 4.
    curve = torch.tensor([0.0, 1.0, 0.9, 0.6, 0.2, 0.7, 0.1, 0.0, 0.0, 0.0, 0.0])
    assert resolution_A(curve, 0.5, 2.0) == pytest.approx(40.0 / 3.25)
    assert resolution_A(curve, 0.5, 2.0, box_size=21) == pytest.approx(42.0 / 3.25)
    assert resolution_A(curve, 0.143, 2.0) == pytest.approx(40.0 / (5.0 + 0.557 / 0.6))


def test_resolution_at_the_ends_of_the_curve() -> None:
    assert resolution_A(torch.ones(9), 0.143, 1.5) == 3.0
    assert resolution_A(torch.tensor([1.0, 0.1, 0.9, 0.9, 0.9]), 0.5, 1.5) == 8 * 1.5
    assert resolution_A(torch.full((9,), torch.nan), 0.5, 1.5) == 16 * 1.5


def test_csv_can_be_read_back(tmp_path: Path) -> None:
    path = tmp_path / "fsc.csv"
    columns = {"half_map": torch.linspace(1, 0, 17), "truth": torch.linspace(1, 0.5, 17)}
    write_fsc_csv(path, 2.5, columns)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    names = ["shell", "spatial_frequency_per_A", "resolution_A", "half_map", "truth"]
    assert list(rows[0]) == names
    assert len(rows) == 17
    for shell, row in enumerate(rows):
        assert int(row["shell"]) == shell
        assert float(row["spatial_frequency_per_A"]) == pytest.approx(shell / 80.0, abs=1e-8)
        assert float(row["half_map"]) == pytest.approx(float(columns["half_map"][shell]), abs=1e-6)
        assert float(row["truth"]) == pytest.approx(float(columns["truth"][shell]), abs=1e-6)
    assert float(rows[-1]["resolution_A"]) == pytest.approx(5.0)


def test_curves_of_different_lengths_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one common number of shells"):
        write_fsc_csv(tmp_path / "fsc.csv", 1.0, {"a": torch.ones(5), "b": torch.ones(6)})
    assert list(tmp_path.iterdir()) == []


def test_phase_randomisation_takes_the_masks_own_correlation_away(
    generator: torch.Generator,
) -> None:
    """Halves share shells 1-5 only; a sharp mask spreads that into the shells beyond."""
    size = 32
    low = fourier.band_mask(size, 5.5, 3)

    def noise() -> torch.Tensor:
        return torch.randn(size, size, size, generator=generator)

    shared = 20.0 * fourier.irfft(fourier.rfft(noise(), 3) * low, size, 3)
    half1, half2 = shared + 0.3 * noise(), shared + 0.3 * noise()
    mask = (fourier.radius_grid(size, 3) < 6.0).float()
    masked = fourier_shell_correlation(half1, half2, mask)
    corrected = corrected_fsc(half1, half2, mask, generator)
    assert masked[9:].min() > 0.8  # the artefact
    assert corrected[9:].mean().abs() < 0.25
    assert torch.equal(corrected[:8], masked[:8])
    assert corrected[1:5].min() > 0.99


def test_the_plot_is_a_png_and_bad_folders_are_named(tmp_path: Path) -> None:
    path = tmp_path / "fsc.png"
    plot_fsc(path, 2.0, {"half_map": torch.linspace(1, 0, 17)})
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with pytest.raises(InputError, match="nowhere"):
        plot_fsc(tmp_path / "nowhere" / "fsc.png", 2.0, {"half_map": torch.linspace(1, 0, 17)})
