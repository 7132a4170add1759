"""Goodness of fit of a run: each half-map against images of the other half-set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cryogan import fourier
from cryogan.data.padding import PaddedBox
from cryogan.evaluation.fsc import resolution_A
from cryogan.io.tables import write_columns
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.base import Maps
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.goodness_of_fit import (
    GoodnessOfFit,
    error_of_maps,
    fit_held_out,
)
from cryogan.objectives.likelihood.half_set import HalfSet, PowerSplit
from cryogan.objectives.likelihood.image_model import ImageModel
from cryogan.objectives.likelihood.view_density import UNIFORM, ViewDensity
from cryogan.particles import Particles
from cryogan.physics.noise import NoiseModel
from cryogan.randomness import generator_for

_FEWEST_RINGS, _MOST_RINGS = 5, 16
_BINS = 20


def goodness_of_run(
    maps: Maps,
    half_sets: tuple[Particles, Particles],
    assumptions: Assumptions,
    *,
    noise: NoiseModel | None,
    image_model: ImageModel,
    splits: Sequence[PowerSplit],
    views: Sequence[ViewDensity],
    seed: int,
    device: torch.device,
) -> tuple[GoodnessOfFit, float]:
    """Hold each half-map, filtered by the FSC, against up to 300 images of the other half-set.

    Args:
        maps: of the run; of conformations, their mean map.
        half_sets: its particles.
        assumptions: about the sample.
        noise: measured or known noise, or None.
        image_model: contrast of the images.
        splits: how the run divided the power of each half-set's images, if it did.
        views: densities of the viewing directions of each half-set, if the run estimated them.
        seed: for the choice of images and poses.
        device: where it is computed.

    Returns:
        It, and the width in Å of the box that its rings are of.
    """
    padded = PaddedBox.of(half_sets[0].box_size, assumptions.reach)
    config = LikelihoodConfig(assumptions=assumptions).padded(padded.share)
    size = maps.half1.shape[-1]
    agreed_A = resolution_A(maps.fsc_masked, 0.5, maps.pixel_size_A)
    shells = min(max(size * maps.pixel_size_A / agreed_A, _FEWEST_RINGS), _MOST_RINGS)
    gain = maps.fsc_masked.nan_to_num(0.0).clamp(0.0, 1.0)[
        fourier.shell_index(size, 3).clamp_max(size // 2)
    ]
    filtered = [
        maps.mask * fourier.irfft(fourier.rfft(half_map, 3) * gain, size, 3)
        for half_map in (maps.half1, maps.half2)
    ]
    error = padded.pad(error_of_maps(*filtered))
    found = []
    for number, half_map in enumerate(filtered):
        half = HalfSet.of(half_sets[1 - number], noise, padded)
        half = half.divided(splits[1 - number] if splits else None)
        generator = generator_for(seed, "goodness of fit", number)
        rings = int(shells / padded.share)
        volume = padded.pad(half_map)
        found.append(
            fit_held_out(
                half,
                volume,
                error,
                rings,
                config,
                generator,
                device,
                image_model,
                views=views[1 - number] if views else UNIFORM,
            )
        )
    return GoodnessOfFit.joined(*found), padded.width_px * half_sets[0].pixel_size_A


def write_goodness_of_fit(folder: Path, found: GoodnessOfFit, width_A: float) -> dict[str, Any]:
    """Write residuals by ring and the histogram of p-values; what `summary.json` tells of it.

    Args:
        folder: of the run.
        found: on held-out images.
        width_A: of the padded box.

    Raises:
        InputError: a file cannot be written.
    """
    ring = torch.arange(1, len(found.variance) + 1)
    columns = {"ring": ring, "resolution_A": width_A / ring}
    columns |= {"variance": found.variance, "expected": found.expected, "error": found.error}
    write_columns(folder / "goodness_of_fit.csv", columns)
    edges = torch.linspace(0.0, 1.0, _BINS + 1)
    count = torch.histogram(found.p_value.float(), edges).hist
    histogram = {"from": edges[:-1], "to": edges[1:], "images": count}
    write_columns(folder / "fit_p_values.csv", histogram)
    return {
        "images": len(found.p_value),
        "ks_distance": round(found.ks_distance, 4),
        "ks_significance": found.ks_significance,
        "calibrated": found.is_calibrated,
        "contrast": round(found.contrast, 4),
        "misfits": found.misfits(width_A),
    }
