"""`--quiet` and `--json`: what a command prints, and where."""

import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from cryogan.cli.parser import CommandParser
from cryogan.json_text import to_json

if TYPE_CHECKING:
    from rich.console import Console

JSON_HELP = "print the result as JSON; everything else goes to standard error"


def add_quiet(parser: CommandParser) -> None:
    """`--quiet`."""
    parser.add_argument(
        "--quiet", action="store_true", help="print no progress and no summary, only errors"
    )


def add_printing(parser: CommandParser) -> None:
    """`--quiet` and `--json`."""
    add_quiet(parser)
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def progress_console(options: Namespace, quiet: bool = False) -> "Console":
    """Where progress and words go: nowhere, to standard error beside JSON, or standard output."""
    from cryogan.cli.display import console

    return console(quiet or bool(options.get("quiet")), stderr=bool(options.get("json")))


def speaker(options: Namespace) -> Callable[[str], None]:
    """Prints words where `progress_console` does, without marks of rich's own."""
    if options.get("quiet"):
        return lambda words: None
    return partial(print, file=sys.stderr if options.get("json") else sys.stdout)


def print_json(value: Any) -> None:
    """The result, on standard output."""
    print(to_json(value, indent=2))
