"""CryoBench's measures of maps (Jeon et al., NeurIPS 2024), as its scripts compute them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan import fourier


def cryobench_fsc(first: Tensor, second: Tensor, mask: Tensor | None = None) -> Tensor:
    """FSC in CryoBench's shells, which are not those of `evaluation.fsc`.

    Entry 0 is 1; entry i, at the frequency i / D, holds the coefficients whose distance from the
    origin is from i - 1 to below i Fourier pixels, entry 1 the origin alone.

    Args:
        first, second: (D, D, D) maps in one frame.
        mask: (D, D, D) that multiplies both, or None.

    Returns:
        (D // 2,), float64; 0 where a map has no power (the scripts have 1).
    """
    if mask is not None:
        first, second = first * mask, second * mask
    size = first.shape[-1]
    radius = fourier.frequency_grid(size, 3, first.device).double().norm(dim=-1) * size
    shell = (radius + 1e-6).floor().long()
    inside = shell < size // 2 - 1
    weight = fourier.half_weights(size, first.device).expand_as(shell)[inside].double()
    a, b = (fourier.rfft(each, 3)[inside].to(torch.complex128) for each in (first, second))

    def sums(values: Tensor) -> Tensor:
        total = torch.zeros(size // 2 - 1, dtype=torch.float64, device=values.device)
        return total.index_add_(0, shell[inside], weight * values)

    norm = (sums(a.abs().square()) * sums(b.abs().square())).sqrt()
    cross = sums((a * b.conj()).real)
    curve = torch.where(norm > 0, cross / norm.clamp_min(1e-300), 0.0)
    return torch.nn.functional.pad(curve, (1, 0), value=1.0)


def area_under_fsc(curve: Tensor, box_size: int) -> Tensor:
    """Area under the modulus of CryoBench's FSC (..., D // 2), by trapezoids in cycles/pixel.

    From 0 to (D // 2 - 1) / D: at most 63 / 128 = 0.492 in a box of 128.
    """
    area: Tensor = torch.trapezoid(curve.abs().double(), dx=1.0 / box_size, dim=-1)
    return area


@dataclass(frozen=True)
class Areas:
    """Areas under the FSC of maps with the true ones.

    Attributes:
        rows: (m,) int64, the images that the maps are of.
        state: (m,) int64, their true states.
        area: (m,).
    """

    rows: Tensor
    state: Tensor
    area: Tensor

    @property
    def mean(self) -> float:
        """Over the maps."""
        return float(self.area.mean())

    @property
    def std(self) -> float:
        """Over the maps, of the population."""
        return float(self.area.std(correction=0))

    @property
    def median(self) -> float:
        """Over the maps."""
        return float(self.area.quantile(0.5))


def images_at_equal_steps(count: int, wanted: int) -> Tensor:
    """Rows 0, s, 2 s ... of `count` images, s = count // wanted; all if there are fewer."""
    return torch.arange(0, count, max(1, count // wanted))


def images_of_states(embedding: Tensor, state: Tensor, states: int) -> Tensor:
    """Of each state, the image whose latent is nearest to the mean latent of the state's images.

    Args:
        embedding: (n, d) latents, in a space where means make sense.
        state: (n,) true states.
        states: K.

    Returns:
        (k,) int64 rows, of the k states that occur, in their order.
    """
    rows = []
    for number in range(states):
        mine = (state == number).nonzero()[:, 0]
        if len(mine):
            apart = (embedding[mine] - embedding[mine].mean(0)).square().sum(1)
            rows.append(int(mine[apart.argmin()]))
    return torch.tensor(rows)
