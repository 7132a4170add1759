"""What posteriors say of the viewing directions: the next density of them.

One step of EM with smoothing (EMS; Silverman, Jones, Wilson & Nychka, J. R. Stat. Soc. B 52, 1990):
the posterior mass of the images in every cell, smoothed on the sphere by a von Mises-Fisher kernel,
and a pseudo-count of 1/2 (Jeffreys) for each of the cells that the kernel leaves independent, so
that no direction is excluded. The width of the kernel is the largest whose cross-validated
log-likelihood is within one standard error of the best (Breiman, Friedman, Olshen & Stone,
Classification and Regression Trees, 1984); the uniform density is the widest.

With a symmetry, mass counts in all equivalent directions alike. A map that is inverted shows the
other hand, in the same viewing directions.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan.objectives.likelihood.image_model import ImageModel
from cryogan.objectives.likelihood.observations import Observations
from cryogan.objectives.likelihood.orientation_grid import (
    orientation_grid,
    share_in_asymmetric_unit,
)
from cryogan.objectives.likelihood.pose_search import log_likelihood_by_view
from cryogan.objectives.likelihood.posterior import References
from cryogan.objectives.likelihood.view_density import CELLS, NSIDE, ViewDensity

_WIDTHS_DEG = (math.inf, 60.0, 40.0, 27.0, 18.0, 12.0, 8.0)  # the last is a cell's
_FOLDS = 5
_NOTHING = 1e-5  # log-likelihood of an image: rounding
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class ViewCounts:
    """Posterior mass of images by viewing direction, given the density that they were found with.

    Attributes:
        images: (n, 768) of each image, in the cells of nside 8.
    """

    images: Tensor

    @classmethod
    def of(
        cls,
        observations: Observations,
        references: References,
        image_model: ImageModel,
        particle: Tensor,
    ) -> "ViewCounts":
        """Of n images, on the first level of orientations.

        Directions whose equivalents are searched too count as the part of their cell that is inside
        the asymmetric unit.

        Args:
            observations: n images.
            references: what they are compared with.
            image_model: contrast, of one structure.
            particle: (n,) probabilities that they show a particle.
        """
        grid, levels = references.latent_grid, references.levels
        contrast_sd = 0.0 if references.is_series else image_model.contrast_sd
        parts = [
            log_likelihood_by_view(observations, each, levels, contrast_sd)
            for each in references.references
        ]
        share = share_in_asymmetric_unit(NSIDE, levels[0].symmetry, observations.a.device)
        prior = levels[-1].views.weight.to(share) * share
        score = torch.stack(parts)
        if len(parts) > 1:
            score = score + grid.prior.to(score).log()[:, None, None]
        mass = torch.softmax(torch.logsumexp(score, dim=0) + prior.log(), dim=1)
        return cls((mass * particle[:, None]).cpu())

    @property
    def total(self) -> Tensor:
        """(768,) sum over the images."""
        return self.images.sum(dim=0)

    def __add__(self, other: "ViewCounts") -> "ViewCounts":
        return ViewCounts(torch.cat((self.images, other.images)))

    def density(
        self, before: ViewDensity, operators: Tensor, rotation: Tensor | None = None
    ) -> ViewDensity:
        """The density that follows from `before`.

        Args:
            before: with which the posteriors were found.
            operators: (G, 3, 3) of the molecule's symmetry.
            rotation: (3, 3) by which the map has been turned since; not by default.
        """
        width_deg = self._width_deg(before, operators)
        return ViewDensity(_smoothed(self.total[None], width_deg, operators, rotation)[0])

    def _width_deg(self, before: ViewDensity, operators: Tensor) -> float:
        """Of the kernel, by the likelihood of images that the density is not made of."""
        fold = torch.arange(len(self.images)) % _FOLDS
        counts = torch.stack([self.images[fold == k].sum(dim=0) for k in range(_FOLDS)])
        particle = self.images.sum(dim=1)
        gains = []
        for width_deg in _WIDTHS_DEG:
            ratio = _smoothed(self.total - counts, width_deg, operators) / before.weight
            mean = (self.images * ratio[fold]).sum(dim=1) / particle.clamp_min(1e-30)
            gains.append(particle * mean.clamp_min(1e-30).log())
        gain = torch.stack(gains).double()
        apart = gain[gain.sum(dim=1).argmax()] - gain
        error = apart.std(dim=1) * math.sqrt(gain.shape[1]) + _NOTHING * gain.shape[1]
        return _WIDTHS_DEG[int((apart.sum(dim=1) <= error).nonzero()[0])]


def _smoothed(
    counts: Tensor, width_deg: float, operators: Tensor, rotation: Tensor | None = None
) -> Tensor:
    """(m, 768) densities of mean 1 from counts (m, 768)."""
    if width_deg == math.inf:
        return torch.ones_like(counts)
    centre = orientation_grid(NSIDE, _CPU).frame[:, :, 2]
    used = counts.any(dim=0).nonzero()[:, 0]
    turned = centre[used] if rotation is None else centre[used] @ rotation.to(centre).T
    kernel = torch.zeros(CELLS, len(used))
    for operator in operators.to(centre):
        cosine = centre @ (turned @ operator.T).T
        kernel += ((cosine - 1.0) / math.radians(width_deg) ** 2).exp()
    kernel = kernel / kernel.sum(dim=0)
    pseudo = 0.5 * CELLS * float(kernel.square().sum(dim=0).mean())
    total = counts.sum(dim=1, keepdim=True)
    return (CELLS * counts[:, used] @ kernel.T + pseudo) / (total + pseudo)
