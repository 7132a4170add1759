"""Poses in the columns of RELION's particle files.

RELION's angles are intrinsic ZYZ (see `Pose`); its origins say where to move a particle, a
`Pose` where it is.
"""

from pathlib import Path

import numpy as np
import roma
import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.io.relion_columns import EULER_LABELS, Lookup, Numbers, table_with
from cryogan.io.star import read_star
from cryogan.particles import Pose


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
    table = table_with(tables, EULER_LABELS[0], star)
    missing = [label for label in EULER_LABELS if label not in table]
    if missing:
        raise InputError(f"{star} lacks {', '.join(missing)}; give a file with refined poses.")
    euler_deg = np.stack([table.numbers(label) for label in EULER_LABELS], axis=-1)
    rotation: Tensor = roma.euler_to_rotmat("ZYZ", torch.from_numpy(euler_deg), degrees=True)
    lookup = Lookup.of(tables, table, np.arange(len(table)))
    shift_A = -_origins_A(lookup, pixel_size_A)  # where the particle is, not where to move it
    return Pose(rotation.float(), torch.from_numpy(shift_A).float())


def _origins_A(lookup: Lookup, pixel_size_A: float | None) -> Numbers:
    """(n, 2) of RELION's origins (x, y)."""
    table = lookup.table
    if "rlnOriginXAngst" in table and "rlnOriginYAngst" in table:
        return np.stack([table.numbers(f"rlnOrigin{axis}Angst") for axis in "XY"], axis=-1)
    if "rlnOriginX" not in table or "rlnOriginY" not in table:
        return np.zeros((len(table), 2))
    sizes_A = sizes_of_origins_A(lookup, pixel_size_A)
    return np.stack([table.numbers(f"rlnOrigin{axis}") * sizes_A for axis in "XY"], axis=-1)


def sizes_of_origins_A(
    lookup: Lookup, pixel_size_A: float | None, disk_pixel_sizes_A: Tensor | None = None
) -> Numbers:
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


def angle_columns(pose: Pose) -> dict[str, Tensor]:
    """Label → (n,) degrees."""
    euler_deg = roma.rotmat_to_euler("ZYZ", pose.rotation.double(), degrees=True)
    return dict(zip(EULER_LABELS, euler_deg.unbind(-1), strict=True))


def origin_columns(shift: Tensor, unit: str) -> dict[str, Tensor]:
    """Label → (n,): where to move a particle that is at `shift`, (n, 2)."""
    return {f"rlnOrigin{axis}{unit}": -shift[:, i] for i, axis in enumerate("XY")}
