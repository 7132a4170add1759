"""Writing particles with their poses as a .cs file."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.io.cryosparc.poses import ALIGNMENT_FIELDS, alignment_fields
from cryogan.io.cryosparc.records import Records, save_records
from cryogan.io.mixed import MixedStack, disk_pixel_sizes_A, disk_signs
from cryogan.io.mrc import MrcStack
from cryogan.particles import Particles, Pose, SubsetStack

_CTF_FIELDS = {
    "accel_kv": "<f4",
    "cs_mm": "<f4",
    "amp_contrast": "<f4",
    "df1_A": "<f4",
    "df2_A": "<f4",
    "df_angle_rad": "<f4",
    "phase_shift_rad": "<f4",
    "scale": "<f4",
    "scale_const": "<f4",
    "shift_A": "2<f4",
    "tilt_A": "2<f4",
    "trefoil_A": "2<f4",
    "tetra_A": "4<f4",
    "anisomag": "4<f4",
    "bfactor": "<f4",
}


def write_particles(
    path: Path | str,
    particles: Particles,
    pose: Pose,
    *,
    half: Tensor,
    class_number: Tensor | None = None,
    class_posterior: Tensor | None = None,
) -> list[str]:
    """Write particles with their poses as a .cs file, atomically.

    `blob/path` is the absolute path of a stack, `blob/sign` is -1 where the protein is dark on
    disk, `uid` is a hash of path and image number, so that a particle has the same one in every
    file written. Particles of equal voltage, Cs and amplitude contrast make an exposure group.
    What has not been measured has the value of an imported particle: aberrations 0,
    `alignments3D/alpha` 1, errors and powers 0.

    Args:
        path: the .cs file to write.
        particles: n particles read from files (`io.relion.read_particles`).
        pose: n poses.
        half: (n,) int64, 1 or 2 as RELION counts them; written as `alignments3D/split`, 0 or 1.
        class_number: (n,) int64, from 1; all 1 if None. cryoSPARC counts from 0.
        class_posterior: (n,) probability of that class; all 1 if None.

    Returns:
        The slots that the file has.

    Raises:
        InputError: the particles are not images of files, or the file cannot be written.
        ValueError: numbers of particles differ, or a half is not 1 or 2.
    """
    stack = particles.stack
    if isinstance(stack, SubsetStack) and isinstance(stack.parent, MrcStack | MixedStack):
        stack = stack.parent.subset(stack.index)
    disk = stack.disk if isinstance(stack, MixedStack) else stack
    if not isinstance(disk, MrcStack):
        raise InputError(
            f"{path} has to name the file of every image, but these particles were not read from "
            "files; read them with cryogan.io.relion.read_particles."
        )
    n = len(particles)
    files = [str(header.path.absolute()).encode() for header in disk.files]
    paths = [files[number] for number in disk.file_id.tolist()]
    sizes_A = disk_pixel_sizes_A(stack, particles.pixel_size_A)
    assigned = alignment_fields(pose, half, sizes_A, class_number, class_posterior)
    fields = {
        "uid": "<u8",
        "blob/path": f"S{max(map(len, paths))}",
        "blob/idx": "<u4",
        "blob/shape": "2<u4",
        "blob/psize_A": "<f4",
        "blob/sign": "<f4",
        "blob/import_sig": "<u8",
        "ctf/type": "S8",
        "ctf/exp_group_id": "<u4",
        **{f"ctf/{name}": dtype for name, dtype in _CTF_FIELDS.items()},
        **ALIGNMENT_FIELDS,
    }
    records: Records = np.zeros(n, dtype=list(fields.items()))
    ctf = particles.ctf
    optics = torch.stack(
        (ctf.voltage_kV, ctf.spherical_aberration_mm, ctf.amplitude_contrast, sizes_A, disk.boxes)
    )
    values: dict[str, Tensor | list[bytes] | list[int] | bytes | float] = {
        "uid": [_uid(*key) for key in zip(paths, disk.slice_index.tolist(), strict=True)],
        "blob/path": paths,
        "blob/idx": disk.slice_index,
        "blob/shape": disk.boxes[:, None],
        "blob/psize_A": sizes_A,
        "blob/sign": disk_signs(stack),
        "ctf/type": b"imported",
        "ctf/exp_group_id": torch.unique(optics, dim=1, return_inverse=True)[1],
        "ctf/accel_kv": ctf.voltage_kV,
        "ctf/cs_mm": ctf.spherical_aberration_mm,
        "ctf/amp_contrast": ctf.amplitude_contrast,
        "ctf/df1_A": ctf.defocus_u_A,
        "ctf/df2_A": ctf.defocus_v_A,
        "ctf/df_angle_rad": torch.deg2rad(ctf.defocus_angle_deg.double()),
        "ctf/phase_shift_rad": torch.deg2rad(ctf.phase_shift_deg.double()),
        "ctf/scale": ctf.scale,
        "ctf/bfactor": ctf.b_factor_A2,
        **assigned,
    }
    for field, value in values.items():
        records[field] = value.numpy() if isinstance(value, Tensor) else value
    save_records(path, records)
    return ["alignments3D", "blob", "ctf"]


def _uid(path: bytes, index: int) -> int:
    digest = hashlib.blake2b(b"%d@%s" % (index, path), digest_size=8).digest()
    return int.from_bytes(digest, "little")
