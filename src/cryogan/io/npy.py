"""NumPy arrays from untrusted `.npy` files (and `.cs`, which have the same format).

Python objects are never loaded, and what a header declares is compared with the file's real size
before anything is allocated.
"""

import ast
import math
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cryogan.errors import InputError
from cryogan.io.packed import refuse_packed

_MAX_HEADER = 2**18  # bytes; a .cs file of a hundred classes needs a third of them
_LENGTH_BYTES = {b"\x93NUMPY\x01\0": 2, b"\x93NUMPY\x02\0": 4, b"\x93NUMPY\x03\0": 4}


def read_npy(
    path: Path | str, kind: str = ".npy file", remedy: str = "write numbers with numpy.save"
) -> np.ndarray[Any, np.dtype[Any]]:
    """The array of a file, memory-mapped read-only.

    Args:
        path: the file.
        kind, remedy: what it should be and what to do where it is not, for messages.

    Raises:
        InputError: the file cannot be read, is packed, has no NumPy header, holds Python objects,
            or is shorter or longer than its header says.
    """
    try:
        with Path(path).open("rb") as file:
            refuse_packed(path, file.read(40))
            file.seek(0)
            header = _header(file)
            offset, size = file.tell(), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InputError(
            f"Cannot read {path}: {error.strerror or error}; check the file's name."
        ) from error
    if header is None:
        raise InputError(f"{path} is no whole {kind}; {remedy}.")
    shape, fortran_order, dtype = header
    if dtype.hasobject:
        raise InputError(f"{path} holds Python objects, which are never loaded; {remedy}.")
    declared = offset + math.prod(shape) * dtype.itemsize
    if declared != size:
        raise InputError(
            f"{path} is no whole {kind}: its header declares {declared:,} bytes but the file has "
            f"{size:,}; copy or download it again."
        )
    if size == offset:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", offset, shape, "F" if fortran_order else "C")


def _header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]] | None:
    """Shape, order and type of an array; None where the header cannot be understood.

    NumPy's own reader takes minutes for some broken headers, and raises almost anything.
    """
    magic = file.read(8)
    length_bytes = _LENGTH_BYTES.get(magic)
    if length_bytes is None:
        return None
    length = int.from_bytes(file.read(length_bytes), "little")
    if length > _MAX_HEADER:
        return None
    raw = file.read(length)
    try:
        found = ast.literal_eval(raw.decode("utf-8" if magic[6] == 3 else "latin1").strip())
        shape, fortran_order = found["shape"], found["fortran_order"]
        dtype = np.lib.format.descr_to_dtype(found["descr"])
    except Exception:  # there is hardly one that these do not raise
        return None
    sane = (
        type(shape) is tuple
        and all(type(side) is int and side >= 0 for side in shape)
        and type(fortran_order) is bool
        and dtype.itemsize > 0
    )
    return (shape, fortran_order, dtype) if sane else None
