"""Estimates of memory (`run.memory.estimate_memory`) beside what real runs take, on a CPU.

Every row of `memory_estimate.csv` is a short run on simulated particles of the phantom, in a fresh
process: several steps of adversarial training of one half-set, or an EM iteration of both from good
maps, in the finest band. Given are the most memory of that process (shared libraries do not count),
the estimate for it, their ratio, the upper bound below which nothing is measured at a run's start,
and the seconds that the estimate has taken.

    OMP_NUM_THREADS=1 python benchmarks/memory_estimate.py -o benchmarks/results
"""

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch

from cryogan.allocator import keep_freed_memory
from cryogan.benchmark.rows import write_rows
from cryogan.objectives.adversarial.config import (
    HETEROGENEOUS,
    PAPER_HETEROGENEOUS,
    AdversarialConfig,
    Stage,
)
from cryogan.objectives.adversarial.objective import Adversarial
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.base import Task
from cryogan.objectives.data_parallel import SINGLE_PROCESS
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.objective import Likelihood
from cryogan.particles import Particles
from cryogan.phantom import phantom_map
from cryogan.physics.distributions import PoseDistribution
from cryogan.run.memory import PROCESS_GB, estimate_memory
from cryogan.run.trials import peak_GB
from cryogan.simulation.in_memory import simulate_particles
from cryogan.simulation.microscope import random_ctf

WIDTH_A = 240.0
STEPS = 12
LINE, CIRCLE = Assumptions(latent="uniform"), Assumptions(latent="circle")
CLASSES = Assumptions(latent="discrete", classes=5)
DEFAULT = AdversarialConfig()
UNET = replace(
    PAPER_HETEROGENEOUS,
    critic="template",
    loss="relativistic",
    estimate_spectra=True,
    critic_steps=1,
    batch_size=64,
)


def adversarial(config: AdversarialConfig, box_size: int, padding: float = 3.0) -> Adversarial:
    """A few steps in one box."""
    stage = Stage(box_size, STEPS * config.batch_size * config.critic_steps, padding)
    return Adversarial(replace(config, stages=(stage,)))


def likelihood(**changes: object) -> Likelihood:
    """One iteration over all images."""
    return Likelihood(LikelihoodConfig(iterations=1, subset_size=100_000, **changes))


# What it is, the objective, the particles' box, and their number in both half-sets.
CASES: tuple[tuple[str, Adversarial | Likelihood, int, int], ...] = (
    ("adversarial, volume", adversarial(DEFAULT, 64), 64, 2048),
    (
        "adversarial, volume, streamed from 160 px",
        adversarial(replace(DEFAULT, memory_GB=0.0), 64),
        160,
        2048,
    ),
    (
        "adversarial, volume, batch of 1,024",
        adversarial(replace(DEFAULT, batch_size=1024), 32),
        32,
        4096,
    ),
    ("adversarial, compact critic", adversarial(replace(DEFAULT, critic="compact"), 48), 48, 2048),
    ("adversarial, subspace", adversarial(replace(HETEROGENEOUS, assumptions=LINE), 32), 32, 2048),
    (
        "adversarial, 5 classes",
        adversarial(replace(HETEROGENEOUS, assumptions=CLASSES), 32),
        32,
        2048,
    ),
    ("adversarial, U-Net", adversarial(replace(UNET, assumptions=LINE), 32, 2.0), 32, 2048),
    ("likelihood, one map", likelihood(), 32, 4000),
    (
        "likelihood, one map, shifts of 5 %",
        likelihood(assumptions=Assumptions(max_shift_percent=5.0)),
        32,
        1000,
    ),
    ("likelihood, one map", likelihood(), 64, 600),
    ("likelihood, circle", likelihood(assumptions=CIRCLE), 32, 800),
)


def particles_of(box_size: int, count: int) -> Particles:
    """The phantom at -10 dB."""
    generator = torch.Generator().manual_seed(0)
    pixel_size_A = WIDTH_A / box_size
    return simulate_particles(
        phantom_map(box_size, pixel_size_A),
        pixel_size_A=pixel_size_A,
        n=count,
        ctf=random_ctf(count, generator),
        poses=PoseDistribution(),
        snr_dB=-10.0,
        generator=generator,
    ).particles


def measure(objective: Adversarial | Likelihood, particles: Particles) -> float:
    """The most memory (1e9 bytes) of this process, having run as a worker does."""
    torch.set_num_threads(1)
    keep_freed_memory()
    half = len(particles) // 2
    halves = particles.subset(torch.arange(half)), particles.subset(torch.arange(half, 2 * half))
    maps = None
    if objective.together:
        volume = phantom_map(particles.box_size, particles.pixel_size_A)
        basis = [volume] + [
            0.1 * volume.roll(3, axis % 3)
            for axis in range(objective.config.assumptions.volumes - 1)
        ]
        maps = torch.stack(basis)[None].repeat(2, 1, 1, 1, 1)
    else:
        halves = halves[:1]
    task = Task(halves, None, 0, torch.device("cpu"), maps)
    *_, last = objective.iterate(task, None, SINGLE_PROCESS)
    objective.outcome(last, task)
    return peak_GB()


def main() -> None:
    """Measure every case and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of cases, from 0")
    options = parser.parse_args()
    rows = []
    for number, (name, objective, box_size, count) in enumerate(CASES):
        if options.only and number not in options.only:
            continue
        particles = particles_of(box_size, count)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            used_GB = pool.submit(measure, objective, particles).result()
        start = time.perf_counter()
        found = estimate_memory(objective, particles)
        seconds = time.perf_counter() - start
        assert found is not None
        processes = 1 if objective.together else 2
        estimate_GB = found.needed_GB / processes
        bound_GB = PROCESS_GB + sum(objective.memory_plan(particles, 1).options.values())
        row = {
            "run": name,
            "box_size": box_size,
            "images": count,
            "used_GB": round(used_GB, 3),
            "estimate_GB": round(estimate_GB, 3),
            "ratio": round(estimate_GB / used_GB, 2),
            "upper_bound_GB": round(bound_GB, 2),
            "estimate_s": round(seconds, 1),
        }
        print(row, flush=True)
        rows.append(row)
    write_rows(options.output / "memory_estimate.csv", rows)


if __name__ == "__main__":
    main()
