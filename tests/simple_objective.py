"""An objective of one's own that takes no time: for tests of everything around objectives."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from cryogan.errors import InputError
from cryogan.evaluation.fsc import fourier_shell_correlation
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.base import Maps, Step, Task
from cryogan.objectives.memory import MemoryPlan


@dataclass(frozen=True)
class SimpleConfig:
    """Settings."""

    steps: int = 3
    fails: bool = False
    assumptions: Assumptions = field(default_factory=Assumptions)


@dataclass
class SimpleState:
    """Sums of images so far."""

    step: int
    total: torch.Tensor

    def record(self) -> dict[str, Any]:
        return {"step": self.step, "total": self.total}


@dataclass(frozen=True)
class Simple:
    """A map whose sections are all the sum of the first images, times the step."""

    together: ClassVar[bool] = False
    config: SimpleConfig = field(default_factory=SimpleConfig)

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "Simple":
        values = dict(config)
        values["assumptions"] = Assumptions(**config["assumptions"])
        return cls(SimpleConfig(**values))

    def check(self, particles: Any) -> None:
        if len(particles) < 2:
            raise InputError(f"{len(particles)} particles are too few; give at least 2.")

    def iterate(self, task: Task, checkpoint: Any, group: Any) -> Iterator[Step]:
        size = task.half_sets[0].box_size
        state = SimpleState(0, torch.zeros(len(task.half_sets), size, size))
        if checkpoint is not None:
            state = SimpleState(**checkpoint)
        while state.step < self.config.steps:
            if self.config.fails:
                raise InputError("This objective fails, as it was asked to.")
            index = torch.tensor([state.step % min(map(len, task.half_sets))])
            images = torch.cat([half.stack.read(index) for half in task.half_sets])
            state = SimpleState(state.step + 1, state.total + images)
            yield Step(
                {"images_seen": state.step},
                state=state,
                fraction=state.step / self.config.steps,
                finished=state.step == self.config.steps,
                live=state,
            )

    def outcome(self, step: Step, task: Task) -> dict[str, dict[str, torch.Tensor]]:
        total = step.live.total
        return {"result.npz": {"volumes": total[:, None].repeat(1, total.shape[-1], 1, 1)}}

    def maps(self, outcomes: Sequence[Mapping[str, Any]], particles: Any, seed: int) -> Maps:
        first, second = torch.cat([outcome["volumes"] for outcome in outcomes])
        fsc = fourier_shell_correlation(first, second)
        mask = torch.ones_like(first)
        average = 0.5 * (first + second)
        return Maps(first, second, average, mask, fsc, fsc, particles.pixel_size_A)

    @staticmethod
    def describe(record: Mapping[str, Any]) -> str:
        return f"{record['images_seen']} images"


class Together(Simple):
    """The same in one worker process, which takes half the time to start."""

    together: ClassVar[bool] = True


@dataclass(frozen=True)
class Slow(Simple):
    """Takes as long for each of its steps as the environment says."""

    config: SimpleConfig = field(default_factory=lambda: SimpleConfig(steps=200))

    def iterate(self, task: Task, checkpoint: Any, group: Any) -> Iterator[Step]:
        for step in super().iterate(task, checkpoint, group):
            time.sleep(float(os.environ.get("SECONDS_A_STEP", "0")))
            yield step


class Measured(Together):
    """Whose memory is measured first, in a process of its own."""

    def memory_plan(self, particles: Any, members: int) -> MemoryPlan:
        return MemoryPlan("in a step", 1, (1,), 0.0, 0.0, {"nothing": 1.0}, bounded=False)

    def memory_trial(self, particles: Any, size: int, members: int, device: Any) -> None:
        pass
