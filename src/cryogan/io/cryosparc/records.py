"""Records of a .cs file: one a particle, with named fields."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.files import atomic_path
from cryogan.io.npy import read_npy

Records = np.ndarray[Any, np.dtype[np.void]]
_LARGEST_NUMBER = 1e30


def save_records(path: Path | str, records: Records) -> None:
    """Write a .cs file, atomically.

    Raises:
        InputError: it cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, records)


def read_records(path: Path | str) -> Records:
    """The records of a .cs file, memory-mapped: one a particle, at least one.

    Raises:
        InputError: the file cannot be read, is not whole, or is no array of named fields.
    """
    records: Records = read_npy(
        path, "cryoSPARC particle file", "give a .cs file as cryoSPARC writes it"
    )
    if records.dtype.names is None or records.ndim != 1:
        raise InputError(
            f"{path} is a NumPy array without cryoSPARC's named fields; give a .cs particle file."
        )
    if len(records) == 0:
        raise InputError(f"{path} holds no particle; give a .cs file with at least one.")
    return records


def fields_of(records: Records) -> tuple[str, ...]:
    return records.dtype.names or ()


def field_numbers(
    records: Records,
    field: str,
    path: Path | str,
    components: int | None = None,
    *,
    default: float | None = None,
) -> Tensor:
    """A field as float64, (n,) or (n, components); `default` where the file does not have it."""
    if field not in fields_of(records):
        if default is not None:
            return torch.full((len(records),), default, dtype=torch.float64)
        raise InputError(
            f"{path} has no field {field}; give a .cs file that has it (in an exported job, the "
            "particles file rather than the passthrough file, or the reverse)."
        )
    shape = (len(records),) if components is None else (len(records), components)
    values = records[field]
    if values.shape != shape or values.dtype.kind not in "fiu":
        raise InputError(
            f"{field} in {path} is not {components or 1} number{'s' * (components is not None)} a "
            "particle; give a .cs file as cryoSPARC writes it."
        )
    numbers = torch.from_numpy(values.astype(np.float64))
    bad = ~(numbers.abs() < _LARGEST_NUMBER).reshape(len(records), -1).all(1)
    if bad.any():
        raise InputError(
            f"{field} of particle {int(bad.int().argmax()) + 1} of {path} is not a finite number "
            f"below {_LARGEST_NUMBER:g}; correct or remove the particle."
        )
    return numbers


def field_texts(records: Records, field: str, path: Path) -> list[str]:
    """A field of texts, as n of them."""
    values = records[field]
    if values.dtype.kind not in "SU" or values.ndim != 1:
        raise InputError(f"{field} in {path} is not text; give a .cs file as cryoSPARC writes it.")
    texts: list[Any] = values.tolist()
    return [
        text.decode(errors="surrogateescape") if isinstance(text, bytes) else text for text in texts
    ]
