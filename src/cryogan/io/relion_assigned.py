"""A particle file again, with the poses that its particles have been assigned."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.io.images import AS_STACK, find_stack, open_stacks, parse_image_names
from cryogan.io.relion_columns import (
    HALF_LABEL,
    Lookup,
    Rows,
    chosen_rows,
    particle_table,
)
from cryogan.io.relion_pixel_size import Columns, with_pixel_size
from cryogan.io.relion_poses import angle_columns, origin_columns, sizes_of_origins_A
from cryogan.io.relion_writing import fixed_point
from cryogan.io.star import Table, read_star, write_star
from cryogan.particles import Pose
from cryogan.symmetry import in_asymmetric_unit


def write_assigned(
    path: Path | str,
    source: Path | str,
    pose: Pose,
    *,
    symmetry: str = "C1",
    rows: Tensor | None = None,
    half: Tensor | None = None,
    class_number: Tensor | None = None,
    log_likelihood: Tensor | None = None,
    columns: Mapping[str, Tensor | Sequence[str]] | None = None,
    datadir: Path | str | None = None,
    strip_prefix: str | None = None,
    pixel_size_A: float | None = None,
    disk_pixel_sizes_A: Tensor | None = None,
    tables: list[Table] | None = None,
) -> None:
    """Write a particle file again with the poses that its particles have been assigned.

    All tables and columns of `source` stay, in their order, with the chosen rows of the particle
    table; columns that are given replace those of the same label or come after them. Without an
    optics table the file is of RELION 3.0 and origins are in pixels, otherwise in Å. Where the
    source has origins of the other kind, or priors (`rlnAngleRotPrior`, `rlnOriginXPriorAngst`
    and so on, which RELION centres local searches on), these become the new pose too.

    RELION 3.1.3 warns of labels that it does not know, ignores them and carries them on into what
    it writes; that is what becomes of `columns` with labels of our own.

    An image name stays as it is where it leads to the same stack when looked for beside the new
    file and in the folders above it, as in a RELION project; otherwise the stack's absolute path
    takes its place, which RELION finds from any working folder.

    Args:
        path: the star file to write.
        source: the particle file that was read.
        pose: n poses.
        symmetry: the molecule's; poses are moved into the asymmetric unit that RELION keeps them
            in (`symmetry.in_asymmetric_unit`), without which its local searches go wrong.
        rows: (n,) int64 rows of the particle table, from 0; all if None.
        half: (n,) int64, 1 or 2, into `rlnRandomSubset`.
        class_number: (n,) int64, from 1, into `rlnClassNumber`.
        log_likelihood: (n,) into `rlnLogLikeliContribution`.
        columns: further columns, label (no underscore) to n numbers or words.
        datadir, strip_prefix: where the images were found (see `read_particles`).
        pixel_size_A: what the user gave: the file says it in place of the source's.
        disk_pixel_sizes_A: (n,) of the images; for origins in pixels where nothing else says.
        tables: what `source` holds, where it is of another format.

    Raises:
        InputError: `source` is no particle file or would be overwritten, `rows` go beyond it, a
            stack is not there, origins are in pixels of unknown size, the symmetry is unknown, or
            the file cannot be written.
        ValueError: numbers of rows differ, a pose or number is not finite, or a half is not 1
            or 2.
    """
    if half is not None and not bool(((half == 1) | (half == 2)).all()):
        raise ValueError("half must be 1 or 2")
    path = Path(path)
    if path.exists() and Path(source).exists() and path.samefile(source):
        raise InputError(
            f"The poses would be written over {source}, the file their particles come from; "
            "choose another name for the output."
        )
    tables = read_star(source) if tables is None else tables
    table = particle_table(tables, source)
    chosen = chosen_rows(table, rows)
    lookup = Lookup.of(tables, table, chosen)
    particles = {
        label: [_written(c[row]) for row in chosen.tolist()] for label, c in table.columns.items()
    }
    particles["rlnImageName"] = image_names_from(path, table, chosen, datadir, strip_prefix)
    in_A, in_pixels = "rlnOriginXAngst" in table, "rlnOriginX" in table
    assigned: dict[str, Tensor | Sequence[str]] = {
        **angle_columns(in_asymmetric_unit(pose, symmetry))
    }
    if in_A or lookup.optics is not None:
        assigned |= origin_columns(pose.shift_A, "Angst")
    if in_pixels or lookup.optics is None:
        sizes_A = torch.from_numpy(sizes_of_origins_A(lookup, pixel_size_A, disk_pixel_sizes_A))
        assigned |= origin_columns(pose.shift_A / sizes_A[:, None], "")
    priors = {_prior_of(label): values for label, values in assigned.items()}
    assigned |= {label: values for label, values in priors.items() if label in table}
    given = {
        "rlnClassNumber": class_number,
        HALF_LABEL: half,
        "rlnLogLikeliContribution": log_likelihood,
    }
    assigned |= {label: values for label, values in given.items() if values is not None}
    for label, values in (assigned | dict(columns or {})).items():
        if len(values) != len(chosen):
            raise ValueError(f"{label} has {len(values)} values for {len(chosen)} particles")
        particles[label] = _words(label, values) if isinstance(values, Tensor) else list(values)
    written: list[tuple[str, Columns]] = [
        (
            t.name,
            particles
            if t is table
            else {label: [*map(_written, c)] for label, c in t.columns.items()},
        )
        for t in tables
    ]
    write_star(path, written if pixel_size_A is None else with_pixel_size(written, pixel_size_A))


def _written(value: Any) -> str:
    """A value as it stands in the file, or a number of another format's."""
    return value if isinstance(value, str) else f"{value:.6f}"


def _prior_of(label: str) -> str:
    """RELION's label for the prior of an angle or origin."""
    bare = label.removesuffix("Angst")
    return f"{bare}Prior{label.removeprefix(bare)}"


def image_names_from(
    star: Path,
    table: Table,
    rows: Rows,
    datadir: Path | str | None,
    strip_prefix: str | None,
) -> list[str]:
    """Image names of `rows` that lead to their stacks from a star file elsewhere."""
    names = parse_image_names(table, rows)
    stack = open_stacks(table, rows, names, datadir, strip_prefix)
    target: list[str] = []
    for name, header in zip(names.stacks, stack.files, strict=True):
        found = find_stack(star, name)
        same = found is not None and found.samefile(header.path)
        target.append(name if same else str(header.path.absolute()))
    written = [table.columns["rlnImageName"][row] for row in rows.tolist()]
    return [
        name[: name.find("@") + 1] + target[file] + AS_STACK * name.endswith(AS_STACK)
        for name, file in zip(written, names.file_id.tolist(), strict=True)
    ]


def _words(label: str, values: Tensor) -> list[str]:
    if not values.is_floating_point():
        return [str(value) for value in values.tolist()]
    if not bool(values.isfinite().all()):
        raise ValueError(f"{label} holds a value that is not finite")
    return fixed_point(values)
