"""Trial placements of a map, and its Fourier coefficients there in a band of frequencies."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan import fourier


@dataclass(frozen=True)
class Placement:
    """n trial placements: rotation (n, 3, 3), shift (n, 3) in voxels, mirrored (n,) bool."""

    rotation: Tensor
    shift: Tensor
    mirrored: Tensor

    def __getitem__(self, index: Tensor) -> "Placement":
        return Placement(self.rotation[index], self.shift[index], self.mirrored[index])


@dataclass(frozen=True)
class Band:
    """The coefficients of the search band: half of a ball of `radius` Fourier pixels.

    Attributes:
        radius: in Fourier pixels.
        k: (m, 3) frequencies, cycles/voxel.
        shell: (m,) shell of each, 1 ... radius.
        weight: (m,) 1 or 2, how often each stands in the full spectrum.
        chosen: half-spectrum mask that picks them.
    """

    radius: int
    k: Tensor
    shell: Tensor
    weight: Tensor
    chosen: Tensor

    def shell_sum(self, values: Tensor) -> Tensor:
        """Weighted sums of (..., m) over shells: (..., radius + 1)."""
        total = values.new_zeros((*values.shape[:-1], self.radius + 1))
        return total.index_add_(-1, self.shell, values * self.weight)


def search_band(box_size: int, radius: int, device: torch.device) -> Band:
    """The coefficients from 1 to `radius` Fourier pixels of a box of `box_size` voxels."""
    grid = fourier.frequency_grid(box_size, 3, device)
    norm = grid.norm(dim=-1) * box_size
    chosen = (norm > 0.5) & (norm <= radius)
    weight = fourier.half_weights(box_size, device).expand(chosen.shape)[chosen]
    return Band(radius, grid[chosen], norm[chosen].round().long(), weight, chosen)


def _sample(spectrum: Tensor, point: Tensor) -> Tensor:
    """Trilinear values of `volume_spectrum`'s (P, P, P // 2 + 1) at points (..., 3), Fourier px."""
    padded_size = spectrum.shape[-3]
    half = padded_size // 2
    mirrored = point[..., 0] < 0  # F(-k) = conj F(k): read the half that is stored
    point = torch.where(mirrored[..., None], -point, point)
    scale = point.new_tensor([2.0 / half, 2.0 / (padded_size - 1), 2.0 / (padded_size - 1)])
    coordinate = (point + point.new_tensor([0.0, half, half])) * scale - 1.0
    stored = torch.view_as_real(spectrum).movedim(-1, 0)[None]
    value = torch.nn.functional.grid_sample(
        stored, coordinate.reshape(1, -1, 1, 1, 3), padding_mode="border", align_corners=True
    )
    real, imaginary = value.reshape(2, *point.shape[:-1])
    return torch.complex(real, torch.where(mirrored, -imaginary, imaginary))


def turned(spectrum: Tensor, rotation: Tensor, band: Band) -> Tensor:
    """Coefficients (n, m) of the moving map, given by `volume_spectrum`, at n rotations."""
    frequency = band.k * spectrum.shape[-3]
    return _sample(spectrum, torch.einsum("nji,mj->nmi", rotation, frequency))


def placed(spectrum: Tensor, placements: Placement, band: Band) -> Tensor:
    """Coefficients (n, m) of the moving map at each placement."""
    value = turned(spectrum, placements.rotation, band)
    value = torch.where(placements.mirrored[:, None], value.conj(), value)
    phase = -2.0 * torch.pi * placements.shift @ band.k.T
    return value * torch.polar(torch.ones_like(phase), phase)


def whitened(values: Tensor, band: Band) -> Tensor:
    """(n, m) coefficients scaled to unit mean power in each shell."""
    count = band.shell_sum(torch.ones_like(band.weight))
    power = band.shell_sum(values.abs().square()) / count.clamp_min(1.0)
    return values * power.clamp_min(1e-30).rsqrt()[..., band.shell]


def distinct(placements: Placement, score: Tensor, count: int, apart_deg: float) -> Tensor:
    """Numbers of the `count` best placements, best first, no two alike.

    Two are alike if they have the same hand and rotations within `apart_deg`.
    """
    order = score.argsort(descending=True)
    trace_limit = 1.0 + 2.0 * math.cos(math.radians(apart_deg))
    kept: list[Tensor] = []
    while len(order) and len(kept) < count:
        first = order[0]
        kept.append(first)
        trace = (placements.rotation[order] * placements.rotation[first]).sum(dim=(-2, -1))
        other_hand = placements.mirrored[order] != placements.mirrored[first]
        order = order[(trace < trace_limit) | other_hand]
    return torch.stack(kept)
