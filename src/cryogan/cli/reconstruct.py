"""`cryogan reconstruct`: particle images in, maps and a report out."""

import argparse
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from cryogan.cli.reading import (
    add_reading_options,
    chosen_rows,
    device_named,
    read_background,
    read_input,
)
from cryogan.cli.refine import refine_with_bar, with_assumptions
from cryogan.errors import InputError
from cryogan.io.relion import ParticleFile
from cryogan.likelihood.config import AscentConfig
from cryogan.physics.noise import BackgroundPatches
from cryogan.reconstruction import Reconstruction, check_count, reconstruct
from cryogan.refinement import check_refinable
from cryogan.report.page import write_report
from cryogan.run_folder import open_run_folder
from cryogan.run_record import rows_digest
from cryogan.symmetry import symmetry_matrices
from cryogan.training.config import HETEROGENEOUS_PRESETS, PRESETS, TrainingConfig
from cryogan.training.forecast import check_memory
from cryogan.training.team import Launch, Place


def make_parser(arguments: list[str]) -> ArgumentParser:
    """The command's parser; `arguments` decide model and preset, whose values become defaults.

    Raises:
        InputError: `--config` names a file that cannot be read.
    """
    model, preset = _model_and_preset(arguments)
    presets = HETEROGENEOUS_PRESETS if model == "heterogeneous" else PRESETS
    parser = ArgumentParser(
        description="Reconstruct two half-maps and their mean from particle images. The same "
        "command run again resumes an interrupted run."
    )
    parser.add_argument("particles", type=str, help="RELION .star file (3.0, 3.1 or later)")
    parser.add_argument("-o", "--output", type=str, required=True, help="run folder")
    parser.add_argument(
        "--model",
        choices=["homogeneous", "heterogeneous"],
        default="homogeneous",
        help="one structure, or a continuum of conformations (classes: --training.latent discrete)",
    )
    parser.add_argument(
        "--preset",
        choices=list(PRESETS),
        default="default",
        help="'paper' is the published recipe (Gupta et al. 2021; 2020 for conformations)",
    )
    parser.add_argument(
        "--sym", type=str, help="point group (C4, D2, T, O, I ...); short for --training.symmetry"
    )
    add_reading_options(parser)
    parser.add_argument(
        "--noise-patches",
        type=str,
        help="stack of particle-free background patches, same box, pixel size and contrast as "
        "the particles, used as noise (by --objective likelihood: for its spectrum)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1 ...")
    parser.add_argument("--config", action="config", help="YAML file with any of these options")
    parser.add_argument(
        "--training",
        type=TrainingConfig,
        default=asdict(presets.get(preset, presets["default"])),
    )
    parser.add_argument(
        "--objective",
        choices=["adversarial", "likelihood"],
        default="adversarial",
        help="match the distribution of images with a critic, or maximise their likelihood over "
        "all poses (settings: --ascent)",
    )
    parser.add_argument("--ascent", type=AscentConfig, default=asdict(AscentConfig()))
    return parser


class _InOrder(argparse.Action):
    """Options as (name, value) in the order in which they were given, in `namespace.given`."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        namespace.given = [*getattr(namespace, "given", []), (self.dest, values)]


def _model_and_preset(arguments: list[str]) -> tuple[str, str]:
    """What options and configuration files say; as for all options, the last one counts."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("model", "preset", "config"):
        early.add_argument(f"--{name}", action=_InOrder)
    mine = arguments if arguments[:1] == ["reconstruct"] else []
    given = getattr(early.parse_known_args(mine)[0], "given", [])
    chosen = {"model": "homogeneous", "preset": "default"}
    for name, value in given:
        found = _read_yaml(Path(value)) if name == "config" else {name: value}
        chosen |= {key: found[key] for key in chosen if isinstance(found.get(key), str)}
    return chosen["model"], chosen["preset"]


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(
            f"Cannot read {path} ({reason}); give a YAML file with options of this command."
        ) from error
    return found if isinstance(found, dict) else {}


def run(options: Namespace) -> int:
    """Run the command: 0, or 130 if it was interrupted."""
    config = options.training
    if options.sym is not None:
        config = replace(config, symmetry=options.sym)
    if options.model == "heterogeneous" and config.generator == "volume":
        raise InputError(
            "--model heterogeneous learns conformations and generator 'volume' one structure; give "
            "--training.generator subspace, or leave out --model."
        )
    launch = Launch.from_environment()
    if launch is not None and launch.rank > 0:
        return _assist(options, config, launch)
    symmetry_matrices(config.symmetry)  # an unknown name is an InputError
    device = device_named(options.device)
    if launch is not None:
        launch.check(config.batch_size, device)
    file, background = _read_input(options)
    if options.objective == "adversarial":
        check_count(file.particles, config)
    folder = Path(options.output)
    about = {
        "star": str(Path(options.particles).resolve()),
        "index": options.ind,
        "rows": rows_digest(chosen_rows(options)),
        "noise_patches": None
        if options.noise_patches is None
        else str(Path(options.noise_patches).resolve()),
        "summary": file.summary,
        "count": len(file.particles),
        "box_size": file.particles.box_size,
        "pixel_size_A": file.particles.pixel_size_A,
    }
    if options.objective == "likelihood":
        if launch is not None:
            raise InputError(
                "--objective likelihood runs in one process; start it without torchrun."
            )
        ascent = with_assumptions(options.ascent, asdict(config))
        check_refinable(file.particles, ascent)
        open_run_folder(folder, about, ascent, options.seed, device)
        return refine_with_bar(
            file, folder, ascent, seed=options.seed, device=device, background=background
        )
    check_memory(file.particles, config, device, launch)
    open_run_folder(folder, about, config, options.seed, device)
    console = Console(highlight=False, soft_wrap=True)
    console.print(file.summary)
    with nullcontext() if launch is None else launch.joined(device) as place:
        result = reconstruct_with_bar(
            console,
            file,
            folder,
            config,
            seed=options.seed,
            device=device,
            background=background,
            place=place,
        )
    if not result.finished:
        console.print(f"Interrupted; run the same command again to resume {folder}.")
        return 130
    console.print(
        f"half-map FSC 0.143: {result.resolution_A['half_map_0.143']:.2f} Å unmasked, "
        f"{result.resolution_A['half_map_0.143_masked']:.2f} Å masked\n"
        f"map:    {folder / 'map.mrc'}\nreport: {write_report(folder)}"
    )
    if config.generator != "volume":
        console.print(f"conformations: {folder / 'conformations'}")
    return 0


def _assist(options: Namespace, config: TrainingConfig, launch: Launch) -> int:
    """What all but the first of torchrun's processes do, once that one has found no fault."""
    device = device_named(options.device)
    with launch.joined(device) as place:
        file, background = _read_input(options)
        result = reconstruct(
            file.particles,
            Path(options.output),
            config,
            seed=options.seed,
            device=device,
            background=background,
            place=place,
        )
    return 0 if result.finished else 130


def _read_input(options: Namespace) -> tuple[ParticleFile, BackgroundPatches | None]:
    file = read_input(options.particles, options)
    if options.noise_patches is None:
        return file, None
    return file, read_background(Path(options.noise_patches), file)


def reconstruct_with_bar(
    console: Console,
    file: ParticleFile,
    folder: Path,
    config: TrainingConfig,
    *,
    seed: int,
    device: str,
    background: BackgroundPatches | None = None,
    place: Place | None = None,
) -> Reconstruction:
    """`reconstruct` under a live progress bar: distance, images/s, time left."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TextColumn("{task.fields[numbers]}"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        console=console,
    )
    with bar:
        task = bar.add_task("two half-sets", total=1.0, numbers="reading images")

        def show(records: list[dict[str, Any]]) -> None:
            if records:
                distance = " ".join(f"{record['distance']:.3f}" for record in records)
                speed = sum(record["images_per_s"] for record in records)
                bar.update(
                    task,
                    completed=sum(record["fraction"] for record in records) / 2,
                    numbers=f"{records[0]['box_size']} px, distance {distance}, "
                    f"{speed:.0f} images/s",
                )

        return reconstruct(
            file.particles,
            folder,
            config,
            seed=seed,
            device=device,
            background=background,
            place=place,
            show=show,
        )
