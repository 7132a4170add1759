"""Real images beside simulated ones, as the critic sees them."""

import torch
from torch import Tensor

from cryogan.objectives.adversarial.config import AdversarialConfig
from cryogan.objectives.adversarial.loop import Progress
from cryogan.objectives.adversarial.simulated_images import draw_conditions, draw_noise, render
from cryogan.physics.ctf import ctf
from cryogan.physics.imaging import preprocess
from cryogan.physics.projection import volume_spectrum

_COUNT = 8


@torch.no_grad()
def example_images(progress: Progress, config: AdversarialConfig) -> dict[str, Tensor]:
    """Arrays (8, D, D): `real`, and simulated `clean`, `ctf` (no noise yet) and `noisy`.

    `clean` and `ctf` are not normalised, so that their grey values are those of `noisy` less
    its noise; `ctf` is phase-flipped if the critic's images are.
    """
    state, data, settings = progress.state, progress.data, progress.settings
    volumes = state.volume.basis_of(state.average, state.generator)
    spectrum = volume_spectrum(volumes, config.stages[state.stage].padding)
    mixture = state.volume.mixture(config.batch_size, state.generator).coefficients
    pose, ctf_params = draw_conditions(state, config, data)
    transfer = ctf(ctf_params, data.box_size, data.pixel_size_A)
    seen = transfer.abs() if config.phase_flip else transfer
    noise = draw_noise(state, config, data)
    noisy = render(state, config, data, spectrum, pose, transfer, noise, mixture)
    return {
        "real": data.images.read(torch.arange(min(_COUNT, len(data)))).cpu(),
        "clean": render(state, config, data, spectrum, pose, None, None, mixture)[:_COUNT].cpu(),
        "ctf": render(state, config, data, spectrum, pose, seen, None, mixture)[:_COUNT].cpu(),
        "noisy": preprocess(noisy, settings, transfer)[:_COUNT].cpu(),
    }
