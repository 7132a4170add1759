"""A particle file again, with the poses of the other hand."""

from contextlib import suppress
from pathlib import Path

import numpy as np

from cryogan.errors import InputError
from cryogan.io.relion_assigned import image_names_from
from cryogan.io.relion_columns import EULER_LABELS, table_with
from cryogan.io.star import read_star, write_star

_PSI = ("rlnAnglePsi", "rlnAnglePsiPrior")


def write_other_hand(path: Path | str, source: Path | str) -> int:
    """Write a star file again with psi greater by 180°: the poses in the inverted map.

    All else stays. An image name changes where it would not lead to its stack from the new file
    (`relion_assigned.write_assigned`), if the images are there.

    Returns:
        The number of particles.

    Raises:
        InputError: `source` cannot be read or has no poses, or the file cannot be written.
    """
    path, source = Path(path), Path(source)
    tables = read_star(source)
    table = table_with(tables, EULER_LABELS[2], source)
    columns: dict[str, list[str]] = {label: list(c) for label, c in table.columns.items()}
    for label in _PSI:
        if label in table:
            psi_deg = table.numbers(label)
            turned = np.where(psi_deg > 0.0, psi_deg - 180.0, psi_deg + 180.0)
            columns[label] = [f"{value:.6f}" for value in turned]
    if "rlnImageName" in table and path.resolve().parent != source.resolve().parent:
        with suppress(InputError):  # no images here: names stay as they are
            rows = np.arange(len(table))
            columns["rlnImageName"] = image_names_from(path, table, rows, None, None)
    write_star(path, [(t.name, columns if t is table else t.columns) for t in tables])
    return len(table)
