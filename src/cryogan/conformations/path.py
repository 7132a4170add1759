"""The conformational path: volumes along a latent, at equal steps of change."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan.conformations.latent import Latent

_FINE = 200


@dataclass(frozen=True)
class SampledVolumes:
    """Volumes in one frame, at points of the latent.

    Attributes:
        volumes: (n, D, D, D).
        latents: (n, dimension).
        weights: (n,) share of the particles that each volume stands for; sum 1.
    """

    volumes: Tensor
    latents: Tensor
    weights: Tensor


@torch.no_grad()
def sample_conformations(
    latent: Latent,
    volumes: Callable[[Tensor], Tensor],
    count: int,
    populations: Tensor | None = None,
) -> SampledVolumes:
    """About `count` volumes along a latent: what a run reports.

    On a line or circle the path is cut into `count` pieces of equal length, length being the sum
    of `‖V(z') - V(z)‖` over fine steps; each piece is shown by its middle and weighs what z it
    spans. Classes have their populations, and points of a square grid equal weights.

    Args:
        latent: its distribution.
        volumes: gives volumes (n, D, D, D) at latents (n, dimension).
        count: see above; of classes, all are shown.
        populations: (classes,) of a discrete latent; equal by default.
    """
    if latent.is_path:
        latents, weights = _equal_steps(volumes, count)
    else:
        latents = latent.grid(count)
        weights = torch.full((len(latents),), 1.0 / len(latents))
    if latent.is_discrete and populations is not None:
        weights = populations.cpu()
    return SampledVolumes(volumes(latents).cpu(), latents, weights)


def _equal_steps(volumes: Callable[[Tensor], Tensor], count: int) -> tuple[Tensor, Tensor]:
    """Latents (count, 1) at the middles of pieces of equal length, and the z they span."""
    edges = torch.linspace(0.0, 1.0, _FINE + 1)
    before, lengths = None, [torch.zeros(())]
    for latent in torch.split(edges[:, None], 10):
        for volume in volumes(latent):
            if before is not None:
                lengths.append((volume - before).norm().cpu())
            before = volume
    length = torch.stack(lengths).cumsum(0)
    if not float(length[-1]) > 0:  # nothing moves
        length = edges
    wanted = torch.linspace(0.0, float(length[-1]), 2 * count + 1)
    at = _interpolated(wanted, length, edges)
    return at[1::2, None], at[2::2] - at[:-2:2]


def _interpolated(x: Tensor, known_x: Tensor, known_y: Tensor) -> Tensor:
    """Piecewise linear; known_x does not fall."""
    right = torch.searchsorted(known_x, x).clamp(1, len(known_x) - 1)
    x0, x1, y0, y1 = known_x[right - 1], known_x[right], known_y[right - 1], known_y[right]
    return y0 + (y1 - y0) * ((x - x0) / (x1 - x0).clamp_min(1e-20)).clamp(0.0, 1.0)
