"""Adversarial training as an objective: each half-set on its own."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.conformations.path import sample_conformations
from cryogan.conformations.series import Series, numbered_series
from cryogan.errors import InputError
from cryogan.models.base import VolumeModel
from cryogan.objectives.adversarial import memory
from cryogan.objectives.adversarial.config import AdversarialConfig
from cryogan.objectives.adversarial.examples import example_images
from cryogan.objectives.adversarial.loop import Progress, train
from cryogan.objectives.adversarial.stage import limited_to
from cryogan.objectives.adversarial.state import volume_spec
from cryogan.objectives.adversarial.views import orientations_of
from cryogan.objectives.base import CONFORMATIONS, Arrays, Maps, Step, Task
from cryogan.objectives.data_parallel import ProcessGroup
from cryogan.objectives.memory import MemoryPlan
from cryogan.particles import Particles
from cryogan.registry import CRITICS, VOLUME_MODELS

_WATCHED = ("critic_loss", "volume_loss", "distance", "penalty", "contrast", "noise_scale")
_EXPLODED = 1e9
_LIVE_SPECTRUM_IMAGES = 200
_DEAD = 1e-12  # a mean over the steps of a record, or a map, that is as good as 0


@dataclass(frozen=True)
class Adversarial:
    """Match the distribution of images with a critic (`Objective`)."""

    together: ClassVar[bool] = False
    config: AdversarialConfig = field(default_factory=AdversarialConfig)

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "Adversarial":
        return cls(AdversarialConfig.read(config))

    def check(self, particles: Particles) -> None:
        config = limited_to(self.config, particles.box_size)
        if len(particles) < 2 * config.batch_size:
            raise InputError(
                f"{len(particles)} particles are fewer than two batches of {config.batch_size}; "
                "give more particles or a smaller --adversarial.batch_size."
            )
        CRITICS[config.critic]  # must be there
        orientations_of(config)  # must be readable
        box_size = config.stages[-1].box_size
        nothing = torch.empty(0)
        VOLUME_MODELS[config.model_name].check(
            volume_spec(config, box_size, nothing, nothing),
            stages=len(config.stages),
            batch_size=config.batch_size,
        )

    def memory_plan(self, particles: Particles, members: int) -> MemoryPlan:
        return memory.memory_plan(self.config, particles, members)

    def memory_trial(
        self, particles: Particles, size: int, members: int, device: torch.device
    ) -> None:
        memory.memory_trial(self.config, particles, size, members, device)

    def iterate(
        self, task: Task, checkpoint: Mapping[str, Any] | None, group: ProcessGroup
    ) -> Iterator[Step]:
        (particles,) = task.half_sets
        for progress in train(
            particles,
            replace(self.config, memory_GB=self.config.memory_GB / 2),  # that of both half-sets
            seed=task.seed,
            device=task.device,
            noise=task.noise,
            checkpoint=None if checkpoint is None else dict(checkpoint),
            group=group,
        ):
            yield Step(
                record=progress.record,
                state=progress.state,
                fraction=progress.fraction,
                finished=progress.fraction == 1.0,
                section=progress.state.volume.mean_volume(progress.state.average),
                live=progress,
            )

    def fault(self, step: Step) -> str | None:
        """A number is not finite or far too large, the critic's distance is 0, or the map is."""
        told = {name: step.record[name] for name in _WATCHED}
        for name, value in told.items():
            if not math.isfinite(value):
                return f"{name} is {value}"
            if abs(value) > _EXPLODED:
                return f"{name} has exploded to {value:.1e}"
        if abs(told["distance"]) < _DEAD:
            return "the critic tells no image from another (distance 0)"
        if step.section is not None and float(step.section.abs().max()) < _DEAD:
            return "the map has vanished"
        return None

    def with_learning_rates(self, scale: float) -> "Adversarial":
        """With learning rates of volume and critic `scale` times those of the settings."""
        volume_lr, critic_lr = scale * self.config.volume_lr, scale * self.config.critic_lr
        return Adversarial(replace(self.config, volume_lr=volume_lr, critic_lr=critic_lr))

    def outcome(self, step: Step, task: Task) -> dict[str, Arrays]:
        progress: Progress = step.live
        volume, average = progress.state.volume, progress.state.average
        config = limited_to(self.config, task.half_sets[0].box_size)
        examples = example_images(progress, config)
        result = {
            "volume": volume.mean_volume(average).cpu(),
            "pixel_size_A": torch.tensor(progress.data.pixel_size_A, dtype=torch.float64),
        }
        return {"examples.npz": examples, "result.npz": result | _conformations(volume, average)}

    def examples(self, step: Step, task: Task) -> Arrays:
        """As at the end, but with fewer images for the spectra; the state is left as it is."""
        progress: Progress = step.live
        drawn = replace(progress.state, generator=progress.state.generator.clone_state())
        config = limited_to(self.config, task.half_sets[0].box_size)
        return example_images(replace(progress, state=drawn), config, _LIVE_SPECTRUM_IMAGES)

    def maps(self, outcomes: Sequence[Arrays], particles: Particles, seed: int) -> Maps:
        first, second = outcomes
        pixel_size_A = float(first["pixel_size_A"])
        half1, half2 = (_limited(half["volume"], self.config.band) for half in outcomes)
        maps = Maps.of_independent(half1, half2, pixel_size_A, seed)
        if "latents" not in first:
            return maps
        halves = (self._series(first, pixel_size_A), self._series(second, pixel_size_A))
        return replace(maps, conformations=halves[0], halves=halves)

    def _series(self, half: Arrays, pixel_size_A: float) -> Series:
        volumes = torch.stack([_limited(volume, self.config.band) for volume in half["volumes"]])
        return numbered_series(volumes, pixel_size_A, half["weights"], half["latents"])

    @staticmethod
    def describe(record: Mapping[str, Any]) -> str:
        return (
            f"{record['box_size']} px, distance {record['distance']:.3f}, "
            f"{record['images_per_s']:.0f} images/s"
        )


def _conformations(volume: VolumeModel, average: Tensor) -> Arrays:
    if volume.latent is None:
        return {}
    shares = volume.populations()
    found = sample_conformations(
        volume.latent,
        partial(volume.volumes, average),
        CONFORMATIONS,
        None if shares is None else shares.detach(),
    )
    return {"volumes": found.volumes, "latents": found.latents, "weights": found.weights}


def _limited(volume: Tensor, band: float) -> Tensor:
    """Without the coefficients beyond the band of training: nothing there is measured."""
    size = volume.shape[-1]
    inside = fourier.band_mask(size, band * size / 2, 3)
    return fourier.irfft(fourier.rfft(volume, 3) * inside, size, 3)
