"""`cryogan refine`: a run's half maps polished by maximum likelihood."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from torch import Tensor

from cryogan.cli.reading import (
    add_reading_options,
    chosen_rows,
    device_named,
    read_background,
    read_input,
)
from cryogan.errors import InputError
from cryogan.io.relion import ParticleFile
from cryogan.likelihood.config import AscentConfig
from cryogan.physics.noise import BackgroundPatches
from cryogan.refinement import check_refinable, half_components, refine
from cryogan.report.page import write_report
from cryogan.run_folder import open_run_folder
from cryogan.run_record import RunRecord, read_run, rows_digest


def make_parser() -> ArgumentParser:
    """The command's parser."""
    parser = ArgumentParser(
        description="Polish the half maps of a run by maximum likelihood over all poses, each with "
        "its own half of the particles; their FSC decides what is believed. Poor maps climb "
        "through coarse bands first, as random numbers do. Writes half maps, the map of all "
        "particles, FSC and a report; of conformations, a series of maps. The same command run "
        "again goes on where it was stopped."
    )
    parser.add_argument("run", type=str, help="folder of a finished cryogan reconstruct")
    parser.add_argument("-o", "--output", type=str, help="output folder (default: RUN/refine)")
    parser.add_argument(
        "--particles", type=str, help="particle file, if it is not where the run found it"
    )
    add_reading_options(parser)
    parser.add_argument("--sym", type=str, help="point group (default: that of the run)")
    parser.add_argument(
        "--model",
        type=Literal["homogeneous", "heterogeneous"],
        help="one structure, or conformations, which are then found by the likelihood if the run "
        "has none (default: as the run; kind and number: --ascent.latent, .classes, .basis)",
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1 ...")
    parser.add_argument("--ascent", type=AscentConfig, default=asdict(AscentConfig()))
    return parser


def run(options: Namespace) -> int:
    """Run the command."""
    source = Path(options.run)
    record = read_run(source)
    config = settings(options.ascent, record, options.sym)
    if options.model is not None:
        many = options.model == "heterogeneous"
        config = replace(config, generator="subspace" if many else "volume")
    device = device_named(options.device)
    file = particles_of(record, options)
    check_refinable(file.particles, config)
    maps, populations = half_components(source, file.particles, config)
    folder = source / "refine" if options.output is None else Path(options.output)
    about = {"from": str(source.resolve())} | description(file, options, record)
    open_run_folder(folder, about, config, record.seed, device)
    return refine_with_bar(
        file,
        folder,
        config,
        seed=record.seed,
        device=device,
        maps=maps,
        populations=populations,
        background=background_of(record, file),
    )


def background_of(record: RunRecord, file: ParticleFile) -> BackgroundPatches | None:
    """The noise patches that the run was made with, read again."""
    return None if record.noise_patches is None else read_background(record.noise_patches, file)


def settings(ascent: AscentConfig, record: RunRecord, symmetry: str | None) -> AscentConfig:
    """The run's assumptions, and the symmetry if one is asked for.

    Raises:
        InputError: another kind of latent than that of the run's conformations.
    """
    config = with_assumptions(ascent, record.config)
    kind = record.config.get("latent")
    if record.config.get("generator", "volume") != "volume" and config.latent != kind:
        raise InputError(
            f"The run's conformations are of a latent '{kind}', not '{config.latent}', whose "
            "functions are others; leave --ascent.latent as the run had it."
        )
    return config if symmetry is None else replace(config, symmetry=symmetry)


def with_assumptions(ascent: AscentConfig, config: dict[str, Any]) -> AscentConfig:
    """What a run's settings assume of mask, shifts and symmetry, where `ascent` has defaults."""
    default = AscentConfig()
    names = [
        *("symmetry", "shift_percent", "mask_radius", "mask_edge", "limit_A"),
        *("generator", "latent", "classes", "basis", "nodes"),
    ]
    inherited = {
        name: config[name]
        for name in names
        if name in config and getattr(ascent, name) == getattr(default, name)
    }
    if inherited.get("generator") == "unet":
        inherited["generator"] = "subspace"
    return replace(ascent, **inherited)


def particles_of(record: RunRecord, options: Namespace) -> ParticleFile:
    """The particles of a run, read again.

    Raises:
        InputError: they are not those of the run.
    """
    file = read_input(record.star if options.particles is None else options.particles, options)
    if len(file.particles) != record.count:
        raise InputError(
            f"The run was made from {record.count} particles but {len(file.particles)} were read; "
            "give the same --particles and --ind as then."
        )
    if rows_digest(chosen_rows(options)) != record.rows:
        raise InputError(
            "The run was made from other rows of the particle file; give the same --ind as then."
        )
    return file


def description(file: ParticleFile, options: Namespace, record: RunRecord) -> dict[str, Any]:
    """What `config.json` says about the particles."""
    star = record.star if options.particles is None else Path(options.particles)
    return {
        "star": str(star.resolve()),
        "index": options.ind,
        "rows": record.rows,
        "noise_patches": None if record.noise_patches is None else str(record.noise_patches),
        "summary": file.summary,
        "count": len(file.particles),
        "box_size": file.particles.box_size,
        "pixel_size_A": file.particles.pixel_size_A,
    }


def refine_with_bar(
    file: ParticleFile,
    folder: Path,
    config: AscentConfig,
    *,
    seed: int,
    device: str,
    maps: Tensor | None = None,
    populations: Tensor | None = None,
    background: BackgroundPatches | None = None,
) -> int:
    """`refine` with a line of numbers that matter after every step, and the report."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(file.summary)
    bar = Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with bar:
        task = bar.add_task("measuring spectra")

        def show(record: dict[str, Any]) -> None:
            if record["phase"] == "meet":
                text = f"halves agree to {record['half_map_0.5_A']:.1f} Å (FSC 0.5) after the climb"
                bar.console.print(text)
            elif record["phase"] != "refine":
                text = (
                    f"{record['phase']}, {record['rings']} rings, log-likelihood "
                    f"{record['evidence']:.1f}"
                )
                for number, starts in enumerate(record.get("starts", []), start=1):
                    explained = ", ".join(f"{each:.2f}" for each in sorted(starts, reverse=True))
                    bar.console.print(
                        f"half {number}: starts explain {explained} nats in "
                        f"{record['rings']} rings; the first goes on"
                    )
            else:
                text = (
                    f"pass {record['pass']}: {record['images']} images, {record['rings']} rings, "
                    f"log-likelihood {record['evidence']:.1f}, half-map FSC 0.143 at "
                    f"{record['half_map_0.143_A']:.2f} Å"
                )
                bar.console.print(text)
            bar.update(task, description=text)

        resolution = refine(
            file.particles,
            folder,
            config,
            seed=seed,
            device=device,
            maps=maps,
            populations=populations,
            background=background,
            show=show,
        )
    console.print(
        f"half-map FSC 0.143: {resolution['half_map_0.143']:.2f} Å unmasked, "
        f"{resolution['half_map_0.143_masked']:.2f} Å masked\n"
        f"map:    {folder / 'map.mrc'}\nreport: {write_report(folder)}"
    )
    if config.components > 1:
        console.print(f"conformations: {folder / 'conformations'}")
    return 0
