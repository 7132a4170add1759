"""Circular harmonics of images: coefficients that an in-plane rotation only turns in phase.

The Fourier transform of an image on the ring of k cycles per box is `F(k, θ)`. Its harmonics

    c(k, m) = mean over θ of F(k, θ) exp(-i m θ),   m = 0, 1, 2, ...

become `c(k, m) exp(-i m φ)` when the image is turned by φ. A particle of radius ρ (in boxes)
has harmonics up to about m = 2π k ρ. Steerable filters and rotation-invariant classification
(Zhao and Singer 2014, in a Bessel basis) rest on the same property.
"""

import math

import torch
from torch import Tensor, nn

from cryogan import fourier

_PADDING = 2
_FAINTEST = 0.05  # of a ring's loudest harmonic; what is fainter cannot hold the particle


class Harmonics(nn.Module):
    """The linear map from images to their harmonics, in units of the noise.

    Images are windowed, transformed with twofold padding, and read along rings by bilinear
    interpolation. White noise of unit variance per pixel gives every coefficient unit variance,
    whatever the box (crops being unitary, `physics.imaging.preprocess`): a crop that keeps the
    rings keeps their harmonics.

    Args:
        box_size: D.
        rings: rings k = 1 ... `rings`, at most D // 2 - 1.
        radius: of the soft window, as a fraction of half the box; its edge is 0.1 wide.

    Attributes:
        orders: number of orders m = 0 ... orders - 1.
        scale: (orders, rings) 1 / standard deviation that noise gives c(k, m); 0 where the
            window leaves (next to) nothing.
    """

    window: Tensor
    corners: Tensor
    weights: Tensor
    angular: Tensor
    scale: Tensor

    def __init__(self, box_size: int, rings: int, radius: float = 0.9) -> None:
        super().__init__()
        self.box_size, self.rings = box_size, rings
        self.orders = math.ceil(0.9 * math.pi * radius * rings)
        padded = _PADDING * box_size
        disc = fourier.soft_disc(box_size, radius * box_size / 2, 0.1 * box_size / 2)
        envelope = torch.sinc((torch.arange(box_size) - box_size // 2) / padded).square()
        self.register_buffer("window", disc / (envelope[:, None] * envelope), persistent=False)
        angles = self.orders + 1  # in half a turn: two for every order in a whole one
        theta = (torch.arange(angles) + 0.5) * (math.pi / angles) - math.pi / 2
        ring = _PADDING * torch.arange(1, rings + 1)
        corners, weights = _bilinear(
            theta.cos()[:, None] * ring, theta.sin()[:, None] * ring, padded
        )
        self.register_buffer("corners", corners, persistent=False)
        self.register_buffer("weights", weights, persistent=False)
        order = torch.arange(self.orders)
        # F(k, θ + π) is the conjugate of F(k, θ): over a whole turn, only the real part of F is
        # left in even orders and only its imaginary part in odd ones.
        part = torch.stack((1 - order % 2, order % 2), dim=1)[:, None, :, None]  # (m, 1, 2, 1)
        turn = torch.stack(
            (torch.cos(order[:, None] * theta), -torch.sin(order[:, None] * theta)), 1
        )
        angular = part * turn[:, :, None] / angles  # (m, 2, 2, angles)
        self.register_buffer("angular", angular.reshape(2 * self.orders, -1), persistent=False)
        variance = _noise_variance(disc, rings, self.orders)
        heard = variance > _FAINTEST * variance.amax(0)
        scale = torch.where(heard, variance.clamp_min(1e-20).rsqrt(), 0.0)
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Harmonics (orders, 2 × rings, n) of images (n, D, D), not yet multiplied by `scale`.

        Real parts come first, then imaginary parts. Odd orders are divided by i.
        """
        n = images.shape[0]
        plane = fourier.rfft_padded(images * self.window, _PADDING * self.box_size)
        flat = torch.view_as_real(plane).flatten(1, 2).permute(2, 1, 0)  # (2, frequencies, n)
        rings = sum(
            weight[:, None] * flat.index_select(1, corner)
            for corner, weight in zip(self.corners, self.weights, strict=True)
        )  # (2, angles × rings, n)
        assert isinstance(rings, Tensor)
        harmonics = self.angular @ rings.reshape(self.angular.shape[1], -1)
        return harmonics.view(self.orders, 2 * self.rings, n)


def _bilinear(kx: Tensor, ky: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Flat indices (4, points) into a half spectrum, and weights, for frequencies with kx ≥ 0."""
    x, y = kx.flatten().clamp_min(0.0), ky.flatten()
    x0, y0 = x.floor().long(), y.floor().long()
    corners, weights = [], []
    for dx in (0, 1):
        for dy in (0, 1):
            corners.append((y0 + dy) % size * (size // 2 + 1) + x0 + dx)
            weights.append((1 - (x - x0 - dx).abs()) * (1 - (y - y0 - dy).abs()))
    return torch.stack(corners), torch.stack(weights)


def _noise_variance(disc: Tensor, rings: int, orders: int) -> Tensor:
    """Variance (orders, rings) of (the real part of) c(k, m) for windowed white noise.

    The covariance of F at two points of the plane is W(q), the transform of the window's square
    at their distance q = 2 k sin(Δθ / 2); c(k, m) has its m-th Fourier coefficient over Δθ.
    """
    box_size = disc.shape[-1]
    angles = 8 * orders
    delta = torch.arange(angles, dtype=torch.float64) * (2 * math.pi / angles)
    ring = torch.arange(1, rings + 1, dtype=torch.float64)
    distance = 2 * ring[:, None] * torch.sin(delta / 2)  # (rings, angles)
    profile = disc.double().square().sum(0)
    x = torch.arange(box_size, dtype=torch.float64) - box_size // 2
    transform = torch.cos((2 * math.pi / box_size) * distance[..., None] * x) @ profile
    power = torch.fft.fft(transform).real[:, :orders].T / angles
    power[1:] /= 2  # real and imaginary parts share it; order 0 is real
    spread: Tensor = power.float()
    return spread
