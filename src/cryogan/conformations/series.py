"""A series of maps in one frame: the conformations of a run, or true states."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Series:
    """Maps in one frame.

    Attributes:
        names: of the maps.
        volumes: (n, D, D, D).
        pixel_size_A: of all.
        weight: (n,) float64, share of the images each stands for; sum 1.
        coordinate: (n, m) float64, where each lies on the latent's or path's m axes; m may be 0.
        circular: of each axis, whether 1 is 0 again; empty if that is not known.
    """

    names: list[str]
    volumes: Tensor
    pixel_size_A: float
    weight: Tensor
    coordinate: Tensor
    circular: tuple[bool, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def mean(self) -> Tensor:
        """(D, D, D), weighted."""
        return weighted_mean(self.volumes, self.weight)

    @property
    def kind(self) -> Literal["path", "classes", "grid"]:
        """Maps in an order, classes (latents 0, 1 ... n - 1), or a full grid of two latents."""
        if self.coordinate.shape[1] == 2 and self.grid is not None:
            return "grid"
        if self.coordinate.shape[1] == 1:
            numbered = self.coordinate[:, 0] == torch.arange(len(self))
            return "classes" if bool(numbered.all()) else "path"
        return "path"

    @property
    def grid(self) -> tuple[int, int] | None:
        """Numbers of values of the two latents, the last changing fastest; None if no such grid."""
        if self.coordinate.shape[1] != 2:
            return None
        axes = [torch.unique(column) for column in self.coordinate.T]
        points = torch.cartesian_prod(*axes)
        full = points.shape == self.coordinate.shape and bool((points == self.coordinate).all())
        return (len(axes[0]), len(axes[1])) if full else None


def numbered_series(
    volumes: Tensor, pixel_size_A: float, weights: Tensor, latents: Tensor
) -> Series:
    """Volumes (n, D, D, D) with their weights (n,) and latents (n, d), as `vol_000.mrc` ..."""
    return Series(
        [f"vol_{number:03d}.mrc" for number in range(len(volumes))],
        volumes,
        pixel_size_A,
        weights.double() / float(weights.sum()),
        latents.double(),
    )


def weighted_mean(volumes: Tensor, weight: Tensor) -> Tensor:
    """(D, D, D) mean of volumes (n, D, D, D)."""
    mean: Tensor = torch.tensordot(weight.to(volumes), volumes, dims=1)
    return mean
