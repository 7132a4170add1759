"""Whether posterior spreads of assigned poses are right: how far the true poses are, in spreads.

300 images of the phantom are assigned with the true map and noise. If spreads are right, the mean
square of the errors is that of the spreads, whatever the posteriors' shape. Of Gaussian posteriors
alike in all directions, the share of true poses within 1 and 2 spreads is 0.608 and 0.993 for
orientations (chi-squared of three degrees of freedom), 0.632 and 0.982 for shifts (two).

    python benchmarks/posterior_spreads.py -o benchmarks/results
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

from cryogan.benchmark.rows import write_rows
from cryogan.objectives.likelihood.assignment import assign
from cryogan.objectives.likelihood.latent_grid import SINGLE_STRUCTURE
from cryogan.physics.distributions import PoseDistribution, Triangular
from cryogan.physics.rotations import angle_between
from phantom_sets import known_half_set, phantom_images

BOX, PIXEL_SIZE_A, RINGS = 24, 8.0, 10


def summary(error: Tensor, spread: Tensor, name: str) -> dict[str, float]:
    """Errors against spreads."""
    ratio = error / spread
    found = {
        "error_median": error.median(),
        "spread_median": spread.median(),
        "mean_square_ratio": error.square().mean() / spread.square().mean(),
        "within_1": (ratio < 1.0).float().mean(),
        "within_2": (ratio < 2.0).float().mean(),
    }
    return {f"{name}_{key}": round(float(value), 3) for key, value in found.items()}


def row_of(snr_dB: float, shift_percent: float, seed: int, count: int) -> dict[str, float]:
    """One set."""
    half_width_A = shift_percent / 100.0 * BOX * PIXEL_SIZE_A
    made, truth = phantom_images(
        BOX,
        PIXEL_SIZE_A,
        count,
        snr_dB,
        seed,
        poses=PoseDistribution(shifts=Triangular(half_width_A)),
    )
    known = known_half_set(made.particles, made.noise_sigma, truth, shift_percent)
    began = time.process_time()
    found = assign(
        known.half, known.maps, SINGLE_STRUCTURE, RINGS, known.config, torch.device("cpu")
    )
    seconds = time.process_time() - began
    row = {"snr_dB": snr_dB, "shift_percent": shift_percent, "seed": seed, "images": count}
    angle = angle_between(found.pose.rotation, made.pose.rotation)
    row |= summary(angle, found.spread_deg, "angle")
    if shift_percent > 0.0:
        apart = (found.pose.shift_A - made.pose.shift_A).norm(dim=1)
        row |= summary(apart, found.shift_spread_A, "shift")
    else:
        row |= dict.fromkeys(summary(angle, found.spread_deg, "shift"), float("nan"))
    return row | {
        "information_nats_median": round(float(found.information.median()), 2),
        "cpu_s": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--snrs", nargs="+", type=float, default=[6.0, 0.0, -6.0, -12.0, -18.0])
    parser.add_argument("--shifts", nargs="+", type=float, default=[0.0, 5.0], metavar="%")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=300)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for shift in options.shifts:
        for snr in options.snrs:
            for seed in options.seeds:
                rows.append(row_of(snr, shift, seed, options.images))
                print(*rows[-1].values(), sep="  ", flush=True)
    write_rows(options.output / "posterior_spreads.csv", rows)


if __name__ == "__main__":
    main()
