"""Checkpoints and arrays on disk, the same for every objective."""

import io
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
FORMAT = 1
"""Of checkpoints and of `config.json`: larger where what is in them can no longer be used."""
_FORMAT_OF_ARRAYS = 1
_FORMAT_NAME = "format"


@dataclass(frozen=True)
class Checkpoint:
    """A state that a run can go on from.

    Attributes:
        objective: its name.
        state: the state's record.
        images_seen: as in the log.
        wall_s, cpu_s: time spent so far.
        retries: how often its numbers had gone wrong until then (`run.watchdog`).
    """

    objective: str
    state: dict[str, Any]
    images_seen: int
    wall_s: float
    cpu_s: float
    retries: int = 0


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically."""
    buffer = io.BytesIO()  # torch does not say what is wrong with a disk
    torch.save({_FORMAT_NAME: FORMAT} | vars(checkpoint), buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_checkpoint(path: Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote, on the CPU; nothing in the file is executed.

    Raises:
        InputError: the file is no checkpoint, or one of another version.
    """
    try:
        record = torch.load(path, map_location="cpu", weights_only=True)
        if record.pop(_FORMAT_NAME) != FORMAT:
            raise ValueError("another format")
        found = Checkpoint(**record)
        kinds = {"objective": str, "state": dict, "images_seen": int, "wall_s": float}
        kinds |= {"cpu_s": float, "retries": int}
        if not all(isinstance(getattr(found, name), kind) for name, kind in kinds.items()):
            raise ValueError("other values")
    except Exception as error:
        raise InputError(
            f"{path} is not a readable checkpoint of this version; delete it to compute that part "
            "again."
        ) from error
    return found


def save_arrays(path: Path, **arrays: Any) -> None:
    """Write arrays (NumPy or torch) atomically, as .npz, with a format number."""
    values: dict[str, Any] = {_FORMAT_NAME: np.array(_FORMAT_OF_ARRAYS)}
    values |= {
        name: array.cpu().numpy() if isinstance(array, Tensor) else array
        for name, array in arrays.items()
    }
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **values)


def load_arrays(path: Path) -> dict[str, Tensor]:
    """The arrays of an .npz file.

    Raises:
        InputError: it cannot be read, or is of another version.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = {name: torch.from_numpy(archive[name]) for name in archive.files}
        if int(found.pop(_FORMAT_NAME, torch.tensor(1))) != _FORMAT_OF_ARRAYS:
            raise ValueError("another format")
    except Exception as error:
        raise InputError(
            f"{path} cannot be read, or is of another version; delete it and run the command again."
        ) from error
    return found
