"""`cryogan report`: the page of a run folder, written again."""

from collections.abc import Sequence

from cryogan.cli.options import require_run
from cryogan.cli.parser import CommandParser


def make_parser() -> CommandParser:
    """The command's parser."""
    parser = CommandParser(
        "report", "Write the report of a run folder again.", "cryogan report run"
    )
    parser.add_argument("run", type=str, help="run folder")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    folder = require_run(make_parser().given(arguments).run)
    from cryogan.report import write_report

    print(f"report: {write_report(folder)}")
    return 0
