"""The default settings on one set with several seeds: how much do results depend on the seed?

    cryogan simulate betagal-64px --condition=-20dB --datadir ../shared/data -o DIR
    python benchmarks/seeds.py DIR -o benchmarks/results --name betagal-20dB --seeds 0 1 2

One volume from the whole set a seed, one thread, run after run; `--workers 2` runs two at a time.
Training reads the images only; maps along the way are compared with the truth after the run. Writes
`seeds_NAME.csv` (rows are added run by run) and `seeds_NAME.png`.
"""

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch

from cryogan.allocator import keep_freed_memory
from cryogan.benchmark.cost import Clock
from cryogan.benchmark.curves import plot_convergence
from cryogan.benchmark.rows import write_rows
from cryogan.benchmark.snapshots import training_snapshots, truth_numbers
from cryogan.io.mrc import read_map
from cryogan.io.relion import read_particles
from cryogan.objectives.adversarial.config import AdversarialConfig

COLUMNS = (
    "seed",
    "cpu_s",
    "wall_s",
    "images_seen",
    "box_size",
    "distance",
    "truth_fsc_0.5_A",
    "truth_fsc_0.143_A",
    "correlation",
)


def run(folder: Path, seed: int, snapshots: int) -> list[dict[str, float]]:
    """Train with a seed; rows of the table, about `snapshots` of them."""
    torch.set_num_threads(1)
    keep_freed_memory()
    particles = read_particles(folder / "particles.star")
    kept = training_snapshots(
        particles, AdversarialConfig(), seed=seed, clock=Clock(), count=snapshots, log_every=20
    )
    truth = read_map(folder / "truth" / "map.mrc")
    rows = []
    for each in kept:
        spent = {"seed": seed, "cpu_s": each.cpu_s, "wall_s": each.wall_s}
        numbers = each.record | spent | truth_numbers(each.map_, truth)
        rows.append({name: round(numbers[name], 3) for name in COLUMNS})
    return rows


def main() -> None:
    """Run all seeds; write the table after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of cryogan simulate")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--name", required=True, help="of the set, for the file names")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--snapshots", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    rows: list[dict[str, float]] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, context) as pool:
        jobs = [pool.submit(run, options.data, seed, options.snapshots) for seed in options.seeds]
        for job in as_completed(jobs):
            rows = sorted(rows + job.result(), key=lambda row: (row["seed"], row["cpu_s"]))
            write_rows(options.output / f"seeds_{options.name}.csv", rows, COLUMNS)
            picture = options.output / f"seeds_{options.name}.png"
            plot_convergence(picture, rows, "seed", label="seed {}", title=options.name)
            print(job.result()[-1], flush=True)


if __name__ == "__main__":
    main()
