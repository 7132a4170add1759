"""Adversarial training, as one straight function."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cryogan.allocator import return_freed_memory
from cryogan.data.images import real_indices
from cryogan.data.statistics import measure
from cryogan.objectives.adversarial.config import AdversarialConfig
from cryogan.objectives.adversarial.schedules import (
    leak_at,
    measure_convergence,
    set_learning_rates,
    update_average,
)
from cryogan.objectives.adversarial.stage import (
    StageData,
    limited_to,
    prepare_stage,
    preprocessing,
)
from cryogan.objectives.adversarial.state import AdversarialState, begin_stage
from cryogan.objectives.adversarial.step import adversarial_step
from cryogan.objectives.adversarial.views import orientations_of
from cryogan.objectives.base import restoring
from cryogan.objectives.data_parallel import SINGLE_PROCESS, ProcessGroup
from cryogan.particles import Particles
from cryogan.physics.imaging import Preprocessing
from cryogan.physics.noise import NoiseModel

CONVERGENCE_STEPS = 50


@dataclass(frozen=True)
class Progress:
    """What `train` yields.

    Attributes:
        state: the live state (do not change it).
        data: the current stage's real images.
        settings: their preprocessing.
        record: numbers for the log, means since the last one.
        fraction: of the whole run that is done, in images planned; exactly 1.0 at the end.
    """

    state: AdversarialState
    data: StageData
    settings: Preprocessing
    record: dict[str, float]
    fraction: float


def train(
    particles: Particles,
    config: AdversarialConfig,
    *,
    seed: int,
    device: torch.device,
    noise: NoiseModel | None = None,
    checkpoint: dict[str, Any] | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
    log_every: int = 20,
) -> Iterator[Progress]:
    """Train critic and volume in turn; yield every `log_every` steps and after each stage.

    The caller logs, saves checkpoints and may stop at any time by not asking for more. Started
    with a checkpoint, the run goes on as if it had never stopped.

    Args:
        particles: the real images; their poses are unknown here.
        config: settings.
        seed: of everything random in this run.
        device: where training takes place; random numbers are drawn on the CPU.
        noise: measured or known noise instead of a measured spectrum.
        checkpoint: a state's record.
        group: the processes that train together, all with the same arguments; they share every
            batch, and states and records are the same in all of them.
        log_every: volume steps between records.

    Raises:
        InputError: the group cannot share a batch equally, or an image cannot be used.
        StateError: the checkpoint cannot.
    """
    group.check_batch(config.batch_size)
    config = limited_to(config, particles.box_size)
    orientations = orientations_of(config)  # read once: they are the same all through the run
    generator = torch.Generator().manual_seed(seed)
    measurement = measure(particles, noise)
    step_images = config.batch_size * config.critic_steps
    planned = [stage.images // step_images * step_images for stage in config.stages]
    state: AdversarialState | None = None
    data: StageData | None = None
    with restoring():
        first_stage = 0 if checkpoint is None else range(len(config.stages))[checkpoint["stage"]]
    for number in range(first_stage, len(config.stages)):
        settings = preprocessing(config, measurement, config.stages[number].box_size)
        if data is not None:
            data.images.drop()
            return_freed_memory()
        data = prepare_stage(particles, config, settings, measurement, noise, device, orientations)
        state = begin_stage(config, number, data, generator, device, state)
        if checkpoint is not None:
            with restoring():
                state.restore(checkpoint)
            checkpoint = None
        steps = planned[number] // step_images
        done_before, over = sum(planned[:number]), _stage_over(state, config, steps)
        sums: dict[str, Tensor] = {}
        indices = real_indices(
            seed,
            number,
            range(state.step, steps),
            config.critic_steps,
            config.batch_size,
            len(data),
        )
        with closing(data.images.batches(map(group.mine, indices))) as batches:
            while not over:
                fraction = (done_before + state.step * step_images) / sum(planned)
                set_learning_rates(state, config, fraction, len(data))
                state.volume.leak = leak_at(state, steps)
                values = adversarial_step(state, config, data, settings, batches, group)
                state.step += 1
                state.images_seen += step_images
                update_average(state, config)
                if state.step % CONVERGENCE_STEPS == 0:
                    measure_convergence(state, config)
                    converged = torch.tensor(state.converged, dtype=torch.float64)
                    state.converged = float(group.mean(converged))  # all end the stage together
                for name, value in values.items():
                    sums[name] = sums.get(name, torch.zeros((), device=device)) + value
                over = _stage_over(state, config, steps)
                if state.step % log_every == 0 or over:
                    since = (state.step - 1) % log_every + 1
                    totals = group.mean(torch.stack(tuple(sums.values()))).tolist()
                    means = {name: sum_ / since for name, sum_ in zip(sums, totals, strict=True)}
                    sums = {}
                    done = done_before + (planned[number] if over else state.step * step_images)
                    record = _record(state, data.box_size, means)
                    yield Progress(state, data, settings, record, done / sum(planned))


def _stage_over(state: AdversarialState, config: AdversarialConfig, steps: int) -> bool:
    """Whether the stage has its images or, unless it is the last, its volume has converged."""
    last = state.stage == len(config.stages) - 1
    return state.step >= steps or (not last and state.converged >= config.converged_fsc)


def _record(state: AdversarialState, box_size: int, means: dict[str, float]) -> dict[str, float]:
    contrast, noise_scale = state.log_scales.detach().exp().tolist()
    return {
        "step": state.step,
        "images_seen": state.images_seen,
        "stage": state.stage,
        "box_size": box_size,
        **means,
        "contrast": contrast,
        "noise_scale": noise_scale,
        "converged": state.converged,
    }
