"""What extraction leaves in images, and what was done to them, must not matter to the map.

One simulated set is given anew: with offsets, ramps, scales, hot pixels, phases flipped, multiplied
by the CTFs, half of it with finer pixels. A row for each variant: correlation with the truth, FSC
with the map of the plain set at 0.9 of the Nyquist frequency, half-map resolution, CPU seconds.
Maps are aligned first. Adversarial runs are chaotic: what variants change is to be compared with
what seeds change. They have 20,000 images of a D2 phantom.

python benchmarks/nuisances.py --objective likelihood
python benchmarks/nuisances.py --objective adversarial
python benchmarks/nuisances.py --objective adversarial --variants plain --seeds 1 2 3 4
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import cryogan
from cryogan import fourier
from cryogan.benchmark.cost import Clock
from cryogan.benchmark.rows import append_row
from cryogan.evaluation.comparison import compare_to_truth
from cryogan.io.mixed import resampled
from cryogan.objectives.adversarial.config import Stage
from cryogan.particles import FLIPPED, MULTIPLIED, ArrayStack, CTFParams, Particles
from cryogan.phantom import Symmetry, phantom_map
from cryogan.physics.ctf import ctf
from phantom_sets import set_of_map

BOX, PIXEL_SIZE_A = 32, 6.0
RESULTS = Path(__file__).parent / "results" / "nuisances.csv"


@dataclass(frozen=True)
class Case:
    """The set of an objective, and how it is reconstructed."""

    count: int
    snr_dB: float
    symmetry: Symmetry
    settings: dict[str, Any]


CASES = {
    "likelihood": Case(600, 3.0, "C1", {"initial_batches": 4, "iterations": 5}),
    "adversarial": Case(20_000, 10.4, "D2", {"stages": (Stage(BOX, 76_800, padding=4.0),)}),
}


def with_images(particles: Particles, images: Tensor, correction: int = 0) -> Particles:
    columns = particles.ctf.columns
    columns["correction"] = torch.full_like(columns["correction"], correction)
    return replace(particles, stack=ArrayStack(images), ctf=CTFParams(**columns))


def offset(sd: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda images, transfer: images + sd * images.std()


def ramp(sd: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Of so many standard deviations across the box, in another direction in every image."""

    def added(images: Tensor, transfer: Tensor) -> Tensor:
        angle = torch.arange(len(images)) * 2.4
        axis = (torch.arange(BOX) - BOX // 2) / BOX
        slope = angle.cos()[:, None, None] * axis + angle.sin()[:, None, None] * axis[:, None]
        return images + sd * images.std() * slope

    return added


def scaled(images: Tensor, transfer: Tensor) -> Tensor:
    """By 0.1 to 10, evenly in the logarithm."""
    exponent = torch.rand(len(images), generator=torch.Generator().manual_seed(1)) * 2.0 - 1.0
    return images * (10.0**exponent)[:, None, None]


def hot(every: int) -> Callable[[Tensor, Tensor], Tensor]:
    """A pixel of 3,600 standard deviations in every so-manieth image; in one only for 0."""

    def added(images: Tensor, transfer: Tensor) -> Tensor:
        images = images.clone()
        images[:: every or len(images), BOX // 3, BOX // 2] = 3600.0 * images.std()
        return images

    return added


def filtered(gain: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda images, transfer: fourier.irfft(fourier.rfft(images) * gain(transfer), BOX)


def half_of_them_finer(images: Tensor, transfer: Tensor) -> Tensor:
    """Half of the images as recorded with pixels of 4/5, brought back as files of two kinds are."""
    size, half = BOX * 5 // 4, len(images) // 2
    fine = fourier.resample(images[:half], size) * (BOX / size)
    noise = torch.randn(fine.shape, generator=torch.Generator().manual_seed(2))
    beyond = 1.0 - fourier.band_mask(size, BOX / 2 - 0.5).float()
    fine = fine + images.std() * fourier.irfft(fourier.rfft(noise) * beyond, size)
    return torch.cat((resampled(fine, size / BOX, BOX), images[half:]))


VARIANTS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int]] = {
    "plain": (lambda images, transfer: images, 0),
    "offset 1": (offset(1.0), 0),
    "offset 10": (offset(10.0), 0),
    "offset 300": (offset(300.0), 0),
    "ramp 20": (ramp(20.0), 0),
    "scale 0.1-10": (scaled, 0),
    "1 % hot images": (hot(100), 0),
    "one hot pixel": (hot(0), 0),
    "phases flipped": (filtered(torch.sign), FLIPPED),
    "premultiplied": (filtered(lambda transfer: transfer), MULTIPLIED),
    "two pixel sizes": (half_of_them_finer, 0),
}
"""Name -> what becomes of images, given their CTFs, and what the particle file says of it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objective", choices=list(CASES), default="likelihood")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    case = CASES[options.objective]
    volume = phantom_map(BOX, PIXEL_SIZE_A, symmetry=case.symmetry)
    particles, truth = set_of_map(volume, PIXEL_SIZE_A, case.count, case.snr_dB, 17)
    images = particles.stack.read(torch.arange(case.count))
    transfer = ctf(particles.ctf, BOX, PIXEL_SIZE_A)
    first = None
    for name, seed in product(options.variants, options.seeds):
        change, correction = VARIANTS[name]
        made = with_images(particles, change(images, transfer), correction)
        clock = Clock()
        run = cryogan.reconstruct(
            made,
            objective=options.objective,
            symmetry=case.symmetry,
            settings=case.settings,
            max_shift="0",
            device="cpu",
            seed=seed,
        )
        used_s = clock.cpu_s
        found = cryogan.evaluate(run, truth=truth)
        first = first or run.map
        near = compare_to_truth(run.map, first)
        shell = math.floor(0.9 * (near.fsc.shape[-1] - 1))
        row = {
            "objective": options.objective,
            "variant": name,
            "seed": seed,
            "correlation_with_truth": f"{found.correlation_masked:.4f}",
            "fsc_with_plain_at_0.9_nyquist": f"{float(near.fsc_masked[shell]):.4f}",
            "half_map_0.143_A": f"{run.half_map_crossings_A['half_map_0.143']:.2f}",
            "truth_0.5_A": f"{found.resolution_A(0.5):.2f}",
            "cpu_s": f"{used_s:.0f}",
        }
        print(*row.values(), sep="  ", flush=True)
        append_row(options.output, row)


if __name__ == "__main__":
    main()
