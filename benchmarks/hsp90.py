"""Conformations of Hsp90 by several routes: how good, how long, how much memory.

- `likelihood`: `cryogan reconstruct --model heterogeneous`;
- `adversarial`: the same with `--objective adversarial`, the subspace;
- `refined`: `cryogan refine` of that run;
- `unet`: the U-Net, a run reduced to the images given here;
- `one map`: `cryogan reconstruct`, which assumes one structure.

Those by likelihood have one random initialisation (`--likelihood.initialisations 1`).

The folder SETS holds sets of `cryogan simulate hsp90-continuous` (motion1, motion2, both,
homogeneous) and `hsp90-discrete` (2-states, 2-states-80-20, 4-states), by their names. Every
command pays for its own start and reading; CPU time and peak memory are those of all its processes.
Rows are added to `hsp90.csv`, one when a run ends; `hsp90.png` shows them. Run folders go to --work
and are kept there.

    cryogan simulate hsp90-continuous --condition motion1 --datadir ../shared/data -o SETS/motion1
    python benchmarks/hsp90.py SETS -o benchmarks/results --work RUNS --sets motion1 --seeds 0 1 2
"""

import argparse
import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure

from cryogan.benchmark.cost import cryogan_command, spend
from cryogan.benchmark.curves import save_figure
from cryogan.benchmark.rows import read_rows, replaced, write_rows
from cryogan.cli.exit_codes import ENDED
from cryogan.conformations.folder import (
    conformations_folder,
    read_conformations,
    read_true_conformations,
)
from cryogan.conformations.series import Series, numbered_series
from cryogan.errors import InputError
from cryogan.evaluation.series_comparison import SeriesComparison, compare_series
from cryogan.io.mrc import read_map

COLUMNS = (
    "set",
    "route",
    "seed",
    "cpu_s",
    "wall_s",
    "memory_GB",
    "fsc_0.5_A",
    "fsc_0.5_worst_A",
    "motion_fsc_0.5_A",
    "coverage",
    "span",
    "rho",
    "wasserstein",
    "amplitude",
    "true_amplitude",
    "population_error",
)
LATENTS = {
    "both": ["--latent", "uniform2d", "--basis-volumes", "9"],
    "2-states": ["--latent", "discrete", "--classes", "2"],
    "2-states-80-20": ["--latent", "discrete", "--classes", "2"],
    "4-states": ["--latent", "discrete", "--classes", "4"],
}
"""Of the sets whose latent is not a line."""

LABELS = {
    "adversarial": "adversarial training",
    "refined": "adversarial, refined (refinement's time alone)",
    "unet": "adversarial, U-Net, a quarter of an epoch",
    "one map": "likelihood, one map",
}
ONE = "--likelihood.initialisations=1"
UNET_STAGES = "[{box_size: 32, images: 12800, padding: 3.0}]"


def command_of(
    route: str, star: Path, run: Path, name: str, seed: int, iterations: int | None
) -> list[str]:
    """The command line of a route."""
    if route == "refined":
        first = run.with_name(run.name.replace("refined", "adversarial"))
        return cryogan_command("refine", str(first), "-o", str(run))
    command = cryogan_command("reconstruct", str(star), "-o", str(run), "--seed", str(seed))
    if route == "one map":
        return [*command, ONE]
    command += ["--model", "heterogeneous"]
    if route == "likelihood":
        command += [ONE, *LATENTS.get(name, [])]
        return command + ([] if iterations is None else [f"--likelihood.iterations={iterations}"])
    command += ["--objective", "adversarial"]
    if route == "unet":
        unet = ["--adversarial.volume_model", "unet", "--adversarial.stages", UNET_STAGES]
        return [*command, *unet]
    return [*command, *LATENTS.get(name, [])]


def series_of(run: Path) -> Series:
    """The conformations of a run, or its one map."""
    if (run / "conformations").is_dir():
        return read_conformations(conformations_folder(run))
    map_ = read_map(run / "map.mrc")
    return numbered_series(map_.volume[None], map_.pixel_size_A, torch.ones(1), torch.zeros(1, 0))


def numbers_of(found: SeriesComparison) -> list[str]:
    """What the table says of a comparison."""
    rho = [value for row in found.monotonicity for value in row]
    return [
        f"{found.mean_resolution_A():.2f}",
        f"{float(found.state_resolution_A().max()):.2f}",
        f"{found.motion_resolution_A:.2f}",
        f"{found.coverage:.2f}",
        "" if found.span is None else f"{found.span:.2f}",
        " ".join("-" if value is None else f"{value:.3f}" for value in rho),
        " ".join(f"{value:.3f}" for value in found.wasserstein),
        f"{found.diversity.amplitude:.3f}",
        f"{found.true_diversity.amplitude:.3f}",
        f"{float(found.population_error.abs().max()):.1f}",
    ]


def plot(path: Path, rows: list[dict[str, str]]) -> None:
    """Resolution of the motion against CPU time, by route, a panel for every set."""
    moving = [row for row in rows if row["set"] != "homogeneous"]
    names = list(dict.fromkeys(row["set"] for row in moving))
    if not names:
        return
    routes = list(dict.fromkeys(row["route"] for row in moving))
    figure = Figure(figsize=(2.6 * len(names) + 1.2, 3.4), layout="constrained")
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        for number, route in enumerate(routes):
            mine = [row for row in moving if (row["set"], row["route"]) == (name, route)]
            if mine:
                axis.scatter(
                    [float(row["cpu_s"]) / 60 for row in mine],
                    [float(row["motion_fsc_0.5_A"]) for row in mine],
                    edgecolors=f"C{number}",
                    facecolors="none",
                    marker="osD^v"[number % 5],
                    s=(40, 60)[number % 2],
                    linewidths=1.5,
                    label=LABELS.get(route, route),
                )
        axis.set_title(name.replace("motion", "motion ").replace("-", " "))
        axis.set(xlabel="CPU minutes", xscale="log", yscale="log")
        axis.set(xlim=(2, 100), ylim=(9, 200))
        axis.set_xticks([2, 5, 10, 20, 50, 100], labels=["2", "5", "10", "20", "50", "100"])
        axis.axhline(10.0, color="0.5", lw=0.9, ls="--", zorder=0)
        axis.grid(alpha=0.3)
        axis.minorticks_off()
    axes[0, 0].set_yticks(
        [10, 20, 40, 80, 160], labels=["10 (Nyquist)", "20", "40", "80", "no motion"]
    )
    axes[0, 0].minorticks_off()
    axes[0, 0].set_ylabel("motion: FSC 0.5 (Å)")
    handles = {}
    for axis in axes[0]:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=len(handles))
    save_figure(path, figure, dpi=160)


def main() -> None:
    """Read the command line; wrong input is one sentence."""
    routes = ["likelihood", "adversarial", "refined", "unet", "one map"]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="SETS")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where run folders are kept")
    parser.add_argument("--sets", nargs="+", default=["motion1"])
    parser.add_argument("--routes", nargs="+", choices=routes, default=["likelihood"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--iterations", type=int, help="EM iterations at most (default: cryogan's)")
    options = parser.parse_args()
    table = options.output / "hsp90.csv"
    rows = read_rows(table)
    try:
        for seed in options.seeds:
            for name in options.sets:
                truth = read_true_conformations(options.data / name / "truth")
                star = options.data / name / "particles.star"
                for route in options.routes:
                    run = options.work / f"{name}_{route.replace(' ', '_')}_{seed}"
                    options.work.mkdir(exist_ok=True)
                    command = command_of(route, star, run, name, seed, options.iterations)
                    log = run.with_suffix(".log")
                    cost, _ = spend(command, Path.cwd(), log, ended=ENDED)
                    found = compare_series(series_of(run), truth)
                    values = [name, route, str(seed), f"{cost.cpu_s:.0f}", f"{cost.wall_s:.0f}"]
                    values += [f"{cost.memory_GB:.2f}", *numbers_of(found)]
                    row = dict(zip(COLUMNS, values, strict=True))
                    print(row, flush=True)
                    rows = replaced(rows, row, ("set", "route", "seed"))
                    write_rows(table, rows, COLUMNS)
                    plot(table.with_suffix(".png"), rows)
    except InputError as error:
        sys.exit(f"hsp90: {error}")


if __name__ == "__main__":
    main()
