"""The whole state of a training run, its birth and its checkpoint."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.files import atomic_path
from cryogan.models.conformations import Latent, Subspace
from cryogan.models.critic import TemplateCritic, compact_critic, paper_critic
from cryogan.models.generator import Generator
from cryogan.models.unet import UNet
from cryogan.models.volume import Volume, initial_blob, rescale_volume
from cryogan.physics.spectra import PowerSpectra
from cryogan.training.config import TrainingConfig


@dataclass
class TrainingState:
    """Everything that training changes; saved whole, so that a resumed run is the same run.

    Attributes:
        stage: number of the current stage, from 0.
        step: volume steps done in this stage.
        images_seen: real images shown to the critic, all stages.
        volume: the volume, or the generator of volumes, that is learnt.
        log_scales: (2,) log-contrast and log-noise scale; zero unless learnt.
        average: averaged snapshot of the volume ((D, D, D), or as the generator says): the
            result.
        before: what the average was when `settled` was last measured.
        settled: correlation of the two mean volumes in the finest third of the shells.
        critic: the judge.
        volume_optimiser, critic_optimiser: Adam.
        generator: the only source of randomness.
        wall_s, cpu_s: time spent so far.
    """

    stage: int
    step: int
    images_seen: int
    volume: Generator
    log_scales: Tensor
    average: Tensor
    before: Tensor
    settled: float
    critic: nn.Module
    volume_optimiser: torch.optim.Adam
    critic_optimiser: torch.optim.Adam
    generator: torch.Generator
    wall_s: float = 0.0
    cpu_s: float = 0.0


def begin_stage(
    config: TrainingConfig,
    stage: int,
    box_size: int,
    spectra: PowerSpectra,
    generator: torch.Generator,
    device: torch.device,
    previous: TrainingState | None,
) -> TrainingState:
    """Fresh optimisers; volume and template critic are carried over.

    The first volume is a blob, or zero without measured spectra. A generator of conformations
    begins after the consensus stages, whose volume becomes its mean.
    """
    amplitude = shell_amplitude(spectra.signal, box_size)
    amplitude[math.ceil(config.band * box_size / 2) :] = 0.0
    with torch.random.fork_rng(devices=[]):  # layers draw their weights from the global source
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
        critic = make_critic(config, box_size)
        volume = make_generator(config, stage, box_size, amplitude)
    if previous is not None:
        volume.leak = 1.0  # positivity has been released
        volume.start_from(rescale_volume(previous.average.cpu(), box_size))
    elif config.estimate_spectra:
        volume.start_from(initial_blob(box_size, amplitude))
    if previous is not None and isinstance(critic, TemplateCritic):
        assert isinstance(previous.critic, TemplateCritic)
        critic.grow(previous.critic)
    volume.to(device)
    critic.to(device)
    log_scales = torch.zeros(2, device=device) if previous is None else previous.log_scales.detach()
    log_scales = log_scales.clone().requires_grad_(config.learn_scales)
    learnt: list[Tensor] = [p for p in volume.parameters() if p.requires_grad]
    learnt += [log_scales] if config.learn_scales else []
    return TrainingState(
        stage=stage,
        step=0,
        images_seen=0 if previous is None else previous.images_seen,
        volume=volume,
        log_scales=log_scales,
        average=volume.snapshot().detach(),
        before=volume.snapshot().detach(),
        settled=0.0,
        critic=critic,
        volume_optimiser=torch.optim.Adam(learnt, config.volume_lr, config.betas),
        critic_optimiser=torch.optim.Adam(critic.parameters(), config.critic_lr, config.betas),
        generator=generator,
        wall_s=0.0 if previous is None else previous.wall_s,
        cpu_s=0.0 if previous is None else previous.cpu_s,
    )


def make_generator(
    config: TrainingConfig, stage: int, box_size: int, amplitude: Tensor
) -> Generator:
    """What the settings let learn in a stage; random starts come from torch's global source."""
    volume = Volume(
        box_size,
        parametrisation=config.parametrisation,
        shell_amplitude=amplitude,
        positivity=config.positivity,
        mask_radius=config.mask_radius,
        mask_edge=config.mask_edge,
        symmetry=config.symmetry,
    )
    if config.generator == "volume" or config.stages[stage].consensus:
        return volume
    if config.generator == "unet":
        return UNet(box_size, config.volumes_per_step, amplitude, volume.mask)
    latent = Latent(config.latent, config.classes)
    basis = config.classes - 1 if config.latent == "discrete" else config.basis
    return Subspace(volume, latent, basis, config.basis_start)


def make_critic(config: TrainingConfig, box_size: int) -> nn.Module:
    """The critic that the settings ask for, its weights drawn from torch's global source."""
    if config.critic == "template":
        return TemplateCritic(
            box_size, fourier.rings_within(box_size, config.band), config.templates
        )
    if config.critic == "compact":
        return compact_critic(box_size, config.critic_channels)
    return paper_critic(box_size, config.critic_channels)


def shell_amplitude(signal: Tensor, box_size: int) -> Tensor:
    """Modulus of 3D Fourier coefficients per shell from the power of projections.

    A central slice is a projection's spectrum, so |F3|² = |F2|² = S D² (`physics.spectra`).
    """
    return signal.clamp_min(0.0).sqrt() * box_size


def save_checkpoint(path: Path, state: TrainingState) -> None:
    """Write the state atomically."""
    record = {
        "stage": state.stage,
        "step": state.step,
        "images_seen": state.images_seen,
        "volume": state.volume.state_dict(),
        "log_scales": state.log_scales.detach(),
        "average": state.average,
        "before": state.before,
        "settled": state.settled,
        "critic": state.critic.state_dict(),
        "volume_optimiser": state.volume_optimiser.state_dict(),
        "critic_optimiser": state.critic_optimiser.state_dict(),
        "generator": state.generator.get_state(),
        "wall_s": state.wall_s,
        "cpu_s": state.cpu_s,
    }
    with atomic_path(path) as temporary:
        torch.save(record, temporary)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, on the CPU; `restore` puts it into a state.

    Raises:
        InputError: the file is not a checkpoint.
    """
    try:
        record: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"{path} is not a readable checkpoint; delete its folder to train that part again."
        ) from error
    return record


def restore(state: TrainingState, record: dict[str, Any]) -> TrainingState:
    """Put a checkpoint's values into a state that `begin_stage` made for the same stage."""
    device = state.average.device
    state.volume.load_state_dict(record["volume"])
    state.critic.load_state_dict(record["critic"])
    state.volume_optimiser.load_state_dict(record["volume_optimiser"])
    state.critic_optimiser.load_state_dict(record["critic_optimiser"])
    state.generator.set_state(record["generator"])
    with torch.no_grad():
        state.log_scales.copy_(record["log_scales"])
    state.average = record["average"].to(device)
    state.before = record["before"].to(device)
    for name in ("stage", "step", "settled", "images_seen", "wall_s", "cpu_s"):
        setattr(state, name, record[name])
    return state
