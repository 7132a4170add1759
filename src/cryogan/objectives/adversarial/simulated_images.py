"""Simulated images as the critic sees them: random poses, the particles' CTFs, noise."""

import torch
from torch import Tensor

from cryogan.models.base import ALIKE, Mixture
from cryogan.objectives.adversarial.config import AdversarialConfig
from cryogan.objectives.adversarial.stage import StageData
from cryogan.objectives.adversarial.state import AdversarialState
from cryogan.objectives.data_parallel import SINGLE_PROCESS, ProcessGroup
from cryogan.particles import CTFParams, Pose
from cryogan.physics.ctf import ctf as ctf_of
from cryogan.physics.distributions import PoseDistribution, Triangular
from cryogan.physics.imaging import Preprocessing, form_images, preprocess


def simulate_batch(
    state: AdversarialState,
    config: AdversarialConfig,
    data: StageData,
    settings: Preprocessing,
    spectrum: Tensor,
    group: ProcessGroup = SINGLE_PROCESS,
    mixture: Mixture = ALIKE,
) -> Tensor:
    """A batch of simulated images as the critic sees them, differentiable in `spectrum`.

    Args:
        state, config, data, settings: of the stage.
        spectrum: of `state.volume.basis`.
        group: whose batch is shared; its member's part of the images is returned.
        mixture: that member's part of the draw of volumes.
    """
    if spectrum.ndim == 4 and mixture.coefficients is None:  # m volumes for the batch in turn
        spectrum = group.mine(spectrum)
    pose, ctf_params = draw_conditions(state, config, data, group)
    transfer = ctf_of(ctf_params, data.box_size, data.pixel_size_A)
    noise = draw_noise(state, config, data, group)
    images = render(state, config, data, spectrum, pose, transfer, noise, mixture.coefficients)
    return preprocess(images * draw_scales(state, config, data, group), settings, transfer)


def member_of(mixture: Mixture, group: ProcessGroup) -> Mixture:
    """A member's part of a draw of volumes."""
    return Mixture(*(None if part is None else group.mine(part) for part in mixture))


def draw_conditions(
    state: AdversarialState,
    config: AdversarialConfig,
    data: StageData,
    group: ProcessGroup = SINGLE_PROCESS,
) -> tuple[Pose, CTFParams]:
    """Random poses, and CTFs drawn from those of the particles."""
    device, assumptions = data.images.device, config.assumptions
    width_A = assumptions.max_shift_percent / 100.0 * data.box_size * data.pixel_size_A
    poses = PoseDistribution(data.orientations, Triangular(width_A))
    pose = group.mine(poses.sample(config.batch_size, state.generator)).to(device)
    chosen = torch.randint(len(data), (config.batch_size,), generator=state.generator)
    return pose, data.ctf[group.mine(chosen).to(device)]


def draw_noise(
    state: AdversarialState,
    config: AdversarialConfig,
    data: StageData,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Tensor:
    """Noise images, from the stage's noise model."""
    noise = data.noise.draw(config.batch_size, state.generator)
    return data.noise.finish(group.mine(noise).to(data.images.device))


def draw_scales(
    state: AdversarialState,
    config: AdversarialConfig,
    data: StageData,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Tensor:
    """(n, 1, 1) scales of images: those of particles are estimated, and differ by chance.

    1 where they do not.
    """
    if data.scale_sd == 0.0:
        return torch.ones((), device=data.images.device)
    logs = data.scale_sd * torch.randn(config.batch_size, generator=state.generator)
    return group.mine(logs).exp()[:, None, None].to(data.images.device)


def render(
    state: AdversarialState,
    config: AdversarialConfig,
    data: StageData,
    spectrum: Tensor,
    pose: Pose,
    transfer: Tensor | None,
    noise: Tensor | None,
    coefficients: Tensor | None = None,
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
        coefficients=coefficients,
        band=config.band,
        folded=config.stages[state.stage].padding >= 3,
        shifted=config.assumptions.max_shift_percent > 0,
    )
