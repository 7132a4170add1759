"""Central slices of a map in all directions of a level of the pose search."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan.objectives.likelihood.orientation_grid import OrientationGrid, orientation_grid
from cryogan.objectives.likelihood.search_levels import Level
from cryogan.physics.circular_harmonics import CircularHarmonics

KEPT_BYTES = 1e9
"""Of slices of a level that are kept."""

_AT_ONCE = 256  # directions
_WHOLE_BYTES = 2.5e8  # of slices that are kept as they are
_SAMPLED = 64  # directions that tell how strong a ring is
_LARGEST_HALF = torch.finfo(torch.float16).max
_WEAKEST = 1e-6  # of the strongest ring


@dataclass(frozen=True)
class HalfPrecision:
    """Slices in float16, one of each two that are mirror images of each other.

    Real and imaginary parts are rounded to nearest, by at most 0.05 % (2^-11) or 3e-8 (2^-25) of
    the unit of their ring, whichever is larger; those beyond 65,504 units are clipped to that.
    Scores of images whose log-likelihood is about 35 change by 0.02 at most.

    Attributes:
        scaled: (V / 2, M', 2) real and imaginary parts, in units of their ring.
        unit: (M', 1) of the rings.
        place: (V,) row of every direction.
        other_side: (V,) whether its slice is the mirror image of that row.
        band: the rings.
    """

    scaled: Tensor
    unit: Tensor
    place: Tensor
    other_side: Tensor
    band: CircularHarmonics

    def __getitem__(self, direction: Tensor) -> Tensor:
        """(..., M') coefficients in directions (...)."""
        plane = torch.view_as_complex(self.scaled[self.place[direction]] * self.unit)
        mirrored = self.other_side[direction]
        if mirrored.any():
            plane[mirrored] = self.band.mirrored(plane[mirrored])
        return plane


@dataclass(frozen=True)
class Reference:
    """Central slices of a map in the directions of one level.

    Attributes:
        grid: the directions.
        band: the rings of the level.
        spectrum: from `physics.projection.volume_spectrum`.
        plane: (V, M') coefficients in all directions; None where there are too many to keep.
            Many are kept in half precision.
        power: (V, R') mean of |P|² on every ring, or None.
    """

    grid: OrientationGrid
    band: CircularHarmonics
    spectrum: Tensor
    plane: Tensor | HalfPrecision | None
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
    spectrum: Tensor,
    harmonics: CircularHarmonics,
    level: Level,
    most_bytes: float = KEPT_BYTES,
    whole_bytes: float = _WHOLE_BYTES,
) -> Reference:
    """Slices of a `volume_spectrum` in all directions of a level.

    Args:
        spectrum: of a map.
        harmonics: the rings.
        level: of the search.
        most_bytes: slices are made on demand if they would take more.
        whole_bytes: they are kept in half precision if they would take more.
    """
    grid = orientation_grid(level.nside, spectrum.device)
    band = harmonics.within(level.rings)
    if slices_bytes(len(grid), band, most_bytes, whole_bytes) == 0.0:
        return Reference(grid, band, spectrum, None, None)
    if 8.0 * len(grid) * len(band.order) <= min(whole_bytes, most_bytes):
        plane = slices_of_level(spectrum, band, grid)
        power = torch.cat([_power(part, band) for part in torch.split(plane, _AT_ONCE)])
        return Reference(grid, band, spectrum, plane, power)
    return _in_half_precision(spectrum, band, grid)


def slices_bytes(
    directions: int,
    band: CircularHarmonics,
    most_bytes: float = KEPT_BYTES,
    whole_bytes: float = _WHOLE_BYTES,
) -> float:
    """What `reference` keeps of slices; 0 if they are made on demand."""
    whole = 8.0 * directions * len(band.order)
    if whole <= min(whole_bytes, most_bytes):
        return whole
    return whole / 4 if whole / 4 <= most_bytes else 0.0


def _in_half_precision(
    spectrum: Tensor, band: CircularHarmonics, grid: OrientationGrid
) -> Reference:
    """Of a whole level."""
    assert grid.opposite is not None
    directions, device = len(grid), spectrum.device
    every = torch.arange(directions, device=device)
    one, other = _sides(grid)
    place = torch.empty_like(every)
    place[one] = place[other] = torch.arange(len(one), device=device)
    some = grid.frame[:: max(1, directions // _SAMPLED)]
    strength = _power(band.slices(spectrum, some), band).mean(dim=0).sqrt()
    unit = strength.clamp_min(_WEAKEST * float(strength.max()) + 1e-30)[band.ring - 1]
    scaled = torch.empty(len(one), len(unit), 2, dtype=torch.float16, device=device)
    power = torch.empty(directions, band.rings, device=device)
    for rows in torch.split(torch.arange(len(one), device=device), _AT_ONCE):
        plane = band.slices(spectrum, grid.frame[one[rows]])
        power[one[rows]] = power[other[rows]] = _power(plane, band)
        parts = torch.view_as_real(plane / unit)
        scaled[rows] = parts.clamp(-_LARGEST_HALF, _LARGEST_HALF).half()
    held = HalfPrecision(scaled, unit[:, None], place, every > grid.opposite, band)
    return Reference(grid, band, spectrum, held, power)


def _sides(grid: OrientationGrid) -> tuple[Tensor, Tensor]:
    """(V / 2,) directions, and their opposite ones."""
    assert grid.opposite is not None
    one = (torch.arange(len(grid), device=grid.opposite.device) < grid.opposite).nonzero()[:, 0]
    return one, grid.opposite[one]


def slices_of_level(spectrum: Tensor, band: CircularHarmonics, grid: OrientationGrid) -> Tensor:
    """(V, M') slices in all directions of a level; every second one is the other side of another.

    Args:
        spectrum: from `volume_spectrum`.
        band: the rings.
        grid: a whole level.
    """
    plane = torch.empty(len(grid), len(band.order), dtype=spectrum.dtype, device=spectrum.device)
    one, other = _sides(grid)
    for part, behind in zip(torch.split(one, _AT_ONCE), torch.split(other, _AT_ONCE), strict=True):
        found = band.slices(spectrum, grid.frame[part])
        plane[part] = found
        plane[behind] = band.mirrored(found)
    return plane


def _power(plane: Tensor, band: CircularHarmonics) -> Tensor:
    """(n, R') sums of |P|² over the orders of every ring."""
    power = plane.new_zeros(len(plane), band.rings, dtype=torch.float32)
    twice = torch.where(band.order > 0, 2.0, 1.0)
    return power.index_add_(1, band.ring - 1, plane.abs().square() * twice)
