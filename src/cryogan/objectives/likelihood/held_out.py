"""Held-out images: how much better a half-map explains the other half-set than other maps.

The images of one half-set have no part in the map of the other. Their log marginal likelihood given
that map is compared with that given maps of the same outline, spectrum and symmetry whose phases
are random beyond the first shells, that given its spherical average, and that of noise alone. A map
fitted to noise explains them no better than these. Noise alone must be among them: of images that
hold less than any of the maps, the map that holds least of all fits best. The outline is that of
the map, because random ones differ much more from one another than any detail matters.
"""

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
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.latent_grid import SINGLE_STRUCTURE
from cryogan.objectives.likelihood.pose_search import log_marginal_likelihood_of_all
from cryogan.objectives.likelihood.posterior import references_of
from cryogan.physics.imaging import rescale_volume

_CONTRASTS = (1.0, 0.71, 0.5, 0.35)  # of maps: few weak images do not tell the scale


@dataclass(frozen=True)
class HeldOut:
    """Log marginal likelihoods of n held-out images, over that of noise alone.

    Of each map at the contrast at which it explains the images best.

    Attributes:
        of_map: (n,) given the map.
        of_random: (m, n) given maps of random phases beyond the first shells.
        of_sphere: (n,) given the spherical average of the map.
    """

    of_map: Tensor
    of_random: Tensor
    of_sphere: Tensor

    @property
    def gain(self) -> float:
        """Mean log-likelihood that an image gains by the map, over the best of the others."""
        others = max(float(self.of_random.mean()), float(self.of_sphere.mean()), 0.0)
        return float(self.of_map.mean()) - others

    @property
    def z_of_images(self) -> float:
        """The gain over each of the others in units of its error from image to image."""
        others = (self.of_random.mean(dim=0), self.of_sphere, torch.zeros_like(self.of_map))
        return min(_z(self.of_map - other) for other in others)

    @property
    def z_of_maps(self) -> float:
        """The gain over random phases in units of the spread from random map to random map."""
        means = self.of_random.mean(dim=1)
        return float((self.of_map.mean() - means.mean()) / means.std().clamp_min(1e-6))


def _z(difference: Tensor) -> float:
    error = difference.std() / len(difference) ** 0.5
    return float(difference.mean() / error.clamp_min(1e-6))


def held_out(
    half: HalfSet,
    volume: Tensor,
    rings: int,
    config: LikelihoodConfig,
    generator: torch.Generator,
    device: torch.device,
    *,
    outline: int,
    images: int = 300,
    random_maps: int = 8,
) -> HeldOut:
    """Log marginal likelihoods of images that have no part in a map.

    Args:
        half: the images, of the padded box.
        volume: (D, D, D) map of the other half-set, filtered, of their field of view.
        rings: the band.
        config: assumptions about the sample.
        generator: for the choice of images and the random phases.
        device: where it is computed.
        outline: shells whose phases random maps have from the map.
        images: how many are used.
        random_maps: maps of random phases.
    """
    size = box_for(rings, half.particles.box_size)
    rings = min(rings, size // 2 - 1)
    harmonics = harmonics_for(size, rings, config, device)
    searched = replace(config, assumptions=config.assumptions.resolving(rings))
    levels = coarse_search_for(harmonics, searched)
    mask = mask_for(size, half.stack(size).pixel_size_A, config, device)
    band = fourier.band_mask(size, rings + 0.5, 3, device)
    spectrum = fourier.rfft(rescale_volume(volume.to(device), size), 3) * band
    known = half.scaled_to_images(fourier.irfft(spectrum, size, 3)) * mask
    others = [_random_phases(known, mask, outline, config, generator) for _ in range(random_maps)]
    index = torch.randperm(len(half), generator=generator)[:images].sort().values
    seen = half.observed(index, harmonics, device)

    def given(reference: Tensor) -> Tensor:
        slices = references_of(reference[None], SINGLE_STRUCTURE, harmonics, levels)
        found = log_marginal_likelihood_of_all(seen, slices.references[0], levels, _CONTRASTS)
        return found[found.mean(dim=1).argmax()].cpu()

    return HeldOut(
        given(known), torch.stack([given(other) for other in others]), given(_sphere(known))
    )


def _random_phases(
    volume: Tensor,
    mask: Tensor,
    outline: int,
    config: LikelihoodConfig,
    generator: torch.Generator,
) -> Tensor:
    """A map of the same first shells, power in every other one, mask and symmetry."""
    size = volume.shape[-1]
    noise = torch.randn(volume.shape, generator=generator).to(volume.device)
    other = symmetrised(noise * mask, config)
    wanted, found = (
        fourier.shell_mean(fourier.rfft(each, 3).abs().square(), size, 3)
        for each in (volume, other)
    )
    shells = fourier.shell_index(size, 3, volume.device).clamp_max(size // 2)
    gain = (wanted / found.clamp_min(1e-30)).sqrt()[shells]
    random = fourier.rfft(other, 3) * gain
    mixed = torch.where(shells <= outline, fourier.rfft(volume, 3), random)
    return fourier.irfft(mixed, size, 3) * mask


def _sphere(volume: Tensor) -> Tensor:
    """The mean over all rotations."""
    shell = fourier.radius_grid(volume.shape[-1], 3, volume.device).round().long()
    total = torch.zeros(int(shell.max()) + 1, device=volume.device)
    count = total.index_add(0, shell.flatten(), torch.ones_like(volume).flatten())
    mean: Tensor = total.index_add(0, shell.flatten(), volume.flatten()) / count.clamp_min(1.0)
    return mean[shell]
