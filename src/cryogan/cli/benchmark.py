"""`cryogan benchmark`: the published tables made anew, ours beside the published numbers."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from cryogan.benchmark.experiments import EXPERIMENTS, OBJECTIVES
from cryogan.benchmark.making import Benchmark, make_table
from cryogan.cli.options import check_seed
from cryogan.cli.parser import CommandParser, plain
from cryogan.cli.reconstruct import add_settings, checked_settings
from cryogan.errors import InputError, RunError
from cryogan.objectives.assumptions import GivenAssumptions

_MATTER = (
    *("--output", "--condition", "--objective", "--scale", "--images", "--sym", "--seeds"),
    "--datadir",
)


def make_parser() -> CommandParser:
    """The command's parser."""
    parser = CommandParser(
        "benchmark",
        "Make a published table anew: simulate its sets, reconstruct both half-sets of each, "
        "compare with the truth and write the table (Markdown, CSV, JSON) with the published "
        "numbers beside ours, and pictures. The same command goes on where it stopped; cells that "
        "are done are not done again, and more conditions, objectives or seeds add cells.",
        "cryogan benchmark table1 -o table1 --scale 0.3334 --condition -20dB --datadir DATA",
        _MATTER,
    )
    add = parser.add_argument
    add("table", choices=list(EXPERIMENTS), help="; ".join(_titles()))
    add("-o", "--output", type=str, help="folder to write to")
    add(
        "--condition",
        type=str,
        action="append",
        help="of the table's recipe; may be repeated (default: all of Tables I and II, motion1 and "
        "2-states of hsp90)",
    )
    add(
        "--objective",
        nargs="+",
        choices=list(OBJECTIVES),
        help="adversarial, likelihood, both (default), or combined: adversarial, then refined by "
        "the likelihood; a bound by true poses is always there",
    )
    add("--scale", type=float, help="multiply box and number of images by this (default: 1)")
    add("--images", type=int, metavar="N", help="number of images in its place")
    add("--sym", nargs="+", type=str, help="symmetries that are imposed (default: as published)")
    add("--seeds", nargs="+", type=int, help="of the runs, not of the sets (default: 0)")
    add(
        "--datadir",
        type=str,
        action="append",
        help="folder in which, or in whose folders, the files of the recipes are; may be repeated; "
        "the environment variable CRYOGAN_DATA names one more",
    )
    add_settings(parser)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the command: 0, or 5 if cells have failed."""
    options = make_parser().given(_joined(arguments))
    if options.get("output") is None:
        raise InputError("cryogan benchmark needs an output folder; give it with -o.")
    benchmark = _benchmark(options)

    from cryogan.cli.display import bar, console

    out = console()
    with bar(out, "cells") as update:
        failed = make_table(benchmark, lambda what, part: update(what, part), out.print)
    from cryogan.benchmark.pictures import draw_pictures

    draw_pictures(benchmark.folder, benchmark.experiment, benchmark.datadirs)
    page = benchmark.folder / f"{benchmark.experiment.name}.md"
    out.print(page.read_text(), markup=False)
    if failed:
        raise RunError(
            f"{len(failed)} of {len(benchmark.cells)} cells failed, the first "
            f"({next(iter(failed)).name}): {next(iter(failed.values()))}"
        )
    return 0


def _benchmark(options: Namespace) -> Benchmark:
    """What the options say.

    Raises:
        InputError: one of them cannot be.
    """
    experiment = EXPERIMENTS[options.table]
    symmetries = list(options.get("sym") or [])
    for symmetry in symmetries:
        if GivenAssumptions(symmetry).finds_symmetry:
            raise InputError("Runs of a table have a symmetry that is known; give a point group.")
        GivenAssumptions(symmetry).resolve(1.0)
    seeds = list(options.get("seeds") or [0])
    for seed in seeds:
        check_seed("--seeds", seed)
    if options.get("images") is not None and options.images < 1:
        raise InputError(f"--images is {options.images}; give 1 or more.")
    cells = experiment.cells(
        options.get("condition") or [], options.get("objective") or ["both"], symmetries, seeds
    )
    settings: dict[str, dict[str, Any]] = {}
    for objective in ("adversarial", "likelihood"):
        given = dict(plain(options.get(objective)) or {})
        if given:
            heterogeneous = experiment.has_conformations
            checked_settings(objective, given, heterogeneous=heterogeneous)
            settings[objective] = given
    datadirs = [*(options.get("datadir") or []), *filter(None, [os.environ.get("CRYOGAN_DATA")])]
    return Benchmark(
        experiment,
        Path(options.output),
        cells,
        options.get("scale"),
        options.get("images"),
        datadirs,
        settings,
    )


def _titles() -> list[str]:
    return [f"{name}: {each.title}" for name, each in EXPERIMENTS.items()]


def _joined(arguments: Sequence[str]) -> list[str]:
    """`--condition -20dB -5.2dB` as words of their own: values may look like options."""
    words: list[str] = []
    inside = False
    for word in arguments:
        if word == "--condition":
            inside = True
        elif inside and not word.startswith("--") and word != "-o":
            words.append(f"--condition={word}")
        else:
            inside = False
            words.append(word)
    return words
