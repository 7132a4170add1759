"""What the columns of a set tell: CTFs that stand out, optics groups."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.io.selection import CsFile, StarFile, open_particle_file
from cryogan.particles import CTFParams, Particles

_SMALL_DEFOCUS_A = 500.0
_FAR = 8.0  # robust standard deviations


@dataclass(frozen=True)
class Range:
    """Of a CTF parameter over all particles."""

    name: str
    smallest: float
    median: float
    largest: float


@dataclass(frozen=True)
class Outlier:
    """A particle whose CTF stands out.

    Attributes:
        row: in the particle file, from 0.
        what: in words.
    """

    row: int
    what: str


def ctf_ranges(ctf: CTFParams) -> tuple[Range, ...]:
    """Of the mean defocus, the astigmatism and all else."""
    columns = {
        "defocus (Å)": (ctf.defocus_u_A + ctf.defocus_v_A) / 2,
        "astigmatism (Å)": (ctf.defocus_u_A - ctf.defocus_v_A).abs(),
        "voltage (kV)": ctf.voltage_kV,
        "Cs (mm)": ctf.spherical_aberration_mm,
        "amplitude contrast": ctf.amplitude_contrast,
        "phase shift (°)": ctf.phase_shift_deg,
        "B-factor (Å²)": ctf.b_factor_A2,
        "scale": ctf.scale,
    }
    return tuple(
        Range(name, float(values.min()), float(values.median()), float(values.max()))
        for name, values in columns.items()
    )


def is_without_ctf(ctf: CTFParams) -> bool:
    """Whether the CTF is 1 throughout: all amplitude contrast, in focus."""
    return bool((ctf.amplitude_contrast == 1).all() & (ctf.defocus_u_A == 0).all())


def ctf_outliers(ctf: CTFParams, rows: Tensor) -> tuple[Outlier, ...]:
    """Particles whose defocus, or its relative astigmatism, is 8 robust SDs from the median."""
    if is_without_ctf(ctf):
        return ()
    defocus_A = (ctf.defocus_u_A + ctf.defocus_v_A).double() / 2
    astigmatism = (ctf.defocus_u_A - ctf.defocus_v_A).double().abs() / defocus_A.abs().clamp_min(
        1.0
    )
    found = {
        int(number): f"defocus {float(defocus_A[number]):,.0f} Å"
        for number in (robust_z(defocus_A, 500.0).abs() > _FAR).nonzero()[:, 0]
    }
    wide = (robust_z(astigmatism, 0.02) > _FAR) & (astigmatism > 0.2)
    for number in wide.nonzero()[:, 0].tolist():
        words = f"astigmatism {100 * float(astigmatism[number]):.0f} % of the defocus"
        found[number] = ", ".join(filter(None, (found.get(number), words)))
    return tuple(Outlier(int(rows[number]), found[number]) for number in sorted(found))


def metadata_problems(particles: Particles) -> tuple[str, ...]:
    """What makes a set unusable, as far as its columns tell: no image is read."""
    ctf = particles.ctf
    typical_A = float(((ctf.defocus_u_A + ctf.defocus_v_A) / 2).abs().median())
    no_plate = float(ctf.phase_shift_deg.abs().max()) == 0
    if is_without_ctf(ctf) or not 0 < typical_A < _SMALL_DEFOCUS_A or not no_plate:
        return ()
    return (f"defocus of {typical_A:g}: rlnDefocusU and rlnDefocusV are in Å; is it in µm or nm?",)


def metadata_notes(particles: Particles) -> tuple[str, ...]:
    """What is worth knowing of a set's columns: no image is read."""
    outliers = ctf_outliers(particles.ctf, rows_of(particles))
    if not outliers:
        return ()
    listed = "; ".join(f"row {outlier.row}, {outlier.what}" for outlier in outliers[:3])
    many = (
        "1 particle has a CTF that stands"
        if len(outliers) == 1
        else (f"{len(outliers):,} particles have CTFs that stand")
    )
    return (f"{many} out ({listed})",)


def with_metadata_notes(particles: Particles) -> Particles:
    """The particles, whose summary says what `check` finds in their columns.

    Raises:
        InputError: they cannot be used.
    """
    problems = metadata_problems(particles)
    if problems:
        raise InputError(f"These particles cannot be used: {'; '.join(problems)}.")
    notes = [f"warning: {note}" for note in metadata_notes(particles)]
    if particles.source is None or not notes:
        return particles
    summary = "\n".join((particles.source.summary, *notes))
    return replace(particles, source=replace(particles.source, summary=summary))


def rows_of(particles: Particles) -> Tensor:
    """(n,) int64 rows of the particles in their file, from 0."""
    source = particles.source
    if source is not None and source.rows is not None:
        return source.rows
    return torch.arange(len(particles))


def robust_z(values: Tensor, least: float = 1e-12) -> Tensor:
    """Distance from the median in robust standard deviations, `least` or more each."""
    centred = values - values.median()
    return centred / (1.4826 * centred.abs().median()).clamp_min(least)


def file_of(particles: Particles) -> StarFile | CsFile | None:
    """The file that particles were read from, if it is of RELION or cryoSPARC."""
    source = particles.source
    if source is None or source.path.suffix not in (".star", ".cs"):
        return None
    return open_particle_file(source.path)


def optics_groups(
    particles: Particles, file: StarFile | CsFile | None
) -> tuple[tuple[str, Tensor], ...]:
    """Names of optics groups and the numbers of their particles in the set.

    Those of the star file; else one for each set of voltage, Cs and amplitude contrast.
    """
    names = _optics_names(file)
    if names is not None and particles.source is not None and particles.source.rows is not None:
        names = names[particles.source.rows.numpy()]
    if names is None:
        ctf = particles.ctf
        optics = (ctf.voltage_kV, ctf.spherical_aberration_mm, ctf.amplitude_contrast)
        keys = torch.unique(torch.stack(optics), dim=1, return_inverse=True)[1]
        names = np.array([f"optics {number + 1}" for number in keys.tolist()])
    found, first, group, counts = np.unique(
        names, return_index=True, return_inverse=True, return_counts=True
    )
    numbers = np.split(np.argsort(group, kind="stable"), np.cumsum(counts)[:-1])
    return tuple((str(found[i]), torch.from_numpy(numbers[i])) for i in np.argsort(first))


def _optics_names(
    file: StarFile | CsFile | None,
) -> "np.ndarray[tuple[int], np.dtype[np.str_]] | None":
    if not isinstance(file, StarFile) or "rlnOpticsGroup" not in file.particles:
        return None
    group = np.array(file.particles.columns["rlnOpticsGroup"], dtype=str)
    for table in file.tables:
        if "rlnOpticsGroupName" in table and "rlnOpticsGroup" in table:
            pairs = zip(
                table.columns["rlnOpticsGroup"], table.columns["rlnOpticsGroupName"], strict=True
            )
            known = dict(pairs)
            group = np.array([known.get(name, name) for name in group.tolist()])
    return group
