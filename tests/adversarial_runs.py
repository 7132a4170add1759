"""Pieces of adversarial training that several tests start from."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cryogan.data.statistics import measure
from cryogan.objectives.adversarial.config import AdversarialConfig
from cryogan.objectives.adversarial.stage import (
    StageData,
    limited_to,
    prepare_stage,
    preprocessing,
)
from cryogan.objectives.adversarial.state import AdversarialState, begin_stage
from cryogan.objectives.adversarial.views import orientations_of
from cryogan.particles import Particles
from cryogan.physics.imaging import Preprocessing
from cryogan.physics.noise import NoiseModel
from cryogan.run.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

CPU = torch.device("cpu")


def save_state(path: Path, state: AdversarialState) -> None:
    """Write a checkpoint as a run does."""
    record = state.record()
    save_checkpoint(path, Checkpoint("adversarial", record, state.images_seen, 0.0, 0.0))


def load_state(path: Path) -> dict[str, Any]:
    """The state's record in a checkpoint."""
    return load_checkpoint(path).state


def stage_data(
    particles: Particles,
    config: AdversarialConfig,
    noise: NoiseModel | None = None,
    stage: int = 0,
) -> tuple[StageData, Preprocessing]:
    """The particles of a stage, and their preprocessing."""
    measurement = measure(particles, noise)
    box_size = limited_to(config, particles.box_size).stages[stage].box_size
    settings = preprocessing(config, measurement, box_size)
    orientations = orientations_of(config)
    data = prepare_stage(particles, config, settings, measurement, noise, CPU, orientations)
    return data, settings


def begun(
    particles: Particles,
    config: AdversarialConfig,
    noise: NoiseModel | None = None,
    stage: int = 0,
    previous: AdversarialState | None = None,
) -> tuple[AdversarialState, StageData, Preprocessing]:
    """State, particles and preprocessing of a stage, before its first step."""
    data, settings = stage_data(particles, config, noise, stage)
    generator = torch.Generator().manual_seed(0)
    return begin_stage(config, stage, data, generator, CPU, previous), data, settings


def tensors_of(state: AdversarialState) -> dict[str, Tensor]:
    """Copies of all tensors and numbers of a state."""
    flat = {}
    waiting = list(state.record().items())
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(f"{name} {key}", inner) for key, inner in value.items()]
        elif isinstance(value, Tensor | int | float):
            flat[name] = torch.as_tensor(value).clone()
    return flat


def differences(first: dict[str, Tensor], second: dict[str, Tensor]) -> list[str]:
    """Names of tensors that are not equal to the last bit."""
    assert first.keys() == second.keys()
    return [name for name, value in first.items() if not torch.equal(value, second[name])]
