"""What follows from a band: the working box, its circular harmonics, the levels of pose search."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from cryogan.evaluation.fsc import fourier_shell_correlation
from cryogan.models.volume import symmetrise
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.search_levels import Level, levels_for
from cryogan.objectives.masks import volume_mask
from cryogan.physics.circular_harmonics import CircularHarmonics
from cryogan.symmetry import symmetry_matrices


def box_for(rings: int, box_size: int) -> int:
    """Smallest box, a multiple of 8 px, that has these rings and a few more."""
    return min(box_size - box_size % 2, 8 * math.ceil((2 * rings + 4) / 8))


def limited(rings: int, width_A: float, config: LikelihoodConfig) -> int:
    """Rings of a box of this width at which poses may be searched, at least 5."""
    if config.pose_resolution_A == 0.0:
        return rings
    return max(5, min(rings, int(width_A / config.pose_resolution_A)))


def harmonics_for(
    size: int, rings: int, config: LikelihoodConfig, device: torch.device
) -> CircularHarmonics:
    """The rings for images in which molecules may be anywhere inside their mask."""
    radius_px = min(config.assumptions.reach, 1.0) * size / 2
    return CircularHarmonics(size, rings, radius_px, device)


def search_for(
    harmonics: CircularHarmonics, config: LikelihoodConfig, rings: int | None = None
) -> list[Level]:
    """The levels of a search on these rings; see `search_levels.levels_for`."""
    half, assumptions = harmonics.box_size / 2, config.assumptions
    shift_px = assumptions.max_shift_percent / 50.0 * half
    sd_px = assumptions.shift_sd_percent / 50.0 * half or math.inf
    return levels_for(
        harmonics, assumptions.molecule * half, shift_px, rings, assumptions.symmetry, sd_px
    )


def coarse_search_for(harmonics: CircularHarmonics, config: LikelihoodConfig) -> list[Level]:
    """The levels of a search on all rings that ends at 7.3°."""
    levels = search_for(harmonics, config)
    last = next(number for number, level in enumerate(levels) if level.nside >= 8)
    return [*levels[:last], replace(levels[last], rings=harmonics.rings)]


def mask_for(
    size: int, pixel_size_A: float, config: LikelihoodConfig, device: torch.device
) -> Tensor:
    """(D, D, D) mask of the volume, of the symmetry that is imposed."""
    mask = volume_mask(config.assumptions, size, pixel_size_A, device)
    return mask if config.assumptions.mask_file is None else symmetrised(mask, config)


def symmetrised(volumes: Tensor, config: LikelihoodConfig) -> Tensor:
    """Volumes (..., D, D, D) to start from, of the symmetry that is imposed."""
    operators = symmetry_matrices(config.assumptions.symmetry)[1:].to(volumes.device)
    cubes = volumes.reshape(-1, *volumes.shape[-3:])
    return torch.stack([symmetrise(cube, operators) for cube in cubes]).view_as(volumes)


def fsc_cutoff_shell(fsc: Tensor, threshold: float = 0.143) -> int:
    """The last shell before the FSC of the half-maps falls below the threshold; at least 5."""
    below = (~(fsc[1:] >= threshold)).nonzero()
    return max(5, int(below[0]) if len(below) else len(fsc) - 2)


def fsc_of_basis(maps: Tensor) -> Tensor:
    """(C, D // 2 + 1) FSC of each basis volume of the halves (2, C, D, D, D)."""
    both = zip(maps[0], maps[1], strict=True)
    return torch.stack([fourier_shell_correlation(first, second) for first, second in both])
