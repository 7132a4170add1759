"""From the names in a particle file to a checked, lazily read stack of bright images."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.io.contrast import MIN_Z, contrast_z, sample_images
from cryogan.io.mrc import MrcHeader, MrcStack, read_header
from cryogan.io.ranges import contradict, require_possible
from cryogan.io.star import Table

if TYPE_CHECKING:
    from cryogan.io.mixed import MixedStack

_Rows = np.ndarray[Any, np.dtype[np.int64]]
AS_STACK = ":mrcs"  # RELION takes a .mrc file for a map unless this follows its name
Sign = Literal["auto", "bright", "dark"]
_Signed = TypeVar("_Signed", bound="MrcStack | MixedStack")
_MOST_DIGITS = 15  # of an image number


@dataclass(frozen=True)
class ImageNames:
    """`N@stack` of n particles.

    Attributes:
        stacks: the distinct stack names, as written.
        file_id: (n,) int64, which of `stacks`.
        slice_index: (n,) int64, image number there, from 0.
    """

    stacks: list[str]
    file_id: Tensor
    slice_index: Tensor


def parse_image_names(table: Table, rows: _Rows) -> ImageNames:
    """Split `rlnImageName` of the given rows, which count from 0.

    A name without `N@` is the only image of its file.

    Raises:
        InputError: an image number is not a positive integer.
    """
    names = table.columns["rlnImageName"]
    number_of: dict[str, int] = {}
    file_id: list[int] = []
    slice_index: list[int] = []
    for row in rows.tolist():
        number, at, stack = names[row].removesuffix(AS_STACK).partition("@")
        if not at:
            number, stack = "1", number
        if not (number.isdecimal() and len(number) <= _MOST_DIGITS and int(number) > 0):
            raise InputError(
                f"rlnImageName is '{names[row]}' in {table.where(row)}, where the part before "
                "the @ must be an image number from 1; correct the row."
            )
        file_id.append(number_of.setdefault(stack, len(number_of)))
        slice_index.append(int(number) - 1)
    return ImageNames(list(number_of), torch.tensor(file_id), torch.tensor(slice_index))


def relion_image_name(number: int, stack: str) -> str:
    """The name that RELION reads an image by, counted from 1."""
    return f"{number:06d}@{stack}{AS_STACK if stack.endswith('.mrc') else ''}"


def open_stacks(
    table: Table,
    rows: _Rows,
    names: ImageNames,
    datadir: Path | str | None,
    strip_prefix: str | None,
) -> MrcStack:
    """Find the stacks, read each header once and check every image number against it.

    A stack is looked for at its name (without `strip_prefix`) in `datadir`; without `datadir`,
    beside the star file and then in the folders above it (RELION names are relative to the
    project folder).

    Raises:
        InputError: a stack is missing or bad, an image number lies past its end, or a name without
            one is that of a volume or stack.
    """
    files: list[MrcHeader] = []
    for number, name in enumerate(names.stacks):
        folders, stripped = _places(table.path, name, datadir, strip_prefix)
        found = _first_file(folders, stripped)
        if found is None:
            row = int(rows[int((names.file_id == number).nonzero()[0])])
            above = "" if len(folders) == 1 else " nor in any folder above"
            raise InputError(
                f"The stack '{name}' named in {table.where(row)} is not at "
                f"{folders[0] / stripped}{above}; say where the stacks are with --datadir, and "
                "with --strip-prefix which leading part of their names to drop."
            )
        files.append(read_header(found))
    _refuse_volumes(table, rows, names, files)
    counts = torch.tensor([header.shape[0] for header in files])
    beyond = names.slice_index >= counts[names.file_id]
    if bool(beyond.any()):
        first = int(beyond.nonzero()[0])
        header = files[int(names.file_id[first])]
        raise InputError(
            f"The image named in {table.where(int(rows[first]))} is number "
            f"{int(names.slice_index[first]) + 1}, but {header.path} holds only "
            f"{header.shape[0]}; give the stack that belongs to the star file."
        )
    return MrcStack(files, names.file_id, names.slice_index)


def _refuse_volumes(table: Table, rows: _Rows, names: ImageNames, files: list[MrcHeader]) -> None:
    """Refuse names without `N@` of files with several sections: subtomograms, tilt series."""
    written = table.columns["rlnImageName"]
    for row, number in zip(rows.tolist(), names.file_id.tolist(), strict=True):
        sections = files[number].shape[0]
        if sections > 1 and "@" not in written[row]:
            raise InputError(
                f"rlnImageName is '{written[row]}' in {table.where(row)}, without an image number "
                f"(N@), and {files[number].path} has {sections} sections: a subtomogram or tilt "
                "series, which cryogan does not read; give single-particle images."
            )


def distinct_images(stack: MrcStack) -> Tensor:
    """(m,) numbers of the images that are the first of their file and section, ascending.

    Files are told apart by what they are, not by their names: links lead to one file.
    """
    known: dict[tuple[int, int], int] = {}
    about = [header.path.stat() for header in stack.files]
    file = torch.tensor([known.setdefault((a.st_dev, a.st_ino), len(known)) for a in about])
    image = file[stack.file_id] * (int(stack.slice_index.max()) + 1) + stack.slice_index
    _, first = np.unique(image.numpy(), return_index=True)
    return torch.from_numpy(np.sort(first))


def find_stack(
    star: Path, name: str, datadir: Path | str | None = None, strip_prefix: str | None = None
) -> Path | None:
    """Where the stack that a particle file names is (see `open_stacks`), or None."""
    return _first_file(*_places(star, name, datadir, strip_prefix))


def _first_file(folders: list[Path], name: str) -> Path | None:
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _places(
    star: Path, name: str, datadir: Path | str | None, strip_prefix: str | None
) -> tuple[list[Path], str]:
    if strip_prefix:
        name = name.removeprefix(strip_prefix).lstrip("/")
    if datadir is not None:
        return [Path(datadir)], name
    folder = _folder_of(star)
    return [folder, *folder.parents], name


def _folder_of(star: Path) -> Path:
    """The folder of a file, whose `parents` are the folders above it: without `..`.

    Links are followed only where `..` makes it necessary, so that one into a project leads to it.
    """
    folder = star.absolute().parent
    if ".." not in folder.parts:
        return folder
    last = len(folder.parts) - folder.parts[::-1].index("..")
    return Path(*folder.parts[:last]).resolve().joinpath(*folder.parts[last:])


def settle_pixel_size(
    source: Path, found: tuple[float, str] | None, given_A: float | None, stack: MrcStack
) -> tuple[float, str]:
    """The one pixel size, and in words where it came from and what says otherwise.

    What the user gave goes before the particle file, and this before the stacks' headers.

    Args:
        source: the particle file, for messages.
        found: pixel size in the particle file and the column it stands in.
        given_A: what the user gave.
        stack: the images.

    Raises:
        InputError: no pixel size, or one that is not possible.
    """
    sizes = [] if given_A is None else [(given_A, "given")]
    if found is not None:
        sizes.append(found)
    headers = {h.known_pixel_size_A: f"header of {h.path.name}" for h in reversed(stack.files)}
    sizes += [(size, words) for size, words in reversed(headers.items()) if size is not None]
    if not sizes:
        raise InputError(
            f"{source} has no pixel size (rlnImagePixelSize, or rlnDetectorPixelSize with "
            "rlnMagnification) and nor has the header of its stacks; give it with --apix."
        )
    if found is None and given_A is None:
        _require_square_pixels(stack)
    size, origin = sizes[0]
    require_possible(
        "pixel_size_A",
        size,
        f"The pixel size of {source} ({origin})",
        "correct it" if given_A is not None else "give it with --apix",
    )
    others = [(other, words) for other, words in sizes[1:] if contradict(size, other)]
    return size, origin + "".join(f"; warning: {w} says {o:.4g} Å" for o, w in others[:2])


def _require_square_pixels(stack: MrcStack) -> None:
    """Refuse headers whose pixels are not square.

    Raises:
        InputError: one says so.
    """
    for header in stack.files:
        x, y, _ = header.voxel_size_A
        if header.known_pixel_size_A is not None and y > 0 and contradict(x, y):
            raise InputError(
                f"{header.path} has pixels of {x:.4g} x {y:.4g} Å in its header, and the particle "
                "file has no pixel size; give the right one with --apix."
            )


def make_bright(stack: _Signed, pixel_size_A: float, sign: Sign) -> tuple[_Signed, str]:
    """Change the stack's sign if protein is not bright with it; say in words what was decided.

    Raises:
        InputError: one of the sampled images holds NaN or infinite pixels.
    """
    z = contrast_z(sample_images(stack), pixel_size_A)
    verdict = "too weak to tell" if abs(z) < MIN_Z else "bright" if z > 0 else "dark"
    flip = (verdict if sign == "auto" else sign) == "dark"
    why = "" if sign == "auto" else f", as asked (sign {sign})"
    words = f"protein contrast: {verdict} (z = {z:+.1f}); {'inverted' if flip else 'kept'}{why}"
    return replace(stack, sign=-stack.sign if flip else stack.sign), words
