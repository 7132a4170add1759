"""The half-sets of a run by image: kept in the run folder, and found again for any particles.

An image is known by its stack and its number there, so that particles may have been chosen, sorted
or joined with others since. A stack is known by its path (links resolved) or, if it has been moved,
renamed or copied since, by its content.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from cryogan.data.halves import halves_of, particles_digest
from cryogan.data.normalisation import NormalisedStack
from cryogan.errors import InputError
from cryogan.files import atomic_path
from cryogan.io.mixed import MixedStack, disk_signs
from cryogan.io.mrc import MrcHeader, MrcStack
from cryogan.particles import DerivedStack, ImageStack, Particles, SubsetStack
from cryogan.run.folder import RunRecord

HALF_SETS = "half_sets.npz"
_SAMPLE = 16  # images of a set
_SECTIONS = 4  # of a stack
_SAME = 1e-4  # of an image's largest modulus
_Numbers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Images:
    """Names of n images.

    Attributes:
        stacks: absolute paths, links resolved.
        stack: (n,) which of `stacks`.
        number: (n,) number in it, from 0.
    """

    stacks: tuple[str, ...]
    stack: _Numbers
    number: _Numbers

    @classmethod
    def of(cls, stack: ImageStack) -> Self | None:
        """Those of a stack, through whatever is done to its images; None unless they are files'."""
        disk = _disk_of(stack)
        if disk is None:
            return None
        disk = disk.disk if isinstance(disk, MixedStack) else disk
        stacks = tuple(str(header.path.resolve()) for header in disk.files)
        return cls(stacks, disk.file_id.numpy(), disk.slice_index.numpy())

    def places_in(self, other: "Images") -> _Numbers:
        """(n,) which of `other` each image is; -1 for none."""
        known = {path: number for number, path in enumerate(other.stacks)}
        file = np.array([known.get(path, -1) for path in self.stacks])[self.stack]
        width = 1 + max(self.number.max(), other.number.max())
        theirs, mine = other.stack * width + other.number, file * width + self.number
        order = np.argsort(theirs)
        place = order[np.searchsorted(theirs, mine, sorter=order).clip(max=len(theirs) - 1)]
        places: _Numbers = np.where((file >= 0) & (theirs[place] == mine), place, -1)
        return places


def _disk_of(stack: ImageStack) -> MrcStack | MixedStack | None:
    """The images of a stack as they are read from files; None unless they are files'."""
    index = None
    while not isinstance(stack, MrcStack | MixedStack):
        if isinstance(stack, SubsetStack):
            index = stack.index if index is None else stack.index[index]
        if not isinstance(stack, DerivedStack):
            return None
        stack = stack.parent
    return stack if index is None else stack.subset(index)


def _levels_of(stack: ImageStack) -> Tensor | None:
    """(n, 4) background plane and largest modulus of every image, as they were measured on reading.

    Every pixel counts; None where images are not normalised.
    """
    index = None
    while not isinstance(stack, NormalisedStack):
        if isinstance(stack, SubsetStack):
            index = stack.index if index is None else stack.index[index]
        if not isinstance(stack, DerivedStack):
            return None
        stack = stack.parent
    levels = torch.cat((stack.plane, stack.peak[:, None]), dim=1).float()
    return levels if index is None else levels[index]


def content_digest(particles: Particles) -> str | None:
    """A short name for the images of a file and their CTFs; None unless they are files'.

    Names (without folders) and numbers of all images count, their CTFs, and some of their pixels
    as they are on disk.
    """
    found = _disk_of(particles.stack)
    if found is None:
        return None
    images = Images.of(found)
    assert images is not None
    disk = found.disk if isinstance(found, MixedStack) else found
    digest = hashlib.sha256()
    for path in images.stacks:
        digest.update(Path(path).name.encode(errors="surrogateescape") + b"\0")
    for column in (images.stack, images.number):
        digest.update(column.astype("<i8").tobytes())
    for values in particles.ctf.columns.values():
        digest.update(values.cpu().numpy().tobytes())
    for number in range(0, len(disk), max(1, len(disk) // _SAMPLE)):
        header = disk.files[int(disk.file_id[number])]
        digest.update(header.read_sections(disk.slice_index[number : number + 1]).tobytes())
    return digest.hexdigest()[:16]


def _mark(header: MrcHeader) -> str:
    """A short name for a stack: of its shape, and some of its sections as they are."""
    digest = hashlib.sha256(repr((header.shape, header.dtype.str)).encode())
    last = header.shape[0] - 1
    for number in sorted({last * step // (_SECTIONS - 1) for step in range(_SECTIONS)}):
        digest.update(header.read_sections(torch.tensor([number])).tobytes())
    return digest.hexdigest()[:16]


def _named_as_in(columns: Mapping[str, Any], stack: ImageStack) -> Images | None:
    """The images of a stack; files that have the content of the run's have their names then."""
    disk, images = _disk_of(stack), Images.of(stack)
    if disk is None or images is None or "marks" not in columns:
        return images
    files = (disk.disk if isinstance(disk, MixedStack) else disk).files
    names = dict(zip(columns["marks"].tolist(), columns["stacks"].tolist(), strict=True))
    known = set(names.values())
    stacks = tuple(
        path if path in known else names.get(_mark(file), path)
        for path, file in zip(images.stacks, files, strict=True)
    )
    return replace(images, stacks=stacks)


def write_half_sets(folder: Path, particles: Particles, halves: tuple[Tensor, Tensor]) -> None:
    """Keep the half-sets of a run in its folder, if its images are those of files."""
    disk, images = _disk_of(particles.stack), Images.of(particles.stack)
    if disk is None or images is None:
        return
    half = np.ones(len(particles), dtype=np.int8)
    half[halves[1].numpy()] = 2
    columns: dict[str, Any] = {"stack": images.stack, "number": images.number, "half": half}
    columns["sign"] = disk_signs(disk).numpy().astype(np.int8)
    columns["stacks"] = np.array(images.stacks)
    files = (disk.disk if isinstance(disk, MixedStack) else disk).files
    columns["marks"] = np.array([_mark(file) for file in files])
    levels = _levels_of(particles.stack)
    if levels is not None:
        columns["levels"] = levels.numpy()
    source = particles.source
    if source is not None and source.index is not None:
        columns["index"] = source.index.numpy()
    with atomic_path(folder / HALF_SETS) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **columns)


def require_same_images(folder: Path, particles: Particles) -> None:
    """Refuse to resume a run whose images have changed, any of them, since it began.

    Their stacks may have been copied or written again with the same pixels.

    Raises:
        InputError: an image has changed, or `half_sets.npz` cannot be read.
    """
    before, images = _columns(folder), Images.of(particles.stack)
    now = _levels_of(particles.stack)
    if images is None or now is None or "levels" not in before:
        return
    then = torch.from_numpy(before["levels"])
    same = then.shape == now.shape
    if same:
        tolerance = _SAME * then[:, 3:].abs()  # other machines add in another order
        same_image = ((then - now).abs() <= tolerance).all(dim=1)
        same = bool(same_image.all())
    if same:
        return
    which = 0 if then.shape != now.shape else int((~same_image).nonzero()[0])
    name = images.stacks[int(images.stack[which])]
    raise InputError(
        f"Image {int(images.number[which]) + 1} of {name} is not what it was when the run in "
        f"{folder} began; bring the images of then back, or give another output folder."
    )


def asked_rows(folder: Path) -> Tensor | None:
    """(m,) int64 rows of its particle file that a run was given; None for all.

    Raises:
        InputError: `half_sets.npz` cannot be read.
    """
    columns = _columns(folder)
    return torch.from_numpy(columns["index"]) if "index" in columns else None


def half_of(particles: Particles, record: RunRecord) -> Tensor:
    """(n,) int64 half-set of a run that each particle is in, 1 or 2; 0 for none.

    Raises:
        InputError: `half_sets.npz` cannot be read, or the run keeps the half-sets of its particles
            in memory and these come with others.
    """
    columns = _columns(record.folder)
    images = _named_as_in(columns, particles.stack)
    if images is not None and columns:
        place = torch.from_numpy(images.places_in(_images(columns)))
        half = torch.from_numpy(columns["half"]).long()
        return torch.where(place >= 0, half[place], 0)
    if _is_of(particles, record):
        half = torch.ones(len(particles), dtype=torch.int64)
        half[halves_of(particles, record.seed, record.halves)[1]] = 2
        return half
    return torch.zeros(len(particles), dtype=torch.int64)


def has_other_contrast(particles: Particles, record: RunRecord) -> bool:
    """Whether a run has read most of its images among these with the other sign.

    The contrast of few images is too weak to tell; what was decided for the run holds then. False
    where the user has said what it is.
    """
    stack, columns = particles.stack, _columns(record.folder)
    asked = particles.source is not None and particles.source.sign != "auto"
    if not isinstance(stack, MrcStack | MixedStack) or "sign" not in columns or asked:
        return False
    images = _named_as_in(columns, stack)
    assert images is not None
    place = images.places_in(_images(columns))
    signs = disk_signs(stack).numpy()
    differ = (columns["sign"][place] != signs)[place >= 0]
    return bool(len(differ) and differ.mean() > 0.5)


def are_dark(folder: Path) -> bool:
    """Whether the protein is dark in most images of a run, as they are on disk."""
    columns = _columns(folder)
    return "sign" in columns and bool((columns["sign"] < 0).mean() > 0.5)


def inverted(particles: Particles, record: RunRecord) -> Particles:
    """The particles with the other contrast."""
    source = particles.source
    if source is not None:
        words = f"{source.summary}\ncontrast as in the run {record.folder}: the other one"
        source = replace(source, inverted=not source.inverted, summary=words)
    stack: Any = particles.stack
    return replace(particles, stack=replace(stack, sign=-stack.sign), source=source)


def require_particles_of(particles: Particles, record: RunRecord) -> None:
    """Refuse particles that are not all those of a run, in their order.

    Raises:
        InputError: they are not.
    """
    if len(particles) != record.count:
        raise InputError(
            f"The run was made from {record.count} particles but {len(particles)} were read; "
            "give the same --particles and --ind as then."
        )
    columns = _columns(record.folder)
    images = _named_as_in(columns, particles.stack)
    if images is None or not columns:
        same = particles_digest(particles) == record.rows
    else:
        places = images.places_in(_images(columns))
        same = np.array_equal(places, np.arange(record.count))
        if not same and not (places >= 0).any():
            raise InputError(
                "The run was made from other particles: no image here is in one of its stacks, "
                "which may have been moved or renamed, but not changed; give the particles of the "
                "run."
            )
    if not same:
        raise InputError(
            "The run was made from other particles, or other rows of the particle file; give the "
            "same --ind as then."
        )


def _is_of(particles: Particles, record: RunRecord) -> bool:
    """Whether particles are those of a run, by their file, number and rows."""
    star = None if particles.source is None else particles.source.path.resolve()
    return (
        star == (None if record.star is None else record.star.resolve())
        and len(particles) == record.count
        and particles_digest(particles) == record.rows
    )


def _images(columns: Mapping[str, Any]) -> Images:
    return Images(tuple(columns["stacks"].tolist()), columns["stack"], columns["number"])


def _columns(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """What `write_half_sets` has written; nothing where there is no file."""
    path = folder / HALF_SETS
    if not path.is_file():
        return {}
    try:
        with np.load(path) as found:
            columns = dict(found)
        lengths = {len(columns[name]) for name in ("stack", "number", "half")}
        stacks = len(columns["stacks"])
        if (
            len(lengths) > 1
            or columns["stack"].max() >= stacks
            or ("marks" in columns and len(columns["marks"]) != stacks)
        ):
            raise ValueError("its columns do not fit one another")
    except Exception as error:  # whatever a broken archive raises
        raise InputError(
            f"{path} cannot be read ({error}); move it away to go on without it."
        ) from error
    return columns
