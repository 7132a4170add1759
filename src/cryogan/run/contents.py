"""What a run folder holds, read from disk: the one reader of report, API and commands.

Everything but `config.json` may be missing; a file is read when it is first asked for.
"""

import csv
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryogan.conformations.folder import ConformationFolder, read_conformation_folder
from cryogan.errors import InputError
from cryogan.io.mrc import Map, read_map

FloatArray = NDArray[np.float64]
Record = dict[str, Any]

_MAP_FILES = {
    "map": "map.mrc",
    "half1": "half1.mrc",
    "half2": "half2.mrc",
    "truth": "truth_aligned.mrc",
}

MAP_SO_FAR = "map_so_far.mrc"
"""Of a task that is not finished (`run.so_far`)."""
EXAMPLES = "examples.npz"

_GUINIER = ("inverse_d2_per_A2", "ln_amplitude", "ln_signal", "fit")
_GOODNESS_OF_FIT = ("ring", "resolution_A", "variance", "expected", "error")
_FIT_P_VALUES = ("from", "to", "images")
_VIEW_DENSITY = ("cell", "rot_deg", "tilt_deg", "half1", "half2")
_LOCAL_RESOLUTION = ("from_A", "to_A", "volume_A3")

STRUCTURE, DOUBTFUL, NOTHING = "structure found", "doubtful", "no structure"
NOTHING_QUOTED = "No resolution is quoted: held-out images are explained no better by the maps."
"""Said of a run in which there is no structure."""

_OF_HALVES = "half_map_"
_FROM_HALVES = "half_map_0.143", "half_map_0.143_masked"
CROSSINGS = "half_map_crossings_A"
"""In `summary.json`, where half-map FSC curves cross 0.143 if that is no resolution."""
REMAINING = "remaining"
"""In `summary.json`, what is still to be done, in words, once all other results are written."""


@dataclass(frozen=True)
class FSCTable:
    """FSC curves of a run.

    Attributes:
        spatial_frequency_per_A: (m,) frequency of every shell in 1/Å.
        curves: name → (m,) FSC.
    """

    spatial_frequency_per_A: FloatArray
    curves: dict[str, FloatArray]

    @property
    def resolution_A(self) -> FloatArray:
        """(m,) resolution of every shell; infinite in shell 0."""
        frequency = self.spatial_frequency_per_A
        none = np.full_like(frequency, np.inf)
        return np.divide(1.0, frequency, out=none, where=frequency > 0)


@dataclass(frozen=True)
class RunContents:
    """The contents of a run folder, each read when it is first asked for.

    Every attribute but the first two raises InputError if its files cannot be understood.

    Attributes:
        path: the folder.
        config: `config.json`.
    """

    path: Path
    config: dict[str, Any]

    @property
    def objective(self) -> str:
        """Name of the objective, as in `config.json`; empty if it is not told there."""
        return str(self.config.get("objective", ""))

    @property
    def particles(self) -> dict[str, Any]:
        """What `config.json` tells of the particles."""
        return mapping(self.config, "particles")

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the objective, without the assumptions."""
        settings = mapping(self.config, "config")
        return {name: value for name, value in settings.items() if name != "assumptions"}

    @property
    def assumptions(self) -> dict[str, Any]:
        """What was assumed of the sample: fields of `objectives.assumptions.Assumptions`."""
        return mapping(mapping(self.config, "config"), "assumptions")

    @property
    def sources(self) -> dict[str, str]:
        """Name of an assumption → where it was taken from: "given", "default", "the run RUN"."""
        return {name: str(value) for name, value in mapping(self.config, "sources").items()}

    @cached_property
    def summary(self) -> dict[str, Any]:
        """`summary.json`; empty when missing."""
        path = self.path / "summary.json"
        return _read_object(path) if path.is_file() else {}

    @property
    def verdict(self) -> tuple[str, str] | None:
        """Word and reason of the verdict; None in runs that have none."""
        found = mapping(self.summary, "verdict")
        if found.get("word") not in (STRUCTURE, DOUBTFUL, NOTHING):
            return None
        return str(found["word"]), str(found.get("reason", ""))

    @property
    def remaining(self) -> str:
        """What is still to be done, in words; empty once the results are complete."""
        return str(self.summary.get(REMAINING, ""))

    @property
    def symmetry_found(self) -> tuple[str, str] | None:
        """Group and reason, of a symmetry that was to be found; None where it was given."""
        found = mapping(self.summary, "symmetry")
        return (str(found["group"]), str(found.get("reason", ""))) if "group" in found else None

    @property
    def without_structure(self) -> bool:
        """Whether the verdict is "no structure"."""
        return self.verdict is not None and self.verdict[0] == NOTHING

    @property
    def resolution_A(self) -> dict[str, float]:
        """The resolutions that the summary quotes: "half_map_0.143_masked" → 8.77.

        None of half-maps where the verdict is "no structure".
        """
        found = _numbers(mapping(self.summary, "resolution_A"))
        if not self.without_structure:
            return found
        return {name: value for name, value in found.items() if not name.startswith(_OF_HALVES)}

    @property
    def held_out_resolution_A(self) -> float | None:
        """To what images support the half-map that has no part in them; None if it is not known."""
        return None if self.without_structure else number(self.summary, "held_out_resolution_A")

    @property
    def quoted_resolution_A(self) -> float | None:
        """The coarsest of those of half-maps and held-out images: the one to quote.

        None where the verdict is "no structure", or nothing is known.
        """
        found = [self.resolution_A.get(name) for name in _FROM_HALVES]
        known = [each for each in (*found, self.held_out_resolution_A) if each is not None]
        return max(known, default=None)

    @property
    def resolution_note(self) -> str:
        """What is to be known of the half-maps' resolution; empty if nothing is.

        How far held-out images support the half-maps, where these agree further; or, of
        adversarial training, that it was not measured.
        """
        held_out_A = self.held_out_resolution_A
        halves_A = [self.resolution_A.get(name, 0.0) for name in _FROM_HALVES]
        if held_out_A is not None and held_out_A > max(halves_A):
            return f"held-out images support the half-maps to {held_out_A:.2f} Å only"
        if held_out_A is None and self.objective == "adversarial" and max(halves_A) > 0.0:
            return (
                "half-maps of adversarial training share errors and may seem finer than they are; "
                "how far held-out images support them was not measured"
            )
        return ""

    @property
    def misfits(self) -> list[str]:
        """What does not fit, a phrase each (docs/goodness_of_fit.md); none if it is not known."""
        found = mapping(self.summary, "goodness_of_fit").get("misfits")
        return [str(phrase) for phrase in found] if isinstance(found, list) else []

    @cached_property
    def goodness_of_fit(self) -> dict[str, FloatArray]:
        """Columns of `goodness_of_fit.csv`; empty when missing."""
        return _read_columns(self.path / "goodness_of_fit.csv", _GOODNESS_OF_FIT)

    @cached_property
    def fit_p_values(self) -> dict[str, FloatArray]:
        """Columns of `fit_p_values.csv`; empty when missing."""
        return _read_columns(self.path / "fit_p_values.csv", _FIT_P_VALUES)

    @property
    def half_map_crossings_A(self) -> dict[str, float]:
        """Where half-map FSC curves cross 0.143, whatever the verdict: names as above."""
        found = mapping(self.summary, "resolution_A") | mapping(self.summary, CROSSINGS)
        return {n: value for n, value in _numbers(found).items() if n.startswith(_OF_HALVES)}

    @cached_property
    def maps(self) -> dict[str, Map]:
        """Those of map, half1, half2 and truth that are there."""
        return {
            name: read_map(self.path / file)
            for name, file in _MAP_FILES.items()
            if (self.path / file).is_file()
        }

    @cached_property
    def maps_so_far(self) -> dict[str, Map]:
        """Name of a sub-folder ("" for the run folder) → the map of its task so far."""
        return {
            "" if folder == self.path else folder.name: read_map(folder / MAP_SO_FAR)
            for folder in self.folders
            if (folder / MAP_SO_FAR).is_file()
        }

    @cached_property
    def fsc(self) -> FSCTable | None:
        """`fsc.csv`, or None."""
        path = self.path / "fsc.csv"
        return _read_fsc(path) if path.is_file() else None

    @cached_property
    def directional_fsc(self) -> FSCTable | None:
        """`directional_fsc.csv`: lowest, mean and highest conical FSC of each shell, or None."""
        path = self.path / "directional_fsc.csv"
        return _read_fsc(path) if path.is_file() else None

    @cached_property
    def view_density(self) -> dict[str, FloatArray]:
        """Columns of `view_density.csv`, a row a HEALPix cell (nested); empty when missing."""
        path = self.path / "view_density.csv"
        found = _read_columns(path, _VIEW_DENSITY)
        if found:
            _require_healpix(path, found["cell"])
        return found

    @cached_property
    def guinier(self) -> dict[str, FloatArray]:
        """Columns of `guinier.csv`; empty when missing."""
        return _read_columns(self.path / "guinier.csv", _GUINIER)

    @cached_property
    def local_resolution(self) -> Map | None:
        """`local_resolution.mrc`, 0 outside the mask, or None."""
        path = self.path / "local_resolution.mrc"
        return read_map(path) if path.is_file() else None

    @cached_property
    def local_resolution_volumes(self) -> dict[str, FloatArray]:
        """Columns of `local_resolution.csv`; empty when missing."""
        return _read_columns(self.path / "local_resolution.csv", _LOCAL_RESOLUTION)

    @cached_property
    def logs(self) -> dict[str, list[Record]]:
        """Name of a sub-folder ("" for the run folder) → the records of its `stats.jsonl`."""
        return {
            "" if folder == self.path else folder.name: read_log(folder / "stats.jsonl")
            for folder in self.folders
            if (folder / "stats.jsonl").is_file()
        }

    @cached_property
    def conformations(self) -> ConformationFolder | None:
        """What the folder `conformations` holds, or None."""
        return read_conformation_folder(self.path / "conformations")

    @cached_property
    def examples(self) -> dict[str, FloatArray]:
        """Arrays of the first `examples.npz`: (n, d, d) real, clean, ctf and noisy images.

        Of many more real and noisy ones real_power and noisy_power (d // 2 + 1,) by shell, and
        power_images (1,), how many.
        """
        names = {"real": 3, "clean": 3, "ctf": 3, "noisy": 3}
        names |= {"real_power": 1, "noisy_power": 1, "power_images": 1}
        return self._first_arrays(EXAMPLES, names)

    @cached_property
    def progress(self) -> dict[str, FloatArray]:
        """Arrays of the first `progress.npz`: images_seen (m,), slices (m, 3, d, d)."""
        return self._first_arrays("progress.npz", {"images_seen": 1, "slices": 4})

    @property
    def folders(self) -> list[Path]:
        """Where a task of the run may have left its files: the run folder and its sub-folders.

        Those of other runs, such as `refine`, are not among them.
        """
        found = sorted(file.parent for file in self.path.glob("*/stats.jsonl"))
        return [self.path, *(each for each in found if not (each / "config.json").is_file())]

    def _first_arrays(self, file: str, dimensions: dict[str, int]) -> dict[str, FloatArray]:
        for folder in self.folders:
            if (folder / file).is_file():
                return _read_arrays(folder / file, dimensions)
        return {}


def read_run_contents(path: Path) -> RunContents:
    """Open a run folder.

    Raises:
        InputError: `path` has no `config.json`, or that cannot be understood.
    """
    if not (path / "config.json").is_file():
        raise InputError(
            f"{path} is not a run folder: it has no config.json; give the folder that a "
            "reconstruction was written to."
        )
    return RunContents(path, _read_object(path / "config.json"))


def require_finished(path: Path, *files: str) -> None:
    """Refuse a run folder that lacks what a finished run has written.

    Raises:
        InputError: one of the files is not there.
    """
    for name in files:
        if not (path / name).is_file():
            raise InputError(
                f"{path} has no {name}: its run is not finished; finish it first by running its "
                "command again."
            )


def read_log(path: Path) -> list[Record]:
    """The records of a log, if there is one; a line cut short by a killed run is left out."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def mapping(parent: Mapping[str, Any], key: str) -> dict[str, Any]:
    """An object inside a JSON object; empty when there is none."""
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def number(parent: Mapping[str, Any], key: str) -> float | None:
    """A number inside a JSON object, or None."""
    value = parent.get(key)
    return float(value) if isinstance(value, int | float) else None


def _numbers(found: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name in found if (value := number(found, name)) is not None}


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(
            f"{path} is not valid JSON ({error}); write it again by resuming the run."
        ) from error
    if not isinstance(value, dict):
        raise InputError(f"{path} does not hold a JSON object; resume the run to rewrite it.")
    return value


def _read_fsc(path: Path) -> FSCTable:
    header, values = _read_table(path, ("shell", "spatial_frequency_per_A", "resolution_A"))
    return FSCTable(values[:, 1], {name: values[:, 3 + i] for i, name in enumerate(header[3:])})


def _read_columns(path: Path, names: tuple[str, ...]) -> dict[str, FloatArray]:
    """The columns of a table, if there is one."""
    if not path.is_file():
        return {}
    header, values = _read_table(path, names)
    return {name: values[:, i] for i, name in enumerate(header)}


def _require_healpix(path: Path, cell: FloatArray) -> None:
    """Refuse rows that are not all cells of a HEALPix grid in order."""
    nside = math.isqrt(len(cell) // 12)
    is_grid = nside > 0 and nside & (nside - 1) == 0 and 12 * nside**2 == len(cell)
    if not is_grid or not np.array_equal(cell, np.arange(len(cell))):
        raise InputError(
            f"{path} has {len(cell)} rows and should have one for each of the 768 cells of a "
            "HEALPix grid, in order; resume the run to rewrite the file."
        )


def _read_table(path: Path, first: tuple[str, ...]) -> tuple[list[str], FloatArray]:
    """Header and values (rows, columns) of a CSV file."""
    with path.open(newline="") as file:
        header, *rows = [row for row in csv.reader(file) if row] or [[]]
    if tuple(header[: len(first)]) != first:
        raise InputError(
            f"{path} line 1 must begin with {','.join(first)}; resume the run to rewrite the file."
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
    return header, values


def _read_arrays(path: Path, dimensions: dict[str, int]) -> dict[str, FloatArray]:
    """The named arrays of a file, each checked for its number of dimensions."""
    arrays = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for name in dimensions.keys() & set(archive.files):
                arrays[name] = np.asarray(archive[name], dtype=np.float64)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is not a readable .npz file ({error}); delete it or resume the run."
        ) from error
    for name, array in arrays.items():
        if array.ndim != dimensions[name]:
            raise InputError(
                f"{path} array '{name}' has {array.ndim} dimensions and should have "
                f"{dimensions[name]}; delete the file or resume the run."
            )
    return arrays
