"""`cryogan assign`: poses for particles, to be carried on to RELION or cryoSPARC."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from cryogan.cli.reading import add_reading_options, chosen_rows, device_named, read_input
from cryogan.cli.refine import background_of, settings
from cryogan.errors import InputError
from cryogan.handover import assign_particles, critic_scores
from cryogan.io.cryosparc import write_particles
from cryogan.io.relion import write_assigned
from cryogan.likelihood.config import AscentConfig
from cryogan.run_record import read_run, rows_digest
from cryogan.symmetry import symmetry_matrices


def make_parser() -> ArgumentParser:
    """The command's parser."""
    parser = ArgumentParser(
        description="Find where every particle was seen from, given the maps of a run, and how "
        "sure that is. Writes a RELION star file with all columns of the source and a cryoSPARC "
        ".cs file beside it. Particles of the run are judged by the map of their own half, and the "
        "halves are written as rlnRandomSubset; others by the map of all. If the run has critics, "
        "their scores are written too."
    )
    parser.add_argument("particles", type=str, help="RELION .star file (3.0, 3.1 or later)")
    parser.add_argument("run", type=str, help="folder of cryogan reconstruct or refine")
    parser.add_argument("-o", "--output", type=str, required=True, help="star file to write")
    add_reading_options(parser)
    parser.add_argument("--sym", type=str, help="point group (default: that of the run)")
    parser.add_argument(
        "--shift-percent", type=float, help="largest shift in percent of the box (default: run's)"
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1 ...")
    return parser


def run(options: Namespace) -> int:
    """Run the command."""
    folder, output = Path(options.run), Path(options.output)
    if not output.parent.is_dir():
        raise InputError(f"Cannot write {output}: its folder does not exist; make it.")
    record = read_run(folder)
    config = settings(AscentConfig(), record, options.sym)
    if options.shift_percent is not None:
        config = replace(config, shift_percent=options.shift_percent)
    symmetry_matrices(config.symmetry)  # an unknown name is an InputError
    device = device_named(options.device)
    file = read_input(options.particles, options)
    rows = chosen_rows(options)
    same = (
        Path(options.particles).resolve() == record.star.resolve()
        and len(file.particles) == record.count
        and rows_digest(rows) == record.rows
    )
    console = Console(highlight=False, soft_wrap=True)
    console.print(file.summary)
    console.print(
        "each particle against the map of its own half"
        if same
        else "not the particles of the run: all against map.mrc"
    )
    background = background_of(record, file)
    scores = critic_scores(
        file.particles, folder, record, same=same, device=device, background=background
    )
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(f"{len(file.particles):,} particles", total=1.0)
        found = assign_particles(
            file.particles,
            folder,
            record,
            config,
            same=same,
            device=device,
            background=background,
            show=lambda fraction: bar.update(task, completed=fraction),
        )
    assigned = found.assignment
    write_assigned(
        output,
        options.particles,
        assigned.pose,
        symmetry=config.symmetry,
        rows=rows,
        half=found.half,
        class_number=found.class_number,
        log_likelihood=assigned.log_likelihood,
        columns={
            "cryoganAngleSpread": assigned.spread_deg,
            "cryoganShiftSpreadAngst": assigned.shift_spread_A,
            "cryoganPeakProbability": assigned.peak,
        }
        | found.latent_columns
        | ({} if scores is None else {"cryoganCriticScore": scores}),
        datadir=options.datadir,
        strip_prefix=options.strip_prefix,
        pixel_size_A=options.apix,
    )
    written = [output]
    if found.half is not None:
        written.append(output.with_suffix(".cs"))
        write_particles(
            written[-1],
            file.particles,
            assigned.pose,
            half=found.half,
            class_number=found.class_number,
            class_posterior=found.latent_columns.get("cryoganClassProbability"),
        )
    spread = np.quantile(assigned.spread_deg.numpy(), [0.1, 0.5, 0.9])
    console.print(
        f"spread of angles: median {spread[1]:.1f}°, 10 % to 90 % {spread[0]:.1f}° to "
        f"{spread[2]:.1f}°\nwritten: {', '.join(map(str, written))}"
    )
    return 0
