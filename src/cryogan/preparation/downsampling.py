"""Downsampling: smaller images of the same field of view, by Fourier cropping."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.data.images import cropped
from cryogan.errors import InputError
from cryogan.files import remove_left_overs
from cryogan.io.downsampled_star import downsampled_tables, whole_pixel_origins
from cryogan.io.mixed import MixedStack
from cryogan.io.mrc import MrcStack, StackWriter
from cryogan.io.mrc.header import HEADER_BYTES, LABEL
from cryogan.io.star import write_star
from cryogan.particles import DerivedStack, ImageStack, Particles

_LEAST_BOX = 16
_PIXELS_AT_ONCE = 2**24


@dataclass(frozen=True)
class Downsampled:
    """Files of a downsampled set.

    Attributes:
        star, stack: the files.
        box_size: of the new images.
        pixel_size_A: theirs: the old one times the ratio of the boxes.
    """

    star: Path
    stack: Path
    box_size: int
    pixel_size_A: float


@dataclass(frozen=True)
class MovedStack(DerivedStack):
    """The images of `parent`, each moved by whole pixels ((n, 2) of x, y), with wrapping."""

    by_px: Tensor

    def read(self, index: Tensor) -> Tensor:
        images = self.parent.read(index)
        moves = self.by_px[index].tolist()
        pairs = zip(images, moves, strict=True)
        return torch.stack([image.roll((y, x), (0, 1)) for image, (x, y) in pairs])


@dataclass(frozen=True)
class FourierCroppedStack(DerivedStack):
    """The images of `parent`, cropped unitarily to `size` px, corners of the spectrum included."""

    size: int

    @property
    def box_size(self) -> int:
        return self.size

    def read(self, index: Tensor) -> Tensor:
        scale = self.parent.box_size / self.size
        return fourier.resample(self.parent.read(index), self.size) * scale


def downsample(
    particles: Particles,
    folder: Path | str,
    *,
    box_size: int | None = None,
    pixel_size_A: float | None = None,
    recentre: bool = False,
    show: Callable[[float], None] = lambda fraction: None,
) -> Downsampled:
    """Write `particles.star` and `particles.mrcs` with Fourier-cropped images.

    The crop is unitary: white noise keeps its variance per pixel, so that images that were
    normalised before still are; a constant grey level grows by the ratio of the boxes. CTFs need
    no change, frequencies being in 1/Å. The contrast stays as it is on disk.

    Args:
        particles: as read from a star file.
        folder: where to write; made if it does not exist, and nothing in it is overwritten.
        box_size: the new box, even.
        pixel_size_A: in its place, the pixel size wanted; the nearest even box is taken.
        recentre: move each image by its origin in the star file (`rlnOriginXAngst` ...), in whole
            pixels of the old box and with wrapping; the rest stays in the columns.
        show: called with the fraction done.

    Raises:
        InputError: the particles are not of a star file, the new box is none or not smaller, or
            a file exists or cannot be written.
    """
    folder, source = Path(folder), particles.source
    if source is None or source.path.suffix != ".star":
        raise InputError("The particles were not read from a star file, which is written again.")
    if isinstance(particles.stack, MixedStack):
        raise InputError(
            f"{source.path} has images of several pixel sizes or boxes, which cannot be put into "
            "one stack with their columns; downsample those of one at a time (--ind, or cryogan "
            "select --where 'rlnOpticsGroup==1')."
        )
    if (box_size is None) == (pixel_size_A is None):
        raise InputError("Give the new box or the new pixel size: one of them.")
    if pixel_size_A is not None:
        if not particles.pixel_size_A <= pixel_size_A < float("inf"):
            raise InputError(
                f"The new pixel size is {pixel_size_A:g} Å; give one above the particles' "
                f"{particles.pixel_size_A:.4g} Å."
            )
        box_size = 2 * round(particles.box_size * particles.pixel_size_A / pixel_size_A / 2)
        if box_size < _LEAST_BOX:
            width_A = particles.box_size * particles.pixel_size_A
            raise InputError(
                f"The new pixel size is {pixel_size_A:g} Å, which makes a box of {box_size} px; "
                f"give {width_A / _LEAST_BOX:.4g} Å or less, for {_LEAST_BOX} px."
            )
    star, stack = folder / "particles.star", folder / "particles.mrcs"
    for path in (star, stack):
        if path.exists() and not (path == stack and _is_of_a_killed_try(star, stack)):
            raise InputError(f"{path} exists and is not overwritten; give another folder.")
    if not folder.parent.is_dir():
        raise InputError(f"Cannot make {folder}: the folder above it does not exist; make it.")
    rows = None if source.rows is None else source.rows.numpy()
    moved = None
    images: ImageStack = _as_on_disk(particles.stack)
    if recentre:
        moved = whole_pixel_origins(source.path, rows, particles.pixel_size_A)
        images = MovedStack(images, torch.from_numpy(moved))
    small = cropped(particles, box_size)
    small = replace(small, stack=FourierCroppedStack(images, small.box_size))
    tables = downsampled_tables(
        source.path,
        rows,
        stack.name,
        old_size=particles.box_size,
        new_size=small.box_size,
        old_pixel_size_A=particles.pixel_size_A,
        moved_px=moved,
    )
    with _made_folder(folder):
        _write_images(stack, small, max(1, _PIXELS_AT_ONCE // particles.box_size**2), show)
        write_star(star, tables)
    return Downsampled(star, stack, small.box_size, small.pixel_size_A)


def _is_of_a_killed_try(star: Path, stack: Path) -> bool:
    """Whether cryogan has written the stack, and not the star file, which comes last."""
    if star.exists() or not stack.is_file():
        return False
    with stack.open("rb") as file:
        return LABEL in file.read(HEADER_BYTES)


def _as_on_disk(stack: ImageStack) -> ImageStack:
    return replace(stack, sign=1.0) if isinstance(stack, MrcStack) else stack


def _write_images(
    path: Path, particles: Particles, chunk: int, show: Callable[[float], None]
) -> None:
    n = len(particles)
    with StackWriter(path, n, particles.box_size, particles.pixel_size_A) as writer:
        for index in torch.split(torch.arange(n), chunk):
            writer.append(particles.stack.read(index))
            show((int(index[-1]) + 1) / n)


@contextmanager
def _made_folder(folder: Path) -> Iterator[None]:
    """A folder that is there; one that had to be made goes again if the block fails at once."""
    is_new = not folder.is_dir()
    try:
        folder.mkdir(exist_ok=True)
        remove_left_overs(folder)  # of an earlier try that was killed
    except OSError as error:
        raise InputError(
            f"Cannot make {folder}: {error.strerror}; choose a place that you may write to."
        ) from error
    try:
        yield
    except BaseException:
        if is_new and not any(folder.iterdir()):
            folder.rmdir()
        raise
