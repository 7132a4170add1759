"""Short runs on noise in a process of their own, and the most memory that they had.

Nothing of the caller's process counts there, and a trial that needs too much ends the trial alone.
"""

import math
import multiprocessing
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from cryogan.allocator import keep_freed_memory, return_freed_memory
from cryogan.objectives.memory import MeasuresMemory
from cryogan.particles import Particles
from cryogan.run.processes import needs_script, pickled, script_left_out, unpickled

_STATUS = Path("/proc/self/status")
_CONTEXT_GB = 0.5  # of CUDA, in every process
_NEW_PEAK = Path("/proc/self/clear_refs"), "5"  # proc_pid_clear_refs(5)


class TooMuch(Exception):
    """A trial needs more memory than it may have."""


class NotMeasured(Exception):
    """A trial has failed in another way, or takes too long: nothing is known."""


def can_be_measured(device: str) -> bool:
    """Whether this system tells a process's peak of memory on a device."""
    return device.startswith("cuda") or (device == "cpu" and sys.platform == "linux")


@dataclass(frozen=True)
class Trials:
    """What is tried.

    Attributes:
        objective: with its settings.
        particles: noise in place of a set's images.
        members: processes that share the images of a half-set.
        device: a torch device name.
        threads: of torch.
        limit_GB: the most memory that a trial may have (1e9 bytes); only on a CPU.
    """

    objective: MeasuresMemory
    particles: Particles
    members: int
    device: str
    threads: int
    limit_GB: float


class TrialProcess:
    """A process that makes trials, one after the other; a context manager.

    Attributes:
        idle_GB: what the process has before any (1e9 bytes).
    """

    def __init__(self, trials: Trials, timeout_s: float = 120.0) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, its = context.Pipe()
        data = pickled(trials)
        self._process = context.Process(target=_serve, args=(its, data), daemon=True)
        with script_left_out(unless=needs_script(data)):
            self._process.start()
        its.close()
        self._timeout_s = timeout_s
        try:
            self.idle_GB = self._answer()
        except BaseException:
            self._end()
            raise

    def peak_GB(self, size: int) -> float:
        """The most memory of the process during a trial.

        Raises:
            TooMuch: it needs more than it may have.
            NotMeasured: it has failed otherwise.
        """
        try:
            self._connection.send(size)
        except OSError as error:
            raise NotMeasured from error
        return self._answer()

    def _answer(self) -> float:
        try:
            if not self._connection.poll(self._timeout_s):
                raise NotMeasured
            answer: float | Exception = self._connection.recv()
        except EOFError as error:
            self._process.join()
            killed = self._process.exitcode == -9  # by the system, for memory
            raise (TooMuch if killed else NotMeasured) from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _end(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()


def peak_GB(device: str = "cpu") -> float:
    """The most memory (1e9 bytes) that this process has had on a device since `begin_peak`.

    On a CPU, what is its own: libraries and particles that it shares do not count (Linux). On a
    GPU, what torch has taken from the driver, and what the driver's context takes.
    """
    if device.startswith("cuda"):
        return torch.cuda.max_memory_reserved(device) / 1e9 + _CONTEXT_GB
    lines = (line.split() for line in _STATUS.read_text().splitlines())
    kB = {line[0]: int(line[1]) for line in lines if len(line) == 3 and line[2] == "kB"}
    return 1024 * (kB["VmHWM:"] - kB["RssFile:"] - kB["RssShmem:"]) / 1e9


def begin_peak(device: str = "cpu") -> None:
    """Give freed memory back, and forget the peak so far; where that is forbidden, it stays."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return
    return_freed_memory()
    path, code = _NEW_PEAK
    try:
        path.write_text(code)
    except OSError:
        return


def _serve(connection: Connection, data: bytes) -> None:
    trials: Trials = unpickled(data)
    torch.set_num_threads(trials.threads)
    keep_freed_memory()
    device = torch.device(trials.device)
    if device.type == "cpu":
        _limit(trials.limit_GB)
    else:
        torch.empty(1, device=device)
    begin_peak(trials.device)
    connection.send(peak_GB(trials.device))
    while True:
        try:
            size = connection.recv()
        except EOFError:
            return
        begin_peak(trials.device)
        try:
            trials.objective.memory_trial(trials.particles, size, trials.members, device)
        except (MemoryError, torch.OutOfMemoryError):
            connection.send(TooMuch())
        except Exception as error:  # a trial must not keep from running what would run
            # torch has no class of its own for what a CPU has too little of
            connection.send(TooMuch() if "can't allocate memory" in str(error) else NotMeasured())
        else:
            connection.send(peak_GB(trials.device))


def _limit(limit_GB: float) -> None:
    """Let this process have so much beside what it has; no limit where that cannot be said."""
    if math.isinf(limit_GB):
        return
    try:
        import resource

        used = 1024 * next(
            int(line.split()[1])
            for line in _STATUS.read_text().splitlines()
            if line.startswith("VmData:")
        )
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = used + int(limit_GB * 1e9)
        if hard == resource.RLIM_INFINITY or wanted < hard:
            resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
    except (ImportError, OSError, StopIteration, ValueError):
        return
