"""What a cell's own process is told to do: `cell.json` in the folder of the cell.

Beside it: `run/`, the run folder; `log.txt`; `costs.csv`, a row an attempt; `row.json`, the
finished row of the table. Nothing here needs torch.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryogan.benchmark.experiments import EXPERIMENTS, Cell, Experiment, SetOfTable
from cryogan.files import write_text

ORDER, ROW, LOG, COSTS, RUN = "cell.json", "row.json", "log.txt", "costs.csv", "run"


@dataclass(frozen=True)
class Order:
    """A cell to be run.

    Attributes:
        experiment_name: of its table.
        cell: which one.
        folder: of the cell.
        set_folder: of the simulated set.
        needs: folder of the cell that it begins with, or None.
        settings: objective -> settings that differ from the defaults.
    """

    experiment_name: str
    cell: Cell
    folder: Path
    set_folder: Path
    needs: Path | None
    settings: Mapping[str, Mapping[str, Any]]

    @property
    def experiment(self) -> Experiment:
        """Its table."""
        return EXPERIMENTS[self.experiment_name]

    @property
    def set_(self) -> SetOfTable:
        """Its set."""
        return self.experiment.sets[self.cell.set_name]

    @property
    def star(self) -> Path:
        """Its particles."""
        return self.set_folder / "particles.star"

    @property
    def run(self) -> Path:
        """Its run folder."""
        return self.folder / RUN

    def write(self) -> None:
        """Write `cell.json`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        record = {
            "experiment": self.experiment_name,
            "cell": asdict(self.cell),
            "set": str(self.set_folder.resolve()),
            "needs": None if self.needs is None else str(self.needs.resolve()),
            "settings": self.settings,
        }
        write_text(self.folder / ORDER, json.dumps(record, indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Order":
        """What `write` wrote."""
        record = json.loads((folder / ORDER).read_text())
        needs = None if record["needs"] is None else Path(record["needs"])
        cell = Cell(**record["cell"])
        settings = record["settings"]
        return cls(record["experiment"], cell, folder, Path(record["set"]), needs, settings)


def progress_line(fraction: float, latest: Mapping[int, Mapping[str, Any]]) -> str:
    """A line of the log: the fraction done, and how many images have been seen."""
    seen = sum(int(record.get("images_seen", 0)) for record in latest.values())
    return f"progress {fraction:.4f} {seen:,} images seen"


def progress_in(log: Path) -> tuple[float, str]:
    """The fraction done, and the words beside it, that the last line of a log tells.

    Example:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = pathlib.Path(folder) / "log.txt"
        ...     _ = log.write_text(progress_line(0.25, {0: {"images_seen": 1000}}))
        ...     progress_in(log)
        (0.25, '1,000 images seen')
    """
    if not log.is_file():
        return 0.0, ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 200))
        lines = file.read().decode(errors="replace").splitlines()
    words = lines[-1].split() if lines else []
    if len(words) < 2 or words[0] != "progress":
        return 0.0, ""
    return float(words[1]), " ".join(words[2:])
