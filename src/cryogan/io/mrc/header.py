"""Headers of MRC files, read and checked against the file's real size before any pixel is read."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE
from torch import Tensor

from cryogan.errors import InputError, RunError
from cryogan.io.packed import refuse_packed

HEADER_BYTES = 1024
_DTYPE_OF_MODE = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_MODES = (*_DTYPE_OF_MODE, 3, 4, 16, 101)  # the last four are recognised, not read
_IMOD_STAMP = 1146047817
_IMOD_SIGNED, _IMOD_4_BIT = 1, 16  # flags that tell what mode 0 holds
LABEL = b"cryogan: the pixel size is known"  # so that 1 Å counts


@dataclass(frozen=True)
class MrcHeader:
    """What has to be known of an MRC file to read it.

    Attributes:
        path: the file.
        shape: (sections, rows, columns).
        dtype: NumPy type of a pixel, byte order included.
        offset: where the pixels start, in bytes.
        axes: (section, row, column) as 1 = x, 2 = y, 3 = z; (3, 2, 1) in nearly all files.
        voxel_size_A: (x, y, z); 0 where the header does not say, or says NaN or infinity.
        is_ours: whether cryogan wrote it, which knows the pixel size of what it writes.
        stamp: size in bytes and time of the last change (ns) when the header was read.
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int
    axes: tuple[int, int, int]
    voxel_size_A: tuple[float, float, float]
    is_ours: bool = False
    stamp: tuple[int, int] | None = None

    def map_pixels(self) -> np.ndarray[Any, np.dtype[Any]]:
        """The (sections, rows, columns) array of the file, memory-mapped read-only."""
        return np.memmap(self.path, self.dtype, "r", self.offset, self.shape)

    def read_sections(self, numbers: Tensor) -> np.ndarray[Any, np.dtype[Any]]:
        """The sections of `numbers` ((n,) int64, from 0), as they are: (n, rows, columns).

        Plain reads: the pages of a mapped file would count as memory held, and a file that is
        cut short while it is mapped kills the process.

        Raises:
            InputError: the file has gone, has been cut short or written to since its header was
                read.
        """
        pixels = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        try:
            with self.path.open("rb") as file:
                for section, number in zip(pixels, numbers.tolist(), strict=True):
                    file.seek(self.offset + number * section.nbytes)
                    if file.readinto(section) < section.nbytes:
                        raise InputError(
                            f"{self.path} has been cut short: its section {number + 1} is not "
                            "there any more; copy or download it again."
                        )
                if self.stamp not in (None, _stamp(file)):
                    raise RunError(
                        f"{self.path} has been written to since it was opened; run the command "
                        "again when nothing writes to it any more."
                    )
        except OSError as error:
            raise InputError(
                f"Cannot read {self.path}: {error.strerror}; check the path."
            ) from error
        return pixels

    @property
    def known_pixel_size_A(self) -> float | None:
        """Pixel size along x, or None where the header says nothing.

        0 means "not set"; exactly 1 Å is what many programs write when they do not know.
        """
        size = self.voxel_size_A[0]
        return None if size == 0.0 or (size == 1.0 and not self.is_ours) else size


def read_header(path: Path | str) -> MrcHeader:
    """Read the header of an MRC file and compare what it declares with the file's real size.

    Raises:
        InputError: the file is missing, is not MRC, is compressed or a Git LFS pointer, holds
            complex, colour or 4-bit pixels, or is shorter than its header says.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            raw = file.read(HEADER_BYTES)
            stamp = size, _ = _stamp(file)
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}; check the path.") from error
    refuse_packed(path, raw)
    fields = _decode(raw, size)
    if fields is None:
        raise InputError(f"{path} is not an MRC file; give a .mrc or .mrcs file.")
    mode = int(fields["mode"])
    dtype = _pixel_dtype(fields)
    if dtype is None:
        raise InputError(
            f"{path} holds complex, colour or 4-bit pixels (MRC mode {mode}); convert it to mode 2."
        )
    shape = _shape(fields)
    offset = HEADER_BYTES + int(fields["nsymbt"])
    declared = _declared_bytes(fields)
    if size < declared:
        raise InputError(
            f"{path} is truncated: its header declares {shape[0]} sections of {shape[1]} x "
            f"{shape[2]} pixels ({declared:,} bytes) but the file has {size:,} bytes; copy or "
            "download it again."
        )
    axes = (int(fields["maps"]), int(fields["mapr"]), int(fields["mapc"]))
    if axes == (0, 0, 0):
        axes = (3, 2, 1)
    if sorted(axes) != [1, 2, 3]:
        raise InputError(
            f"{path} has impossible axis numbers {axes[::-1]} in its header (MAPC, MAPR, MAPS); "
            "write it again as an MRC2014 file."
        )
    x, y, z = (_voxel_size_A(fields, axis) for axis in "xyz")
    is_ours = bool(fields["label"][0] == LABEL)
    return MrcHeader(path, shape, dtype, offset, axes, (x, y, z), is_ours, stamp)


def _stamp(file: BinaryIO) -> tuple[int, int]:
    """Size in bytes, and time of the last change in nanoseconds."""
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _voxel_size_A(fields: np.void, axis: str) -> float:
    """Voxel edge along x, y or z; 0 where the header has none."""
    length, samples = float(fields["cella"][axis]), int(fields["m" + axis])
    return length / samples if np.isfinite(length) and samples > 0 else 0.0


def _decode(raw: bytes, size: int) -> np.void | None:
    """The header in the byte order that makes sense (machine stamps are often wrong).

    Mode 0 reads alike in both orders: the one counts that the file is long enough for.
    """
    if len(raw) < HEADER_BYTES:
        return None
    both = (np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order))[0] for order in "<>")
    sensible: list[np.void] = [
        fields
        for fields in both
        if fields["mode"] in _MODES and min(_shape(fields)) > 0 and fields["nsymbt"] >= 0
    ]
    whole = [fields for fields in sensible if _declared_bytes(fields) <= size]
    return next(iter(whole + sensible), None)


def _shape(fields: np.void) -> tuple[int, int, int]:
    return int(fields["nz"]), int(fields["ny"]), int(fields["nx"])


def _declared_bytes(fields: np.void) -> int:
    dtype = _pixel_dtype(fields)
    itemsize = 1 if dtype is None else dtype.itemsize
    return HEADER_BYTES + int(fields["nsymbt"]) + math.prod(_shape(fields)) * itemsize


def _pixel_dtype(fields: np.void) -> np.dtype[Any] | None:
    """Type of a pixel, None if it cannot be read.

    Bytes are signed (MRC2014), except in files that IMOD wrote and whose flags do not say so.
    """
    mode, order = int(fields["mode"]), fields.dtype["mode"].byteorder
    stamp, flags = np.frombuffer(
        fields["extra2"].tobytes()[40:48], np.dtype("i4").newbyteorder(order)
    )
    if mode == 0 and stamp == _IMOD_STAMP:
        if flags & _IMOD_4_BIT:
            return None
        return np.dtype("i1" if flags & _IMOD_SIGNED else "u1")
    return np.dtype(_DTYPE_OF_MODE[mode]).newbyteorder(order) if mode in _DTYPE_OF_MODE else None
