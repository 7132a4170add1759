"""Settings of a simulated set's CTFs.

Nothing here needs torch, so that settings that cannot work are refused at once.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryogan.errors import InputError
from cryogan.io.ranges import require_possible
from cryogan.simulation.setting_ranges import require_both, require_range, require_share

_LARGEST_DEFOCUS_ERROR_A = 20_000.0


@dataclass(frozen=True)
class MicroscopeSettings:
    """CTFs of the particles.

    Attributes:
        kind: none (a CTF of 1), range (every particle has a defocus of its own) or table (CTFs
            of real micrographs or particles, drawn with replacement).
        defocus_A: range: lowest and highest defocus along the axis of greatest underfocus, in Å,
            uniform between; underfocus is positive.
        astigmatism_A: range: greatest difference in Å of the two defoci, uniform from 0; the
            angle is uniform.
        table: table: .star or .cs of real particles, or .csv with the columns defocus_u_A,
            defocus_v_A, defocus_angle_deg, phase_shift_deg and particles, the number of particles
            in a micrograph and so its weight.
        defocus_spread_A: standard deviation in Å of a particle's defocus from what was drawn
            (heights in the ice); the same for both axes.
        voltage_kV: acceleration voltage in kV; a .star or .cs table has its own.
        spherical_aberration_mm: Cs in mm; a .star or .cs table has its own.
        amplitude_contrast: as a fraction; a .star or .cs table has its own.
        phase_shift_deg: range: lowest and highest phase shift of a phase plate in degrees,
            uniform between; a table has its own.
        b_factor_A2: B in Å² of an envelope exp(-B k² / 4), on top of what a .star or .cs table has.
        wrong_share: share of the particles whose defocus in particles.star is wrong, from 0 to 1.
        wrong_by_A: by how much, in Å; too high or too low at random.

    Raises:
        InputError: a number is out of its range, or settings contradict each other.
    """

    kind: Literal["none", "range", "table"] = "range"
    defocus_A: tuple[float, float] = (8000.0, 25000.0)
    astigmatism_A: float = 300.0
    table: str | None = None
    defocus_spread_A: float = 0.0
    voltage_kV: float = 300.0
    spherical_aberration_mm: float = 2.7
    amplitude_contrast: float = 0.1
    phase_shift_deg: tuple[float, float] = (0.0, 0.0)
    b_factor_A2: float = 0.0
    wrong_share: float = 0.0
    wrong_by_A: float = 0.0

    def __post_init__(self) -> None:
        for name, unit in (("defocus_A", "Å"), ("phase_shift_deg", "degrees")):
            low, high = getattr(self, name)
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise InputError(
                    f"ctf.{name} is {low:g} to {high:g}; give two numbers of {unit}, the lower "
                    "one first."
                )
        for name in ("astigmatism_A", "defocus_spread_A", "b_factor_A2"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise InputError(f"ctf.{name} is {getattr(self, name):g}; give a number from 0.")
        for name in ("voltage_kV", "spherical_aberration_mm"):
            require_possible(name, getattr(self, name), f"ctf.{name}")
        if not 0.0 <= self.amplitude_contrast < 1.0:
            raise InputError(
                f"ctf.amplitude_contrast is {self.amplitude_contrast:g}; give a fraction from 0 "
                "to below 1, such as 0.1."
            )
        require_share("ctf.wrong_share", self.wrong_share)
        require_range("ctf.wrong_by_A", self.wrong_by_A, _LARGEST_DEFOCUS_ERROR_A, "Å")
        require_both(
            *("ctf.wrong_share", self.wrong_share),
            *("ctf.wrong_by_A", self.wrong_by_A),
        )
        if self.kind == "none" and self.wrong_share > 0:
            raise InputError(
                "ctf.wrong_share is given but ctf.kind is none, so that there is no defocus; "
                "leave it out."
            )
        self._check_table()

    def _check_table(self) -> None:
        if self.kind == "table" and self.table is None:
            raise InputError("ctf.kind is table but no ctf.table is given; name a file.")
        if self.kind != "table" and self.table is not None:
            raise InputError(
                f"ctf.table is given but ctf.kind is {self.kind}; set it to table, or leave out "
                "ctf.table."
            )
        if self.kind == "table" and any(self.phase_shift_deg):
            raise InputError(
                "ctf.phase_shift_deg is given but a ctf.table has its own phase shifts; leave "
                "one out."
            )
        if self.table is not None and Path(self.table).suffix not in (".csv", ".star", ".cs"):
            raise InputError(
                f"ctf.table is {self.table}, whose kind its name does not tell; give a file .csv, "
                ".star or .cs."
            )
