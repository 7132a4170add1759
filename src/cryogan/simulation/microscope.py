"""The microscope of a simulated set: how the CTFs of its particles are distributed."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.io.cryosparc import read_ctf
from cryogan.io.relion_metadata import read_metadata
from cryogan.io.tables import read_columns
from cryogan.particles import CTFParams
from cryogan.simulation.microscope_settings import MicroscopeSettings

_TABLE_COLUMNS = (
    "defocus_u_A",
    "defocus_v_A",
    "defocus_angle_deg",
    "phase_shift_deg",
    "particles",
)


def draw(
    settings: MicroscopeSettings,
    n: int,
    generator: torch.Generator,
    micrograph: Tensor | None = None,
) -> CTFParams:
    """CTFs of n particles.

    Args:
        settings: of the microscope.
        n: number of particles.
        generator: source of the draws.
        micrograph: (n,) int64, numbers of their micrographs from 0, each of which has one CTF up
            to the spread of defocus; None: every particle has a CTF of its own.

    Raises:
        InputError: the table cannot be read or used.

    Example:
        >>> import torch
        >>> from cryogan.simulation.microscope import draw
        >>> from cryogan.simulation.microscope_settings import MicroscopeSettings
        >>> settings = MicroscopeSettings(defocus_A=(15000.0, 15000.0), voltage_kV=200.0)
        >>> ctf = draw(settings, 3, torch.Generator().manual_seed(0))
        >>> ctf.defocus_u_A.tolist(), ctf.voltage_kV.tolist()
        ([15000.0, 15000.0, 15000.0], [200.0, 200.0, 200.0])
    """
    if settings.kind == "none":
        return perfect_ctf(n)
    if micrograph is None:
        ctf = _drawn(settings, n, generator)
    else:
        ctf = _drawn(settings, int(micrograph.max()) + 1, generator)[micrograph]
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
    """Parameters whose CTF is 1 at every frequency (all amplitude contrast, in focus).

    Example:
        >>> from cryogan.physics.ctf import ctf
        >>> from cryogan.simulation.microscope import perfect_ctf
        >>> bool((ctf(perfect_ctf(2), 32, 6.0) == 1).all())
        True
    """
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
        table = replace(table, correction=torch.zeros_like(table.correction))
        return table, torch.ones(len(table))
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
