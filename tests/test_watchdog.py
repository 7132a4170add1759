"""Numbers that go wrong: noticed in the next record, tried again more gently, then told."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cryogan.cli.display import console, run_display
from cryogan.errors import RunError
from cryogan.objectives.adversarial.objective import Adversarial
from cryogan.objectives.base import Step, Task
from cryogan.objectives.likelihood.em_state import EMState
from cryogan.objectives.likelihood.objective import Likelihood
from cryogan.particles import ArrayStack, CTFParams, Particles
from cryogan.run.checkpoint import load_arrays, load_checkpoint
from cryogan.run.watchdog import MOST_RETRIES, fault_of, gentler
from cryogan.run.worker import Job, optimise
from simple_objective import Simple, SimpleConfig

pytestmark = pytest.mark.usefixtures("one_thread")
GOOD = {
    "images_seen": 160,
    **{"critic_loss": 0.7, "volume_loss": 0.7, "distance": 0.3, "penalty": 0.0},
    **{"contrast": 1.0, "noise_scale": 1.0},
}


@dataclass(frozen=True)
class Fragile(Simple):
    """Its map is NaN in step 4, unless it has been made gentler often enough."""

    config: SimpleConfig = field(default_factory=lambda: SimpleConfig(steps=6))
    needs: int = 2
    times: int = 0

    def iterate(self, task: Task, checkpoint: Any, group: Any) -> Iterator[Step]:
        for step in super().iterate(task, checkpoint, group):
            if step.record["images_seen"] == 4 and self.times < self.needs:
                step = replace(step, section=torch.full((8, 8, 8), math.nan))
            yield replace(step, milestone=step.record["images_seen"] == 2)

    def fault(self, step: Step) -> str | None:
        return None

    def gentler(self) -> "tuple[Fragile, str]":
        return replace(self, times=self.times + 1), f"{self.times + 1} times gentler"


def job(folder: Path, objective: Any) -> Job:
    particles = Particles(
        ArrayStack(torch.ones(9, 8, 8)), CTFParams.constant(9, defocus_u_A=15_000.0), 10.0
    )
    task = Task((particles,), None, 0, torch.device("cpu"))
    return Job(folder, objective, task, 1)


@pytest.mark.parametrize("needs", range(MOST_RETRIES + 1))
def test_a_run_goes_on_from_its_last_checkpoint_more_gently(needs: int, tmp_path: Path) -> None:
    assert optimise(job(tmp_path, Fragile(needs=needs)))
    records = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert [record["images_seen"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert [record.get("retries", 0) for record in records] == [0, 0, *[needs] * 4]
    assert int(load_arrays(tmp_path / "result.npz")["retries"]) == needs
    assert load_checkpoint(tmp_path / "checkpoint.pt").retries == needs


def test_it_is_told_where_gentler_settings_do_not_help(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="went wrong after 4 images, also with gentler") as caught:
        optimise(job(tmp_path, Fragile(needs=MOST_RETRIES + 1)))
    assert "the map is not finite; its last good checkpoint is kept" in str(caught.value)
    assert "\n" not in str(caught.value)
    kept = load_checkpoint(tmp_path / "checkpoint.pt")
    assert kept.images_seen == 2
    assert bool(torch.isfinite(kept.state["total"]).all())
    assert not (tmp_path / "result.npz").exists()


@pytest.mark.parametrize(
    ("record", "section", "words"),
    [
        ({}, torch.ones(4, 4, 4), None),
        ({"critic_loss": math.nan}, None, "critic_loss is nan"),
        ({"penalty": math.inf}, None, "penalty is inf"),
        ({"distance": -3e12}, None, "distance has exploded"),
        ({"distance": 0.0}, None, "tells no image from another"),
        ({}, torch.zeros(4, 4, 4), "the map has vanished"),
        ({}, torch.full((4, 4, 4), math.inf), "the map is not finite"),
    ],
)
def test_what_is_wrong_in_adversarial_training(
    record: dict[str, float], section: torch.Tensor | None, words: str | None
) -> None:
    found = fault_of(Adversarial(), Step(GOOD | record, section=section))
    assert (found is None) if words is None else (found is not None and words in found)


@pytest.mark.parametrize(
    ("log_likelihood", "halves", "words"),
    [
        (3.0, torch.ones(2, 1, 4, 4, 4), None),
        (math.nan, None, "log-likelihood"),
        (3.0, torch.full((2, 1, 4, 4, 4), math.nan), "not finite"),
        (3.0, torch.zeros(2, 1, 4, 4, 4), "empty"),
    ],
)
def test_what_is_wrong_in_the_likelihood(
    log_likelihood: float, halves: torch.Tensor | None, words: str | None
) -> None:
    state = None
    if halves is not None:
        state = EMState(0, 0, True, halves, 4, torch.ones(1, 3), torch.ones(1), 9, False)
    step = Step({"images_seen": 9, "log_likelihood": log_likelihood}, live=state)
    found = fault_of(Likelihood(), step)
    assert (found is None) if words is None else (found is not None and words in found)
    assert gentler(Likelihood(), 1) is None


def test_gentler_means_smaller_learning_rates() -> None:
    before = Adversarial()
    found = gentler(before, 2)
    assert found is not None
    after, words = found
    assert after.config.volume_lr == 0.25 * before.config.volume_lr
    assert after.config.critic_lr == 0.25 * before.config.critic_lr
    assert f"{after.config.volume_lr:.2g}" in words


def test_retries_and_foreign_lines_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    about = {"objective": Adversarial(), "sources": {}, "particles": {}}
    with run_display(console()) as display:
        about["sources"] = dict.fromkeys(("symmetry", "mask_radius", "max_shift_percent"), "given")
        about["particles"] = {"box_size": 32, "pixel_size_A": 4.0}
        display.started(about)
        display.show([[{"images_seen": 3}], [{"images_seen": 4, "retries": 1, "gentler": "lr"}]])
    assert "half-set 2: its numbers had gone wrong; it goes on" in capsys.readouterr().out
