"""The command line: arguments to `cryogan.api`, one file a command.

A command's module is imported when the command is given; torch not before its input is in order.
"""

import errno
import math
import signal
import sys
import time
from collections.abc import Callable
from importlib import import_module

import cryogan
from cryogan.cli import exit_codes
from cryogan.cli.broken_pipe import quiet_on_broken_pipe
from cryogan.errors import InputError, Interrupted, RunError
from cryogan.run.signals import REPEATED_S, handled

COMMANDS = {
    "check": "look at a particle set before a run: what is in it, and what to mend",
    "select": "particles of a file by row, column, class or half-set",
    "downsample": "smaller images by Fourier cropping, centred if asked for",
    "reconstruct": "a map, half-maps and a report from a particle stack",
    "refine": "refine a run's half-maps by maximum likelihood",
    "assign": "poses for particles, written for RELION and cryoSPARC",
    "volumes": "maps of a run with conformations at chosen latents or of chosen particles",
    "simulate": "particle images of a known structure: your molecule's, or the papers' data sets",
    "evaluate": "compare a map with a known structure",
    "symmetry": "the point group of a map, its axes, and the evidence",
    "flip": "the other hand of a map or run, and of its poses",
    "report": "write the report of a run folder again, or compare runs on one page",
    "watch": "a page that shows runs as they go",
    "status": "how far runs are, and what their folders hold",
    "clean": "remove what killed processes have left in run folders",
    "benchmark": "the published tables made anew, ours beside the published numbers",
    "relion": "reconstruct and assign poses as an External job of RELION",
    "cryosparc": "reconstruct and assign poses as an External job of cryoSPARC",
    "demo": "a made-up protein from simulated images to map, poses and motion",
    "completion": "commands and options completed by the shell",
}

TASKS = {
    "try it without data": "cryogan demo",
    "look at particles": "cryogan check particles.star -o check.html",
    "a first map": "cryogan reconstruct particles.star -o run",
    "watch it": "cryogan watch run",
    "conformations": "cryogan reconstruct particles.star -o moving --latent uniform",
    "poses for RELION": "cryogan assign particles.star run -o poses.star",
    "poses for cryoSPARC": "cryogan assign particles.cs run -o poses.cs",
    "choose particles": "cryogan select poses.star -o good.star "
    "--where 'cryoganParticleProbability>0.5'",
    "a known structure": "cryogan evaluate run --truth known.mrc",
    "compare runs": "cryogan report run other -o comparison.html",
}
"""What people come for, and a command that does it."""

_AGAIN = "then give the same command again: a run goes on from its last checkpoint"
_WHAT_TO_DO = {
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOSPC: f"free some space, {_AGAIN}",
    errno.EDQUOT: f"free some space, {_AGAIN}",
    errno.EFBIG: f"raise the limit of file sizes (ulimit -f), {_AGAIN}",
    errno.EROFS: "write to another folder",
    errno.EACCES: "ask for its permissions, or give another file or folder",
    errno.EPERM: "ask for its permissions, or give another file or folder",
    errno.EIO: f"look after the disk, {_AGAIN}",
    errno.ESTALE: f"wait for the file server, {_AGAIN}",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
_ON_THE_WAY = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE)
"""What is no fault of the input."""
_LONGEST = 60  # characters of a name that are said


@quiet_on_broken_pipe
def main(arguments: list[str] | None = None) -> int:
    """Run a command: 0 if it worked, 2 (one sentence) if the input was wrong.

    2 also where a name or permissions do not allow it; 5 where it has failed on the way, as where
    the disk is full; 130, 143, 129 or 138 where a signal has stopped it (`exit_codes`).

    `reconstruct` and `refine` end with 3 or 4 where the verdict is doubtful or no structure.
    """
    received: list[int] = []
    with handled(_interrupter(received)):
        return _run(sys.argv[1:] if arguments is None else arguments, received)


def _interrupter(received: list[int]) -> Callable[[int], None]:
    """Raises Interrupted, also at a second signal, but not at the same request once more."""
    raised_at = -math.inf

    def interrupt(number: int) -> None:
        nonlocal raised_at
        now = time.monotonic()
        if now - raised_at > REPEATED_S:
            raised_at = now
            received.append(number)
            raise Interrupted(number)

    return interrupt


def _run(arguments: list[str], received: list[int]) -> int:
    """Run a command; `received` are the signals until now."""
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
        _say(str(error))
        return exit_codes.FAILED if isinstance(error, RunError) else exit_codes.WRONG_INPUT
    except OSError as error:
        if received and error.errno == errno.EIO:  # the terminal has been closed
            return exit_codes.of_signal(received[0])
        if error.errno not in _WHAT_TO_DO:
            raise
        where = "" if error.filename is None else f" ({_short(str(error.filename))})"
        what, advice = error.strerror, _WHAT_TO_DO[error.errno]
        _say(f"{what}{where}; {advice}.")
        return exit_codes.FAILED if error.errno in _ON_THE_WAY else exit_codes.WRONG_INPUT
    except KeyboardInterrupt as interrupt:
        number = getattr(interrupt, "signal", signal.SIGINT)
        _say(f"interrupted ({number.name}); the same command can be run again")
        return exit_codes.of_signal(number)


def _say(sentence: str) -> None:
    """In the terminal, if that is there still."""
    try:
        print(f"cryogan: {sentence}", file=sys.stderr)
    except BrokenPipeError:
        raise
    except OSError:
        return


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…"


def _overview() -> str:
    commands = [f"  {name:<13}{what}" for name, what in COMMANDS.items()]
    tasks = [f"  {task:<21}{command}" for task, command in TASKS.items()]
    return "\n".join(
        (
            "usage: cryogan COMMAND ...",
            "",
            "3D structures and their motions from cryo-EM particle images of unknown pose.",
            "",
            "Tasks:",
            *tasks,
            "",
            "Commands:",
            *commands,
            "",
            "cryogan COMMAND --help shows the options that matter, --help-all the rest.",
        )
    )
