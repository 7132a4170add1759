"""Particle sets of cryoSPARC: a .cs file with its passthrough files, or a .csg group.

The records become the tables of a RELION file (`tables`), so that everything that is checked in a
star file is checked here, too; poses in them are never read. Fields that a .cs file lacks are
those of passthrough files, joined on `uid`.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cryogan.errors import InputError
from cryogan.io.aberrations import tilt_of_field
from cryogan.io.cryosparc.joining import Paths, read_set
from cryogan.io.cryosparc.records import Records, field_numbers, fields_of
from cryogan.io.cryosparc.relion_tables import in_fields, tables
from cryogan.io.images import Sign
from cryogan.io.relion import read_particles as read_star_particles
from cryogan.particles import Particles, UnusedColumn

_UNUSED = {
    "ctf/shift_A": "beam shift",
    "ctf/tilt_A": "beam tilt times Cs (Å)",
    "ctf/trefoil_A": "trefoil",
    "ctf/tetra_A": "tetrafoil",
    "ctf/anisomag": "anisotropic magnification",
}


def read_particles(
    path: Path | str,
    *,
    passthrough: Paths | None = None,
    index: Tensor | None = None,
    sign: Sign = "auto",
    **options: Any,
) -> Particles:
    """Read a .cs or .csg particle set; poses in it are not read.

    Images are multiplied by `blob/sign`; where their contrast then clearly is the
    other one, it counts. A `sign` that is asked for takes the place of both.

    Args:
        path: the .cs or .csg file.
        passthrough: files that hold the fields that it lacks; without any, those of the same job
            beside it are tried.
        index: (m,) int64, the rows to use, from 0; all if None.
        sign: "auto", "bright" or "dark".
        **options: those of `relion.read_particles`.

    Raises:
        InputError: with the file, particle and field at fault.
    """
    records, used = read_set(path, passthrough)
    recorded = sign == "auto" and "blob/sign" in fields_of(records)
    signs = _signs(records, path) if recorded else None
    try:
        particles = read_star_particles(
            path, tables=tables(records, path), index=index, sign=sign, signs=signs, **options
        )
    except InputError as error:
        raise InputError(in_fields(str(error))) from error
    assert particles.source is not None
    lines = [in_fields(particles.source.summary)]
    if signs is not None:
        rows = particles.source.rows
        dark = int(((signs if rows is None else signs[rows]) < 0).sum())
        lines.append(f"that is after blob/sign, which inverts {dark:,} of {len(particles):,}")
    if len(used) > 1:
        lines.append(f"fields of {', '.join(str(file) for file in used)}, joined on uid")
    unused = _unused(records, particles)
    lines += map(str, unused)
    source = replace(
        particles.source,
        summary="\n".join(lines),
        options={} if passthrough is None else {"passthrough": passthrough},
        unused=unused,
    )
    return replace(particles, source=source)


def _unused(records: Records, particles: Particles) -> tuple[UnusedColumn, ...]:
    """Fields of the chosen records that are not used and not zero."""
    assert particles.source is not None
    rows = particles.source.rows
    if rows is not None:
        records = records[rows.numpy()]
    found = []
    for name, what in _UNUSED.items():
        if name not in fields_of(records) or not np.any(records[name] != 0):
            continue
        values, effect = records[name], ""
        if name == "ctf/tilt_A" and values.ndim == 2 and values.shape[1] == 2:
            effect = tilt_of_field(values, particles.ctf, particles.pixel_size_A)
        found.append(UnusedColumn(name, what, f"up to {np.abs(values).max():.3g}", effect))
    return tuple(found)


def _signs(records: Records, path: Path | str) -> Tensor:
    signs = field_numbers(records, "blob/sign", path)
    bad = signs.abs() != 1
    if bad.any():
        particle = int(bad.int().argmax())
        raise InputError(
            f"blob/sign of particle {particle + 1} of {path} is {signs[particle]:g}, but a sign "
            "is 1 or -1; correct the file or say which it is with --sign."
        )
    return signs
