"""Levels of the pose search: directions, in-plane angles and shifts, and the band they need."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryogan.objectives.likelihood.view_density import UNIFORM, ViewDensity
from cryogan.physics.circular_harmonics import CircularHarmonics

OF_SHIFTS = 4  # nside
_ENOUGH, _LAST_ENOUGH = 0.8, 1.25  # wanted shift step / step, below which the step is halved
_KEPT = {OF_SHIFTS: (3, 3), 8: (24, 192)}  # shifts, then cells of an image at coarse levels


@dataclass(frozen=True)
class Level:
    """A level of the search.

    Attributes:
        nside: of the viewing directions; each level's is twice that of the level before.
        rings: the band in which poses are scored.
        keep: the most cells of an image that are handed on.
        shift_step_px: distance of neighbouring shifts.
        shift_steps: shifts up to this many steps along x and y, about that of each cell of the
            level before.
        most: as `keep`, where posteriors are broad (`Cells.promising`); no more than elsewhere
            by default.
        symmetry: the first level's directions are those of one asymmetric unit.
        shift_sd_px: standard deviation of the Gaussian prior of shifts along x and y; the prior is
            flat by default.
        of_shifts: the level chooses `keep` shifts, for any orientation.
        shift_reach_px: length of the longest shift, give or take half a step; any by default.
        views: prior of the viewing directions.
        complete: up to `most` cells are kept wherever posteriors are broad, of every image: for
             the posteriors themselves, not only for a map.
    """

    nside: int
    rings: int
    keep: int
    shift_step_px: float = 1.0
    shift_steps: int = 0
    most: int = 0
    symmetry: str = "C1"
    shift_sd_px: float = math.inf
    of_shifts: bool = False
    shift_reach_px: float = math.inf
    views: ViewDensity = UNIFORM
    complete: bool = False

    def shifts_px(self, device: torch.device) -> Tensor:
        """(S, 2) shifts (x, y): of a square, or of a disc if there is a longest one."""
        line = torch.arange(-self.shift_steps, self.shift_steps + 1, device=device)
        shifts_px = torch.cartesian_prod(line, line).flip(1) * self.shift_step_px
        reach_px = self.shift_reach_px + 0.5 * self.shift_step_px
        return shifts_px[shifts_px.norm(dim=1) <= reach_px]

    def log_prior_of_shifts(self, shift_px: Tensor) -> Tensor:
        """(...) log-density of shifts (..., 2), that of no shift being 0."""
        return -0.5 * shift_px.square().sum(-1) / self.shift_sd_px**2

    def log_prior(self, direction: Tensor, shift_px: Tensor) -> Tensor:
        """(...) of directions (...) and shifts (..., 2) together; uniform views have 0."""
        views = self.views.log_prior(direction, self.nside)
        return views + self.log_prior_of_shifts(shift_px)


def levels_for(
    harmonics: CircularHarmonics,
    molecule_px: float,
    shift_px: float,
    rings: int | None = None,
    symmetry: str = "C1",
    shift_sd_px: float = math.inf,
) -> list[Level]:
    """From coarse to as fine as the band asks for.

    A turn by one step of the grid moves the edge of the molecule by a fraction of the finest
    wavelength, 3 radians at the finest level; other levels use the rings where it is 3.6. Where
    shifts are searched, all of them are compared on a coarser grid first, where it is 6.4: it has
    an eighth of the orientations, and chooses shifts only. Later levels compare the neighbours of
    each shift that is kept, one step away, on the same grid or on one twice as fine.

    Args:
        harmonics: the rings.
        molecule_px: radius of the molecule.
        shift_px: largest shift from those that are known, along x and y; 0 for none.
        rings: the band; by default all rings.
        symmetry: of the molecule.
        shift_sd_px: of the Gaussian prior of shifts; flat by default.
    """
    rings = rings or harmonics.rings
    levels: list[Level] = []
    nside = 8 if shift_px == 0 else OF_SHIFTS
    while True:
        spacing = math.sqrt(4.0 * math.pi / 12) / nside
        radians_per_ring = 2.0 * math.pi * molecule_px / harmonics.box_size * spacing
        last = nside >= 8 and (radians_per_ring * rings <= 3.0 or nside >= 256)
        radians = 6.4 if nside < 8 else 3.6
        band = rings if last else min(rings, math.floor(radians / radians_per_ring))
        step_px = harmonics.box_size / (2.7 * band)
        if levels:  # nested grids, on which every shift counts once
            before_px = levels[-1].shift_step_px
            enough_px = step_px / (_LAST_ENOUGH if last else _ENOUGH)
            step_px = before_px if before_px < enough_px else before_px / 2
        steps = 0 if shift_px == 0 else 1 if levels else math.ceil(shift_px / step_px)
        keep, most = _KEPT.get(nside, (8, 64))
        level = Level(nside, band, keep, step_px, steps, most, symmetry, shift_sd_px, nside < 8)
        if level.of_shifts and shift_sd_px < math.inf:
            level = replace(level, shift_reach_px=shift_px)
        levels.append(level)
        if last:
            return levels
        nside = max(8, 2 * nside)


def under_views(levels: Sequence[Level], views: ViewDensity) -> list[Level]:
    """The same search with another prior of the viewing directions."""
    return [replace(level, views=views) for level in levels]


def in_plane_angles(nside: int, device: torch.device) -> Tensor:
    """(T,) angles as far apart as the directions of the level, at most."""
    count = 2 * math.ceil(math.pi / math.sqrt(4.0 * math.pi / (12 * nside**2)))
    return torch.arange(count, device=device) * (2.0 * math.pi / count)
