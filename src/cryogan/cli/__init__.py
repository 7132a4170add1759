"""The command line."""

import sys

from jsonargparse import ArgumentParser

import cryogan
from cryogan.cli import assign, demo, evaluate, reconstruct, refine, report, simulate
from cryogan.errors import InputError


def main(arguments: list[str] | None = None) -> int:
    """Run a command: 0 if it worked, 2 (one sentence) if the input was wrong, 130 if stopped."""
    arguments = sys.argv[1:] if arguments is None else arguments
    arguments = simulate.glued(arguments)
    parser = ArgumentParser(prog="cryogan", description=cryogan.__doc__)
    parser.add_argument("--version", action="version", version=cryogan.__version__)
    subcommands = parser.add_subcommands(required=True, dest="command")
    try:
        commands = {
            "reconstruct": (
                reconstruct.make_parser(arguments),
                reconstruct.run,
                "a map, half-maps and a report from a particle stack",
            ),
            "refine": (
                refine.make_parser(),
                refine.run,
                "polish a run's maps by maximum likelihood",
            ),
            "assign": (
                assign.make_parser(),
                assign.run,
                "poses for particles, written for RELION and cryoSPARC",
            ),
            "simulate": (
                simulate.make_parser(arguments),
                simulate.run,
                "particle images of a known structure: your molecule's, or the papers' data sets",
            ),
            "evaluate": (
                evaluate.make_parser(),
                evaluate.run,
                "compare a map with a known structure",
            ),
            "report": (
                report.make_parser(),
                report.run,
                "write the report of a run folder again",
            ),
            "demo": (
                demo.make_parser(),
                demo.run,
                "simulate, reconstruct and judge a made-up protein",
            ),
        }
        for name, (command_parser, _, description) in commands.items():
            subcommands.add_subcommand(name, command_parser, help=description)
        options = parser.instantiate(parser.parse_args(arguments))
        return commands[options.command][1](options[options.command])
    except InputError as error:
        print(f"cryogan: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("cryogan: interrupted; the same command can be run again", file=sys.stderr)
        return 130
