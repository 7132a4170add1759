"""`cryogan simulate`: data sets with a known answer."""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, fields
from typing import Any

from cryogan.cli.parser import CommandParser, plain
from cryogan.cli.printing import add_quiet, progress_console
from cryogan.errors import InputError
from cryogan.run.threads import asked_threads, available_cores
from cryogan.simulation.description import is_description, recipe_names
from cryogan.simulation.plan import Plan, describe, plan
from cryogan.simulation.settings import SimulationSettings

_MATTER = (
    *("--output", "--box_size", "--pixel_size_A", "--images", "--molecule.resolution_A"),
    *("--noise.snr_dB", "--condition", "--scale", "--datadir", "--seed"),
)


def make_parser(defaults: SimulationSettings | None = None) -> CommandParser:
    """The command's parser; `defaults` are the settings of a recipe."""
    parser = CommandParser(
        "simulate",
        "Simulate particle images of a molecule whose structure is known: particles.star and "
        ".mrcs, the truth apart in truth/, and simulation.yaml, from which the same command makes "
        "the same bits again.",
        "cryogan simulate molecule.cif -o set --box_size 64 --pixel_size_A 4 --images 2000",
        _MATTER,
    )
    add = parser.add_argument
    add(
        "source",
        nargs="+",
        type=str,
        help="atomic models, maps, a folder of maps, phantom or phantom:D2; or a recipe "
        f"({', '.join(recipe_names())}), or a YAML file such as simulation.yaml",
    )
    add("-o", "--output", type=str, help="folder to write to")
    add("--condition", type=str, help="one of a recipe's conditions (default: the first)")
    add("--scale", type=float, help="multiply a recipe's box and number of images by this (< 1)")
    add(
        "--datadir",
        type=str,
        action="append",
        help="folder in which, or in whose folders, the files named are; may be repeated; the "
        "environment variable CRYOGAN_DATA names one more",
    )
    add(
        "--workers",
        type=int,
        help="threads; the bits stay the same (default: OMP_NUM_THREADS, or all cores there are)",
    )
    add_quiet(parser)
    parser.add_class_arguments(SimulationSettings)
    if defaults is not None:
        parser.set_defaults(asdict(defaults))
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the command: 0, also where the set is there already."""
    words = _joined(arguments)
    options = make_parser(_recipe_among(words)).given(words)
    if options.get("output") is None:
        raise InputError("cryogan simulate needs an output folder; give it with -o.")
    workers = options.get("workers", asked_threads() or available_cores())
    if workers < 1:
        raise InputError(f"--workers is {workers}; give 1 or more.")
    names = [item.name for item in fields(SimulationSettings)]
    changes = {name: plain(options[name]) for name in names if name in options}
    chosen: dict[str, Any] = {name: options.get(name) for name in ("condition", "scale")}
    datadirs = [*(options.get("datadir") or []), *filter(None, [os.environ.get("CRYOGAN_DATA")])]
    made = plan(options.source, options.output, **chosen, datadirs=datadirs, changes=changes)

    from cryogan.cli.display import bar

    out = progress_console(options)
    if made.is_made:
        out.print(f"{made.folder} holds this data set already.")
        return 0

    import cryogan

    shows: list[Callable[[str, float | None], None]] = []
    results: list[Any] = []
    with ExitStack() as stack:

        def started(prepared: Any) -> None:
            out.print(_summary(made, len(prepared.conformations)))
            shows.append(stack.enter_context(bar(out, "simulation")))

        cryogan.simulate(
            options.source,
            made.folder,
            **chosen,
            datadir=datadirs,
            workers=workers,
            show=lambda what, fraction: shows[0](what, fraction),
            started=started,
            finished=results.append,
            **changes,
        )
    (measured,) = results
    if measured is not None and measured.snr_dB is not None:
        out.print(
            f"measured: {measured.snr_dB:.3f} dB, rms of images {measured.clean_rms:.4g}, of "
            f"noise {measured.noise_rms:.4g}"
        )
    out.print(f"particles: {made.folder / 'particles.star'}\ntruth:     {made.folder / 'truth'}")
    return 0


def _joined(arguments: Sequence[str]) -> list[str]:
    """`--condition -20dB` as one word: its value may look like an option."""
    words: list[str] = []
    for word in arguments:
        if words and words[-1] == "--condition":
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def _recipe_among(words: Sequence[str]) -> SimulationSettings | None:
    """The settings of the recipe that the words name, whose values the help shows."""
    recipe = next(filter(is_description, words), None)
    if recipe is None or not {"-h", "--help", "--help-all"} & set(words):
        return None
    given = [word.partition("=")[2] for word in words if word.startswith("--condition=")]
    return describe(recipe, given[-1] if given else None)[1]


def _summary(made: Plan, conformations: int) -> str:
    description, settings, noise = made.description, made.settings, made.settings.noise
    condition = "" if description.condition is None else f", {description.condition}"
    scale = "" if description.scale is None else f", scaled by {description.scale:g}"
    lines = [
        f"{description.title}{condition}{scale}",
        f"{settings.images:,} images of {settings.box_size} px, {settings.pixel_size_A:.4g} Å/px",
        f"{conformations} conformation{'s' * (conformations > 1)}, {settings.orientations.kind} "
        f"orientations, shifts {settings.shifts.kind}, CTF {settings.ctf.kind}",
        "no noise"
        if noise.kind == "none"
        else f"{noise.kind} noise, {noise.snr_dB:g} dB at "
        f"{noise.reference_box_size(settings.box_size)} px",
    ]
    flaws = _flaws(settings)
    if flaws:
        lines.append(", ".join(flaws))
    return "\n".join(lines)


def _flaws(settings: SimulationSettings) -> list[str]:
    """What makes the set less than ideal, in words."""
    shifts, ctf, of = settings.shifts, settings.ctf, settings.particles_per_micrograph
    found = {
        f"contrast ± {settings.contrast.spread:.3g}": settings.contrast.spread,
        f"noise level ± {settings.noise.spread:.3g}": settings.noise.spread,
        f"{settings.junk.share:.3g} junk": settings.junk.share,
        f"{shifts.picking_share:.3g} picked badly": shifts.picking_share,
        f"{ctf.wrong_share:.3g} with a wrong defocus": ctf.wrong_share,
        f"micrographs of {of} particles": of,
    }
    return [words for words, present in found.items() if present]
