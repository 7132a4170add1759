"""Columns of RELION's particle files: of particles, or of their optics groups.

As in RELION, a value in the particle's own row goes before its optics group's. Until RELION 3.0
there were no optics groups, and the pixel size is
`rlnDetectorPixelSize × 10⁴ / rlnMagnification`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cryogan.errors import InputError
from cryogan.io.ranges import PIXEL_SIZE_TOLERANCE, RANGES, first_impossible
from cryogan.io.star import Table

Numbers = np.ndarray[Any, np.dtype[np.float64]]
Rows = np.ndarray[Any, np.dtype[np.int64]]
CTF_LABELS = {
    "defocus_u_A": "rlnDefocusU",
    "defocus_v_A": "rlnDefocusV",
    "defocus_angle_deg": "rlnDefocusAngle",
    "voltage_kV": "rlnVoltage",
    "spherical_aberration_mm": "rlnSphericalAberration",
    "amplitude_contrast": "rlnAmplitudeContrast",
    "phase_shift_deg": "rlnPhaseShift",
    "b_factor_A2": "rlnCtfBfactor",
    "scale": "rlnCtfScalefactor",
}
CTF_DEFAULTS = {"phase_shift_deg": 0.0, "b_factor_A2": 0.0, "scale": 1.0}
OPTICS_FIELDS = ("voltage_kV", "spherical_aberration_mm", "amplitude_contrast")
PIXEL_SIZE_LABELS = ("rlnImagePixelSize", "rlnPixelSize")
_MAGNIFIED = "rlnDetectorPixelSize and rlnMagnification"
_PIXEL_SIZE_ORIGINS = (*PIXEL_SIZE_LABELS, _MAGNIFIED)
EULER_LABELS = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
HALF_LABEL = "rlnRandomSubset"


@dataclass(frozen=True)
class Lookup:
    """Values of chosen particles, from their own rows or their optics groups'.

    Attributes:
        table: the table of particles.
        rows: (n,) chosen rows of it.
        optics: the table of optics groups, if there is one.
        group: (n,) each chosen row's row in `optics`; zeros without one.
    """

    table: Table
    rows: Rows
    optics: Table | None
    group: Rows

    @classmethod
    def of(cls, tables: list[Table], table: Table, rows: Rows) -> "Lookup":
        optics = _optics_table(tables, table)
        none = np.zeros(len(rows), dtype=np.int64)
        if optics is None or ("rlnOpticsGroup" not in table and len(optics) == 1):
            return cls(table, rows, optics, none)
        if "rlnOpticsGroup" not in table:
            raise InputError(
                f"{table.path} has {len(optics)} optics groups but no column rlnOpticsGroup that "
                "says which particle is in which; add it."
            )
        known = optics.numbers("rlnOpticsGroup")
        if len(known) == 0:
            raise InputError(
                f"The table of optics groups of {table.path} has no rows; add them or remove it."
            )
        _, first = np.unique(known, return_index=True)
        if len(first) < len(known):
            row = min(set(range(len(known))) - set(first.tolist()))
            raise InputError(
                f"The optics group {optics.columns['rlnOpticsGroup'][row]} stands again in "
                f"{optics.where(row)}; remove or renumber one of the two."
            )
        wanted = table.numbers("rlnOpticsGroup")[rows]
        order = np.argsort(known)
        group = order[np.searchsorted(known, wanted, sorter=order).clip(max=len(known) - 1)]
        lost = known[group] != wanted
        if lost.any():
            row = int(rows[lost.argmax()])
            raise InputError(
                f"rlnOpticsGroup is {table.columns['rlnOpticsGroup'][row]} in {table.where(row)}, "
                "which the optics table does not list; add the group or correct the row."
            )
        return cls(table, rows, optics, group)

    def group_names(self) -> list[str] | None:
        """(n,) optics groups as the file numbers them; None without any."""
        if self.optics is None:
            return None
        names = self.optics.columns["rlnOpticsGroup"]
        return [str(names[number]) for number in self.group.tolist()]

    def words(self, label: str) -> list[str]:
        """Values of a column as they stand: of each chosen row, or of their optics groups."""
        if label in self.table:
            return [str(self.table.columns[label][row]) for row in self.rows.tolist()]
        if self.optics is not None and label in self.optics:
            return [str(self.optics.columns[label][row]) for row in np.unique(self.group).tolist()]
        return []

    def numbers(self, label: str, default: float | None = None) -> Numbers | None:
        """(n,) values; `default` or None where neither table has the column."""
        if label in self.table:
            return self.table.numbers(label)[self.rows]
        if self.optics is not None and label in self.optics:
            return self.optics.numbers(label)[self.group]
        return None if default is None else np.full(len(self.rows), default)

    def require_possible(self, label: str, quantity: str, values: Numbers) -> None:
        """Refuse (n,) values of a column that are not possible.

        Raises:
            InputError: with the first such row.
        """
        bad = first_impossible(quantity, values)
        if bad is None:
            return
        where = (
            self.optics.where(int(self.group[bad]))
            if label not in self.table and self.optics is not None and label in self.optics
            else self.table.where(int(self.rows[bad]))
        )
        raise InputError(
            f"{label} is {values[bad]:g} in {where}, but {RANGES[quantity].words(values[bad])}; "
            "correct the file."
        )

    def pixel_sizes_A(self) -> tuple[Numbers | None, str]:
        """(n,) pixel sizes and the columns they come from; None if there are none.

        Raises:
            InputError: one is not possible.
        """
        for origin in _PIXEL_SIZE_ORIGINS:
            sizes = self._pixel_sizes_of(origin)
            if sizes is not None:
                return sizes, origin
        return None, ""

    def other_pixel_sizes(self) -> list[str]:
        """What says another pixel size than the columns that count, in words."""
        sizes, counts = self.pixel_sizes_A()
        found = []
        for origin in _PIXEL_SIZE_ORIGINS if sizes is not None else ():
            try:
                others = self._pixel_sizes_of(origin)
            except InputError:  # it does not count
                others = None
            if sizes is None or others is None:
                continue
            wrong = np.abs(others - sizes) > PIXEL_SIZE_TOLERANCE * np.maximum(others, sizes)
            if wrong.any():
                row = int(wrong.argmax())
                where = self.table.where(int(self.rows[row]))
                found.append(
                    f"the pixel size is {others[row]:.4g} Å by {origin}, but {sizes[row]:.4g} Å by "
                    f"{counts}, which counts, in {where}"
                )
        return found

    def _pixel_sizes_of(self, origin: str) -> Numbers | None:
        """(n,) pixel sizes that one of `_PIXEL_SIZE_ORIGINS` says."""
        if origin != _MAGNIFIED:
            sizes = self.numbers(origin)
            if sizes is not None:
                self.require_possible(origin, "pixel_size_A", sizes)
            return sizes
        detector_um = self.numbers("rlnDetectorPixelSize")
        magnification = self.numbers("rlnMagnification")
        if detector_um is None or magnification is None:
            return None
        self.require_possible("rlnMagnification", "magnification", magnification)
        self.require_possible("rlnDetectorPixelSize", "detector_pixel_size_um", detector_um)
        sizes = detector_um * 1e4 / magnification
        self.require_possible(f"The pixel size of {origin}", "pixel_size_A", sizes)
        return sizes


def _optics_table(tables: list[Table], particles: Table) -> Table | None:
    """The table of optics groups: that of this name, if several tables have optics groups.

    Raises:
        InputError: there are two.
    """
    found = [t for t in tables if t is not particles and "rlnOpticsGroup" in t]
    named = [table for table in found if table.name == "optics"]
    if len(named) > 1:
        raise InputError(
            f"{particles.path} has two tables of optics groups; put them into one, or remove one."
        )
    return next(iter(named or found), None)


def particle_table(tables: list[Table], star: Path | str) -> Table:
    """The one table of particles.

    Raises:
        InputError: there is none, or more than one.
    """
    first = table_with(tables, "rlnImageName", star)
    for other in tables:
        if other is not first and "rlnImageName" in other and len(other) > 0:
            raise InputError(
                f"{star} has two tables of particles, whose first rows are lines {first.lines[0]} "
                f"and {other.lines[0]}; put them into one, or remove one."
            )
    return first


def table_with(tables: list[Table], label: str, star: Path | str) -> Table:
    for table in tables:
        if label in table and len(table) > 0:
            return table
    raise InputError(
        f"{star} has no table with rows and a column {label}; give a RELION particle file."
    )


def chosen_rows(table: Table, index: Tensor | None) -> Rows:
    if index is None:
        return np.arange(len(table))
    rows: Rows = index.numpy()
    if rows.size == 0:
        raise InputError(
            f"The index file chooses no particle of {table.path}; give one row or more."
        )
    bad = (rows < 0) | (rows >= len(table))
    if bad.any():
        raise InputError(
            f"The index file asks for row {int(rows[bad][0])} (counted from 0) of {table.path}, "
            f"which has {len(table)}; give the index file that belongs to it."
        )
    return rows
