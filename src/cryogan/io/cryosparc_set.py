"""Particle sets of cryoSPARC: a .cs file with its passthrough files, or a .csg group.

The records become the tables of a RELION file (`tables`), so that everything that is checked in a
star file is checked here, too; poses in them are never read. Fields that a .cs file lacks are
those of passthrough files, joined on `uid`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.recfunctions import repack_fields
from torch import Tensor

from cryogan.errors import InputError
from cryogan.io.aberrations import tilt_of_field
from cryogan.io.cryosparc import (
    ALIGNMENT_FIELDS,
    Records,
    alignment_fields,
    field_numbers,
    fields_of,
    read_records,
    save_records,
)
from cryogan.io.images import AS_STACK, Sign, find_stack, relion_image_name
from cryogan.io.relion import read_particles as read_star_particles
from cryogan.io.relion_assigned import image_names_from
from cryogan.io.result_groups import read_group
from cryogan.io.star import Table
from cryogan.particles import Particles, Pose, UnusedColumn

Paths = Path | str | Sequence[Path | str]

_PER_GROUP = {
    "rlnVoltage": "ctf/accel_kv",
    "rlnSphericalAberration": "ctf/cs_mm",
    "rlnAmplitudeContrast": "ctf/amp_contrast",
    "rlnImagePixelSize": "blob/psize_A",
    "rlnImageSize": "blob/shape",
    "rlnOpticsGroup": "ctf/exp_group_id",
}
_PER_PARTICLE = {
    "rlnDefocusU": "ctf/df1_A",
    "rlnDefocusV": "ctf/df2_A",
    "rlnDefocusAngle": "ctf/df_angle_rad",
    "rlnPhaseShift": "ctf/phase_shift_rad",
    "rlnCtfBfactor": "ctf/bfactor",
    "rlnCtfScalefactor": "ctf/scale",
}
_REQUIRED = (
    *("uid", "blob/path", "blob/idx", "ctf/accel_kv", "ctf/cs_mm", "ctf/amp_contrast"),
    *("ctf/df1_A", "ctf/df2_A", "ctf/df_angle_rad"),
)
_UNUSED = {
    "ctf/shift_A": "beam shift",
    "ctf/tilt_A": "beam tilt times Cs (Å)",
    "ctf/trefoil_A": "trefoil",
    "ctf/tetra_A": "tetrafoil",
    "ctf/anisomag": "anisotropic magnification",
}
_FIELD_OF = _PER_GROUP | _PER_PARTICLE | {"rlnImageName": "blob/path"}
_JOB = re.compile(r"J\d+(?=_)")


@dataclass(frozen=True)
class _Table(Table):
    """A table whose `lines` are numbers of records, from 0: each row's, or its group's first."""

    def where(self, row: int) -> str:
        return f"particle {self.lines[row] + 1} of {self.path}"


def read_particles(
    path: Path | str,
    *,
    passthrough: Paths | None = None,
    index: Tensor | None = None,
    sign: Sign = "auto",
    **options: Any,
) -> Particles:
    """Read a .cs or .csg particle set; poses in it are not read.

    Images are multiplied by `blob/sign`; where their contrast then clearly is the
    other one, it counts. A `sign` that is asked for takes the place of both.

    Args:
        path: the .cs or .csg file.
        passthrough: files that hold the fields that it lacks; without any, those of the same job
            beside it are tried.
        index: (m,) int64, the rows to use, from 0; all if None.
        sign: "auto", "bright" or "dark".
        **options: those of `relion.read_particles`.

    Raises:
        InputError: with the file, particle and field at fault.
    """
    records, used = read_set(path, passthrough)
    recorded = sign == "auto" and "blob/sign" in fields_of(records)
    signs = _signs(records, path) if recorded else None
    try:
        particles = read_star_particles(
            path, tables=tables(records, path), index=index, sign=sign, signs=signs, **options
        )
    except InputError as error:
        raise InputError(_in_fields(str(error))) from error
    assert particles.source is not None
    lines = [_in_fields(particles.source.summary)]
    if signs is not None:
        rows = particles.source.rows
        dark = int(((signs if rows is None else signs[rows]) < 0).sum())
        lines.append(f"that is after blob/sign, which inverts {dark:,} of {len(particles):,}")
    if len(used) > 1:
        lines.append(f"fields of {', '.join(str(file) for file in used)}, joined on uid")
    unused = _unused(records, particles)
    lines += map(str, unused)
    source = replace(
        particles.source,
        summary="\n".join(lines),
        options={} if passthrough is None else {"passthrough": passthrough},
        unused=unused,
    )
    return replace(particles, source=source)


def _unused(records: Records, particles: Particles) -> tuple[UnusedColumn, ...]:
    """Fields of the chosen records that are not used and not zero."""
    assert particles.source is not None
    rows = particles.source.rows
    if rows is not None:
        records = records[rows.numpy()]
    found = []
    for name, what in _UNUSED.items():
        if name not in fields_of(records) or not np.any(records[name] != 0):
            continue
        values, effect = records[name], ""
        if name == "ctf/tilt_A" and values.ndim == 2 and values.shape[1] == 2:
            effect = tilt_of_field(values, particles.ctf, particles.pixel_size_A)
        found.append(UnusedColumn(name, what, f"up to {np.abs(values).max():.3g}", effect))
    return tuple(found)


def _in_fields(message: str) -> str:
    """A message about a star file in cryoSPARC's words."""
    message = re.sub(r"\brln\w+", lambda label: _named(label[0]), message)
    return message.replace("star file", "particle file")


def _named(label: str) -> str:
    """The field that became a column; angles are in degrees by then."""
    field = _FIELD_OF.get(label, label)
    return f"{field} in degrees" if field.endswith("_rad") else field


def _signs(records: Records, path: Path | str) -> Tensor:
    signs = field_numbers(records, "blob/sign", path)
    bad = signs.abs() != 1
    if bad.any():
        particle = int(bad.int().argmax())
        raise InputError(
            f"blob/sign of particle {particle + 1} of {path} is {signs[particle]:g}, but a sign "
            "is 1 or -1; correct the file or say which it is with --sign."
        )
    return signs


def read_set(path: Path | str, passthrough: Paths | None = None) -> tuple[Records, list[Path]]:
    """The records of a set with the fields of all its files, and these files.

    Raises:
        InputError: a file cannot be read, a uid stands twice or is missing in a passthrough file,
            or a field is missing in all.
    """
    path = Path(path)
    if path.suffix == ".csg":
        return _read_group(path)
    records, used = _with_passthrough(path, passthrough)
    _require(records, path, "give the file that has it with --passthrough")
    _unique_uids(records, path)
    return records, used


def read_records_of(path: Path | str) -> Records:
    """The records of a .cs file; where they lack fields of a set, with passthrough files beside it.

    Raises:
        InputError: a file cannot be read, or a uid stands twice where files are joined.
    """
    return _with_passthrough(Path(path), None)[0]


def _with_passthrough(path: Path, passthrough: Paths | None) -> tuple[Records, list[Path]]:
    """Records with the fields of the files given, or of those beside them; and these files."""
    records = read_records(path)
    used = [path]
    given = [passthrough] if isinstance(passthrough, str | Path) else list(passthrough or ())
    for file in map(Path, given):
        more = read_records(file)
        fields = [name for name in fields_of(more) if name not in fields_of(records)]
        records = _joined(records, path, more, file, fields)
        used.append(file)
    for file in _beside(path) if passthrough is None else ():
        if all(name in fields_of(records) for name in _REQUIRED):
            break
        more = read_records(file)
        fields = [name for name in fields_of(more) if name not in fields_of(records)]
        if (
            all("uid" in fields_of(each) for each in (records, more))
            and np.isin(records["uid"], more["uid"]).all()
        ):
            records = _joined(records, path, more, file, fields)
            used.append(file)
    return records, used


def _beside(path: Path) -> list[Path]:
    """Passthrough files of the same job in the same folder."""
    job = _JOB.search(path.name)
    found = sorted(path.parent.glob("*passthrough*.cs"))
    return [
        file
        for file in found
        if file != path
        and (job is None or (own := _JOB.search(file.name)) is None or own[0] == job[0])
    ]


def _read_group(path: Path) -> tuple[Records, list[Path]]:
    files = read_group(path)
    main = files["blob"]
    records = read_records(main)
    fields = ["uid", *(name for name in fields_of(records) if name.startswith("blob/"))]
    if fields[0] in fields_of(records):
        records = repack_fields(records[fields])
    for slot, file in files.items():
        more = read_records(file)
        fields = [name for name in fields_of(more) if name.startswith(f"{slot}/")]
        if slot != "blob":
            records = _joined(records, main, more, file, fields)
    _require(records, path, "add the result that has it to the group")
    _unique_uids(records, main)
    return records, list(dict.fromkeys([main, *files.values()]))


def _require(records: Records, path: Path, remedy: str) -> None:
    missing = [name for name in _REQUIRED if name not in fields_of(records)]
    if missing:
        raise InputError(
            f"{path} and its passthrough files have no field {', '.join(missing)}; {remedy}."
        )


def _unique_uids(records: Records, path: Path) -> None:
    values, first, counts = np.unique(records["uid"], return_index=True, return_counts=True)
    if (counts > 1).any():
        number = int((counts > 1).argmax())
        raise InputError(
            f"The uid {values[number]} of particle {first[number] + 1} of {path} stands there "
            f"{counts[number]} times, and the two half-sets must not share a particle; remove "
            "duplicates in cryoSPARC."
        )


def _joined(
    records: Records, path: Path, more: Records, file: Path, fields: Sequence[str]
) -> Records:
    """Records with further fields of another file, joined on `uid`."""
    for named, each in ((path, records), (file, more)):
        if "uid" not in fields_of(each):
            raise InputError(
                f"{named} has no field uid, on which passthrough files are joined; give a .cs "
                "file as cryoSPARC writes it."
            )
        _unique_uids(each, named)
    order = np.argsort(more["uid"])
    place = np.searchsorted(more["uid"], records["uid"], sorter=order).clip(max=len(more) - 1)
    row = order[place]
    lost = more["uid"][row] != records["uid"]
    if lost.any():
        particle = int(lost.argmax())
        raise InputError(
            f"Particle {particle + 1} of {path} (uid {records['uid'][particle]}) is not in {file}; "
            "give the passthrough file of the same job."
        )
    types = [(name, records.dtype[name]) for name in fields_of(records)]
    result: Records = np.empty(
        len(records), dtype=[*types, *((name, more.dtype[name]) for name in fields)]
    )
    for name in fields_of(records):
        result[name] = records[name]
    for name in fields:
        result[name] = more[name][row]
    return result


def tables(records: Records, path: Path | str) -> list[Table]:
    """The set as the tables of a RELION 3.1 file, without poses; its values in RELION's units.

    Particles of equal exposure group, voltage, Cs, amplitude contrast, pixel size and box make an
    optics group.

    Raises:
        InputError: a field is not what it should be.
    """
    path = Path(path)
    here = fields_of(records)
    common = {
        label: _column(records, field, path) for label, field in _PER_GROUP.items() if field in here
    }
    groups, first, group = np.unique(
        np.stack([*common.values()], -1), axis=0, return_index=True, return_inverse=True
    )
    numbers = [str(number) for number in range(1, len(groups) + 1)]
    optics: dict[str, Any] = dict(zip(common, groups.T, strict=True))
    names = optics.pop("rlnOpticsGroup", np.zeros(len(groups)))
    optics = {
        "rlnOpticsGroup": numbers,
        "rlnOpticsGroupName": [f"exposureGroup{name:.0f}" for name in names],
        **optics,
        "rlnImageDimensionality": ["2"] * len(groups),
    }
    if "rlnImageSize" in optics:
        optics["rlnImageSize"] = [f"{size:.0f}" for size in optics["rlnImageSize"]]
    particles: dict[str, Any] = {
        "rlnImageName": _image_names(records, path),
        "rlnOpticsGroup": [numbers[number] for number in group.ravel().tolist()],
    }
    particles |= {
        label: _column(records, field, path)
        for label, field in _PER_PARTICLE.items()
        if field in here
    }
    particles |= _location(records, path)
    if "alignments3D/split" in here:
        halves = field_numbers(records, "alignments3D/split", path)
        particles["rlnRandomSubset"] = [f"{half + 1:.0f}" for half in halves.tolist()]
    return [
        _Table(path, "optics", optics, first.tolist()),
        _Table(path, "particles", particles, range(len(records))),
    ]


def _column(records: Records, field: str, path: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(n,) values of a field; angles in degrees."""
    if field == "blob/shape":
        sides = field_numbers(records, field, path, 2)
        wrong = sides[:, 0] != sides[:, 1]
        if wrong.any():
            particle = int(wrong.int().argmax())
            raise InputError(
                f"blob/shape of particle {particle + 1} of {path} is not square; extract the "
                "particles again in square boxes."
            )
        return sides[:, 0].numpy()
    values = field_numbers(records, field, path)
    return (torch.rad2deg(values) if field.endswith("_rad") else values).numpy()


def _image_names(records: Records, path: Path) -> list[str]:
    numbers = field_numbers(records, "blob/idx", path).long().tolist()
    stacks = _texts(records, "blob/path", path)
    names = []
    for row, (number, stack) in enumerate(zip(numbers, stacks, strict=True)):
        stack = stack.removeprefix(">")
        if not stack:
            raise InputError(
                f"blob/path of particle {row + 1} of {path} is empty; give a .cs file that names "
                "the stack of every particle."
            )
        names.append(relion_image_name(number + 1, stack))
    return names


def _texts(records: Records, field: str, path: Path) -> list[str]:
    values = records[field]
    if values.dtype.kind not in "SU" or values.ndim != 1:
        raise InputError(f"{field} in {path} is not text; give a .cs file as cryoSPARC writes it.")
    texts: list[Any] = values.tolist()
    return [
        text.decode(errors="surrogateescape") if isinstance(text, bytes) else text for text in texts
    ]


def _location(records: Records, path: Path) -> Mapping[str, Any]:
    """Micrograph and coordinates in its pixels, where the set has them."""
    needed = ("micrograph_path", "micrograph_shape", "center_x_frac", "center_y_frac")
    if not all(f"location/{name}" in fields_of(records) for name in needed):
        return {}
    names = [name.removeprefix(">") for name in _texts(records, "location/micrograph_path", path)]
    shape = field_numbers(records, "location/micrograph_shape", path, 2)
    x, y = (field_numbers(records, f"location/center_{axis}_frac", path) for axis in "xy")
    if not all(names):
        return {}
    found = {
        "rlnMicrographName": names,
        "rlnCoordinateX": (x * shape[:, 1]).numpy(),
        "rlnCoordinateY": (y * shape[:, 0]).numpy(),
    }
    size = "location/micrograph_psize_A"
    if size in fields_of(records):
        found["rlnMicrographPixelSize"] = field_numbers(records, size, path).numpy()
    return found


def write_assigned(
    path: Path | str,
    source: Path | str,
    records: Records,
    pose: Pose,
    *,
    pixel_sizes_A: Tensor,
    given_A: float | None = None,
    rows: Tensor | None = None,
    half: Tensor | None = None,
    class_number: Tensor | None = None,
    class_posterior: Tensor | None = None,
    datadir: Path | str | None = None,
    strip_prefix: str | None = None,
) -> list[str]:
    """Write the set again with the poses that its particles have been assigned.

    All other fields stay. `alignments3D` becomes new as a whole; without `half` the halves of the
    source stay, and where it has none, `uid` decides (even or odd). A `blob/path` stays where it
    leads to the same stack from the new file, and else becomes absolute; > before it says that it
    is relative to the .cs file and not to the project.

    Args:
        path: the .cs file to write.
        source: the .cs or .csg file that was read.
        records: what `read_set` makes of it.
        pose: n poses.
        pixel_sizes_A: (n,) of the images on disk.
        given_A: the pixel size that the user gave, which takes the place of `blob/psize_A`.
        rows: (n,) int64 the records that were chosen; all if None.
        half, class_number, class_posterior: see `cryosparc.write_particles`.
        datadir, strip_prefix: where the images were found.

    Returns:
        The slots that the file has: "blob", "ctf" ...

    Raises:
        InputError: the file cannot be written.
    """
    table = tables(records, source)[1]
    chosen = np.arange(len(records)) if rows is None else rows.numpy()
    names = image_names_from(Path(path), table, chosen, datadir, strip_prefix)
    records = records[chosen]
    if half is None:
        splits = "alignments3D/split" if "alignments3D/split" in fields_of(records) else "uid"
        half = torch.from_numpy((records[splits] % 2).astype(np.int64)) + 1
    stacks = [name.partition("@")[2].removesuffix(AS_STACK) for name in names]
    beside = {
        stack: _beside_or_absolute(Path(path), stack) for stack in {*stacks} if stack[:1] != "/"
    }
    own = [text.startswith(">") for text in _texts(records, "blob/path", Path(source))]
    stacks = [
        beside.get(stack, stack) if marked else stack
        for stack, marked in zip(stacks, own, strict=True)
    ]
    types: dict[str, Any] = {
        name: records.dtype[name]
        for name in fields_of(records)
        if not name.startswith("alignments3D/")
    }
    encoded = [stack.encode(errors="surrogateescape") for stack in stacks]
    types["blob/path"] = f"S{max(map(len, encoded))}"
    result: Records = np.zeros(len(records), dtype=list((types | ALIGNMENT_FIELDS).items()))
    for name in types:
        result[name] = encoded if name == "blob/path" else records[name]
    values = alignment_fields(pose, half, pixel_sizes_A, class_number, class_posterior)
    if given_A is not None and "blob/psize_A" in types:
        values["blob/psize_A"] = given_A
    for name, value in values.items():
        result[name] = value.numpy() if isinstance(value, Tensor) else value
    save_records(path, result)
    return sorted({name.partition("/")[0] for name in fields_of(result) if "/" in name})


def _beside_or_absolute(path: Path, stack: str) -> str:
    """A stack that is found from a .cs file, named from the file's own folder."""
    if (path.parent / stack).is_file():
        return f">{stack}"
    found = find_stack(path, stack)
    return stack if found is None else str(found.absolute())


def save_chosen(path: Path, source: Path, records: Records) -> None:
    """Write records of a .cs file as another; a stack's path that leads elsewhere becomes absolute.

    Args:
        path: the file to write.
        source: the file that the records come from.
        records: those to write.

    Raises:
        InputError: it cannot be written.
    """
    if "blob/path" in fields_of(records):
        texts = _texts(records, "blob/path", source)
        target = {text: _path_from(path, source, text) for text in set(texts)}
        paths = [target[text].encode(errors="surrogateescape") for text in texts]
        if any(target[text] != text for text in target):
            width = max(records.dtype["blob/path"].itemsize, *map(len, paths))
            types = [(name, records.dtype[name]) for name in fields_of(records)]
            widened: Any = [(n, f"S{width}" if n == "blob/path" else kind) for n, kind in types]
            moved: Records = np.empty(len(records), dtype=widened)
            for name in fields_of(records):
                moved[name] = paths if name == "blob/path" else records[name]
            records = moved
    save_records(path, records)


def _path_from(path: Path, source: Path, text: str) -> str:
    """A `blob/path` of `source` as it is to stand in `path`."""
    bare = text.removeprefix(">")
    here = find_stack(source, bare)
    if here is None:
        return text
    there = path.parent / bare if text.startswith(">") else find_stack(path, bare)
    same = there is not None and there.is_file() and there.samefile(here)
    return text if same else str(here.absolute())
