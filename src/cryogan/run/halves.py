"""Half-sets side by side: worker processes, signals, and their place under torchrun."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import torch

from cryogan.data.halves import halves_of
from cryogan.errors import InputError
from cryogan.objectives.base import Objective, Task
from cryogan.objectives.data_parallel import Placement
from cryogan.particles import Particles
from cryogan.physics.noise import NoiseModel
from cryogan.randomness import seed_for
from cryogan.run.log import LogFollower
from cryogan.run.processes import needs_script, pickled, script_left_out, unpickled
from cryogan.run.threads import threads_of_each
from cryogan.run.worker import Job, optimise

Show = Callable[[list[list[dict[str, Any]]]], None]


def make_jobs(
    particles: Particles,
    folder: Path,
    objective: Objective,
    *,
    seed: int,
    device: str,
    noise: NoiseModel | None = None,
    maps: torch.Tensor | None = None,
    populations: torch.Tensor | None = None,
    placement: Placement | None = None,
    halves: str | None = None,
) -> list[Job]:
    """The jobs of a run: one for both half-sets, or one for each.

    Args:
        particles: the whole set.
        folder: of the run; folders of jobs are made in it.
        objective: with its settings.
        seed: of the split and of everything random.
        device: a torch device name; with "cuda", two jobs use two GPUs if there are two.
        noise: measured or known noise, or None to measure its spectrum on the particles.
        maps, populations: to start from (`Task`).
        placement: of this process under torchrun, or None.
        halves: name of the half-sets that the particles came with, to keep them.
    """
    half_sets = [particles.subset(index) for index in halves_of(particles, seed, halves)]
    threads = threads_of_each(None if placement is None else placement.local_size)
    if objective.together:
        own = torch.device(device if placement is None else placement.device)
        task = Task(tuple(half_sets), noise, seed, own, maps, populations)
        return [Job(folder, objective, task, threads)]
    jobs = []
    for number, half in enumerate(half_sets, start=1):
        sub = folder / f"half{number}"
        sub.mkdir(exist_ok=True)
        where = _device_of_half(device, number) if placement is None else placement.device
        task = Task((half,), noise, seed_for(seed, "half-set", number), torch.device(where))
        jobs.append(Job(sub, objective, task, threads))
    return jobs


def _device_of_half(device: str, number: int) -> str:
    if device == "cuda" and torch.cuda.device_count() >= 2:
        return f"cuda:{number - 1}"
    return device


def run_jobs(jobs: Sequence[Job], show: Show) -> bool:
    """Run jobs in one worker process each; False if interrupted.

    Args:
        jobs: those that are finished are left out.
        show: called about twice a second with the new log records of each job.

    Raises:
        InputError: from a job.
    """
    context = multiprocessing.get_context("spawn")
    with _interrupt_held_back():  # half made, its semaphores would leak
        stop = context.Event()
    waiting = [job for job in jobs if not job.is_finished]
    logs = [LogFollower(job.folder) for job in jobs]
    if not waiting:
        return True
    sent = [pickled(job) for job in waiting]
    with_script = any(map(needs_script, sent))
    with ProcessPoolExecutor(len(waiting), context, _begin_worker, (stop,)) as pool:
        interrupted = False
        futures: list[Future[None]] = []
        try:
            with _interrupt_held_back(), script_left_out(unless=with_script):
                futures += [pool.submit(_work, data) for data in sent]
            while not all(future.done() for future in futures):
                if any(future.done() and future.exception() for future in futures):
                    stop.set()
                show([log.new() for log in logs])
                time.sleep(0.5)
        except KeyboardInterrupt:
            interrupted = True
        stop.set()
        try:
            for future in futures:
                future.result()
        except BrokenProcessPool as error:
            raise InputError(_LOST_WITH_SCRIPT if with_script else _LOST) from error
    show([log.new() for log in logs])
    return not interrupted and all(job.is_finished for job in jobs)


_LOST = (
    "A worker process was lost, as happens when the system runs out of memory; run the same again "
    "to resume."
)
_LOST_WITH_SCRIPT = (
    "A worker process was lost; a script that uses classes of its own must call cryogan inside "
    "`if __name__ == '__main__':`, or have them in a module that can be imported."
)


def run_placed(placement: Placement, jobs: Sequence[Job], show: Show) -> bool:
    """Run this process's job with its group; the main process waits for all. False if interrupted.

    Args:
        placement: of this process under torchrun.
        jobs: one for both half-sets, or one for each.
        show: as for `run_jobs`; called in the main process only.
    """
    logs = [LogFollower(job.folder) for job in jobs]

    def show_all() -> None:
        if placement.is_main:
            show([log.new() for log in logs])

    def waiting() -> bool:
        return placement.is_main and not all(job.is_finished for job in jobs)

    together = len(jobs) == 1
    job = jobs[0 if together else placement.half_set]
    group = placement.everyone if together else placement.group
    with _signals_noted() as should_stop:
        finished = group.from_first(lambda: job.is_finished)
        if not finished:
            finished = optimise(job, group, should_stop, show_all)
        while finished and waiting():
            if should_stop():
                return False
            show_all()
            time.sleep(0.5)
    show_all()
    return finished


@contextmanager
def _signals_noted() -> Iterator[Callable[[], bool]]:
    """Ctrl-C, SIGTERM and the end of the parent are only noted: a group stops at one step."""
    received: list[int] = []
    parent = os.getppid()
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, lambda s, _: received.append(s)) for number in signals]
    try:
        yield lambda: bool(received) or os.getppid() != parent
    finally:
        for number, handler in zip(signals, previous, strict=True):
            signal.signal(number, handler)


@contextmanager
def _interrupt_held_back() -> Iterator[None]:
    """Ctrl-C takes effect when the block is over; processes started inside ignore it.

    The mask, which they inherit, is this thread's alone: a signal that reaches another thread
    would still interrupt the block, half a worker started, if the handler did not wait too. Only a
    main thread can do this; elsewhere Ctrl-C does not arrive.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, previous)
    if held:
        raise KeyboardInterrupt


_stop: Event


def _begin_worker(stop: Event) -> None:
    global _stop
    _stop = stop


def _work(data: bytes) -> None:
    """`optimise` in a worker process, which ends if its parent was killed meanwhile."""
    try:
        optimise(unpickled(data), should_stop=_should_stop)
    finally:
        if _orphaned():
            os._exit(1)  # an idle worker would wait for its next task for ever


def _orphaned() -> bool:
    parent = multiprocessing.parent_process()
    return parent is not None and not parent.is_alive()


def _should_stop() -> bool:
    return _stop.is_set() or _orphaned()
