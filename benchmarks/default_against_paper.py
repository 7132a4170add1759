"""The `default` preset against the published recipe, `paper`: same images, same CPU time.

Both start at the same time on the same machine, each with the same number of threads, on the
whole set of `cryogan simulate betagal-64px`; `default` may end earlier. Volumes are kept along the
way and compared with the truth afterwards, at the cost of neither run.

    cryogan simulate betagal-64px --condition=-5.2dB --datadir ../shared/data -o DIR
    python benchmarks/default_against_paper.py DIR -o benchmarks/results --minutes 60
"""

import argparse
import csv
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure

from cryogan.allocator import keep_freed_memory
from cryogan.evaluation.comparison import compare_to_truth
from cryogan.files import atomic_path
from cryogan.io.mrc import Map, read_map
from cryogan.io.relion import read_particles
from cryogan.objectives.adversarial.config import PRESETS
from cryogan.objectives.adversarial.loop import train

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


@dataclass(frozen=True)
class Snapshot:
    """A volume on the way, and what it had cost."""

    wall_s: float
    cpu_s: float
    images_seen: int
    map_: Map


def run(preset: str, star: Path, minutes: float, threads: int, seed: int) -> list[Snapshot]:
    """Train for `minutes` of CPU time (or to the preset's own end), keeping volumes on the way."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    particles = read_particles(star)
    snapshots: list[Snapshot] = []
    due, started, started_cpu = 0.0, time.perf_counter(), time.process_time()
    for progress in train(
        particles, PRESETS[preset], seed=seed, device=torch.device("cpu"), log_every=5
    ):
        state, cpu_s = progress.state, time.process_time() - started_cpu
        over = cpu_s >= 60 * minutes
        if cpu_s >= due or over or progress.fraction >= 1:
            map_ = Map(state.average.clone(), progress.data.pixel_size_A)
            wall_s = time.perf_counter() - started
            snapshots.append(Snapshot(wall_s, cpu_s, state.images_seen, map_))
            due = 1.1 * cpu_s + 5.0  # denser at first
        if over:
            break
    return snapshots


def evaluated(preset: str, snapshot: Snapshot, truth: Map) -> dict[str, str | float]:
    """A row of the table."""
    comparison = compare_to_truth(snapshot.map_, truth)
    values = (
        preset,
        snapshot.wall_s,
        snapshot.cpu_s,
        snapshot.images_seen,
        snapshot.images_seen / snapshot.wall_s,
        snapshot.map_.volume.shape[-1],
        comparison.resolution_A(0.5),
        comparison.resolution_A(0.143),
        comparison.correlation,
    )
    return {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in zip(COLUMNS, values, strict=True)
    }


def plot(path: Path, rows: list[dict[str, str | float]]) -> None:
    """Resolution over CPU seconds."""
    figure = Figure(figsize=(6.4, 4.0), dpi=200, layout="constrained")
    axes = figure.add_subplot()
    for preset, colour in (("default", "#0072B2"), ("paper", "#D55E00")):
        for threshold, style in (("0.5", "-"), ("0.143", "--")):
            chosen = [row for row in rows if row["preset"] == preset]
            axes.plot(
                [float(row["cpu_s"]) for row in chosen],
                [float(row[f"truth_fsc_{threshold}_A"]) for row in chosen],
                style,
                color=colour,
                label=f"{preset}, FSC {threshold}",
            )
    axes.set(
        xlabel="CPU seconds", ylabel="resolution against the truth (Å)", xscale="log", yscale="log"
    )
    axes.set_yticks(
        [8, 10, 15, 20, 30, 50, 100, 200], labels=["8", "10", "15", "20", "30", "50", "100", "200"]
    )
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


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
    with (
        atomic_path(options.output / "default_against_paper.csv") as temporary,
        temporary.open("w", newline="") as file,
    ):
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    plot(options.output / "default_against_paper.png", rows)
    for preset in found:
        print([row for row in rows if row["preset"] == preset][-1])
    print(f"default is {sooner(rows):.0f} times sooner where paper ends")


if __name__ == "__main__":
    main()
