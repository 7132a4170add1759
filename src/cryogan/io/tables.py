"""Columns of numbers in CSV files."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.files import write_text


def read_columns(path: Path | str, names: tuple[str, ...]) -> Tensor:
    """The named columns of a CSV file with a header line; other columns are ignored.

    Returns:
        (len(names), rows) float64, at least one row.

    Raises:
        InputError: the file cannot be read, lacks a column, holds something else than finite
            numbers in one, or has no row.
    """
    rows = []
    try:
        with Path(path).open(newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in names if name not in (reader.fieldnames or [])]
            if missing:
                raise InputError(
                    f"{path} has no column {', '.join(missing)}; add it, with its name in the "
                    "first line."
                )
            for row in reader:
                rows.append([_number(row[name]) for name in names])
                if not all(map(math.isfinite, rows[-1])):
                    raise InputError(
                        f"{path}, line {reader.line_num}: a value of {', '.join(names)} is not "
                        "a finite number; correct or remove the line."
                    )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(f"Cannot read the table {path}: {reason}; give a CSV file.") from error
    if not rows:
        raise InputError(f"{path} has a header but no row; give a table with at least one.")
    return torch.tensor(rows, dtype=torch.float64).T


def write_columns(path: Path | str, columns: Mapping[str, Tensor]) -> None:
    """Write columns (n,) of numbers with a header line, atomically; they may be NaN.

    Raises:
        InputError: the file cannot be written.
    """
    lines = [",".join(columns)]
    for row in zip(*(column.tolist() for column in columns.values()), strict=True):
        lines.append(",".join(f"{value:.8g}" for value in row))
    write_text(path, "\n".join(lines) + "\n")


def _number(text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        return math.nan
