"""The grid of a latent: the conformations that an image may show, and what they are made of."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.normal_equations import pairs


@dataclass(frozen=True)
class LatentGrid:
    """The latent grid: the conformations that an image may show.

    Attributes:
        latent: (L, dimension) grid points.
        coefficients: (L, C) coefficients of the basis volumes at the points; the first is 1.
        prior: (L,) prior probability of each point; sums to 1.
        anchors: (A, C) coefficients of the conformations that poses are searched with.
    """

    latent: Tensor
    coefficients: Tensor
    prior: Tensor
    anchors: Tensor

    @property
    def average(self) -> Tensor:
        """(C,) mean coefficients: of the mean map of all particles."""
        return self.prior @ self.coefficients

    @property
    def products(self) -> Tensor:
        """(L, C (C + 1) / 2) products of coefficients, for `pairs(C)`."""
        first, second = pairs(self.coefficients.shape[1])
        return self.coefficients[:, first] * self.coefficients[:, second]


def latent_grid_of(
    config: LikelihoodConfig, basis_volumes: int, prior: Tensor | None = None
) -> LatentGrid:
    """The latent grid of the settings, for the first basis volumes.

    Poses are searched with every class, or with the mean of a continuum, which is near enough:
    two or three conformations along it gained 0.1 to 0.2 of a log-likelihood of 35 an image
    (Hsp90, motion 1, development runs), at two to three times the cost.

    Args:
        config: settings.
        basis_volumes: C.
        prior: (L,) populations of a discrete latent's classes; equal by default.
    """
    if basis_volumes == 1:
        return SINGLE_STRUCTURE
    space = config.assumptions.latent_space
    latent = config.latent_grid
    coefficients = space.coefficients(latent, basis_volumes)
    anchors = coefficients if space.is_discrete else torch.eye(basis_volumes)[:1]
    if prior is None:
        prior = torch.full((len(latent),), 1.0 / len(latent))
    return LatentGrid(latent, coefficients, prior, anchors)


_ONE = torch.ones(1, 1)
SINGLE_STRUCTURE = LatentGrid(torch.zeros(1, 1), _ONE, _ONE[0], _ONE)
"""One conformation."""
