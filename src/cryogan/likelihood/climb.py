"""To coarse maps: of one structure, then of its conformations."""

import math
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.likelihood.config import AscentConfig, box_for, mask_for, polar_for, search_for
from cryogan.likelihood.half_set import HalfSet
from cryogan.likelihood.landscape import SINGLE
from cryogan.likelihood.step import expect, prior_of, solved, widened
from cryogan.models.volume import rescale_volume

_START = 0.2  # amplitude of the components' first numbers, in units of the mean's
_LOW = 8  # rings of the first batch in which components are looked for


@dataclass(frozen=True)
class Step:
    """What a climb or an awakening came to.

    Attributes:
        maps: (D, D, D) of a climb, (2, C, D, D, D) of an awakening.
        rings: band of the step.
        evidence: mean log-likelihood of an image before the step, over that of noise alone.
        tried: starts that are under way.
        explained: by each of them, mean of `evidence` over the band after which one is chosen.
    """

    maps: Tensor
    rings: int
    evidence: float
    tried: int = 1
    explained: tuple[float, ...] = ()


def climb(
    half: HalfSet,
    config: AscentConfig,
    generator: torch.Generator,
    device: torch.device,
    start: Tensor | None = None,
    start_rings: int = 0,
) -> Iterator[Step]:
    """To a coarse map of a half, band by band: from random numbers, or from a poor map.

    Of several starts from random numbers, all of which see the same batches, the one goes on that
    explains the images of the middle band best. They are judged by the map that the batch before
    has made: what is compared is hardly how well noise is fitted.

    Args:
        half: whose images are looked at.
        config: settings.
        generator: for the random numbers and the batches.
        device: where it is computed.
        start: (D, D, D) map in the units of the images; random numbers by default.
        start_rings: band that the map is believed in; lower ones are left out.
    """
    first, last = config.climb_rings
    size = box_for(last, half.particles.box_size)
    last = min(last, size // 2 - 1)
    middle = (first + last) // 2
    mask = mask_for(size, config, device)
    if start is None:
        starts = [_random(half, size, first, generator, device) for _ in range(config.starts)]
    else:
        starts = [rescale_volume(start.to(device), size)]
    volumes = [volume[None] * mask for volume in starts]
    for rings in range(max(first, start_rings), last + 1):
        polar = polar_for(size, rings, config, device)
        levels = [replace(search_for(polar, config)[0], rings=rings)]
        prior = prior_of(half, size, rings, 1, config).to(device)
        soft, sharp = config.climb_nats
        nats = soft * (sharp / soft) ** min(1.0, (rings - first) / 5)
        explained = torch.zeros(len(volumes))
        for number in range(config.climb_steps):
            index = torch.randperm(len(half), generator=generator)[: config.climb_images]
            found = [
                expect(half, index, volume, SINGLE, levels, rings, polar, nats)
                for volume in volumes
            ]
            volumes = [
                solved(each.equations, prior, mask, volume, config)
                for each, volume in zip(found, volumes, strict=True)
            ]
            explained += torch.tensor([each.evidence for each in found]) / config.climb_steps
            best = int(explained.argmax())
            ends = len(volumes) > 1 and rings >= middle and number == config.climb_steps - 1
            compared = tuple(explained.tolist()) if ends else ()
            yield Step(volumes[best][0], rings, found[best].evidence, len(volumes), compared)
        if rings >= middle:
            volumes = [volumes[best]]


def _random(
    half: HalfSet, size: int, rings: int, generator: torch.Generator, device: torch.device
) -> Tensor:
    """(D, D, D) noise with the spectrum of the signal."""
    signal = half.signal_prior(size).to(device)
    shells = fourier.shell_index(size, 3, device).clamp_max(size // 2)
    noise = torch.randn(size, size, size, generator=generator).to(device)
    amplitude = signal[shells].sqrt() * (shells <= rings) / size**1.5
    return fourier.irfft(fourier.rfft(noise, 3) * amplitude, size, 3)


def wake(
    halves: tuple[HalfSet, HalfSet],
    means: Tensor,
    config: AscentConfig,
    generator: torch.Generator,
    device: torch.device,
    pool: Executor,
) -> Iterator[Step]:
    """Conformations out of random numbers, given a coarse map of each half.

    The slowest functions of the latent come first, then all. What is found is common to both
    halves, like a low-passed reference: it decides in which order each of them has its latent.

    Args:
        halves: the two half-sets.
        means: (2, D, D, D) maps in one frame.
        config: settings.
        generator: of everything random.
        device: where it is computed.
        pool: of two threads or more.
    """
    last = config.climb_rings[1]
    box_size = halves[0].particles.box_size
    size = box_for(last, box_size)
    last = min(last, size // 2 - 1)
    mask = mask_for(size, config, device)
    space = config.space
    awake = min(1 + space.slowest, config.components)
    maps = rescale_volume(means.mean(0), size).to(device)[None]
    noise = [_random(halves[0], size, _LOW, generator, device) * mask for _ in range(1, awake)]
    maps = torch.cat((maps, _START * torch.stack(noise)))
    for number in range(config.wake_steps):
        progress = number / config.wake_steps
        if progress >= 0.5 and len(maps) < config.components:
            maps = torch.cat((maps, maps.new_zeros(config.components - awake, size, size, size)))
        rings = min(last, _LOW + round((last - _LOW) * min(1.0, 1.6 * progress)))
        polar = polar_for(size, rings, config, device)
        levels = search_for(polar, config)
        landscape, nats = config.landscape(len(maps)), math.inf
        if progress < 0.5:  # random numbers may be wrong
            nats = config.climb_nats[1]
        step = partial(
            expect,
            maps=maps,
            landscape=landscape,
            levels=levels,
            rings=rings,
            polar=polar,
            nats=nats,
        )
        batches = [
            torch.randperm(len(half), generator=generator)[: config.wake_images] for half in halves
        ]
        found = list(pool.map(step, halves, batches))
        prior = prior_of(halves[0], size, rings, len(maps), config).to(device)
        equations = found[0].equations + found[1].equations
        maps = solved(equations, prior, mask, maps, config)
        for seen in found if progress >= 0.5 else []:  # the mean of two small changes
            maps = 0.5 * (maps + widened(maps, seen, config))
        own = [rescale_volume(mean, size).to(maps)[None] for mean in means]
        both = torch.stack([torch.cat((mean, maps[1:])) for mean in own])
        yield Step(both, rings, 0.5 * (found[0].evidence + found[1].evidence))
