"""The band that held-out images support: up to which ring a map explains them the better.

Half-maps agree also in errors that they share, so that their FSC may end too late. Images that have
no part in a map tell more. Let ρ be the FSC of a half-map with the truth in a shell, and α² the
power of the half-map there over that of the molecule. At known poses, a shell of power A² changes
the log-likelihood of a held-out image by `(ρ α - α²/2) A²` on average: a gain if ρ exceeds α / 2.
The mean of two half-maps with an FSC of C between them has an FSC of `ρ √(2 / (1 + C))` with the
truth, which is 0.5 where `2 ρ = √((1 + C) / 2)`. With α equal to that, shells are gained as far as
the FSC of the mean map with the truth exceeds 0.5, whether errors are shared (C near 1) or not
(`ρ = √C`, C = 0.143 at the end). At poses that are not known this holds as far as images tell them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.objectives.likelihood.bands import box_for, harmonics_for, mask_for, search_for
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.latent_grid import SINGLE_STRUCTURE
from cryogan.objectives.likelihood.observations import Observations
from cryogan.objectives.likelihood.pose_search import log_marginal_likelihood_refined
from cryogan.objectives.likelihood.posterior import References, references_of
from cryogan.objectives.likelihood.search_levels import under_views
from cryogan.objectives.likelihood.view_density import UNIFORM, ViewDensity
from cryogan.physics.imaging import rescale_volume

_INTERVALS = 6  # between bands that are compared first


@dataclass(frozen=True)
class HeldOutBand:
    """Images of one half-set, and slices of the map of the other.

    Attributes:
        seen: the images.
        references: slices of the map on all rings.
        ring: (M,) ring of each coefficient, from 1.
    """

    seen: Observations
    references: References
    ring: Tensor

    @classmethod
    def of(
        cls,
        half: HalfSet,
        volume: Tensor,
        fsc: Tensor,
        rings: int,
        config: LikelihoodConfig,
        generator: torch.Generator,
        device: torch.device,
        views: ViewDensity = UNIFORM,
        images: int = 300,
    ) -> "HeldOutBand":
        """From images that have no part in a map.

        Args:
            half: the images, of the padded box.
            volume: (D, D, D) map of the other half-set, of their field of view.
            fsc: (D // 2 + 1,) of the half-maps, by shells of the padded box.
            rings: the widest band.
            config: assumptions about the sample.
            generator: for the choice of images.
            device: where it is computed.
            views: prior of the viewing directions.
            images: how many are used, of those that show a particle more likely than not.
        """
        size = box_for(rings, half.particles.box_size)
        rings = min(rings, size // 2 - 1)
        harmonics = harmonics_for(size, rings, config, device)
        levels = under_views(search_for(harmonics, config), views)
        mask = mask_for(size, half.stack(size).pixel_size_A, config, device)
        known = rescale_volume(volume.to(device), size) * mask
        shells = size // 2 + 1
        fsc = torch.nn.functional.pad(fsc, (0, max(0, shells - len(fsc))))[:shells]
        power = half.signal_prior(size) * 0.5 * (1.0 + fsc)
        known = with_power(known, power.to(device))
        likely = half.likely
        index = likely[torch.randperm(len(likely), generator=generator)[:images]].sort().values
        return cls(
            half.observed(index, harmonics, device),
            references_of(known[None], SINGLE_STRUCTURE, harmonics, levels),
            harmonics.ring,
        )

    def log_likelihood(self, rings: int) -> float:
        """Mean log marginal likelihood of the images, given the map limited to a band."""
        seen = self.seen
        within = torch.arange(1, seen.b.shape[1] + 1, device=seen.b.device) <= rings
        limited = replace(
            seen,
            a=torch.where(self.ring <= rings, seen.a, 0.0),
            b=torch.where(within, seen.b, 0.0),
        )
        levels = self.references.levels
        slices = self.references.references[0]
        return float(log_marginal_likelihood_refined(limited, slices, levels).mean())


def with_power(volume: Tensor, power: Tensor) -> Tensor:
    """A map (D, D, D) whose shells have a mean power |F|² (D // 2 + 1,) that is given."""
    size = volume.shape[-1]
    spectrum = fourier.rfft(volume, 3)
    found = fourier.shell_mean(spectrum.abs().square(), size, 3)
    gain = (power.clamp_min(0.0) / found.clamp_min(1e-30)).sqrt()
    shells = fourier.shell_index(size, 3, volume.device).clamp_max(size // 2)
    return fourier.irfft(spectrum * gain[shells], size, 3)


def best_band(log_likelihood: Callable[[int], float], first: int, last: int) -> int:
    """The band of highest likelihood among `first` ... `last` rings, one maximum supposed.

    Bands far apart are compared first, then those about the best of them, ever closer.
    """
    values: dict[int, float] = {}
    step = 1 << max(0, math.floor(math.log2(max(1, (last - first) / _INTERVALS))))
    wanted = {*range(first, last + 1, step), last}
    while True:
        values |= {rings: log_likelihood(rings) for rings in sorted(wanted - values.keys())}
        best = max(values, key=lambda rings: (values[rings], -rings))
        if step == 1:
            return best
        step //= 2
        wanted = {rings for rings in (best - step, best + step) if first <= rings <= last}
