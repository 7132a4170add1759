"""cryoSPARC particle files (.cs): reading poses and CTFs, writing particles with poses.

A .cs file is a NumPy structured array (`.npy` format), one record a particle. The conventions
were established from three sides: cryoSPARC's own conversion of a pose to RELION's Euler angles,
contributed to pyem's `csparc2star` (asarnow/pyem, pull request 5), makes RELION's matrix the
transpose of the rotation `exp([pose]ₓ)`, so that this rotation is `Pose.rotation`; there, `shift`
becomes RELION's origin with its sign unchanged, in pixels of `alignments3D/psize_A`
(asarnow/pyem, pull request 125), so that `Pose.shift_A` is its negative; and in refined data
(T20S, D7) the directions `R e_z` show preferred views while those of Rᵀ are uniform in azimuth,
as in-plane angles must be.

What is written follows the same conventions and has the fields, in their types, of files that
cryoSPARC exported. It was checked against these files, our own reader and the published
converter's conventions, never against cryoSPARC itself.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import roma
import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.files import atomic_path
from cryogan.io.mixed import MixedStack, disk_pixel_sizes_A, disk_signs
from cryogan.io.mrc import MrcStack
from cryogan.io.npy import read_npy
from cryogan.io.ranges import RANGES, first_impossible
from cryogan.particles import CTFParams, Particles, Pose, SubsetStack

Records = np.ndarray[Any, np.dtype[np.void]]

_CLASS_POSTERIOR = re.compile(r"(alignments_class_\d+)/class_posterior")
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
_CTF_FIELD_OF: dict[str, tuple[str] | tuple[str, float]] = {
    "defocus_u_A": ("df1_A",),
    "defocus_v_A": ("df2_A",),
    "defocus_angle_deg": ("df_angle_rad",),
    "voltage_kV": ("accel_kv",),
    "spherical_aberration_mm": ("cs_mm",),
    "amplitude_contrast": ("amp_contrast",),
    "phase_shift_deg": ("phase_shift_rad", 0.0),
    "b_factor_A2": ("bfactor", 0.0),
    "scale": ("scale", 1.0),
}
ALIGNMENT_FIELDS = {
    "alignments3D/split": "<u4",
    "alignments3D/shift": "2<f4",
    "alignments3D/pose": "3<f4",
    "alignments3D/psize_A": "<f4",
    "alignments3D/error": "<f4",
    "alignments3D/error_min": "<f4",
    "alignments3D/resid_pow": "<f4",
    "alignments3D/slice_pow": "<f4",
    "alignments3D/image_pow": "<f4",
    "alignments3D/cross_cor": "<f4",
    "alignments3D/alpha": "<f4",
    "alignments3D/alpha_min": "<f4",
    "alignments3D/weight": "<f4",
    "alignments3D/pose_ess": "<f4",
    "alignments3D/shift_ess": "<f4",
    "alignments3D/class_posterior": "<f4",
    "alignments3D/class": "<u4",
    "alignments3D/class_ess": "<f4",
}
_LARGEST_ROTATION_RAD = 1000.0
_LARGEST_NUMBER = 1e30


def read_poses(path: Path | str) -> Pose:
    """The refined poses in a .cs file.

    `alignments3D` is read; an ab initio or heterogeneous job's file, which has
    `alignments_class_0`, `_1` ... in its place, gives every particle the pose in its most
    probable class.

    Returns:
        n poses on the CPU, in file order.

    Raises:
        InputError: the file is no .cs file, holds no particle, has no 3D poses or none of known
            pixel size, or a value is not finite.
    """
    records = read_records(path)
    if "alignments3D/pose" in fields_of(records):
        return _poses(records, "alignments3D", path)
    matches = [_CLASS_POSTERIOR.fullmatch(name) for name in fields_of(records)]
    classes = [match[1] for match in matches if match]
    if not classes:
        raise InputError(
            f"{path} has no field alignments3D/pose; give the particles of a 3D refinement."
        )
    posterior = [field_numbers(records, f"{name}/class_posterior", path) for name in classes]
    best = torch.stack(posterior).argmax(0)
    poses = [_poses(records, name, path) for name in classes]
    particle = torch.arange(len(records))
    return Pose(
        torch.stack([pose.rotation for pose in poses])[best, particle],
        torch.stack([pose.shift_A for pose in poses])[best, particle],
    )


def read_ctf(path: Path | str) -> CTFParams:
    """The CTF parameters in a .cs file, in file order.

    Without their fields the phase shift and B-factor are 0 and the scale is 1.

    Raises:
        InputError: the file is no .cs file, holds no particle, lacks a field or holds a value
            that is not possible.
    """
    records = read_records(path)

    def column(quantity: str, name: str, default: float | None = None) -> Tensor:
        values = field_numbers(records, f"ctf/{name}", path, default=default)
        unit = ""
        if name.endswith("_rad"):
            values, unit = torch.rad2deg(values), " in degrees"
        bad = first_impossible(quantity, values.numpy())
        if bad is not None:
            raise InputError(
                f"ctf/{name}{unit} is {values[bad]:g} in particle {bad + 1} of {path}, but "
                f"{RANGES[quantity].words(float(values[bad]))}; correct the file."
            )
        return values.float()

    fields = {quantity: column(quantity, *name) for quantity, name in _CTF_FIELD_OF.items()}
    return CTFParams(**fields, correction=torch.zeros(len(records), dtype=torch.int64), filter=None)


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


def alignment_fields(
    pose: Pose,
    half: Tensor,
    pixel_sizes_A: Tensor,
    class_number: Tensor | None = None,
    class_posterior: Tensor | None = None,
) -> dict[str, Tensor | float]:
    """Values of `alignments3D`; those that are not there are 0.

    Args:
        pose: n poses.
        half: (n,) int64, 1 or 2.
        pixel_sizes_A: (n,) of the images, in which shifts are written.
        class_number, class_posterior: see `write_particles`.

    Raises:
        ValueError: numbers of particles differ, or a half is not 1 or 2.
    """
    if not len(pose) == len(half) == len(pixel_sizes_A):
        raise ValueError(
            f"{len(pose)} poses and {len(half)} halves for {len(pixel_sizes_A)} particles"
        )
    if not bool(((half == 1) | (half == 2)).all()):
        raise ValueError("half must be 1 or 2")
    rotvec: Tensor = roma.rotmat_to_rotvec(pose.rotation.double())
    return {
        "alignments3D/split": half - 1,
        "alignments3D/shift": -pose.shift_A / pixel_sizes_A[:, None],
        "alignments3D/pose": rotvec,
        "alignments3D/psize_A": pixel_sizes_A,
        "alignments3D/alpha": 1.0,
        "alignments3D/class_posterior": 1.0 if class_posterior is None else class_posterior,
        "alignments3D/class": 0 if class_number is None else class_number - 1,
        "alignments3D/class_ess": 1.0,
    }


def save_records(path: Path | str, records: Records) -> None:
    """Write a .cs file, atomically.

    Raises:
        InputError: it cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, records)


def _uid(path: bytes, index: int) -> int:
    digest = hashlib.blake2b(b"%d@%s" % (index, path), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def read_records(path: Path | str) -> Records:
    """The records of a .cs file, memory-mapped: one a particle, at least one.

    Raises:
        InputError: the file cannot be read, is not whole, or is no array of named fields.
    """
    records: Records = read_npy(
        path, "cryoSPARC particle file", "give a .cs file as cryoSPARC writes it"
    )
    if records.dtype.names is None or records.ndim != 1:
        raise InputError(
            f"{path} is a NumPy array without cryoSPARC's named fields; give a .cs particle file."
        )
    if len(records) == 0:
        raise InputError(f"{path} holds no particle; give a .cs file with at least one.")
    return records


def fields_of(records: Records) -> tuple[str, ...]:
    return records.dtype.names or ()


def _poses(records: Records, group: str, path: Path | str) -> Pose:
    vector = field_numbers(records, f"{group}/pose", path, 3)
    shift_px = field_numbers(records, f"{group}/shift", path, 2)
    own = f"{group}/psize_A"
    pixel_size = own if own in fields_of(records) else "blob/psize_A"
    pixel_size_A = field_numbers(records, pixel_size, path)
    if not (pixel_size_A > 0).all():
        particle = int(pixel_size_A.argmin()) + 1
        raise InputError(
            f"{pixel_size} of particle {particle} of {path} is {pixel_size_A.min():g}, but a pixel "
            "size must be positive; correct the file."
        )
    rotation: Tensor = roma.rotvec_to_rotmat(vector)
    pose = Pose(rotation.float(), -(shift_px * pixel_size_A[:, None]).float())
    possible = (vector.norm(dim=1) < _LARGEST_ROTATION_RAD) & pose.shift_A.isfinite().all(1)
    if not possible.all():
        raise InputError(
            f"{group}/pose or {group}/shift of particle {int((~possible).int().argmax()) + 1} of "
            f"{path} is far too large; correct or remove the particle."
        )
    return pose


def field_numbers(
    records: Records,
    field: str,
    path: Path | str,
    components: int | None = None,
    *,
    default: float | None = None,
) -> Tensor:
    """A field as float64, (n,) or (n, components); `default` where the file does not have it."""
    if field not in fields_of(records):
        if default is not None:
            return torch.full((len(records),), default, dtype=torch.float64)
        raise InputError(
            f"{path} has no field {field}; give a .cs file that has it (in an exported job, the "
            "particles file rather than the passthrough file, or the reverse)."
        )
    shape = (len(records),) if components is None else (len(records), components)
    values = records[field]
    if values.shape != shape or values.dtype.kind not in "fiu":
        raise InputError(
            f"{field} in {path} is not {components or 1} number{'s' * (components is not None)} a "
            "particle; give a .cs file as cryoSPARC writes it."
        )
    numbers = torch.from_numpy(values.astype(np.float64))
    bad = ~(numbers.abs() < _LARGEST_NUMBER).reshape(len(records), -1).all(1)
    if bad.any():
        raise InputError(
            f"{field} of particle {int(bad.int().argmax()) + 1} of {path} is not a finite number "
            f"below {_LARGEST_NUMBER:g}; correct or remove the particle."
        )
    return numbers
