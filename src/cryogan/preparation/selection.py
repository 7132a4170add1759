"""Selection: particles of a file by row, column, class or half-set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.io.particle_files import count_rows
from cryogan.io.selection import Condition, CsFile, StarFile, open_particle_file

FIT, PARTICLE = "cryoganFitPValue", "cryoganParticleProbability"


def chosen_rows(path: Path | str, count: int, index: Tensor | None, first: int | None) -> Tensor:
    """(m,) int64 rows of `count` that row numbers or a mask name, or of these the first.

    Raises:
        InputError: a mask is of another length, names no row, or `first` is below 1.
    """
    if first is not None and first < 1:
        raise InputError(f"--first is {first}; give 1 or more particles.")
    rows = torch.arange(count) if index is None else index
    if rows.dtype == torch.bool:
        if len(rows) != count:
            raise InputError(
                f"The mask given with --ind has {len(rows)} values but {path} has {count} "
                "particles; give the mask that belongs to it."
            )
        rows = rows.nonzero()[:, 0]
        if len(rows) == 0:
            raise InputError(f"The mask given with --ind chooses no particle of {path}.")
    return rows[:first]


def choose_rows(
    path: Path | str,
    index: Tensor | None,
    first: int | None,
    reader: str | None = None,
    **reading: Any,
) -> Tensor | None:
    """Rows of a particle file as `read_particles` takes them, None for all.

    Args:
        path: the file.
        index: row numbers or a mask; all by default.
        first: of these, no more than this many.
        reader, **reading: of the file, as for `io.particle_files.count_rows`.

    Raises:
        InputError: as `chosen_rows`.
    """
    count = count_rows(path, reader=reader, **reading)
    rows = chosen_rows(path, count, index, first)
    return None if index is None and len(rows) == count else rows


def select(
    source: Path | str,
    output: Path | str,
    conditions: Sequence[str] = (),
    *,
    classes: Sequence[int] = (),
    half: int | None = None,
    index: Tensor | None = None,
    first: int | None = None,
) -> tuple[int, int]:
    """Write the particles of a file that pass every condition; all tables and columns stay.

    Args:
        source: .star or .cs file.
        output: file of the same kind to write.
        conditions: "COLUMN>=VALUE" and the like.
        classes: class numbers, as the file counts them (RELION from 1, cryoSPARC from 0).
        half: half-set, 1 or 2.
        index: rows from 0, or a mask, to begin with.
        first: of what passes, no more than this many.

    Returns:
        Numbers of particles written and read.

    Raises:
        InputError: a condition cannot be understood, no particle passes, or a file cannot be
            read or written.
    """
    source, output = Path(source), Path(output)
    if half not in (None, 1, 2):
        raise InputError(f"--half is {half}; give 1 or 2.")
    if first is not None and first < 1:
        raise InputError(f"--first is {first}; give 1 or more particles.")
    if source.suffix not in (".star", ".cs"):
        group = " (a .csg group names its .cs files)" if source.suffix == ".csg" else ""
        raise InputError(f"{source} is neither a .star nor a .cs file; give one of these{group}.")
    wanted = [Condition.parse(text) for text in conditions]
    if source.suffix != output.suffix:
        raise InputError(
            f"{output} is of another kind than {source}; give an output that ends in "
            f"{source.suffix}."
        )
    if output.exists():
        raise InputError(f"{output} exists and is not overwritten; give another name.")
    file = open_particle_file(source)
    rows = chosen_rows(source, len(file), index, None).numpy()
    if rows.max() >= len(file):
        raise InputError(
            f"The index file asks for row {rows.max()} (counted from 0) of {source}, which has "
            f"{len(file)}; give the index file that belongs to it."
        )
    flags = np.ones(len(file), dtype=bool)
    for condition in wanted:
        flags &= file.matches(condition)
    if half is not None:
        flags &= file.matches(_half(file, half))
    if classes:
        label = "rlnClassNumber" if isinstance(file, StarFile) else "alignments3D/class"
        each = [file.matches(Condition(label, "==", str(number))) for number in classes]
        flags &= np.any(each, axis=0)
    rows = rows[flags[rows]][:first]
    if len(rows) == 0:
        raise InputError(f"No particle of {source} passes; nothing is written.")
    file.write(output, rows)
    return len(rows), len(file)


def expected_losses(source: Path | str, conditions: Sequence[str]) -> list[str]:
    """What thresholds on columns of `cryogan assign` cost, a sentence each.

    p-values are uniform if the model is right, so that a threshold loses its own share of the
    images that fit. Probabilities that images show a particle say how many of those left out do.

    Args:
        source: .star file of `select`.
        conditions: of `select`, which were passed by some.
    """
    file = open_particle_file(Path(source))
    if not isinstance(file, StarFile):
        return []
    found = []
    for condition in map(Condition.parse, conditions):
        value = condition.number
        if value is None or condition.comparison not in (">", ">=") or not 0.0 < value < 1.0:
            continue
        if condition.column == FIT:
            found.append(
                f"{FIT} {condition.comparison} {value:g} leaves out {100 * value:.3g} % of the "
                "images that fit, if map, CTFs and noise are right"
            )
        elif condition.column == PARTICLE:
            probability = file.particles.numbers(PARTICLE)
            kept = file.matches(condition)
            found.append(
                f"expected by {PARTICLE}: {probability[~kept].sum():,.0f} of the "
                f"{(~kept).sum():,} that this leaves out show a particle, "
                f"{(1.0 - probability[kept]).sum():,.0f} of the {kept.sum():,} others do not"
            )
    return found


def _half(file: StarFile | CsFile, half: int) -> Condition:
    if isinstance(file, StarFile):
        return Condition("rlnRandomSubset", "==", str(half))
    return Condition("alignments3D/split", "==", str(half - 1))
