"""What the estimated density of viewing directions brings where views are uneven, or uniform.

Sets of the phantom are refined from the true map, low-passed to shell 6, with the density estimated
and with a flat prior. A row for every kind of views, SNR, seed and prior: the FSC of the map with
the truth in three shells and its mean to the last of them, the mean log-likelihood of an image in
the last iteration, how far the density is from the true one in the frame of the truth
(Kullback-Leibler divergence; that of uniform views beside it), and CPU seconds.

    python benchmarks/view_density.py -o benchmarks/results
"""

import argparse
import math
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.benchmark.rows import write_rows
from cryogan.data.halves import split_halves
from cryogan.evaluation.alignment import align, apply_alignment
from cryogan.evaluation.fsc import fourier_shell_correlation
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.em import expectation_maximisation
from cryogan.objectives.likelihood.em_state import EMState
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.orientation_grid import orientation_grid
from cryogan.objectives.likelihood.view_density import NSIDE
from cryogan.phantom import phantom_map
from cryogan.physics.distributions import (
    AngularCentralGaussian,
    Orientations,
    PoseDistribution,
    Uniform,
)
from cryogan.physics.imaging import rescale_volume
from cryogan.simulation.in_memory import simulate_particles
from cryogan.simulation.microscope import random_ctf

BOX, PIXEL_SIZE_A, COUNT, START = 24, 8.0, 300, 6
VIEWS: dict[str, Orientations] = {
    "uniform": Uniform(),
    "one axis": AngularCentralGaussian(4.0),
}
SHELLS = (4, 6, 8)
CONFIG = LikelihoodConfig(iterations=3, full_iterations=3, initial_rings=(5, START))


def reconstructed(views: Orientations, snr_dB: float, seed: int) -> list[dict[str, object]]:
    """With the density estimated and without, on one set."""
    generator = torch.Generator().manual_seed(seed)
    truth = phantom_map(BOX, PIXEL_SIZE_A)
    made = simulate_particles(
        truth,
        pixel_size_A=PIXEL_SIZE_A,
        n=COUNT,
        ctf=random_ctf(COUNT, generator),
        poses=PoseDistribution(views),
        snr_dB=snr_dB,
        generator=generator,
    )
    first, second = (HalfSet.of(made.particles.subset(rows)) for rows in split_halves(COUNT, seed))
    band = fourier.band_mask(BOX, START + 0.5, 3)
    start = fourier.irfft(fourier.rfft(truth, 3) * band, BOX, 3)
    rows = []
    for estimated in (True, False):
        config = replace(CONFIG, view_density=estimated)
        began_s = time.process_time()
        *_, last = expectation_maximisation(
            (first, second),
            config,
            seed=seed,
            device=torch.device("cpu"),
            maps=start.expand(2, 1, *start.shape),
        )
        cpu_s = time.process_time() - began_s
        state = last.state
        assert isinstance(state, EMState)
        size = state.average.shape[-1]
        small, pixel_A = rescale_volume(truth, size), PIXEL_SIZE_A * BOX / size
        alignment = align(state.average[0], small, pixel_A)
        fsc = fourier_shell_correlation(
            apply_alignment(state.average[0], alignment, pixel_A), small
        )
        row: dict[str, object] = {"prior": "estimated" if estimated else "flat"}
        row |= {f"fsc_shell_{shell}": round(float(fsc[shell]), 3) for shell in SHELLS}
        row["mean_fsc"] = round(float(fsc[1 : max(SHELLS) + 1].mean()), 3)
        row["log_likelihood"] = round(float(last.record["log_likelihood"]), 3)
        row["kl"] = round(divergence(state.views.mean(0), views, alignment.rotation), 3)
        row["kl_of_uniform"] = round(divergence(torch.ones(12 * NSIDE**2), views, torch.eye(3)), 3)
        row["cpu_s"] = round(cpu_s, 1)
        rows.append(row)
    return rows


def divergence(found: Tensor, views: Orientations, rotation: Tensor) -> float:
    """Of a density (768,) from the true one, given the rotation of the map onto the truth."""
    direction = orientation_grid(NSIDE, torch.device("cpu")).frame[:, :, 2].double()
    if isinstance(views, AngularCentralGaussian):
        true = 4.0 * math.pi * views.density(direction @ rotation.double().T)
    else:
        true = torch.ones(len(direction), dtype=torch.float64)
    true = true / true.mean()
    return float((true * (true / found.double()).log()).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--views", nargs="+", default=list(VIEWS), choices=VIEWS)
    parser.add_argument("--snrs", nargs="+", type=float, default=[-8.0, -11.0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    for snr, name, seed in product(options.snrs, options.views, options.seeds):
        for row in reconstructed(VIEWS[name], snr, seed):
            rows.append({"views": name, "snr_dB": snr, "seed": seed} | row)
            print(*rows[-1].values(), sep="  ", flush=True)
    write_rows(options.output / "view_density.csv", rows)


if __name__ == "__main__":
    main()
