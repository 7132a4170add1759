"""Critics: networks that give an image one number, higher for what looks real.

A critic is made by a function of a `CriticSpec`, registered in `registry.CRITICS` or named as
`package.module:function`. One that can be carried over to a larger box has a method `grow`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from cryogan.models.harmonics import Harmonics


@dataclass(frozen=True)
class CriticSpec:
    """What a critic is made for.

    Attributes:
        box_size: D of the images.
        rings: resolution limit, cycles per box.
        templates: number of templates, for critics that have templates.
        channels: channels of the first layer, for critics that have layers of channels.
    """

    box_size: int
    rings: int = 0
    templates: int = 64
    channels: int = 32


CriticFactory = Callable[[CriticSpec], nn.Module]
"""Makes a critic: (n, D, D) images to (n,) scores. Weights come from torch's global source."""


@runtime_checkable
class Growing(Protocol):
    """A critic that can take over the weights of one for a smaller box."""

    def grow(self, smaller: Any) -> None: ...


class Critic(nn.Module):
    """A sequence of layers from (n, D, D) images to (n,) scores."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.layers(images[:, None])
        return scores[:, 0]


def compact_critic(spec: CriticSpec) -> nn.Module:
    """Convolutional: pixel-unshuffle by 2, then strided 4×4 convolutions down to 4 pixels.

    Channels double at every halving, starting with `channels` at D / 2; two linear layers give
    the score. No normalisation layers: penalties on image gradients need independent images.
    """
    box_size, channels = spec.box_size, spec.channels
    layers: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(4, channels, 3, padding=1)]
    layers.append(nn.LeakyReLU(0.1))
    size = box_size // 2
    while size > 4:
        layers += [nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1), nn.LeakyReLU(0.1)]
        channels, size = 2 * channels, size // 2
    layers += [nn.Flatten(), nn.Linear(channels * size * size, 64), nn.LeakyReLU(0.1)]
    layers.append(nn.Linear(64, 1))
    return Critic(layers)


def paper_critic(spec: CriticSpec) -> nn.Module:
    """The published critic: 3×3 convolution → max-pool → LeakyReLU(0.1) blocks, then FC.

    Channels double from `channels` (96) at every block. 192 px: 7 blocks and FC 10 (CryoGAN);
    32 px: 4 blocks down to 768 × 2 × 2 and FC 50 (Multi-CryoGAN). Other boxes have blocks down
    to 2 pixels; boxes over 32 px have the CryoGAN head.
    """
    layers: list[nn.Module] = []
    box_size, channels = spec.box_size, spec.channels
    size, incoming = box_size, 1
    while size > 2:
        layers += [
            nn.Conv2d(incoming, channels, 3, padding=1),
            nn.MaxPool2d(2),
            nn.LeakyReLU(0.1),
        ]
        incoming, channels, size = channels, 2 * channels, size // 2
    hidden = 50 if box_size <= 32 else 10
    layers += [nn.Flatten(), nn.Linear(incoming * size * size, hidden), nn.LeakyReLU(0.1)]
    layers.append(nn.Linear(hidden, 1))
    return Critic(layers)


class TemplateCritic(nn.Module):
    """Matched filters as a critic: learnt templates, each compared with the image at all angles.

    At low signal-to-noise ratios nothing local tells a particle from noise; only a comparison
    with the whole expected image does. A template is a set of circular harmonics w(k, m)
    (`models.harmonics`), so its correlation with an image turned by φ is

        r(φ) = Re Σ_m exp(i m φ) Σ_k conj(w(k, m)) c(k, m),

    a few matrix products for all templates and angles together. As in the log-likelihood of an
    image with unknown in-plane angle, what counts is log mean_φ exp(r(φ) + b), a smooth maximum;
    two linear layers make the score of these. The score does not change when an image is turned.

    A critic for a larger box that has this one's weights in its first rings and orders and zeros
    elsewhere critics alike (`grow`).

    Args:
        box_size: D.
        rings: resolution limit, cycles per box.
        templates: number of templates.
        hidden: width of the hidden linear layer.
    """

    turns: Tensor

    def __init__(self, box_size: int, rings: int, templates: int, hidden: int = 128) -> None:
        super().__init__()
        self.harmonics = Harmonics(box_size, rings)
        orders = self.harmonics.orders
        angles = 2 * orders
        phase = torch.arange(angles)[:, None] * torch.arange(orders) * (2 * math.pi / angles)
        turns = torch.stack((torch.cos(phase), -torch.sin(phase)), dim=-1)  # (angles, m, 2)
        self.register_buffer("turns", turns.flatten(1), persistent=False)
        coefficients = 2 * int((self.harmonics.scale > 0).sum())
        self.templates = nn.Parameter(
            torch.randn(2, orders, templates, rings) / math.sqrt(coefficients)
        )
        self.bias = nn.Parameter(torch.zeros(templates, 1))
        self.head = nn.Sequential(
            nn.Linear(templates, hidden), nn.LeakyReLU(0.1), nn.Linear(hidden, 1)
        )

    @torch.no_grad()
    def grow(self, smaller: "TemplateCritic") -> None:
        """Take over `smaller`, of a smaller box: its weights, and zeros for new harmonics."""
        _, orders, _, rings = smaller.templates.shape
        self.templates.zero_()
        self.templates[:, :orders, :, :rings] = smaller.templates
        self.bias.copy_(smaller.bias)
        self.head.load_state_dict(smaller.head.state_dict())

    def responses(self, images: Tensor) -> Tensor:
        """(angles, templates, n) correlations r(φ) of images (n, D, D)."""
        harmonics = self.harmonics(images)
        orders, _, n = harmonics.shape
        real, imaginary = self.templates * self.harmonics.scale[:, None]
        weights = torch.cat(
            (torch.cat((real, imaginary), -1), torch.cat((-imaginary, real), -1)), 1
        )  # (orders, 2 × templates, 2 × rings)
        products = torch.bmm(weights, harmonics)
        return (self.turns @ products.view(2 * orders, -1)).view(len(self.turns), -1, n)

    def forward(self, images: Tensor) -> Tensor:
        """(n,) scores of images (n, D, D)."""
        responses = self.responses(images) + self.bias
        best = torch.logsumexp(responses, 0) - math.log(len(self.turns))
        scores: Tensor = self.head(best.T)
        return scores[:, 0]


def template_critic(spec: CriticSpec) -> nn.Module:
    """A `TemplateCritic`."""
    return TemplateCritic(spec.box_size, spec.rings, spec.templates)
