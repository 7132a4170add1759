"""MRC files (MRC2014, Cheng et al., J. Struct. Biol. 192, 2015): maps and image stacks.

Headers are read and checked before any pixel is; stacks are read image by image. Arrays are
indexed [z, y, x] (maps) and [image, y, x] (stacks). Everything written is mode 2 (float32).
"""

import math
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from mrcfile.dtypes import HEADER_DTYPE
from torch import Tensor

from cryogan.errors import InputError
from cryogan.files import atomic_path
from cryogan.io.packed import refuse_packed
from cryogan.io.ranges import require_possible

_HEADER_BYTES = 1024
_DTYPE_OF_MODE = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_MODES = (*_DTYPE_OF_MODE, 3, 4, 16, 101)  # the last four are recognised, not read
_IMOD_STAMP = 1146047817
_IMOD_SIGNED, _IMOD_4_BIT = 1, 16  # flags that tell what mode 0 holds
_LABEL = b"cryogan: the pixel size is known"  # so that 1 Å counts
PIXEL_SIZE_TOLERANCE = 0.01  # two pixel sizes that differ by more contradict one another


@dataclass(frozen=True)
class Map:
    """A density map.

    Attributes:
        volume: (D, D, D) float32, axes z, y, x.
        pixel_size_A: edge of a voxel.
    """

    volume: Tensor
    pixel_size_A: float


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
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int
    axes: tuple[int, int, int]
    voxel_size_A: tuple[float, float, float]
    is_ours: bool = False

    def map_pixels(self) -> np.ndarray[Any, np.dtype[Any]]:
        """The (sections, rows, columns) array of the file, memory-mapped read-only."""
        return np.memmap(self.path, self.dtype, "r", self.offset, self.shape)

    def read_sections(self, numbers: Tensor) -> np.ndarray[Any, np.dtype[Any]]:
        """The sections of `numbers` ((n,) int64, from 0), as they are: (n, rows, columns).

        Plain reads: the pages of a mapped file would count as memory held, and a file that is
        cut short while it is mapped kills the process.

        Raises:
            InputError: the file has gone or has been cut short since its header was read.
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
            raw = file.read(_HEADER_BYTES)
            size = os.fstat(file.fileno()).st_size
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
    offset = _HEADER_BYTES + int(fields["nsymbt"])
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
    is_ours = bool(fields["label"][0] == _LABEL)
    return MrcHeader(path, shape, dtype, offset, axes, (x, y, z), is_ours)


def _voxel_size_A(fields: np.void, axis: str) -> float:
    """Voxel edge along x, y or z; 0 where the header has none."""
    length, samples = float(fields["cella"][axis]), int(fields["m" + axis])
    return length / samples if np.isfinite(length) and samples > 0 else 0.0


def _decode(raw: bytes, size: int) -> np.void | None:
    """The header in the byte order that makes sense (machine stamps are often wrong).

    Mode 0 reads alike in both orders: the one counts that the file is long enough for.
    """
    if len(raw) < _HEADER_BYTES:
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
    return _HEADER_BYTES + int(fields["nsymbt"]) + math.prod(_shape(fields)) * itemsize


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


def read_map(path: Path | str, pixel_size_A: float | None = None) -> Map:
    """Read a cubic map; axes are brought into the order z, y, x.

    Args:
        path: an MRC (CCP4) file.
        pixel_size_A: goes before that of the header; needed where the header has none, 0 or 1 Å.

    Raises:
        InputError: besides `read_header`'s reasons, the map is not cubic, has unequal voxel
            edges, NaN or infinite voxels, or no pixel size that is possible.
    """
    header = read_header(path)
    size = header.shape[0]
    if header.shape != (size, size, size):
        raise InputError(
            f"{path} is not a cubic map: it has {' x '.join(map(str, header.shape[::-1]))} "
            "voxels; crop or pad it to a cube."
        )
    voxel = header.voxel_size_A
    if max(voxel) - min(voxel) > 1e-3 * max(map(abs, voxel)):
        raise InputError(
            f"{path} has voxels of unequal edges ({voxel[0]:.4g} x {voxel[1]:.4g} x "
            f"{voxel[2]:.4g} Å) in its header; resample it to cubic voxels or correct the header."
        )
    if pixel_size_A is None:
        pixel_size_A = header.known_pixel_size_A
    if pixel_size_A is None:
        raise InputError(
            f"{path} has no pixel size in its header, where {voxel[0]:g} Å means that it is not "
            "set; give it with --apix, or write it into the header."
        )
    require_possible("pixel_size_A", pixel_size_A, f"The pixel size of {path}")
    pixels = header.map_pixels().transpose([header.axes.index(axis) for axis in (3, 2, 1)])
    volume = torch.from_numpy(pixels.astype(np.float32, order="C"))
    if not bool(torch.isfinite(volume).all()):
        raise InputError(f"{path} holds NaN or infinite voxels; repair the map first.")
    return Map(volume, float(pixel_size_A))


def contradict(first_A: float, second_A: float) -> bool:
    """Whether two pixel sizes differ by more than 1 %."""
    return abs(first_A - second_A) > PIXEL_SIZE_TOLERANCE * max(abs(first_A), abs(second_A))


def write_map(path: Path | str, volume: Tensor, pixel_size_A: float) -> None:
    """Write a (D, D, D) map (axes z, y, x) atomically; its origin fields are zero.

    Raises:
        InputError: the file cannot be written.
    """
    values = _pixels(volume)
    statistics = _Statistics()
    statistics.add(values)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(_header(values.shape, pixel_size_A, statistics, is_volume=True))
        file.write(values.tobytes())


def write_stack(path: Path | str, images: Tensor, pixel_size_A: float) -> None:
    """Write (n, D, D) images as a stack, atomically.

    Raises:
        InputError: the file cannot be written.
    """
    with StackWriter(path, images.shape[0], images.shape[-1], pixel_size_A) as writer:
        writer.append(images)


class StackWriter:
    """Context manager that streams n images into a stack; the file appears only when whole.

    Example:
        with StackWriter("particles.mrcs", n, box_size, pixel_size_A) as writer:
            for batch in batches:
                writer.append(batch)

    Raises:
        InputError: the file cannot be written (on entering).
        ValueError: another number of images than n was appended (on leaving).
    """

    def __init__(self, path: Path | str, n: int, box_size: int, pixel_size_A: float) -> None:
        self._path = Path(path)
        self._shape = (n, box_size, box_size)
        self._pixel_size_A = pixel_size_A
        self._statistics = _Statistics()
        self._count = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self._path))
            self._file = stack.enter_context(temporary.open("wb"))
            self._file.write(bytes(_HEADER_BYTES))
            stack.push(self._finish)
            self._exit = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exit.__exit__(kind, error, traceback)

    def append(self, images: Tensor) -> None:
        """Append (m, D, D) images."""
        values = _pixels(images)
        if values.shape[1:] != self._shape[1:]:
            raise ValueError(f"images of {values.shape[1:]}, expected {self._shape[1:]}")
        self._statistics.add(values)
        self._count += values.shape[0]
        self._file.write(values.tobytes())

    def _finish(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            return
        if self._count != self._shape[0]:
            raise ValueError(f"{self._count} images were appended, {self._shape[0]} announced")
        self._file.seek(0)
        self._file.write(
            _header(self._shape, self._pixel_size_A, self._statistics, is_volume=False)
        )


def _pixels(array: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    values: np.ndarray[Any, np.dtype[np.float32]] = array.detach().cpu().numpy().astype("<f4")
    return values


class _Statistics:
    """Running minimum, maximum, mean and standard deviation, for the header."""

    def __init__(self) -> None:
        self._minimum, self._maximum = np.inf, -np.inf
        self._count, self._sum, self._sum_of_squares = 0, 0.0, 0.0

    def add(self, values: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        self._minimum = min(self._minimum, float(values.min(initial=np.inf)))
        self._maximum = max(self._maximum, float(values.max(initial=-np.inf)))
        self._count += values.size
        self._sum += float(values.sum(dtype=np.float64))
        self._sum_of_squares += float(np.square(values, dtype=np.float64).sum())

    def fill(self, header: np.void) -> None:
        mean = self._sum / max(self._count, 1)
        variance = self._sum_of_squares / max(self._count, 1) - mean**2
        header["dmin"], header["dmax"], header["dmean"] = self._minimum, self._maximum, mean
        header["rms"] = np.sqrt(max(variance, 0.0))


def _header(
    shape: tuple[int, ...], pixel_size_A: float, statistics: _Statistics, *, is_volume: bool
) -> bytes:
    header = np.zeros(1, HEADER_DTYPE.newbyteorder("<"))[0]
    header["nz"], header["ny"], header["nx"] = shape
    header["mode"] = 2
    header["mx"], header["my"] = header["nx"], header["ny"]
    header["mz"] = header["nz"] if is_volume else 1  # a stack's unit cell is one image deep
    for axis in "xyz":
        header["cella"][axis] = pixel_size_A * header["m" + axis]
    header["cellb"] = (90.0, 90.0, 90.0)
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["ispg"] = 1 if is_volume else 0
    header["map"] = b"MAP "
    header["machst"] = (0x44, 0x44, 0, 0)
    header["nversion"] = 20140
    header["nlabl"], header["label"][0] = 1, _LABEL
    statistics.fill(header)
    return bytes(header.tobytes())


@dataclass(frozen=True, eq=False)
class MrcStack:
    """Images in one or several stacks on disk, read when asked for: an `ImageStack`.

    Attributes:
        files: the checked headers of the stacks.
        file_id: (n,) int64, which of `files` image i is in.
        slice_index: (n,) int64, its number there, from 0.
        sign: images are multiplied by it on reading (-1 turns dark protein bright).

    Boxes may differ among files (`io.mixed`): then there is no `box_size`, and images that are
    read together must be of one.

    Raises:
        InputError: images are not square.
    """

    files: Sequence[MrcHeader]
    file_id: Tensor
    slice_index: Tensor
    sign: float = 1.0

    def __post_init__(self) -> None:
        for header in self.files:
            _, rows, columns = header.shape
            if rows != columns:
                raise InputError(
                    f"{header.path} holds images of {columns} x {rows} pixels; extract the "
                    "particles again in square boxes."
                )
            if header.axes != (3, 2, 1):
                raise InputError(
                    f"{header.path} stores its axes in another order than x, y, image; write "
                    "it again as a plain stack."
                )

    @classmethod
    def open(cls, *paths: Path | str, sign: float = 1.0) -> Self:
        """All images of the given stacks, in order.

        Raises:
            InputError: as `read_header` and the constructor.
        """
        files = [read_header(path) for path in paths]
        counts = torch.tensor([header.shape[0] for header in files])
        stack = cls(
            files,
            torch.repeat_interleave(torch.arange(len(files)), counts),
            torch.cat([torch.arange(int(count)) for count in counts]),
            sign,
        )
        _ = stack.box_size
        return stack

    @cached_property
    def box_size(self) -> int:
        first = self.files[0]
        for header in self.files:
            if header.shape[2] != first.shape[2]:
                raise InputError(
                    f"{header.path} holds images of box {header.shape[2]} but {first.path} of box "
                    f"{first.shape[2]}; extract all particles in one box size."
                )
        return first.shape[2]

    @property
    def boxes(self) -> Tensor:
        """(n,) int64, the box of every image."""
        return torch.tensor([header.shape[2] for header in self.files])[self.file_id]

    def subset(self, index: Tensor) -> "MrcStack":
        """The images of `index` ((n,) int64), with the files that hold them."""
        used, file_id = torch.unique(self.file_id[index], return_inverse=True)
        files = [self.files[number] for number in used.tolist()]
        return MrcStack(files, file_id, self.slice_index[index], self.sign)

    def __len__(self) -> int:
        return self.file_id.shape[0]

    def read(self, index: Tensor) -> Tensor:
        """The images of `index` ((n,) int64) as an (n, D, D) float32 tensor, times `sign`.

        Raises:
            InputError: an image holds NaN or infinite pixels, or is not in its file any more.
        """
        file_id, slice_index = self.file_id[index], self.slice_index[index]
        box_size = self.files[int(file_id[0])].shape[2] if len(index) else self.box_size
        images = torch.empty(len(index), box_size, box_size)
        for number in set(file_id.tolist()):
            chosen = (file_id == number).nonzero()[:, 0]
            # Opened anew at each read: costs 0.1 ms, holds no file open, survives pickling.
            pixels = self.files[number].read_sections(slice_index[chosen])
            images[chosen] = torch.from_numpy(pixels.astype(np.float32))
        finite = torch.isfinite(images).flatten(1).all(dim=1)
        if not bool(finite.all()):
            bad = int((~finite).nonzero()[0])
            raise InputError(
                f"Image {int(slice_index[bad]) + 1} of {self.files[int(file_id[bad])].path} "
                "holds NaN or infinite pixels; leave it out of the star file or repair the stack."
            )
        return images * self.sign
