"""`cryogan check`: what is in a particle set, and what to mend before a run."""

from collections.abc import Sequence
from pathlib import Path

from cryogan.cli.options import add_reading_options, read_particles
from cryogan.cli.outputs import add_overwrite, require_outputs
from cryogan.cli.parser import CommandParser
from cryogan.cli.printing import add_quiet

_STANDARD_OUTPUT = "-"
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
    add(
        "--json",
        type=str,
        nargs="?",
        const=_STANDARD_OUTPUT,
        metavar="FILE",
        help="all findings as JSON: into a file, or instead of the text if no file is given",
    )
    add_quiet(parser)
    add_reading_options(parser)
    add_overwrite(parser)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the command: 0 for a set that is ready, else 1."""
    options = make_parser().given(arguments)
    page, findings = options.get("output"), options.get("json")
    if page is not None:
        require_outputs(options, [Path(page)], ".html")
    if findings not in (None, _STANDARD_OUTPUT):
        require_outputs(options, [Path(findings)], ".json")

    particles = read_particles(options.particles, options)
    import cryogan
    from cryogan.files import write_text
    from cryogan.inspection.page import write_page
    from cryogan.inspection.text import page_of_text
    from cryogan.io.particle_files import refuse_inputs

    files = [path for path in (page, findings) if path not in (None, _STANDARD_OUTPUT)]
    refuse_inputs([Path(path) for path in files], particles)
    found = cryogan.check(particles)
    if findings == _STANDARD_OUTPUT:
        print(found.to_json())
    elif not options.get("quiet"):
        print(page_of_text(found))
    if findings in files:
        write_text(findings, found.to_json())
    if page is not None:
        write_page(Path(page), found, particles)
    return 0 if found.ready else 1
