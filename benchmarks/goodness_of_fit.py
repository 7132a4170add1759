"""Goodness of fit on sets of known misfit: are p-values uniform, and what is named?

Images of the phantom (24 px of 8 Å, white noise, ten rings) are held against the map and the noise
supposed. First sets of which both are right: Kolmogorov-Smirnov distances of each set's p-values
from uniform, and whether the significances of these are uniform over the sets. Then sets of one
misfit each: what is named, with which p.

    python benchmarks/goodness_of_fit.py -o benchmarks/results
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from cryogan.benchmark.rows import write_rows
from cryogan.evaluation.statistics import kolmogorov_smirnov
from cryogan.objectives.likelihood.assignment import levels_of_assignment
from cryogan.objectives.likelihood.bands import harmonics_for
from cryogan.objectives.likelihood.expected_residuals import Expectation, residuals_of_groups
from cryogan.objectives.likelihood.goodness_of_fit import GoodnessOfFit, goodness_of_fit
from cryogan.objectives.likelihood.image_model import ALIKE
from cryogan.objectives.likelihood.latent_grid import SINGLE_STRUCTURE
from cryogan.objectives.likelihood.posterior import references_of
from cryogan.objectives.likelihood.resolved_posteriors import resolved_posteriors
from cryogan.particles import ArrayStack, Particles
from cryogan.phantom import phantom_map
from cryogan.physics.distributions import AngularCentralGaussian, PoseDistribution, Triangular
from cryogan.physics.imaging import rescale_volume
from phantom_sets import known_half_set, phantom_images

BOX, PIXEL_SIZE_A, RINGS = 24, 8.0, 10
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """Images, and what is supposed of them."""

    particles: Particles
    noise_sigma: float
    volume: Tensor


def right(snr_dB: float, seed: int, count: int, **how: object) -> Case:
    """Nothing wrong."""
    made, truth = phantom_images(BOX, PIXEL_SIZE_A, count, snr_dB, seed, **how)  # type: ignore
    return Case(made.particles, made.noise_sigma, truth if truth.ndim == 3 else truth[0])


def weak_noise(case: Case) -> Case:
    return replace(case, noise_sigma=case.noise_sigma / math.sqrt(1.1))


def weak_map(case: Case) -> Case:
    return replace(case, volume=case.volume / 1.2)


def defocus(case: Case) -> Case:
    ctf = case.particles.ctf
    off = torch.where(torch.arange(len(ctf)) < len(ctf) // 10, 1e4, 0.0)
    moved = replace(ctf, defocus_u_A=ctf.defocus_u_A + off, defocus_v_A=ctf.defocus_v_A + off)
    return replace(case, particles=replace(case.particles, ctf=moved))


def sharp_map(case: Case) -> Case:
    """The images have an envelope of B = 600 Å² that is not supposed."""
    ctf = case.particles.ctf
    ctf = replace(ctf, b_factor_A2=ctf.b_factor_A2 - 600.0)
    return replace(case, particles=replace(case.particles, ctf=ctf))


def junk(case: Case) -> Case:
    count = len(case.particles)
    images = case.particles.stack.read(torch.arange(count)).clone()
    generator = torch.Generator().manual_seed(count)
    empty = case.noise_sigma * torch.randn(images.shape, generator=generator)
    images[: count // 5] = empty[: count // 5]
    return replace(case, particles=replace(case.particles, stack=ArrayStack(images)))


def pixel_size(case: Case) -> Case:
    """The map is supposed 5 % too small, as of a wrong pixel size."""
    return replace(case, volume=phantom_map(BOX, 1.05 * PIXEL_SIZE_A))


def duplicated(case: Case) -> Case:
    count = len(case.particles)
    return replace(case, particles=case.particles.subset(torch.arange(count) // 2))


def same(case: Case) -> Case:
    return case


OPEN = {"volume": phantom_map(BOX, PIXEL_SIZE_A, hinge_angle_deg=60.0)}
TWO_STATES = {"volume": torch.stack((phantom_map(BOX, PIXEL_SIZE_A), OPEN["volume"]))}
VIEWS = {"poses": PoseDistribution(AngularCentralGaussian(4.0))}
SHIFTED = {"poses": PoseDistribution(shifts=Triangular(0.08 * BOX * PIXEL_SIZE_A))}
HAND = {"volume": phantom_map(BOX, PIXEL_SIZE_A, symmetry="D2")}


def other_hand(case: Case) -> Case:
    """Supposed is the mirror image, about the voxel of the origin."""
    return replace(case, volume=case.volume.flip(0).roll(1, 0))


CASES: dict[str, tuple[dict[str, object], Callable[[Case], Case]]] = {
    "nothing": ({}, same),
    "noise supposed 10 % too weak": ({}, weak_noise),
    "contrast 20 % above the map's": ({}, weak_map),
    "defocus of a tenth 1 um off": ({}, defocus),
    "envelope of 600 A^2 not supposed": ({}, sharp_map),
    "20 % show noise alone": ({}, junk),
    "two conformations, one supposed": (TWO_STATES, same),
    "uneven views": (VIEWS, same),
    "shifts beyond the range": (SHIFTED, same),
    "other hand, D2": (HAND, other_hand),
    "pixel size 5 % off": ({}, pixel_size),
    "every particle twice": ({}, duplicated),
}


def fit(case: Case, seed: int) -> GoodnessOfFit:
    """Of all images, map and noise as supposed; particles supposed centred."""
    known = known_half_set(case.particles, case.noise_sigma, case.volume)
    half, config, model = known.half, known.config, ALIKE
    size, levels = levels_of_assignment(RINGS, config, half.particles.box_size)
    harmonics = harmonics_for(size, levels[-1].rings, config, CPU)
    maps = rescale_volume(known.maps, size)
    references = references_of(maps, SINGLE_STRUCTURE, harmonics, levels)
    index = torch.arange(len(half))
    generator = torch.Generator().manual_seed(seed)
    groups = list(resolved_posteriors(half.observed(index, harmonics, CPU), references, model))
    expected = Expectation.of_levels(half, maps, levels, generator, model)
    found, expectation = residuals_of_groups(half, index, groups, maps, expected, generator, model)
    return goodness_of_fit(found, expectation)


def row_of(name: str, snr_dB: float, seed: int, count: int) -> dict[str, object]:
    """One set."""
    how, spoil = CASES[name]
    found = fit(spoil(right(snr_dB, seed, count, **how)), seed)
    return {
        "wrong": name,
        "snr_dB": snr_dB,
        "seed": seed,
        "images": count,
        "ks_distance": round(found.ks_distance, 4),
        "ks_significance": f"{found.ks_significance:.3g}",
        "below_0.01": round(float((found.p_value < 0.01).double().mean()), 4),
        "above_0.99": round(float((found.p_value > 0.99).double().mean()), 4),
        "contrast": round(found.contrast, 3),
        "not_shown": round(1.0 - float(found.shows.double().mean()), 4),
        "named": "; ".join(found.misfits(BOX * PIXEL_SIZE_A)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--snrs", nargs="+", type=float, default=[0.0, -6.0])
    parser.add_argument("--right", type=int, default=25, help="sets without misfit at each SNR")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sets = [("nothing", snr, seed) for snr in options.snrs for seed in range(options.right)]
    wrong = [name for name in CASES if name != "nothing"]
    sets += [(name, snr, seed) for name in wrong for snr in options.snrs for seed in options.seeds]
    rows = []
    for name, snr, seed in sets:
        rows.append(row_of(name, snr, seed, options.images))
        print(*rows[-1].values(), sep="  ", flush=True)
    write_rows(options.output / "goodness_of_fit.csv", rows)
    good = [row for row in rows if row["wrong"] == "nothing"]
    for snr in options.snrs:
        values = [float(str(row["ks_significance"])) for row in good if row["snr_dB"] == snr]
        distance, significance = kolmogorov_smirnov(torch.tensor(values))
        print(
            f"{snr:g} dB, {len(values)} sets without misfit: their significances have a "
            f"Kolmogorov-Smirnov distance of {distance:.3f} from uniform (p = {significance:.2g})"
        )


if __name__ == "__main__":
    main()
