"""Maximum likelihood by expectation maximisation, from nothing or from maps.

Both half-sets are worked on side by side and meet in one number a shell only, their FSC, which
says how much of a shell to believe (Scheres, J. Struct. Biol. 180, 2012): it sets the prior of both
maps and the band in which poses are judged. Without good maps to start from, each half first climbs
on its own from random numbers, or from its poor map, band by band, on small random batches; the
prior is then the signal's power, which is measured without poses.

Conformations are C components instead of one map, and every one of them has an FSC, and a prior,
of its own: what the halves do not agree on is not believed to move.
"""

import math
from collections.abc import Generator, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.evaluation.alignment import Alignment, align, apply_alignment, refine_alignment
from cryogan.evaluation.fsc import fourier_shell_correlation, resolution_A
from cryogan.likelihood.climb import Step, climb, wake
from cryogan.likelihood.config import (
    AscentConfig,
    box_for,
    limited,
    mask_for,
    polar_for,
    search_for,
)
from cryogan.likelihood.half_set import HalfSet
from cryogan.likelihood.maximisation import NormalEquations, shell_weight
from cryogan.likelihood.step import Expectation, expect, prior_of, solved, widened
from cryogan.models.volume import rescale_volume
from cryogan.physics.rotations import angle_between

Record = dict[str, float | int | str | list[list[float]]]

_SETTLED = 0.02  # change of the distribution over a latent in a pass


@dataclass(frozen=True)
class AscentState:
    """What a pass starts from; with the particles and the seed it decides all that follows.

    Attributes:
        done: passes done since the halves were first compared.
        full: those among them over all images that did not improve the resolution.
        whole: whether the next one is over all images.
        halves: (2, C, D, D, D) components in one frame; a box of their own.
        width_px: of the field that they are in (`likelihood.field`), in pixels of the particles.
        fsc: (C, D // 2 + 1) of the halves.
        prior: (L,) probabilities of the latent's nodes.
        images_seen: by all steps so far, the climb's too.
        finished: whether nothing is left to do.
    """

    done: int
    full: int
    whole: bool
    halves: Tensor
    width_px: int
    fsc: Tensor
    prior: Tensor
    images_seen: int
    finished: bool

    @property
    def rings(self) -> int:
        """The band in which poses are to be judged next."""
        return believed_rings(self.fsc[0])

    @property
    def both(self) -> Tensor:
        """(C, D, D, D) mean of the halves, filtered as maps of all images are: × 2 / (1 + FSC)."""
        size = self.halves.shape[-1]
        shells = fourier.shell_index(size, 3, self.halves.device).clamp_max(size // 2)
        gain = 2.0 / (1.0 + self.fsc.nan_to_num().clamp(0.0, 1.0))
        mean = fourier.rfft(self.halves.mean(0), 3)
        return fourier.irfft(mean * gain[:, shells].to(mean.device), size, 3)


@dataclass(frozen=True)
class Pass:
    """What `ascend` yields: the state after a step, and numbers for the log."""

    state: AscentState | None
    record: Record


def ascend(
    halves: tuple[HalfSet, HalfSet],
    config: AscentConfig,
    *,
    seed: int,
    device: torch.device,
    maps: Tensor | None = None,
    populations: Tensor | None = None,
    state: AscentState | None = None,
) -> Iterator[Pass]:
    """Climb, unless there are good maps; find conformations, if they are wanted; and refine.

    Args:
        halves: the two half-sets.
        config: settings.
        seed: of everything random.
        device: where it is computed.
        maps: (2, C, D, D, D) components of each half, in one frame; of conformations yet to be
            found, the means alone. From single ones whose FSC is below 0.5 in a band of the climb
            it climbs too, from that band on: images judged by poor maps may never leave the poses
            that these suggest.
        populations: (classes,) of a discrete latent, to start from; equal by default.
        state: that of an interrupted run, which goes on as if it had never stopped.

    Yields:
        After every step; a run can go on from steps that have a state.

    Raises:
        InputError: an image cannot be used.
    """
    seen = 0
    with ThreadPoolExecutor(2) as pool:
        if state is None:
            if maps is not None:
                both = zip(halves, maps, strict=True)
                maps = torch.stack([half.components_in_units(own) for half, own in both])
            if maps is None or _poor(maps, config):
                maps, seen = yield from _climbed(halves, maps, config, seed, device, pool)
            if maps.shape[1] < config.components:
                generator = torch.Generator().manual_seed(3 * seed)
                for step in wake(halves, maps[:, 0], config, generator, device, pool):
                    maps = step.maps
                    seen += sum(min(len(half), config.wake_images) for half in halves)
                    yield Pass(None, _record("wake", seen, step.rings, step.evidence))
            prior = config.landscape(maps.shape[1], populations).prior
            whole = min(len(half) for half in halves) <= config.subset * maps.shape[1]
            fsc = _fsc(maps)
            fsc[1:] = 0.0  # these began alike in both halves, which says nothing
            width_px = halves[0].particles.box_size
            state = AscentState(0, 0, whole, maps, width_px, fsc, prior, seen, False)
        while not state.finished:
            state, record = _pass(state, halves, config, seed, device, pool)
            yield Pass(state, record)


def _climbed(
    halves: tuple[HalfSet, HalfSet],
    given: Tensor | None,
    config: AscentConfig,
    seed: int,
    device: torch.device,
    pool: Executor,
) -> Generator[Pass, None, tuple[Tensor, int]]:
    """Coarse maps (2, 1, D, D, D), and how many images they took; from `given` ones, if any."""
    rings = 0 if given is None else believed_rings(_fsc(given)[0], 0.5)

    def climb_of(number: int) -> Iterator[Step]:
        start = None if given is None else given[number, 0]
        generator = torch.Generator().manual_seed(3 * seed + number + 1)
        return climb(halves[number], config, generator, device, start, rings)

    seen = 0
    for steps in _side_by_side(pool, climb_of(0), climb_of(1)):
        pair = [step.maps for step in steps]
        seen += steps[0].tried * sum(min(len(half), config.climb_images) for half in halves)
        evidence = 0.5 * sum(step.evidence for step in steps)
        record = _record("climb", seen, steps[0].rings, evidence)
        if steps[0].explained:
            record["starts"] = [list(step.explained) for step in steps]
        yield Pass(None, record)
    size = pair[0].shape[-1]
    pixel_size_A = halves[0].stack(size).pixel_size_A
    if given is not None:  # whose frame they are to have
        reference = rescale_volume(given[0, 0].to(device), size)
        pair[0] = apply_alignment(pair[0], align(pair[0], reference, pixel_size_A), pixel_size_A)
    pair[1] = apply_alignment(pair[1], align(pair[1], pair[0], pixel_size_A), pixel_size_A)
    agreed_A = resolution_A(fourier_shell_correlation(*pair), 0.5, pixel_size_A)
    yield Pass(None, {"phase": "meet", "images_seen": seen, "half_map_0.5_A": agreed_A})
    both = zip(halves, pair, strict=True)
    return torch.stack([half.components_in_units(own[None]) for half, own in both]), seen


def _side_by_side(
    pool: Executor, first: Iterator[Step], second: Iterator[Step]
) -> Iterator[tuple[Step, Step]]:
    """Both, a step at a time."""
    while True:
        one, other = pool.map(lambda steps: next(steps, None), (first, second))
        if one is None or other is None:
            return
        yield one, other


def _record(phase: str, seen: int, rings: int, evidence: float) -> Record:
    return {"phase": phase, "images_seen": seen, "rings": rings, "evidence": evidence}


def _fsc(maps: Tensor) -> Tensor:
    """(C, D // 2 + 1) of components (2, C, D, D, D)."""
    both = zip(maps[0], maps[1], strict=True)
    return torch.stack([fourier_shell_correlation(first, second) for first, second in both])


def _poor(maps: Tensor, config: AscentConfig) -> bool:
    """Whether to climb first: single maps that hardly agree in the bands of the climb."""
    last = min(config.climb_rings[1], maps.shape[-1] // 2 - 1)
    return maps.shape[1] == 1 and believed_rings(_fsc(maps)[0], 0.5) < last


def _believed_shells(fsc: Tensor) -> int:
    """Of all components together (C, D // 2 + 1): grows while any of them is being found."""
    return sum(believed_rings(curve) for curve in fsc)


def believed_rings(fsc: Tensor, threshold: float = 0.143) -> int:
    """The last shell before the FSC of the halves falls below the threshold; at least 5."""
    below = (~(fsc[1:] >= threshold)).nonzero()
    return max(5, int(below[0]) if len(below) else len(fsc) - 2)


def _pass(
    state: AscentState,
    halves: tuple[HalfSet, HalfSet],
    config: AscentConfig,
    seed: int,
    device: torch.device,
    pool: Executor,
) -> tuple[AscentState, Record]:
    """One expectation and maximisation of both halves, and their FSC."""
    box_size = halves[0].particles.box_size
    components = state.halves.shape[1]
    most = box_for(box_size, box_size) // 2 - 1
    width_A = box_size * halves[0].particles.pixel_size_A
    rings = limited(min(state.rings, most), width_A, config)
    finest = min(math.ceil(1.25 * rings) + 3, most)
    size = box_for(finest, box_size)
    polar = polar_for(size, finest, config, device)
    levels = search_for(polar, config, rings)
    mask = mask_for(size, config, device)
    landscape = config.landscape(components, state.prior)

    def work(number: int) -> tuple[Expectation, int, Tensor]:
        half = halves[number]
        generator = torch.Generator().manual_seed(1_000_003 * seed + 2 * state.done + number)
        index = torch.randperm(len(half), generator=generator)
        index = index if state.whole else index[: config.subset * components]
        maps = rescale_volume(state.halves[number].to(device), size)
        found = expect(half, index.sort().values, maps, landscape, levels, rings, polar)
        prior = prior_of(half, size, finest, components, config).to(device)
        return found, len(index), solved(found.equations, prior, mask, maps, config)

    found = list(pool.map(work, (0, 1)))
    pixel_size_A = halves[0].stack(size).pixel_size_A
    first, second = (maps for _, _, maps in found)
    drift, fsc = _laid(second, first, pixel_size_A, state.fsc if state.done else None)
    maps = []
    for seen, _, volumes in found:
        prior = _believed(fsc, seen.equations, finest)
        volumes = solved(seen.equations, prior, mask, volumes, config)
        maps.append(widened(volumes, seen, config))
    images = sum(count for _, count, _ in found)
    change = max(seen.change for seen, _, _ in found)
    better = _believed_shells(fsc) > _believed_shells(state.fsc) or change > _SETTLED
    done, full = state.done + 1, state.full + (state.whole and not better)
    late = done >= config.iterations - config.last_passes
    learnt = config.generator == "subspace" and config.latent == "discrete"
    after = AscentState(
        done,
        full,
        state.whole or late or not better,
        torch.stack((maps[0], _moved(maps[1], drift, pixel_size_A))),
        box_size,
        fsc,
        0.5 * (found[0][0].node + found[1][0].node).cpu() if learnt else state.prior,
        state.images_seen + images,
        full >= config.last_passes or done >= config.iterations,
    )
    evidence = 0.5 * (found[0][0].evidence + found[1][0].evidence)
    return after, _record("refine", after.images_seen, rings, evidence) | {
        "pass": done,
        "images": images,
        "box_size": size,
        "nside": levels[-1].nside,
        "drift_deg": float(angle_between(drift.rotation, torch.eye(3).to(drift.rotation))),
        "half_map_0.143_A": resolution_A(fsc[0], 0.143, pixel_size_A),
        "latent_change": change,
    }


def _laid(
    moving: Tensor, reference: Tensor, pixel_size_A: float, before: Tensor | None
) -> tuple[Alignment, Tensor]:
    """How components (C, D, D, D) of one half come to lie on the other's, and their FSC then.

    Nothing but their common start holds the two frames together. They drift; poor maps may lie
    anywhere and have either hand, so that everywhere is looked if the FSC is no better than
    `before` or there is none.
    """
    start = Alignment.identity()
    near = refine_alignment(moving[0], reference[0], pixel_size_A, start)
    fsc = _fsc(torch.stack((reference, _moved(moving, near, pixel_size_A))))
    if before is not None and _believed_shells(fsc) > _believed_shells(before):
        return near, fsc
    far = align(moving[0], reference[0], pixel_size_A)
    other = _fsc(torch.stack((reference, _moved(moving, far, pixel_size_A))))
    return (far, other) if _believed_shells(other) > _believed_shells(fsc) else (near, fsc)


def _moved(maps: Tensor, alignment: Alignment, pixel_size_A: float) -> Tensor:
    return torch.stack([apply_alignment(volume, alignment, pixel_size_A) for volume in maps])


def _believed(fsc: Tensor, equations: NormalEquations, finest: int) -> Tensor:
    """Expected |F|² by shell: the noise of a half's map times the signal-to-noise ratio."""
    reliable = fsc.nan_to_num().clamp(1e-3, 0.999)
    prior = reliable / (1.0 - reliable) / shell_weight(equations)
    prior[:, 0] = prior[:, 1]  # images say nothing about the mean
    return torch.where(torch.arange(prior.shape[-1], device=prior.device) <= finest, prior, 0.0)
