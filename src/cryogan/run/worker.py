"""One task of a run in one process: optimise, log, save, resume; the same for every objective."""

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from cryogan.allocator import keep_freed_memory
from cryogan.errors import InputError, RunError
from cryogan.files import remove_left_overs
from cryogan.objectives.base import Objective, StateError, Task
from cryogan.objectives.data_parallel import SINGLE_PROCESS, ProcessGroup
from cryogan.registry import OBJECTIVES
from cryogan.run.checkpoint import (
    CHECKPOINT,
    RESULT,
    Checkpoint,
    load_checkpoint,
    save_arrays,
    save_checkpoint,
)
from cryogan.run.lock import WORKER_LOCK, locked
from cryogan.run.log import LOG, drop_after
from cryogan.run.pictures import PICTURES, Pictures
from cryogan.run.so_far import show_so_far
from cryogan.run.watchdog import MOST_RETRIES, after_retries, fault_of, learning_rate_scale

CHECKPOINT_EVERY_S = 60.0
"""Between checkpoints; the environment variable `CRYOGAN_CHECKPOINT_S` goes before it."""
_ANOTHER_S = 60.0  # that the worker of a killed run may take until it notices


@dataclass(frozen=True)
class Job:
    """A task and where its files go: all that a worker process needs.

    Attributes:
        folder: of log, checkpoint and result.
        objective: with its settings.
        task: what is worked on.
        threads: of torch.
    """

    folder: Path
    objective: Objective
    task: Task
    threads: int

    @property
    def is_finished(self) -> bool:
        """Whether the result is there."""
        return (self.folder / RESULT).is_file()


def optimise(
    job: Job,
    group: ProcessGroup = SINGLE_PROCESS,
    should_stop: Callable[[], bool] = lambda: False,
    show: Callable[[], None] = lambda: None,
) -> bool:
    """Optimise in this process, logging and saving on the way; resumes where it can.

    The process is taken to be a worker's: its number of threads and its allocator are set. The
    first of a group writes `stats.jsonl`, `checkpoint.pt`, `progress.npz`, what there is to see so
    far (`run.so_far`) and, at the end, what the objective keeps; `result.npz` comes last and says
    that the task is finished, and then nothing is done.

    If the numbers go wrong, it goes on from the last checkpoint with lower learning rates
    (`run.watchdog`); the time of the attempt that failed counts.

    Args:
        job: what to do.
        group: the processes that work on it together; all call this.
        should_stop: asked at every record; if it is true for one member, all stop.
        show: called after every record.

    Returns:
        False if it was stopped.

    Raises:
        InputError: a checkpoint cannot be used, or an image; or another process is at work here.
        RunError: the numbers have gone wrong too often.
    """
    torch.set_num_threads(job.threads)
    keep_freed_memory()
    lock = locked(job.folder / WORKER_LOCK, _ANOTHER_S) if group.rank == 0 else nullcontext()
    with lock:
        if group.rank == 0:
            remove_left_overs(job.folder)  # of a worker that was killed
        if group.from_first(lambda: job.is_finished):  # by a worker that outlived its run
            return True
        failed: _Fault | None = None
        while True:
            try:
                return _attempt(job, group, should_stop, show, failed)
            except _Fault as fault:
                failed = fault
                again = fault.retries + 1
                if again > MOST_RETRIES or after_retries(job.objective, again) is None:
                    raise RunError(_failed(job, fault)) from fault


class _Fault(Exception):
    """Numbers that have gone wrong, after so many retries, and the time spent until then."""

    def __init__(
        self, what: str, images_seen: int, retries: int, wall_s: float, cpu_s: float
    ) -> None:
        super().__init__(what)
        self.images_seen, self.retries = images_seen, retries
        self.wall_s, self.cpu_s = wall_s, cpu_s


def _failed(job: Job, fault: _Fault) -> str:
    scale = learning_rate_scale(fault.retries)
    tried = f", also with learning rates × {scale}" if fault.retries else ""
    return (
        f"The numbers of {job.folder} went wrong after {fault.images_seen:,} images{tried}: "
        f"{fault}; its last good checkpoint is kept: look at the images (cryogan check), and give "
        "other settings and another output folder."
    )


def _attempt(
    job: Job,
    group: ProcessGroup,
    should_stop: Callable[[], bool],
    show: Callable[[], None],
    failed: _Fault | None,
) -> bool:
    """`optimise` until it ends, is stopped, or its numbers go wrong; `failed` is the last time."""
    writes = group.rank == 0
    path = job.folder / CHECKPOINT
    found = group.from_first(lambda: load_checkpoint(path) if path.is_file() else None)
    name = OBJECTIVES.name_of(type(job.objective))
    if found is not None and found.objective != name:
        raise InputError(f"{path} is of another objective; delete it to compute that part again.")
    retries = 0 if found is None else found.retries
    if failed is not None:
        retries = max(retries, failed.retries + 1)
    objective = after_retries(job.objective, retries)
    assert objective is not None
    pictures = Pictures(job.folder / PICTURES)
    log_path = job.folder / LOG if writes else Path(os.devnull)
    drop_after(log_path, 0 if found is None else found.images_seen)
    spent = found if failed is None else failed
    wall = time.perf_counter() - (0.0 if spent is None else spent.wall_s)
    cpu = time.process_time() - (0.0 if spent is None else spent.cpu_s / group.size)
    saved, step, every_s = time.perf_counter(), None, _checkpoint_every_s()
    told = -math.inf  # when what there is so far was last written
    state = None if found is None else found.state
    with log_path.open("a", buffering=1) as log, _naming(path):
        for step in objective.iterate(job.task, state, group):
            wall_s = time.perf_counter() - wall
            cpu_s = (time.process_time() - cpu) * group.size  # all members work alike
            seen = int(step.record["images_seen"])
            record = step.record | {
                "images_per_s": seen / max(wall_s, 1e-9),
                "wall_s": wall_s,
                "cpu_s": cpu_s,
            }
            if step.fraction is not None:
                record["fraction"] = step.fraction
            if retries:
                record |= {
                    "retries": retries,
                    "learning_rate_scale": learning_rate_scale(retries),
                }
            log.write(json.dumps(record) + "\n")
            fault = fault_of(objective, step)
            if group.any(fault is not None):
                what = fault or "those of another process"
                raise _Fault(what, seen, retries, wall_s, cpu_s)
            if step.section is not None and step.fraction is not None:
                pictures.add(seen, step.fraction, step.section)
            show()
            if step.finished:
                break  # no checkpoint of a finished task before its result is written
            stopping = group.any(should_stop())
            due = time.perf_counter() - saved > every_s
            if writes and step.state is not None and (stopping or step.milestone or due):
                record = step.state.record()
                save_checkpoint(path, Checkpoint(name, record, seen, wall_s, cpu_s, retries))
                pictures.save()
                saved = time.perf_counter()
            if stopping:
                return False
            if writes and time.perf_counter() - told > every_s:
                show_so_far(job.folder, objective, step, job.task)
                told = time.perf_counter()
    if step is None:
        raise InputError(f"{path} is complete but its result is missing; delete it.")
    if not writes:
        return True
    pictures.save()
    outcome = objective.outcome(step, job.task)
    result = outcome.pop(RESULT) | {
        "images_seen": torch.tensor(seen),
        "wall_s": torch.tensor(wall_s, dtype=torch.float64),
        "cpu_s": torch.tensor(cpu_s, dtype=torch.float64),
        "retries": torch.tensor(retries),
    }
    for file, arrays in outcome.items():
        save_arrays(job.folder / file, **arrays)
    save_arrays(job.folder / RESULT, **result)
    if step.state is not None:
        record = step.state.record()
        save_checkpoint(path, Checkpoint(name, record, seen, wall_s, cpu_s, retries))
    return True


def _checkpoint_every_s() -> float:
    """Seconds between checkpoints.

    Raises:
        InputError: the environment variable is no number from 0 on.
    """
    asked = os.environ.get("CRYOGAN_CHECKPOINT_S", str(CHECKPOINT_EVERY_S))
    try:
        seconds = float(asked)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0.0:
        raise InputError(f"CRYOGAN_CHECKPOINT_S is '{asked}'; give a number of seconds.")
    return seconds


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Say of which checkpoint it is that a state cannot be taken over."""
    try:
        yield
    except StateError as error:
        raise InputError(
            f"{path} is damaged or of another version ({error}); delete it to compute that part "
            "again."
        ) from error
