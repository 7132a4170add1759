"""Central slices of a map in all directions of a level of the pose search."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan.objectives.likelihood.orientation_grid import OrientationGrid, orientation_grid
from cryogan.objectives.likelihood.search_levels import Level
from cryogan.physics.circular_harmonics import CircularHarmonics

_AT_ONCE = 1024  # directions


@dataclass(frozen=True)
class Reference:
    """Central slices of a map in the directions of one level.

    Attributes:
        grid: the directions.
        band: the rings of the level.
        spectrum: from `physics.projection.volume_spectrum`.
        plane: (V, M') coefficients in all directions; None where there are too many to keep.
        power: (V, R') mean of |P|² on every ring, or None.
    """

    grid: OrientationGrid
    band: CircularHarmonics
    spectrum: Tensor
    plane: Tensor | None
    power: Tensor | None

    def power_of(self, direction: Tensor, b: Tensor) -> Tensor:
        """(n, K) Σ |P|² B of directions (n, K) and images (n, R)."""
        if self.power is not None:
            power = self.power[direction]
        else:
            needed, place = torch.unique(direction, return_inverse=True)
            power = _power(self._made(needed), self.band)[place]
        return torch.einsum("nr,nkr->nk", b[:, : self.band.rings], power)

    def take(self, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients (..., M') and powers (..., R') of directions (...)."""
        if self.plane is not None and self.power is not None:
            return self.plane[direction], self.power[direction]
        needed, place = torch.unique(direction, return_inverse=True)
        plane = self._made(needed)
        return plane[place], _power(plane, self.band)[place]

    def _made(self, direction: Tensor) -> Tensor:
        """(n, M') slices in directions (n,)."""
        frames = torch.split(self.grid.frame[direction], _AT_ONCE)
        return torch.cat([self.band.slices(self.spectrum, frame) for frame in frames])


def reference(
    spectrum: Tensor, harmonics: CircularHarmonics, level: Level, most_bytes: float = 2e9
) -> Reference:
    """Slices of a `volume_spectrum`; made on demand if all take over `most_bytes`."""
    directions = orientation_grid(level.nside, spectrum.device)
    band = harmonics.within(level.rings)
    if 8 * len(directions) * len(band.order) > most_bytes:
        return Reference(directions, band, spectrum, None, None)
    plane = slices_of_level(spectrum, band, directions)
    return Reference(directions, band, spectrum, plane, _power(plane, band))


def slices_of_level(spectrum: Tensor, band: CircularHarmonics, grid: OrientationGrid) -> Tensor:
    """(V, M') slices in all directions of a level; every second one is the other side of another.

    Args:
        spectrum: from `volume_spectrum`.
        band: the rings.
        grid: a whole level.
    """
    assert grid.opposite is not None
    plane = torch.empty(len(grid), len(band.order), dtype=spectrum.dtype, device=spectrum.device)
    one = (torch.arange(len(grid), device=spectrum.device) < grid.opposite).nonzero()[:, 0]
    for part in torch.split(one, _AT_ONCE):
        found = band.slices(spectrum, grid.frame[part])
        plane[part] = found
        plane[grid.opposite[part]] = band.mirrored(found)
    return plane


def _power(plane: Tensor, band: CircularHarmonics) -> Tensor:
    """(n, R') sums of |P|² over the orders of every ring."""
    power = plane.new_zeros(len(plane), band.rings, dtype=torch.float32)
    twice = torch.where(band.order > 0, 2.0, 1.0)
    return power.index_add_(1, band.ring - 1, plane.abs().square() * twice)
