"""Initial models: coarse maps of each half-set from random numbers, then their conformations."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.objectives.likelihood.bands import (
    box_for,
    coarse_search_for,
    harmonics_for,
    mask_for,
    search_for,
    symmetrised,
)
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.em_step import (
    EStep,
    e_step,
    parameter_expanded,
    signal_prior_of,
)
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.image_model import FIRST
from cryogan.objectives.likelihood.latent_grid import SINGLE_STRUCTURE, latent_grid_of
from cryogan.objectives.likelihood.normal_equations import solve
from cryogan.objectives.likelihood.side_by_side import SideBySide
from cryogan.physics.imaging import rescale_volume
from cryogan.symmetry import symmetry_matrices

_START = 0.2  # amplitude of the first random basis volumes, in units of the mean's
_COARSE = 8  # rings of the first random basis volumes


@dataclass(frozen=True)
class InitialStep:
    """A batch of the initial model, or of the initialisation of conformations.

    Attributes:
        maps: (D, D, D) of an initial model, (2, C, D, D, D) of conformations.
        rings: band of the batch.
        log_likelihood: mean of an image before the batch, over that of noise alone.
        tried: random initialisations that are under way.
        compared: mean log-likelihood of each of them over the band after which one is chosen.
    """

    maps: Tensor
    rings: int
    log_likelihood: float
    tried: int = 1
    compared: tuple[float, ...] = ()


def initial_model(
    half: HalfSet,
    config: LikelihoodConfig,
    generator: torch.Generator,
    device: torch.device,
    start: Tensor | None = None,
    start_rings: int = 0,
) -> Iterator[InitialStep]:
    """A coarse map of a half-set by frequency marching, from random numbers or from a poor map.

    Of images that are likely to show no particle (`HalfSet.likely`) none is used. Contrast varies
    as it does in refinement before it is estimated.

    Several random initialisations see the same batches; the one of the highest log-likelihood in
    the middle band continues. The log-likelihood is that of the map before the batch, so that
    fitted noise hardly counts.

    Args:
        half: whose images are used.
        config: settings.
        generator: for the random numbers and the batches.
        device: where it is computed.
        start: (D, D, D) map in the units of the images; random numbers by default.
        start_rings: band to which that map is reliable; lower bands are left out.
    """
    first, last = config.initial_rings
    size = box_for(last, half.particles.box_size)
    last = min(last, size // 2 - 1)
    middle = (first + last) // 2
    mask = mask_for(size, half.stack(size).pixel_size_A, config, device)
    if start is None:
        starts = [
            random_volume(half, size, first, config, generator, device)
            for _ in range(config.initialisations)
        ]
    else:
        starts = [rescale_volume(start.to(device), size)]
    volumes = [volume[None] * mask for volume in starts]
    likely = half.group.from_first(lambda: half.likely)
    poses = torch.Generator()  # of its own, so that batches do not depend on what is tried
    poses.manual_seed(int(torch.randint(2**62, (), generator=generator)))
    for rings in range(max(first, start_rings), last + 1):
        harmonics = harmonics_for(size, rings, config, device)
        searched = replace(config, assumptions=config.assumptions.resolving(rings))
        levels = coarse_search_for(harmonics, searched)
        prior = signal_prior_of(half, size, rings, 1, config).to(device)
        low, high = config.annealing
        max_log_likelihood = low * (high / low) ** min(1.0, (rings - first) / 5)
        compared = torch.zeros(len(volumes))
        for number in range(config.initial_batches):
            index = torch.randperm(len(likely), generator=generator)[: config.initial_batch_size]
            found = [
                e_step(
                    half,
                    likely[index],
                    volume,
                    SINGLE_STRUCTURE,
                    levels,
                    rings,
                    harmonics,
                    max_log_likelihood,
                    FIRST,
                    poses,
                )
                for volume in volumes
            ]
            volumes = [
                solve(each.equations, prior, mask, volume)
                for each, volume in zip(found, volumes, strict=True)
            ]
            compared += (
                torch.tensor([each.log_likelihood for each in found]) / config.initial_batches
            )
            best = int(compared.argmax())
            half = half.with_residuals(*_least_left(found))
            prior = signal_prior_of(half, size, rings, 1, config).to(device)
            ends = len(volumes) > 1 and rings >= middle and number == config.initial_batches - 1
            yield InitialStep(
                volumes[best][0],
                rings,
                found[best].log_likelihood,
                len(volumes),
                tuple(compared.tolist()) if ends else (),
            )
        if rings >= middle:
            volumes = [volumes[best]]


def _of_half(
    step: Callable[[HalfSet, Tensor], EStep],
    halves: tuple[HalfSet, HalfSet],
    batches: Sequence[Tensor],
    number: int,
) -> EStep:
    return step(halves[number], batches[number])


def _least_left(found: Sequence[EStep]) -> Tensor:
    """(2, R) residuals of the map that leaves least in each ring, and the images' power."""
    left = torch.stack([each.left for each in found if each.left is not None])
    return left.amin(0)  # the power is the same


def random_volume(
    half: HalfSet,
    size: int,
    rings: int,
    config: LikelihoodConfig,
    generator: torch.Generator,
    device: torch.device,
) -> Tensor:
    """(D, D, D) noise with spectrum of the signal, up to `rings`, and symmetry of the molecule."""
    signal = half.signal_prior(size).to(device)
    shells = fourier.shell_index(size, 3, device).clamp_max(size // 2)
    noise = torch.randn(size, size, size, generator=generator).to(device)
    amplitude = signal[shells].sqrt() * (shells <= rings) / size**1.5
    volume = fourier.irfft(fourier.rfft(noise, 3) * amplitude, size, 3)
    copies = len(symmetry_matrices(config.assumptions.symmetry))
    volume = symmetrised(volume, config)
    return volume * math.sqrt(copies)  # the mean of so many is weaker


def initialise_conformations(
    halves: tuple[HalfSet, HalfSet],
    means: Tensor,
    config: LikelihoodConfig,
    generator: torch.Generator,
    device: torch.device,
    sides: SideBySide,
) -> Iterator[InitialStep]:
    """Conformations from random numbers, given a coarse map of each half-set.

    The slowest functions of the latent come first, then all. Every batch uses the whole band of the
    initial model. In a narrower one a molecule may look like its mirror image, so that images of a
    conformation are explained by the mirror image of another: a path that was folded like that
    stays folded, as every iteration finds the poses that fit it. The basis volumes are common to
    both half-sets, like a low-passed reference: they decide in which order each has its latent.
    Last of all, each half-set gets a mean map of its own, from its images in the poses that go with
    these conformations; those of one structure may be wrong by what the molecule moves.

    Args:
        halves: the two half-sets.
        means: (2, D, D, D) maps in one frame.
        config: settings.
        generator: of everything random.
        device: where it is computed.
        sides: where the half-sets are worked on.
    """
    rings = config.initial_rings[1]
    box_size = halves[0].particles.box_size
    size = box_for(rings, box_size)
    rings = min(rings, size // 2 - 1)
    harmonics = harmonics_for(size, rings, config, device)
    levels = search_for(harmonics, config)
    mask = mask_for(size, halves[0].stack(size).pixel_size_A, config, device)
    wanted = config.assumptions.volumes
    first = min(1 + config.assumptions.latent_space.slowest, wanted)
    maps = rescale_volume(means.mean(0), size).to(device)[None]
    noise = [
        random_volume(halves[0], size, _COARSE, config, generator, device) * mask
        for _ in range(1, first)
    ]
    maps = torch.cat((maps, _START * torch.stack(noise)))
    for number in range(config.conformation_batches):
        progress = number / config.conformation_batches
        if progress >= 0.5 and len(maps) < wanted:
            maps = torch.cat((maps, maps.new_zeros(wanted - first, size, size, size)))
        step = partial(
            e_step,
            maps=maps,
            latent_grid=latent_grid_of(config, len(maps)),
            levels=levels,
            rings=rings,
            harmonics=harmonics,
            # random numbers may be wrong
            max_log_likelihood=config.annealing[1] if progress < 0.5 else math.inf,
        )
        batches = [
            torch.randperm(len(half), generator=generator)[: config.conformation_batch_size]
            for half in halves
        ]
        found = sides.both(partial(_of_half, step, halves, batches))
        prior = signal_prior_of(halves[0], size, rings, len(maps), config).to(device)
        equations = found[0].equations + found[1].equations
        maps = solve(equations, prior, mask, maps)
        for each in found if progress >= 0.5 else []:  # the mean of two small changes
            maps = 0.5 * (maps + parameter_expanded(maps, each, config))
        both = maps.expand(2, *maps.shape)
        if number == config.conformation_batches - 1:
            own = [solve(each.equations, prior, mask, maps)[:1] for each in found]
            both = torch.stack([torch.cat((mean, maps[1:])) for mean in own])
        yield InitialStep(both, rings, 0.5 * (found[0].log_likelihood + found[1].log_likelihood))
