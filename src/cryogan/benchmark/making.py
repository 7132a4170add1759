"""A table made cell by cell: what is done is not done again, and a cell that fails fails alone.

Every cell has processes of its own, whose cost is measured and whose end ends nothing else. This
process imports no torch until the pictures are drawn: its memory would count as theirs.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cryogan.benchmark.cost import CommandInterrupted, Cost, Spent, cryogan_command, run_command
from cryogan.benchmark.experiments import Cell, Experiment, SetOfTable
from cryogan.benchmark.order import COSTS, LOG, ROW, Order, progress_in
from cryogan.benchmark.rows import append_row
from cryogan.benchmark.tables import write_tables
from cryogan.errors import InputError
from cryogan.files import write_text
from cryogan.run.lock import RUN_LOCK, locked
from cryogan.simulation.plan import plan

_INTERRUPTED = 130
Show = Callable[[str, float], None]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Benchmark:
    """A table to be made.

    Attributes:
        experiment: which.
        folder: of all that is written.
        cells: in the order in which they are run.
        scale: of the sets' box and number of images; 1 for the published size.
        images: number of images in its place.
        datadirs: where the files of the sets are.
        settings: objective -> settings that differ from the defaults.
    """

    experiment: Experiment
    folder: Path
    cells: Sequence[Cell]
    scale: float | None = None
    images: int | None = None
    datadirs: Sequence[str] = ()
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def record(self) -> Path:
        """Where that is kept which all cells have in common."""
        return self.folder / "benchmark.json"

    def order(self, cell: Cell) -> Order:
        """What the process of a cell is told."""
        needs = None if cell.needs is None else self.folder / "cells" / cell.needs.name
        set_folder = self.set_folder(self.experiment.sets[cell.set_name])
        folder = self.folder / "cells" / cell.name
        return Order(self.experiment.name, cell, folder, set_folder, needs, self.settings)

    def set_folder(self, set_: SetOfTable) -> Path:
        """Where a set is, or will be."""
        return self.folder / "sets" / set_.folder


def make_table(benchmark: Benchmark, show: Show, say: Say) -> dict[Cell, str]:
    """Run all cells that are not done, and write the tables after each.

    Args:
        benchmark: to be made.
        show: called often with what is being done, and the fraction of all cells.
        say: called with what is to stay on the screen.

    Returns:
        What went wrong, a sentence a cell; empty if all cells are done.

    Raises:
        InputError: before any work: the folder holds another benchmark or is in use, or a set
            cannot be made.
        KeyboardInterrupt: the same call goes on where this one stopped.
    """
    _require_possible(benchmark)
    with locked(benchmark.folder / RUN_LOCK):
        return _make_cells(benchmark, show, say)


def _make_cells(
    benchmark: Benchmark, show: Callable[[str, float], None], say: Callable[[str], None]
) -> dict[Cell, str]:
    errors: dict[Cell, str] = {}
    done = sum((benchmark.order(cell).folder / ROW).is_file() for cell in benchmark.cells)
    say(f"{benchmark.experiment.title}: {len(benchmark.cells)} cells, {done} done")
    write_tables(benchmark.folder, benchmark.experiment, _about(benchmark))
    for number, cell in enumerate(benchmark.cells):
        folder = benchmark.order(cell).folder
        if (folder / ROW).is_file():
            continue

        def shown(what: str, part: float, done: int = number, name: str = cell.name) -> None:
            count = len(benchmark.cells)
            show(f"{done + 1}/{count} {name}: {what}", (done + part) / count)

        error = _make_cell(benchmark, cell, errors, shown)
        if error is not None:
            errors[cell] = error
            say(f"{cell.name}: {error}")
        write_tables(benchmark.folder, benchmark.experiment, _about(benchmark), errors)
    return errors


def _require_possible(benchmark: Benchmark) -> None:
    """Refuse what cannot work, then make the folder, or find it of this very benchmark."""
    folder, identity = benchmark.folder, json.loads(json.dumps(_identity(benchmark)))
    is_there = benchmark.record.is_file()
    if is_there:
        found = json.loads(benchmark.record.read_text())
        for name, value in identity.items():
            if found.get(name) != value:
                raise InputError(
                    f"{folder} holds a benchmark with {name} {_word(found.get(name))}, not "
                    f"{_word(value)}; give another folder, or those options."
                )
    elif folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty and holds no benchmark; give another folder.")
    for set_name in dict.fromkeys(cell.set_name for cell in benchmark.cells):
        set_ = benchmark.experiment.sets[set_name]
        plan(
            set_.recipe,
            benchmark.set_folder(set_),
            condition=set_.condition,
            scale=benchmark.scale,
            datadirs=benchmark.datadirs,
            changes={} if benchmark.images is None else {"images": benchmark.images},
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"Cannot make the folder {folder}: {error.strerror}; choose another place."
        ) from error
    if not is_there:
        write_text(benchmark.record, json.dumps(identity, indent=2) + "\n")


def _identity(benchmark: Benchmark) -> dict[str, Any]:
    return {
        "experiment": benchmark.experiment.name,
        "scale": benchmark.scale,
        "images": benchmark.images,
        "settings": benchmark.settings,
    }


def _word(value: Any) -> str:
    return "not given" if value is None else json.dumps(value)


def _about(benchmark: Benchmark) -> dict[str, Any]:
    return {name: value for name, value in _identity(benchmark).items() if name != "experiment"}


def _make_cell(
    benchmark: Benchmark, cell: Cell, errors: Mapping[Cell, str], show: Show
) -> str | None:
    """Simulate the set unless it is there, run, evaluate; what went wrong, if anything did."""
    if cell.needs is not None and cell.needs in errors:
        return f"begins with {cell.needs.name}, which failed"
    order = benchmark.order(cell)
    if order.needs is not None and not (order.needs / ROW).is_file():
        return f"begins with {order.needs.name}, which is not there; ask for it too"
    order.write()
    error = _make_set(benchmark, order, show)
    if error is not None:
        return error
    spent = _spend(order, "run", show)
    if spent.code != 0:
        return _reason(order.folder / LOG, spent)
    spent = _spend(order, "evaluate", show)
    return None if spent.code == 0 else _reason(order.folder / LOG, spent)


def _make_set(benchmark: Benchmark, order: Order, show: Show) -> str | None:
    if order.star.is_file() and (order.set_folder / "particles.mrcs").is_file():
        return None
    set_ = order.set_
    command = ["simulate", set_.recipe, f"--condition={set_.condition}"]
    command += ["-o", str(order.set_folder)]
    command += [] if benchmark.scale is None else ["--scale", str(benchmark.scale)]
    command += [] if benchmark.images is None else ["--images", str(benchmark.images)]
    command += [word for path in benchmark.datadirs for word in ("--datadir", str(path))]
    order.set_folder.parent.mkdir(parents=True, exist_ok=True)
    log = order.set_folder.parent / f"{order.set_folder.name}.log"
    spent = run_command(cryogan_command(*command), log, watch=lambda: show("simulation", 0.0))
    return None if spent.code == 0 else _reason(log, spent)


def _spend(order: Order, what: str, show: Show) -> Spent:
    """Run or evaluate a cell; the cost of every attempt at a run is kept.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """
    command = [sys.executable, "-m", "cryogan.benchmark", what, str(order.folder)]
    command.append(str(os.getpid()))
    log = order.folder / LOG
    words = {"run": order.cell.method, "evaluate": "evaluation"}[what]

    def watch() -> None:
        part, numbers = progress_in(log) if what == "run" else (1.0, "")
        show(f"{words}, {numbers}" if numbers else words, part)

    try:
        spent = run_command(command, log, watch=watch)
    except CommandInterrupted as interrupted:
        if what == "run":
            _keep(order, interrupted.cost, _INTERRUPTED)
        raise
    if what == "run":
        _keep(order, spent.cost, spent.code)
    if spent.code == _INTERRUPTED:
        raise KeyboardInterrupt
    return spent


def _keep(order: Order, cost: Cost, code: int) -> None:
    row = {name: f"{value:.2f}" for name, value in asdict(cost).items()}
    append_row(order.folder / COSTS, row | {"code": code})


def _reason(log: Path, spent: Spent) -> str:
    """Why a command failed, in a sentence."""
    if spent.code < 0:
        why = ", as happens when the system runs out of memory" if spent.code == -9 else ""
        return f"ended by signal {-spent.code}{why}; give the same command again to go on"
    lines = [line.strip() for line in log.read_text().splitlines() if line.strip()]
    said = lines[-1].removeprefix("cryogan: ") if lines else f"exit code {spent.code}"
    return f"{said} (see {log})"
