"""What a RELION particle file says of its images, checked before any stack is looked at.

Units are fixed here, once: Å, degrees, kV, mm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.io.aberrations import LABELS
from cryogan.io.ranges import is_small_defocus, unit_of_defocus
from cryogan.io.relion_columns import (
    CTF_DEFAULTS,
    CTF_LABELS,
    HALF_LABEL,
    Lookup,
    Numbers,
    Rows,
    chosen_rows,
    particle_table,
)
from cryogan.io.star import Table, read_star
from cryogan.io.tomography import refuse_tomography
from cryogan.particles import FLIPPED, MULTIPLIED, CTFParams

_LARGE_ASTIGMATISM_A = 5000.0


@dataclass(frozen=True)
class Metadata:
    """The columns of a particle file, before any stack is looked at.

    Attributes:
        table: the table of particles.
        rows: (n,) the rows of it that were chosen.
        ctf: their CTF parameters.
        pixel_size: value in Å (the largest) and its column; None if the file has none.
        image_size: `rlnImageSize` (the largest); None if the file has none.
        optics_groups: number of optics groups among the chosen rows.
        aberrations: label → values of columns that are not used (`aberrations.LABELS`).
        pixel_sizes_A, image_sizes: (n,) of each row; None if the file has none.
        group_names: (n,) optics group of each row; None if the file has none.
        half: (n,) int64, `rlnRandomSubset`; None unless all are 1 or 2.
        micrograph_pixel_A: (n,) `rlnMicrographPixelSize`; None if the file has none.
        warnings: what is possible but strange, in words.
    """

    table: Table
    rows: Rows
    ctf: CTFParams
    pixel_size: tuple[float, str] | None
    image_size: int | None
    optics_groups: int
    aberrations: Mapping[str, Sequence[str]]
    pixel_sizes_A: Numbers | None = None
    image_sizes: Numbers | None = None
    group_names: Sequence[str] | None = None
    half: Tensor | None = None
    micrograph_pixel_A: Numbers | None = None
    warnings: tuple[str, ...] = ()

    def subset(self, chosen: Tensor) -> "Metadata":
        """What is known of the rows of `chosen` ((m,) int64, numbers among the n)."""
        numbers = chosen.numpy()

        def part(column: Numbers | None) -> Numbers | None:
            return None if column is None else column[numbers]

        names = self.group_names
        return replace(
            self,
            rows=self.rows[numbers],
            ctf=self.ctf[chosen],
            pixel_sizes_A=part(self.pixel_sizes_A),
            image_sizes=part(self.image_sizes),
            group_names=None if names is None else [names[number] for number in numbers.tolist()],
            half=None if self.half is None else self.half[chosen],
            micrograph_pixel_A=part(self.micrograph_pixel_A),
        )


def read_metadata(
    star: Path | str,
    index: Tensor | None = None,
    pixel_size_A: float | None = None,
    tables: list[Table] | None = None,
) -> Metadata:
    """The columns of a particle file, checked; no stack needs to exist.

    Args:
        star: the particle file.
        index: (m,) int64, the rows to use, from 0; all if None.
        pixel_size_A: what the user gave; then impossible pixel sizes in the file do not matter.
        tables: what stands in place of the file, where it is of another format.

    Raises:
        InputError: a column or value is missing or not possible, the particles are of tomograms,
            or `index` goes beyond the file.
    """
    tables = read_star(star) if tables is None else tables
    table = particle_table(tables, star)
    rows = chosen_rows(table, index)
    lookup = Lookup.of(tables, table, rows)
    refuse_tomography(tables, table)
    values = {
        field: lookup.numbers(label, CTF_DEFAULTS.get(field)) for field, label in CTF_LABELS.items()
    }
    ctf = {
        field: torch.from_numpy(column).float()
        for field, column in values.items()
        if column is not None
    }
    ctf["correction"] = _correction(lookup, len(rows))
    missing = [CTF_LABELS[field] for field in values if field not in ctf]
    if missing:
        raise InputError(
            f"{table.path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)} in its "
            "particle and optics tables; add what is missing or export the particles again with "
            "their CTF."
        )
    for field, column in values.items():
        if column is not None:
            lookup.require_possible(CTF_LABELS[field], field, column)
    try:
        pixel_sizes_A, origin = lookup.pixel_sizes_A()
        others = lookup.other_pixel_sizes()
    except InputError:
        if pixel_size_A is None:
            raise
        pixel_sizes_A, origin, others = None, "", []
    image_sizes = lookup.numbers("rlnImageSize")
    params = CTFParams(**ctf, filter=None)
    return Metadata(
        table=table,
        rows=rows,
        ctf=params,
        pixel_size=None if pixel_sizes_A is None else (float(pixel_sizes_A.max()), origin),
        image_size=None if image_sizes is None else round(float(image_sizes.max())),
        optics_groups=len(np.unique(lookup.group)),
        pixel_sizes_A=pixel_sizes_A,
        image_sizes=image_sizes,
        group_names=lookup.group_names(),
        half=_halves(table, rows),
        micrograph_pixel_A=lookup.numbers("rlnMicrographPixelSize"),
        warnings=(*others, *_warnings_of_defocus(params, table.path), *_warnings_of_end(table)),
        aberrations={label: words for label in LABELS if (words := lookup.words(label))},
    )


def _correction(lookup: "Lookup", count: int) -> Tensor:
    """(n,) what was done to the images: see `CTFParams.correction`."""
    correction = torch.zeros(count, dtype=torch.int64)
    for label, value in (
        ("rlnCtfDataArePhaseFlipped", FLIPPED),
        ("rlnCtfDataAreCtfPremultiplied", MULTIPLIED),
    ):
        flags = lookup.numbers(label, 0.0)
        assert flags is not None
        correction[torch.from_numpy(flags != 0)] = value
    return correction


def _halves(table: Table, rows: Rows) -> Tensor | None:
    words = [table.columns[HALF_LABEL][row] for row in rows] if HALF_LABEL in table else []
    if not words or not set(words) <= {"1", "2"}:
        return None
    return torch.tensor([int(word) for word in words])


def _warnings_of_defocus(ctf: CTFParams, star: Path) -> list[str]:
    """What is strange about the defoci of a set.

    Raises:
        InputError: they cannot be in Å.
    """
    u, v = ctf.defocus_u_A, ctf.defocus_v_A
    largest_A = float(torch.maximum(u.abs(), v.abs()).max())
    unit = unit_of_defocus(largest_A)
    if unit is not None:
        raise InputError(
            f"The defocus (rlnDefocusU, rlnDefocusV) in {star} is {largest_A:g} at most and must "
            f"be in Å (in {unit}?); correct the columns."
        )
    astigmatism_A = (u - v).abs()
    if float(astigmatism_A.median()) > 2 * _LARGE_ASTIGMATISM_A:
        raise InputError(
            f"rlnDefocusU and rlnDefocusV in {star} differ by {float(astigmatism_A.median()):.0f} "
            "Å in half of the rows, which no astigmatism does; correct the wrong column."
        )
    found = []
    if is_small_defocus(largest_A):
        found.append(f"defocus is {largest_A:g} Å at most: in nm?")
    for what, rows in (
        ("zero", (u == 0) & (v == 0) & (ctf.amplitude_contrast < 1)),  # else there is no CTF
        ("negative (overfocus)", (u + v) < 0),
        (
            f"astigmatic by more than {_LARGE_ASTIGMATISM_A:g} Å",
            astigmatism_A > _LARGE_ASTIGMATISM_A,
        ),
    ):
        if bool(rows.any()):
            found.append(f"defocus is {what} in {plural(int(rows.sum()), 'row')}")
    return found


def _warnings_of_end(table: Table) -> list[str]:
    if not table.ends_open:
        return []
    return [f"{table.path} ends without a line break: cut short?"]


def plural(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
