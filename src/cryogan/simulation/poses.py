"""The distribution of poses that the settings of a simulated set mean."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.io import cryosparc, relion_poses
from cryogan.io.npy import read_npy
from cryogan.physics.distributions import (
    AngularCentralGaussian,
    Gaussian,
    Listed,
    Orientations,
    PoseDistribution,
    Shifts,
    SideViews,
    SphereDensity,
    Triangular,
    Uniform,
    UniformShifts,
)
from cryogan.simulation.pose_settings import OrientationSettings, ShiftSettings


def pose_distribution(
    orientations: OrientationSettings,
    shifts: ShiftSettings,
    *,
    box_size: int,
    pixel_size_A: float,
) -> PoseDistribution:
    """The distribution that the settings mean, for images of `box_size` pixels.

    Raises:
        InputError: shifts leave the images, or the file is missing, unreadable or not of the kind
            that it should be.

    Example:
        >>> from cryogan.simulation.poses import pose_distribution
        >>> from cryogan.simulation.pose_settings import OrientationSettings, ShiftSettings
        >>> poses = pose_distribution(
        ...     OrientationSettings("cylinder", spread_deg=5.0),
        ...     ShiftSettings("triangular", percent=3.0),
        ...     box_size=64,
        ...     pixel_size_A=2.5,
        ... )
        >>> poses.orientations
        SideViews(spread_deg=5.0)
        >>> round(poses.shifts.half_width_A, 2)
        4.8
    """
    width_A = box_size * pixel_size_A
    shifts.check(width_A)
    return PoseDistribution(_orientations(orientations, pixel_size_A), _shifts(shifts, width_A))


def _orientations(settings: OrientationSettings, pixel_size_A: float) -> Orientations:
    if settings.kind == "uniform":
        return Uniform()
    if settings.kind == "angular-gaussian":
        return AngularCentralGaussian(settings.sigma)
    if settings.kind == "cylinder":
        return SideViews(settings.spread_deg)
    path = Path(settings.file or "")
    if settings.kind == "healpix":
        return SphereDensity(_read_weights(path))
    return Listed(_read_rotations(path, pixel_size_A))


def _shifts(settings: ShiftSettings, width_A: float) -> Shifts:
    if settings.kind == "gaussian":
        return Gaussian(settings.sigma_A)
    if settings.kind == "uniform":
        return UniformShifts(settings.half_width_A)
    return Triangular(settings.percent / 100.0 * width_A)


def _read_rotations(path: Path, pixel_size_A: float) -> Tensor:
    if path.suffix == ".cs":
        return cryosparc.read_poses(path).rotation
    # The pixel size matters to the shifts only, which are not used.
    return relion_poses.read_poses(path, pixel_size_A=pixel_size_A).rotation


def _read_weights(path: Path) -> Tensor:
    """(12 nside²,) nonnegative weights."""
    try:
        values = _npy_weights(path) if path.suffix == ".npy" else _text_weights(path)
    except OSError as error:
        raise InputError(
            f"Cannot read orientations.file {path}: {error.strerror or error}; check its name."
        ) from error
    nside = math.isqrt(values.size // 12)
    if values.size == 0 or 12 * nside**2 != values.size:
        raise InputError(
            f"orientations.file {path} holds {values.size} weights, but a HEALPix map has 12, 48, "
            "108, ... 12 nside² cells; give one weight a cell."
        )
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        cell = int(bad.argmax())
        raise InputError(
            f"The weight of cell {cell} (counted from 0) in orientations.file {path} is "
            f"{values[cell]:g}; give weights of at least 0."
        )
    if not values.any():
        raise InputError(
            f"All weights in orientations.file {path} are 0; give at least one above 0."
        )
    return torch.from_numpy(values)


def _npy_weights(path: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    values = read_npy(path)
    if values.ndim != 1 or values.dtype.kind not in "fiu":
        raise InputError(
            f"orientations.file {path} is no list of numbers; give one weight a HEALPix cell."
        )
    return values.astype(np.float64)


def _text_weights(path: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    values = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            values.append(float(text))
        except ValueError as error:
            raise InputError(
                f"Line {number} of orientations.file {path} is not a number; give one weight a "
                "line, cells in RING order."
            ) from error
    return np.array(values, dtype=np.float64)
