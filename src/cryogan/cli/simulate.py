"""`cryogan simulate`: data sets with a known answer."""

import os
from dataclasses import asdict, fields, replace
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from cryogan.errors import InputError
from cryogan.simulation.dataset import (
    Measured,
    Prepared,
    check_folder,
    prepare,
    write_dataset,
)
from cryogan.simulation.description import (
    Description,
    is_description,
    is_same,
    locate,
    read_description,
    recipe_names,
    settings_of,
    write_description,
)
from cryogan.simulation.settings import SimulationSettings


def make_parser(arguments: list[str]) -> ArgumentParser:
    """The command's parser; a recipe among `arguments` decides the defaults.

    Raises:
        InputError: the recipe cannot be read, or has no such condition.
    """
    parser = ArgumentParser(
        description="Simulate particle images of a molecule whose structure is known: "
        "particles.star and .mrcs, the truth apart in truth/, and simulation.yaml, from which "
        "the same command makes the same bits again.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "source",
        nargs="+",
        type=str,
        help="atomic models, maps, a folder of maps, phantom or phantom:D2; or a recipe "
        f"({', '.join(recipe_names())}), or a YAML file such as simulation.yaml",
    )
    parser.add_argument("-o", "--output", type=str, required=True, help="folder to write to")
    parser.add_argument("--condition", type=str, help="one of a recipe's conditions")
    parser.add_argument(
        "--scale", type=float, help="multiply a recipe's box and number of images by this (< 1)"
    )
    parser.add_argument(
        "--datadir",
        type=str,
        action="append",
        help="folder in which, or in whose folders, the files named are; may be repeated; the "
        "environment variable CRYOGAN_DATA names one more",
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="threads; the bits stay the same"
    )
    parser.add_class_arguments(SimulationSettings)
    if arguments[:1] == ["simulate"]:
        _, settings = _described(*_early(arguments[1:]))
        parser.set_defaults(asdict(settings))
    return parser


def glued(arguments: list[str]) -> list[str]:
    """`--condition -20dB` as one word: its value may look like an option."""
    result: list[str] = []
    for word in arguments:
        if result and result[-1] == "--condition":
            result[-1] += f"={word}"
        else:
            result.append(word)
    return result


def run(options: Namespace) -> int:
    """Run the command: 0, also where the set is there already."""
    if options.workers < 1:
        raise InputError(f"--workers is {options.workers}; give 1 or more.")
    description, _ = _described(options.source, options.condition, options.scale)
    settings = SimulationSettings(
        **{item.name: options[item.name] for item in fields(SimulationSettings)}
    )
    settings.check()
    datadirs = [*(options.datadir or []), *filter(None, [os.environ.get("CRYOGAN_DATA")])]
    located, inputs = locate(settings, description, map(Path, datadirs))
    folder = Path(options.output)
    record = folder / "simulation.yaml"
    console = Console(highlight=False, soft_wrap=True)
    if _is_there(folder, record, settings, inputs):
        console.print(f"{folder} holds this data set already.")
        return 0
    prepared = prepare(located)
    check_folder(prepared, folder)
    console.print(_summary(description, prepared))
    write_description(record, description, settings, inputs)
    measured = _write_with_bar(console, prepared, folder, options.workers)
    write_description(record, description, settings, inputs, asdict(measured))
    if measured.snr_dB is not None:
        console.print(
            f"measured: {measured.snr_dB:.3f} dB, rms of images {measured.clean_rms:.4g}, of "
            f"noise {measured.noise_rms:.4g}"
        )
    console.print(f"particles: {folder / 'particles.star'}\ntruth:     {folder / 'truth'}")
    return 0


def _is_there(
    folder: Path, record: Path, settings: SimulationSettings, inputs: dict[str, dict[str, str]]
) -> bool:
    """Whether the folder holds this very set; never let it overwrite another."""
    if record.is_file():
        if not is_same(record, settings, inputs):
            raise InputError(
                f"{folder} holds another simulated set, or a part of one; choose another folder "
                "or remove it."
            )
        return all((folder / name).is_file() for name in ("particles.star", "particles.mrcs"))
    for name in ("particles.star", "particles.mrcs", "background.mrcs", "truth/*"):
        if any(folder.glob(name)):
            raise InputError(
                f"{folder} holds {name} that is not of a simulated set; choose another folder."
            )
    return False


def _summary(description: Description, prepared: Prepared) -> str:
    settings, made = prepared.settings, prepared.conformations
    condition = "" if description.condition is None else f", {description.condition}"
    scale = "" if description.scale is None else f", scaled by {description.scale:g}"
    noise = settings.noise
    stated = noise.snr_box_size or settings.box_size
    lines = [
        f"{description.title}{condition}{scale}",
        f"{settings.images:,} images of {settings.box_size} px, {settings.pixel_size_A:.4g} Å/px",
        f"{len(made)} conformation{'s' * (len(made) > 1)}, {settings.orientations.kind} "
        f"orientations, shifts {settings.shifts.kind}, CTF {settings.ctf.kind}",
        "no noise"
        if noise.kind == "none"
        else f"{noise.kind} noise, {noise.snr_dB:g} dB at {stated} px",
    ]
    return "\n".join(lines)


def _write_with_bar(console: Console, prepared: Prepared, folder: Path, workers: int) -> Measured:
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        console=console,
    )
    with bar:
        task = bar.add_task("images", total=1.0)

        def show(what: str, fraction: float) -> None:
            bar.update(task, description=what, completed=fraction)

        return write_dataset(prepared, folder, workers=workers, show=show)


def _early(arguments: list[str]) -> tuple[list[str], str | None, float | None]:
    """Sources, condition and scale, before the parser whose defaults they decide exists."""
    sources: list[str] = []
    found: dict[str, str] = {}
    waiting = ""  # option whose value comes next
    for word in arguments:
        if word.startswith("-") and not _is_number(word):
            name, equals, value = word.partition("=")
            if equals:
                found[name] = value
            waiting = "" if equals or (name.startswith("-o") and name != "-o") else name
        elif waiting:
            found[waiting], waiting = word, ""
        else:
            sources.append(word)
    return sources, found.get("--condition"), _number(found.get("--scale"))


def _is_number(word: str) -> bool:
    """Whether a word that begins with - is a negative number and no option."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        raise InputError(f"--scale is '{text}'; give a number above 0 and up to 1.") from None


def _described(
    sources: list[str], condition: str | None, scale: float | None
) -> tuple[Description, SimulationSettings]:
    """The description that sources name or make, and its settings, scaled."""
    if len(sources) == 1 and is_description(sources[0]):
        description = read_description(sources[0], condition)
        settings = settings_of(description)
        if scale is None:
            return description, settings
        total = scale * (description.scale or 1.0)
        return replace(description, scale=total), settings.scaled(scale)
    if any(map(is_description, sources)):
        raise InputError(
            f"A recipe stands alone, but the sources are {' '.join(sources)}; give one recipe, or "
            "models or maps only."
        )
    if condition is not None or scale is not None:
        raise InputError("--condition and --scale are for recipes; give one, or leave them out.")
    settings = SimulationSettings()
    molecule = replace(settings.molecule, sources=tuple(sources))
    return Description(title=" ".join(sources)), replace(settings, molecule=molecule)
