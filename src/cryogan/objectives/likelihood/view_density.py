"""The density of viewing directions, as the prior of poses.

It is constant in the cells of a HEALPix grid, which are the parents of those of finer levels of the
pose search, and relative to the uniform density: its mean over the sphere is 1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

NSIDE = 8
CELLS = 12 * NSIDE**2


@dataclass(frozen=True, eq=False)
class ViewDensity:
    """A density over viewing directions; in-plane angles are uniform.

    Attributes:
        weight: (768,) density of each cell of nside 8, nested numbering, above 0 and of mean 1.
    """

    weight: Tensor

    def relative(self, direction: Tensor, nside: int) -> Tensor:
        """(...) density at directions (...) of a level, over that of uniform views.

        Args:
            direction: numbers of directions of nside `nside`, nested.
            nside: a power of two; of a coarser level the mean over its cells.
        """
        weight = self.weight.to(direction.device)
        if nside < NSIDE:
            return weight.view(12 * nside**2, -1).mean(dim=1)[direction]
        return weight[direction // (nside // NSIDE) ** 2]

    def log_prior(self, direction: Tensor, nside: int) -> Tensor:
        """(...) logarithm of the same: 0 everywhere if views are uniform."""
        return self.relative(direction, nside).log()

    @property
    def evenness(self) -> float:
        """Share of the sphere over which views would be as even: exp of the entropy.

        1 for uniform views, 0.5 for those of a half of the sphere.
        """
        share = self.weight.double() / CELLS
        return float((-(share * share.log()).sum()).exp() / CELLS)


UNIFORM = ViewDensity(torch.ones(CELLS))
"""All viewing directions alike."""
