"""`cryogan report`: the page of a run folder, written again, or a page that compares runs."""

from collections.abc import Sequence
from pathlib import Path

from cryogan.cli.options import require_file, require_run
from cryogan.cli.outputs import add_overwrite, require_outputs
from cryogan.cli.parser import CommandParser
from cryogan.errors import InputError

_OUTPUT = "comparison.html"
_MATTER = ("--output", "--poses")


def make_parser() -> CommandParser:
    """The command's parser."""
    parser = CommandParser(
        "report",
        "Write the report of a run folder again. Given two finished runs or more, write one page "
        "that compares them: results and settings side by side, half-map FSC curves in one figure, "
        "map sections, and the FSC between the maps, aligned over rotation, shift and hand to that "
        "of the first run. With --poses the report of one run has a section about its particles: "
        "histograms of spreads, log-likelihoods, p-values and probabilities, what thresholds on "
        "them cost, and images beside the map at their poses.",
        "cryogan report run other -o comparison.html",
        _MATTER,
    )
    add = parser.add_argument
    add("run", type=str, nargs="+", help="run folder; of several, the first is compared with")
    add(
        "-o",
        "--output",
        type=str,
        metavar="FILE",
        help=f"page that compares runs (default: {_OUTPUT}); one run has report.html in its folder",
    )
    add(
        "--poses",
        type=str,
        metavar="FILE",
        help="of one run: .star file that cryogan assign has written of its particles",
    )
    add_overwrite(parser)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = make_parser().given(arguments)
    folders = [require_run(folder) for folder in options.run]
    output = options.get("output")
    if len(folders) == 1 and output is not None:
        raise InputError(
            f"The report of one run is {folders[0] / 'report.html'}; leave out --output, or give "
            "another run to compare with."
        )
    poses = None if options.get("poses") is None else require_file(options.poses)
    if poses is not None and len(folders) > 1:
        raise InputError("--poses goes with the report of one run; leave out the others.")
    path = Path(_OUTPUT if output is None else output)
    if len(folders) > 1:
        require_outputs(options, [path], ".html")

    from cryogan.report import write_comparison, write_report

    if len(folders) == 1:
        print(f"report: {write_report(folders[0], poses)}")
    else:
        print(f"comparison: {write_comparison(folders, path)}")
    return 0
