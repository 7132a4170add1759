"""What a run folder holds, read from disk; everything but `config.json` may be missing."""

import csv
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cryogan.errors import InputError
from cryogan.io.mrc import Map, read_map
from cryogan.report.conformation_files import Conformations, FloatArray, read_conformations

MAP_FILES = {
    "map": "map.mrc",
    "half1": "half1.mrc",
    "half2": "half2.mrc",
    "truth": "truth_aligned.mrc",
}

MAP_NAMES = {
    "map": "map",
    "half1": "half map 1",
    "half2": "half map 2",
    "truth": "known structure",
}


@dataclass(frozen=True)
class FSCTable:
    """FSC curves of a run.

    Attributes:
        spatial_frequency_per_A: (m,) frequency of every shell in 1/Å.
        curves: name → (m,) FSC.
    """

    spatial_frequency_per_A: FloatArray
    curves: dict[str, FloatArray]


@dataclass(frozen=True)
class RunFolder:
    """The contents of a run folder.

    Attributes:
        path: the folder.
        config: `config.json`.
        summary: `summary.json`, empty when missing.
        maps: those of map, half1, half2 and truth that are there.
        fsc: `fsc.csv`, or None.
        stats: name of a sub-folder → the records of its `stats.jsonl`, one a line.
        passes: the records of the folder's own `stats.jsonl`, which a likelihood run writes.
        conformations: the series of maps in `conformations/`, or None.
        examples: arrays (n, d, d) of `examples.npz`: real, clean, ctf, noisy.
        progress: arrays of `progress.npz`: images_seen (m,), slices (m, 3, d, d).
    """

    path: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    maps: dict[str, Map]
    fsc: FSCTable | None
    stats: dict[str, list[dict[str, Any]]]
    passes: list[dict[str, Any]]
    conformations: Conformations | None
    examples: dict[str, FloatArray]
    progress: dict[str, FloatArray]

    @property
    def by_likelihood(self) -> bool:
        """Whether the settings are those of `cryogan refine`, not of a game with a critic."""
        settings = self.config.get("config")
        return isinstance(settings, dict) and "climb_rings" in settings


def read_run_folder(path: Path) -> RunFolder:
    """Read a run folder.

    Raises:
        InputError: `path` has no `config.json`, or one of its files cannot be understood.
    """
    if not (path / "config.json").is_file():
        raise InputError(
            f"{path} is not a run folder: it has no config.json; give the folder that a "
            "reconstruction was written to."
        )
    runs = sorted(file.parent for file in path.glob("*/stats.jsonl"))
    return RunFolder(
        path=path,
        config=_read_object(path / "config.json"),
        summary=_read_object(path / "summary.json"),
        maps={
            name: read_map(path / file)
            for name, file in MAP_FILES.items()
            if (path / file).is_file()
        },
        fsc=_read_fsc(path / "fsc.csv"),
        stats={run.name: _read_stats(run / "stats.jsonl") for run in runs},
        passes=_read_stats(path / "stats.jsonl"),
        conformations=read_conformations(path / "conformations"),
        examples=_read_first_arrays(
            runs, "examples.npz", {"real": 3, "clean": 3, "ctf": 3, "noisy": 3}
        ),
        progress=_read_first_arrays(runs, "progress.npz", {"images_seen": 1, "slices": 4}),
    )


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(
            f"{path} is not valid JSON ({error}); write it again by resuming the run."
        ) from error
    if not isinstance(value, dict):
        raise InputError(f"{path} does not hold a JSON object; resume the run to rewrite it.")
    return value


def _read_fsc(path: Path) -> FSCTable | None:
    if not path.is_file():
        return None
    with path.open(newline="") as file:
        header, *rows = [row for row in csv.reader(file) if row] or [[]]
    if header[:3] != ["shell", "spatial_frequency_per_A", "resolution_A"]:
        raise InputError(
            f"{path} line 1 must begin with shell,spatial_frequency_per_A,resolution_A; "
            "resume the run to rewrite the file."
        )
    values = np.empty((len(rows), len(header)))
    for line, row in enumerate(rows, start=2):
        try:
            values[line - 2] = [float(cell) for cell in row]
        except ValueError as error:
            raise InputError(
                f"{path} line {line} is not {len(header)} numbers ({error}); resume the run to "
                "rewrite the file."
            ) from error
    return FSCTable(values[:, 1], {name: values[:, 3 + i] for i, name in enumerate(header[3:])})


def _read_stats(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a log, if there is one; a line cut short by a killed run is left out."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def _read_first_arrays(
    folders: list[Path], file: str, dimensions: dict[str, int]
) -> dict[str, FloatArray]:
    """The named arrays of the first `file` found, each checked for its number of dimensions."""
    paths = [folder / file for folder in folders if (folder / file).is_file()]
    if not paths:
        return {}
    arrays = {}
    try:
        with np.load(paths[0], allow_pickle=False) as archive:
            for name in dimensions.keys() & set(archive.files):
                arrays[name] = np.asarray(archive[name], dtype=np.float64)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{paths[0]} is not a readable .npz file ({error}); delete it or resume the run."
        ) from error
    for name, array in arrays.items():
        if array.ndim != dimensions[name]:
            raise InputError(
                f"{paths[0]} array '{name}' has {array.ndim} dimensions and should have "
                f"{dimensions[name]}; delete the file or resume the run."
            )
    return arrays
