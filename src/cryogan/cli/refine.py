"""`cryogan refine`: a run's half-maps refined by maximum likelihood."""

from collections.abc import Sequence
from pathlib import Path

from cryogan.cli import exit_codes
from cryogan.cli.options import (
    add_assumptions,
    add_reading_options,
    assumptions_of,
    read_particles,
    require_device,
    require_run,
)
from cryogan.cli.parser import CommandParser, plain
from cryogan.cli.printing import add_printing, progress_console
from cryogan.errors import InputError
from cryogan.objectives.likelihood.config import LikelihoodConfig

_MATTER = (
    *("--output", "--particles", "--sym", "--diameter", "--max-shift", "--model", "--latent"),
    *("--likelihood.iterations", "--datadir", "--device", "--quiet", "--json"),
)


def make_parser() -> CommandParser:
    """The command's parser."""
    parser = CommandParser(
        "refine",
        "Refine the half-maps of a run by maximum likelihood over all poses, each with its own "
        "half-set; only their FSC is shared. Poor half-maps go through an initial model first. "
        "What is not given is taken from the run, reading options too. The same command run again "
        f"resumes. {exit_codes.HELP}",
        "cryogan refine run --sym D2",
        _MATTER,
    )
    add = parser.add_argument
    add("run", type=str, help="folder of a finished cryogan reconstruct")
    add("-o", "--output", type=str, help="output folder (default: RUN/refine)")
    add("--particles", type=str, help="particle file, if it is not where the run found it")
    add_assumptions(parser, "that of the run")
    add_reading_options(parser)
    add("--device", type=str, help="auto (default), cpu, cuda, cuda:1 ...")
    add_printing(parser)
    parser.add_class_arguments(LikelihoodConfig, "likelihood", skip={"assumptions"})
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the command; its exit code tells the verdict (`exit_codes`)."""
    options = make_parser().given(arguments)
    assumptions = assumptions_of(options, inherits=True)
    settings = plain(options.get("likelihood")) or {}
    LikelihoodConfig(**settings)
    require_run(options.run)
    device = require_device(options)

    import cryogan
    from cryogan.cli.display import run_display
    from cryogan.cli.results import print_results
    from cryogan.io.particle_files import count_rows
    from cryogan.run.folder import read_run
    from cryogan.run.half_sets import asked_rows

    record = read_run(Path(options.run))
    star = options.get("particles") or record.star
    particles = None
    if star == record.star and star is not None and not Path(star).is_file():
        raise InputError(
            f"The particle file of the run, {star}, is not there any more; say where it is with "
            "--particles."
        )
    if star is not None:
        rows = asked_rows(record.folder)
        if rows is not None and options.get("particles") is not None:
            reader = options.get("reader") or record.reader
            count = count_rows(star, reader=reader, **record.reading)
            rows = rows if count > int(rows.max()) else None  # a file of the chosen rows alone
        particles = read_particles(star, options, record.reader, record.reading, rows)
    out = progress_console(options)
    with run_display(out) as display:
        result = cryogan.refine(
            options.run,
            particles,
            **assumptions,
            settings=settings,
            folder=options.get("output"),
            device=device,
            show=display.show,
            started=display.started,
            phase=display.phase,
        )
    return print_results(out, result, as_json=bool(options.get("json")))
