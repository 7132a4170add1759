"""Writing maps and stacks, mode 2 (float32), with the statistics of their pixels in the header."""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE
from torch import Tensor

import cryogan
from cryogan.files import atomic_path
from cryogan.io.mrc.header import HEADER_BYTES, LABEL

_LABEL_BYTES = 80


def write_map(path: Path | str, volume: Tensor, pixel_size_A: float, what: str = "") -> None:
    """Write a (D, D, D) map (axes z, y, x) atomically; its origin fields are zero.

    Args:
        path: of the file.
        volume: the map.
        pixel_size_A: edge of a voxel.
        what: said in the header's second label after program and version, as far as its 80
            characters go: "half-map 1, likelihood, particles.star".

    Raises:
        InputError: the file cannot be written.
    """
    values = _pixels(volume)
    statistics = _Statistics()
    statistics.add(values)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(_header(values.shape, pixel_size_A, statistics, is_volume=True, what=what))
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
            self._file.write(bytes(HEADER_BYTES))
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


def _label(what: str) -> bytes:
    """Program, version and what a file holds, in the 80 printable characters of a label."""
    text = f"cryogan {cryogan.__version__}" + (f": {what}" if what else "")
    plain = "".join(character if character.isprintable() else " " for character in text)
    return plain.encode("ascii", errors="replace")[:_LABEL_BYTES]


def _header(
    shape: tuple[int, ...],
    pixel_size_A: float,
    statistics: _Statistics,
    *,
    is_volume: bool,
    what: str = "",
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
    header["nlabl"], header["label"][0] = 2, LABEL
    header["label"][1] = _label(what)
    statistics.fill(header)
    return bytes(header.tobytes())
