"""`cryogan select`: particles of a file by row, column, class or half-set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryogan.cli.options import add_row_options, require_file, row_numbers
from cryogan.cli.parser import CommandParser
from cryogan.errors import InputError

_MATTER = ("--output", "--where", "--class", "--half", "--ind", "--first")


def make_parser() -> CommandParser:
    """The command's parser."""
    parser = CommandParser(
        "select",
        "Write the particles of a .star or .cs file that pass every condition, with all tables and "
        "columns; beside a .cs file its group file (.csg). Scores, latents and log-likelihoods are "
        "columns of the file that `cryogan assign` writes: rlnLogLikeliContribution, "
        "cryoganCriticScore, cryoganLatent0 ... For thresholds on cryoganFitPValue and "
        "cryoganParticleProbability it says how many good particles they are expected to lose, of "
        "those that pass all else that is asked for.",
        "cryogan select poses.star -o good.star --where 'cryoganLatent0>0.5' --half 1",
        _MATTER,
    )
    add = parser.add_argument
    add("particles", type=str, help="RELION .star or cryoSPARC .cs file")
    add("-o", "--output", type=str, help="file of the same kind to write; none is overwritten")
    add(
        "--where",
        type=str,
        action="append",
        metavar="'COLUMN>=VALUE'",
        help="condition (>=, <=, ==, !=, >, <) on a column of the particles or of their optics "
        "group; may be repeated, all must hold",
    )
    add(
        "--class",
        type=str,
        metavar="N,...",
        help="classes, as the file counts them (RELION from 1, cryoSPARC from 0)",
    )
    add("--half", type=int, help="half-set, 1 or 2 (rlnRandomSubset, alignments3D/split)")
    add_row_options(parser)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = make_parser().given(arguments)
    if options.get("output") is None:
        raise InputError("cryogan select needs a file to write; give it with -o.")
    output = Path(options.output)
    if not output.parent.is_dir():
        raise InputError(f"Cannot write {output}: its folder does not exist; make it.")
    classes = (options.get("class") or "").replace(",", " ").split()
    if not all(word.isdecimal() for word in classes):
        raise InputError(f"--class is '{options.get('class')}'; give whole numbers such as 1,3.")
    require_file(options.particles)

    from cryogan.api import select
    from cryogan.preparation.selection import expected_losses

    conditions = options.get("where") or ()
    chosen: dict[str, Any] = {
        "classes": [int(word) for word in classes],
        "half": options.get("half"),
        "index": row_numbers(options),
        "first": options.get("first"),
    }
    written, count = select(options.particles, output, conditions, **chosen)
    print(f"{written:,} of {count:,} particles written to {output}")
    for line in expected_losses(options.particles, conditions, **chosen):
        print(line)
    return 0
