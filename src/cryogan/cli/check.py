"""`cryogan check`: what is in a particle set, and what to mend before a run."""

from collections.abc import Sequence
from pathlib import Path

from cryogan.cli.options import add_reading_options, read_particles
from cryogan.cli.parser import CommandParser
from cryogan.errors import InputError

_MATTER = ("--output", "--json", "--datadir", "--strip-prefix", "--ind", "--first", "--apix")


def make_parser() -> CommandParser:
    """The command's parser."""
    parser = CommandParser(
        "check",
        "Look at a particle set before a run: contrast, normalisation, CTFs, bad "
        "images, spectra, how many images a resolution takes, diameter and shifts, memory and CPU "
        "time of runs. "
        "All columns and up to 2,000 images are read. Leaves with 0 if the set is ready and with 1 "
        "if something is to be mended.",
        "cryogan check particles.star -o check.html",
        _MATTER,
    )
    add = parser.add_argument
    add("particles", type=str, help="RELION .star file, or of another kind that can be read")
    add("-o", "--output", type=str, metavar="FILE.html", help="page with figures to write")
    add("--json", type=str, metavar="FILE", help="all findings as JSON")
    add_reading_options(parser)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the command: 0 for a set that is ready, else 1."""
    options = make_parser().given(arguments)
    for path in (options.get("output"), options.get("json")):
        if path is not None and not Path(path).parent.is_dir():
            raise InputError(f"Cannot write {path}: its folder does not exist; make it.")

    particles = read_particles(options.particles, options)
    import cryogan
    from cryogan.files import write_text
    from cryogan.inspection.page import write_page
    from cryogan.inspection.text import page_of_text
    from cryogan.io.particle_files import refuse_inputs

    outputs = [options.get("output"), options.get("json")]
    refuse_inputs([Path(path) for path in outputs if path is not None], particles)
    found = cryogan.check(particles)
    print(page_of_text(found))
    if options.get("json") is not None:
        write_text(options.json, found.to_json())
    if options.get("output") is not None:
        write_page(Path(options.output), found, particles)
    return 0 if found.ready else 1
