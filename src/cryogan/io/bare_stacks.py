"""Stacks without a particle file: their images in order, with a table of CTFs or without a CTF."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryogan.errors import InputError
from cryogan.io.images import find_stack, relion_image_name
from cryogan.io.mrc import read_header
from cryogan.io.relion import read_particles as read_star_particles
from cryogan.io.relion_columns import CTF_LABELS
from cryogan.io.star import Table, read_star
from cryogan.particles import Particles

NO_CTF = {
    "rlnDefocusU": "0.000000",
    "rlnDefocusV": "0.000000",
    "rlnDefocusAngle": "0.000000",
    "rlnVoltage": "300.000000",
    "rlnSphericalAberration": "0.000000",
    "rlnAmplitudeContrast": "1.000000",
}
"""Columns whose CTF is cos 0 = 1 at every frequency: all amplitude contrast, in focus."""
_LABELS = CTF_LABELS | {"pixel_size_A": "rlnImagePixelSize"}


def read_particles(
    path: Path | str,
    *,
    ctf_table: Path | str | None = None,
    no_ctf: bool = False,
    datadir: Path | str | None = None,
    strip_prefix: str | None = None,
    **options: Any,
) -> Particles:
    """Read all images of a stack, or of the stacks that a text file lists.

    Args:
        path: a .mrcs or .mrc stack, or a .txt file with the path of a stack on each line.
        ctf_table: a row an image, in order: a star file, or a CSV file with RELION's labels or the
            names of `CTFParams` (defocus_u_A ...) in its first line.
        no_ctf: the images have no CTF: it is 1.
        datadir: folder that the paths in a list are relative to; without it the list's folder and
            those above it are tried.
        strip_prefix: leading part of these paths to drop.
        **options: those of `relion.read_particles`.

    Raises:
        InputError: not one of `ctf_table` and `no_ctf` is given, a file cannot be read, or the
            table has another number of rows than there are images.
    """
    tables = read_tables(
        path, ctf_table=ctf_table, no_ctf=no_ctf, datadir=datadir, strip_prefix=strip_prefix
    )
    particles = read_star_particles(path, tables=tables, **options)
    assert particles.source is not None
    words = "no CTF: it is 1 at every frequency" if no_ctf else f"CTFs of {ctf_table}"
    source = replace(
        particles.source,
        datadir=None if datadir is None else Path(datadir),
        strip_prefix=strip_prefix,
        summary=f"{particles.source.summary}\n{words}",
        options={"ctf_table": ctf_table, "no_ctf": no_ctf},
    )
    return replace(particles, source=source)


@dataclass(frozen=True)
class _Images(Table):
    """A table whose rows are the images of stacks."""

    def where(self, row: int) -> str:
        return f"image {row + 1} of {self.path}"


def read_tables(
    path: Path | str,
    *,
    ctf_table: Path | str | None = None,
    no_ctf: bool = False,
    datadir: Path | str | None = None,
    strip_prefix: str | None = None,
) -> list[Table]:
    """The images as the tables of a RELION file (see `read_particles`); stacks' paths are absolute.

    Raises:
        InputError: as `read_particles`.
    """
    path = Path(path)
    if ctf_table is not None and no_ctf:
        raise InputError(
            f"The images of {path} cannot have the CTFs of {ctf_table} (--ctf-table) and none "
            "(--no-ctf); leave out one of the two."
        )
    if ctf_table is None and not no_ctf:
        raise InputError(
            f"{path} says nothing of the CTF of its images; give a table with a row an image "
            "(--ctf-table), or say that there is none (--no-ctf)."
        )
    names = image_names(path, datadir, strip_prefix)
    count = len(names)
    if ctf_table is None:
        columns = {label: [value] * count for label, value in NO_CTF.items()}
        return [_Images(path, "", {"rlnImageName": names, **columns}, range(count))]
    tables = _ctf_tables(Path(ctf_table))
    table = next((t for t in tables if "rlnDefocusU" in t and len(t)), None)
    if table is None:
        raise InputError(
            f"{ctf_table} has no column rlnDefocusU (or defocus_u_A) with a row an image; give "
            "the table of the images' CTFs."
        )
    if len(table) != count:
        raise InputError(
            f"{ctf_table} has {len(table)} rows but {path} has {count} images; give a table with "
            "a row an image, in the same order."
        )
    named = replace(table, columns={**table.columns, "rlnImageName": names})
    return [named if t is table else t for t in tables]


def image_names(
    path: Path, datadir: Path | str | None = None, strip_prefix: str | None = None
) -> list[str]:
    """All images of a stack or of the stacks that a text file lists, in order.

    Raises:
        InputError: a file cannot be read.
    """
    stacks = _listed(path, datadir, strip_prefix) if path.suffix == ".txt" else [path.absolute()]
    return [
        relion_image_name(number, str(stack))
        for stack in stacks
        for number in range(1, read_header(stack).shape[0] + 1)
    ]


def _listed(path: Path, datadir: Path | str | None, strip_prefix: str | None) -> list[Path]:
    """The stacks that a text file names, one a line; empty lines and those from # are left out."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(
            f"Cannot read {path}: {reason}; give a text file with the path of a stack on each line."
        ) from error
    stacks = []
    for number, line in enumerate(lines, 1):
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        found = find_stack(path, name, datadir, strip_prefix)
        if found is None:
            raise InputError(
                f"The stack '{name}' in line {number} of {path} is not there; correct the line, "
                "or say where the stacks are with --datadir."
            )
        stacks.append(found.absolute())
    if not stacks:
        raise InputError(f"{path} names no stack; give the path of one on each line.")
    return stacks


def _ctf_tables(path: Path) -> list[Table]:
    if path.suffix == ".star":
        return read_star(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            numbered = [(number, line) for number, line in enumerate(file, 1) if line.strip()]
        numbers, lines = [number for number, _ in numbered], [line for _, line in numbered]
        separator = next((mark for mark in ",;\t" if mark in lines[0]), " ") if lines else ","
        rows = list(csv.reader(lines, delimiter=separator, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(
            f"Cannot read the table {path}: {reason}; give a star or CSV file."
        ) from error
    labels = [name.strip().lstrip("_") for name in rows[0]] if rows else []
    labels = [_LABELS.get(name, name) for name in labels]
    for number, row in zip(numbers[1:], rows[1:], strict=False):
        if len(row) != len(labels):
            raise InputError(
                f"Line {number} of {path} has {len(row)} values for {len(labels)} columns; correct "
                "the line."
            )
    if len(set(labels)) < len(labels):
        raise InputError(f"{path} has a column twice in its first line; keep one of them.")
    columns: dict[str, Sequence[str]] = {
        label: [row[number].strip() for row in rows[1:]] for number, label in enumerate(labels)
    }
    return [Table(path, "", columns, numbers[1 : len(rows)])]
