"""The verdict on a run: whether its images hold the structure that its maps show.

The evidence needs no known structure. Each half-map is held against the images of the other
half-set, in which it has no part (`objectives.likelihood.held_out`). Half-maps that agree prove
little by themselves: what both half-sets fit in the same way, such as the mask, agrees too.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.data.padding import PaddedBox
from cryogan.evaluation.fsc import resolution_A
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.base import Maps
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.held_out import HeldOut, held_out
from cryogan.particles import Particles
from cryogan.physics.noise import NoiseModel
from cryogan.randomness import generator_for
from cryogan.run.contents import DOUBTFUL, NOTHING, STRUCTURE

_CLEAR, _FAINT = 5.0, 3.0  # standard deviations, from image to image
_CLEAR_OF_MAPS, _FAINT_OF_MAPS = 3.0, 2.0  # from map to map: of eight, in both half-sets
_FEWEST_RINGS, _MOST_RINGS = 5, 16
_OUTLINE = 2.0  # shells that maps of random phases share with the map
_LEAST_GAIN = 1.0  # of an image; of noise, less than 0.1
_FEWEST_IMAGES = 200  # in all
_FEWEST_OF_HALF = 50
_FEWEST_SHELLS = 3.0  # the half-maps must agree beyond the shape of the mask


@dataclass(frozen=True)
class Verdict:
    """What the evidence of a run says.

    Attributes:
        word: "structure found", "doubtful" or "no structure".
        reason: why, in a sentence.
        gain: mean log-likelihood that a held-out image gains by the map; of both half-sets.
        z_of_images: that gain in units of its error from image to image.
        z_of_maps: and in units of the spread among maps of random phases beyond its outline.
    """

    word: str
    reason: str
    gain: tuple[float, float]
    z_of_images: tuple[float, float]
    z_of_maps: tuple[float, float]

    def record(self) -> dict[str, Any]:
        """For `summary.json`."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}


def verdict_of(
    maps: Maps,
    half_sets: tuple[Particles, Particles],
    assumptions: Assumptions,
    *,
    noise: NoiseModel | None,
    seed: int,
    device: torch.device,
) -> Verdict | None:
    """Hold each half-map against the images of the other half-set.

    Args:
        maps: of the run.
        half_sets: its particles.
        assumptions: about the sample.
        noise: measured or known noise, or None.
        seed: for the choice of images and random phases.
        device: where it is computed.

    Returns:
        None of fewer than 200 particles; "doubtful" if a half-set, such as one that was kept, has
        fewer than 50 of them.
    """
    counts = tuple(len(half_set) for half_set in half_sets)
    if sum(counts) < _FEWEST_IMAGES:
        return None
    if min(counts) < _FEWEST_OF_HALF:
        reason = (
            f"the half-sets have {counts[0]:,} and {counts[1]:,} particles, and one of fewer than "
            f"{_FEWEST_OF_HALF} tells nothing; leave out --keep-halves"
        )
        return Verdict(DOUBTFUL, reason, (0.0, 0.0), (0.0, 0.0), (0.0, 0.0))
    particles = half_sets[0]
    padded = PaddedBox.of(particles.box_size, assumptions.reach)
    config = LikelihoodConfig(assumptions=assumptions).padded(padded.share)
    width_A = maps.half1.shape[-1] * maps.pixel_size_A
    agreed_A = resolution_A(maps.fsc_masked, 0.5, maps.pixel_size_A)
    shells = min(max(width_A / agreed_A, _FEWEST_RINGS), _MOST_RINGS)
    found = []
    for number, half_map in enumerate((maps.half1, maps.half2)):
        half = HalfSet.of(half_sets[1 - number], noise, padded)
        volume = padded.pad(_filtered(half_map, maps.fsc_masked))
        rings = int(shells / padded.share)
        generator = generator_for(seed, "held-out images", number)
        outline = round(_OUTLINE / padded.share)
        found.append(held_out(half, volume, rings, config, generator, device, outline=outline))
    agreed_A = resolution_A(maps.fsc_masked, 0.143, maps.pixel_size_A)
    return weigh(found[0], found[1], width_A, agreed_A)


def weigh(first: HeldOut, second: HeldOut, width_A: float, agreed_A: float) -> Verdict:
    """The verdict on both half-maps, which agree to a resolution (FSC 0.143)."""
    gain = first.gain, second.gain
    z_of_images = first.z_of_images, second.z_of_images
    z_of_maps = first.z_of_maps, second.z_of_maps
    of_images, of_maps = min(z_of_images), min(z_of_maps)
    agree = width_A / agreed_A > _FEWEST_SHELLS
    least = float(f"{min(gain):.2g}")
    said = (
        f"held-out images gain {least:,g} in log-likelihood by the map of the other half-set "
        "over noise alone, maps of random phases beyond its outline and its spherical average "
        f"({of_images:.1f} standard deviations from image to image, {of_maps:.1f} from map to map)"
    )
    if of_images < _FAINT or (of_maps < _FAINT_OF_MAPS and min(gain) < _LEAST_GAIN):
        word, reason = NOTHING, said
    elif of_images < _CLEAR or of_maps < _CLEAR_OF_MAPS:
        word = DOUBTFUL
        reason = f"{said}; give more images or more iterations, or another seed"
    elif not agree:
        word, reason = DOUBTFUL, f"{said}, but the half-maps agree at no resolution"
    else:
        word, reason = STRUCTURE, said
    return Verdict(word, reason, gain, z_of_images, z_of_maps)


def _filtered(half_map: Tensor, fsc: Tensor) -> Tensor:
    """A half-map with each shell weighted by what it shares with the other."""
    size = half_map.shape[-1]
    shells = fourier.shell_index(size, 3).clamp_max(size // 2)
    gain = fsc.nan_to_num(0.0).clamp(0.0, 1.0)[shells]
    return fourier.irfft(fourier.rfft(half_map, 3) * gain, size, 3)
