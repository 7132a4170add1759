"""`cryogan reconstruct`: particle images in, maps and a report out."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any, get_args

from jsonargparse import Namespace

from cryogan.cli import exit_codes
from cryogan.cli.options import (
    add_assumptions,
    add_reading_options,
    assumptions_of,
    read_particles,
    require_device,
    require_file,
    require_objective,
    require_seed,
)
from cryogan.cli.parser import CommandParser, plain
from cryogan.cli.printing import add_printing, progress_console
from cryogan.errors import InputError
from cryogan.io.yaml_files import read_yaml
from cryogan.objectives.adversarial.config import PRESETS, AdversarialConfig, Stage, preset
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.registry import DEFAULT_OBJECTIVE, NOISE_MODELS
from cryogan.run.chosen_objective import objective_of_folder, objective_or_default, require_use

_OF_ASSIGN = ("ind", "first", "device")
"""Options that `assign` is given too after a run; it takes the others from the run."""

_MATTER = (
    *("--output", "--objective", "--sym", "--diameter", "--max-shift", "--model", "--latent"),
    *("--resolution", "--datadir", "--noise-patches", "--seed", "--device", "--quiet", "--json"),
)


def make_parser(chosen: str = "default", heterogeneous: bool = False) -> CommandParser:
    """The command's parser, with the settings of a preset as defaults."""
    parser = CommandParser(
        "reconstruct",
        "Reconstruct two half-maps and the map of all particles from images of unknown pose. The "
        f"same command run again resumes an interrupted run. {exit_codes.HELP}",
        "cryogan reconstruct particles.star -o run --sym D2",
        _MATTER,
    )
    add = parser.add_argument
    add("particles", type=str, help="RELION .star or cryoSPARC .cs file, or stack")
    add("-o", "--output", type=str, help="run folder")
    add(
        "--objective",
        type=str,
        metavar="NAME",
        help="likelihood (default): maximise it over all poses; adversarial: match the "
        "distribution of images with a critic; or module:Class",
    )
    parser.set_defaults(objective=DEFAULT_OBJECTIVE)
    add(
        "--settings",
        type=dict,
        metavar="{NAME: VALUE}",
        help="settings of an objective of your own, in braces, in quotes",
    )
    add_assumptions(parser, "")
    add(
        "--view-sigma",
        type=float,
        help="σ of the viewing directions that adversarial training assumes (default: 1, uniform)",
    )
    add("--box", type=int, help="Fourier-crop the particles to this box first")
    add(
        "--resolution",
        type=float,
        metavar="Å",
        help="... or to the box whose Nyquist limit is this",
    )
    add_reading_options(parser)
    add(
        "--noise-patches",
        type=str,
        metavar="FILE",
        help="stack of particle-free patches of the same box, pixel size and contrast, used as "
        "noise (default: the noise spectrum is measured on the particles)",
    )
    add("--noise", type=str, help="noise model instead: white, or module:function")
    add("--seed", type=int, help="of the half-sets and of everything random (default: 0)")
    add(
        "--keep-halves",
        action="store_true",
        default=None,
        help="keep the half-sets of the particle file (rlnRandomSubset) instead of drawing new "
        "ones; refine and assign keep those of the run",
    )
    add("--device", type=str, help="auto (default), cpu, cuda, cuda:1 ...")
    add_printing(parser)
    add("--config", action="config", help="YAML file with any of these options")
    add("--preset", choices=list(PRESETS), help="'paper' is the published adversarial recipe")
    add_settings(parser, chosen, heterogeneous)
    return parser


def add_settings(
    parser: CommandParser, chosen: str = "default", heterogeneous: bool = False
) -> None:
    """--adversarial.NAME and --likelihood.NAME, with the settings of a preset as defaults."""
    skip = {"assumptions"}
    parser.add_class_arguments(AdversarialConfig, "adversarial", skip=skip)
    parser.add_class_arguments(LikelihoodConfig, "likelihood", skip=skip)
    defaults = asdict(preset(chosen, heterogeneous=heterogeneous))
    defaults.pop("assumptions")
    parser.set_defaults({f"adversarial.{name}": value for name, value in defaults.items()})


def options_of(arguments: Sequence[str]) -> Namespace:
    """What the arguments and their configuration files say.

    Raises:
        InputError: an option is unknown or cannot be understood.
    """
    return make_parser(*_preset_and_model(arguments)).given(arguments)


def for_assign(options: Namespace) -> list[str]:
    """Arguments of `assign` after a `reconstruct` in a job of another program.

    Args:
        options: what those of `reconstruct` say (`options_of`).
    """
    known = {name: options.get(name) for name in _OF_ASSIGN}
    shared = [(f"--{name}", str(value)) for name, value in known.items() if value is not None]
    return [word for pair in shared for word in pair]


def run(arguments: Sequence[str]) -> int:
    """Run the command; its exit code tells the verdict (`exit_codes`)."""
    options = options_of(arguments)
    if options.get("output") is None:
        raise InputError("cryogan reconstruct needs an output folder; give it with -o.")
    assumptions = assumptions_of(options)
    if assumptions.get("latent") == "none":
        del assumptions["latent"]
    objective = chosen_objective(arguments, options)
    settings = dict(plain(options.get(objective)) or {})
    if options.get("settings") is not None:
        if ":" not in objective:
            raise InputError(f"Settings of the {objective} objective are --{objective}.NAME VALUE.")
        settings = plain(options.settings)
    chosen = options.get("preset") or "default"
    settings = checked_settings(
        objective,
        settings,
        chosen,
        heterogeneous="latent" in assumptions,
        symmetry=assumptions.get("symmetry"),
    )
    if options.get("noise_patches") is not None:
        require_file(options.noise_patches)
    if options.get("noise") is not None:
        if options.get("noise_patches") is not None:
            raise InputError("Give --noise or --noise-patches, not both.")
        NOISE_MODELS.check(options.noise)
    seed, device = require_seed(options), require_device(options)
    particles = read_particles(options.particles, options)

    import cryogan
    from cryogan.cli.display import run_display
    from cryogan.cli.results import print_results
    from cryogan.objectives.data_parallel import Launch

    launch = Launch.from_environment()
    out = progress_console(options, quiet=launch is not None and launch.rank > 0)
    with run_display(out) as display:
        result = cryogan.reconstruct(
            particles,
            objective=objective,
            **assumptions,
            box_size=options.get("box"),
            resolution_A=options.get("resolution"),
            noise=options.get("noise_patches") or options.get("noise"),
            settings=settings,
            preset=chosen,
            folder=options.output,
            seed=seed,
            device=device,
            keep_halves=bool(options.get("keep_halves")),
            launch=launch,
            show=display.show,
            started=display.started,
            phase=display.phase,
        )
    if launch is not None and launch.rank > 0:
        stopped_by = result.stopped_by
        return 0 if stopped_by is None else exit_codes.of_signal(stopped_by)
    code = print_results(out, result, as_json=bool(options.get("json")))
    # torchrun takes every other code for a crash
    return 0 if launch is not None and result.finished else code


def chosen_objective(arguments: Sequence[str], options: Namespace) -> str:
    """Name of the objective; what is for another one, and would change nothing, is refused.

    A configuration file may have settings beside those of the objective that it names.

    Args:
        arguments: of the command.
        options: what they say (`options_of`).

    Raises:
        InputError: there is no such objective, or something is for another one.
    """
    folder = options.get("output")
    named = options.get("objective") or objective_of_folder(folder)
    objective = require_objective(objective_or_default(options.get("objective"), folder))
    for other in {"adversarial", "likelihood"} - {objective}:
        words = [word for word in arguments if word.startswith((f"--{other}.", f"--{other}="))]
        if words or (named is None and options.get(other) is not None):
            what = words[0].partition("=")[0] if words else f"'{other}' in the configuration file"
            raise InputError(
                f"{what} is for the {other} objective, and this run's is {objective}; add "
                f"--objective {other}, or leave it out."
            )
    require_use(objective, options.get("preset") or "default", options.get("view_sigma"))
    return objective


def checked_settings(
    objective: str,
    settings: Mapping[str, Any],
    chosen: str = "default",
    *,
    heterogeneous: bool = False,
    symmetry: str | None = None,
) -> dict[str, Any]:
    """The settings given as Python has them; refused here if out of range, before any import."""
    settings = dict(settings)
    if settings.get("stages") is not None:
        settings["stages"] = tuple(Stage(**stage) for stage in settings["stages"])
    defaults: AdversarialConfig | LikelihoodConfig
    if objective == "adversarial":
        defaults = preset(chosen, heterogeneous=heterogeneous)
    elif objective == "likelihood":
        defaults = LikelihoodConfig()
    else:
        return settings
    _refuse_empty(objective, defaults, settings)
    for number, stage in enumerate(settings.get("stages", ())):
        _refuse_empty(f"{objective}.stages[{number}]", stage, vars(stage))
    assumptions = Assumptions() if symmetry is None else Assumptions(symmetry)
    replace(defaults, assumptions=assumptions, **settings)
    return settings


def _refuse_empty(group: str, settings: Any, values: Mapping[str, Any]) -> None:
    """A name without a value in a configuration file is None, which few settings can be."""
    for field in fields(settings):
        if values.get(field.name, ...) is None and type(None) not in get_args(field.type):
            raise InputError(f"--{group}.{field.name} has no value; give one or leave it out.")


class _InOrder(argparse.Action):
    """Options as (name, value) in the order in which they were given, in `namespace.given`."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        namespace.given = [*getattr(namespace, "given", []), (self.dest, values)]


def _preset_and_model(arguments: Sequence[str]) -> tuple[str, bool]:
    """What options and configuration files say, before the parser whose defaults they decide."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("preset", "model", "latent", "config"):
        early.add_argument(f"--{name}", action=_InOrder)
    given = getattr(early.parse_known_args(list(arguments))[0], "given", [])
    chosen = {"preset": "default", "model": "homogeneous", "latent": "none"}
    for name, value in given:
        found = read_yaml(value) if name == "config" else {name: value}
        if not isinstance(found, dict):
            raise InputError(
                f"{value} holds no options; give a YAML file with options of this command."
            )
        chosen |= {key: found[key] for key in chosen if isinstance(found.get(key), str)}
    known = chosen["preset"] if chosen["preset"] in PRESETS else "default"
    return known, chosen["model"] == "heterogeneous" or chosen["latent"] != "none"
