"""The `default` preset against the published recipe, `paper`: same images, same CPU time.

Both start at the same time on the same machine, each with the same number of threads, on the
whole set of `cryogan simulate betagal-64px`; `default` may end earlier. Volumes are kept along the
way and compared with the truth afterwards, at the cost of neither run.

    cryogan simulate betagal-64px --condition=-5.2dB --datadir ../shared/data -o DIR
    python benchmarks/default_against_paper.py DIR -o benchmarks/results --minutes 60
"""

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from cryogan.allocator import keep_freed_memory
from cryogan.benchmark.cost import Clock
from cryogan.benchmark.curves import plot_convergence
from cryogan.benchmark.rows import write_rows
from cryogan.benchmark.snapshots import Snapshot, training_snapshots, truth_numbers
from cryogan.io.mrc import Map, read_map
from cryogan.io.relion import read_particles
from cryogan.objectives.adversarial.config import PRESETS

COLUMNS = (
    "preset",
    "wall_s",
    "cpu_s",
    "images_seen",
    "images_per_s",
    "box_size",
    "truth_fsc_0.5_A",
    "truth_fsc_0.143_A",
    "correlation",
)


def run(preset: str, star: Path, minutes: float, threads: int, seed: int) -> list[Snapshot]:
    """Train for `minutes` of CPU time (or to the preset's own end), keeping volumes on the way."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    particles = read_particles(star)
    return training_snapshots(particles, PRESETS[preset], seed=seed, clock=Clock(), minutes=minutes)


def evaluated(preset: str, snapshot: Snapshot, truth: Map) -> dict[str, str | float]:
    """A row of the table."""
    seen = int(snapshot.record["images_seen"])
    numbers = {
        "wall_s": snapshot.wall_s,
        "cpu_s": snapshot.cpu_s,
        "images_per_s": seen / snapshot.wall_s,
    }
    numbers |= truth_numbers(snapshot.map_, truth)
    row: dict[str, str | float] = {name: round(value, 3) for name, value in numbers.items()}
    row |= {"preset": preset, "images_seen": seen, "box_size": snapshot.map_.volume.shape[-1]}
    return {name: row[name] for name in COLUMNS}


def sooner(rows: list[dict[str, str | float]]) -> float:
    """CPU time of `paper` at its best resolution (FSC 0.5) over that of `default` to reach it."""
    name = "truth_fsc_0.5_A"
    paper = min((row for row in rows if row["preset"] == "paper"), key=lambda row: float(row[name]))
    reached = min(
        float(row["cpu_s"])
        for row in rows
        if row["preset"] == "default" and float(row[name]) <= float(paper[name])
    )
    return float(paper["cpu_s"]) / reached


def main() -> None:
    """Run both, evaluate both, write `default_against_paper.csv` and `.png`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of cryogan simulate")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60.0, help="CPU minutes of each")
    parser.add_argument("--threads", type=int, default=1, help="of each of the two runs")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    star = options.data / "particles.star"
    truth = read_map(options.data / "truth" / "map.mrc")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context) as pool:
        jobs = {
            preset: pool.submit(run, preset, star, options.minutes, options.threads, options.seed)
            for preset in ("default", "paper")
        }
        found = {preset: job.result() for preset, job in jobs.items()}
    rows = [evaluated(preset, one, truth) for preset, several in found.items() for one in several]
    write_rows(options.output / "default_against_paper.csv", rows, COLUMNS)
    plot_convergence(options.output / "default_against_paper.png", rows, "preset")
    for preset in found:
        print([row for row in rows if row["preset"] == preset][-1])
    print(f"default is {sooner(rows):.0f} times sooner where paper ends")


if __name__ == "__main__":
    main()
