"""How much memory a run needs, measured on its most expensive step, and how much there is.

A run that cannot fit is refused before anything is written. Where an upper bound, known from the
sizes of arrays, fits, nothing is measured.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from cryogan.errors import InputError
from cryogan.objectives.base import Objective
from cryogan.objectives.data_parallel import Launch
from cryogan.objectives.memory import MeasuresMemory, MemoryPlan, noise_particles
from cryogan.particles import Particles
from cryogan.run.threads import threads_of_each
from cryogan.run.trials import NotMeasured, TooMuch, TrialProcess, Trials, can_be_measured

PROCESS_GB = 0.3
"""What a process has before it does anything, at most; libraries that it shares do not count."""


@dataclass(frozen=True)
class MemoryEstimate:
    """What a run needs.

    Attributes:
        needed_GB: at its worst moment, in all processes on a device together (1e9 bytes).
        where: that moment, in words.
        advice: what to lower, in words.
        at_least: whether more is needed, and more than what is available: measuring ended early.
    """

    needed_GB: float
    where: str
    advice: str
    at_least: bool = False


def check_memory(
    objective: Objective, particles: Particles, device: str, launch: Launch | None = None
) -> None:
    """Refuse a run that cannot fit; nothing where it cannot be known.

    Args:
        objective: with its settings; one that is not `MeasuresMemory` is not checked.
        particles: the whole set; no image of it is read.
        device: a torch device name.
        launch: torchrun's processes, or None.

    Raises:
        InputError: the run needs more memory than is available.
    """
    available = available_GB(device)
    if available is None:
        return
    found = estimate_memory(objective, particles, device, launch, available_GB=available)
    if found is None or (found.needed_GB <= available and not found.at_least):
        return
    if found.needed_GB <= available:
        raise InputError(
            f"This run needs more than the {available:.1f} GB of memory that are available "
            f"{found.where}; lower {found.advice}."
        )
    about = "at least" if found.at_least else "about"
    raise InputError(
        f"This run needs {about} {found.needed_GB:.1f} GB of memory {found.where}, and "
        f"{available:.1f} GB are available; lower {found.advice}."
    )


def memory_bound_GB(
    objective: Objective,
    particles: Particles,
    device: str = "cpu",
    launch: Launch | None = None,
) -> float | None:
    """What a run needs at most, known from the sizes of arrays: several times what it does need.

    Args:
        objective, particles, device, launch: as for `check_memory`.

    Returns:
        None where no bound is known.
    """
    if not isinstance(objective, MeasuresMemory):
        return None
    plan = objective.memory_plan(particles, 1 if launch is None else launch.size // 2)
    if not plan.bounded:
        return None
    return _processes(objective, device, launch) * (PROCESS_GB + sum(plan.options.values()))


def estimate_memory(
    objective: Objective,
    particles: Particles,
    device: str = "cpu",
    launch: Launch | None = None,
    *,
    available_GB: float | None = None,
) -> MemoryEstimate | None:
    """The memory of a run, from a few of its steps on noise, in a process of their own.

    What the calling process has by now, particles in memory among it, does not count.

    Args:
        objective, particles, device, launch: as for `check_memory`.
        available_GB: measure no longer than it takes to tell whether the run needs more than
            this; by default, measure all.

    Returns:
        None if it cannot be measured, or is known to be no more than `available_GB`.
    """
    if not isinstance(objective, MeasuresMemory) or not can_be_measured(device):
        return None
    members = 1 if launch is None else launch.size // 2
    plan = objective.memory_plan(particles, members)
    processes = _processes(objective, device, launch)
    bound = memory_bound_GB(objective, particles, device, launch)
    if bound is not None and available_GB is not None and bound <= available_GB:
        return None
    share_GB = math.inf if available_GB is None else available_GB / processes
    trials = Trials(
        objective,
        noise_particles(particles),
        members,
        device,
        threads=threads_of_each(None if launch is None else launch.local_size),
        limit_GB=share_GB,
    )
    try:
        needed_GB, at_least = _measured(plan, trials, share_GB)
    except NotMeasured:
        return None
    return MemoryEstimate(processes * needed_GB, plan.where, plan.advice, at_least)


def _measured(plan: MemoryPlan, trials: Trials, enough_GB: float) -> tuple[float, bool]:
    """Memory of a process, and whether it needs more, and more than `enough_GB`."""
    before = 0.0
    sizes: list[int] = []
    steps: list[float] = []
    with TrialProcess(trials) as process:

        def total(step: float) -> float:
            return process.idle_GB + plan.held_GB + max(plan.passing_GB + before, step)

        for size in plan.trials:
            try:
                step = process.peak_GB(size) - process.idle_GB
            except TooMuch:
                return total(steps[-1] if steps else 0.0), True
            if size == 0:
                before = step
            else:
                sizes.append(size)
                steps.append(step)
            if total(step) > enough_GB:
                return total(step), True
            if size and total(step * plan.size / size) <= enough_GB < math.inf:
                return total(step * plan.size / size), False
    step = steps[-1]
    if len(sizes) > 1:
        slope = (steps[-1] - steps[-2]) / (sizes[-1] - sizes[-2])
        step += max(0.0, slope) * (plan.size - sizes[-1])
    return total(step), False


def _processes(objective: Objective, device: str, launch: Launch | None) -> float:
    """How many share the device's memory; one that works on one half-set of two counts half."""
    if launch is not None and objective.together:
        return (1 if device == "cuda" else launch.local_size) / 2
    if device == "cuda" and (launch is not None or torch.cuda.device_count() >= 2):
        return 1  # each has a GPU of its own
    if launch is not None:
        return launch.local_size
    return 1 if objective.together else 2


def available_GB(device: str, root: Path = Path("/")) -> float | None:
    """Memory that a device's programs may still take (1e9 bytes); None where it cannot be known.

    On a CPU: what Linux calls available (proc(5), MemAvailable and SwapFree), less where control
    groups leave less (Linux kernel, cgroup-v1 memory and cgroup-v2). Files in the cache count as
    available. On a GPU: what the driver says is free.

    Args:
        device: a torch device name.
        root: of the file system (for tests).
    """
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0] / 1e9
    if device != "cpu":
        return None
    found = _table(root / "proc/meminfo")
    if "MemAvailable:" not in found:
        return None
    known = [1024 * (found["MemAvailable:"] + found.get("SwapFree:", 0))]
    for limit, used, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        groups = root / "sys/fs/cgroup"
        most, now = _number(groups / limit), _number(groups / used)
        if most is not None and now is not None:
            stat = _table((groups / limit).parent / "memory.stat")
            known.append(most - now + stat.get(cache, 0))
    return max(0, min(known)) / 1e9


def _table(path: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    try:
        rows = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def _number(path: Path) -> int | None:
    """The number that a file holds; None for none, or for "max"."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
