"""Initial models: coarse maps of each half-set, from random numbers or from a poor map."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.objectives.likelihood.bands import (
    box_for,
    coarse_search_for,
    harmonics_for,
    mask_for,
    symmetrised,
)
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.em_step import (
    EStep,
    e_step,
    signal_prior_of,
)
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.image_model import FIRST
from cryogan.objectives.likelihood.latent_grid import SINGLE_STRUCTURE
from cryogan.objectives.likelihood.normal_equations import solve
from cryogan.objectives.likelihood.pose_search import SEARCHED_TOGETHER
from cryogan.physics.imaging import rescale_volume
from cryogan.symmetry import symmetry_matrices

_OF_BATCH = 150  # images by whose residuals noise is measured


@dataclass(frozen=True)
class InitialStep:
    """A batch of the initial model, or of the initialisation of conformations.

    Attributes:
        maps: (D, D, D) of an initial model or a mean map, (2, C, D, D, D) of conformations.
        rings: band of the batch.
        log_likelihood: mean of an image before the batch, over that of noise alone.
        images: of the batch, in all half-sets that it is of.
        tried: random initialisations that are under way.
        compared: mean log-likelihood of each of them over the band after which one is chosen.
    """

    maps: Tensor
    rings: int
    log_likelihood: float
    images: int
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
            batch, chosen = half, likely[index]
            if len(volumes) > 1:
                every = torch.arange(len(index))
                mine = half.group.share(every, SEARCHED_TOGETHER)
                batch, chosen = half.in_memory(chosen, mine), every
            drawn, found = poses.get_state(), []
            for volume in volumes:
                poses.set_state(drawn)  # residuals are those of the same images
                found.append(
                    e_step(
                        batch,
                        chosen,
                        volume,
                        SINGLE_STRUCTURE,
                        levels,
                        rings,
                        harmonics,
                        max_log_likelihood,
                        FIRST,
                        poses,
                        residual_images=_OF_BATCH,
                    )
                )
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
                len(index),
                len(volumes),
                tuple(compared.tolist()) if ends else (),
            )
        if rings >= middle:
            volumes = [volumes[best]]


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
