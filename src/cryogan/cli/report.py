"""`cryogan report`: the page of a run folder, written again."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from cryogan.report.page import write_report


def make_parser() -> ArgumentParser:
    """The command's parser."""
    parser = ArgumentParser(description="Write the report of a run folder again.")
    parser.add_argument("run", type=str, help="run folder")
    return parser


def run(options: Namespace) -> int:
    """Run the command."""
    print(f"report: {write_report(Path(options.run))}")
    return 0
