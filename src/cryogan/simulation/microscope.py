"""The microscope of a simulated set: how the CTFs of its particles are distributed."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.io.cryosparc import read_ctf
from cryogan.io.relion import read_metadata
from cryogan.particles import CTFParams
from cryogan.simulation.table import read_columns

_TABLE_COLUMNS = (
    "defocus_u_A",
    "defocus_v_A",
    "defocus_angle_deg",
    "phase_shift_deg",
    "particles",
)


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
        spherical_aberration_mm: in mm; a .star or .cs table has its own.
        amplitude_contrast: as a fraction; a .star or .cs table has its own.
        phase_shift_deg: range: lowest and highest phase shift of a phase plate in degrees,
            uniform between; a table has its own.
        b_factor_A2: B in Å² of an envelope exp(-B k² / 4), on top of what a .star or .cs table has.

    Raises:
        InputError: a number is out of its range, or `table` and `kind` contradict each other.
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
        if not 0.0 < self.voltage_kV < math.inf:
            raise InputError(f"ctf.voltage_kV is {self.voltage_kV:g}; give a positive number.")
        if not math.isfinite(self.spherical_aberration_mm):
            raise InputError("ctf.spherical_aberration_mm is no finite number; give mm.")
        if not 0.0 <= self.amplitude_contrast < 1.0:
            raise InputError(
                f"ctf.amplitude_contrast is {self.amplitude_contrast:g}; give a fraction from 0 "
                "to below 1, such as 0.1."
            )
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


def draw(settings: MicroscopeSettings, n: int, generator: torch.Generator) -> CTFParams:
    """CTFs of n particles.

    Raises:
        InputError: the table cannot be read or used.
    """
    if settings.kind == "none":
        return perfect_ctf(n)
    ctf = _drawn(settings, n, generator)
    if settings.defocus_spread_A > 0:
        deviation = settings.defocus_spread_A * torch.randn(n, generator=generator)
        ctf = replace(
            ctf,
            defocus_u_A=ctf.defocus_u_A + deviation,
            defocus_v_A=ctf.defocus_v_A + deviation,
        )
    return replace(ctf, b_factor_A2=ctf.b_factor_A2 + settings.b_factor_A2)


def random_ctf(n: int, generator: torch.Generator) -> CTFParams:
    """CTFs of n particles under the default settings."""
    return draw(MicroscopeSettings(), n, generator)


def perfect_ctf(n: int) -> CTFParams:
    """Parameters whose CTF is 1 at every frequency (all amplitude contrast, in focus)."""
    return CTFParams.constant(
        n, defocus_u_A=0.0, spherical_aberration_mm=0.0, amplitude_contrast=1.0
    )


def _drawn(settings: MicroscopeSettings, n: int, generator: torch.Generator) -> CTFParams:
    """From the range or the table, before spread and envelope."""
    if settings.kind == "range":
        return _from_range(settings, n, generator)
    table, weights = _read_table(settings)
    return table[torch.multinomial(weights, n, replacement=True, generator=generator)]


def _from_range(settings: MicroscopeSettings, n: int, generator: torch.Generator) -> CTFParams:
    low, high = settings.defocus_A
    uniform = torch.rand(3, n, generator=generator)
    u = low + (high - low) * uniform[0]
    first, last = settings.phase_shift_deg
    phase_shift_deg = torch.full((n,), first)
    if last > first:
        phase_shift_deg += (last - first) * torch.rand(n, generator=generator)
    return _with_optics(
        settings, u, u - settings.astigmatism_A * uniform[1], 180.0 * uniform[2], phase_shift_deg
    )


def _read_table(settings: MicroscopeSettings) -> tuple[CTFParams, Tensor]:
    """m CTFs and their (m,) weights."""
    path = Path(str(settings.table))
    if path.suffix in (".star", ".cs"):
        table = read_metadata(path).ctf if path.suffix == ".star" else read_ctf(path)
        return table, torch.ones(len(table))
    if path.suffix != ".csv":
        raise InputError(
            f"ctf.table is {path}, whose kind its name does not tell; give a file .csv, .star "
            "or .cs."
        )
    *columns, particles = read_columns(path, _TABLE_COLUMNS).float()
    if particles.min() < 0 or particles.sum() == 0:
        raise InputError(
            f"The column particles of {path} must hold numbers from 0, not all of them 0; "
            "correct it."
        )
    return _with_optics(settings, *columns), particles


def _with_optics(
    settings: MicroscopeSettings, u: Tensor, v: Tensor, angle: Tensor, phase_shift: Tensor
) -> CTFParams:
    return CTFParams.constant(
        len(u),
        defocus_u_A=u,
        defocus_v_A=v,
        defocus_angle_deg=angle,
        phase_shift_deg=phase_shift,
        voltage_kV=settings.voltage_kV,
        spherical_aberration_mm=settings.spherical_aberration_mm,
        amplitude_contrast=settings.amplitude_contrast,
    )
