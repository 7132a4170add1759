"""Central slices of a map in all directions of a level of the pose search."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan.objectives.likelihood.orientation_grid import OrientationGrid, orientation_grid
from cryogan.objectives.likelihood.search_levels import Level
from cryogan.physics.circular_harmonics import CircularHarmonics


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
            power = _slices(self.spectrum, self.band, self.grid.frame[needed])[1][place]
        return torch.einsum("nr,nkr->nk", b[:, : self.band.rings], power)

    def take(self, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients (..., M') and powers (..., R') of directions (...)."""
        if self.plane is not None and self.power is not None:
            return self.plane[direction], self.power[direction]
        needed, place = torch.unique(direction, return_inverse=True)
        plane, power = _slices(self.spectrum, self.band, self.grid.frame[needed])
        return plane[place], power[place]


def reference(
    spectrum: Tensor, harmonics: CircularHarmonics, level: Level, most_bytes: float = 2e9
) -> Reference:
    """Slices of a `volume_spectrum`; made on demand if all take over `most_bytes`."""
    directions = orientation_grid(level.nside, spectrum.device)
    band = harmonics.within(level.rings)
    if 8 * len(directions) * len(band.order) > most_bytes:
        return Reference(directions, band, spectrum, None, None)
    return Reference(directions, band, spectrum, *_slices(spectrum, band, directions.frame))


def _slices(spectrum: Tensor, band: CircularHarmonics, frame: Tensor) -> tuple[Tensor, Tensor]:
    plane = torch.cat([band.slices(spectrum, part) for part in torch.split(frame, 1024)])
    power = plane.new_zeros(len(plane), band.rings, dtype=torch.float32)
    twice = torch.where(band.order > 0, 2.0, 1.0)
    return plane, power.index_add_(1, band.ring - 1, plane.abs().square() * twice)
