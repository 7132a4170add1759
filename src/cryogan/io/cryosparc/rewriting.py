"""Writing the records of a set again: with assigned poses, or the chosen ones as they are."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryogan.io.cryosparc.poses import ALIGNMENT_FIELDS, alignment_fields
from cryogan.io.cryosparc.records import Records, field_texts, fields_of, save_records
from cryogan.io.cryosparc.relion_tables import tables
from cryogan.io.images import AS_STACK, find_stack
from cryogan.io.relion_assigned import image_names_from
from cryogan.particles import Pose


def write_assigned(
    path: Path | str,
    source: Path | str,
    records: Records,
    pose: Pose,
    *,
    pixel_sizes_A: Tensor,
    given_A: float | None = None,
    rows: Tensor | None = None,
    half: Tensor | None = None,
    class_number: Tensor | None = None,
    class_posterior: Tensor | None = None,
    datadir: Path | str | None = None,
    strip_prefix: str | None = None,
) -> list[str]:
    """Write the set again with the poses that its particles have been assigned.

    All other fields stay. `alignments3D` becomes new as a whole; without `half` the halves of the
    source stay, and where it has none, `uid` decides (even or odd). A `blob/path` stays where it
    leads to the same stack from the new file, and else becomes absolute; > before it says that it
    is relative to the .cs file and not to the project.

    Args:
        path: the .cs file to write.
        source: the .cs or .csg file that was read.
        records: what `read_set` makes of it.
        pose: n poses.
        pixel_sizes_A: (n,) of the images on disk.
        given_A: the pixel size that the user gave, which takes the place of `blob/psize_A`.
        rows: (n,) int64 the records that were chosen; all if None.
        half, class_number, class_posterior: see `cryosparc.write_particles`.
        datadir, strip_prefix: where the images were found.

    Returns:
        The slots that the file has: "blob", "ctf" ...

    Raises:
        InputError: the file cannot be written.
    """
    table = tables(records, source)[1]
    chosen = np.arange(len(records)) if rows is None else rows.numpy()
    names = image_names_from(Path(path), table, chosen, datadir, strip_prefix)
    records = records[chosen]
    if half is None:
        splits = "alignments3D/split" if "alignments3D/split" in fields_of(records) else "uid"
        half = torch.from_numpy((records[splits] % 2).astype(np.int64)) + 1
    stacks = [name.partition("@")[2].removesuffix(AS_STACK) for name in names]
    beside = {
        stack: _beside_or_absolute(Path(path), stack) for stack in {*stacks} if stack[:1] != "/"
    }
    own = [text.startswith(">") for text in field_texts(records, "blob/path", Path(source))]
    stacks = [
        beside.get(stack, stack) if marked else stack
        for stack, marked in zip(stacks, own, strict=True)
    ]
    types: dict[str, Any] = {
        name: records.dtype[name]
        for name in fields_of(records)
        if not name.startswith("alignments3D/")
    }
    encoded = [stack.encode(errors="surrogateescape") for stack in stacks]
    types["blob/path"] = f"S{max(map(len, encoded))}"
    if given_A is not None:
        types.setdefault("blob/psize_A", "<f4")
    result: Records = np.zeros(len(records), dtype=list((types | ALIGNMENT_FIELDS).items()))
    for name in types:
        if name in fields_of(records):
            result[name] = encoded if name == "blob/path" else records[name]
    values = alignment_fields(pose, half, pixel_sizes_A, class_number, class_posterior)
    if given_A is not None:
        values["blob/psize_A"] = given_A
    for name, value in values.items():
        result[name] = value.numpy() if isinstance(value, Tensor) else value
    save_records(path, result)
    return sorted({name.partition("/")[0] for name in fields_of(result) if "/" in name})


def _beside_or_absolute(path: Path, stack: str) -> str:
    """A stack that is found from a .cs file, named from the file's own folder."""
    if (path.parent / stack).is_file():
        return f">{stack}"
    found = find_stack(path, stack)
    return stack if found is None else str(found.absolute())


def save_chosen(path: Path, source: Path, records: Records) -> None:
    """Write records of a .cs file as another; a stack's path that leads elsewhere becomes absolute.

    Args:
        path: the file to write.
        source: the file that the records come from.
        records: those to write.

    Raises:
        InputError: it cannot be written.
    """
    if "blob/path" in fields_of(records):
        texts = field_texts(records, "blob/path", source)
        target = {text: _path_from(path, source, text) for text in set(texts)}
        paths = [target[text].encode(errors="surrogateescape") for text in texts]
        if any(target[text] != text for text in target):
            width = max(records.dtype["blob/path"].itemsize, *map(len, paths))
            types = [(name, records.dtype[name]) for name in fields_of(records)]
            widened: Any = [(n, f"S{width}" if n == "blob/path" else kind) for n, kind in types]
            moved: Records = np.empty(len(records), dtype=widened)
            for name in fields_of(records):
                moved[name] = paths if name == "blob/path" else records[name]
            records = moved
    save_records(path, records)


def _path_from(path: Path, source: Path, text: str) -> str:
    """A `blob/path` of `source` as it is to stand in `path`."""
    bare = text.removeprefix(">")
    here = find_stack(source, bare)
    if here is None:
        return text
    there = path.parent / bare if text.startswith(">") else find_stack(path, bare)
    same = there is not None and there.is_file() and there.samefile(here)
    return text if same else str(here.absolute())
