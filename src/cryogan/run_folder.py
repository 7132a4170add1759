"""The run folder: whose it is, its log, its conformations, what a known structure adds to it."""

import csv
import json
import math
import os
import platform
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import cryogan
from cryogan.errors import InputError
from cryogan.evaluation.alignment import apply_alignment
from cryogan.evaluation.comparison import Comparison
from cryogan.evaluation.fsc import write_fsc_csv
from cryogan.evaluation.series import Series
from cryogan.files import write_text
from cryogan.io.mrc import read_map, write_map
from cryogan.likelihood.config import AscentConfig
from cryogan.simulation.table import read_columns
from cryogan.training.config import TrainingConfig


def open_run_folder(
    folder: Path,
    particles: dict[str, Any],
    config: TrainingConfig | AscentConfig,
    seed: int,
    device: str,
) -> None:
    """Make the run folder, or check that it holds this very run, which is then resumed.

    Raises:
        InputError: the folder cannot be made or written, or holds something else.
    """
    identity = {"particles": particles, "config": asdict(config), "seed": seed}
    identity = json.loads(json.dumps(identity))
    path = folder / "config.json"
    if path.is_file():
        try:
            found = json.loads(path.read_text())
        except ValueError:
            found = {}
        for key, value in identity.items():
            if found.get(key) != value:
                raise InputError(
                    f"{folder} already holds another run ({_difference(found.get(key), value)} "
                    "differs); give another output folder, or the settings in its config.json "
                    "to resume it."
                )
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(
            f"{folder} is not empty and holds no cryogan run; give another output folder."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"Cannot make the output folder {folder}: {error.strerror}; choose a place that you "
            "may write to."
        ) from error
    about = {
        "cryogan_version": cryogan.__version__,
        "torch_version": torch.__version__,
        "python_version": platform.python_version(),
        "device": _device_name(device),
        "command": " ".join(sys.argv),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_text(path, json.dumps(about | identity, indent=2))


def _difference(found: Any, wanted: Any) -> str:
    if isinstance(found, dict) and isinstance(wanted, dict):
        names = [name for name in wanted if found.get(name) != wanted[name]]
        return names[0] if names else "a setting"
    return "the seed"


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()}, {os.cpu_count()} cores)"


def last_record(folder: Path) -> dict[str, Any] | None:
    """The newest whole line of a run's log, or None."""
    path = folder / "stats.jsonl"
    if not path.is_file():
        return None
    for line in reversed(path.read_text().splitlines()):
        try:
            record: dict[str, Any] = json.loads(line)
        except ValueError:
            continue
        return record
    return None


def forget_after(log_path: Path, images_seen: int) -> None:
    """Drop log records that lie after the checkpoint: they are about to be made again."""
    if not log_path.is_file():
        return
    kept = []
    for line in log_path.read_text().splitlines():
        try:
            if json.loads(line)["images_seen"] <= images_seen:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            continue
    write_text(log_path, "".join(kept))


def add_truth(folder: Path, comparison: Comparison) -> None:
    """Complete a run folder with a comparison of its `map.mrc` with a known structure.

    Adds columns to `fsc.csv`, resolutions to `summary.json`, and `truth_aligned.mrc`, the known
    structure in the frame of the map.
    """
    pixel_size_A = comparison.pixel_size_A
    truth = apply_alignment(comparison.truth, comparison.alignment.inverse(), pixel_size_A)
    write_map(folder / "truth_aligned.mrc", truth, pixel_size_A)
    curves = _read_curves(folder / "fsc.csv")
    curves |= {"truth": comparison.fsc, "truth_masked": comparison.fsc_masked}
    write_fsc_csv(folder / "fsc.csv", pixel_size_A, curves)
    summary = json.loads((folder / "summary.json").read_text())
    for threshold in (0.5, 0.143):
        for suffix, masked in (("", False), ("_masked", True)):
            name = f"truth_{threshold}{suffix}"
            summary["resolution_A"][name] = comparison.resolution_A(threshold, masked=masked)
    write_text(folder / "summary.json", json.dumps(summary, indent=2))


def _read_curves(path: Path) -> dict[str, Tensor]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name.startswith("half_map")]
    return {name: torch.tensor([float(row[name]) for row in rows]) for name in names}


def conformations_folder(path: Path) -> Path:
    """A run's folder of conformations; a folder that is no run is itself a folder of maps.

    Raises:
        InputError: a run without conformations, or no folder.
    """
    inside = path / "conformations"
    if inside.is_dir():
        return inside
    if not path.is_dir() or (path / "config.json").is_file():
        raise InputError(
            f"{path} holds no conformations; give the folder of a heterogeneous run, a folder of "
            "maps, or --truth to judge one map."
        )
    return path


def read_conformations(folder: Path, pixel_size_A: float | None = None) -> Series:
    """The maps that `latents.csv` lists, with latents z0, z1 ... and weights.

    Without `latents.csv` all maps (.mrc) of the folder by name, of equal weight, without latents.

    Raises:
        InputError: there is no map, one cannot be read, boxes or pixel sizes differ, or a latent
            or weight is not a number.
    """
    table = folder / "latents.csv"
    if not table.is_file():
        names = sorted(path.name for path in folder.glob("*.mrc"))
        if not names:
            raise InputError(f"{folder} holds neither latents.csv nor maps (.mrc).")
        return _series(
            folder, names, torch.ones(len(names)), torch.zeros(len(names), 0), pixel_size_A
        )
    axes = tuple(name for name in _header(table) if name[:1] == "z" and name[1:].isdecimal())
    *latent, weight = read_columns(table, (*axes, "weight"))
    names = _strings(table, "volume")
    latents = torch.stack(latent, dim=-1) if axes else torch.zeros(len(names), 0)
    return _series(folder, names, weight, latents, pixel_size_A, table)


def read_true_conformations(folder: Path) -> Series:
    """The true states that `cryogan simulate` left in its folder `truth`.

    Weights are the numbers of images that show each state, coordinates its latents.

    Raises:
        InputError: `states.csv` or a map is missing or cannot be read.
    """
    table = folder / "states.csv"
    if not table.is_file():
        raise InputError(f"{folder} holds no states.csv; give the folder truth of a simulation.")
    axes = tuple(name for name in _header(table) if name.startswith("latent_"))
    *latent, images = read_columns(table, (*axes, "images"))
    names = _strings(table, "map")
    latents = torch.stack(latent, dim=-1) if axes else torch.zeros(len(names), 0)
    return _series(folder, names, images, latents, None, table)


def _series(
    folder: Path,
    names: list[str],
    weight: Tensor,
    coordinate: Tensor,
    pixel_size_A: float | None,
    table: Path | None = None,
) -> Series:
    if bool((weight < 0).any()) or not float(weight.sum()) > 0:
        raise InputError(
            f"The weights in {table} are not a distribution; make them 0 or more, not all 0."
        )
    maps = [read_map(folder / name, pixel_size_A) for name in names]
    for name, map_ in zip(names, maps, strict=True):
        same_grid = map_.volume.shape == maps[0].volume.shape and math.isclose(
            map_.pixel_size_A, maps[0].pixel_size_A, rel_tol=1e-3
        )
        if not same_grid:
            raise InputError(
                f"{folder / name} has another box or pixel size than {names[0]}; give maps of "
                "one series."
            )
    return Series(
        names,
        torch.stack([map_.volume for map_ in maps]),
        maps[0].pixel_size_A,
        (weight / weight.sum()).double(),
        coordinate.double(),
    )


def _header(table: Path) -> list[str]:
    with table.open(newline="", errors="replace") as file:
        return next(csv.reader(file), [])


def _strings(table: Path, column: str) -> list[str]:
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if any(not row.get(column) for row in rows):
        raise InputError(f"{table} has no {column} in some row; name the file of each map.")
    return [row[column] for row in rows]
