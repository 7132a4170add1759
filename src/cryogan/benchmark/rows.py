"""Tables of benchmarks: CSV files that grow row by row, so that one that is stopped loses nothing.

A row is a mapping from column to value; a key is the columns that tell a row from all others.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from cryogan.errors import InputError
from cryogan.files import write_text

Row = Mapping[str, object]
_Row = TypeVar("_Row", bound=Mapping[str, object])


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows that are there; none of a file that is not."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: Iterable[Row], columns: Sequence[str] | None = None) -> None:
    """Write a table anew, atomically; its columns are those of the first row by default."""
    rows = list(rows)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(columns or rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def append_row(path: Path, row: Row) -> None:
    """Add a row to a table, which is made if it is not there.

    Raises:
        InputError: the table has other columns.
    """
    rows = read_rows(path)
    if rows and list(rows[0]) != list(row):
        raise InputError(
            f"{path} has the columns {','.join(rows[0])}, not {','.join(row)}; move it away."
        )
    write_rows(path, [*rows, row])


def replaced(rows: Iterable[_Row], row: _Row, key: Sequence[str]) -> list[_Row]:
    """The rows, with `row` at the end in place of any other of its key.

    Example:
        >>> replaced([{"seed": "0", "cpu_s": "9"}], {"seed": "0", "cpu_s": "8"}, ["seed"])
        [{'seed': '0', 'cpu_s': '8'}]
    """
    return [old for old in rows if any(str(old[n]) != str(row[n]) for n in key)] + [row]
