"""The command line: arguments to `cryogan.api`, one file a command.

A command's module is imported when the command is given; torch not before its input is in order.
"""

import errno
import sys
from importlib import import_module

import cryogan
from cryogan.cli.broken_pipe import quiet_on_broken_pipe
from cryogan.errors import InputError

COMMANDS = {
    "check": "look at a particle set before a run: what is in it, and what to mend",
    "select": "particles of a file by row, column, class or half-set",
    "downsample": "smaller images by Fourier cropping, centred if asked for",
    "reconstruct": "a map, half-maps and a report from a particle stack",
    "refine": "refine a run's half-maps by maximum likelihood",
    "assign": "poses for particles, written for RELION and cryoSPARC",
    "simulate": "particle images of a known structure: your molecule's, or the papers' data sets",
    "evaluate": "compare a map with a known structure",
    "symmetry": "the point group of a map, its axes, and the evidence",
    "report": "write the report of a run folder again, or compare runs on one page",
    "benchmark": "the published tables made anew, ours beside the published numbers",
    "demo": "simulate, reconstruct and evaluate a made-up protein",
}

_AGAIN = "then give the same command again: a run goes on from its last checkpoint"
_WHAT_TO_DO = {
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOSPC: f"free some space, {_AGAIN}",
    errno.EDQUOT: f"free some space, {_AGAIN}",
    errno.EROFS: "write to another folder",
    errno.EACCES: "ask for its permissions, or give another file or folder",
    errno.EPERM: "ask for its permissions, or give another file or folder",
    errno.EIO: f"look after the disk, {_AGAIN}",
    errno.ESTALE: f"wait for the file server, {_AGAIN}",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
_LONGEST = 60  # characters of a name that are said


@quiet_on_broken_pipe
def main(arguments: list[str] | None = None) -> int:
    """Run a command: 0 if it worked, 2 (one sentence) if the input was wrong, 130 if stopped.

    2 also where a name, the disk or permissions do not allow it.

    `reconstruct` and `refine` end with 3 or 4 where the verdict is doubtful or no structure.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        name = arguments[0] if arguments else "--help"
        if name == "--version":
            print(cryogan.__version__)
            return 0
        if name in ("-h", "--help", "--help-all"):
            print(_overview())
            return 0
        if name not in COMMANDS:
            from cryogan.cli.parser import nearest

            raise InputError(
                f"There is no command '{name}'{nearest(name, COMMANDS)} (commands: "
                f"{', '.join(COMMANDS)})."
            )
        code: int = import_module(f"cryogan.cli.{name}").run(arguments[1:])
        return code
    except InputError as error:
        print(f"cryogan: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in _WHAT_TO_DO:
            raise
        where = "" if error.filename is None else f" ({_short(str(error.filename))})"
        what, advice = error.strerror, _WHAT_TO_DO[error.errno]
        print(f"cryogan: {what}{where}; {advice}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("cryogan: interrupted; the same command can be run again", file=sys.stderr)
        return 130


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…"


def _overview() -> str:
    lines = [f"  {name:<12}{what}" for name, what in COMMANDS.items()]
    return "\n".join(
        (
            "usage: cryogan COMMAND ...",
            "",
            "3D structures and their motions from cryo-EM particle images of unknown pose.",
            "",
            *lines,
            "",
            "cryogan COMMAND --help shows the options that matter, --help-all the rest.",
            "Example: cryogan reconstruct particles.star -o run --sym D2 --objective likelihood",
        )
    )
