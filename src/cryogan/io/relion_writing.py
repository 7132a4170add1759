"""RELION 3.1 particle files of simulated, chosen or downsampled sets."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from cryogan.io.relion_columns import CTF_DEFAULTS, CTF_LABELS, OPTICS_FIELDS
from cryogan.io.relion_poses import angle_columns, origin_columns
from cryogan.io.star import write_star
from cryogan.particles import CTFParams, Pose


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
    keys = torch.stack([label.double(), *(getattr(ctf, f).double() for f in OPTICS_FIELDS)], -1)
    groups, group = torch.unique(keys, dim=0, return_inverse=True)
    numbers = [str(number) for number in range(1, len(groups) + 1)]
    optics: dict[str, Sequence[str]] = {
        "rlnOpticsGroup": numbers,
        "rlnOpticsGroupName": [f"opticsGroup{number}" for number in numbers],
        **{CTF_LABELS[f]: fixed_point(groups[:, i]) for i, f in enumerate(OPTICS_FIELDS, 1)},
        "rlnImagePixelSize": [f"{pixel_size_A:.6f}"] * len(groups),
        "rlnImageSize": [str(box_size)] * len(groups),
        "rlnImageDimensionality": ["2"] * len(groups),
    }
    particles: dict[str, Sequence[str]] = {
        "rlnImageName": image_names,
        "rlnOpticsGroup": [numbers[number] for number in group.tolist()],
    }
    for field, column in CTF_LABELS.items():
        values: Tensor = getattr(ctf, field)
        optional = field in ("b_factor_A2", "scale") and bool((values == CTF_DEFAULTS[field]).all())
        if field not in OPTICS_FIELDS and not optional:
            particles[column] = fixed_point(values)
    if pose is not None:
        poses = angle_columns(pose) | origin_columns(pose.shift_A, "Angst")
        particles |= {label: fixed_point(values) for label, values in poses.items()}
    write_star(path, [("optics", optics), ("particles", particles | dict(extra or {}))])


def fixed_point(values: Tensor) -> list[str]:
    return [f"{value:.6f}" for value in (values + 0.0).tolist()]  # + 0.0: no "-0.000000"
