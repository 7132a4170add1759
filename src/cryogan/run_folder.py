"""The run folder: whose it is, its log, and what a known structure adds to it."""

import csv
import json
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
from cryogan.files import write_text
from cryogan.io.mrc import write_map
from cryogan.training.config import TrainingConfig


def open_run_folder(
    folder: Path, particles: dict[str, Any], config: TrainingConfig, seed: int, device: str
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
