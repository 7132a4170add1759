"""The whole state of adversarial training: how it begins, and what a checkpoint holds."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cryogan import fourier
from cryogan.data.statistics import shell_amplitude
from cryogan.models.base import VolumeModel, VolumeSpec
from cryogan.models.critics import CriticSpec, Growing
from cryogan.models.volume import initial_blob
from cryogan.objectives.adversarial.config import AdversarialConfig
from cryogan.objectives.adversarial.stage import StageData
from cryogan.objectives.masks import volume_mask
from cryogan.physics.imaging import rescale_volume
from cryogan.registry import CRITICS, VOLUME_MODELS

_NUMBERS = ("stage", "step", "images_seen", "converged")
_TENSORS = ("log_scales", "average", "before")
_PARTS = ("volume", "critic", "volume_optimiser", "critic_optimiser")


@dataclass
class AdversarialState:
    """Everything that training changes; saved whole, so that a resumed run is the same run.

    Attributes:
        stage: number of the current stage, from 0.
        step: volume steps done in this stage.
        images_seen: real images shown to the critic, all stages.
        volume: the volume model.
        log_scales: (2,) log-contrast and log-noise scale; zero unless learnt.
        average: averaged snapshot of the volume model ((D, D, D), or as the model says): the
            result.
        before: what the average was when `converged` was last measured.
        converged: correlation of the two mean volumes in the finest third of the shells.
        critic: the critic.
        volume_optimiser, critic_optimiser: Adam.
        generator: the only source of randomness.
    """

    stage: int
    step: int
    images_seen: int
    volume: VolumeModel
    log_scales: Tensor
    average: Tensor
    before: Tensor
    converged: float
    critic: nn.Module
    volume_optimiser: torch.optim.Adam
    critic_optimiser: torch.optim.Adam
    generator: torch.Generator

    def record(self) -> dict[str, Any]:
        """What a checkpoint holds: tensors and numbers."""
        return (
            {name: getattr(self, name) for name in _NUMBERS}
            | {name: getattr(self, name).detach() for name in _TENSORS}
            | {name: getattr(self, name).state_dict() for name in _PARTS}
            | {"generator": self.generator.get_state()}
        )

    def restore(self, record: dict[str, Any]) -> None:
        """Take over a record; this state has been made by `begin_stage` for the same stage."""
        for name in _PARTS:
            getattr(self, name).load_state_dict(record[name])
        self.generator.set_state(record["generator"])
        with torch.no_grad():
            self.log_scales.copy_(record["log_scales"])
        for name in ("average", "before"):
            if record[name].shape != self.average.shape:
                raise ValueError(f"{name} has another shape than {tuple(self.average.shape)}")
            setattr(self, name, record[name].to(self.average.device))
        for name in _NUMBERS:
            setattr(self, name, type(getattr(self, name))(record[name]))


def begin_stage(
    config: AdversarialConfig,
    stage: int,
    data: StageData,
    generator: torch.Generator,
    device: torch.device,
    previous: AdversarialState | None,
) -> AdversarialState:
    """Fresh optimisers; the volume, and a critic that can grow, are carried over.

    The first volume is a blob, or zero without measured spectra. Conformations begin after the
    consensus stages, whose volume becomes their mean.
    """
    box_size = data.box_size
    amplitude = shell_amplitude(data.spectra.signal, box_size)
    amplitude[math.ceil(config.band * box_size / 2) :] = 0.0
    with torch.random.fork_rng(devices=[]):  # layers draw their weights from the global source
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
        critic = make_critic(config, box_size)
        mask = volume_mask(config.assumptions, box_size, data.pixel_size_A)
        volume = make_volume_model(config, stage, volume_spec(config, box_size, amplitude, mask))
    if previous is not None:
        volume.leak = 1.0  # positivity has been released
        volume.start_from(rescale_volume(previous.average.cpu(), box_size))
    elif config.estimate_spectra:
        volume.start_from(initial_blob(box_size, amplitude))
    if previous is not None and isinstance(critic, Growing):
        critic.grow(previous.critic)
    volume.to(device)
    critic.to(device)
    log_scales = torch.zeros(2, device=device) if previous is None else previous.log_scales.detach()
    log_scales = log_scales.clone().requires_grad_(config.learn_scales)
    learnt: list[Tensor] = [p for p in volume.parameters() if p.requires_grad]
    learnt += [log_scales] if config.learn_scales else []
    return AdversarialState(
        stage=stage,
        step=0,
        images_seen=0 if previous is None else previous.images_seen,
        volume=volume,
        log_scales=log_scales,
        average=volume.snapshot().detach(),
        before=volume.snapshot().detach(),
        converged=0.0,
        critic=critic,
        volume_optimiser=torch.optim.Adam(learnt, config.volume_lr, config.betas),
        critic_optimiser=torch.optim.Adam(critic.parameters(), config.critic_lr, config.betas),
        generator=generator,
    )


def volume_spec(
    config: AdversarialConfig, box_size: int, amplitude: Tensor, mask: Tensor
) -> VolumeSpec:
    """What the settings ask of a volume model."""
    assumptions = config.assumptions
    return VolumeSpec(
        box_size,
        amplitude,
        mask,
        parametrisation=config.parametrisation,
        positivity=config.positivity,
        symmetry=assumptions.symmetry,
        latent=None if assumptions.latent is None else assumptions.latent_space,
        basis_volumes=assumptions.volumes - 1,
        basis_noise=config.basis_noise,
        volumes_per_step=config.volumes_per_step,
    )


def make_volume_model(config: AdversarialConfig, stage: int, spec: VolumeSpec) -> VolumeModel:
    """The model of a stage; its first random numbers come from torch's global source."""
    name = "volume" if config.stages[stage].consensus else config.model_name
    return VOLUME_MODELS[name].build(spec)


def make_critic(config: AdversarialConfig, box_size: int) -> nn.Module:
    """The critic that the settings ask for, its weights drawn from torch's global source."""
    rings = fourier.rings_within(box_size, config.band)
    spec = CriticSpec(box_size, rings, config.templates, config.critic_channels)
    return CRITICS[config.critic](spec)
