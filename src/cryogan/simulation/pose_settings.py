"""Settings of a simulated set's poses: orientations and shifts.

Nothing here needs torch, so that settings that cannot work are refused at once.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from cryogan.errors import InputError
from cryogan.simulation.setting_ranges import require_both, require_range, require_share


@dataclass(frozen=True)
class OrientationSettings:
    """Distribution of the orientations; the in-plane angle is uniform except for "file".

    Attributes:
        kind: "uniform"; "angular-gaussian" (direction = N(0, diag(1, 1, sigma²)), normalised);
            "cylinder" (side views of a standing cylinder); "file" (orientations drawn from a
            particle file); "healpix" (directions drawn from a HEALPix map).
        sigma: for "angular-gaussian": 1 is uniform, larger concentrates directions along ±z.
        spread_deg: for "cylinder": standard deviation of tilt about 90°, in degrees, 0 to 90.
        file: for "file": a .star or .cs file with poses, of which the shifts are not used; for
            "healpix": a .npy or text file with one weight a cell, in RING order.

    Raises:
        InputError: a value is out of range, or has no meaning for its kind.
    """

    kind: Literal["uniform", "angular-gaussian", "cylinder", "file", "healpix"] = "uniform"
    sigma: float = 1.0
    spread_deg: float = 0.0
    file: str | None = None

    def __post_init__(self) -> None:
        _refuse_unused("orientations", self, _ORIENTATION_USES)
        if not 0.0 < self.sigma < math.inf:
            raise InputError(
                f"orientations.sigma is {self.sigma:g}; give a number above 0 (1 is uniform)."
            )
        require_range("orientations.spread_deg", self.spread_deg, 90.0, "degrees")
        if self.kind in ("file", "healpix") and self.file is None:
            what = "a .star or .cs file" if self.kind == "file" else "a .npy or text file"
            raise InputError(
                f"orientations.kind is {self.kind} but orientations.file is not given; name {what}."
            )
        if self.kind == "file" and Path(self.file or "").suffix not in (".star", ".cs"):
            raise InputError(
                f"orientations.file is {self.file}, whose name ends neither in .star nor in .cs; "
                "give a RELION or cryoSPARC particle file with poses."
            )


@dataclass(frozen=True)
class ShiftSettings:
    """Distribution of the particles' distances from the image centres, along x and y alike.

    Attributes:
        kind: "none"; "triangular" (density 1 - |x|); "gaussian"; "uniform".
        percent: for "triangular": the half width, in percent of the box, 0 to 50.
        sigma_A: for "gaussian": the standard deviation in Å, at most half of the box.
        half_width_A: for "uniform": the largest shift in Å, at most half of the box.
        picking_share: share of the particles that are picked badly, from 0 to 1.
        picking_error_A: standard deviation in Å of their further shift, at most half of the box.

    Raises:
        InputError: a value is out of range, has no meaning for its kind, or lacks its partner.
    """

    kind: Literal["none", "triangular", "gaussian", "uniform"] = "none"
    percent: float = 0.0
    sigma_A: float = 0.0
    half_width_A: float = 0.0
    picking_share: float = 0.0
    picking_error_A: float = 0.0

    def __post_init__(self) -> None:
        _refuse_unused("shifts", self, _SHIFT_USES)
        require_range("shifts.percent", self.percent, 50.0, "percent of the box")
        require_share("shifts.picking_share", self.picking_share)
        require_both(
            *("shifts.picking_share", self.picking_share),
            *("shifts.picking_error_A", self.picking_error_A),
        )

    def check(self, width_A: float) -> None:
        """Refuse shifts that leave images of this width.

        Raises:
            InputError: a length is negative or above half of the width.
        """
        for name in ("sigma_A", "half_width_A", "picking_error_A"):
            value = getattr(self, name)
            require_range(f"shifts.{name}", value, width_A / 2, "Å, half of the box")


_ORIENTATION_USES: dict[str, tuple[str, ...]] = {
    "uniform": (),
    "angular-gaussian": ("sigma",),
    "cylinder": ("spread_deg",),
    "file": ("file",),
    "healpix": ("file",),
}
_SHIFT_USES: dict[str, tuple[str, ...]] = {
    "none": ("picking_share", "picking_error_A"),
    "triangular": ("percent", "picking_share", "picking_error_A"),
    "gaussian": ("sigma_A", "picking_share", "picking_error_A"),
    "uniform": ("half_width_A", "picking_share", "picking_error_A"),
}


def _refuse_unused(group: str, settings: Any, uses: Mapping[str, tuple[str, ...]]) -> None:
    """A setting without effect is a mistake: most often, `kind` was forgotten."""
    if settings.kind not in uses:
        raise InputError(f"{group}.kind is {settings.kind!r}; give one of {', '.join(uses)}.")
    for item in fields(settings):
        unused = item.name != "kind" and item.name not in uses[settings.kind]
        if unused and getattr(settings, item.name) != item.default:
            kinds = [kind for kind, names in uses.items() if item.name in names]
            raise InputError(
                f"{group}.{item.name} has no meaning while {group}.kind is {settings.kind}; set "
                f"{group}.kind to {' or '.join(kinds)}, or leave {group}.{item.name} out."
            )
