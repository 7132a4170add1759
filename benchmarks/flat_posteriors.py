"""What images of flat posteriors add to a map: the smallest set of poses against a fixed threshold.

Poses of 1,200 weak images are searched with the true map, and one map is solved from the smallest
sets of poses that hold 0.999 of each posterior, and one from the poses above a probability of
0.003, as an earlier version kept them. A row for every SNR, seed and rule: how many images count,
and the FSC with the truth in shells 8 and 10.

    python benchmarks/flat_posteriors.py -o benchmarks/results
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from cryogan.benchmark.rows import write_rows
from cryogan.evaluation.fsc import fourier_shell_correlation
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.likelihood.bands import box_for, harmonics_for, mask_for, search_for
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.em_step import signal_prior_of
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.latent_grid import SINGLE_STRUCTURE
from cryogan.objectives.likelihood.normal_equations import normal_equations, solve, weighted_poses
from cryogan.objectives.likelihood.orientation_grid import orientation_grid
from cryogan.objectives.likelihood.posterior import posterior_of, references_of
from cryogan.physics.imaging import rescale_volume
from phantom_sets import phantom_set

BOX, PIXEL_SIZE_A, COUNT, RINGS = 32, 6.0, 1200, 12
THRESHOLD = 0.003
SHELLS = (8, 10)


def rows_of(snr_dB: float, seed: int) -> list[dict[str, object]]:
    """Both rules on one set."""
    particles, known = phantom_set(BOX, PIXEL_SIZE_A, COUNT, snr_dB, seed)
    truth = known.volume
    cpu = torch.device("cpu")
    half = HalfSet.of(particles)
    config = LikelihoodConfig(assumptions=Assumptions())
    size = box_for(RINGS, BOX)
    harmonics = harmonics_for(size, RINGS, config, cpu)
    levels = search_for(harmonics, config)
    maps = rescale_volume(half.scaled_to_images(truth), size)[None]
    seen = half.observed(torch.arange(COUNT), harmonics, cpu)
    found = posterior_of(seen, references_of(maps, SINGLE_STRUCTURE, harmonics, levels))
    above = torch.where(found.coefficient[..., :1] > THRESHOLD, found.coefficient, 0.0)
    rules = {
        "smallest set of 0.999": found,
        f"above {THRESHOLD}": replace(found, coefficient=above, product=above.clone()),
    }
    grid = orientation_grid(levels[-1].nside, cpu)
    prior = signal_prior_of(half, size, RINGS, 1, config)
    mask = mask_for(size, half.stack(size).pixel_size_A, config, cpu)
    rows = []
    for rule, each in rules.items():
        poses = weighted_poses(each.cells, each.coefficient, each.product)
        solved = solve(normal_equations(seen, poses, grid, harmonics), prior, mask, maps)[0]
        fsc = fourier_shell_correlation(solved, rescale_volume(truth, size))
        rows.append(
            {"snr_dB": snr_dB, "seed": seed, "rule": rule, "images": len(poses.image.unique())}
            | {f"fsc_shell_{shell}": round(float(fsc[shell]), 3) for shell in SHELLS}
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--snrs", nargs="+", type=float, default=[-14.0, -18.0, -22.0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    rows = [row for snr in options.snrs for seed in options.seeds for row in rows_of(snr, seed)]
    write_rows(options.output / "flat_posteriors.csv", rows)
    for row in rows:
        print(*row.values(), sep="  ")


if __name__ == "__main__":
    main()
