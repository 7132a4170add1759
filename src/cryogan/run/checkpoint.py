"""Checkpoints and arrays on disk, the same for every objective."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.files import atomic_path

CHECKPOINT = "checkpoint.pt"
RESULT = "result.npz"
_FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A state that a run can go on from.

    Attributes:
        objective: its name.
        state: the state's record.
        images_seen: as in the log.
        wall_s, cpu_s: time spent so far.
    """

    objective: str
    state: dict[str, Any]
    images_seen: int
    wall_s: float
    cpu_s: float


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically."""
    record = {
        "format": _FORMAT,
        "objective": checkpoint.objective,
        "state": checkpoint.state,
        "images_seen": checkpoint.images_seen,
        "wall_s": checkpoint.wall_s,
        "cpu_s": checkpoint.cpu_s,
    }
    with atomic_path(path) as temporary:
        torch.save(record, temporary)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote, on the CPU; nothing in the file is executed.

    Raises:
        InputError: the file is no checkpoint, or one of another version.
    """
    try:
        record = torch.load(path, map_location="cpu", weights_only=True)
        if record.pop("format") != _FORMAT:
            raise ValueError("another format")
        return Checkpoint(**record)
    except Exception as error:
        raise InputError(
            f"{path} is not a readable checkpoint of this version; delete it to compute that part "
            "again."
        ) from error


def save_arrays(path: Path, **arrays: Any) -> None:
    """Write arrays (NumPy or torch) atomically, as .npz."""
    values: dict[str, Any] = {
        name: array.cpu().numpy() if isinstance(array, Tensor) else array
        for name, array in arrays.items()
    }
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **values)


def load_arrays(path: Path) -> dict[str, Tensor]:
    """The arrays of an .npz file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: torch.from_numpy(archive[name]) for name in archive.files}
    except Exception as error:
        raise InputError(f"{path} cannot be read; delete it and run the command again.") from error
