"""Implicit against explicit: four ways to a map, by signal-to-noise ratio and number of images.

- `wgan`: `cryogan reconstruct --objective adversarial --adversarial.loss wasserstein`, one stage of
  32 px;
- `relativistic`: the same with the default's relativistic loss;
- `wgan + refine`: `cryogan refine` of the first, whose cost counts too;
- `likelihood`: `cryogan reconstruct`, one random initialisation.

β-galactosidase in a box of 32 px (Nyquist 15.3 Å), C1, centred, white noise; the ratio is that of
images of 192 px, as everywhere in cryogan, and 15.6 dB more in these. All sets have the same poses,
CTFs and noise but for its size; the smaller numbers are the first rows. Nothing is tuned by cell:
a method has the same command in all of them. The adversarial stage is the default's first
(51,200 images of each half, band to 17.0 Å), its critic's penalty the default's for both losses.

A run counts as **found** if FSC 0.5 with the truth, unmasked, is at 1.25 × Nyquist or better: this
was fixed before the first run. CPU time is that of all processes of a command, start, reading,
comparison of the halves and report included.

Seeds are the outer loop, so that a benchmark which is stopped has whole seeds. Rows are added to
`implicit_explicit.csv` as they come, and what is there is not run again. The sets are made in SETS
unless they are there.

    python benchmarks/implicit_explicit.py SETS -o benchmarks/results --datadir ../shared/data
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from cryogan.benchmark.cost import Cost, cryogan_command, spend
from cryogan.benchmark.curves import save_figure
from cryogan.benchmark.rows import read_rows, replaced, write_rows
from cryogan.cli.exit_codes import ENDED
from cryogan.errors import InputError
from cryogan.evaluation.comparison import compare_to_truth
from cryogan.io.mrc import read_map
from cryogan.run.contents import read_run_contents

METHODS = ("wgan", "relativistic", "wgan + refine", "likelihood")
COLOURS = dict(zip(METHODS, ("#E69F00", "#0072B2", "#CC79A7", "#009E73"), strict=True))
LABELS = dict(
    zip(
        METHODS,
        ("WGAN", "relativistic GAN", "WGAN, then refine", "likelihood from scratch"),
        strict=True,
    )
)
NYQUIST_A = 15.288
FOUND_A = 1.25 * NYQUIST_A
_EDGE_A = 230.0
COLUMNS = (
    "snr_dB",
    "images",
    "seed",
    "method",
    "outcome",
    "cpu_s",
    "wall_s",
    "half_map_0.143_A",
    "truth_fsc_0.5_A",
    "truth_fsc_0.143_A",
    "mean_fsc",
    "correlation",
)
Row = dict[str, str]


@dataclass(frozen=True)
class Case:
    """One seed in one cell of the table.

    Attributes:
        folder: of the simulated set.
        snr_dB: its ratio, as for images of 192 px.
        images: how many of its first images are used.
        seed: of the run.
        stage_images: that the critic of each half sees.
        minutes: of wall time that a command may take.
    """

    folder: Path
    snr_dB: int
    images: int
    seed: int
    stage_images: int
    minutes: float

    def reconstruct(self, work: Path, *options: str) -> list[str]:
        """The command; its run folder is `work / "run"`."""
        index = work / "index.npy"
        np.save(index, np.arange(self.images))
        star = str(self.folder / "particles.star")
        command = cryogan_command("reconstruct", star, "--ind", str(index))
        return [*command, "-o", str(work / "run"), "--seed", str(self.seed), *options]

    def adversarial(self, work: Path, loss: str) -> list[str]:
        stages = f"[{{box_size: 32, images: {self.stage_images}, padding: 4.0}}]"
        options = ("--adversarial.loss", loss, "--adversarial.stages", stages)
        return self.reconstruct(work, "--objective", "adversarial", *options)


def wgan(case: Case, work: Path) -> Iterator[Row]:
    """A Wasserstein run and its refinement."""
    first = evaluated(case, "wgan", case.adversarial(work, "wasserstein"), work, work / "run")
    yield first
    if first["outcome"] in ("found", "missed"):
        command = cryogan_command("refine", str(work / "run"))
        command += ["--ind", str(work / "index.npy")]
        spent = Cost(float(first["cpu_s"]), float(first["wall_s"]))
        yield evaluated(case, "wgan + refine", command, work, work / "run" / "refine", spent)
    else:
        yield first | {"method": "wgan + refine"}


def relativistic(case: Case, work: Path) -> Iterator[Row]:
    """A run with the default's loss."""
    command = case.adversarial(work, "relativistic")
    yield evaluated(case, "relativistic", command, work, work / "run")


def likelihood(case: Case, work: Path) -> Iterator[Row]:
    """Maximum likelihood from one random initialisation."""
    one = ("--likelihood.initialisations", "1")
    command = case.reconstruct(work, *one)
    yield evaluated(case, "likelihood", command, work, work / "run")


JOBS: tuple[tuple[Callable[[Case, Path], Iterator[Row]], tuple[str, ...]], ...] = (
    (likelihood, ("likelihood",)),
    (wgan, ("wgan", "wgan + refine")),
    (relativistic, ("relativistic",)),
)


def evaluated(
    case: Case,
    method: str,
    command: list[str],
    work: Path,
    run: Path,
    spent: Cost | None = None,
) -> Row:
    """Run a command and compare the map in `run` with the truth; a failure is a row too.

    `spent` is what led to it, if anything did.
    """
    row = dict.fromkeys(COLUMNS, "")
    row |= {"snr_dB": str(case.snr_dB), "images": str(case.images), "seed": str(case.seed)}
    row["method"] = method
    log = work / "log.txt"
    try:
        cost, finished = spend(command, work, log, case.minutes, ended=ENDED)
    except InputError:
        said = [line.strip() for line in log.read_text().splitlines() if line.strip()]
        return row | {"outcome": f"error: {said[-1] if said else 'no message'}"}
    cost = cost if spent is None else spent + cost
    row |= {"cpu_s": f"{cost.cpu_s:.1f}", "wall_s": f"{cost.wall_s:.1f}"}
    if not finished:
        return row | {"outcome": f"stopped after {case.minutes:g} min"}
    truth = read_map(case.folder / "truth" / "map.mrc")
    comparison = compare_to_truth(read_map(run / "map.mrc"), truth)
    resolution_A = comparison.resolution_A(0.5)
    half_map_A = read_run_contents(run).half_map_crossings_A["half_map_0.143"]
    return row | {
        "outcome": "found" if resolution_A <= FOUND_A else "missed",
        "half_map_0.143_A": f"{half_map_A:.2f}",
        "truth_fsc_0.5_A": f"{resolution_A:.2f}",
        "truth_fsc_0.143_A": f"{comparison.resolution_A(0.143):.2f}",
        "mean_fsc": f"{float(comparison.fsc[1:15].mean()):.3f}",
        "correlation": f"{comparison.correlation:.3f}",
    }


class Table:
    """Rows of results, written as they come."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = read_rows(path)

    def has(self, case: Case, methods: Sequence[str]) -> bool:
        """Whether the rows of a job are there."""
        here = {(row["snr_dB"], row["images"], row["seed"], row["method"]) for row in self.rows}
        cell = (str(case.snr_dB), str(case.images), str(case.seed))
        return all((*cell, method) in here for method in methods)

    def add(self, row: Row) -> None:
        """Add a row in place of an older one, sorted, and write all."""
        self.rows = sorted(replaced(self.rows, row, COLUMNS[:4]), key=_order)
        print(*row.values(), flush=True)
        write_rows(self.path, self.rows, COLUMNS)


def _order(row: Row) -> tuple[int, int, int, int]:
    method = METHODS.index(row["method"])
    return -int(row["snr_dB"]), int(row["images"]), method, int(row["seed"])


def cells(rows: Sequence[Row]) -> dict[tuple[int, int, str], list[Row]]:
    """Rows by ratio, number of images and method."""
    found: dict[tuple[int, int, str], list[Row]] = {}
    for row in sorted(rows, key=_order):
        found.setdefault((int(row["snr_dB"]), int(row["images"]), row["method"]), []).append(row)
    return found


def summary(rows: Sequence[Row]) -> str:
    """Markdown: a line a ratio and number; median resolution (range), found of all, CPU s."""
    by_cell = cells(rows)
    lines = [
        "| SNR | images | " + " | ".join(LABELS[method] for method in METHODS) + " |",
        "|---" * (2 + len(METHODS)) + "|",
    ]
    for snr_dB, images in dict.fromkeys(key[:2] for key in by_cell):
        entries = [_entry(by_cell.get((snr_dB, images, method), [])) for method in METHODS]
        lines.append(f"| {_decibels(snr_dB)} | {images:,} | " + " | ".join(entries) + " |")
    return "\n".join(lines)


def _entry(rows: Sequence[Row]) -> str:
    if not rows:
        return "–"
    found = sum(row["outcome"] == "found" for row in rows)
    rate = f"{found}/{len(rows)}"
    values = sorted(float(row["truth_fsc_0.5_A"]) for row in rows if row["truth_fsc_0.5_A"])
    if not values:
        return f"{rate}, no map"
    spread = f" ({values[0]:.1f}–{values[-1]:.1f})" if values[-1] - values[0] >= 0.05 else ""
    cpu_s = median(float(row["cpu_s"]) for row in rows if row["cpu_s"])
    rate = f"**{rate}**" if found == len(rows) else rate
    return f"{rate}, {median(values):.1f}{spread} Å, {cpu_s:.0f} s"


def _decibels(snr_dB: int) -> str:
    return f"−{-snr_dB} dB" if snr_dB < 0 else f"{snr_dB} dB"


def plot(path: Path, rows: Sequence[Row]) -> None:
    """Resolution, found of all and CPU seconds over the number of images; a column a ratio."""
    by_cell = cells(rows)
    ratios = list(dict.fromkeys(key[0] for key in by_cell))
    counts = sorted({key[1] for key in by_cell})
    figure = Figure(figsize=(3.1 * len(ratios) + 0.8, 7.2), dpi=200, layout="constrained")
    axes = figure.subplots(
        3, len(ratios), sharex=True, sharey="row", squeeze=False, height_ratios=(3.0, 1.25, 1.6)
    )
    for column, snr_dB in enumerate(ratios):
        resolution, rates, cost = axes[:, column]
        resolution.set_title(f"SNR {_decibels(snr_dB)}", fontsize=12)
        resolution.axhspan(NYQUIST_A / 1.1, FOUND_A, color="#009E73", alpha=0.10, lw=0)
        resolution.axhline(FOUND_A, color="0.4", lw=0.8, ls="--")
        for number, method in enumerate(METHODS):
            shift = 0.17 * (number - 1.5)
            own = [by_cell.get((snr_dB, count, method), []) for count in counts]
            _points(resolution, own, "truth_fsc_0.5_A", shift, COLOURS[method])
            _points(cost, own, "cpu_s", shift, COLOURS[method])
            for place, several in enumerate(own):
                if several:
                    _rate(rates, place, number, several, COLOURS[method])
        rates.set_ylim(len(METHODS) - 0.45, -0.55)
        rates.set_yticks(range(len(METHODS)), labels=[LABELS[method] for method in METHODS])
        rates.tick_params(length=0)
        for side in rates.spines.values():
            side.set_visible(False)
        cost.set_xticks(range(len(counts)), labels=[f"{count:,}" for count in counts])
        cost.set_xlim(-0.55, len(counts) - 0.45)
        cost.set_xlabel("images")
        for panel in (resolution, cost):
            panel.grid(axis="y", alpha=0.3)
    axes[0, 0].set_yscale("log")
    ticks = [15, 20, 30, 50, 100, 200]
    axes[0, 0].set_yticks(ticks, labels=[str(tick) for tick in ticks])
    axes[0, 0].minorticks_off()
    axes[0, 0].set_ylim(NYQUIST_A / 1.1, 260)
    axes[0, 0].set_ylabel("FSC 0.5 with the truth (Å)")
    axes[1, 0].set_ylabel("found")
    axes[2, 0].set_ylabel("CPU seconds")
    axes[2, 0].set_ylim(0.0, 1.15 * max(float(row["cpu_s"]) for row in rows if row["cpu_s"]))
    handles = [
        Line2D([], [], color=COLOURS[method], marker="o", ls="-", label=LABELS[method])
        for method in METHODS
    ]
    handles += [
        Line2D([], [], color="0.4", marker="o", ls="", label="found"),
        Line2D([], [], color="0.4", marker="x", ls="", mew=1.6, label="missed"),
        Line2D([], [], color="0.4", marker="X", ls="", ms=9, mec="black", label="error, no map"),
        Line2D([], [], color="0.4", ls="--", lw=0.8, label=f"{FOUND_A:.1f} Å, 1.25 × Nyquist"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False)
    save_figure(path, figure)


def _points(axes: Axes, own: Sequence[Sequence[Row]], name: str, shift: float, colour: str) -> None:
    """A marker a run, a cross where it missed, and a line through the medians.

    A run without a map has its marker at the upper edge.
    """
    for outcome, marker, size in (("found", "o", 5.0), ("missed", "x", 6.0)):
        points = [
            (place + shift, float(row[name]))
            for place, several in enumerate(own)
            for row in several
            if row["outcome"] == outcome
        ]
        if points:
            axes.plot(*zip(*points, strict=True), marker, color=colour, ms=size, mew=1.6, alpha=0.8)
    lost = [
        place + shift
        for place, several in enumerate(own)
        for row in several
        if row["outcome"] not in ("found", "missed")
    ]
    if lost and name != "cpu_s":
        axes.plot(lost, [_EDGE_A] * len(lost), "X", color=colour, ms=9, mec="black", mew=0.8)
    middle = [
        (place + shift, median(values))
        for place, several in enumerate(own)
        if (values := [float(row[name]) for row in several if row[name]])
    ]
    if middle:
        axes.plot(*zip(*middle, strict=True), color=colour, lw=1.2, alpha=0.6)


def _rate(axes: Axes, place: int, number: int, rows: Sequence[Row], colour: str) -> None:
    """A box as full of colour as seeds have found the molecule, with the numbers."""
    found = sum(row["outcome"] == "found" for row in rows)
    corner, width, height = (place - 0.42, number - 0.39), 0.84, 0.78
    for part, shade in ((1.0, "0.93"), (found / len(rows), colour)):
        axes.add_patch(Rectangle(corner, width * part, height, facecolor=shade, alpha=0.75, lw=0))
    axes.text(place, number, f"{found}/{len(rows)}", ha="center", va="center", fontsize=8)


def simulate(sets: Path, snr_dB: int, images: int, datadir: Path) -> Path:
    """The folder of a set, made unless it is there; another set there is refused."""
    folder = (sets / f"{snr_dB}dB").resolve()
    command = cryogan_command("simulate", "betagal-64px", "--scale", "0.5")
    command += ["--images", str(images), f"--noise.snr_dB={snr_dB}", "-o", str(folder)]
    command += ["--datadir", str(datadir.resolve())]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode != 0:
        raise InputError(f"The set of {snr_dB} dB could not be made (see above).")
    return folder


def main() -> None:
    """Read the command line; wrong input is one sentence."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", type=Path, metavar="SETS", help="folder of the simulated sets")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--datadir", type=Path, required=True, help="of the recipe's files")
    parser.add_argument("--snrs", nargs="+", type=int, default=[-5, -10, -20, -25], metavar="DB")
    parser.add_argument("--counts", nargs="+", type=int, default=[1000, 5000, 20_000], metavar="N")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2], help="none: only draw")
    parser.add_argument("--stage-images", type=int, default=51_200)
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="wall minutes of any command at most"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"found: FSC 0.5 with the truth at {FOUND_A:.1f} Å (1.25 x Nyquist) or better")
    try:
        table = Table(options.output / "implicit_explicit.csv")
        picture = options.output / "implicit_explicit.png"
        folders = {}
        if options.seeds:
            images = max(options.counts)
            folders = {s: simulate(options.sets, s, images, options.datadir) for s in options.snrs}
        for seed in options.seeds:
            for count in options.counts:
                for snr_dB, folder in folders.items():
                    case = Case(folder, snr_dB, count, seed, options.stage_images, options.minutes)
                    for job, methods in JOBS:
                        if not set(methods) & set(options.methods):
                            continue
                        if table.has(case, methods):
                            continue
                        with tempfile.TemporaryDirectory() as work:
                            for row in job(case, Path(work)):
                                table.add(row)
            plot(picture, table.rows)
        plot(picture, table.rows)
        print(summary(table.rows))
    except InputError as error:
        sys.exit(f"implicit_explicit: {error}")


if __name__ == "__main__":
    main()
