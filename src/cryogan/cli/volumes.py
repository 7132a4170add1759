"""`cryogan volumes`: maps of a run with conformations, at chosen latents or those of particles."""

import re
from collections.abc import Sequence
from pathlib import Path

from cryogan.cli.options import require_file, require_run
from cryogan.cli.parser import CommandParser
from cryogan.errors import InputError

_MOST = 10_000  # rows


def make_parser() -> CommandParser:
    """The command's parser."""
    parser = CommandParser(
        "volumes",
        "Write maps of a run with conformations, in the frame of its map: at latents of your "
        "choice, or at those of particles, as cryogan assign has found them. Beside the maps is "
        "latents.csv, with which the folder can be given to cryogan evaluate.",
        "cryogan volumes run --particles poses.star --rows 0,17,100-109 -o maps",
        ("--output", "--latents", "--particles", "--rows"),
    )
    add = parser.add_argument
    add("run", type=str, help="folder of a finished run with conformations")
    add(
        "--latents",
        type=str,
        metavar="FILE",
        help=".csv file with the column z0 (and z1), a row a map, as conformations/latents.csv: "
        "numbers from 0 to 1, or class numbers from 0",
    )
    add(
        "--particles",
        type=str,
        metavar="STAR",
        help="star file of cryogan assign: the map of each particle, at its mean latent or of its "
        "class",
    )
    add(
        "--rows",
        type=str,
        help="which rows of either file, counted from 0: 17, or 0,17,100-109",
    )
    add("-o", "--output", type=str, help="folder to write to")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = make_parser().given(arguments)
    if options.get("output") is None:
        raise InputError("cryogan volumes needs a folder to write to; give it with -o.")
    output = Path(options.output)
    if not output.absolute().parent.is_dir():
        raise InputError(f"Cannot write {output}: its folder does not exist; make it.")
    require_run(options.run)
    latents, particles = options.get("latents"), options.get("particles")
    if (latents is None) == (particles is None):
        raise InputError("Give --latents or --particles: one of the two.")
    require_file(latents or particles)
    rows = None if options.get("rows") is None else rows_of(options.rows)

    from cryogan.api import write_volumes
    from cryogan.io.tables import read_columns

    table = None
    if latents is not None:
        header = Path(latents).open(errors="replace").readline()  # noqa: SIM115
        axes = tuple(sorted(set(re.findall(r"\bz\d+\b", header)))) or ("z0",)
        table = read_columns(latents, axes).T
    files = write_volumes(output, options.run, table, particles=particles, rows=rows)
    print(f"{len(files)} map{'s' * (len(files) > 1)} and latents.csv in {output}")
    return 0


def rows_of(text: str) -> list[int]:
    """Row numbers from `0,17,100-109`.

    Raises:
        InputError: it is something else.

    Example:
        >>> rows_of("0,17,100-102")
        [0, 17, 100, 101, 102]
    """
    rows: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d{1,12})(?:-(\d{1,12}))?", part.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if last < first or last - first >= _MOST:
            raise InputError(
                f"--rows is '{text}', which names no rows at '{part}', or over {_MOST:,}; write "
                "17, or 0,17,100-109."
            )
        rows += range(first, last + 1)
    return rows
