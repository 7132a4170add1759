"""What differs from image to image beside the pose: contrast, and whether there is a particle.

A particle of contrast α shows α times its projection; α is Gaussian about 1. At a pose whose score
without it is `l - g / 2` (l linear and g quadratic in the projection), α is integrated in closed
form, and its posterior is Gaussian too.

An image that shows no particle is noise, or a blob: a Gaussian field with the power spectrum of the
particle's projections, or four times that. Such images have a share of their own.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan import fourier

_LEAST = 0.05  # mean contrast of an image that has some weight
_LEAST_PROBABILITY = 1e-6
_BLOBS = (1.0, 4.0)  # power, in units of the particle's
_MOST_JUNK = 0.5  # beyond it the map, not the images, is what does not fit
_MOST_SPREAD = 0.6


@dataclass(frozen=True)
class ImageModel:
    """Parameters of the images' distribution.

    Attributes:
        contrast_sd: standard deviation of the contrast; 0 for images alike.
        junk_share: share of images without a particle; 0 if none is to count less.
    """

    contrast_sd: float = 0.0
    junk_share: float = 0.0


ALIKE = ImageModel()
"""Images of one contrast, all of which show a particle."""

FIRST = ImageModel(contrast_sd=0.2)
"""Before it is estimated."""

SUPPOSED_JUNK = 0.05
"""Share of images without a particle that is supposed where none is known."""


def with_contrast(
    score: Tensor, power: Tensor, contrast_sd: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores with the contrast integrated out, its posterior mean and mean square; (n, K) each.

    Args:
        score: (n, K) at a contrast of 1; -inf for no pose.
        power: (n, K) g.
        contrast_sd: above 0.
    """
    precision = contrast_sd**-2
    usable = score > -math.inf
    linear = torch.where(usable, score, 0.0) + 0.5 * power
    total = power + precision
    mean = (linear + precision) / total
    gain = 0.5 * total * mean.square() - 0.5 * precision
    gain = gain - 0.5 * (1.0 + power / precision).log() - linear + 0.5 * power
    marginal = torch.where(usable, score + gain, -math.inf)
    mean = mean.clamp_min(_LEAST)
    return marginal, mean, mean.square() + 1.0 / total


def blob_gains(excess: Tensor, ratio: Tensor, rings: int, share: float) -> Tensor:
    """(n, kinds, rings) log-likelihoods of blobs in each shell, over those of noise alone.

    Args:
        excess: (n, D, D // 2 + 1) |Y|² of the images in units of the noise.
        ratio: (n, D, D // 2 + 1) power of the particle in the same unit, C² S / N.
        rings: shells 1 ... rings.
        share: of the coefficients that are independent: fewer, if images are windowed and padded.
    """
    kinds = []
    for power in _BLOBS:
        total = 1.0 + power * ratio
        gain = 0.5 * share * (excess * (1.0 - 1.0 / total) - total.log())
        kinds.append(fourier.shell_sum(gain, excess.shape[-2])[:, 1 : rings + 1])
    return torch.stack(kinds, dim=1)


def junk_log_likelihood(blobs: Tensor, rings: int) -> Tensor:
    """(n,) log-likelihood of images without a particle, over that of noise alone, in a band."""
    kinds = blobs[:, :, :rings].sum(dim=2)
    kinds = torch.cat((torch.zeros_like(kinds[:, :1]), kinds), dim=1)
    return torch.logsumexp(kinds, dim=1) - math.log(kinds.shape[1])


def particle_probability(particle: Tensor, junk: Tensor, junk_share: float) -> Tensor:
    """(n,) posterior probability that an image shows a particle; never quite 0.

    Args:
        particle: (n,) log marginal likelihood given the map.
        junk: (n,) log-likelihood without a particle.
        junk_share: prior share of such images, above 0.
    """
    odds = math.log((1.0 - junk_share) / junk_share)
    return torch.sigmoid(particle - junk + odds).clamp_min(_LEAST_PROBABILITY)


@dataclass(frozen=True)
class ImageMoments:
    """Sums over the posteriors of n images.

    Attributes:
        images: n.
        particles: how many show a particle.
        contrast: sum of contrasts of these.
        contrast2: sum of their squares.
    """

    images: int = 0
    particles: float = 0.0
    contrast: float = 0.0
    contrast2: float = 0.0

    @classmethod
    def of(cls, particle: Tensor, mean: Tensor, square: Tensor) -> "ImageMoments":
        """From (n,) probabilities of a particle, and posterior moments of its contrast."""
        return cls(
            len(particle),
            float(particle.sum()),
            float((particle * mean).sum()),
            float((particle * square).sum()),
        )

    def __add__(self, other: "ImageMoments") -> "ImageMoments":
        return ImageMoments(
            self.images + other.images,
            self.particles + other.particles,
            self.contrast + other.contrast,
            self.contrast2 + other.contrast2,
        )

    @property
    def model(self) -> ImageModel:
        """The parameters that follow: one iteration of expectation-maximisation.

        The mean contrast is the map's scale, so that spread is relative to it. While most images
        do not fit the map, it is too early to leave any out.
        """
        mean = self.contrast / max(self.particles, 1e-6)
        variance = self.contrast2 / max(self.particles, 1e-6) - mean**2
        spread = min(math.sqrt(max(variance, 1e-4)) / max(mean, _LEAST), _MOST_SPREAD)
        junk_share = 1.0 - self.particles / self.images
        if junk_share >= _MOST_JUNK:
            return ImageModel(spread)
        return ImageModel(spread, max(junk_share, 1e-3))
