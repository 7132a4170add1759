"""The count of runs whose half-maps quote more than the truth confirms."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from cryogan.errors import InputError


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    return importlib.import_module("half_map_against_truth")


def runs(benchmark: ModuleType, *pairs: tuple[float, float], kind: str = "counted") -> list[object]:
    """Of a box of 200 Å, Nyquist 5 Å."""
    return [benchmark.Run("set", "run", 80, 2.5, half, truth, kind) for half, truth in pairs]


def test_more_than_one_shell_is_too_fine(benchmark: ModuleType) -> None:
    """200 / 10 = 20 shells; 200 / 21 = 9.52; 200 / 20 = 10."""
    found = runs(benchmark, (10.0, 10.0), (20.0, 21.0), (10.0, 200 / 18.9), (12.0, 10.0))
    assert [run.shells_finer for run in found] == pytest.approx([0.0, 0.476, 1.1, -3.333], abs=1e-3)
    assert benchmark.too_fine(found) == [found[2]]
    assert benchmark.too_fine(runs(benchmark, (10.0, 200 / 19))) == []  # one shell


def test_what_held_out_images_do_not_support_is_not_quoted(benchmark: ModuleType) -> None:
    source = benchmark.Source("t", "set", 80, 2.5, "half", "truth", ("seed",))
    row = {"half": "10", "truth": "20", "seed": "3"}
    rows = [row | {"held_out_A": value} for value in ("", "5", "19")]
    found = benchmark.runs_of(source, rows)
    assert [run.quoted_A for run in found] == [10.0, 10.0, 19.0]
    assert benchmark.too_fine(found) == found[:2]


def test_near_the_nyquist_limit_nothing_can_be_too_fine(benchmark: ModuleType) -> None:
    found = runs(benchmark, (5.0, 5.0), (5.0, 200 / 39), (5.0, 200 / 38.9))
    assert [run.leaves_room for run in found] == [False, False, True]


def test_rows_are_chosen_by_a_column(benchmark: ModuleType) -> None:
    only = {"method": ("gan",)}
    source = benchmark.Source("t", "set", 80, 2.5, "half", "truth", ("seed",), only=only)
    rows = [{"half": "9", "truth": "9", "seed": str(n), "method": m} for n, m in enumerate("ab")]
    rows.append(rows[0] | {"method": "gan", "seed": "7"})
    assert [run.label for run in benchmark.runs_of(source, rows)] == ["7"]


def test_only_runs_that_quote_a_resolution_count(benchmark: ModuleType) -> None:
    for kind in (benchmark.UNQUOTED, benchmark.EARLIER, benchmark.PUBLISHED):
        assert benchmark.too_fine(runs(benchmark, (10.0, 40.0), kind=kind)) == []
    source = benchmark.Source("t", "set", 80, 2.5, "half", "truth", ("seed",))
    row = {"half": "10", "truth": "40", "seed": "3", "verdict": "structure found"}
    noise = row | {"truth": ""}
    read = benchmark.runs_of(source, [row, noise, row | {"verdict": "no structure"}])
    assert [run.kind for run in read] == ["counted", "no structure"]
    assert [run.label for run in benchmark.too_fine(read)] == ["3"]


def test_the_committed_tables_are_read(benchmark: ModuleType) -> None:
    """Each set in a box whose Nyquist limit none of its runs exceeds."""
    folder = Path(__file__).parents[1] / "benchmarks" / "results"
    for source in benchmark.SOURCES:
        for run in benchmark.runs_of(source, benchmark.read_rows(folder / f"{source.name}.csv")):
            assert min(run.half_A, run.truth_A) >= 2.0 * run.pixel_size_A - 0.01
            assert max(run.half_A, run.truth_A) <= run.box_size * run.pixel_size_A + 0.5
    assert any((folder / f"{source.name}.csv").is_file() for source in benchmark.SOURCES)


def test_damaged_tables_are_named(benchmark: ModuleType) -> None:
    source = benchmark.Source("t", "set", 80, 2.5, "half", "truth", ("seed",))
    with pytest.raises(InputError, match="has no column truth"):
        benchmark.runs_of(source, [{"half": "1", "seed": "0"}])
    with pytest.raises(InputError, match="line 2 has 'x' in place of a resolution"):
        benchmark.runs_of(source, [{"half": "x", "truth": "1", "seed": "0"}])
