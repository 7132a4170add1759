"""What a command costs: CPU seconds, wall seconds and memory of all its processes."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryogan.errors import InputError, Interrupted

_LOOK_EVERY_S = 0.1


@dataclass(frozen=True)
class Cost:
    """What was spent.

    Attributes:
        cpu_s: CPU seconds, user and system, of all processes.
        wall_s: seconds by the clock.
        memory_GB: largest resident memory of any one process (1e9 bytes).
    """

    cpu_s: float = 0.0
    wall_s: float = 0.0
    memory_GB: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        """Of both, one after the other."""
        memory_GB = max(self.memory_GB, other.memory_GB)
        return Cost(self.cpu_s + other.cpu_s, self.wall_s + other.wall_s, memory_GB)


@dataclass(frozen=True)
class Spent:
    """A command that has ended.

    Attributes:
        cost: of the command and its descendants.
        code: its exit code; minus the number of the signal that ended it.
        in_time: False if it was stopped because its time was over.
    """

    cost: Cost
    code: int
    in_time: bool = True


class CommandInterrupted(Interrupted):
    """A signal has stopped a command.

    Args:
        number: of the signal.
        cost: of the command until it had ended.
    """

    def __init__(self, number: int, cost: Cost) -> None:
        super().__init__(number)
        self.cost = cost


def run_command(
    command: Sequence[str],
    log: Path,
    *,
    folder: Path | None = None,
    minutes: float | None = None,
    watch: Callable[[], None] = lambda: None,
) -> Spent:
    """Run a command with one thread a process and wait for it.

    A signal that interrupts this process is passed on to it as Ctrl-C, and raised here once it has
    ended; a second one kills it. It has a process group of its own, so that Ctrl-C in a terminal
    reaches it once.

    Args:
        command: program and arguments.
        log: file that its output is added to.
        folder: to run it in; the present one by default.
        minutes: wall minutes after which it is told to end (SIGTERM).
        watch: called ten times a second.

    Raises:
        CommandInterrupted: with the cost.

    Example:
        >>> import sys, tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = pathlib.Path(folder) / "log.txt"
        ...     spent = run_command([sys.executable, "-c", "print(6 * 7)"], log)
        ...     print(spent.code, log.read_text().strip(), spent.cost.cpu_s > 0)
        0 42 True
    """
    began = time.monotonic()
    in_time, stopped_by = True, 0
    with log.open("a") as file:
        process = subprocess.Popen(
            list(command),
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=file,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    while True:
        try:
            found, status, used = os.wait4(process.pid, os.WNOHANG)
            if found:
                break
            if not stopped_by:
                watch()
            if in_time and minutes is not None and time.monotonic() - began > 60.0 * minutes:
                process.send_signal(signal.SIGTERM)
                in_time = False
            time.sleep(_LOOK_EVERY_S)
        except KeyboardInterrupt as interrupt:
            process.send_signal(signal.SIGKILL if stopped_by else signal.SIGINT)
            stopped_by = stopped_by or getattr(interrupt, "signal", signal.SIGINT)
    process.returncode = os.waitstatus_to_exitcode(status)
    cost = Cost(
        used.ru_utime + used.ru_stime, time.monotonic() - began, used.ru_maxrss * 1024 / 1e9
    )
    if stopped_by:
        raise CommandInterrupted(stopped_by, cost)
    return Spent(cost, process.returncode, in_time)


def spend(
    command: Sequence[str],
    folder: Path,
    log: Path,
    minutes: float | None = None,
    *,
    ended: Collection[int] = (0,),
) -> tuple[Cost, bool]:
    """The cost of a command that has to work; False if it was stopped because of the time.

    Raises:
        InputError: its exit code is not one of `ended`.
    """
    spent = run_command(command, log, folder=folder, minutes=minutes)
    if spent.in_time and spent.code not in ended:
        tail = " ".join(log.read_text().split()[-40:])
        raise InputError(f"{command[0]} stopped ({tail}); try it by hand: {' '.join(command)}")
    return spent.cost, spent.in_time


def cpu_seconds() -> float:
    """CPU seconds, user and system, of this process and those of its own that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


class Clock:
    """CPU and wall seconds of this process, its own ended processes included.

    Args:
        asked_for: time (`time.monotonic()`, of any process) at which this process was asked for,
            whose own start counts then too; from now on by default.
    """

    def __init__(self, asked_for: float | None = None) -> None:
        self._cpu_s = cpu_seconds() if asked_for is None else 0.0
        self._wall_s = time.monotonic() if asked_for is None else asked_for

    @property
    def cpu_s(self) -> float:
        """CPU seconds so far."""
        return cpu_seconds() - self._cpu_s

    @property
    def wall_s(self) -> float:
        """Wall seconds so far."""
        return time.monotonic() - self._wall_s


def cryogan_command(*words: str) -> list[str]:
    """`cryogan WORDS` by the present interpreter."""
    return [sys.executable, "-m", "cryogan", *words]
