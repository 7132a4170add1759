"""The records of a set as the tables of a RELION file, without poses."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryogan.errors import InputError
from cryogan.io.cryosparc.records import Records, field_numbers, field_texts, fields_of
from cryogan.io.images import relion_image_name
from cryogan.io.star import Table

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
_FIELD_OF = _PER_GROUP | _PER_PARTICLE | {"rlnImageName": "blob/path"}


@dataclass(frozen=True)
class _Table(Table):
    """A table whose `lines` are numbers of records, from 0: each row's, or its group's first."""

    def where(self, row: int) -> str:
        return f"particle {self.lines[row] + 1} of {self.path}"


def in_fields(message: str) -> str:
    """A message about a star file in cryoSPARC's words."""
    message = re.sub(r"\brln\w+", lambda label: _named(label[0]), message)
    return message.replace("star file", "particle file")


def _named(label: str) -> str:
    """The field that became a column; angles are in degrees by then."""
    field = _FIELD_OF.get(label, label)
    return f"{field} in degrees" if field.endswith("_rad") else field


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
    counted = field_numbers(records, "blob/idx", path)
    wrong = (counted < 0) | (counted != counted.round())
    if wrong.any():
        particle = int(wrong.int().argmax())
        raise InputError(
            f"blob/idx is {counted[particle]:g} in particle {particle + 1} of {path}, but images "
            "of a stack are counted from 0; correct or remove the particle."
        )
    numbers = counted.long().tolist()
    stacks = field_texts(records, "blob/path", path)
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


def _location(records: Records, path: Path) -> Mapping[str, Any]:
    """Micrograph and coordinates in its pixels, where the set has them."""
    needed = ("micrograph_path", "micrograph_shape", "center_x_frac", "center_y_frac")
    if not all(f"location/{name}" in fields_of(records) for name in needed):
        return {}
    names = [
        name.removeprefix(">") for name in field_texts(records, "location/micrograph_path", path)
    ]
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
