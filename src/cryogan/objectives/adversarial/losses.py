"""The two games and their penalties, each per image.

Scores are (n,) tensors; the critic minimises `critic_*`, the volume minimises `volume_*`.
Simulated images may have `importance` ((n,), mean 1): weights in the expectation over them.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from cryogan.objectives.data_parallel import SINGLE_PROCESS, ProcessGroup


def expectation(values: Tensor, importance: Tensor | None) -> Tensor:
    """Mean of values (n,), weighted by importance (n,) if given."""
    return values.mean() if importance is None else (values * importance).mean()


def critic_wasserstein(real: Tensor, fake: Tensor, importance: Tensor | None = None) -> Tensor:
    """E[D(fake)] - E[D(real)] (Arjovsky et al. 2017)."""
    return expectation(fake, importance) - real.mean()


def volume_wasserstein(real: Tensor, fake: Tensor, importance: Tensor | None = None) -> Tensor:
    """-E[D(fake)]; the real images' scores do not depend on the volume."""
    return -expectation(fake, importance)


def critic_relativistic(real: Tensor, fake: Tensor, importance: Tensor | None = None) -> Tensor:
    """E softplus(D(fake) - D(real)) over pairs (Jolicoeur-Martineau 2019; R3GAN, Huang 2024)."""
    return expectation(softplus(fake - real), importance)


def volume_relativistic(real: Tensor, fake: Tensor, importance: Tensor | None = None) -> Tensor:
    """E softplus(D(real) - D(fake)) over pairs."""
    return expectation(softplus(real - fake), importance)


def gradient_penalty(
    critic: nn.Module,
    real: Tensor,
    fake: Tensor,
    generator: torch.Generator,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Tensor:
    """E (‖∇D(x)‖ - 1)² at random points x between pairs (WGAN-GP, Gulrajani et al. 2017).

    The norm is over a whole image, one norm an image.
    """
    weights = torch.rand(real.shape[0] * group.size, generator=generator)
    weight = group.mine(weights).to(real.device)[:, None, None]
    between = (weight * real + (1 - weight) * fake).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    norm = gradient.square().sum(dim=(1, 2)).sqrt()
    return (norm - 1.0).square().mean()


def zero_centred_penalty(scores: Tensor, images: Tensor) -> Tensor:
    """E ‖∇D(x)‖² over real and simulated images (Mescheder et al. 2018), one norm an image."""
    (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2)).mean()
