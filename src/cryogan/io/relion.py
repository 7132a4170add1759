"""RELION particle files (.star) of versions 2 to 5, read with their images.

From 3.1 on, `data_optics` holds what is common to an optics group and `data_particles` the rest;
before, one block holds everything.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.io.aberrations import unused_columns
from cryogan.io.images import Sign, distinct_images, make_bright, open_stacks, parse_image_names
from cryogan.io.mixed import describe_kinds, disk_pixel_sizes_A, settle_stack
from cryogan.io.mrc import MrcStack
from cryogan.io.picks import close_picks
from cryogan.io.relion_columns import Numbers, Rows
from cryogan.io.relion_metadata import Metadata, plural, read_metadata
from cryogan.io.star import Table
from cryogan.particles import FLIPPED, MULTIPLIED, Particles, ParticleSource

_CLOSE = 0.25  # of the box


def read_particles(
    star: Path | str,
    *,
    datadir: Path | str | None = None,
    strip_prefix: str | None = None,
    index: Tensor | None = None,
    pixel_size_A: float | None = None,
    sign: Sign = "auto",
    tables: list[Table] | None = None,
    signs: Tensor | None = None,
) -> Particles:
    """Read a particle set; its poses, if there are any, are not read.

    Images of several pixel sizes and boxes are brought to one (`io.mixed`). An image that is named
    twice is read once: the first row counts.

    Args:
        star: the particle file.
        datadir: folder that image names are relative to; without it the star file's folder and
            those above it are tried.
        strip_prefix: leading part of image names to drop.
        index: (m,) int64, the rows to use, from 0; all if None.
        pixel_size_A: pixel size; it goes before the star file's, and that before the headers'.
        sign: contrast of the protein on disk: "bright", "dark" (inverted on reading), or "auto" to
            detect it (`contrast.contrast_z`).
        tables: what is read in place of the file, where it is of another format.
        signs: what all images of the file are multiplied by before their contrast is looked at.

    Raises:
        InputError: with the file, row and column at fault. NaN pixels are looked for in the
            images that the contrast detector reads; in the others when they are read.
    """
    metadata = read_metadata(star, index, pixel_size_A, tables)
    names = parse_image_names(metadata.table, metadata.rows)
    disk = open_stacks(metadata.table, metadata.rows, names, datadir, strip_prefix)
    _check_boxes(metadata, disk)
    warnings = list(metadata.warnings)
    first = distinct_images(disk)
    twice = len(disk) - len(first)
    if twice:
        warnings.append(
            f"{plural(twice, 'row')} left out that name{'s' * (twice == 1)} an image again"
        )
        metadata, disk = metadata.subset(first), disk.subset(first)
        index = torch.from_numpy(metadata.rows)
    table, rows = metadata.table, metadata.rows
    settled, size, origin = settle_stack(
        table.path,
        metadata.pixel_sizes_A,
        "" if metadata.pixel_size is None else metadata.pixel_size[1],
        pixel_size_A,
        disk,
        None if signs is None else signs[rows],
    )
    scale_A = metadata.micrograph_pixel_A
    if scale_A is None:
        scale_A = disk_pixel_sizes_A(settled, size).numpy()
    warnings += _close_picks(table, rows, scale_A, _CLOSE * settled.box_size * size)
    stack, contrast = make_bright(settled, size, sign)
    particles = Particles(stack, metadata.ctf, size, half=metadata.half)
    unused = unused_columns(metadata.aberrations, metadata.ctf, size, settled.box_size)
    lines = (
        _summary(particles, len(disk.files), origin, metadata.optics_groups, contrast),
        *describe_kinds(stack, metadata.group_names),
        *map(str, unused),
        *(f"warning: {words}" for words in warnings),
    )
    source = ParticleSource(
        Path(star),
        index,
        None if datadir is None else Path(datadir),
        strip_prefix,
        pixel_size_A,
        stack.sign < 0,
        "\n".join(lines),
        unused=unused,
    )
    return replace(particles, source=source)


def _check_boxes(metadata: Metadata, disk: MrcStack) -> None:
    """Refuse images of another box than `rlnImageSize`."""
    if metadata.image_sizes is None:
        return
    wrong = metadata.image_sizes != disk.boxes.numpy()
    if wrong.any():
        first = int(wrong.argmax())
        raise InputError(
            f"rlnImageSize of {metadata.table.where(int(metadata.rows[first]))} is "
            f"{metadata.image_sizes[first]:g} but the images of "
            f"{disk.files[int(disk.file_id[first])].path} have box {int(disk.boxes[first])}; give "
            "the stack that belongs to the star file."
        )


def _close_picks(table: Table, rows: Rows, scale_A: Numbers, distance_A: float) -> list[str]:
    """A warning of particles that were picked twice, as far as the file says where they were.

    Args:
        table: the table of particles.
        rows: (n,) rows of it.
        scale_A: (n,) pixel sizes of their micrographs.
        distance_A: of two that are the same particle.
    """
    labels = ("rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY")
    if not all(label in table for label in labels):
        return []
    try:
        x, y = (table.numbers(label)[rows] * scale_A for label in labels[1:])
    except InputError:
        return [
            "rlnCoordinateX or rlnCoordinateY is no number in a row: close picks not looked for"
        ]
    names = [table.columns["rlnMicrographName"][row] for row in rows.tolist()]
    count = int(close_picks(names, x, y, distance_A).sum())
    if count == 0:
        return []
    return [
        f"{plural(count, 'particle')} within {distance_A:.4g} Å (a quarter of the box) of another "
        "on the micrograph: picked twice?"
    ]


def _summary(
    particles: Particles, stacks: int, origin: str, optics_groups: int, contrast: str
) -> str:
    ctf = particles.ctf
    defocus_um = (ctf.defocus_u_A + ctf.defocus_v_A) / 2e4
    optics = ", ".join(
        f"{name} {_range(values, digits)}{unit}"
        for name, values, digits, unit in (
            ("voltage", ctf.voltage_kV, 0, " kV"),
            ("Cs", ctf.spherical_aberration_mm, 2, " mm"),
            ("amplitude contrast", ctf.amplitude_contrast, 2, ""),
        )
    )
    return "\n".join(
        (
            f"{len(particles):,} particles in {plural(stacks, 'stack')}, "
            f"box {particles.box_size} px",
            f"pixel size {particles.pixel_size_A:.4g} Å (from {origin})",
            f"{plural(optics_groups, 'optics group')}: {optics}",
            f"defocus {_range(defocus_um, 2)} µm, median {float(defocus_um.median()):.2f} µm",
            *_corrections(ctf.correction),
            contrast,
        )
    )


def _corrections(correction: Tensor) -> list[str]:
    return [
        f"{plural(int((correction == value).sum()), 'image')} {done}"
        for value, done in (
            (FLIPPED, "with flipped phases: the transfer function is |CTF|"),
            (MULTIPLIED, "multiplied by the CTF: divided by |CTF|, of at least 0.1, on reading"),
        )
        if bool((correction == value).any())
    ]


def _range(values: Tensor, digits: int) -> str:
    low, high = (f"{float(value):.{digits}f}" for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"
