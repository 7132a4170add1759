"""One step of adversarial training: the critic's steps, then one of the volume."""

from collections.abc import Iterator

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.objectives.adversarial import losses
from cryogan.objectives.adversarial.config import AdversarialConfig
from cryogan.objectives.adversarial.simulated_images import member_of, simulate_batch
from cryogan.objectives.adversarial.stage import StageData
from cryogan.objectives.adversarial.state import AdversarialState
from cryogan.objectives.data_parallel import SINGLE_PROCESS, ProcessGroup
from cryogan.physics.imaging import Preprocessing
from cryogan.physics.projection import volume_spectrum


def adversarial_step(
    state: AdversarialState,
    config: AdversarialConfig,
    data: StageData,
    settings: Preprocessing,
    batches: Iterator[Tensor],
    group: ProcessGroup = SINGLE_PROCESS,
) -> dict[str, Tensor]:
    """`critic_steps` critic steps, then one volume step on the last simulated batch.

    Args:
        state: critic, volume model and optimisers are changed.
        config, data, settings: of the stage.
        batches: of preprocessed real images, one for each critic step.
        group: the processes that share the batch.

    Returns:
        Scalars for the log: both losses, the critic's distance, the penalty.
    """
    relativistic = config.loss == "relativistic"
    critic_loss_of = losses.critic_relativistic if relativistic else losses.critic_wasserstein
    volume_loss_of = losses.volume_relativistic if relativistic else losses.volume_wasserstein
    volumes = state.volume.basis(state.generator)
    spectrum = volume_spectrum(volumes, config.stages[state.stage].padding)
    penalise = state.step % config.penalty_every == 0
    penalty = torch.zeros((), device=spectrum.device)
    for critic_step in range(config.critic_steps):
        last = critic_step == config.critic_steps - 1
        mixture = member_of(state.volume.mixture(config.batch_size, state.generator), group)
        importance = None if mixture.importance is None else mixture.importance.detach()
        with torch.set_grad_enabled(last):  # only the volume step needs the way back
            fake = simulate_batch(state, config, data, settings, spectrum, group, mixture)
        real = next(batches)
        if config.augment:
            code = int(torch.randint(8, (), generator=state.generator))
            real, fake = fourier.dihedral(real, code), fourier.dihedral(fake, code)
        both = torch.cat((real, fake.detach())).requires_grad_(penalise and relativistic)
        scores = scores_of(state, config, both)
        real_scores, fake_scores = scores.chunk(2)
        critic_loss = critic_loss_of(real_scores, fake_scores, importance)
        loss = critic_loss
        if penalise:
            if relativistic:
                penalty = losses.zero_centred_penalty(scores, both)
            else:
                penalty = losses.gradient_penalty(
                    state.critic, real, fake.detach(), state.generator, group
                )
            loss = loss + config.penalty_weight * config.penalty_every * penalty
        state.critic_optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        group.mean_gradients(state.critic.parameters())
        state.critic_optimiser.step()
    state.critic.requires_grad_(False)
    with torch.no_grad():
        real_scores_now = scores_of(state, config, real) if relativistic else real_scores
    volume_loss = volume_loss_of(
        real_scores_now, scores_of(state, config, fake), mixture.importance
    )
    state.volume_optimiser.zero_grad()
    volume_loss.backward()  # type: ignore[no-untyped-call]
    group.mean_gradients((*state.volume.parameters(), state.log_scales))
    state.volume_optimiser.step()
    state.critic.requires_grad_(True)
    return {
        "critic_loss": critic_loss.detach(),
        "volume_loss": volume_loss.detach(),
        "distance": -losses.critic_wasserstein(real_scores, fake_scores, importance).detach(),
        "penalty": penalty.detach(),
    }


def scores_of(state: AdversarialState, config: AdversarialConfig, images: Tensor) -> Tensor:
    """(n,) critic scores of preprocessed images (n, D, D), in the precision of the settings."""
    fast = in_bfloat16(config, images.device)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=fast):
        scores: Tensor = state.critic(images)
    return scores.float()


def in_bfloat16(config: AdversarialConfig, device: torch.device) -> bool:
    """Whether the critic's matrix products are made in bfloat16."""
    if config.precision != "auto":
        return config.precision == "bfloat16"
    if device.type == "cpu":
        return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
