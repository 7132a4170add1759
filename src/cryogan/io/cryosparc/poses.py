"""Poses of .cs files: reading them, and the values of the fields that tell them."""

import re
from pathlib import Path

import roma
import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.io.cryosparc.records import Records, field_numbers, fields_of, read_records
from cryogan.particles import Pose

_CLASS_POSTERIOR = re.compile(r"(alignments_class_\d+)/class_posterior")
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
