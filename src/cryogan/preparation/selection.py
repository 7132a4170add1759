"""Selection: particles of a file by row, column, class or half-set."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryogan.errors import InputError
from cryogan.io.particle_files import count_rows
from cryogan.io.selection import Condition, CsFile, StarFile, group_file, open_particle_file

_Flags = NDArray[np.bool_]
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
        output: file of the same kind to write; beside a .cs file its group file (.csg).
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
    for file_to_write in (output, group_file(output)) if output.suffix == ".cs" else (output,):
        if file_to_write.exists():
            raise InputError(f"{file_to_write} exists and is not overwritten; give another name.")
    file = open_particle_file(source)
    rows = chosen_rows(source, len(file), index, None).numpy()
    if rows.max() >= len(file):
        raise InputError(
            f"The index file asks for row {rows.max()} (counted from 0) of {source}, which has "
            f"{len(file)}; give the index file that belongs to it."
        )
    rows = rows[np.all(_passing(file, wanted, classes, half), axis=0)[rows]][:first]
    if len(rows) == 0:
        raise InputError(f"No particle of {source} passes; nothing is written.")
    file.write(output, rows)
    return len(rows), len(file)


def expected_losses(
    source: Path | str,
    conditions: Sequence[str],
    *,
    classes: Sequence[int] = (),
    half: int | None = None,
    index: Tensor | None = None,
    first: int | None = None,
) -> list[str]:
    """What thresholds on columns of `cryogan assign` cost, a sentence each.

    p-values are uniform if the model is right, so that a threshold loses its own share of the
    images that fit. Probabilities that images show a particle say how many of those left out do,
    or do not where low probabilities are chosen. Particles count that pass all that is asked for
    but the threshold itself, up to the last that is written.

    Args:
        source: .star file of `select`.
        conditions, classes, half, index, first: of `select`, which were passed by some.
    """
    file = open_particle_file(Path(source))
    if not isinstance(file, StarFile):
        return []
    wanted = [Condition.parse(text) for text in conditions]
    passing = _passing(file, wanted, classes, half)
    rows = chosen_rows(source, len(file), index, None).numpy()
    written = np.all(passing, axis=0)[rows].nonzero()[0][:first]
    if first is not None and len(written) == first:
        rows = rows[: written[-1] + 1]
    found = []
    for number, condition in enumerate(wanted):
        value, above = condition.number, condition.comparison in (">", ">=")
        if value is None or not 0.0 < value < 1.0 or not (above or "<" in condition.comparison):
            continue
        if condition.column == FIT:
            share = value if above else 1.0 - value
            found.append(
                f"{FIT} {condition.comparison} {value:g} leaves out {100 * share:.3g} % of the "
                "images that fit, if map, CTFs and noise are right"
            )
        elif condition.column == PARTICLE:
            others = np.all([*passing[:number], *passing[number + 1 :]], axis=0)
            counted = rows[others[rows]]
            probability = file.particles.numbers(PARTICLE)[counted]
            found.append(_expected(probability, passing[number][counted], above))
    return found


@dataclass(frozen=True)
class ExpectedLoss:
    """What a choice among particles is expected to cost.

    Attributes:
        kept, left_out: numbers of particles.
        wanted_left_out: how many of those left out are expected to be wanted ones.
        unwanted_kept: how many of those kept are expected not to be.
    """

    kept: int
    left_out: int
    wanted_left_out: float
    unwanted_kept: float


def expected_loss(wanted: NDArray[np.float64], kept: _Flags) -> ExpectedLoss:
    """Of n particles, from the probability (n,) that each is wanted, and which are kept (n,).

    Example:
        >>> import numpy as np
        >>> expected_loss(np.array([0.25, 0.75, 1.0]), np.array([False, True, True]))
        ExpectedLoss(kept=2, left_out=1, wanted_left_out=0.25, unwanted_kept=0.25)
    """
    lost, junk = float(wanted[~kept].sum()), float((1.0 - wanted[kept]).sum())
    return ExpectedLoss(int(kept.sum()), int((~kept).sum()), lost, junk)


def _expected(probability: NDArray[np.float64], kept: _Flags, above: bool) -> str:
    """How many of those left out by a threshold on (n,) probabilities were wanted."""
    loss = expected_loss(probability if above else 1.0 - probability, kept)
    do, do_not = ("a particle", "do not") if above else ("no particle", "do")
    return (
        f"expected by {PARTICLE}: {loss.wanted_left_out:,.0f} of the {loss.left_out:,} that this "
        f"leaves out show {do}, {loss.unwanted_kept:,.0f} of the {loss.kept:,} others {do_not}"
    )


def _passing(
    file: StarFile | CsFile, wanted: Sequence[Condition], classes: Sequence[int], half: int | None
) -> list[_Flags]:
    """(n,) which particles pass: of each condition in turn, then of classes and half-set."""
    found: list[_Flags] = [file.matches(condition) for condition in wanted]
    found.append(np.ones(len(file), dtype=bool))
    if half is not None:
        found.append(file.matches(_half(file, half)))
    if classes:
        label = "rlnClassNumber" if isinstance(file, StarFile) else "alignments3D/class"
        each = [file.matches(Condition(label, "==", str(number))) for number in classes]
        found.append(np.any(each, axis=0))
    return found


def _half(file: StarFile | CsFile, half: int) -> Condition:
    if isinstance(file, StarFile):
        return Condition("rlnRandomSubset", "==", str(half))
    return Condition("alignments3D/split", "==", str(half - 1))
