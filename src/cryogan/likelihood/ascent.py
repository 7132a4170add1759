"""Maximum likelihood by expectation maximisation, from nothing or from maps.

Both half-sets are worked on side by side and meet in one number a shell only, their FSC, which
says how much of a shell to believe (Scheres, J. Struct. Biol. 180, 2012): it sets the prior of both
maps and the band in which poses are judged. Without maps to start from, each half first climbs on
its own from random numbers, band by band, on small random batches; the prior is then the signal's
power, which is measured without poses.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.evaluation.alignment import Alignment, align, apply_alignment, refine_alignment
from cryogan.evaluation.fsc import fourier_shell_correlation, resolution_A
from cryogan.likelihood.expectation import (
    Level,
    levels_for,
    log_evidence,
    reference,
    search,
)
from cryogan.likelihood.half_set import HalfSet
from cryogan.likelihood.maximisation import (
    NormalEquations,
    normal_equations,
    posterior,
    shell_weight,
    solve,
)
from cryogan.likelihood.polar import Polar
from cryogan.likelihood.views import views
from cryogan.models.volume import rescale_volume, symmetrise
from cryogan.physics.projection import volume_spectrum
from cryogan.physics.rotations import angle_between
from cryogan.symmetry import symmetry_matrices

_CHUNK = 8192
_PADDING = 2.0


@dataclass(frozen=True)
class AscentConfig:
    """Settings of expectation maximisation.

    Attributes:
        iterations: the most passes over images once the halves are compared.
        subset: images of each half in a pass, until the resolution no longer improves; then
            passes see all images.
        full_passes: passes over all images that do not improve the resolution; then it ends.
        climb_rings: bands of the climb from random numbers, first and last, in Fourier pixels.
        climb_steps: batches in every band.
        climb_images: images in a batch.
        climb_nats: posteriors of the climb are softened, raised to a power below 1, so that the
            best pose of the average image explains no more than this (log-likelihood over that of
            noise alone): in the first band, and from the sixth on. Random numbers would otherwise
            be believed, and what is found first would stay.
        symmetry: point group (RELION's name).
        shift_percent: largest shift along x and y, in percent of the box.
        mask_radius: radius of the soft ball mask, as a fraction of half the box.
        mask_edge: width of its cosine edge, same unit.
    """

    iterations: int = 8
    subset: int = 2500
    full_passes: int = 1
    climb_rings: tuple[int, int] = (5, 13)
    climb_steps: int = 6
    climb_images: int = 500
    climb_nats: tuple[float, float] = (12.0, 120.0)
    symmetry: str = "C1"
    shift_percent: float = 0.0
    mask_radius: float = 0.85
    mask_edge: float = 0.15

    def __post_init__(self) -> None:
        for name in ("iterations", "subset", "full_passes", "climb_steps", "climb_images"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; give at least 1.")
        first, last = self.climb_rings
        if not 3 <= first <= last:
            raise InputError(
                f"climb_rings is {first} to {last}; give two rings, the first at least 3."
            )
        if not 0.0 < self.climb_nats[0] <= self.climb_nats[1]:
            raise InputError(
                f"climb_nats is {self.climb_nats[0]:g} to {self.climb_nats[1]:g}; give two "
                "positive numbers, the larger last."
            )
        if not 0.0 <= self.shift_percent <= 50.0:
            raise InputError(
                f"shift_percent is {self.shift_percent}; give a percentage of the box from 0 to 50."
            )


@dataclass(frozen=True)
class AscentState:
    """What a pass starts from; with the particles and the seed it decides all that follows.

    Attributes:
        done: passes done since the halves were first compared.
        full: those among them over all images that did not improve the resolution.
        whole: whether the next one is over all images.
        halves: (2, D, D, D) maps in one frame; a box of their own, the particles' field of view.
        fsc: (D // 2 + 1,) of the halves.
        images_seen: by all steps so far, the climb's too.
        finished: whether nothing is left to do.
    """

    done: int
    full: int
    whole: bool
    halves: Tensor
    fsc: Tensor
    images_seen: int
    finished: bool

    @property
    def rings(self) -> int:
        """The band in which poses are to be judged next."""
        return believed_rings(self.fsc)

    @property
    def both(self) -> Tensor:
        """(D, D, D) mean of the halves, filtered as a map of all images is: × 2 / (1 + FSC)."""
        size = self.halves.shape[-1]
        shells = fourier.shell_index(size, 3, self.halves.device).clamp_max(size // 2)
        gain = 2.0 / (1.0 + self.fsc.nan_to_num().clamp(0.0, 1.0))
        mean = fourier.rfft(self.halves.mean(0), 3)
        return fourier.irfft(mean * gain[shells].to(mean.device), size, 3)


@dataclass(frozen=True)
class Pass:
    """What `ascend` yields: the state after a step, and numbers for the log."""

    state: AscentState | None
    record: dict[str, float | int | str]


def box_for(rings: int, box_size: int) -> int:
    """Smallest box, a multiple of 8 px, that has these rings and a few more."""
    return min(box_size - box_size % 2, 8 * math.ceil((2 * rings + 4) / 8))


def polar_for(size: int, rings: int, config: AscentConfig, device: torch.device) -> Polar:
    """The rings for molecules inside the mask; its edge counts half."""
    radius = (config.mask_radius + 0.5 * config.mask_edge) * size / 2
    return Polar(size, rings, min(radius, 0.47 * size), device)


def expect(
    half: HalfSet,
    volume: Tensor,
    index: Tensor,
    levels: Sequence[Level],
    rings: int,
    polar: Polar,
    nats: float = math.inf,
) -> tuple[float, NormalEquations]:
    """Mean log-likelihood of the images of `index`, and what they say about the map.

    Args:
        half: where the images come from.
        volume: (D, D, D) the map that poses are judged with.
        index: (n,) images.
        levels: of the search.
        rings: coefficients beyond this band are not believed in `volume`.
        polar: the rings that the map is to be made of.
        nats: posteriors are softened so that the best pose explains no more than this.
    """
    device = volume.device
    spectrum = volume_spectrum(_within(volume, rings), _PADDING)
    references = [reference(spectrum, polar, level) for level in levels]
    finest = views(levels[-1].nside, device)
    total, evidence = None, 0.0
    for part in torch.split(index, _CHUNK):
        seen = half.observed(part, polar, device)
        cells = search(seen, references, levels)
        evidence += float(log_evidence(cells, levels).sum())
        explained = float(cells.score.amax(dim=1).mean())
        sharpness = 1.0 if explained <= nats else nats / explained
        equations = normal_equations(seen, posterior(cells, sharpness=sharpness), finest, polar)
        total = equations if total is None else total + equations
    assert total is not None
    return evidence / len(index), total


def climb(
    half: HalfSet, config: AscentConfig, generator: torch.Generator, device: torch.device
) -> Iterator[tuple[Tensor, int, float]]:
    """From random numbers to a coarse map, band by band: map, rings and log-likelihood."""
    first, last = config.climb_rings
    size = box_for(last, half.particles.box_size)
    mask = _mask(size, config, device)
    signal = half.signal_prior(size).to(device)
    shells = fourier.shell_index(size, 3, device).clamp_max(size // 2)
    noise = torch.randn(size, size, size, generator=generator).to(device)
    amplitude = signal[shells].sqrt() * (shells <= first) / size**1.5
    volume = fourier.irfft(fourier.rfft(noise, 3) * amplitude, size, 3) * mask
    for rings in range(first, min(last, size // 2 - 1) + 1):
        polar = polar_for(size, rings, config, device)
        levels = levels_for(polar, config.shift_percent / 100.0 * size)[:1]
        levels = [replace(levels[0], rings=rings, keep=128)]
        prior = _up_to(rings, signal)
        soft, sharp = config.climb_nats
        nats = soft * (sharp / soft) ** min(1.0, (rings - first) / 5)
        for _ in range(config.climb_steps):
            index = torch.randperm(len(half), generator=generator)[: config.climb_images]
            evidence, equations = expect(half, volume, index, levels, rings, polar, nats)
            volume = _solved(equations, prior, mask, volume, config)
            yield volume, rings, evidence


def ascend(
    halves: tuple[HalfSet, HalfSet],
    config: AscentConfig,
    *,
    seed: int,
    device: torch.device,
    maps: Tensor | None = None,
    state: AscentState | None = None,
) -> Iterator[Pass]:
    """Climb, unless there are maps, and refine; yields after every step.

    Args:
        halves: the two half-sets.
        config: settings.
        seed: of everything random.
        device: where it is computed.
        maps: (2, D, D, D) one map of each half, in one frame, in units of its images.
        state: that of an interrupted run, which goes on as if it had never stopped.

    Raises:
        InputError: an image cannot be used.
    """
    seen = 0
    with ThreadPoolExecutor(2) as pool:
        if state is None and maps is None:
            climbs = [
                climb(half, config, torch.Generator().manual_seed(3 * seed + number), device)
                for number, half in enumerate(halves, start=1)
            ]
            pair = None
            while True:
                steps = list(pool.map(lambda steps: next(steps, None), climbs))
                if steps[0] is None or steps[1] is None:
                    break
                pair = (steps[0][0], steps[1][0])
                seen += sum(min(len(half), config.climb_images) for half in halves)
                record = {"phase": "climb", "images_seen": seen, "rings": steps[0][1]}
                yield Pass(None, record | {"evidence": 0.5 * (steps[0][2] + steps[1][2])})
            assert pair is not None
            pixel_size_A = halves[0].stack(pair[0].shape[-1]).pixel_size_A
            alignment = align(pair[1], pair[0], pixel_size_A)
            maps = torch.stack((pair[0], apply_alignment(pair[1], alignment, pixel_size_A)))
        if state is None:
            assert maps is not None
            state = _begin(maps, halves, config, seen)
        while not state.finished:
            state, record = _pass(state, halves, config, seed, device, pool)
            yield Pass(state, record)


def _begin(
    maps: Tensor, halves: tuple[HalfSet, HalfSet], config: AscentConfig, images_seen: int
) -> AscentState:
    maps = torch.stack([half.in_units(map_) for half, map_ in zip(halves, maps, strict=True)])
    fsc = fourier_shell_correlation(maps[0], maps[1])
    whole = min(len(half) for half in halves) <= config.subset
    return AscentState(0, 0, whole, maps, fsc, images_seen, False)


def believed_rings(fsc: Tensor) -> int:
    """The last shell before the FSC of the halves falls below 0.143; at least 5."""
    below = (~(fsc[1:] >= 0.143)).nonzero()
    return max(5, int(below[0]) if len(below) else len(fsc) - 2)


def _pass(
    state: AscentState,
    halves: tuple[HalfSet, HalfSet],
    config: AscentConfig,
    seed: int,
    device: torch.device,
    pool: ThreadPoolExecutor,
) -> tuple[AscentState, dict[str, float | int | str]]:
    """One expectation and maximisation of both halves, and their FSC."""
    box_size = halves[0].particles.box_size
    most = box_for(box_size, box_size) // 2 - 1
    rings = min(state.rings, most)
    finest = min(math.ceil(1.25 * rings) + 3, most)
    size = box_for(finest, box_size)
    polar = polar_for(size, finest, config, device)
    levels = levels_for(polar, config.shift_percent / 100.0 * size, rings)
    mask = _mask(size, config, device)

    def work(number: int) -> tuple[float, int, NormalEquations, Tensor]:
        half = halves[number]
        generator = torch.Generator().manual_seed(1_000_003 * seed + 2 * state.done + number)
        index = torch.randperm(len(half), generator=generator)
        index = index.sort().values if state.whole else index[: config.subset].sort().values
        volume = rescale_volume(state.halves[number].to(device), size)
        evidence, equations = expect(half, volume, index, levels, rings, polar)
        prior = _up_to(finest, half.signal_prior(size).to(device))
        return evidence, len(index), equations, _solved(equations, prior, mask, volume, config)

    found = list(pool.map(work, (0, 1)))
    pixel_size_A = halves[0].stack(size).pixel_size_A
    # nothing but their common start holds the two frames together
    drift = refine_alignment(found[1][3], found[0][3], pixel_size_A, Alignment.identity())
    fsc = fourier_shell_correlation(found[0][3], apply_alignment(found[1][3], drift, pixel_size_A))
    maps = [
        _solved(equations, _up_to(finest, _prior(fsc, equations)), mask, volume, config)
        for _, _, equations, volume in found
    ]
    images = sum(count for _, count, _, _ in found)
    better = believed_rings(fsc) > state.rings
    done, full = state.done + 1, state.full + (state.whole and not better)
    late = done >= config.iterations - config.full_passes
    maps[1] = apply_alignment(maps[1], drift, pixel_size_A)
    after = AscentState(
        done,
        full,
        state.whole or late or not better,
        torch.stack(maps),
        fsc,
        state.images_seen + images,
        full >= config.full_passes or done >= config.iterations,
    )
    return after, {
        "phase": "refine",
        "pass": done,
        "images": images,
        "images_seen": after.images_seen,
        "rings": rings,
        "box_size": size,
        "nside": levels[-1].nside,
        "drift_deg": float(angle_between(drift.rotation, torch.eye(3).to(drift.rotation))),
        "evidence": 0.5 * (found[0][0] + found[1][0]),
        "half_map_0.143_A": resolution_A(fsc, 0.143, pixel_size_A),
    }


def _prior(fsc: Tensor, equations: NormalEquations) -> Tensor:
    """Expected |F|² by shell: the noise of a half's map times the signal-to-noise ratio."""
    reliable = fsc.nan_to_num().clamp(1e-3, 0.999)
    prior = reliable / (1.0 - reliable) / shell_weight(equations)
    prior[0] = prior[1]  # images say nothing about the mean
    return prior


def _up_to(rings: int, prior: Tensor) -> Tensor:
    return torch.where(torch.arange(len(prior), device=prior.device) <= rings, prior, 0.0)


def _mask(size: int, config: AscentConfig, device: torch.device) -> Tensor:
    half = size / 2
    return fourier.soft_disc(size, config.mask_radius * half, config.mask_edge * half, 3, device)


def _within(volume: Tensor, rings: int) -> Tensor:
    size = volume.shape[-1]
    inside = fourier.band_mask(size, rings + 0.5, 3, volume.device)
    return fourier.irfft(fourier.rfft(volume, 3) * inside, size, 3)


def _solved(
    equations: NormalEquations, prior: Tensor, mask: Tensor, start: Tensor, config: AscentConfig
) -> Tensor:
    operators = symmetry_matrices(config.symmetry)[1:].to(mask.device)
    return symmetrise(solve(equations, prior, mask, start), operators)
