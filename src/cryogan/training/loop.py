"""The game, as one straight function."""

import math
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.memory import return_freed_memory
from cryogan.models.generator import ALIKE, Mixture
from cryogan.particles import CTFParams, Particles, Pose
from cryogan.physics.ctf import ctf as ctf_of
from cryogan.physics.distributions import (
    AngularCentralGaussian,
    PoseDistribution,
    Triangular,
    Uniform,
)
from cryogan.physics.imaging import Preprocessing, form_images, preprocess
from cryogan.physics.noise import BackgroundPatches, colour, white
from cryogan.physics.projection import volume_spectrum
from cryogan.training import losses
from cryogan.training.config import Stage, TrainingConfig
from cryogan.training.data import Measurement, StageData, at_box, measure, prepare_stage
from cryogan.training.state import TrainingState, begin_stage, restore
from cryogan.training.stream import real_indices
from cryogan.training.team import ALONE, Team

SETTLING_STEPS = 50


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

    state: TrainingState
    data: StageData
    settings: Preprocessing
    record: dict[str, float]
    fraction: float


def limited_to(config: TrainingConfig, box_size: int) -> TrainingConfig:
    """The same settings for images of `box_size`: no stage has a larger box, all have even ones.

    Stages that come to have the same box are made one, unless conformations begin with one.

    Raises:
        InputError: no training is possible in that box.
    """
    even = box_size - box_size % 2
    if even < 16:
        raise InputError(
            f"The particles have a box of {box_size} px; give particles of at least 16 px."
        )
    if config.generator == "unet" and even < config.stages[0].box_size and even % 16:
        raise InputError(
            f"The U-Net needs a box that is a multiple of 16, and the particles' {box_size} px are "
            f"fewer than the stage's {config.stages[0].box_size}; give a stage of "
            f"{even - even % 16} px, or --training.generator subspace."
        )
    stages: list[Stage] = []
    for stage in config.stages:
        stage = replace(stage, box_size=min(stage.box_size, even))
        last = stages[-1] if stages else None
        if last and (last.box_size, last.consensus) == (stage.box_size, stage.consensus):
            stages[-1] = replace(last, images=last.images + stage.images)
        else:
            stages.append(stage)
    return replace(config, stages=tuple(stages))


def preprocessing(config: TrainingConfig, measurement: Measurement, box_size: int) -> Preprocessing:
    """The one preprocessing of a stage, for both streams."""
    whitening = None
    if config.power_limit is not None:
        noise = at_box(measurement.spectra.noise, box_size)
        power = at_box(measurement.power, box_size)
        whitening = (noise + power / config.power_limit).rsqrt()
        whitening[0] = 0.0  # an image's mean is an accident of its micrograph
    return Preprocessing(
        box_size,
        band=config.band,
        whitening=whitening,
        phase_flip=config.phase_flip,
        window_radius=config.window_radius,
        normalise=config.normalise,
    )


def train(
    particles: Particles,
    config: TrainingConfig,
    *,
    seed: int,
    device: torch.device,
    background: BackgroundPatches | None = None,
    checkpoint: dict[str, Any] | None = None,
    team: Team = ALONE,
    log_every: int = 20,
) -> Iterator[Progress]:
    """Play the game; yield every `log_every` steps and at the end of each stage.

    The caller logs, saves checkpoints and may stop at any time by not asking for more. Started
    with a checkpoint, the run goes on as if it had never stopped.

    Args:
        particles: the real images; their poses are unknown here.
        config: settings.
        seed: of everything random in this run.
        device: where the game is played; random numbers are drawn on the CPU.
        background: measured noise instead of a spectrum.
        checkpoint: from `state.load_checkpoint`.
        team: the processes that play this game together, all with the same arguments; they share
            every batch, and states and records are the same in all of them.
        log_every: volume steps between records.

    Raises:
        InputError: the team cannot share a batch equally.
    """
    team.check_batch(config.batch_size)
    config = limited_to(config, particles.box_size)
    generator = torch.Generator().manual_seed(seed)
    state: TrainingState | None = None
    data: StageData | None = None
    measurement = measure(particles, background)
    step_images = config.batch_size * config.critic_steps
    planned = [stage.images // step_images * step_images for stage in config.stages]
    first_stage = 0 if checkpoint is None else int(checkpoint["stage"])
    for number in range(first_stage, len(config.stages)):
        started = _clock()
        box_size = config.stages[number].box_size
        settings = preprocessing(config, measurement, box_size)
        if data is not None:
            data.images.drop()
            return_freed_memory()
        data = prepare_stage(particles, settings, measurement, background, config.memory_GB, device)
        state = begin_stage(config, number, box_size, data.spectra, generator, device, state)
        if checkpoint is not None:
            state, checkpoint = restore(state, checkpoint), None
        steps = planned[number] // step_images
        sums: dict[str, Tensor] = {}
        _spend(state, started, team)
        indices = real_indices(
            seed,
            number,
            range(state.step, steps),
            config.critic_steps,
            config.batch_size,
            len(data),
        )
        with closing(data.images.batches(map(team.mine, indices))) as batches:
            while not _stage_over(state, config, steps):
                started = _clock()
                fraction = (sum(planned[:number]) + state.step * step_images) / sum(planned)
                _set_learning_rates(state, config, fraction, len(data))
                state.volume.leak = _leak(state, steps)
                step_record = _step(state, config, data, settings, batches, team)
                state.step += 1
                state.images_seen += step_images
                _average(state, config)
                if state.step % SETTLING_STEPS == 0:
                    settle(state, config)
                    settled = torch.tensor(state.settled, dtype=torch.float64)
                    state.settled = float(team.mean(settled))  # all end the stage together
                for name, value in step_record.items():
                    sums[name] = sums.get(name, torch.zeros((), device=device)) + value
                _spend(state, started, team)
                over = _stage_over(state, config, steps)
                if state.step % log_every == 0 or over:
                    since = (state.step - 1) % log_every + 1
                    means = team.mean(torch.stack(tuple(sums.values()))).tolist()
                    record = {name: mean / since for name, mean in zip(sums, means, strict=True)}
                    sums = {}
                    yield Progress(
                        state,
                        data,
                        settings,
                        _record(state, box_size, record),
                        (sum(planned[: number + over]) + (not over) * state.step * step_images)
                        / sum(planned),
                    )


def _stage_over(state: TrainingState, config: TrainingConfig, steps: int) -> bool:
    """Whether the stage has its images, or, unless it is the last, its volume has settled."""
    last = state.stage == len(config.stages) - 1
    return state.step >= steps or (not last and state.settled >= config.settled_fsc)


def settle(state: TrainingState, config: TrainingConfig) -> None:
    """Compare the averaged volume with that of `SETTLING_STEPS` before, in its finest shells."""
    box_size = state.volume.box_size
    rings = fourier.rings_within(box_size, config.band)
    finest = slice(2 * rings // 3 + 1, rings + 1)
    now, before = (
        fourier.rfft(state.volume.mean_volume(snapshot), 3)
        for snapshot in (state.average, state.before)
    )
    product, power_now, power_before = (
        fourier.shell_sum(value, box_size, 3)[finest].sum()
        for value in ((now * before.conj()).real, now.abs().square(), before.abs().square())
    )
    state.settled = float(product / (power_now * power_before).sqrt().clamp_min(1e-20))
    state.before = state.average.clone()


def _step(
    state: TrainingState,
    config: TrainingConfig,
    data: StageData,
    settings: Preprocessing,
    batches: Iterator[Tensor],
    team: Team = ALONE,
) -> dict[str, Tensor]:
    """`critic_steps` critic steps, then one volume step on the last simulated batch."""
    relativistic = config.loss == "relativistic"
    critic_loss_of = losses.critic_relativistic if relativistic else losses.critic_wasserstein
    volume_loss_of = losses.volume_relativistic if relativistic else losses.volume_wasserstein
    components = state.volume.components(state.generator)
    spectrum = volume_spectrum(components, config.stages[state.stage].padding)
    penalise = state.step % config.penalty_every == 0
    penalty = torch.zeros((), device=spectrum.device)
    for critic_step in range(config.critic_steps):
        last = critic_step == config.critic_steps - 1
        mixture = _mine(state.volume.mixture(config.batch_size, state.generator), team)
        importance = None if mixture.importance is None else mixture.importance.detach()
        with torch.set_grad_enabled(last):  # only the volume step needs the way back
            fake = simulate_batch(state, config, data, settings, spectrum, team, mixture)
        real = next(batches)
        if config.augment:
            code = int(torch.randint(8, (), generator=state.generator))
            real, fake = fourier.dihedral(real, code), fourier.dihedral(fake, code)
        both = torch.cat((real, fake.detach())).requires_grad_(penalise and relativistic)
        scores = _judge(state, config, both)
        real_scores, fake_scores = scores.chunk(2)
        critic_loss = critic_loss_of(real_scores, fake_scores, importance)
        loss = critic_loss
        if penalise:
            if relativistic:
                penalty = losses.zero_centred_penalty(scores, both)
            else:
                penalty = losses.gradient_penalty(
                    state.critic, real, fake.detach(), state.generator, team
                )
            loss = loss + config.penalty_weight * config.penalty_every * penalty
        state.critic_optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        team.mean_gradients(state.critic.parameters())
        state.critic_optimiser.step()
    state.critic.requires_grad_(False)
    with torch.no_grad():
        real_scores_now = _judge(state, config, real) if relativistic else real_scores
    volume_loss = volume_loss_of(real_scores_now, _judge(state, config, fake), mixture.importance)
    state.volume_optimiser.zero_grad()
    volume_loss.backward()  # type: ignore[no-untyped-call]
    team.mean_gradients((*state.volume.parameters(), state.log_scales))
    state.volume_optimiser.step()
    state.critic.requires_grad_(True)
    return {
        "critic_loss": critic_loss.detach(),
        "volume_loss": volume_loss.detach(),
        "distance": -losses.critic_wasserstein(real_scores, fake_scores, importance).detach(),
        "penalty": penalty.detach(),
    }


def _judge(state: TrainingState, config: TrainingConfig, images: Tensor) -> Tensor:
    fast = in_bfloat16(config, images.device)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=fast):
        scores: Tensor = state.critic(images)
    return scores.float()


def in_bfloat16(config: TrainingConfig, device: torch.device) -> bool:
    """Whether the critic's matrix products are made in bfloat16."""
    if config.precision != "auto":
        return config.precision == "bfloat16"
    if device.type == "cpu":
        return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def simulate_batch(
    state: TrainingState,
    config: TrainingConfig,
    data: StageData,
    settings: Preprocessing,
    spectrum: Tensor,
    team: Team = ALONE,
    mixture: Mixture = ALIKE,
) -> Tensor:
    """A batch of simulated images as the critic sees them, differentiable in `spectrum`.

    Args:
        state, config, data, settings: of the stage.
        spectrum: of `state.volume.components`.
        team: whose batch is shared; its member's part of the images is returned.
        mixture: that member's part of the draw of volumes.
    """
    if spectrum.ndim == 4 and mixture.amounts is None:  # m volumes for the whole batch in turn
        spectrum = team.mine(spectrum)
    pose, ctf_params = draw_conditions(state, config, data, team)
    transfer = ctf_of(ctf_params, data.box_size, data.pixel_size_A)
    noise = draw_noise(state, config, data, team)
    images = render(state, config, data, spectrum, pose, transfer, noise, mixture.amounts)
    return preprocess(images, settings, transfer)


def _mine(mixture: Mixture, team: Team) -> Mixture:
    return Mixture(*(None if part is None else team.mine(part) for part in mixture))


def draw_conditions(
    state: TrainingState, config: TrainingConfig, data: StageData, team: Team = ALONE
) -> tuple[Pose, CTFParams]:
    """Random poses, and CTFs drawn from those of the particles."""
    device = data.images.device
    width_A = config.shift_percent / 100.0 * data.box_size * data.pixel_size_A
    views = Uniform() if config.view_sigma == 1 else AngularCentralGaussian(config.view_sigma)
    poses = PoseDistribution(views, Triangular(width_A))
    pose = team.mine(poses.sample(config.batch_size, state.generator)).to(device)
    chosen = torch.randint(len(data), (config.batch_size,), generator=state.generator)
    return pose, data.ctf[team.mine(chosen).to(device)]


def draw_noise(
    state: TrainingState, config: TrainingConfig, data: StageData, team: Team = ALONE
) -> Tensor:
    """Noise images: measured background, or white noise given the data's spectrum."""
    device = data.images.device
    n = config.batch_size
    if data.patches is not None:
        return team.mine(data.patches.sample(n, state.generator)).to(device)
    noise = team.mine(white(n, data.box_size, state.generator)).to(device)
    return colour(noise, data.spectra.noise.to(device)) if config.estimate_spectra else noise


def render(
    state: TrainingState,
    config: TrainingConfig,
    data: StageData,
    spectrum: Tensor,
    pose: Pose,
    transfer: Tensor | None,
    noise: Tensor | None,
    amounts: Tensor | None = None,
) -> Tensor:
    """Images before preprocessing, with the learnt contrast and noise scale."""
    contrast, noise_scale = state.log_scales.exp()
    return form_images(
        spectrum,
        pose,
        None if transfer is None else transfer * contrast,
        box_size=data.box_size,
        pixel_size_A=data.pixel_size_A,
        noise=None if noise is None else noise * noise_scale,
        amounts=amounts,
        band=config.band,
        folded=config.stages[state.stage].padding >= 3,
        shifted=config.shift_percent > 0,
    )


def _leak(state: TrainingState, steps: int) -> float:
    """0.1 at first, 1 (no positivity) from half of the first stage on."""
    return 1.0 if state.stage > 0 else min(1.0, 0.1 + 1.8 * state.step / steps)


def _set_learning_rates(
    state: TrainingState, config: TrainingConfig, fraction: float, particle_count: int
) -> None:
    if config.lr_schedule == "epoch":
        factor = config.lr_epoch_factor ** (state.images_seen // particle_count)
    else:
        hold = 0.5 if config.lr_schedule == "hold" else 0.0
        falling = max(0.0, fraction - hold) / (1.0 - hold)
        factor = 0.05 + 0.95 * 0.5 * (1.0 + math.cos(math.pi * falling))
    for group in state.critic_optimiser.param_groups:
        group["lr"] = config.critic_lr * factor
    for group in state.volume_optimiser.param_groups:
        group["lr"] = config.volume_lr * factor


@torch.no_grad()
def _average(state: TrainingState, config: TrainingConfig) -> None:
    keep = 0.0
    if config.ema_fraction > 0:
        keep = 1.0 - 1.0 / (config.ema_fraction * state.step + 1.0)
    state.average = keep * state.average + (1.0 - keep) * state.volume.snapshot()


def _record(state: TrainingState, box_size: int, means: dict[str, float]) -> dict[str, float]:
    contrast, noise_scale = state.log_scales.detach().exp().tolist()
    return {
        "step": state.step,
        "images_seen": state.images_seen,
        "stage": state.stage,
        "box_size": box_size,
        **means,
        "contrast": contrast,
        "noise_scale": noise_scale,
        "settled": state.settled,
        "images_per_s": state.images_seen / max(state.wall_s, 1e-9),
        "wall_s": state.wall_s,
        "cpu_s": state.cpu_s,
    }


def _clock() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _spend(state: TrainingState, started: tuple[float, float], team: Team) -> None:
    wall, cpu = _clock()
    state.wall_s += wall - started[0]
    state.cpu_s += (cpu - started[1]) * team.size  # all members work alike
