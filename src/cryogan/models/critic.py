"""Critics: networks that give an image one number, higher for what looks real."""

from torch import Tensor, nn


class Critic(nn.Module):
    """A sequence of layers from (n, D, D) images to (n,) scores."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.layers(images[:, None])
        return scores[:, 0]


def compact_critic(box_size: int, channels: int) -> Critic:
    """The default: pixel-unshuffle by 2, then strided 4×4 convolutions down to 4 pixels.

    Channels double at every halving, starting with `channels` at D / 2; two linear layers give
    the score. No normalisation layers: penalties on image gradients need independent images.
    """
    layers: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(4, channels, 3, padding=1)]
    layers.append(nn.LeakyReLU(0.1))
    size = box_size // 2
    while size > 4:
        layers += [nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1), nn.LeakyReLU(0.1)]
        channels, size = 2 * channels, size // 2
    layers += [nn.Flatten(), nn.Linear(channels * size * size, 64), nn.LeakyReLU(0.1)]
    layers.append(nn.Linear(64, 1))
    return Critic(layers)


def paper_critic(box_size: int, channels: int) -> Critic:
    """The published critic: 3×3 convolution → max-pool → LeakyReLU(0.1) blocks, then FC.

    Channels double from `channels` (96) at every block. 192 px: 7 blocks and FC 10 (CryoGAN);
    32 px: 4 blocks down to 768 × 2 × 2 and FC 50 (Multi-CryoGAN). Other boxes have blocks down
    to 2 pixels; boxes over 32 px have the CryoGAN head.
    """
    layers: list[nn.Module] = []
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
