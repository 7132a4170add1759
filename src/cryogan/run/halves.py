"""Half-sets side by side: in worker processes of ours, or in those that torchrun has started."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from cryogan.data.halves import halves_of
from cryogan.objectives.base import Objective, Task
from cryogan.objectives.data_parallel import Placement
from cryogan.particles import Particles
from cryogan.physics.noise import NoiseModel
from cryogan.randomness import seed_for
from cryogan.run.log import LogFollower
from cryogan.run.processes import pickled
from cryogan.run.signals import StopRequests
from cryogan.run.threads import threads_of_each
from cryogan.run.worker import Job, optimise
from cryogan.run.worker_pool import run_workers

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


def run_jobs(jobs: Sequence[Job], show: Show) -> signal.Signals | None:
    """Run jobs in one worker process each.

    Args:
        jobs: those that are finished are left out.
        show: called about twice a second with the new log records of each job.

    Returns:
        The signal that stopped the work; None if all is done.

    Raises:
        InputError: from a job.
        RunError: a process was lost.
        KeyboardInterrupt: a second signal.
    """
    logs = [LogFollower(job.folder) for job in jobs]
    waiting = [pickled(job) for job in jobs if not job.is_finished]
    if not waiting:
        return None
    stopped_by = run_workers(waiting, lambda: show([log.new() for log in logs]))
    show([log.new() for log in logs])
    return stopped_by


def run_placed(placement: Placement, jobs: Sequence[Job], show: Show) -> signal.Signals | None:
    """Run this process's job with its group; the main process waits for all.

    Args:
        placement: of this process under torchrun.
        jobs: one for both half-sets, or one for each.
        show: as for `run_jobs`; called in the main process only.

    Returns:
        The signal that stopped the work, SIGTERM where another process was stopped; None if all is
        done.
    """
    logs = [LogFollower(job.folder) for job in jobs]
    parent = os.getppid()

    def show_all() -> None:
        if placement.is_main:
            show([log.new() for log in logs])

    def waiting() -> bool:
        return placement.is_main and not all(job.is_finished for job in jobs)

    together = len(jobs) == 1
    job = jobs[0 if together else placement.half_set]
    group = placement.everyone if together else placement.group
    with StopRequests() as requests:

        def should_stop() -> bool:
            return requests.received is not None or os.getppid() != parent

        finished = optimise(job, group, should_stop, show_all)
        while finished and waiting():
            if should_stop():
                finished = False
                break
            show_all()
            time.sleep(0.5)
    show_all()
    return None if finished else signal.Signals(requests.received or signal.SIGTERM)
