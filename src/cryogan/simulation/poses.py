"""What a user says of the poses of a simulated data set, and the distribution that it means."""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.io import cryosparc, relion
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
)


@dataclass(frozen=True)
class OrientationSettings:
    """Where particles are seen from; the in-plane angle is uniform except for "file".

    Attributes:
        kind: "uniform"; "angular-gaussian" (direction = N(0, diag(1, 1, sigma²)), normalised);
            "cylinder" (side views of a standing cylinder); "file" (orientations drawn from a
            particle file); "healpix" (directions drawn from a HEALPix map).
        sigma: for "angular-gaussian": 1 is uniform, larger gathers views along ±z.
        spread_deg: for "cylinder": standard deviation of tilt about 90°, in degrees, 0 to 90.
        file: for "file": a .star or .cs file with poses, of which the shifts are not used; for
            "healpix": a .npy or text file with one weight a cell, in RING order.
    """

    kind: Literal["uniform", "angular-gaussian", "cylinder", "file", "healpix"] = "uniform"
    sigma: float = 1.0
    spread_deg: float = 0.0
    file: str | None = None


@dataclass(frozen=True)
class ShiftSettings:
    """How far particles lie from the centres of their images, along x and y alike.

    Attributes:
        kind: "none"; "triangular" (density 1 - |x|); "gaussian".
        percent: for "triangular": the half width, in percent of the box, 0 to 50.
        sigma_A: for "gaussian": the standard deviation in Å, at most half of the box.
    """

    kind: Literal["none", "triangular", "gaussian"] = "none"
    percent: float = 0.0
    sigma_A: float = 0.0


_ORIENTATION_USES: dict[str, tuple[str, ...]] = {
    "uniform": (),
    "angular-gaussian": ("sigma",),
    "cylinder": ("spread_deg",),
    "file": ("file",),
    "healpix": ("file",),
}
_SHIFT_USES: dict[str, tuple[str, ...]] = {
    "none": (),
    "triangular": ("percent",),
    "gaussian": ("sigma_A",),
}


def pose_distribution(
    orientations: OrientationSettings,
    shifts: ShiftSettings,
    *,
    box_size: int,
    pixel_size_A: float,
) -> PoseDistribution:
    """The distribution that the settings mean, for images of `box_size` pixels.

    Raises:
        InputError: a value is out of range, a setting has no meaning for its kind, or the file is
            missing, unreadable or not of the kind it should be.
    """
    _refuse_unused("orientations", orientations, _ORIENTATION_USES)
    _refuse_unused("shifts", shifts, _SHIFT_USES)
    width_A = box_size * pixel_size_A
    spread = _shifts(shifts, width_A)
    return PoseDistribution(_orientations(orientations, pixel_size_A), spread)


def _orientations(settings: OrientationSettings, pixel_size_A: float) -> Orientations:
    if settings.kind == "uniform":
        return Uniform()
    if settings.kind == "angular-gaussian":
        if not (settings.sigma > 0.0 and math.isfinite(settings.sigma)):
            raise InputError(
                f"orientations.sigma is {settings.sigma:g}; give a number above 0 (1 is uniform)."
            )
        return AngularCentralGaussian(settings.sigma)
    if settings.kind == "cylinder":
        _require_range("orientations.spread_deg", settings.spread_deg, 90.0, "degrees")
        return SideViews(settings.spread_deg)
    if settings.file is None:
        what = "a .star or .cs file" if settings.kind == "file" else "a .npy or text file"
        raise InputError(
            f"orientations.kind is {settings.kind} but orientations.file is not given; name {what}."
        )
    path = Path(settings.file)
    if settings.kind == "healpix":
        return SphereDensity(_read_weights(path))
    return Listed(_read_rotations(path, pixel_size_A))


def _shifts(settings: ShiftSettings, width_A: float) -> Shifts:
    if settings.kind == "gaussian":
        _require_range("shifts.sigma_A", settings.sigma_A, width_A / 2, "Å, half of the box")
        return Gaussian(settings.sigma_A)
    _require_range("shifts.percent", settings.percent, 50.0, "percent of the box")
    return Triangular(settings.percent / 100.0 * width_A)


def _refuse_unused(group: str, settings: Any, uses: dict[str, tuple[str, ...]]) -> None:
    """A setting without effect is a mistake: most often, `kind` was forgotten."""
    if settings.kind not in uses:
        raise InputError(f"{group}.kind is {settings.kind!r}; give one of {', '.join(uses)}.")
    for field in fields(settings):
        unused = field.name != "kind" and field.name not in uses[settings.kind]
        if unused and getattr(settings, field.name) != field.default:
            kinds = [kind for kind, names in uses.items() if field.name in names]
            raise InputError(
                f"{group}.{field.name} has no meaning while {group}.kind is {settings.kind}; set "
                f"{group}.kind to {' or '.join(kinds)}, or leave {group}.{field.name} out."
            )


def _require_range(name: str, value: float, highest: float, unit: str) -> None:
    if not 0.0 <= value <= highest:
        raise InputError(f"{name} is {value:g}; give a number from 0 to {highest:g} {unit}.")


def _read_rotations(path: Path, pixel_size_A: float) -> Tensor:
    if path.suffix == ".star":
        # The pixel size matters to the shifts only, which are not used.
        return relion.read_poses(path, pixel_size_A=pixel_size_A).rotation
    if path.suffix == ".cs":
        return cryosparc.read_poses(path).rotation
    raise InputError(
        f"orientations.file is {path}, whose name ends neither in .star nor in .cs; give a RELION "
        "or cryoSPARC particle file with poses."
    )


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
    try:
        values = np.lib.format.open_memmap(path, mode="r")  # never loads Python objects
    except (ValueError, EOFError) as error:
        raise InputError(
            f"orientations.file {path} is no whole .npy file of numbers; write it with numpy.save."
        ) from error
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
