"""Pose search: the posterior of poses given a map, from a coarse orientation grid to finer cells.

The score of image i at a pose is `Re Σ conj P A - ½ Σ |P|² B`, with A = C y / N and B = C² / N on
the rings (N the noise spectrum), weights of the quadrature included: the log-likelihood up to a
number that is the image's own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan.objectives.likelihood.observations import Observations, moved
from cryogan.objectives.likelihood.orientation_grid import (
    OrientationGrid,
    asymmetric_directions,
    orientation_grid,
)
from cryogan.physics.circular_harmonics import CircularHarmonics

_FAINT = 25.0  # log-likelihood of the best pose, below which posteriors are broad
_WHOLE = 0.98
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Level:
    """A level of the search.

    Attributes:
        nside: of the viewing directions; each level's is twice that of the level before.
        rings: the band in which poses are scored.
        keep: the most cells of an image that are handed on.
        shift_step_px: distance of neighbouring shifts.
        shift_steps: shifts up to this many steps along x and y, about that of the best cell of
            the level before.
        most: as `keep`, where posteriors are broad (`Cells.promising`); no more than elsewhere
            by default.
        symmetry: the first level's directions are those of one asymmetric unit.
    """

    nside: int
    rings: int
    keep: int
    shift_step_px: float = 1.0
    shift_steps: int = 0
    most: int = 0
    symmetry: str = "C1"

    def shifts_px(self, device: torch.device) -> Tensor:
        """((2 shift_steps + 1)², 2) shifts (x, y)."""
        line = torch.arange(-self.shift_steps, self.shift_steps + 1, device=device)
        return torch.cartesian_prod(line, line).flip(1) * self.shift_step_px


def levels_for(
    harmonics: CircularHarmonics,
    molecule_px: float,
    shift_px: float,
    rings: int | None = None,
    symmetry: str = "C1",
) -> list[Level]:
    """From coarse to as fine as the band asks for.

    A turn by one step of the grid moves the edge of the molecule by a fraction of the finest
    wavelength, 3 radians at the finest level; other levels use the rings where it is 3.6.

    Args:
        harmonics: the rings.
        molecule_px: radius of the molecule.
        shift_px: largest shift from those that are known, along x and y; 0 for none.
        rings: the band; by default all rings.
        symmetry: of the molecule.
    """
    rings = rings or harmonics.rings
    levels: list[Level] = []
    nside = 8
    while True:
        spacing = math.sqrt(4.0 * math.pi / 12) / nside
        radians_per_ring = 2.0 * math.pi * molecule_px / harmonics.box_size * spacing
        last = radians_per_ring * rings <= 3.0 or nside >= 256
        band = rings if last else min(rings, math.floor(3.6 / radians_per_ring))
        step_px = harmonics.box_size / (2.7 * band)
        if levels:  # finer than before, also where the band is the same
            step_px = min(step_px, 0.7 * levels[-1].shift_step_px)
        steps = 0 if shift_px == 0 else 1 if levels else math.ceil(shift_px / step_px)
        keep, most = (24, 192) if nside == 8 else (8, 64)
        levels.append(Level(nside, band, keep, step_px, steps, most, symmetry))
        if last:
            return levels
        nside *= 2


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


@dataclass(frozen=True)
class Cells:
    """Poses under consideration, K an image.

    Attributes:
        direction: (n, K) number of the direction.
        psi: (n, K) in-plane angle, radians.
        shift_px: (n, K, 2) where the particle is (x, y), in pixels.
        score: (n, K) log-likelihood up to a number that is the image's own.
    """

    direction: Tensor
    psi: Tensor
    shift_px: Tensor
    score: Tensor

    def best(self, keep: int) -> "Cells":
        """The best `keep` of every image, best first."""
        score, index = self.score.topk(min(keep, self.score.shape[1]), dim=1)
        shift_px = self.shift_px.gather(1, index[..., None].expand(-1, -1, 2))
        return Cells(self.direction.gather(1, index), self.psi.gather(1, index), shift_px, score)

    def promising(self, keep: int, most: int = 0) -> "Cells":
        """The best, at most `keep`, of which at least one image of these may need every one.

        A cell's centre may miss the pose: cells remain if their log-likelihood is lower than the
        best by no more than 10 and 15 % of the best. Where it is low, posteriors are broad: up to
        `most` remain there, until those of half of the images are complete.
        """
        best = self.best(max(keep, most))
        top = best.score[:, :1]
        near = (best.score >= top - 10.0 - 0.15 * top.clamp_min(0.0)).sum(dim=1)
        needed = min(keep, int(near.max()))
        if most > keep and float(top.median()) < _FAINT:
            held = torch.softmax(best.score, dim=1).cumsum(dim=1)
            needed = max(needed, int((held < _WHOLE).sum(dim=1).median()) + 1)
        return self.best(needed)

    def padded(self, count: int) -> "Cells":
        """With cells of no likelihood up to `count` an image."""
        more = (0, count - self.score.shape[1])
        pad = torch.nn.functional.pad
        return Cells(
            pad(self.direction, more),
            pad(self.psi, more),
            pad(self.shift_px, (0, 0, *more)),
            pad(self.score, more, value=-math.inf),
        )


def joined(cells: Sequence[Cells], dim: int) -> Cells:
    """Cells of more images (dim 0) or more cells of the same images (dim 1)."""
    return Cells(
        torch.cat([part.direction for part in cells], dim),
        torch.cat([part.psi for part in cells], dim),
        torch.cat([part.shift_px for part in cells], dim),
        torch.cat([part.score for part in cells], dim),
    )


def search(
    observations: Observations,
    references: Sequence[Reference],
    levels: Sequence[Level],
    shift_px: Tensor | None = None,
    chunk: int = 16,
) -> Cells:
    """The cells of the finest level that descend from those kept, with their scores.

    Args:
        observations: n images.
        references: slices of the map at every level.
        levels: see `levels_for`.
        shift_px: (n, 2) where the first level's shifts are centred; the origin by default.
        chunk: images at a time.
    """
    if shift_px is None:
        shift_px = observations.b.new_zeros(len(observations), 2)
    found = []
    for start in range(0, len(observations), chunk):
        part = observations[start : start + chunk]
        cells = _coarse(part, shift_px[start : start + chunk], references[0], levels[0])
        for number in range(1, len(levels)):
            cells = cells.promising(levels[number - 1].keep, levels[number - 1].most)
            cells = _finer(part, cells, references[number], levels[number])
        found.append(cells)
    most = max(cells.score.shape[1] for cells in found)
    return joined([cells.padded(most) for cells in found], 0)


def log_marginal_likelihood(cells: Cells, levels: Sequence[Level]) -> Tensor:
    """(n,) log of the mean likelihood over all poses searched, over that of noise alone.

    Cells that were not kept count nothing.
    """
    first, finest = levels[0], levels[-1]
    searched = len(asymmetric_directions(first.nside, first.symmetry, CPU)) / (12 * first.nside**2)
    shifts = 1.0
    for level in levels:
        refinement = (level.shift_step_px / finest.shift_step_px) ** 2
        shifts = max(shifts, refinement * (2 * level.shift_steps + 1) ** 2)
    angles = len(in_plane_angles(finest.nside, cells.score.device))
    poses = searched * 12 * finest.nside**2 * angles * shifts
    return torch.logsumexp(cells.score, dim=1) - math.log(poses)


def in_plane_angles(nside: int, device: torch.device) -> Tensor:
    """(T,) angles as far apart as the directions of the level, at most."""
    count = 2 * math.ceil(math.pi / math.sqrt(4.0 * math.pi / (12 * nside**2)))
    return torch.arange(count, device=device) * (2.0 * math.pi / count)


def _coarse(part: Observations, base_px: Tensor, ref: Reference, level: Level) -> Cells:
    """The best cells of the first level, all of which are scored, order by order."""
    searched = asymmetric_directions(level.nside, level.symmetry, base_px.device)
    n, directions, band = len(part), len(searched), ref.band
    plane, ref_power = ref.take(searched)
    top = max(band.highest_orders)
    psi = in_plane_angles(level.nside, base_px.device)
    phase = psi[:, None] * torch.arange(top + 1, device=psi.device)
    turn = torch.cat((phase.cos(), phase.sin()), dim=1)  # Re(exp(-i m ψ) c)
    power = 0.5 * part.b[:, : level.rings] @ ref_power.T
    cross = power.new_empty(2, top + 1, n, directions)
    p = [torch.view_as_real(plane[:, band.order == m]).flatten(1).T for m in range(top + 1)]
    found = []
    for shift_px in level.shifts_px(psi.device):
        shift_px = (base_px + shift_px)[:, None]
        a = moved(part.a, shift_px, band)[:, 0]
        for m in range(top + 1):
            mine = a[:, band.order == m]
            torch.mm(torch.view_as_real(mine).flatten(1), p[m], out=cross[0, m])
            torch.mm(torch.view_as_real(-1j * mine).flatten(1), p[m], out=cross[1, m])
        score = (turn @ cross.view(2 * (top + 1), -1)).view(len(psi), n, directions) - power
        score = score.permute(1, 2, 0).reshape(n, -1)
        best = score.topk(min(max(level.keep, level.most), score.shape[1]), dim=1)
        direction, angle = searched[best.indices // len(psi)], psi[best.indices % len(psi)]
        found.append(Cells(direction, angle, shift_px.expand(*direction.shape, 2), best.values))
    return joined(found, 1).best(max(level.keep, level.most))


def _finer(part: Observations, cells: Cells, ref: Reference, level: Level) -> Cells:
    """The children of cells: four directions, two in-plane angles, then shifts about the best."""
    device = part.a.device
    band = ref.band
    base_px = cells.best(1).shift_px  # (n, 1, 2)
    offset_px = level.shifts_px(device)
    a = moved(part.a, base_px + offset_px, band)  # (n, S, M')
    apart = (cells.shift_px - base_px)[:, :, None] - offset_px
    nearest = apart.square().sum(-1).argmin(-1)  # (n, K) number of each cell's shift
    image = torch.arange(len(part), device=device)[:, None]
    child = 4 * cells.direction[..., None] + torch.arange(4, device=device)  # (n, K, 4)
    psi = cells.psi[..., None] + ref.grid.twist[child]
    mine = band.turned(a[image, nearest][:, :, None], -psi)
    # Re(conj P A exp(i m step)), by real products: complex ones would be copied to be conjugated
    plane, power = ref.take(child)
    p, mine = torch.view_as_real(plane), torch.view_as_real(mine)
    real = p[..., 0] * mine[..., 0] + p[..., 1] * mine[..., 1]
    imaginary = p[..., 0] * mine[..., 1] - p[..., 1] * mine[..., 0]
    half = 0.25 * 2.0 * math.pi / len(in_plane_angles(ref.grid.nside // 2, device))
    step = torch.tensor([-half, half], device=device)
    phase = band.order[:, None] * step
    power = 0.5 * torch.einsum("nr,nkcr->nkc", part.b[:, : level.rings], power)
    score = real @ phase.cos() + imaginary @ phase.sin() - power[..., None]  # (n, K, 4, 2)
    shape = score.shape
    finer = Cells(
        child[..., None].expand(shape).flatten(1),
        (psi[..., None] + step).flatten(1),
        (base_px + offset_px[nearest])[:, :, None, None].expand(*shape, 2).flatten(1, 3),
        score.flatten(1),
    )
    if level.shift_steps == 0:
        return finer
    finer = finer.promising(level.keep, level.most)
    plane, power = ref.take(finer.direction)
    plane = torch.view_as_real(band.turned(plane, finer.psi)).flatten(2)
    power = 0.5 * torch.einsum("nr,nkr->nk", part.b[:, : level.rings], power)
    score = plane @ torch.view_as_real(a).flatten(2).mT - power[..., None]  # (n, K, S)
    shape = score.shape
    return Cells(
        finer.direction[..., None].expand(shape).flatten(1),
        finer.psi[..., None].expand(shape).flatten(1),
        (base_px + offset_px)[:, None].expand(*shape, 2).flatten(1, 2),
        score.flatten(1),
    )
