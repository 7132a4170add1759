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

from cryogan.objectives.likelihood.central_slices import Reference
from cryogan.objectives.likelihood.observations import Observations, moved, moved_to
from cryogan.objectives.likelihood.orientation_grid import asymmetric_directions
from cryogan.objectives.likelihood.search_levels import Level, in_plane_angles

_FAINT = 25.0  # log-likelihood of the best pose, below which posteriors are broad
_WHOLE = 0.98
_NEAR = 0.15  # share of the best log-likelihood that cells may lack
_REFINED = 256  # the most cells of an image whose children, or whose shifts, are compared
_UNLIKELY = 5.0  # log-likelihood that the best orientation of a shift lacks
_SHIFTED = {8: 48}  # cells before their shifts are made finer; 16 at finer levels
CPU = torch.device("cpu")


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

    def __getitem__(self, index: Tensor | slice) -> "Cells":
        return Cells(
            self.direction[index], self.psi[index], self.shift_px[index], self.score[index]
        )

    def promising(self, keep: int, most: int = 0, complete: bool = False) -> "Cells":
        """The best, at most `keep`, of which at least one image of these may need every one.

        A cell's centre may miss the pose: cells remain if their log-likelihood is lower than the
        best by no more than 10 and 15 % of the best. Where it is low, posteriors are broad: up to
        `most` remain there, until those of half of the images are complete, or of all.
        """
        best = self.best(max(keep, most))
        top = best.score[:, :1]
        near = (best.score >= top - 10.0 - _NEAR * top.clamp_min(0.0)).sum(dim=1)
        needed = min(keep, int(near.max()))
        if most > keep and (complete or float(top.median()) < _FAINT):
            held = torch.softmax(best.score, dim=1).cumsum(dim=1)
            lacking = (held < _WHOLE).sum(dim=1)
            needed = max(needed, int(lacking.max() if complete else lacking.median()) + 1)
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
    chunk: int = 16,
    start: Cells | None = None,
) -> Cells:
    """The cells of the finest level that descend from those kept, with their scores.

    Args:
        observations: n images.
        references: slices of the map at every level.
        levels: see `levels_for`.
        chunk: images at a time.
        start: cells of the last level but one, if it was searched before.
    """
    found = []
    # as many scores at a time where many shifts are compared, in an eighth of the poses
    first = 2 if levels[0].of_shifts else 1
    at_once = max(1, chunk * 12 // len(levels[0].shifts_px(CPU)))
    for begin in range(0, len(observations), chunk):
        part = observations[begin : begin + chunk]
        if start is None:
            few = [part[k : k + at_once] for k in range(0, len(part), at_once)]
            kept = [_first(each, references, levels) for each in few]
            most = max(cells.score.shape[1] for cells in kept)
            cells = joined([cells.padded(most) for cells in kept], 0)
        else:
            cells = start[begin : begin + chunk]
        for number in range(first if start is None else len(levels) - 1, len(levels)):
            before = levels[number - 1]
            cells = cells.promising(before.keep, min(before.most, _REFINED), before.complete)
            cells = _finer(part, cells, references[number], levels[number])
        found.append(cells)
    most = max(cells.score.shape[1] for cells in found)
    return joined([cells.padded(most) for cells in found], 0)


def log_marginal_likelihood(cells: Cells, levels: Sequence[Level]) -> Tensor:
    """(n,) log of the mean likelihood over all poses searched, over that of noise alone.

    Cells that were not kept count nothing.
    """
    first, finest = levels[min(int(levels[0].of_shifts), len(levels) - 1)], levels[-1]
    searched = len(asymmetric_directions(first.nside, first.symmetry, CPU)) / (12 * first.nside**2)
    shifts = 1.0  # of the finest level, each counted with its prior
    for level in levels if finest.shift_sd_px > 0 else []:
        refinement = (level.shift_step_px / finest.shift_step_px) ** 2
        prior = level.log_prior(level.shifts_px(cells.score.device)).exp()
        shifts = max(shifts, refinement * float(prior.sum()))
    angles = len(in_plane_angles(finest.nside, cells.score.device))
    poses = searched * 12 * finest.nside**2 * angles * shifts
    return torch.logsumexp(cells.score, dim=1) - math.log(poses)


def _first(part: Observations, references: Sequence[Reference], levels: Sequence[Level]) -> Cells:
    """The best cells of the first level on which orientations are kept."""
    first = levels[0]
    shifts_px = first.shifts_px(part.a.device).expand(len(part), -1, -1)
    scores = _scores(part, shifts_px, references[0], first)
    if not first.of_shifts or len(levels) == 1:
        return _best(scores, first)
    best = (scores.of_angles.amax(dim=0) + scores.same).view(*shifts_px.shape[:2], -1).amax(dim=2)
    top = best.amax(dim=1, keepdim=True)
    near = (best >= top - 10.0 - _NEAR * top.clamp_min(0.0)).sum(dim=1)
    needed = min(int(near.max()), first.keep)
    if first.complete:
        needed = max(needed, int((best >= top - _UNLIKELY).sum(dim=1).max()))
    best = best.topk(needed, dim=1).indices
    few_px = shifts_px.gather(1, best[..., None].expand(-1, -1, 2))
    ref, level = references[1], levels[1]
    cells = _best(_scores(part, few_px, ref, level), level)
    few = cells.promising(_SHIFTED[level.nside], min(level.most, _REFINED), level.complete)
    return _shifted(part, few, ref, level)


@dataclass(frozen=True)
class _Scores:
    """Scores of S shifts, V directions and T in-plane angles.

    Attributes:
        shift_px: (n, S, 2).
        direction: (V,).
        psi: (T,).
        of_angles: (T, n, S V) what depends on the angle.
        same: (n, S V) the rest.
    """

    shift_px: Tensor
    direction: Tensor
    psi: Tensor
    of_angles: Tensor
    same: Tensor


def _scores(part: Observations, shift_px: Tensor, ref: Reference, level: Level) -> _Scores:
    """All directions and in-plane angles of a level at shifts (n, S, 2), order by order."""
    searched = asymmetric_directions(level.nside, level.symmetry, part.a.device)
    n, directions, band = len(part), len(searched), ref.band
    plane, ref_power = ref.take(searched)
    top = max(band.highest_orders)
    psi = in_plane_angles(level.nside, part.a.device)
    phase = psi[:, None] * torch.arange(top + 1, device=psi.device)
    turn = torch.cat((phase.cos(), phase.sin()), dim=1)  # Re(exp(-i m ψ) c)
    a = moved(part.a, shift_px, band).flatten(0, 1)
    cross = ref_power.new_empty(2, top + 1, len(a), directions)
    for m in range(top + 1):
        mine = a[:, band.order == m]
        theirs = torch.view_as_real(plane[:, band.order == m]).flatten(1).T
        torch.mm(torch.view_as_real(mine).flatten(1), theirs, out=cross[0, m])
        torch.mm(torch.view_as_real(-1j * mine).flatten(1), theirs, out=cross[1, m])
    score = (turn @ cross.view(2 * (top + 1), -1)).view(len(psi), n, -1)
    power = 0.5 * part.b[:, None, : level.rings] @ ref_power.T
    same = (level.log_prior(shift_px)[..., None] - power).flatten(1)
    return _Scores(shift_px, searched, psi, score, same)


def _best(scores: _Scores, level: Level) -> Cells:
    """The best cells: they have the best shifts and directions, so that the rest is not sorted."""
    keep = max(level.keep, level.most)
    pair = scores.of_angles.amax(dim=0) + scores.same
    pair = pair.topk(min(keep, pair.shape[1]), dim=1).indices
    score = scores.of_angles.gather(2, pair.expand(len(scores.psi), -1, -1)).permute(1, 2, 0)
    score = (score + scores.same.gather(1, pair)[..., None]).flatten(1)
    best = score.topk(min(keep, score.shape[1]), dim=1)
    pair = pair.gather(1, best.indices // len(scores.psi))
    shift = pair // len(scores.direction)
    return Cells(
        scores.direction[pair % len(scores.direction)],
        scores.psi[best.indices % len(scores.psi)],
        scores.shift_px.gather(1, shift[..., None].expand(-1, -1, 2)),
        best.values,
    )


def _finer(part: Observations, cells: Cells, ref: Reference, level: Level) -> Cells:
    """The children of cells, then shifts about those of the best of them."""
    children = _children(part, cells, ref, level)
    if level.shift_steps == 0:
        return children
    few = children.promising(
        _SHIFTED.get(level.nside, 16), min(level.most, _REFINED), level.complete
    )
    return _shifted(part, few, ref, level)


def _children(part: Observations, cells: Cells, ref: Reference, level: Level) -> Cells:
    """Four directions and two in-plane angles of each cell, at its own shift."""
    device = part.a.device
    band = ref.band
    image = torch.arange(len(part), device=device)[:, None].expand(cells.direction.shape)
    a, row = moved_to(part.a, image, cells.shift_px, band)
    child = 4 * cells.direction[..., None] + torch.arange(4, device=device)  # (n, K, 4)
    psi = cells.psi[..., None] + ref.grid.twist[child]
    mine = band.turned(a[row][:, :, None], -psi)
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
    score = score + level.log_prior(cells.shift_px)[..., None, None]
    shape = score.shape
    return Cells(
        child[..., None].expand(shape).flatten(1),
        (psi[..., None] + step).flatten(1),
        cells.shift_px[:, :, None, None].expand(*shape, 2).flatten(1, 3),
        score.flatten(1),
    )


def _shifted(part: Observations, cells: Cells, ref: Reference, level: Level) -> Cells:
    """Shifts about those of each cell: sums of conj P A exp(2πi k·offset) over the rings."""
    band = ref.band
    image = torch.arange(len(part), device=part.a.device)[:, None].expand(cells.direction.shape)
    a, row = moved_to(part.a, image, cells.shift_px, band)
    plane, power = ref.take(cells.direction)
    plane = band.turned(plane, cells.psi)
    power = 0.5 * torch.einsum("nr,nkr->nk", part.b[:, : level.rings], power)
    offset_px = level.shifts_px(part.a.device)
    values = band.to_samples(a / band.weight)[row].flatten(0, 1)
    values = values * band.to_samples(plane.flatten(0, 1)).conj() * band.sample_weight
    wave = 2.0 * math.pi * band.frequency @ offset_px.T
    score = values.real @ wave.cos() - values.imag @ wave.sin()
    shift_px = cells.shift_px[:, :, None] + offset_px
    score = score.view(*cells.score.shape, -1) - power[..., None] + level.log_prior(shift_px)
    shape = score.shape
    return Cells(
        cells.direction[..., None].expand(shape).flatten(1),
        cells.psi[..., None].expand(shape).flatten(1),
        shift_px.flatten(1, 2),
        score.flatten(1),
    ).best(max(level.keep, level.most))
