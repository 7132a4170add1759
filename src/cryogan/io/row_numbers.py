"""Which particles of a set to use: row numbers or masks from text, NumPy or pickle files."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.io.npy import read_npy

_Array = np.ndarray[Any, np.dtype[Any]]


def read_row_numbers(path: Path | str) -> Tensor:
    """(n,) int64 row numbers from 0, or a (n,) bool mask over all rows.

    A .npy file, a .pkl file as cryoDRGN writes it (an array or a list), or text with one number a
    line. A list of nothing but 0 and 1 that repeats one of them is a mask.

    Raises:
        InputError: the file cannot be read, holds something else than whole numbers, or names a
            row twice or one below 0.
    """
    path = Path(path)
    try:
        if path.suffix == ".npy":
            numbers = read_npy(path)
        elif path.suffix in (".pkl", ".pickle"):
            numbers = _unpickled(path)
        else:
            numbers = _read_text(path)
    except InputError:
        raise
    except (OSError, ValueError, EOFError, MemoryError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(
            f"Cannot read particle numbers from {path} ({reason}); give a .npy or .pkl file or a "
            "text file with a row number, counted from 0, on each line."
        ) from error
    if numbers.size == 0:
        raise InputError(
            f"{path} is empty: it holds no row number; give one or more, counted from 0."
        )
    is_list = numbers.ndim == 1 and numbers.size > 0 and numbers.dtype.kind in "biuf"
    if (
        not is_list
        or not ((numbers == np.round(numbers)) & (numbers < 2**53) & (numbers > -(2**53))).all()
    ):
        raise InputError(
            f"{path} must hold a list of whole row numbers, counted from 0, or a mask of 0 and 1."
        )
    values, counts = np.unique(numbers, return_counts=True)
    repeated = bool((counts > 1).any())
    if numbers.dtype.kind == "b" or (repeated and np.isin(values, (0, 1)).all()):
        return torch.from_numpy(numbers.astype(bool))
    if repeated:
        raise InputError(
            f"{path} names row {values[counts > 1][0]:.0f} more than once, and the two half-sets "
            "must not share an image; give every row once."
        )
    if values[0] < 0:
        raise InputError(f"{path} names row {values[0]:.0f}; give row numbers counted from 0.")
    return torch.from_numpy(numbers.astype(np.int64))


def _read_text(path: Path) -> _Array:
    """Numbers of a text file: one on each line, or all on one; # begins a comment.

    Raises:
        ValueError: a line holds something else.
    """
    lines = [
        (number, line.partition("#")[0].split())
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1)
    ]
    lines = [(number, words) for number, words in lines if words]
    for number, words in lines:
        if len(words) > 1 and len(lines) > 1:
            raise ValueError(f"line {number} holds {len(words)} values")
        for word in words:
            try:
                float(word)
            except ValueError:
                raise ValueError(f"line {number} holds '{word}', which is no number") from None
    return np.array([float(word) for _, words in lines for word in words])


def _unpickled(path: Path) -> _Array:
    """The array, or list of whole numbers, of a pickle; nothing in it is executed."""
    try:
        found = _NumbersOnly(io.BytesIO(path.read_bytes())).load()
    except (OSError, MemoryError):
        raise
    except Exception as error:  # whatever a broken pickle raises
        raise ValueError(
            str(error) if isinstance(error, pickle.UnpicklingError) else "it is no whole pickle"
        ) from error
    if isinstance(found, list | tuple) and all(isinstance(n, int | np.integer) for n in found):
        found = np.array(found)
    if not isinstance(found, np.ndarray):
        raise ValueError(f"it holds a {type(found).__name__}, not an array or list of numbers")
    return found


class _NumbersOnly(pickle.Unpickler):
    """Makes NumPy arrays of numbers, Python's own numbers and lists, and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        known = {
            "_reconstruct": _empty,
            "_frombuffer": _from_buffer,
            "scalar": _scalar,
            "dtype": _number_type,
            "ndarray": "ndarray",  # a name, which cannot be called
        }
        if module.partition(".")[0] == "numpy" and name in known:
            return known[name]
        if (module, name) == ("_codecs", "encode"):  # bytes in pickles of protocol 2
            return _latin1
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which is not a number or array")


def _empty(*_: Any) -> _Array:
    return np.empty(0, dtype=np.int8)


def _from_buffer(buffer: bytes, dtype: Any, shape: Any, order: Any = "C") -> _Array:
    return np.frombuffer(buffer, dtype).reshape(shape, order=order)


def _scalar(dtype: Any, raw: bytes) -> Any:
    return np.frombuffer(raw, dtype)[0]


def _number_type(kind: str, *_: Any) -> np.dtype[Any]:
    dtype = np.dtype(kind, copy=True)
    if dtype.kind not in "biuf":
        raise pickle.UnpicklingError(f"it holds an array of {kind}, not of numbers")
    return np.dtype(dtype)


def _latin1(text: str, encoding: str) -> bytes:
    return text.encode("latin1")
