"""The band of the initial model: what batches of both half-sets in it have in common."""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from cryogan.objectives.likelihood.bands import box_for, harmonics_for, mask_for, search_for
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.em_step import EStep, e_step
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.latent_grid import LatentGrid
from cryogan.objectives.likelihood.search_levels import Level
from cryogan.objectives.likelihood.side_by_side import SideBySide
from cryogan.physics.circular_harmonics import CircularHarmonics
from cryogan.physics.imaging import rescale_volume


@dataclass(frozen=True)
class InitialBand:
    """The last band of the initial model, in which conformations and hands are found.

    Attributes:
        size: of the working box.
        rings: of the band.
        pixel_size_A: of the working box.
        harmonics: of its rings.
        levels: of the pose search.
        mask: (D, D, D) of the volume.
    """

    size: int
    rings: int
    pixel_size_A: float
    harmonics: CircularHarmonics
    levels: list[Level]
    mask: Tensor

    @classmethod
    def of(
        cls, halves: tuple[HalfSet, HalfSet], config: LikelihoodConfig, device: torch.device
    ) -> Self:
        """That of a run with these half-sets and settings."""
        rings = config.initial_rings[1]
        size = box_for(rings, halves[0].particles.box_size)
        rings = min(rings, size // 2 - 1)
        pixel_size_A = halves[0].stack(size).pixel_size_A
        harmonics = harmonics_for(size, rings, config, device)
        levels = search_for(harmonics, config)
        mask = mask_for(size, pixel_size_A, config, device)
        return cls(size, rings, pixel_size_A, harmonics, levels, mask)

    def e_steps(
        self,
        halves: tuple[HalfSet, HalfSet],
        batch: tuple[Tensor, Tensor],
        maps: tuple[Tensor, Tensor],
        latent_grid: LatentGrid,
        sides: SideBySide,
        max_log_likelihood: float = math.inf,
    ) -> tuple[EStep, EStep]:
        """Of images of each half-set, with basis volumes (C, D, D, D) each."""

        def step(number: int) -> EStep:
            return e_step(
                halves[number],
                batch[number],
                maps[number],
                latent_grid,
                self.levels,
                self.rings,
                self.harmonics,
                max_log_likelihood,
            )

        return sides.both(step)

    def of_map(self, volume: Tensor) -> Tensor:
        """A map (D, D, D) of any box in the working box."""
        return rescale_volume(volume.to(self.mask.device), self.size)


def batches(
    halves: tuple[HalfSet, HalfSet], size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Images of each half-set, drawn at random among those that are likely to show a particle."""
    return _batch(halves[0], size, generator), _batch(halves[1], size, generator)


def _batch(half: HalfSet, size: int, generator: torch.Generator) -> Tensor:
    likely = half.group.from_first(lambda: half.likely)
    return likely[torch.randperm(len(likely), generator=generator)[:size]]


def log_likelihood_of(found: tuple[EStep, EStep]) -> float:
    """Mean of both half-sets."""
    return 0.5 * (found[0].log_likelihood + found[1].log_likelihood)
