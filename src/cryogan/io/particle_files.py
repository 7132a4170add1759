"""Particle files of any kind, by their suffix."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.files import refuse_overwriting
from cryogan.io import bare_stacks, cryosparc, relion_assigned
from cryogan.io.cryosparc import joining, relion_tables, rewriting
from cryogan.io.images import Sign
from cryogan.io.mixed import MixedStack, disk_pixel_sizes_A
from cryogan.io.mrc import MrcStack
from cryogan.io.result_groups import read_group, write_group
from cryogan.io.selection import open_particle_file
from cryogan.particles import Particles, ParticleSource, Pose
from cryogan.registry import READERS

_STACKS = (".mrcs", ".mrc", ".txt")
Reader = Callable[..., Particles]
"""Called as `read_particles` is, with the path and all keyword arguments but those not given of
`passthrough`, `ctf_table` and `no_ctf`."""

_OWN_OPTIONS = {
    "passthrough": ("--passthrough", (".cs",)),
    "ctf_table": ("--ctf-table", _STACKS),
    "no_ctf": ("--no-ctf", _STACKS),
}


def read_particles(
    path: Path | str,
    *,
    reader: str | None = None,
    datadir: Path | str | None = None,
    strip_prefix: str | None = None,
    index: Tensor | None = None,
    pixel_size_A: float | None = None,
    sign: Sign = "auto",
    passthrough: Path | str | Sequence[Path | str] | None = None,
    ctf_table: Path | str | None = None,
    no_ctf: bool = False,
) -> Particles:
    """Read a particle set with the reader of its suffix; poses, if there are any, are not read.

    Args:
        path: the particle file: .star (RELION), .cs or .csg (cryoSPARC), a stack (.mrcs, .mrc), a
            list of stacks (.txt), or another of a suffix in `registry.READERS`.
        reader: the reader in place of that of the suffix, as `package.module:function`.
        datadir: folder that image names are relative to; without it the particle file's folder
            and those above it are tried.
        strip_prefix: leading part of image names to drop.
        index: (m,) int64, the rows to use, from 0; all if None.
        pixel_size_A: pixel size; it goes before the file's, and that before the headers'.
        sign: contrast of the protein on disk: "bright", "dark" (inverted on reading), or "auto" to
            detect it.
        passthrough: files that hold the fields that a .cs file lacks; without any, those of the
            same job beside it are tried.
        ctf_table: CTFs of the images of a bare stack, a row an image (.star or .csv).
        no_ctf: the images of a bare stack have no CTF.

    Raises:
        InputError: with the file, row and column at fault.
    """
    path = Path(path)
    if reader is None and path.suffix not in READERS:
        raise InputError(
            f"{path} cannot be read: its suffix is '{path.suffix}'; give a file of "
            f"{', '.join(READERS)}, or a reader (--reader package.module:function)."
        )
    if index is not None and not (
        isinstance(index, Tensor) and index.dtype == torch.int64 and index.ndim == 1
    ):
        raise InputError(
            "The index has to be a tensor of row numbers, counted from 0 (one dimension, int64); "
            "make it of a mask or list with cryogan.choose_rows or torch.tensor."
        )
    given = {"passthrough": passthrough, "ctf_table": ctf_table, "no_ctf": no_ctf or None}
    own = {name: value for name, value in given.items() if value is not None}
    for name in own if reader is None else ():
        option, suffixes = _OWN_OPTIONS[name]
        if path.suffix not in suffixes:
            raise InputError(
                f"{option} goes with files of {', '.join(suffixes)}, not with {path}; leave it out."
            )
    found = READERS[reader or path.suffix](
        path,
        datadir=datadir,
        strip_prefix=strip_prefix,
        index=index,
        pixel_size_A=pixel_size_A,
        sign=sign,
        **own,
    )
    source = found.source or ParticleSource(
        path,
        index,
        None if datadir is None else Path(datadir),
        strip_prefix,
        pixel_size_A,
        inverted=False,
        summary=f"{len(found):,} particles, box {found.box_size} px of {found.pixel_size_A:.4g} Å",
    )
    options = {**source.options, **own}
    asked: dict[str, Any] = {"reader": reader, "sign": sign, "options": options, "index": index}
    return replace(found, source=replace(source, **asked))


def count_rows(path: Path | str, *, reader: str | None = None, **reading: Any) -> int:
    """How many rows, as --ind counts them, a particle file has.

    Args:
        path: the file.
        reader: as for `read_particles`.
        **reading: further arguments of it; they matter for lists of stacks, and for a reader of
            one's own, which reads the whole file.

    Raises:
        InputError: the file cannot be read.
    """
    path = Path(path)
    if reader is None and path.suffix in (".star", ".cs"):
        return len(open_particle_file(path))
    if reader is None and path.suffix == ".csg":
        return len(cryosparc.read_records(read_group(path)["blob"]))
    if reader is None and path.suffix in _STACKS:
        places = {name: reading.get(name) for name in ("datadir", "strip_prefix")}
        return len(bare_stacks.image_names(path, **places))
    return len(read_particles(path, reader=reader, **reading))


def refuse_inputs(
    outputs: Sequence[Path], particles: Particles, others: Sequence[Path] = ()
) -> None:
    """Refuse to write over the files that particles come from, or `others`, or a folder.

    Raises:
        InputError: an output is one of them, links resolved.
    """
    disk = particles.stack.disk if isinstance(particles.stack, MixedStack) else particles.stack
    inputs = [header.path for header in disk.files] if isinstance(disk, MrcStack) else []
    inputs += [*others] if particles.source is None else [*others, particles.source.path]
    for output in outputs:
        refuse_overwriting(output, inputs, "which the particles come from")


def write_assigned(
    path: Path | str,
    particles: Particles,
    pose: Pose,
    *,
    symmetry: str = "C1",
    half: Tensor | None = None,
    class_number: Tensor | None = None,
    class_posterior: Tensor | None = None,
    log_likelihood: Tensor | None = None,
    columns: Mapping[str, Tensor | Sequence[str]] | None = None,
    kept: Tensor | None = None,
) -> list[Path]:
    """Write a particle set again with the poses that its particles have been assigned.

    The star file has all columns of the particles' own star file, or those that their own file
    becomes in RELION's terms. The .cs file has all fields of their own .cs file, or those of an
    imported set; without half-sets it is written only for the former. A group file (.csg) for the
    import into cryoSPARC is written beside it.

    Args:
        path: the star file to write, or the .cs file, which lies beside it.
        particles: as read from their file.
        pose: n poses.
        symmetry, half, class_number, log_likelihood, columns: see `relion_assigned.write_assigned`.
        class_posterior: (n,) probability of the class.
        kept: (n,) int64, which of the particles are written; all if None.

    Returns:
        The files written: star, and then .cs and .csg.

    Raises:
        InputError: the particles were not read from a file of a known kind, a file that they come
            from would be written over, or a file cannot be written.
    """
    source = particles.source
    if source is None:
        raise InputError(
            f"{path} has to name the file of every image, but these particles were not read from "
            "files; read them with cryogan.read_particles."
        )
    suffix = source.path.suffix
    if suffix not in (".star", ".cs", ".csg", *_STACKS) or (source.reader and suffix != ".star"):
        raise InputError(
            f"{source.path} is no star file, .cs file or stack, whose columns poses are written "
            "beside; take the poses from what assign returns."
        )
    kept = torch.arange(len(particles)) if kept is None else kept
    rows = kept if source.rows is None else source.rows[kept]
    star, cs, group = (Path(path).with_suffix(end) for end in (".star", ".cs", ".csg"))
    if Path(path).suffix not in (".cs", ".csg"):
        star = Path(path)
    sizes_A = disk_pixel_sizes_A(particles.stack, particles.pixel_size_A)[kept]
    places: dict[str, Any] = {"datadir": source.datadir, "strip_prefix": source.strip_prefix}
    tables, records, extra = None, None, {}
    sources: list[Path] = []
    if suffix in (".cs", ".csg"):
        records, used = joining.read_set(source.path, source.options.get("passthrough"))
        tables = relion_tables.tables(records, source.path)
        sources += used
    elif suffix in _STACKS:
        tables = bare_stacks.read_tables(source.path, **source.options, **places)
        if not any("rlnImagePixelSize" in table for table in tables):  # else from the headers
            extra = {
                "rlnMagnification": torch.full_like(sizes_A, 10000.0),
                "rlnDetectorPixelSize": sizes_A,
            }
        sources += [Path(file) for file in (source.options.get("ctf_table"),) if file]
    refuse_inputs((star, cs, group), particles, sources)
    relion_assigned.write_assigned(
        star,
        source.path,
        pose,
        symmetry=symmetry,
        rows=rows,
        half=half,
        class_number=class_number,
        log_likelihood=log_likelihood,
        columns=extra | dict(columns or {}),
        pixel_size_A=source.pixel_size_A,
        disk_pixel_sizes_A=sizes_A,
        tables=tables,
        **places,
    )
    if records is None and half is None:
        return [star]
    given: dict[str, Any] = {
        "half": half,
        "class_number": class_number,
        "class_posterior": class_posterior,
    }
    if records is None:
        slots = cryosparc.write_particles(cs, particles.subset(kept), pose, **given)
    else:
        slots = rewriting.write_assigned(
            cs,
            source.path,
            records,
            pose,
            pixel_sizes_A=sizes_A,
            given_A=source.pixel_size_A,
            rows=rows,
            **given,
            **places,
        )
    write_group(group, cs, slots, len(kept))
    return [star, cs, group]
