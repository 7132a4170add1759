"""The default settings on one set with several seeds: how much do results depend on the seed?

    cryogan simulate betagal-64px --condition=-20dB --datadir ../shared/data -o DIR
    python benchmarks/seeds.py DIR -o benchmarks/results --name betagal-20dB --seeds 0 1 2

One volume from the whole set a seed, one thread, run after run; `--workers 2` runs two at a time.
Training reads the images only; maps along the way are compared with the truth after the run. Writes
`seeds_NAME.csv` (rows are added run by run) and `seeds_NAME.png`.
"""

import argparse
import csv
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch
from matplotlib.figure import Figure

from cryogan.allocator import keep_freed_memory
from cryogan.evaluation.comparison import compare_to_truth
from cryogan.files import atomic_path
from cryogan.io.mrc import Map, read_map
from cryogan.io.relion import read_particles
from cryogan.objectives.adversarial.config import AdversarialConfig
from cryogan.objectives.adversarial.loop import train

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
    kept, started, started_cpu = [], time.perf_counter(), time.process_time()
    for progress in train(particles, AdversarialConfig(), seed=seed, device=torch.device("cpu")):
        if progress.fraction * snapshots >= len(kept) + 1 or progress.fraction == 1:
            map_ = Map(progress.state.average.clone(), progress.data.pixel_size_A)
            spent = {
                "cpu_s": time.process_time() - started_cpu,
                "wall_s": time.perf_counter() - started,
            }
            kept.append((progress.record | spent, map_))
    truth = read_map(folder / "truth" / "map.mrc")
    rows = []
    for record, map_ in kept:
        comparison = compare_to_truth(map_, truth)
        found = {
            "seed": seed,
            "truth_fsc_0.5_A": comparison.resolution_A(0.5),
            "truth_fsc_0.143_A": comparison.resolution_A(0.143),
            "correlation": comparison.correlation,
        }
        rows.append({name: round((record | found)[name], 3) for name in COLUMNS})
    return rows


def plot(path: Path, rows: list[dict[str, float]], title: str) -> None:
    """Resolution over CPU seconds, a line a seed."""
    figure = Figure(figsize=(6.4, 4.0), dpi=200, layout="constrained")
    axes = figure.add_subplot()
    colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
    for number, seed in enumerate(sorted({row["seed"] for row in rows})):
        for threshold, style in (("0.5", "-"), ("0.143", "--")):
            axes.plot(
                [row["cpu_s"] for row in rows if row["seed"] == seed],
                [row[f"truth_fsc_{threshold}_A"] for row in rows if row["seed"] == seed],
                style,
                color=colours[number % len(colours)],
                label=f"seed {seed:g}, FSC {threshold}",
            )
    axes.set(
        xlabel="CPU seconds", ylabel="resolution against the truth (Å)", yscale="log", title=title
    )
    axes.set_yticks([8, 10, 15, 20, 30, 50], labels=["8", "10", "15", "20", "30", "50"])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


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
            with (
                atomic_path(options.output / f"seeds_{options.name}.csv") as temporary,
                temporary.open("w", newline="") as file,
            ):
                writer = csv.DictWriter(file, COLUMNS)
                writer.writeheader()
                writer.writerows(rows)
            plot(options.output / f"seeds_{options.name}.png", rows, options.name)
            print(job.result()[-1], flush=True)


if __name__ == "__main__":
    main()
