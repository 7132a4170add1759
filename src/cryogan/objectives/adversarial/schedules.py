"""What changes along the run by a fixed rule: learning rates, positivity, the averaging window."""

import math

import torch

from cryogan import fourier
from cryogan.objectives.adversarial.config import AdversarialConfig
from cryogan.objectives.adversarial.state import AdversarialState


def leak_at(state: AdversarialState, steps: int) -> float:
    """0.1 at first, 1 (no positivity) from half of the first stage on."""
    return 1.0 if state.stage > 0 else min(1.0, 0.1 + 1.8 * state.step / steps)


def set_learning_rates(
    state: AdversarialState, config: AdversarialConfig, fraction: float, particle_count: int
) -> None:
    """Set both optimisers' rates.

    Args:
        state: its optimisers are changed.
        config: `lr_schedule` and the rates.
        fraction: of the run that is done.
        particle_count: images of an epoch.
    """
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
def update_average(state: AdversarialState, config: AdversarialConfig) -> None:
    """Take the volume model's snapshot into the average over `ema_fraction` of the steps."""
    keep = 0.0
    if config.ema_fraction > 0:
        keep = 1.0 - 1.0 / (config.ema_fraction * state.step + 1.0)
    state.average = keep * state.average + (1.0 - keep) * state.volume.snapshot()


def measure_convergence(state: AdversarialState, config: AdversarialConfig) -> None:
    """Correlate the averaged volume's finest shells with those of the last measurement."""
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
    state.converged = float(product / (power_now * power_before).sqrt().clamp_min(1e-20))
    state.before = state.average.clone()
