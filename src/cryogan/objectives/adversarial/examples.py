"""Real images beside simulated ones, as the critic sees them."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.objectives.adversarial.config import AdversarialConfig
from cryogan.objectives.adversarial.loop import Progress
from cryogan.objectives.adversarial.simulated_images import (
    draw_conditions,
    draw_noise,
    draw_scales,
    render,
)
from cryogan.physics.ctf import ctf
from cryogan.physics.imaging import preprocess
from cryogan.physics.projection import volume_spectrum

_COUNT = 8
SPECTRUM_IMAGES = 2000
"""Of either kind, for the spectra."""


@torch.no_grad()
def example_images(
    progress: Progress, config: AdversarialConfig, spectrum_images: int = SPECTRUM_IMAGES
) -> dict[str, Tensor]:
    """Arrays (8, D, D): `real`, and simulated `clean`, `ctf` (no noise yet) and `noisy`.

    `clean` and `ctf` are not normalised, so that their grey values are those of `noisy` less
    its noise; `ctf` is phase-flipped if the critic's images are. `real_power` and `noisy_power`
    (D // 2 + 1,) are mean power spectra of up to `spectrum_images` images (`power_images`) of each
    kind. Random numbers are drawn from the state's generator.
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
    noisy = noisy * draw_scales(state, config, data)
    count = min(spectrum_images, len(data))
    chosen = torch.randperm(len(data), generator=state.generator)[:count]
    real_power = mean_power(
        data.images.read(part) for part in torch.split(chosen, config.batch_size)
    )
    noisy_power = mean_power(_noisy(progress, config, spectrum, count))
    return {
        "real_power": real_power,
        "noisy_power": noisy_power,
        "power_images": torch.tensor([count]),
        "real": data.images.read(torch.arange(min(_COUNT, len(data)))).cpu(),
        "clean": render(state, config, data, spectrum, pose, None, None, mixture)[:_COUNT].cpu(),
        "ctf": render(state, config, data, spectrum, pose, seen, None, mixture)[:_COUNT].cpu(),
        "noisy": preprocess(noisy, settings, transfer)[:_COUNT].cpu(),
    }


def mean_power(batches: Iterable[Tensor]) -> Tensor:
    """(D // 2 + 1,) mean power by shell of the images (n, D, D) of all batches, on the CPU.

    White noise of variance 1 a pixel has a power of 1.
    """
    total, count = torch.zeros(()), 0
    for images in batches:
        size = images.shape[-1]
        power = fourier.rfft(images).abs().square() / size**2
        total = total + fourier.shell_mean(power, size).double().sum(0).cpu()
        count += len(images)
    return (total / count).float()


def _noisy(
    progress: Progress, config: AdversarialConfig, spectrum: Tensor, count: int
) -> Iterator[Tensor]:
    """Batches of `count` simulated images in all, as the critic sees them."""
    state, data = progress.state, progress.data
    for begin in range(0, count, config.batch_size):
        mixture = state.volume.mixture(config.batch_size, state.generator).coefficients
        pose, ctf_params = draw_conditions(state, config, data)
        transfer = ctf(ctf_params, data.box_size, data.pixel_size_A)
        noise = draw_noise(state, config, data)
        images = render(state, config, data, spectrum, pose, transfer, noise, mixture)
        images = images * draw_scales(state, config, data)
        yield preprocess(images, progress.settings, transfer)[: count - begin]
