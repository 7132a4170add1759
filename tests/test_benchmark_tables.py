"""`cryogan benchmark`: which cells there are, how they are made, and what the table says."""

import csv
import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cryogan.benchmark import making
from cryogan.benchmark.cost import CommandInterrupted, Cost, Spent
from cryogan.benchmark.experiments import EXPERIMENTS, Cell, Experiment
from cryogan.benchmark.making import Benchmark, make_table
from cryogan.benchmark.order import Order
from cryogan.benchmark.running import arguments_of, shown
from cryogan.benchmark.tables import markdown
from cryogan.cli import main
from cryogan.errors import InputError
from cryogan.simulation.description import read_description, write_description
from cryogan.simulation.plan import describe, plan

TABLE_1, TABLE_2, HSP90 = (EXPERIMENTS[name] for name in ("table1", "table2", "hsp90"))


# The tables


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=lambda each: each.name)
def test_every_condition_is_one_of_its_recipe(experiment: Experiment) -> None:
    for set_ in experiment.sets.values():
        assert read_description(set_.recipe, set_.condition).condition == set_.condition


def test_sets_of_table_2_differ_by_what_is_true_and_not_by_what_is_assumed() -> None:
    used = {name: each.condition for name, each in TABLE_2.sets.items()}
    for assumed in ("uniform", "sigma2", "sigma3"):
        condition = f"true-sigma3-assumed-{assumed}"
        assert TABLE_2.conditions[condition] == ("true-sigma3", assumed)
        _, settings = describe("betagal-table2", condition)
        assert settings == describe("betagal-table2", used["true-sigma3"])[1]


def test_published_numbers_as_printed() -> None:
    """Gupta et al. 2021; the two tables share the cell without any mismatch."""
    printed = [(p.half_map, p.truth_half, p.truth) for p in TABLE_1.published.values()]
    assert printed == [(8.6, 15.3, 11.7), (7.5, 8.3, 6.5), (10.8, 14.7, 11.5), (14.3, 23.2, 19.8)]
    shared = TABLE_2.published["true-uniform", "uniform"]
    assert shared == TABLE_1.published["-20dB", "uniform"]
    assert len(TABLE_2.published) == 9


def test_cells_have_names_of_their_own_and_come_after_what_they_need() -> None:
    for experiment in EXPERIMENTS.values():
        objectives = ("both", "combined")
        cells = experiment.cells(objectives=objectives, symmetries=["C1", "D2"], seeds=[0, 1])
        assert len({cell.name for cell in cells}) == len(cells)
        for number, cell in enumerate(cells):
            assert cell.needs is None or cell.needs in cells[:number]


def test_an_unknown_condition_is_refused() -> None:
    with pytest.raises(InputError, match=r"-20dB-shift20"):
        TABLE_1.cells(["-30dB"])


def order_of(experiment: Experiment, **which: Any) -> Order:
    cell = Cell(**({"symmetry": "D2", "seed": 3} | which))
    return Order(experiment.name, cell, Path("cell"), Path("set"), Path("other"), {})


def test_what_a_reconstruction_is_told() -> None:
    found = arguments_of(order_of(TABLE_1, set_name="-20dB-shift3", method="adversarial"))
    assert found["max_shift"] == "3%"
    assert found["noise"] == Path("set/background.mrcs")
    assert (found["symmetry"], found["seed"], found["view_sigma"]) == ("D2", 3, 1.0)
    found = arguments_of(order_of(TABLE_1, set_name="-20dB-shift3", method="likelihood"))
    assert "max_shift" not in found
    assert "noise" not in found
    which = {"set_name": "true-uniform", "method": "adversarial"}
    assert arguments_of(order_of(TABLE_2, assumed="sigma2", **which))["view_sigma"] == 2.0
    found = arguments_of(order_of(TABLE_2, assumed="estimated", **which))
    assert found["settings"] == {"view_density": "other/run"}
    found = arguments_of(order_of(HSP90, set_name="4-states", method="likelihood"))
    assert (found["latent"], found["classes"], found["max_shift"]) == ("discrete", 4, "0%")


def test_a_run_stops_without_its_benchmark() -> None:
    """One whose parent has another process id than it should have is alone."""
    shown(os.getppid())([[{"images_seen": 1}]])
    with pytest.raises(KeyboardInterrupt):
        shown(os.getpid())([[{"images_seen": 1}]])


# The page


def row(name: str, method: str, seed: int, half_map: object, truth: float) -> dict[str, Any]:
    return {
        "set": name,
        "symmetry": "D2",
        "method": method,
        "assumed_views": "uniform",
        "seed": seed,
        "images": 100,
        "box_size": 32,
        "pixel_size_A": 7.644,
        "half_map_0.143_A": half_map,
        "half_map_0.143_published_way_A": 20.0,
        "truth_0.5_A": truth,
        "truth_0.143_A": truth,
        "verdict": "no structure" if half_map == "" else "structure found",
        "cpu_s": 10.0,
        "wall_s": 10.0,
        "memory_GB": 0.5,
    }


def test_published_numbers_stand_beside_ours() -> None:
    rows = [row("-20dB", "adversarial", seed, "", 20.0 + seed) for seed in range(3)]
    rows.append(row("-20dB", "likelihood", 0, 9.0, 12.0))
    lines = markdown(TABLE_1, {"scale": 0.5}, rows, {"x": "no disk"}).splitlines()
    (adversarial,) = (line for line in lines if "| adversarial |" in line)
    assert "| – (8.6) | 20.0 | 21.0 (20.0–22.0) (15.3) | 21.0 (20.0–22.0) (11.7) |" in adversarial
    assert "| no structure | 3 | 10 | 0.5 GB |" in adversarial
    assert any("| 9.0 (8.6) |" in line for line in lines)
    assert "- x: no disk" in lines
    assert any("cryogan benchmark table1 -o DIR --scale 0.5" in line for line in lines)


# How it is made


def simulated(command: Sequence[str]) -> None:
    """A set with nothing in it."""
    given = {word: command[place + 1] for place, word in enumerate(command[:-1])}
    made = plan(
        given["simulate"],
        given["-o"],
        condition=next(word for word in command if "--condition=" in word).partition("=")[2],
        scale=float(given["--scale"]),
        datadirs=[given["--datadir"]],
        changes={"images": int(given["--images"])},
    )
    made.folder.mkdir(parents=True)
    write_description(made.record, made.description, made.settings, made.inputs)
    for name in ("particles.star", "particles.mrcs"):
        (made.folder / name).touch()


class Commands:
    """In place of real commands: they leave what those leave, and cost one CPU second each.

    Args:
        failing: words of commands that fail.
        stop_at: word of the command that is interrupted.
    """

    def __init__(self, failing: Sequence[str] = (), stop_at: str = "none") -> None:
        self.failing, self.stop_at = failing, stop_at
        self.given: list[str] = []

    def __call__(
        self, command: Sequence[str], log: Path, *, watch: Callable[[], None], **_: object
    ) -> Spent:
        words = " ".join(command)
        self.given.append(words)
        watch()
        cost = Cost(1.0, 2.0, 0.1)
        if self.stop_at in words:
            raise CommandInterrupted(signal.SIGINT, cost)
        if any(word in words for word in self.failing):
            log.write_text("progress 0.1\ncryogan: The map is empty.\n")
            return Spent(cost, 2)
        if "simulate" in command:
            simulated(command)
        if "evaluate" in command:
            order = Order.read(Path(command[-2]))
            found = row(order.cell.set_name, order.cell.method, order.cell.seed, 9.0, 10.0)
            (order.folder / "row.json").write_text(json.dumps(found))
        return Spent(cost, 0)

    def runs(self) -> list[str]:
        """Names of the cells that were run."""
        return [Path(words.split()[-2]).name for words in self.given if " run " in words]


@pytest.fixture
def benchmark(tmp_path: Path, shared_data: Path) -> Benchmark:
    cells = TABLE_1.cells(["-20dB", "-5.2dB"], ["adversarial", "combined"])
    return Benchmark(TABLE_1, tmp_path / "table", cells, 0.1, 100, [str(shared_data)])


def make(
    benchmark: Benchmark, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> dict[Cell, str]:
    monkeypatch.setattr(making, "run_command", commands)
    return make_table(benchmark, lambda what, part: None, lambda text: None)


def test_cells_that_are_done_are_not_done_again(
    benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Commands(), Commands()
    assert make(benchmark, first, monkeypatch) == {}
    assert first.runs() == [cell.name for cell in benchmark.cells]
    assert sum("simulate" in words for words in first.given) == 2
    assert make(benchmark, second, monkeypatch) == {}
    assert second.given == []
    with (benchmark.folder / "table1.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(benchmark.cells)
    assert rows[-1]["published_truth_0.5_A"] == "8.3"


def test_a_cell_that_fails_leaves_the_others_alone(
    benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = Commands(["run " + str(benchmark.folder / "cells" / "20dB_D2_adversarial")])
    failed = make(benchmark, commands, monkeypatch)
    bad = [cell for cell in benchmark.cells if cell.set_name == "-20dB" and cell.assumed]
    assert set(failed) == {cell for cell in bad if cell.method != "true poses"}
    assert any(error.startswith("The map is empty.") for error in failed.values())
    page = (benchmark.folder / "table1.md").read_text()
    assert "The map is empty." in page
    again = Commands()
    assert make(benchmark, again, monkeypatch) == {}
    assert set(again.runs()) == {cell.name for cell in failed}
    assert "Not done" not in (benchmark.folder / "table1.md").read_text()


def test_an_interrupted_cell_is_paid_for_in_all_its_attempts(
    benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        make(benchmark, Commands(stop_at="run " + str(benchmark.folder)), monkeypatch)
    assert make(benchmark, Commands(), monkeypatch) == {}
    costs = (benchmark.folder / "cells" / benchmark.cells[0].name / "costs.csv").read_text()
    assert [line.split(",")[0] for line in costs.splitlines()] == ["cpu_s", "1.00", "1.00"]


def test_a_folder_is_of_one_benchmark(
    benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch, shared_data: Path
) -> None:
    make(benchmark, Commands(), monkeypatch)
    other = Benchmark(TABLE_1, benchmark.folder, benchmark.cells, 0.2, 100, [str(shared_data)])
    with pytest.raises(InputError, match="scale"):
        make(other, Commands(), monkeypatch)
    no_files = Benchmark(TABLE_1, benchmark.folder / "new", benchmark.cells)
    monkeypatch.delenv("CRYOGAN_DATA", raising=False)
    commands = Commands()
    with pytest.raises(InputError, match="5a1a"):
        make(no_files, commands, monkeypatch)
    assert commands.given == []


# The whole


@pytest.mark.slow
def test_table_1_small(
    tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Two runs on one set of 16 px, and the same command again."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    arguments = ["benchmark", "table1", "-o", str(tmp_path / "t"), "--condition", "-5.2dB"]
    arguments += ["--scale", "0.0834", "--images", "600", "--sym", "C1", "--objective"]
    arguments += ["adversarial", "--datadir", str(shared_data), "--adversarial.stages"]
    arguments += ["[{box_size: 16, images: 1280, padding: 4.0}]"]
    assert main(arguments) == 0
    record = json.loads((tmp_path / "t" / "table1.json").read_text())
    bound, found = record["rows"]
    assert (bound["method"], found["method"]) == ("true poses", "adversarial")
    assert bound["truth_0.5_A"] < 33.0  # the Nyquist limit is 30.6
    assert bound["correlation"] > 0.9
    assert bound["correlation"] > found["correlation"] > 0.1
    assert record["versions"]["torch"]
    assert found["memory_GB"] > 0.1
    for name in ("images", "sections", "fsc"):
        with Image.open(tmp_path / "t" / f"5.2dB_{name}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 10.0
    before = (tmp_path / "t" / "table1.csv").read_bytes()
    assert main(arguments) == 0
    assert (tmp_path / "t" / "table1.csv").read_bytes() == before
    assert "adversarial" in capsys.readouterr().out
