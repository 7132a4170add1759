"""Tasks of a run that are killed in forks of this process, inside writes too, end bit for bit.

    python benchmarks/kill_tasks.py --work SCRATCH --kills 5

Of each objective a tiny task is killed (SIGKILL) so many times, in turn at a random time or before
a write is completed, and then left to end; its result is compared with that of one that nobody
kills, and temporary files are counted. A line of JSON a kill, and one at the end of each sequence;
the exit code is 1 if anything differs. Seeds are kept. `kill_campaign.py` kills whole commands.
"""

import argparse
import itertools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from cryogan.files import remove_left_overs
from cryogan.objectives.adversarial.config import AdversarialConfig, Stage
from cryogan.objectives.adversarial.objective import Adversarial
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.base import Task
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.objective import Likelihood
from cryogan.phantom import phantom_map
from cryogan.run.checkpoint import RESULT
from cryogan.run.worker import Job, optimise
from kill_campaign import BOX, FEW, KILLS, PIXEL_A, particles


def jobs(work: Path) -> dict[str, Callable[[Path], Job]]:
    """A tiny task of each objective."""
    particles_ = particles(FEW).particles
    half_sets = particles_.subset(torch.arange(0, 60)), particles_.subset(torch.arange(60, 120))
    cpu, assumed = torch.device("cpu"), Assumptions(mask_radius=0.6)
    config = AdversarialConfig(
        stages=(Stage(BOX, 240),), batch_size=4, templates=2, assumptions=assumed
    )
    generator = torch.Generator().manual_seed(5)
    maps = phantom_map(BOX, PIXEL_A)[None, None].repeat(2, 1, 1, 1, 1)
    maps = maps + 0.3 * maps.std() * torch.randn(maps.shape, generator=generator)
    likelihood = LikelihoodConfig(
        iterations=3,
        subset_size=30,
        pose_resolution_A=60.0,
        view_density=False,
        assumptions=assumed,
    )
    return {
        "adversarial": lambda out: Job(
            out, Adversarial(config), Task((half_sets[0],), None, 3, cpu), 1
        ),
        "likelihood": lambda out: Job(
            out, Likelihood(likelihood), Task(half_sets, None, 3, cpu, maps), 1
        ),
    }


def killed(job: Job, before_write: int | None, after_s: float) -> bool:
    """Work in a fork that is killed before the end of a write, or after a time; False if it ended.

    Args:
        job: the task.
        before_write: number of the write that is not completed, from 0; None for none.
        after_s: seconds after which it is killed where that comes first.
    """
    pid = os.fork()
    if pid == 0:
        try:
            os.environ["CRYOGAN_CHECKPOINT_S"] = "0"
            writes = itertools.count()
            flush = os.fsync

            def fsync(descriptor: int) -> None:
                if next(writes) == before_write:
                    os.kill(os.getpid(), signal.SIGKILL)
                flush(descriptor)

            os.fsync = fsync
            optimise(job)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    deadline = time.monotonic() + after_s
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
        time.sleep(0.002)
    else:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the task ended with {code}")
    return code != 0


def campaign(work: Path, kills: int) -> Iterator[dict[str, object]]:
    """Kill each task so many times, in turn inside a write and at any time; a row each.

    A task that has ended begins anew.
    """
    torch.set_num_threads(1)
    for name, make in jobs(work).items():
        rng = random.Random(name)
        reference, sequence_ = make(work / name / "reference"), 0
        reference.folder.mkdir(parents=True)
        began = time.monotonic()
        killed(reference, None, 600.0)
        seconds = time.monotonic() - began
        count = 0
        while count < kills:
            job = make(work / name / str(sequence_))
            job.folder.mkdir()
            for _ in range(KILLS):
                if job.is_finished:
                    break  # killed after its result was written
                inside = rng.randrange(5) if rng.random() < 0.5 else None
                after_s = 600.0 if inside is not None else rng.uniform(0.05, 0.9) * seconds
                if not killed(job, inside, after_s):
                    break
                count += 1
                yield {"case": name, "sequence": sequence_, "kill": count, "inside": inside}
            if job.is_finished:
                remove_left_overs(job.folder)  # as the command does, which has no more to work on
            else:
                killed(job, None, 600.0)
            wrong = [file.name for file in job.folder.glob(".cryogan-*")]
            with np.load(job.folder / RESULT) as found, np.load(reference.folder / RESULT) as other:
                wrong += [
                    key
                    for key in other.files
                    if not key.endswith("_s") and not np.array_equal(found[key], other[key])
                ]
            yield {"case": name, "sequence": sequence_, "kill": "end", "problem": " ".join(wrong)}
            sequence_ += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="scratch folder")
    parser.add_argument("--kills", type=int, default=5, help="of each task (default: 5)")
    options = parser.parse_args()
    rows = list(campaign(options.work, options.kills))
    print("\n".join(json.dumps(row) for row in rows))
    return int(any(row.get("problem") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
