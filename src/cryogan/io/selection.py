"""Choosing rows of particle files by their columns, and writing the chosen ones again."""

import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cryogan.errors import InputError
from cryogan.io.cryosparc.joining import read_records_of
from cryogan.io.cryosparc.records import Records, fields_of
from cryogan.io.cryosparc.rewriting import save_chosen
from cryogan.io.images import AS_STACK, find_stack
from cryogan.io.relion_columns import Lookup, particle_table
from cryogan.io.result_groups import write_group
from cryogan.io.star import Table, read_star, write_star

_Flags = np.ndarray[Any, np.dtype[np.bool_]]
_Rows = np.ndarray[Any, np.dtype[np.int64]]

_COMPARISONS = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}
_CONDITION = re.compile(r"\s*_?([\w/.]+?)\s*(>=|<=|==|!=|=(?![<>])|>|<)\s*(.*?)\s*", re.DOTALL)


@dataclass(frozen=True)
class Condition:
    """A comparison that a particle must pass.

    Attributes:
        column: label (star, without underscore) or field (.cs).
        comparison: one of >=, <=, ==, !=, >, <, =.
        value: a number, or words for == and !=.
    """

    column: str
    comparison: str
    value: str

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """ "rlnClassNumber==2" in its parts.

        Raises:
            InputError: it is no comparison.
        """
        found = _CONDITION.fullmatch(text)
        if found is None or not found[3]:
            raise InputError(
                f"The condition '{text}' cannot be understood; give a column, a comparison (>=, "
                "<=, ==, !=, >, <) and a value, in quotes, such as 'rlnClassNumber==2'."
            )
        condition = cls(found[1], found[2], found[3])
        if condition.number is None and condition.comparison not in ("=", "==", "!="):
            raise InputError(
                f"The condition '{text}' compares with '{condition.value}', which is no finite "
                "number; give one, or use == or != for words."
            )
        return condition

    @property
    def number(self) -> float | None:
        """The value as a number, or None."""
        try:
            number = float(self.value)
        except ValueError:
            return None
        return number if np.isfinite(number) else None

    def holds(self, values: Any) -> _Flags:
        """Which of (n,) values, all numbers or all words, pass."""
        value: Any = self.number if values.dtype.kind in "fiub" else self.value
        flags: _Flags = np.asarray(_COMPARISONS[self.comparison](values, value))
        return flags


@dataclass(frozen=True)
class StarFile:
    """A star file of particles.

    Attributes:
        path: the file.
        tables: all its tables.
        particles: the one of particles.
    """

    path: Path
    tables: Sequence[Table]
    particles: Table

    def __len__(self) -> int:
        return len(self.particles)

    def matches(self, condition: Condition) -> _Flags:
        """(n,) which particles pass; a column of the optics table counts for its particles.

        Raises:
            InputError: there is no such column, a value of it is no number, or a particle's optics
                group is not listed.
        """
        table, label = self.particles, condition.column
        rows = np.arange(len(table))
        if label not in table:
            lookup = Lookup.of(list(self.tables), table, rows)
            if lookup.optics is not None and label in lookup.optics:
                table, rows = lookup.optics, lookup.group
        if label not in table:
            raise InputError(
                f"{self.path} has no column {label}; it has {', '.join(self.particles.columns)}."
            )
        if condition.number is not None:
            return condition.holds(table.numbers(label)[rows])
        return condition.holds(np.array(table.columns[label], dtype=str)[rows])

    def write(self, path: Path, rows: _Rows) -> None:
        """Write the particles of `rows`, with all columns, and all other tables as they are.

        An image name that would lead to another stack, or to none, from the new file's folder
        becomes the stack's absolute path.
        """
        columns = {
            label: [values[row] for row in rows.tolist()]
            for label, values in self.particles.columns.items()
        }
        target: dict[str, str] = {}
        for name in {name.rpartition("@")[2] for name in columns["rlnImageName"]}:
            bare = name.removesuffix(AS_STACK)
            here, there = find_stack(self.path, bare), find_stack(path, bare)
            moved = here is not None and (there is None or not there.samefile(here))
            target[name] = (
                f"{here.absolute()}{name.removeprefix(bare)}"
                if moved and here is not None
                else name
            )
        columns["rlnImageName"] = [
            "".join((*whole.rpartition("@")[:2], target[whole.rpartition("@")[2]]))
            for whole in columns["rlnImageName"]
        ]
        tables = [
            (table.name, columns if table is self.particles else table.columns)
            for table in self.tables
        ]
        write_star(path, tables)


@dataclass(frozen=True)
class CsFile:
    """A cryoSPARC particle file.

    Attributes:
        path: the file.
        records: one a particle, with fields of its passthrough files if it needs them.
    """

    path: Path
    records: Records

    def __len__(self) -> int:
        return len(self.records)

    def matches(self, condition: Condition) -> _Flags:
        """(n,) which particles pass.

        Raises:
            InputError: there is no such field, or it is not one number or word a particle.
        """
        names = self.records.dtype.names or ()
        if condition.column not in names:
            raise InputError(
                f"{self.path} has no field {condition.column}; it has {', '.join(names)}."
            )
        values = self.records[condition.column]
        if values.dtype.kind == "S":
            values = np.char.decode(values, "utf-8", "replace")
        is_number = values.dtype.kind in "fiub"
        if values.ndim != 1 or (is_number and condition.number is None):
            what = "is not one value" if values.ndim != 1 else "holds numbers, not words,"
            raise InputError(
                f"The field {condition.column} of {self.path} {what} a particle; compare another."
            )
        return condition.holds(values)

    def write(self, path: Path, rows: _Rows) -> None:
        """Write the records of `rows`, and a group file beside them.

        A `blob/path` that would lead elsewhere becomes absolute.
        """
        save_chosen(path, self.path, self.records[rows])
        slots = sorted({name.partition("/")[0] for name in fields_of(self.records) if "/" in name})
        described = "Particles that cryogan has selected"
        write_group(group_file(path), path, slots, len(rows), described)


def group_file(path: Path) -> Path:
    """The group file that is written beside a .cs file."""
    return path.with_suffix(".csg")


def open_particle_file(path: Path | str) -> StarFile | CsFile:
    """A particle file, with nothing of its images.

    Raises:
        InputError: it is neither a star file of particles nor a .cs file, or has two tables of
            particles.
    """
    path = Path(path)
    if path.suffix == ".star":
        tables = read_star(path)
        return StarFile(path, tables, particle_table(tables, path))
    if path.suffix != ".cs":
        raise InputError(f"{path} is neither a .star nor a .cs file; give one of these.")
    return CsFile(path, read_records_of(path))
