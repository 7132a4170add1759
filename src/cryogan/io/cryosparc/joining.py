"""The records of a set: a .cs file joined on `uid` with its passthrough files, or a .csg group."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.lib.recfunctions import repack_fields

from cryogan.errors import InputError
from cryogan.io.cryosparc.records import Records, fields_of, read_records
from cryogan.io.result_groups import read_group

Paths = Path | str | Sequence[Path | str]
_REQUIRED = (
    *("uid", "blob/path", "blob/idx", "ctf/accel_kv", "ctf/cs_mm", "ctf/amp_contrast"),
    *("ctf/df1_A", "ctf/df2_A", "ctf/df_angle_rad"),
)
_JOB = re.compile(r"J\d+(?=_)")


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
        if each["uid"].dtype.kind not in "iu" or each["uid"].dtype.itemsize != 8:
            raise InputError(
                f"The field uid of {named} is of type {each['uid'].dtype}, which cannot hold what "
                "cryoSPARC counts particles by; give a .cs file as cryoSPARC writes it."
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
