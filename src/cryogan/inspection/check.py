"""The check of a particle set: all findings in one record."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.data.extent import Extent, measure_extent
from cryogan.data.noise_filter import measure_anisotropy
from cryogan.data.statistics import measure
from cryogan.errors import InputError
from cryogan.inspection.images_needed import ImagesNeeded, images_needed, signal_to_noise
from cryogan.inspection.metadata import (
    Outlier,
    Range,
    ctf_outliers,
    ctf_ranges,
    file_of,
    metadata_notes,
    metadata_problems,
    optics_groups,
    robust_z,
    rows_of,
)
from cryogan.inspection.sample import ImageStatistics, Sample, take_sample
from cryogan.io.contrast import MIN_Z, contrast_z
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.cpu_time import estimate_cpu_time
from cryogan.particles import ArrayStack, Particles, UnusedColumn
from cryogan.physics.ctf import ctf
from cryogan.physics.spectra import PowerSpectra
from cryogan.registry import OBJECTIVES
from cryogan.run.memory import available_GB, memory_bound_GB

_OBJECTIVES = ("adversarial", "likelihood")
_HOT_SD = 12.0
_SCALE_Z = 8.0
_ALIKE = 1.5  # 90 % to 10 % quantile of standard deviations
_WIDEST_PERCENT = 3.0  # of the box: about what remains of shifts once images are centred
_FEWEST = 50  # images of an optics group whose spectra are worth measuring


@dataclass(frozen=True)
class Contrast:
    """Sign of the protein in the images on disk.

    Attributes:
        verdict: "bright", "dark", or "too weak to tell".
        z: of "protein is bright", on disk; beyond ±5 it is told.
        inverted: whether the images are inverted on reading.
    """

    verdict: str
    z: float
    inverted: bool


@dataclass(frozen=True)
class Quantiles:
    """10 %, 50 % and 90 % of the sampled images."""

    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Normalisation:
    """Whether images have one grey scale.

    Attributes:
        offset_sd: mean of the background in units of an image's standard deviation.
        ramp_sd: difference across the box of the best-fitting plane, in the same unit.
        sd: standard deviation of images, relative to its median.
        normalised: whether none of these matters.
    """

    offset_sd: Quantiles
    ramp_sd: Quantiles
    sd: Quantiles
    normalised: bool


@dataclass(frozen=True)
class GroupSpectra:
    """Spectra of an optics group's images, per shell; noise has about unit variance.

    Attributes:
        name: of the group.
        particles: in it.
        sampled: measured on so many.
        resolution_A: of shells 1, 2, ...
        signal: power of the projections before the CTF.
        noise: power.
        signal_to_noise: of the images, the CTF included.
        snr_dB: 10 log10 of the ratio of signal to noise variance of a pixel.
    """

    name: str
    particles: int
    sampled: int
    resolution_A: tuple[float, ...]
    signal: tuple[float, ...]
    noise: tuple[float, ...]
    signal_to_noise: tuple[float, ...]
    snr_dB: float


@dataclass(frozen=True)
class NoiseDirections:
    """How the power of noise depends on direction, where it does by 10 % of a shell or more.

    Attributes:
        coarsest_A, finest_A: wavelengths between which it does.
        largest_ratio: largest power, in units of its shell's mean.
        direction_deg: of that, from x.
        wavelength_A: of that.
        signal_share: share of the pattern that the signal has too, from 0 to 1.
        words: the same in a line.
    """

    coarsest_A: float
    finest_A: float
    largest_ratio: float
    direction_deg: float
    wavelength_A: float
    signal_share: float
    words: str


@dataclass(frozen=True)
class Memory:
    """What a run needs at most.

    Attributes:
        objective: of the run, with its default settings, on a CPU.
        at_most_GB: 1e9 bytes, from the sizes of arrays; it may need a fraction of it.
    """

    objective: str
    at_most_GB: float


@dataclass(frozen=True)
class TimeEstimate:
    """CPU time of a run, right within a factor of 3.

    Attributes:
        objective: of the run, with its default settings, on a CPU.
        resolution_A: that these particles can reach, as `images_needed` says.
        image_s: CPU seconds of an image in an iteration there.
        run_s: CPU seconds of the run.
    """

    objective: str
    resolution_A: float
    image_s: float
    run_s: float


@dataclass(frozen=True)
class ParticleCheck:
    """What a look at a particle set has found; rows count from 0, as for --ind.

    Attributes:
        particles, box_size, pixel_size_A: of the set.
        summary: lines of the reader: stacks, where the pixel size came from, optics.
        sampled: images that were looked at.
        contrast, normalisation, spectra, extent: of these.
        ctf: ranges of the parameters.
        ctf_outliers: particles whose CTF stands out.
        bad_images: rows and words, of the images sampled.
        images_needed: estimate, with all poses known.
        noise_directions: how noise depends on direction; None where it does not, significantly.
        memory: of runs, where it is known.
        time: of a run by the likelihood; None where it would be refused.
        available_GB: memory of this machine that is free, or None.
        ignored_columns: that would change the images' model; `summary` says them too.
        problems: what is to be mended.
        notes: what is worth knowing.
    """

    particles: int
    box_size: int
    pixel_size_A: float
    summary: tuple[str, ...]
    sampled: int
    contrast: Contrast
    normalisation: Normalisation
    ctf: tuple[Range, ...]
    ctf_outliers: tuple[Outlier, ...]
    bad_images: tuple[Outlier, ...]
    spectra: tuple[GroupSpectra, ...]
    extent: Extent
    images_needed: tuple[ImagesNeeded, ...]
    noise_directions: NoiseDirections | None
    memory: tuple[Memory, ...]
    time: TimeEstimate | None
    available_GB: float | None
    ignored_columns: tuple[UnusedColumn, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ready(self) -> bool:
        """Whether nothing is to be mended."""
        return not self.problems

    def to_json(self) -> str:
        """All findings; a number that is not finite is null."""
        return json.dumps(_finite(asdict(self) | {"ready": self.ready}), indent=1, allow_nan=False)


def check(particles: Particles) -> ParticleCheck:
    """Look at a particle set: its columns, and up to 2,000 of its images.

    Raises:
        InputError: no image can be read.

    Example:
        >>> import tempfile, cryogan as cg
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     particles = cg.simulate(
        ...         "phantom", folder + "/set", box_size=32, pixel_size_A=6.0, images=200
        ...     )
        ...     found = cg.check(particles)
        >>> found.particles, found.contrast.verdict, found.ready
        (200, 'bright', True)
    """
    source, width_A = particles.source, particles.box_size * particles.pixel_size_A
    rows = rows_of(particles)
    file = file_of(particles)
    sample = take_sample(particles)
    bad = _bad_images(sample, rows)
    small, numbers = _good(sample, rows, {outlier.row: outlier.what for outlier in bad})
    contrast = _contrast(small, inverted=source is not None and source.inverted)
    spectra, ratio = _spectra(small)
    groups = []
    for name, index in optics_groups(particles, file):
        inside = torch.isin(numbers, index).nonzero()[:, 0]
        if len(inside) >= _FEWEST:
            whole = len(inside) == len(small)
            own = (spectra, ratio) if whole else _spectra(small.subset(inside))
            groups.append(_group(name, len(index), len(inside), *own, width_A))
    extent = measure_extent(small, spectra)
    needed = images_needed(
        ratio,
        width_A=width_A,
        diameter_A=extent.diameter_A or 0.7 * width_A,
        sampled=len(small),
    )
    if not needed:
        extent = replace(extent, diameter_A=None, shift_sd_A=None)
    outliers = ctf_outliers(particles.ctf, rows)
    normalisation = _normalisation(sample.statistics)
    refusals, memory, available = *_of_objectives(particles), available_GB("cpu")
    summary = () if source is None else tuple(source.summary.splitlines())
    return ParticleCheck(
        particles=len(particles),
        box_size=particles.box_size,
        pixel_size_A=particles.pixel_size_A,
        summary=summary,
        sampled=len(sample.index) + len(sample.unreadable),
        contrast=contrast,
        normalisation=normalisation,
        ctf=ctf_ranges(particles.ctf),
        ctf_outliers=outliers,
        bad_images=bad,
        spectra=tuple(groups),
        extent=extent,
        images_needed=needed,
        noise_directions=_noise_directions(small),
        memory=memory,
        time=_time(particles, extent, needed) if memory else None,
        available_GB=available,
        ignored_columns=() if source is None else source.unused,
        problems=(*(() if memory else refusals), *_problems(particles, contrast, bad, needed)),
        notes=(
            *(line for line in summary if line.startswith("warning: ")),
            *(refusals if memory else ()),
            *_notes(particles, normalisation, extent, width_A),
        ),
    )


def _noise_directions(small: Particles) -> NoiseDirections | None:
    found = measure_anisotropy(small)
    if found.is_isotropic:
        return None
    coarse_px, fine_px = found.band_px
    ratio, along_deg, at_px = found.largest
    pixel_size_A = small.pixel_size_A
    return NoiseDirections(
        coarse_px * pixel_size_A,
        fine_px * pixel_size_A,
        ratio,
        along_deg,
        at_px * pixel_size_A,
        found.signal_share,
        found.words(pixel_size_A),
    )


def _time(
    particles: Particles, extent: Extent, needed: tuple[ImagesNeeded, ...]
) -> TimeEstimate | None:
    """Of the likelihood, to the resolution that so many particles can reach."""
    reached = [each.resolution_A for each in needed if each.images <= len(particles)]
    if not reached:
        return None
    width_A = particles.box_size * particles.pixel_size_A
    resolution_A = max(min(reached), 2.0 * particles.pixel_size_A)
    spread_A = extent.shift_below_A if extent.shift_sd_A is None else extent.shift_sd_A
    assumptions = Assumptions().with_shifts(min(100.0 * spread_A / width_A, _WIDEST_PERCENT))
    assumptions = assumptions.with_diameter(extent.diameter_A, width_A)
    found = estimate_cpu_time(LikelihoodConfig(assumptions=assumptions), particles, resolution_A)
    return TimeEstimate("likelihood", resolution_A, found.image_s, found.run_s)


def _of_objectives(particles: Particles) -> tuple[list[str], tuple[Memory, ...]]:
    """Why runs would be refused, and the memory of those that would not be."""
    refusals, memory = [], []
    for name in _OBJECTIVES:
        objective = OBJECTIVES[name]()
        try:
            objective.check(particles)
            bound_GB = memory_bound_GB(objective, particles)
        except InputError as error:
            refusals.append(f"{name} run: {str(error).rstrip('.')}")
            continue
        if bound_GB is not None:
            memory.append(Memory(name, bound_GB))
    return refusals, tuple(memory)


def _bad_images(sample: Sample, rows: Tensor) -> tuple[Outlier, ...]:
    """Of the sampled images: unreadable, constant, with hot pixels, or on another grey scale."""
    found = {int(rows[number]): complaint.rstrip(".") for number, complaint in sample.unreadable}
    statistics = sample.statistics
    typical = float(statistics.sd.median())
    constant = statistics.sd <= 1e-6 * typical if typical > 0 else statistics.sd == 0
    scale_z = robust_z(statistics.sd.clamp_min(1e-30).log(), 0.05)
    for number, image in enumerate(sample.index.tolist()):
        row = int(rows[image])
        largest, sd = float(statistics.largest[number]), float(statistics.sd[number])
        if constant[number]:
            found[row] = "all pixels are alike"
        elif largest > _HOT_SD:
            found[row] = f"a pixel is {largest:.0f} standard deviations from the mean"
        elif abs(float(scale_z[number])) > _SCALE_Z and not 0.5 < sd / typical < 2.0:
            found[row] = f"standard deviation {sd / typical:.3g} times the median"
    return tuple(Outlier(row, found[row]) for row in sorted(found))


def _good(sample: Sample, rows: Tensor, bad: Mapping[int, str]) -> tuple[Particles, Tensor]:
    """The small images that are not bad, on one grey scale, and their numbers in the set.

    Only scales that really differ are divided out, by the level of the upper frequencies: the
    whole variance holds the signal's, which goes with the CTF² that spectra are fitted against.
    """
    keep = torch.tensor([int(rows[number]) not in bad for number in sample.index.tolist()])
    if not bool(keep.any()):
        raise InputError(
            f"None of the {len(keep)} images looked at can be used: row {min(bad)} (counted from "
            f"0; {bad[min(bad)]}), and others; extract the particles again."
        )
    chosen = keep.nonzero()[:, 0]
    images = sample.small.stack.read(chosen)
    scale = sample.statistics.sd[chosen].float()
    if float(scale.quantile(0.9)) < _ALIKE * float(scale.quantile(0.1)):
        scale = scale.median().expand_as(scale)
    else:
        upper = fourier.frequency_grid(images.shape[-1]).norm(dim=-1) > 0.3
        scale = (fourier.rfft(images) * upper).abs().square().mean((-2, -1)).sqrt()
    images = images / scale[:, None, None]
    ctf_of_them, pixel_size_A = sample.small.ctf[chosen], sample.small.pixel_size_A
    return Particles(ArrayStack(images), ctf_of_them, pixel_size_A), sample.index[chosen]


def _contrast(small: Particles, *, inverted: bool) -> Contrast:
    images = small.stack.read(torch.arange(len(small)))
    z = contrast_z(images, small.pixel_size_A) * (-1.0 if inverted else 1.0)
    verdict = "too weak to tell" if abs(z) < MIN_Z else "bright" if z > 0 else "dark"
    return Contrast(verdict, z, inverted)


def _spectra(small: Particles) -> tuple[PowerSpectra, Tensor]:
    """Spectra in the images' own unit, and the ratio of signal to noise power in every shell."""
    measured = measure(small)
    size = small.box_size
    ctf2 = fourier.shell_mean(ctf(small.ctf, size, small.pixel_size_A).square().mean(0), size)
    spectra = measured.spectra
    return spectra.scaled(1.0 / measured.gain), signal_to_noise(spectra, ctf2)


def _group(
    name: str, count: int, sampled: int, spectra: PowerSpectra, ratio: Tensor, width_A: float
) -> GroupSpectra:
    size = 2 * (len(ratio) - 1)
    used = slice(1, size // 2)
    unit = 1.0 / float(spectra.noise[used].mean())
    coefficients = torch.arange(1, size // 2)
    signal = (ratio * spectra.noise)[used]
    rings = 2.0 * math.pi * coefficients
    corners = (1.0 - math.pi / 4.0) * size**2 * spectra.noise[size // 2 - 1]
    noise = (rings * spectra.noise[used]).sum() + corners
    power_ratio = float((rings * signal).sum() / noise)
    return GroupSpectra(
        name,
        count,
        sampled,
        tuple((width_A / coefficients).tolist()),
        tuple((spectra.signal[used] * unit).tolist()),
        tuple((spectra.noise[used] * unit).tolist()),
        tuple(ratio[used].tolist()),
        10.0 * math.log10(max(power_ratio, 1e-12)),
    )


def _normalisation(statistics: ImageStatistics) -> Normalisation:
    usable = statistics.sd > 0
    if not bool(usable.any()):
        usable = torch.ones_like(usable)
    offset = _quantiles(statistics.offset[usable])
    ramp = _quantiles(statistics.ramp[usable])
    sd = _quantiles(statistics.sd[usable] / statistics.sd[usable].median().clamp_min(1e-30))
    normalised = (
        max(abs(offset.low), abs(offset.high)) < 0.5
        and ramp.high < 1.0
        and sd.high < _ALIKE * sd.low
    )
    return Normalisation(offset, ramp, sd, normalised)


def _quantiles(values: Tensor) -> Quantiles:
    low, median, high = values.double().quantile(torch.tensor([0.1, 0.5, 0.9]).double()).tolist()
    return Quantiles(low, median, high)


def _problems(
    particles: Particles,
    contrast: Contrast,
    bad: tuple[Outlier, ...],
    needed: tuple[ImagesNeeded, ...],
) -> tuple[str, ...]:
    found = [*metadata_problems(particles)]
    if bad:
        listed = ", ".join(f"{outlier.row} ({outlier.what})" for outlier in bad[:3])
        more = f" and {len(bad) - 3:,} more" if len(bad) > 3 else ""
        found.append(
            f"{len(bad):,} of the images looked at cannot be used as they are: rows {listed}"
            f"{more}; a run leaves out those that are constant or damaged"
        )
    if not needed:
        found.append(
            "no signal that follows the CTFs; check their columns, and that these are particles "
            "(or give more than these few)"
        )
    elif contrast.verdict == "too weak to tell":
        found.append(
            f"contrast too weak to tell its sign (z = {contrast.z:+.1f}); give --sign, or more "
            "particles"
        )
    return tuple(found)


def _notes(
    particles: Particles,
    normalisation: Normalisation,
    extent: Extent,
    width_A: float,
) -> tuple[str, ...]:
    found = []
    if not normalisation.normalised:
        found.append(
            "images are not normalised: background "
            f"{normalisation.offset_sd.low:.2g} to {normalisation.offset_sd.high:.2g} SD, ramp "
            f"{normalisation.ramp_sd.median:.2g} SD over the box, SD {normalisation.sd.low:.2g} "
            f"to {normalisation.sd.high:.2g} times its median"
        )
    found += metadata_notes(particles)
    if extent.diameter_A is not None and extent.diameter_A > 0.8 * width_A:
        found.append(
            f"the particle ({extent.diameter_A:.0f} Å) fills the box of {width_A:.0f} Å; boxes of "
            "1.5 to 2 diameters keep what the CTF spreads"
        )
    return tuple(found)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
