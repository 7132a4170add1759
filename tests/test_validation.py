"""What a run writes for validation: which files, when, and what they hold."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cryogan import fourier
from cryogan.evaluation.fsc import fourier_shell_correlation
from cryogan.io.mrc import read_map
from cryogan.objectives.base import Maps
from cryogan.run.validation import write_validation

SIZE = 32
CLAIMS = {"directional_fsc.csv", "guinier.csv", "local_resolution.csv", "local_resolution.mrc"}


def made(pixel_size_A: float, generator: torch.Generator) -> Maps:
    """Half-maps that share all but a little noise, whose amplitudes fall by a B-factor of 50."""
    frequency = fourier.frequency_grid(SIZE, 3).norm(dim=-1)
    fall = torch.exp(-0.25 * 50.0 * (frequency / pixel_size_A).square())
    white = torch.randn(3, SIZE, SIZE, SIZE, generator=generator)
    signal = fourier.irfft(fall * fourier.rfft(white[0], 3), SIZE, 3)
    half1, half2 = signal + 0.05 * white[1:]
    fsc = fourier_shell_correlation(half1, half2)
    mask = fourier.soft_disc(SIZE, 10.0, 3.0, 3)
    return Maps(half1, half2, 0.5 * (half1 + half2), mask, fsc, fsc, pixel_size_A)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_fine_maps_are_sharpened(tmp_path: Path, generator: torch.Generator) -> None:
    maps = made(1.5, generator)
    found = write_validation(tmp_path, maps, structure=True)
    json.dumps(found, allow_nan=False)
    assert names(tmp_path) == CLAIMS | {"mask.mrc", "uncertainty.mrc", "map_sharpened.mrc"}
    assert torch.equal(read_map(tmp_path / "mask.mrc").volume, maps.mask)
    assert found["sharpening"]["b_factor_A2"] == pytest.approx(-50.0, rel=0.3)
    assert 0.7 < found["directions"]["cfar"] <= 1.0
    quoted = found["local_resolution"]
    assert 3.0 <= quoted["finest_5_percent_A"] <= quoted["median_A"]
    local = read_map(tmp_path / "local_resolution.mrc").volume
    inside = maps.mask > 0.5
    assert local[inside].median() == pytest.approx(quoted["median_A"], rel=0.01)
    assert local[~inside].abs().max() == 0.0
    volume_A3 = sum(float(row["volume_A3"]) for row in rows(tmp_path / "local_resolution.csv"))
    assert volume_A3 == pytest.approx(float(inside.sum()) * 1.5**3)
    curves = rows(tmp_path / "directional_fsc.csv")
    assert len(curves) == SIZE // 2 + 1
    for row in curves[1:]:
        lowest, mean, highest = (float(row[name]) for name in ("lowest", "mean", "highest"))
        assert lowest - 1e-5 <= mean <= highest + 1e-5
    fitted = [row for row in rows(tmp_path / "guinier.csv") if row["fit"] != "nan"]
    assert all(float(row["inverse_d2_per_A2"]) >= 0.01 for row in fitted)
    assert len(fitted) >= 5


def test_coarse_maps_are_not(tmp_path: Path, generator: torch.Generator) -> None:
    found = write_validation(tmp_path, made(6.0, generator), structure=True)
    assert names(tmp_path) == CLAIMS | {"mask.mrc", "uncertainty.mrc"}
    assert found["sharpening"]["b_factor_A2"] is None
    assert "coarser" in found["sharpening"]["reason"]


def test_nothing_claims_a_resolution_without_structure(
    tmp_path: Path, generator: torch.Generator
) -> None:
    assert write_validation(tmp_path, made(1.5, generator), structure=False) == {}
    assert names(tmp_path) == {"mask.mrc", "uncertainty.mrc"}


def test_half_maps_that_share_nothing_have_no_ratio(
    tmp_path: Path, generator: torch.Generator
) -> None:
    half1, half2 = torch.randn(2, SIZE, SIZE, SIZE, generator=generator)
    fsc = torch.zeros(SIZE // 2 + 1)
    fsc[12:] = math.nan  # beyond their band
    mask = torch.ones(SIZE, SIZE, SIZE)
    maps = Maps(half1, -half1, half2, mask, fsc, fsc, 3.0)
    found = write_validation(tmp_path, maps, structure=True)
    json.dumps(found, allow_nan=False)
    assert found["directions"]["cfar"] is None
    assert rows(tmp_path / "directional_fsc.csv")[12]["mean"] == "nan"


def test_equal_halves_have_one_resolution(tmp_path: Path, generator: torch.Generator) -> None:
    maps = made(3.0, generator)
    found = write_validation(tmp_path, replace(maps, half2=maps.half1), structure=True)
    assert found["local_resolution"]["coarsest_5_percent_A"] == pytest.approx(6.0)
    volumes = [float(row["volume_A3"]) for row in rows(tmp_path / "local_resolution.csv")]
    assert sum(volumes) == pytest.approx(float((maps.mask > 0.5).sum()) * 27.0)


def test_nothing_is_finer_than_the_band(tmp_path: Path, generator: torch.Generator) -> None:
    maps = made(1.5, generator)
    fsc = torch.where(torch.arange(SIZE // 2 + 1) > 12, math.nan, maps.fsc)
    found = write_validation(tmp_path, replace(maps, fsc=fsc, fsc_masked=fsc), structure=True)
    band_end_A = SIZE * 1.5 / 12
    assert found["local_resolution"]["finest_5_percent_A"] == pytest.approx(band_end_A, abs=1e-3)
    assert [row["ln_amplitude"] != "nan" for row in rows(tmp_path / "guinier.csv")].count(
        True
    ) == 12
    assert found["sharpening"]["fit_to_A"] == pytest.approx(band_end_A, abs=1e-3)
