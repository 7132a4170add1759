"""A star file whose images have been made smaller: what of its columns changes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cryogan.errors import InputError
from cryogan.io.relion_columns import Lookup
from cryogan.io.relion_pixel_size import Columns, with_pixel_size
from cryogan.io.star import Table, read_star

_Numbers = np.ndarray[Any, np.dtype[np.float64]]
_Rows = np.ndarray[Any, np.dtype[np.int64]]


def whole_pixel_origins(
    star: Path | str, rows: _Rows | None, pixel_size_A: float
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(n, 2) of (x, y): RELION's origins, by which images are to be moved, in whole pixels.

    Raises:
        InputError: the file has no origins.
    """
    table = _particles(read_star(star), star)
    chosen = np.arange(len(table)) if rows is None else rows
    origins = []
    for axis in "XY":
        if f"rlnOrigin{axis}Angst" in table:
            values = table.numbers(f"rlnOrigin{axis}Angst") / pixel_size_A
        elif f"rlnOrigin{axis}" in table:
            values = table.numbers(f"rlnOrigin{axis}")
        else:
            raise InputError(
                f"{star} has no origins (rlnOrigin{axis}Angst or rlnOrigin{axis}) to centre the "
                "particles by; leave out --recentre, or give a file with refined poses."
            )
        origins.append(values[chosen])
    return np.round(np.stack(origins, axis=-1)).astype(np.int64)


def downsampled_tables(
    source: Path | str,
    rows: _Rows | None,
    stack: str,
    *,
    old_size: int,
    new_size: int,
    old_pixel_size_A: float,
    moved_px: np.ndarray[Any, np.dtype[np.int64]] | None = None,
) -> list[tuple[str, Columns]]:
    """Tables (name, columns) of `source` for the images of `stack`, which are its rows in order.

    Image names, box and pixel size change, origins in pixels are in new ones, and what images
    were moved by is taken off the origins; all else stays.

    Args:
        source: the star file of the images as they were.
        rows: (n,) its rows; all if None.
        stack: name of the stack of new images.
        old_size, new_size: boxes.
        old_pixel_size_A: pixel size of the old images.
        moved_px: (n, 2) whole old pixels by which each image was moved along x and y.
    """
    tables = read_star(source)
    table = _particles(tables, source)
    chosen = np.arange(len(table)) if rows is None else rows
    particles: dict[str, Sequence[str]] = {
        label: [values[row] for row in chosen.tolist()] for label, values in table.columns.items()
    }
    particles["rlnImageName"] = [f"{n:06d}@{stack}" for n in range(1, len(chosen) + 1)]
    optics = Lookup.of(tables, table, chosen).optics
    scale = old_size / new_size
    for column, axis in enumerate("XY"):
        by = 0 if moved_px is None else moved_px[:, column]
        for prior in ("", "Prior"):
            in_A, in_pixels = f"rlnOrigin{axis}{prior}Angst", f"rlnOrigin{axis}{prior}"
            if in_A in table:
                particles[in_A] = _words(table.numbers(in_A)[chosen] - by * old_pixel_size_A)
            if in_pixels in table:
                particles[in_pixels] = _words((table.numbers(in_pixels)[chosen] - by) / scale)
    written: list[tuple[str, Columns]] = []
    for each in tables:
        columns = dict(particles if each is table else each.columns)
        if "rlnImageSize" in columns and (each is table or each is optics):
            columns["rlnImageSize"] = [str(new_size)] * len(columns["rlnImageSize"])
        written.append((each.name, columns))
    return with_pixel_size(written, old_pixel_size_A * scale)


def _particles(tables: list[Table], star: Path | str) -> Table:
    for table in tables:
        if "rlnImageName" in table and len(table) > 0:
            return table
    raise InputError(f"{star} has no table with rows and a column rlnImageName.")


def _words(values: _Numbers) -> list[str]:
    return [f"{value:.6f}" for value in (values + 0.0).tolist()]
