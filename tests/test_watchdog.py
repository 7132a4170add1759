"""Numbers that go wrong: noticed in the next record, tried again at lower learning rates, told."""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cryogan.cli.display import console, run_display
from cryogan.errors import RunError
from cryogan.objectives.adversarial.config import AdversarialConfig, Stage
from cryogan.objectives.adversarial.objective import Adversarial
from cryogan.objectives.base import Step, Task
from cryogan.objectives.data_parallel import SINGLE_PROCESS
from cryogan.objectives.likelihood.em_state import EMState
from cryogan.objectives.likelihood.objective import Likelihood
from cryogan.particles import ArrayStack, CTFParams, Particles
from cryogan.phantom import phantom_map
from cryogan.run.checkpoint import load_arrays, load_checkpoint
from cryogan.run.watchdog import MOST_RETRIES, after_retries, fault_of
from cryogan.run.worker import Job, optimise
from simple_objective import Simple, SimpleConfig
from simulated_sets import centred_particles

pytestmark = pytest.mark.usefixtures("one_thread")
GOOD = {
    "images_seen": 160,
    **{"critic_loss": 0.7, "volume_loss": 0.7, "distance": 0.3, "penalty": 0.0},
    **{"contrast": 1.0, "noise_scale": 1.0},
}


@dataclass(frozen=True)
class Fragile(Simple):
    """Its map is NaN in step 4, unless its learning rates are at most `needs` times the given."""

    config: SimpleConfig = field(default_factory=lambda: SimpleConfig(steps=6))
    needs: float = 0.25
    scale: float = 1.0
    cpu_s: float = 0.0

    def iterate(self, task: Task, checkpoint: Any, group: Any) -> Iterator[Step]:
        for step in super().iterate(task, checkpoint, group):
            if step.record["images_seen"] == 4 and self.scale > self.needs:
                until = time.process_time() + self.cpu_s
                while time.process_time() < until:
                    pass
                step = replace(step, section=torch.full((8, 8, 8), math.nan))
            yield replace(step, milestone=step.record["images_seen"] == 2)

    def fault(self, step: Step) -> str | None:
        return None

    def with_learning_rates(self, scale: float) -> "Fragile":
        return replace(self, scale=scale)


def job(folder: Path, objective: Any) -> Job:
    particles = Particles(
        ArrayStack(torch.ones(9, 8, 8)), CTFParams.constant(9, defocus_u_A=15_000.0), 10.0
    )
    task = Task((particles,), None, 0, torch.device("cpu"))
    return Job(folder, objective, task, 1)


@pytest.mark.parametrize(("retries", "scale"), [(0, 1.0), (1, 0.5), (2, 0.25), (3, 0.125)])
def test_every_retry_has_half_the_learning_rates_of_the_last(
    retries: int, scale: float, tmp_path: Path
) -> None:
    """All begin at the same checkpoint; the one that does well goes on at its rates."""
    assert optimise(job(tmp_path, Fragile(needs=scale)))
    records = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert [record["images_seen"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert [record.get("retries", 0) for record in records] == [0, 0, *[retries] * 4]
    told = [record.get("learning_rate_scale", 1.0) for record in records]
    assert told == [1.0, 1.0, *[scale] * 4]
    assert int(load_arrays(tmp_path / "result.npz")["retries"]) == retries
    assert load_checkpoint(tmp_path / "checkpoint.pt").retries == retries


def test_the_time_of_attempts_that_failed_is_counted(tmp_path: Path) -> None:
    """Two of 0.2 CPU seconds; the log and the result, from which `summary.json` is made."""
    assert optimise(job(tmp_path, Fragile(cpu_s=0.2)))
    records = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert records[1]["cpu_s"] < 0.2
    assert records[2]["cpu_s"] > 0.4
    assert float(load_arrays(tmp_path / "result.npz")["cpu_s"]) >= records[-1]["cpu_s"]
    assert load_checkpoint(tmp_path / "checkpoint.pt").wall_s > 0.4


def test_it_is_told_where_lower_learning_rates_do_not_help(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"after 4 images, also with .* × 0\.125: ") as caught:
        optimise(job(tmp_path, Fragile(needs=0.5 ** (MOST_RETRIES + 1))))
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
    assert after_retries(Likelihood(), 1) is None


def test_a_checkpoint_is_gone_on_from_at_the_scaled_learning_rates() -> None:
    """Those of the optimisers, which the checkpoint also holds."""
    generator = torch.Generator().manual_seed(0)
    made = centred_particles(phantom_map(16, 12.0), 12.0, 40, 5.0, generator)
    task = Task((made.particles,), None, 0, torch.device("cpu"))
    config = AdversarialConfig(stages=(Stage(16, 480),), batch_size=8, templates=2)

    def rates(objective: Adversarial, checkpoint: Any) -> tuple[list[float], Any]:
        step = next(objective.iterate(task, checkpoint, SINGLE_PROCESS))
        optimisers = step.live.state.volume_optimiser, step.live.state.critic_optimiser
        return [o.param_groups[0]["lr"] for o in optimisers], step.state.record()

    _, checkpoint = rates(Adversarial(config), None)
    before, _ = rates(Adversarial(config), checkpoint)
    after, _ = rates(Adversarial(config).with_learning_rates(0.25), checkpoint)
    assert after == pytest.approx([0.25 * rate for rate in before])


def test_retries_and_foreign_lines_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    about = {"objective": Adversarial(), "sources": {}, "particles": {}}
    retried = {"retries": 1, "learning_rate_scale": 0.5}
    with run_display(console()) as display:
        about["sources"] = dict.fromkeys(("symmetry", "mask_radius", "max_shift_percent"), "given")
        about["particles"] = {"box_size": 32, "pixel_size_A": 4.0}
        display.started(about)
        display.show([[{"images_seen": 3}], [{"images_seen": 4} | retried]])
    out = " ".join(capsys.readouterr().out.split())
    assert "half-set 2: its numbers had gone wrong; it goes on from its last" in out
    assert "with learning rates × 0.5" in out
