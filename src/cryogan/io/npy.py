"""NumPy arrays from `.npy` files (and `.cs`, which have the same format), read without trust.

Python objects are never loaded, and what a header declares is compared with the file's real size
before anything is allocated.
"""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from cryogan.errors import InputError
from cryogan.io.packed import refuse_packed

_MAX_HEADER = 2**20  # NumPy's default, 10,000 characters, is too few for .cs files of many classes


def read_npy(
    path: Path | str, kind: str = ".npy file", remedy: str = "write it with numpy.save"
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
    declared = offset + math.prod(shape) * dtype.itemsize
    if declared != size:
        raise InputError(
            f"{path} is no whole {kind}: its header declares {declared:,} bytes but the file has "
            f"{size:,}; copy or download it again."
        )
    if size == offset:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", offset, shape, "F" if fortran_order else "C")


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]] | None:
    """Shape, order and type of an array; None where the header cannot be understood."""
    formats = np.lib.format
    try:
        version = formats.read_magic(file)
        read = {
            (1, 0): formats.read_array_header_1_0,
            (2, 0): formats.read_array_header_2_0,
        }[version]
        shape, fortran_order, dtype = read(file, max_header_size=_MAX_HEADER)
    except OSError:
        raise
    except Exception:  # the parser of headers is Python's own, which raises almost anything
        return None
    sane = dtype.itemsize > 0 and all(type(side) is int and side >= 0 for side in shape)
    return (shape, fortran_order, dtype) if sane and not dtype.hasobject else None
