"""Commands that can be killed: as a user starts them, or in forks of this process.

A fork has loaded all modules already and costs what the command itself costs, which makes it
possible to kill hundreds. It runs the same code, but its workers are forks, too, and close what
they would not have been given. It counts the files that its processes have written, together, and
can be killed before the end of any of these writes.
"""

import multiprocessing
import os
import pkgutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from ctypes import c_long
from importlib import import_module
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import Any, Protocol

import cryogan

TARGETS = ("group", "parent", "worker")


class Started(Protocol):
    """A command that leads a process group of its own.

    Attributes:
        pid: of the command.
    """

    pid: int

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it lasts."""
        ...

    def output(self) -> str:
        """What it has said."""
        ...


class Command:
    """`cryogan ARGUMENTS`, as a user starts it."""

    def __init__(self, arguments: Sequence[str], said: Path, environment: dict[str, str]) -> None:
        self._said = said
        with said.open("w") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cryogan", *arguments],
                process_group=0,
                stdout=file,
                stderr=file,
                env=os.environ | environment,
                preexec_fn=_interruptible,
            )
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.poll()

    def output(self) -> str:
        return self._said.read_text(errors="replace")


class Fork:
    """The same in a fork of this process, which must have one thread only.

    Args:
        arguments: of the command.
        said: file for what it says.
        environment: variables to set.
        inside: number of the write, from 0, of the command and its workers together, before whose
            end `target` is killed; None for none.
        target: one of `TARGETS`.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        said: Path,
        environment: dict[str, str],
        inside: int | None = None,
        target: str = "group",
    ) -> None:
        self._said, self._code = said, None
        self._shared = RawArray(c_long, 2)  # writes begun; 1 + number of the target hit
        self.pid = os.fork()
        if self.pid == 0:
            os.setpgid(0, 0)
            _run(arguments, said, environment, _killing(self._shared, inside, target))
        os.setpgid(self.pid, self.pid)  # whoever is first

    @property
    def writes(self) -> int:
        """Files whose writing has begun."""
        return self._shared[0]

    @property
    def hit(self) -> str | None:
        """What was killed inside a write; None if nothing was."""
        return TARGETS[self._shared[1] - 1] if self._shared[1] else None

    def poll(self) -> int | None:
        if self._code is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if ended else None
        return self._code

    def output(self) -> str:
        return self._said.read_text(errors="replace")


def load() -> None:
    """Load what commands load, so that forks have it."""
    for module in pkgutil.walk_packages(cryogan.__path__, "cryogan."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    import_module("torch._dynamo")  # by the first optimiser


def wait(command: Started, timeout_s: float = 1200.0) -> int:
    """Its exit code.

    Raises:
        TimeoutError: it has not ended.
    """
    deadline = time.monotonic() + timeout_s
    while (code := command.poll()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {command.pid} has not ended after {timeout_s:.0f} s")
        time.sleep(0.02)
    return code


def _interruptible() -> None:
    """What a shell starts in the background ignores Ctrl-C, and SIGHUP under nohup."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)


def _run(
    arguments: Sequence[str],
    said: Path,
    environment: dict[str, str],
    fsync: Callable[[int], None],
) -> None:
    """Be the command, in a fork."""
    code = 1
    try:
        file = os.open(said, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o666)
        for descriptor in (1, 2):
            os.dup2(file, descriptor)
        os.close(file)
        os.environ |= environment
        os.fsync = fsync
        _interruptible()
        multiprocessing.get_context = lambda method=None: _Forks()  # type: ignore[assignment]
        from cryogan.cli import main

        code = main(list(arguments))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _killing(shared: Any, inside: int | None, target: str) -> Callable[[int], None]:
    """`os.fsync`, which comes at the end of every write, or death instead."""
    flush = os.fsync

    def fsync(descriptor: int) -> None:
        number = shared[0]
        shared[0] += 1
        if number == inside:
            leader, me = os.getpgrp(), os.getpid()
            which = "parent" if target == "worker" and me == leader else target
            shared[1] = 1 + TARGETS.index(which)
            if which == "group":
                os.killpg(leader, signal.SIGKILL)
            os.kill(me if which == "worker" else leader, signal.SIGKILL)
        flush(descriptor)

    return fsync


class _Forks:
    """The context "spawn", but processes are forks that close what these would not be given."""

    Pipe = staticmethod(multiprocessing.Pipe)

    @staticmethod
    def Process(target: Any, args: tuple[Any, ...], daemon: bool | None = None) -> Any:
        open_ = {int(path.name) for path in Path("/proc/self/fd").iterdir()}
        open_ -= {0, 1, 2, args[0].fileno()}
        context = multiprocessing.context.ForkContext()
        return context.Process(target=_alone, args=(open_, target, args), daemon=daemon)


def _alone(inherited: set[int], target: Any, args: tuple[Any, ...]) -> None:
    """Call without descriptors that are the parent's: pipes of siblings, locks.

    Their numbers stay in use, as objects that are the parent's may close them.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in inherited - {nothing}:
        try:
            os.fstat(descriptor)
        except OSError:
            continue
        os.dup2(nothing, descriptor, inheritable=False)
    target(*args)
