"""Goodness of fit: do map, poses, CTFs and noise explain the images? (docs/goodness_of_fit.md)

If the model is right, an image and a pose drawn from its posterior are distributed as the image and
its true pose. The residual at such a pose, in units of the noise, is therefore distributed as noise
is, however broad the posterior: nothing needs to be corrected for the pose having been found on the
image itself. What does need it is the error of the map and the width of the grid's cells.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.evaluation.statistics import kolmogorov_smirnov
from cryogan.objectives.likelihood.bands import box_for, harmonics_for, search_for
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.expected_residuals import Expectation, residuals_of_groups
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.image_model import ImageModel
from cryogan.objectives.likelihood.latent_grid import SINGLE_STRUCTURE
from cryogan.objectives.likelihood.posterior import references_of
from cryogan.objectives.likelihood.residuals import Residuals
from cryogan.objectives.likelihood.resolved_posteriors import complete, resolved_posteriors
from cryogan.objectives.likelihood.search_levels import under_views
from cryogan.objectives.likelihood.view_density import UNIFORM, ViewDensity
from cryogan.physics.imaging import rescale_volume

_SIGNIFICANT = 4.0  # standard deviations
_BY_CHANCE = 1e-4
_FEW = 0.02  # of the images
_CONTRAST, _NOISE, _SPREAD = 0.1, 0.05, 0.3  # misfits that are worth naming
_RING_CONTRAST = 0.15
_CALIBRATED = 0.1  # of the noise: errors of map and grid that leave p-values calibrated


@dataclass(frozen=True)
class GoodnessOfFit:
    """What the residuals of n images say; images that do not show the map count in the first two
    attributes only.

    Attributes:
        p_value: (n,) probability of a residual as large or larger; uniform if the model is right.
        signal: (n,) how much of the map each image shows, less what half of the images do, in
            standard deviations.
        variance: (R,) mean residual of each ring, in units of the noise.
        expected: (R,) what it should be at most: 1, and what errors of map and grid add.
        error: (R,) standard error of `variance`.
        contrast: mean contrast of the images in units of the map's.
        contrast_error: its standard error.
        ring_contrast: (R,) contrast of each ring.
        ring_contrast_error: (R,) their standard errors.
    """

    p_value: Tensor
    signal: Tensor
    variance: Tensor
    expected: Tensor
    error: Tensor
    contrast: float
    contrast_error: float
    ring_contrast: Tensor
    ring_contrast_error: Tensor

    @classmethod
    def joined(cls, first: "GoodnessOfFit", second: "GoodnessOfFit") -> "GoodnessOfFit":
        """Of two sets of images on the same rings."""

        def mean(name: str) -> Any:
            return 0.5 * (getattr(first, name) + getattr(second, name))

        def error(name: str) -> Any:
            return 0.5 * (getattr(first, name) ** 2 + getattr(second, name) ** 2) ** 0.5

        return cls(
            torch.cat((first.p_value, second.p_value)),
            torch.cat((first.signal, second.signal)),
            mean("variance"),
            mean("expected"),
            error("error"),
            mean("contrast"),
            error("contrast_error"),
            mean("ring_contrast"),
            error("ring_contrast_error"),
        )

    @property
    def ks_distance(self) -> float:
        """Kolmogorov-Smirnov distance of the p-values from the uniform distribution."""
        return kolmogorov_smirnov(self.p_value)[0]

    @property
    def ks_significance(self) -> float:
        """Probability of such a distance, or a larger one, by chance."""
        return kolmogorov_smirnov(self.p_value)[1]

    @property
    def is_calibrated(self) -> bool:
        """Whether errors of map and grid are a small part of the residuals.

        They are upper bounds: poses adapt to the map, and cells are chosen to fit.
        """
        return float(self.expected.mean()) < 1.0 + _CALIBRATED

    @property
    def shows(self) -> Tensor:
        """(n,) bool: images that do not show less of the map than others and noise allow."""
        return self.signal > -_SIGNIFICANT

    def misfits(self, width_A: float) -> list[str]:
        """What does not fit, a phrase each; nothing if the model explains the images.

        Args:
            width_A: of the box that the rings are of.
        """
        found, n = [], len(self.p_value)
        without = 1.0 - float(self.shows.double().mean())
        if without > max(_FEW, _SIGNIFICANT / n):
            found.append(
                f"{100 * without:.0f} % of the images show less of the map than noise allows "
                "(no particle, another structure, or a wrong CTF)"
            )
        off = abs(self.contrast - 1.0)
        if off > max(_CONTRAST, _SIGNIFICANT * self.contrast_error):
            found.append(f"the images show the map at {self.contrast:.2f} times its contrast")
        else:
            found += self._noise_misfits(width_A) + self._ring_contrast_misfits(width_A)
        signal = self.signal[self.shows]
        if float(signal.var()) - 1.0 > max(_SPREAD, _SIGNIFICANT * math.sqrt(2.0 / len(signal))):
            found.append(
                "what images show of the map varies more than the model's contrast "
                f"(standard deviation {float(signal.std()):.2f} times)"
            )
        if not found and self.is_calibrated and self.ks_significance < _BY_CHANCE:
            found.append(
                "residuals are not distributed as the noise (Kolmogorov-Smirnov distance "
                f"{self.ks_distance:.2f})"
            )
        return found

    def _noise_misfits(self, width_A: float) -> list[str]:
        """Runs of rings whose residuals are larger than expected, or smaller.

        Where errors may be large, no residual between noise alone and their bound is wrong.
        """
        low = high = self.expected
        if not self.is_calibrated:
            low, high = low.clamp_max(1.0), high.clamp_min(1.0)
        bound = self.variance.clamp(low, high)
        ratio = self.variance / bound - 1.0
        clear = (ratio.abs() > _NOISE) & (ratio.abs() > _SIGNIFICANT * self.error / bound)
        return [
            f"residuals are {100 * abs(more):.0f} % {'above' if more > 0 else 'below'} the noise "
            + _range(first_A, last_A)
            for more, first_A, last_A in _runs(ratio, clear, width_A)
        ]

    def _ring_contrast_misfits(self, width_A: float) -> list[str]:
        """Runs of rings in which the images show less of the map, or more, than in others."""
        off = self.ring_contrast - 1.0
        clear = (off.abs() > _RING_CONTRAST) & (off.abs() > _SIGNIFICANT * self.ring_contrast_error)
        return [
            f"the images show the map at {1.0 + mean:.2f} times its contrast "
            + _range(first_A, last_A)
            for mean, first_A, last_A in _runs(off, clear, width_A)
        ]


def _range(first_A: float, last_A: float) -> str:
    """Rings in words."""
    if first_A == last_A:
        return f"at {first_A:.1f} Å"
    return f"from {first_A:.1f} to {last_A:.1f} Å"


def _runs(values: Tensor, clear: Tensor, width_A: float) -> list[tuple[float, float, float]]:
    """Runs of rings of clear values of one sign: their mean, and the first and last ring in Å."""
    sign = torch.where(clear, values.sign(), 0.0).int().tolist()
    found, first = [], 0
    for ring in range(1, len(sign) + 1):
        if ring < len(sign) and sign[ring] == sign[first]:
            continue
        if sign[first] != 0:
            mean = float(values[first:ring].mean())
            found.append((mean, width_A / (first + 1), width_A / ring))
        first = ring
    return found


def goodness_of_fit(
    found: Residuals,
    expectation: Expectation,
    map_error: Tensor | None = None,
    *,
    held_out: bool = True,
) -> GoodnessOfFit:
    """Compare residuals with their expectation.

    Args:
        found: of n images.
        expectation: of these residuals.
        map_error: (R,) mean |F|² of the map's error in each ring; none by default.
        held_out: False if the map was made from these images: it then follows their noise, and
            the residual is less by as much as it would be more.
    """
    error = torch.zeros_like(found.noise) if map_error is None else map_error
    of_map, of_grid = found.response * error, found.response * expectation.grid_error
    excess = of_grid + (of_map if held_out else -of_map)
    expected = (found.noise + excess).clamp_min(0.1 * found.noise)
    of_rings = found.linear + 0.5 * of_grid
    if not held_out:
        of_rings = of_rings - of_map
    linear, quadratic = of_rings.sum(1), found.quadratic.sum(1).clamp_min(1e-6)
    spread = (quadratic + (expectation.contrast_sd * quadratic).square()).sqrt()
    signal = (linear - (linear / quadratic).median() * quadratic) / spread
    variance = expectation.noise_variance + 4.0 * excess.sum(1).clamp_min(0.0)
    p_value = _p_value(found.residual.sum(1), expected.sum(1), variance)
    shows = signal > -_SIGNIFICANT
    if int(shows.sum()) < 2:
        shows = torch.ones_like(shows)
    ratio = (found.residual / found.noise)[shows]
    contrast, contrast_error = _contrast(linear[shows, None], quadratic[shows, None])
    ring_contrast, ring_contrast_error = _contrast(of_rings[shows], found.quadratic[shows])
    return GoodnessOfFit(
        p_value,
        signal,
        ratio.mean(0),
        (expected / found.noise)[shows].mean(0),
        ratio.std(0, correction=min(1, len(ratio) - 1)) / math.sqrt(len(ratio)),
        float(contrast),
        float(contrast_error),
        ring_contrast,
        ring_contrast_error,
    )


def _contrast(linear: Tensor, quadratic: Tensor) -> tuple[Tensor, Tensor]:
    """Contrast of the columns of (n, R), and standard errors."""
    total = quadratic.sum(0).clamp_min(1e-6)
    contrast = linear.sum(0) / total
    return contrast, (linear - contrast * quadratic).square().sum(0).sqrt() / total


def _p_value(total: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Upper tail of a gamma distribution of that mean and variance."""
    shape = mean.square() / variance
    tail: Tensor = torch.special.gammaincc(shape.double(), (total * mean / variance).double())
    return tail


def fit_held_out(
    half: HalfSet,
    volume: Tensor,
    error_map: Tensor,
    rings: int,
    config: LikelihoodConfig,
    generator: torch.Generator,
    device: torch.device,
    image_model: ImageModel,
    *,
    images: int = 300,
    views: ViewDensity = UNIFORM,
) -> GoodnessOfFit:
    """Of images that have no part in a map.

    Args:
        half: the images, of the padded box.
        volume: (D, D, D) map of the other half-set, filtered, of their field of view.
        error_map: (D, D, D) from `error_of_maps`.
        rings: the band.
        config: assumptions about the sample.
        generator: for the choice of images and poses.
        device: where it is computed.
        image_model: contrast of the images.
        images: how many are used.
        views: density of their viewing directions.
    """
    size = box_for(rings, half.particles.box_size)
    harmonics = harmonics_for(size, min(rings, size // 2 - 1), config, device)
    levels = complete(under_views(search_for(harmonics, config), views))
    known, error = (rescale_volume(each.to(device), size) for each in (volume, error_map))
    scaled = half.scaled_to_images(known)
    error = error * (scaled.norm() / known.norm().clamp_min(1e-30))
    power = fourier.shell_mean(fourier.rfft(error, 3).abs().square(), size, 3)
    references = references_of(scaled[None], SINGLE_STRUCTURE, harmonics, levels)
    index = torch.randperm(len(half), generator=generator)[:images].sort().values
    observed = half.observed(index, harmonics, device)
    groups = list(resolved_posteriors(observed, references, image_model))
    expected = Expectation.of_levels(half, scaled[None], levels, generator, image_model)
    found, expectation = residuals_of_groups(
        half, index, groups, scaled[None], expected, generator, image_model
    )
    return goodness_of_fit(found, expectation, power[1 : levels[-1].rings + 1].cpu())


def error_of_maps(first: Tensor, second: Tensor) -> Tensor:
    """A map (D, D, D) whose mean |F|² by shell is the expected error of either of two half-maps.

    Both are filtered by their FSC, w, as the likelihood's are. Their mean squared difference is
    then 2 w² E, with E the error of an unfiltered half-map, and the expected squared error after
    the filter is w E: the variance of the map's posterior.
    """
    size = first.shape[-1]
    a, b = fourier.rfft(first, 3), fourier.rfft(second, 3)
    power = fourier.shell_sum(a.abs().square(), size, 3) * fourier.shell_sum(
        b.abs().square(), size, 3
    )
    fsc = fourier.shell_sum((a * b.conj()).real, size, 3) / power.sqrt().clamp_min(1e-30)
    shells = fourier.shell_index(size, 3, first.device).clamp_max(size // 2)
    gain = (0.5 / fsc.clamp(0.1, 1.0)).sqrt()[shells]
    return fourier.irfft((a - b) * gain, size, 3)
