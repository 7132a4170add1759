"""Central slices of a map in all directions of a level of the pose search."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cryogan.objectives.likelihood.orientation_grid import OrientationGrid, orientation_grid
from cryogan.objectives.likelihood.parallels import (
    is_southern,
    northern_parallels,
    slices_by_parallel,
)
from cryogan.objectives.likelihood.search_levels import Level
from cryogan.physics.circular_harmonics import CircularHarmonics
from cryogan.physics.cylindrical_spectrum import CylindricalSpectrum, cylindrical_grid
from cryogan.physics.projection import volume_spectrum

KEPT_BYTES = 1e9
"""Of slices of a level that are kept."""

_AT_ONCE = 256  # directions
_WHOLE_BYTES = 2.5e8  # of slices that are kept as they are
_SAMPLED = 4  # parallels that tell how strong a ring is
_LARGEST_HALF = torch.finfo(torch.float16).max
_WEAKEST = 1e-6  # of the strongest ring


@dataclass(frozen=True, eq=False)
class MapSpectrum:
    """Spectrum of a map, from which slices are read.

    Attributes:
        volume: (D, D, D).
        harmonics: the finest band of slices.
        padding: of the spectrum's grid, see `physics.projection.volume_spectrum`.
    """

    volume: Tensor
    harmonics: CircularHarmonics
    padding: float = 2.0

    @cached_property
    def _cartesian(self) -> Tensor:
        return volume_spectrum(self.volume, self.padding)

    @cached_property
    def cylindrical(self) -> CylindricalSpectrum:
        """In cylindrical coordinates, for the directions of whole levels."""
        harmonics, device = self.harmonics, self.volume.device
        grid = cylindrical_grid(harmonics.box_size, harmonics.rings, self.padding, device)
        return CylindricalSpectrum(grid, grid.of_volume(self.volume))

    def slices(self, frame: Tensor, band: CircularHarmonics) -> Tensor:
        """(n, M') slices of frames (n, 3, 3)."""
        parts = torch.split(frame, _AT_ONCE)
        return torch.cat([band.slices(self._cartesian, part) for part in parts])


@dataclass(frozen=True)
class HalfPrecision:
    """Slices in float16, those of the southern directions being mirror images of others.

    Real and imaginary parts are rounded to nearest, by at most 0.05 % (2^-11) or 3e-8 (2^-25) of
    the unit of their ring, whichever is larger; those beyond 65,504 units are clipped to that.
    Scores of images whose log-likelihood is about 35 change by 0.02 at most.

    Attributes:
        scaled: (V', M', 2) real and imaginary parts, in units of their ring.
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
        spectrum: of the map.
        plane: (V, M') coefficients in all directions; None where there are too many to keep.
            Many are kept in half precision.
        power: (V, R') mean of |P|² on every ring, or None.
    """

    grid: OrientationGrid
    band: CircularHarmonics
    spectrum: MapSpectrum
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
        return self.spectrum.slices(self.grid.frame[direction], self.band)


def reference(
    spectrum: MapSpectrum,
    level: Level,
    most_bytes: float = KEPT_BYTES,
    whole_bytes: float = _WHOLE_BYTES,
) -> Reference:
    """Slices of a map in all directions of a level.

    Args:
        spectrum: of the map.
        level: of the search.
        most_bytes: slices are made on demand if they would take more.
        whole_bytes: they are kept in half precision if they would take more.
    """
    grid = orientation_grid(level.nside, spectrum.volume.device)
    band = spectrum.harmonics.within(level.rings)
    if slices_bytes(len(grid), band, most_bytes, whole_bytes) == 0.0:
        return Reference(grid, band, spectrum, None, None)
    if 8.0 * len(grid) * len(band.order) <= min(whole_bytes, most_bytes):
        plane = slices_of_level(spectrum, band, level.nside)
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
    spectrum: MapSpectrum, band: CircularHarmonics, grid: OrientationGrid
) -> Reference:
    """Of a whole level."""
    assert grid.opposite is not None
    device, nside = grid.frame.device, grid.nside
    southern = is_southern(nside, device)
    count = int((~southern).sum())
    place = torch.empty(len(grid), dtype=torch.long, device=device)
    strength = _ring_strength(spectrum, band, nside)
    unit = strength.clamp_min(_WEAKEST * float(strength.max()) + 1e-30)[band.ring - 1]
    scaled = torch.empty(count, len(unit), 2, dtype=torch.float16, device=device)
    power = torch.empty(len(grid), band.rings, device=device)
    start = 0
    for direction, plane in slices_by_parallel(spectrum.cylindrical, band, nside):
        rows = slice(start, start + len(direction))
        start += len(direction)
        opposite = grid.opposite[direction]
        number = torch.arange(rows.start, rows.stop, device=device)
        place[opposite] = number
        place[direction] = number  # on the equator, where both are, last
        power[opposite] = power[direction] = _power(plane, band)
        parts = torch.view_as_real(plane / unit)
        scaled[rows] = parts.clamp(-_LARGEST_HALF, _LARGEST_HALF).half()
    held = HalfPrecision(scaled, unit[:, None], place, southern, band)
    return Reference(grid, band, spectrum, held, power)


def _ring_strength(spectrum: MapSpectrum, band: CircularHarmonics, nside: int) -> Tensor:
    """(R',) rms of a ring's slices, from a few parallels."""
    every = northern_parallels(nside, spectrum.volume.device)
    few = every[:: max(1, len(every) // _SAMPLED)]
    ring = band.sample_ring - 1
    sums = spectrum.volume.new_zeros(band.rings)
    for each in few:
        samples = spectrum.cylindrical.slices(band.frequency, each.parallel)
        sums.index_add_(0, ring, samples.abs().square().mean(dim=1))
    return (sums / torch.bincount(ring) / len(few)).sqrt()


def slices_of_level(spectrum: MapSpectrum, band: CircularHarmonics, nside: int) -> Tensor:
    """(V, M') slices in all directions of a level; southern ones are mirror images of others.

    Args:
        spectrum: of the map.
        band: the rings.
        nside: of the level.
    """
    device = spectrum.volume.device
    opposite = orientation_grid(nside, device).opposite
    assert opposite is not None
    plane = torch.empty(len(opposite), len(band.order), dtype=torch.complex64, device=device)
    for direction, found in slices_by_parallel(spectrum.cylindrical, band, nside):
        plane[opposite[direction]] = band.mirrored(found)
        plane[direction] = found  # on the equator, where both are, last
    return plane


def _power(plane: Tensor, band: CircularHarmonics) -> Tensor:
    """(n, R') sums of |P|² over the orders of every ring."""
    power = plane.new_zeros(len(plane), band.rings, dtype=torch.float32)
    twice = torch.where(band.order > 0, 2.0, 1.0)
    square = torch.view_as_real(plane).square().sum(dim=-1)
    return power.index_add_(1, band.ring - 1, square * twice)
