"""RELION particle files (.star) of versions 2 to 5.

From 3.1 on, `data_optics` holds what is common to an optics group and `data_particles` the rest;
before, one block holds everything and the pixel size is
`rlnDetectorPixelSize × 10⁴ / rlnMagnification`. As in RELION, a value in the particle's own row
goes before its optics group's. Units are fixed here, once: Å, degrees, kV, mm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import roma
import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.io.aberrations import LABELS, unused_columns
from cryogan.io.images import (
    AS_STACK,
    Sign,
    distinct_images,
    find_stack,
    make_bright,
    open_stacks,
    parse_image_names,
)
from cryogan.io.mixed import describe_kinds, disk_pixel_sizes_A, settle_stack
from cryogan.io.mrc import MrcStack
from cryogan.io.picks import close_picks
from cryogan.io.ranges import RANGES, first_impossible, is_small_defocus, unit_of_defocus
from cryogan.io.star import Table, read_star, write_star
from cryogan.io.tomography import refuse_tomography
from cryogan.particles import FLIPPED, MULTIPLIED, CTFParams, Particles, ParticleSource, Pose
from cryogan.symmetry import in_asymmetric_unit

_Numbers = np.ndarray[Any, np.dtype[np.float64]]
_Rows = np.ndarray[Any, np.dtype[np.int64]]

_CTF_LABELS = {
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
_CTF_DEFAULTS = {"phase_shift_deg": 0.0, "b_factor_A2": 0.0, "scale": 1.0}
_OPTICS_FIELDS = ("voltage_kV", "spherical_aberration_mm", "amplitude_contrast")
_PIXEL_SIZE_LABELS = ("rlnImagePixelSize", "rlnPixelSize")
_LARGE_ASTIGMATISM_A = 5000.0
_HALF = "rlnRandomSubset"
_CLOSE = 0.25  # of the box
_EULER_LABELS = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")


@dataclass(frozen=True)
class Metadata:
    """The columns of a particle file, before any stack is looked at.

    Attributes:
        table: the table of particles.
        rows: (n,) the rows of it that were chosen.
        ctf: their CTF parameters.
        pixel_size: value in Å (the largest) and its column; None if the file has none.
        image_size: `rlnImageSize` (the largest); None if the file has none.
        optics_groups: number of optics groups among the chosen rows.
        aberrations: label → values of columns that are not used (`aberrations.LABELS`).
        pixel_sizes_A, image_sizes: (n,) of each row; None if the file has none.
        group_names: (n,) optics group of each row; None if the file has none.
        half: (n,) int64, `rlnRandomSubset`; None unless all are 1 or 2.
        micrograph_pixel_A: (n,) `rlnMicrographPixelSize`; None if the file has none.
        warnings: what is possible but strange, in words.
    """

    table: Table
    rows: _Rows
    ctf: CTFParams
    pixel_size: tuple[float, str] | None
    image_size: int | None
    optics_groups: int
    aberrations: Mapping[str, Sequence[str]]
    pixel_sizes_A: _Numbers | None = None
    image_sizes: _Numbers | None = None
    group_names: Sequence[str] | None = None
    half: Tensor | None = None
    micrograph_pixel_A: _Numbers | None = None
    warnings: tuple[str, ...] = ()

    def subset(self, chosen: Tensor) -> "Metadata":
        """What is known of the rows of `chosen` ((m,) int64, numbers among the n)."""
        numbers = chosen.numpy()

        def part(column: _Numbers | None) -> _Numbers | None:
            return None if column is None else column[numbers]

        names = self.group_names
        return replace(
            self,
            rows=self.rows[numbers],
            ctf=self.ctf[chosen],
            pixel_sizes_A=part(self.pixel_sizes_A),
            image_sizes=part(self.image_sizes),
            group_names=None if names is None else [names[number] for number in numbers.tolist()],
            half=None if self.half is None else self.half[chosen],
            micrograph_pixel_A=part(self.micrograph_pixel_A),
        )


def read_particles(
    star: Path | str,
    *,
    datadir: Path | str | None = None,
    strip_prefix: str | None = None,
    index: Tensor | None = None,
    pixel_size_A: float | None = None,
    sign: Sign = "auto",
    tables: list[Table] | None = None,
    signs: Tensor | None = None,
) -> Particles:
    """Read a particle set; its poses, if there are any, are not read.

    Images of several pixel sizes and boxes are brought to one (`io.mixed`). An image that is named
    twice is read once: the first row counts.

    Args:
        star: the particle file.
        datadir: folder that image names are relative to; without it the star file's folder and
            those above it are tried.
        strip_prefix: leading part of image names to drop.
        index: (m,) int64, the rows to use, from 0; all if None.
        pixel_size_A: pixel size; it goes before the star file's, and that before the headers'.
        sign: contrast of the protein on disk: "bright", "dark" (inverted on reading), or "auto" to
            detect it (`contrast.contrast_z`).
        tables: what is read in place of the file, where it is of another format.
        signs: what all images of the file are multiplied by before their contrast is looked at.

    Raises:
        InputError: with the file, row and column at fault. NaN pixels are looked for in the
            images that the contrast detector reads; in the others when they are read.
    """
    metadata = read_metadata(star, index, pixel_size_A, tables)
    names = parse_image_names(metadata.table, metadata.rows)
    disk = open_stacks(metadata.table, metadata.rows, names, datadir, strip_prefix)
    _check_boxes(metadata, disk)
    warnings = list(metadata.warnings)
    first = distinct_images(disk)
    twice = len(disk) - len(first)
    if twice:
        warnings.append(
            f"{_plural(twice, 'row')} left out that name{'s' * (twice == 1)} an image again"
        )
        metadata, disk = metadata.subset(first), disk.subset(first)
        index = torch.from_numpy(metadata.rows)
    table, rows = metadata.table, metadata.rows
    settled, size, origin = settle_stack(
        table.path,
        metadata.pixel_sizes_A,
        "" if metadata.pixel_size is None else metadata.pixel_size[1],
        pixel_size_A,
        disk,
        None if signs is None else signs[rows],
    )
    scale_A = metadata.micrograph_pixel_A
    if scale_A is None:
        scale_A = disk_pixel_sizes_A(settled, size).numpy()
    warnings += _close_picks(table, rows, scale_A, _CLOSE * settled.box_size * size)
    stack, contrast = make_bright(settled, size, sign)
    particles = Particles(stack, metadata.ctf, size, half=metadata.half)
    unused = unused_columns(metadata.aberrations, metadata.ctf, size, settled.box_size)
    lines = (
        _summary(particles, len(disk.files), origin, metadata.optics_groups, contrast),
        *describe_kinds(stack, metadata.group_names),
        *map(str, unused),
        *(f"warning: {words}" for words in warnings),
    )
    source = ParticleSource(
        Path(star),
        index,
        None if datadir is None else Path(datadir),
        strip_prefix,
        pixel_size_A,
        stack.sign < 0,
        "\n".join(lines),
        unused=unused,
    )
    return replace(particles, source=source)


def _check_boxes(metadata: Metadata, disk: MrcStack) -> None:
    """Refuse images of another box than `rlnImageSize`."""
    if metadata.image_sizes is None:
        return
    wrong = metadata.image_sizes != disk.boxes.numpy()
    if wrong.any():
        first = int(wrong.argmax())
        raise InputError(
            f"rlnImageSize of {metadata.table.where(int(metadata.rows[first]))} is "
            f"{metadata.image_sizes[first]:g} but the images of "
            f"{disk.files[int(disk.file_id[first])].path} have box {int(disk.boxes[first])}; give "
            "the stack that belongs to the star file."
        )


def _close_picks(table: Table, rows: _Rows, scale_A: _Numbers, distance_A: float) -> list[str]:
    """A warning of particles that were picked twice, as far as the file says where they were.

    Args:
        table: the table of particles.
        rows: (n,) rows of it.
        scale_A: (n,) pixel sizes of their micrographs.
        distance_A: of two that are the same particle.
    """
    labels = ("rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY")
    if not all(label in table for label in labels):
        return []
    try:
        x, y = (table.numbers(label)[rows] * scale_A for label in labels[1:])
    except InputError:
        return [
            "rlnCoordinateX or rlnCoordinateY is no number in a row: close picks not looked for"
        ]
    names = [table.columns["rlnMicrographName"][row] for row in rows.tolist()]
    count = int(close_picks(names, x, y, distance_A).sum())
    if count == 0:
        return []
    return [
        f"{_plural(count, 'particle')} within {distance_A:.4g} Å (a quarter of the box) of another "
        "on the micrograph: picked twice?"
    ]


def _summary(
    particles: Particles, stacks: int, origin: str, optics_groups: int, contrast: str
) -> str:
    ctf = particles.ctf
    defocus_um = (ctf.defocus_u_A + ctf.defocus_v_A) / 2e4
    optics = ", ".join(
        f"{name} {_range(values, digits)}{unit}"
        for name, values, digits, unit in (
            ("voltage", ctf.voltage_kV, 0, " kV"),
            ("Cs", ctf.spherical_aberration_mm, 2, " mm"),
            ("amplitude contrast", ctf.amplitude_contrast, 2, ""),
        )
    )
    return "\n".join(
        (
            f"{len(particles):,} particles in {_plural(stacks, 'stack')}, "
            f"box {particles.box_size} px",
            f"pixel size {particles.pixel_size_A:.4g} Å (from {origin})",
            f"{_plural(optics_groups, 'optics group')}: {optics}",
            f"defocus {_range(defocus_um, 2)} µm, median {float(defocus_um.median()):.2f} µm",
            *_corrections(ctf.correction),
            contrast,
        )
    )


def _corrections(correction: Tensor) -> list[str]:
    return [
        f"{_plural(int((correction == value).sum()), 'image')} {done}"
        for value, done in (
            (FLIPPED, "with flipped phases: the transfer function is |CTF|"),
            (MULTIPLIED, "multiplied by the CTF: divided by |CTF|, of at least 0.1, on reading"),
        )
        if bool((correction == value).any())
    ]


def _plural(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _range(values: Tensor, digits: int) -> str:
    low, high = (f"{float(value):.{digits}f}" for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def read_metadata(
    star: Path | str,
    index: Tensor | None = None,
    pixel_size_A: float | None = None,
    tables: list[Table] | None = None,
) -> Metadata:
    """The columns of a particle file, checked; no stack needs to exist.

    Args:
        star: the particle file.
        index: (m,) int64, the rows to use, from 0; all if None.
        pixel_size_A: what the user gave; then impossible pixel sizes in the file do not matter.
        tables: what stands in place of the file, where it is of another format.

    Raises:
        InputError: a column or value is missing or not possible, the particles are of tomograms,
            or `index` goes beyond the file.
    """
    tables = read_star(star) if tables is None else tables
    table = _particle_table(tables, star)
    rows = _chosen(table, index)
    lookup = _Lookup.of(tables, table, rows)
    refuse_tomography(tables, table)
    values = {
        field: lookup.numbers(label, _CTF_DEFAULTS.get(field))
        for field, label in _CTF_LABELS.items()
    }
    ctf = {
        field: torch.from_numpy(column).float()
        for field, column in values.items()
        if column is not None
    }
    ctf["correction"] = _correction(lookup, len(rows))
    missing = [_CTF_LABELS[field] for field in values if field not in ctf]
    if missing:
        raise InputError(
            f"{star} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)} in its "
            "particle and optics tables; add what is missing or export the particles again with "
            "their CTF."
        )
    for field, column in values.items():
        if column is not None:
            lookup.require_possible(_CTF_LABELS[field], field, column)
    try:
        pixel_sizes_A, origin = lookup.pixel_sizes_A()
    except InputError:
        if pixel_size_A is None:
            raise
        pixel_sizes_A, origin = None, ""
    image_sizes = lookup.numbers("rlnImageSize")
    params = CTFParams(**ctf, filter=None)
    return Metadata(
        table=table,
        rows=rows,
        ctf=params,
        pixel_size=None if pixel_sizes_A is None else (float(pixel_sizes_A.max()), origin),
        image_size=None if image_sizes is None else round(float(image_sizes.max())),
        optics_groups=len(np.unique(lookup.group)),
        pixel_sizes_A=pixel_sizes_A,
        image_sizes=image_sizes,
        group_names=lookup.group_names(),
        half=_halves(table, rows),
        micrograph_pixel_A=lookup.numbers("rlnMicrographPixelSize"),
        warnings=(*_warnings_of_defocus(params, star), *_warnings_of_end(table)),
        aberrations={label: words for label in LABELS if (words := lookup.words(label))},
    )


def _correction(lookup: "_Lookup", count: int) -> Tensor:
    """(n,) what was done to the images: see `CTFParams.correction`."""
    correction = torch.zeros(count, dtype=torch.int64)
    for label, value in (
        ("rlnCtfDataArePhaseFlipped", FLIPPED),
        ("rlnCtfDataAreCtfPremultiplied", MULTIPLIED),
    ):
        flags = lookup.numbers(label, 0.0)
        assert flags is not None
        correction[torch.from_numpy(flags != 0)] = value
    return correction


def _warnings_of_end(table: Table) -> list[str]:
    if not table.ends_open:
        return []
    return [f"{table.path} ends without a line break: cut short?"]


def _halves(table: Table, rows: _Rows) -> Tensor | None:
    words = [table.columns[_HALF][row] for row in rows] if _HALF in table else []
    if not words or not set(words) <= {"1", "2"}:
        return None
    return torch.tensor([int(word) for word in words])


def _warnings_of_defocus(ctf: CTFParams, star: Path | str) -> list[str]:
    """What is strange about the defoci of a set.

    Raises:
        InputError: they cannot be in Å.
    """
    u, v = ctf.defocus_u_A, ctf.defocus_v_A
    largest_A = float(torch.maximum(u.abs(), v.abs()).max())
    unit = unit_of_defocus(largest_A)
    if unit is not None:
        raise InputError(
            f"The defocus (rlnDefocusU, rlnDefocusV) in {star} is {largest_A:g} at most and must "
            f"be in Å (in {unit}?); correct the columns."
        )
    astigmatism_A = (u - v).abs()
    if float(astigmatism_A.median()) > 2 * _LARGE_ASTIGMATISM_A:
        raise InputError(
            f"rlnDefocusU and rlnDefocusV in {star} differ by {float(astigmatism_A.median()):.0f} "
            "Å in half of the rows, which no astigmatism does; correct the wrong column."
        )
    found = []
    if is_small_defocus(largest_A):
        found.append(f"defocus is {largest_A:g} Å at most: in nm?")
    for what, rows in (
        ("zero", (u == 0) & (v == 0) & (ctf.amplitude_contrast < 1)),  # else there is no CTF
        ("negative (overfocus)", (u + v) < 0),
        (
            f"astigmatic by more than {_LARGE_ASTIGMATISM_A:g} Å",
            astigmatism_A > _LARGE_ASTIGMATISM_A,
        ),
    ):
        if bool(rows.any()):
            found.append(f"defocus is {what} in {_plural(int(rows.sum()), 'row')}")
    return found


def _particle_table(tables: list[Table], star: Path | str) -> Table:
    """The one table of particles.

    Raises:
        InputError: there is none, or more than one.
    """
    first = _table_with(tables, "rlnImageName", star)
    for other in tables:
        if other is not first and "rlnImageName" in other and len(other) > 0:
            raise InputError(
                f"{star} has two tables of particles, whose first rows are lines {first.lines[0]} "
                f"and {other.lines[0]}; put them into one, or remove one."
            )
    return first


def _table_with(tables: list[Table], label: str, star: Path | str) -> Table:
    for table in tables:
        if label in table and len(table) > 0:
            return table
    raise InputError(
        f"{star} has no table with rows and a column {label}; give a RELION particle file."
    )


def _chosen(table: Table, index: Tensor | None) -> _Rows:
    if index is None:
        return np.arange(len(table))
    rows: _Rows = index.numpy()
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


@dataclass(frozen=True)
class _Lookup:
    """Values of chosen particles, from their own rows or their optics groups'.

    Attributes:
        table: the table of particles.
        rows: (n,) chosen rows of it.
        optics: the table of optics groups, if there is one.
        group: (n,) each chosen row's row in `optics`; zeros without one.
    """

    table: Table
    rows: _Rows
    optics: Table | None
    group: _Rows

    @classmethod
    def of(cls, tables: list[Table], table: Table, rows: _Rows) -> "_Lookup":
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
        _, first = np.unique(known, return_index=True)
        if len(first) < len(known):
            row = min(set(range(len(known))) - set(first.tolist()))
            raise InputError(
                f"The optics group {optics.columns['rlnOpticsGroup'][row]} stands again in "
                f"{optics.where(row)}; remove or renumber one of the two."
            )
        wanted = table.numbers("rlnOpticsGroup")[rows]
        matches = wanted[:, None] == known
        lost = ~matches.any(axis=1)
        if lost.any():
            row = int(rows[lost.argmax()])
            raise InputError(
                f"rlnOpticsGroup is {table.columns['rlnOpticsGroup'][row]} in {table.where(row)}, "
                "which the optics table does not list; add the group or correct the row."
            )
        return cls(table, rows, optics, matches.argmax(axis=1))

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

    def numbers(self, label: str, default: float | None = None) -> _Numbers | None:
        """(n,) values; `default` or None where neither table has the column."""
        if label in self.table:
            return self.table.numbers(label)[self.rows]
        if self.optics is not None and label in self.optics:
            return self.optics.numbers(label)[self.group]
        return None if default is None else np.full(len(self.rows), default)

    def require_possible(self, label: str, quantity: str, values: _Numbers) -> None:
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

    def pixel_sizes_A(self) -> tuple[_Numbers | None, str]:
        """(n,) pixel sizes and the columns they come from; None if there are none.

        Raises:
            InputError: one is not possible.
        """
        for label in _PIXEL_SIZE_LABELS:
            sizes = self.numbers(label)
            if sizes is not None:
                self.require_possible(label, "pixel_size_A", sizes)
                return sizes, label
        detector_um = self.numbers("rlnDetectorPixelSize")
        magnification = self.numbers("rlnMagnification")
        if detector_um is None or magnification is None:
            return None, ""
        self.require_possible("rlnMagnification", "magnification", magnification)
        self.require_possible("rlnDetectorPixelSize", "detector_pixel_size_um", detector_um)
        sizes = detector_um * 1e4 / magnification
        origin = "rlnDetectorPixelSize and rlnMagnification"
        self.require_possible(f"The pixel size of {origin}", "pixel_size_A", sizes)
        return sizes, origin


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


def read_poses(star: Path | str, *, pixel_size_A: float | None = None) -> Pose:
    """The poses in a star file, for evaluation only.

    Args:
        star: a file with `rlnAngleRot`, `rlnAngleTilt` and `rlnAnglePsi`; shifts are taken from
            `rlnOriginXAngst`/`YAngst` or `rlnOriginX`/`Y` (pixels), and are zero without them.
        pixel_size_A: for shifts in pixels; needed where the file has no pixel size.

    Returns:
        A pose for each row, in file order. RELION's angles are intrinsic ZYZ (see `Pose`).

    Raises:
        InputError: an angle column is missing, a value is no number, or shifts are in pixels of
            unknown size.
    """
    tables = read_star(star)
    table = _table_with(tables, _EULER_LABELS[0], star)
    missing = [label for label in _EULER_LABELS if label not in table]
    if missing:
        raise InputError(f"{star} lacks {', '.join(missing)}; give a file with refined poses.")
    euler_deg = np.stack([table.numbers(label) for label in _EULER_LABELS], axis=-1)
    rotation: Tensor = roma.euler_to_rotmat("ZYZ", torch.from_numpy(euler_deg), degrees=True)
    lookup = _Lookup.of(tables, table, np.arange(len(table)))
    shift_A = -_origins_A(lookup, pixel_size_A)  # where the particle is, not where to move it
    return Pose(rotation.float(), torch.from_numpy(shift_A).float())


def _origins_A(lookup: _Lookup, pixel_size_A: float | None) -> _Numbers:
    """(n, 2) of RELION's origins (x, y)."""
    table = lookup.table
    if "rlnOriginXAngst" in table and "rlnOriginYAngst" in table:
        return np.stack([table.numbers(f"rlnOrigin{axis}Angst") for axis in "XY"], axis=-1)
    if "rlnOriginX" not in table or "rlnOriginY" not in table:
        return np.zeros((len(table), 2))
    sizes_A = _sizes_of_origins_A(lookup, pixel_size_A)
    return np.stack([table.numbers(f"rlnOrigin{axis}") * sizes_A for axis in "XY"], axis=-1)


def _sizes_of_origins_A(
    lookup: _Lookup, pixel_size_A: float | None, disk_pixel_sizes_A: Tensor | None = None
) -> _Numbers:
    """(n,) pixel sizes that turn `rlnOriginX` and `rlnOriginY` into Å."""
    if pixel_size_A is not None:
        return np.full(len(lookup.rows), pixel_size_A)
    sizes_A, _ = lookup.pixel_sizes_A()
    if sizes_A is None and disk_pixel_sizes_A is not None:
        sizes_A = disk_pixel_sizes_A.numpy()
    if sizes_A is None:
        raise InputError(
            f"{lookup.table.path} has shifts in pixels (rlnOriginX, rlnOriginY) but no pixel "
            "size; give it with --apix."
        )
    return sizes_A


def write_particles(
    path: Path | str,
    *,
    image_names: Sequence[str] | str,
    ctf: CTFParams,
    pixel_size_A: float,
    box_size: int,
    pose: Pose | None = None,
    optics_group: Tensor | None = None,
    extra: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Write a RELION 3.1 particle file, atomically.

    Args:
        path: the star file.
        image_names: n names `N@stack`, or one stack's name that holds the n images in order.
        ctf: n parameter sets; B-factor and scale are written only if some differ from 0 and 1.
        pixel_size_A: pixel size of the images.
        box_size: their box.
        pose: n poses to write along, or None.
        optics_group: (n,) int, keeps particles of equal optics in different groups; without
            it there is one group for each set of voltage, Cs and amplitude contrast.
        extra: further columns of the particle table, label (no underscore) to n values.

    Raises:
        InputError: the file cannot be written.
    """
    n = len(ctf)
    if isinstance(image_names, str):
        image_names = [f"{number:06d}@{image_names}" for number in range(1, n + 1)]
    label = torch.zeros(n) if optics_group is None else optics_group
    keys = torch.stack([label.double(), *(getattr(ctf, f).double() for f in _OPTICS_FIELDS)], -1)
    groups, group = torch.unique(keys, dim=0, return_inverse=True)
    numbers = [str(number) for number in range(1, len(groups) + 1)]
    optics: dict[str, Sequence[str]] = {
        "rlnOpticsGroup": numbers,
        "rlnOpticsGroupName": [f"opticsGroup{number}" for number in numbers],
        **{_CTF_LABELS[f]: _fixed(groups[:, i]) for i, f in enumerate(_OPTICS_FIELDS, 1)},
        "rlnImagePixelSize": [f"{pixel_size_A:.6f}"] * len(groups),
        "rlnImageSize": [str(box_size)] * len(groups),
        "rlnImageDimensionality": ["2"] * len(groups),
    }
    particles: dict[str, Sequence[str]] = {
        "rlnImageName": image_names,
        "rlnOpticsGroup": [numbers[number] for number in group.tolist()],
    }
    for field, column in _CTF_LABELS.items():
        values: Tensor = getattr(ctf, field)
        optional = field in ("b_factor_A2", "scale") and bool(
            (values == _CTF_DEFAULTS[field]).all()
        )
        if field not in _OPTICS_FIELDS and not optional:
            particles[column] = _fixed(values)
    if pose is not None:
        poses = _angles(pose) | _origins(pose.shift_A, "Angst")
        particles |= {label: _fixed(values) for label, values in poses.items()}
    write_star(path, [("optics", optics), ("particles", particles | dict(extra or {}))])


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
        pixel_size_A: what the user gave: it takes the place of the source's.
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
    table = _particle_table(tables, source)
    chosen = _chosen(table, rows)
    lookup = _Lookup.of(tables, table, chosen)
    particles = {
        label: [_written(c[row]) for row in chosen.tolist()] for label, c in table.columns.items()
    }
    particles["rlnImageName"] = image_names_from(path, table, chosen, datadir, strip_prefix)
    in_A, in_pixels = "rlnOriginXAngst" in table, "rlnOriginX" in table
    assigned: dict[str, Tensor | Sequence[str]] = {**_angles(in_asymmetric_unit(pose, symmetry))}
    if in_A or lookup.optics is not None:
        assigned |= _origins(pose.shift_A, "Angst")
    if in_pixels or lookup.optics is None:
        sizes_A = torch.from_numpy(_sizes_of_origins_A(lookup, pixel_size_A, disk_pixel_sizes_A))
        assigned |= _origins(pose.shift_A / sizes_A[:, None], "")
    priors = {_prior_of(label): values for label, values in assigned.items()}
    assigned |= {label: values for label, values in priors.items() if label in table}
    given = {
        "rlnClassNumber": class_number,
        _HALF: half,
        "rlnLogLikeliContribution": log_likelihood,
    }
    assigned |= {label: values for label, values in given.items() if values is not None}
    for label, values in (assigned | dict(columns or {})).items():
        if len(values) != len(chosen):
            raise ValueError(f"{label} has {len(values)} values for {len(chosen)} particles")
        particles[label] = _words(label, values) if isinstance(values, Tensor) else list(values)
    written = [
        (
            t.name,
            particles
            if t is table
            else {label: [*map(_written, c)] for label, c in t.columns.items()},
        )
        for t in tables
    ]
    for label in _PIXEL_SIZE_LABELS if pixel_size_A is not None else ():
        for _, columns in written:
            if label in columns:
                columns[label] = [f"{pixel_size_A:.6f}"] * len(columns[label])
    write_star(path, written)


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
    rows: _Rows,
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


def _angles(pose: Pose) -> dict[str, Tensor]:
    """Label → (n,) degrees."""
    euler_deg = roma.rotmat_to_euler("ZYZ", pose.rotation.double(), degrees=True)
    return dict(zip(_EULER_LABELS, euler_deg.unbind(-1), strict=True))


def _origins(shift: Tensor, unit: str) -> dict[str, Tensor]:
    """Label → (n,): where to move a particle that is at `shift`, (n, 2)."""
    return {f"rlnOrigin{axis}{unit}": -shift[:, i] for i, axis in enumerate("XY")}


def _words(label: str, values: Tensor) -> list[str]:
    if not values.is_floating_point():
        return [str(value) for value in values.tolist()]
    if not bool(values.isfinite().all()):
        raise ValueError(f"{label} holds a value that is not finite")
    return _fixed(values)


def _fixed(values: Tensor) -> list[str]:
    return [f"{value:.6f}" for value in (values + 0.0).tolist()]  # + 0.0: no "-0.000000"
