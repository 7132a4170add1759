"""`benchmarks/gpu.py` and `benchmarks/likelihood_profile.py`, at small size on a CPU."""

import csv
from importlib import import_module
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")


def test_the_command_measures_both_objectives(tmp_path: Path) -> None:
    sizes = ["--boxes", "16", "--images", "40", "--batch-size", "4"]
    import_module("gpu").main(["-o", str(tmp_path), "--device", "cpu", *sizes])
    with (tmp_path / "gpu.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["objective"] for row in rows] == ["likelihood", "adversarial"]
    for row in rows:
        assert row["device"]
        assert float(row["images_per_s"]) == pytest.approx(
            int(row["images"]) / float(row["seconds"]), rel=0.02, abs=0.1
        )


def test_a_device_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SystemExit, match="There is no device cuda here; use --device cpu"):
        import_module("gpu").main(["-o", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_parts_do_not_overlap_and_add_up() -> None:
    """Each part counts without those within it; nothing is lost."""
    profile = import_module("likelihood_profile")
    case = profile.Prepared.of(16, 1.0, 2.0, 24, torch.device("cpu"))
    with profile.profiled() as clock:
        found = case.e_step(24)
        with clock.part("solve"):
            maps = case.solve(found)
    assert maps.shape == case.maps.shape
    assert set(clock.seconds) <= set(profile.NAMES)
    assert all(seconds >= 0.0 for seconds in clock.seconds.values())
    assert clock.within == ["other"]
    assert {"slices", "rings", "coarse", "shifts", "gridding", "finish"} <= set(clock.seconds)
