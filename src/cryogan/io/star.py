"""STAR files as RELION writes them: one table a block, one row a line.

RELION's dialect is read line by line and not as CIF: micrograph names such as `data_7.mrc`,
`_a.mrc`, `$1` or `it's` are legal in a row here and break a CIF parser, block names may be empty
or repeated, and messages can name the line.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cryogan.errors import InputError
from cryogan.files import atomic_path
from cryogan.io.packed import refuse_packed

_TOKEN = re.compile(r""""([^"]*)"(?=\s|$)|'([^']*)'(?=\s|$)|(\S+)""")


@dataclass(frozen=True)
class Table:
    """One table (block) of a STAR file.

    Attributes:
        path: the file, for messages.
        name: the block's name without `data_`; may be empty.
        columns: label (without underscore) → values as written, quotes removed.
        lines: line number of each row.
        ends_open: whether the file ends within its last line, as a file that was cut does.
    """

    path: Path
    name: str
    columns: dict[str, Sequence[str]]
    lines: Sequence[int]
    ends_open: bool = False

    def __len__(self) -> int:
        return len(self.lines)

    def __contains__(self, label: str) -> bool:
        return label in self.columns

    def where(self, row: int) -> str:
        """Row (from 0) in words, for messages: "row 3 (line 25) of particles.star"."""
        return f"row {row + 1} (line {self.lines[row]}) of {self.path}"

    def numbers(self, label: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """A column as float64.

        Raises:
            InputError: a value is not a finite number.
        """
        values = self.columns[label]
        try:
            numbers = np.array(values, dtype=np.float64)
        except ValueError:
            numbers = np.array([_number(value) for value in values])
        bad = ~np.isfinite(numbers)
        if bad.any():
            row = int(bad.argmax())
            raise InputError(
                f"{label} is '{values[row]}' in {self.where(row)}, which is not a finite number; "
                "correct or remove the row."
            )
        return numbers


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def read_star(path: Path | str) -> list[Table]:
    """All tables of a STAR file, in file order; label-value pairs make a table of one row.

    UTF-8 and UTF-16 are read, with lines that end as on Unix, Windows or old Macs.

    Raises:
        InputError: the file cannot be read, is not text, a label comes twice in a table, or a row
            has too few or too many values.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}; check the path.") from error
    text = _decoded(path, raw)
    ends_open = not text.endswith("\n")
    tables: list[Table] = []
    name = ""
    labels: list[str] = []
    rows: list[list[str]] = []
    lines: list[int] = []
    in_loop = False

    def close() -> None:
        if labels:
            values = list(zip(*rows, strict=True)) if rows else [()] * len(labels)
            columns: dict[str, Sequence[str]] = dict(zip(labels, values, strict=True))
            tables.append(Table(path, name, columns, list(lines), ends_open))
        labels.clear()
        rows.clear()
        lines.clear()

    def add_label(label: str, number: int) -> None:
        if label in labels:
            raise InputError(
                f"Line {number} of {path} names the column {label}, which its table has already; "
                "remove one of the two."
            )
        labels.append(label)

    for number, line in enumerate(text.split("\n"), 1):
        tokens = _tokens(line)
        if not tokens:
            continue
        first = tokens[0]
        is_header = len(tokens) == 1 or tokens[1].startswith("#")
        if first.startswith("data_") and is_header:
            close()
            name, in_loop = first[5:], False
        elif first == "loop_" and is_header:
            close()
            in_loop = True
        elif in_loop and first.startswith("_") and is_header and not rows:
            add_label(first[1:], number)
        elif in_loop:
            if len(tokens) != len(labels):
                raise InputError(
                    f"Line {number} of {path} has {len(tokens)} values for {len(labels)} "
                    "columns; correct the row or write the file again."
                )
            rows.append(tokens)
            lines.append(number)
        elif first.startswith("_") and len(tokens) >= 2:
            add_label(first[1:], number)
            rows[:] = [[*(rows[0] if rows else []), tokens[1]]]
            lines[:] = [number]
        else:
            raise InputError(
                f"Line {number} of {path} is neither a block, a label nor a row of a STAR file; "
                "correct the line or give a .star file."
            )
    close()
    return tables


def _decoded(path: Path, raw: bytes) -> str:
    """The text of a file, its lines ended by \\n."""
    refuse_packed(path, raw)
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = raw.decode("utf-16", errors="replace")
    elif b"\0" in raw[:4096]:
        raise InputError(f"{path} is not a STAR file but a binary one; give the .star file.")
    else:
        text = raw.removeprefix(b"\xef\xbb\xbf").decode(errors="surrogateescape")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _tokens(line: str) -> list[str]:
    if line.lstrip().startswith("#"):
        return []
    if '"' in line or "'" in line:
        return [match[match.lastindex or 0] for match in _TOKEN.finditer(line)]
    return line.split()


def write_star(path: Path | str, tables: Sequence[tuple[str, Mapping[str, Sequence[str]]]]) -> None:
    """Write tables (name of the block, label → values) atomically, as RELION does.

    Names may be empty or repeat.

    With an `optics` table the file says that it is of RELION 3.1. Without one it must not:
    RELION 3.1 would refuse to convert it, or leave out its shifts.

    What `read_star` read of a file that is not UTF-8 is written with its own bytes.

    Raises:
        InputError: the file cannot be written.
    """
    version = ["", "# version 30001"] if "optics" in dict(tables) else []
    text: list[str] = []
    for name, columns in tables:
        text += [*version, "", f"data_{name}", "", "loop_"]
        text += [f"_{label} #{number}" for number, label in enumerate(columns, 1)]
        text += [" ".join(map(_quoted, row)) for row in zip(*columns.values(), strict=True)]
        text.append("")
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join([*text, ""]), encoding="utf-8", errors="surrogateescape")


def _quoted(value: str) -> str:
    if value and value[0] != "#" and not any(c.isspace() for c in value):
        return value
    return f"'{value}'" if '"' in value else f'"{value}"'
