"""Pose search: the posterior of poses given a map, from a coarse orientation grid to finer cells.

The score of image i at a pose is `Re Σ conj P A - ½ Σ |P|² B`, with A = C y / N and B = C² / N on
the rings (N the noise spectrum), weights of the quadrature included: the log-likelihood up to a
number that is the image's own. The log-priors of its shift and its viewing direction are added.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryogan.objectives.likelihood.central_slices import Reference
from cryogan.objectives.likelihood.exhaustive_search import ExhaustiveSearch, Scores
from cryogan.objectives.likelihood.image_model import with_contrast
from cryogan.objectives.likelihood.observations import Observations, moved_to
from cryogan.objectives.likelihood.orientation_grid import asymmetric_directions
from cryogan.objectives.likelihood.search_levels import Level, in_plane_angles

SEARCHED_TOGETHER = 16
"""Images at a time: how many poses are searched of one depends on the others."""

_FAINT = 25.0  # log-likelihood of the best pose, below which posteriors are broad
_WHOLE = 0.98
_NEAR = 0.15  # share of the best log-likelihood that cells may lack
_LEAST = -1e30  # in place of minus infinity, from which nothing can be subtracted
_NOTHING = -80.0  # log of what does not count beside 1
_REFINED = 256  # the most cells of an image whose children, or whose shifts, are compared
_UNLIKELY = 5.0  # log-likelihood that the best orientation of a shift lacks
_HELD_BYTES = 64_000_000  # of slices that are compared at a time
_SHIFTED = {8: 48}  # cells before their shifts are made finer; 16 at finer levels
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Cells:
    """Poses under consideration, K an image.

    Attributes:
        direction: (n, K) number of the direction.
        psi: (n, K) in-plane angle, radians.
        shift_px: (n, K, 2) where the particle is (x, y), in pixels.
        score: (n, K) log-likelihood up to a number that is the image's own, and log-prior.
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
    chunk: int = SEARCHED_TOGETHER,
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
    exhaustive = _exhaustive(references, levels)
    first = len(exhaustive) if start is None else len(levels) - 1
    # as many scores at a time where many shifts are compared, in an eighth of the poses
    many = max(1, chunk * 12 // len(levels[0].shifts_px(CPU)))
    for begin in range(0, len(observations), chunk):
        part = observations[begin : begin + chunk]
        if start is None:
            parts = [part[k : k + many] for k in range(0, len(part), many)]
            reference = references[first - 1]
            cells = _of_all_images([_first(each, exhaustive, reference) for each in parts])
        else:
            cells = start[begin : begin + chunk]
        for number in range(first, len(levels)):
            before, level, reference = levels[number - 1], levels[number], references[number]
            cells = cells.promising(before.keep, min(before.most, _REFINED), before.complete)
            children_bytes = 4 * 8 * cells.score.shape[1] * len(reference.band.order)
            at_once = max(1, _HELD_BYTES // children_bytes)
            few = [slice(k, k + at_once) for k in range(0, len(part), at_once)]
            cells = _of_all_images([_finer(part[k], cells[k], reference, level) for k in few])
        found.append(cells)
    return _of_all_images(found)


def _of_all_images(parts: Sequence[Cells]) -> Cells:
    """Cells of several groups of images, as many an image as in the group that has most."""
    most = max(cells.score.shape[1] for cells in parts)
    return joined([cells.padded(most) for cells in parts], 0)


def log_marginal_likelihood(cells: Cells, levels: Sequence[Level]) -> Tensor:
    """(n,) log of the mean likelihood over all poses searched, over that of noise alone.

    The mean is weighted by the prior of shifts and viewing directions, which scores include.
    Cells that were not kept count nothing.
    """
    return torch.logsumexp(cells.score, dim=1) - math.log(poses_searched(levels))


def poses_searched(levels: Sequence[Level]) -> float:
    """How many poses the finest level has, each counted with its prior over that of the likeliest.

    The likeliest shift is none, and viewing directions have a mean of 1.
    """
    first, finest = levels[min(int(levels[0].of_shifts), len(levels) - 1)], levels[-1]
    cells_searched = asymmetric_directions(first.nside, first.symmetry, CPU)
    views = float(first.views.relative(cells_searched, first.nside).sum())
    searched = views / (12 * first.nside**2)
    shifts = _along_an_axis(levels[0], finest) ** 2
    angles = len(in_plane_angles(finest.nside, CPU))
    return searched * 12 * finest.nside**2 * angles * shifts


def _along_an_axis(first: Level, finest: Level) -> float:
    """Shifts of the finest step along an axis within those of the first level, by their prior."""
    if first.shift_steps == 0:
        return 1.0
    count = (2 * first.shift_steps + 1) * round(first.shift_step_px / finest.shift_step_px)
    place = torch.arange(-(count // 2), count // 2 + 1)
    inside = torch.where(2 * place.abs() == count, 0.5, 1.0)  # on the edge
    along = torch.stack((place * finest.shift_step_px, torch.zeros(len(place))), dim=1)
    return float((inside * finest.log_prior_of_shifts(along).exp()).sum())


def log_marginal_likelihood_of_all(
    observations: Observations,
    references: Sequence[Reference],
    levels: Sequence[Level],
    contrasts: Sequence[float] = (1.0,),
    chunk: int = SEARCHED_TOGETHER,
) -> Tensor:
    """(c, n) log of the mean likelihood over all poses of the first levels, over noise alone's.

    No pose is left out: where images tell little of their poses, what `search` leaves out holds
    most. Where shifts are searched, all orientations at the most promising shifts are compared on
    the first level of orientations, those at the other shifts on the level of shifts.

    Args:
        observations, references, levels, chunk: as for `search`.
        contrasts: factors of the map, c of them.
    """
    exhaustive = _exhaustive(references, levels)
    many = max(1, chunk * 12 // len(levels[0].shifts_px(CPU)))
    parts = [observations[k : k + many] for k in range(0, len(observations), many)]
    return torch.cat([_over_all(part, exhaustive, contrasts)[0] for part in parts], dim=1)


def log_marginal_likelihood_refined(
    observations: Observations,
    references: Sequence[Reference],
    levels: Sequence[Level],
    chunk: int = SEARCHED_TOGETHER,
) -> Tensor:
    """(n,) as `log_marginal_likelihood_of_all`, with promising poses on all levels.

    Poses that `search` hands on from the first level of orientations count on the finest level,
    all others where they are. Only what is left out between those levels does not count.

    Args:
        observations, references, levels, chunk: as for `search`.
    """
    if len(levels) == 1:
        return log_marginal_likelihood_of_all(observations, references, levels)[0]
    exhaustive = _exhaustive(references, levels)
    level = exhaustive[-1].level
    keep = level.keep if len(exhaustive) == 1 else _SHIFTED[level.nside]
    prior = level.log_prior_of_shifts(levels[0].shifts_px(observations.a.device))
    left_out = []
    for start in range(0, len(observations), chunk):
        part = observations[start : start + chunk]
        over_all, scores = _over_all(part, exhaustive, (1.0,))
        cells = Cells(*scores.best(max(level.keep, level.most)))
        cells = cells.promising(keep, min(level.most, _REFINED), level.complete)
        poses = _log_orientations(scores, level) + torch.logsumexp(prior, dim=0)
        handed_on = torch.logsumexp(cells.score, dim=1) - poses
        share = (handed_on - over_all[0]).exp().clamp_max(1.0 - 1e-6)
        left_out.append(over_all[0] + torch.log1p(-share))
    fine = log_marginal_likelihood(search(observations, references, levels, chunk), levels)
    return torch.logaddexp(torch.cat(left_out), fine)


def _over_all(
    part: Observations, exhaustive: Sequence[ExhaustiveSearch], contrasts: Sequence[float]
) -> tuple[Tensor, Scores]:
    """(c, n) of `log_marginal_likelihood_of_all`, and scores of the first level of orientations."""
    first = exhaustive[0]
    shift_px = first.level.shifts_px(part.a.device)
    scores = first.scores(part, shift_px[None])
    by_shift = _over_orientations(scores, first.level, contrasts)
    if len(exhaustive) == 2:
        finer = exhaustive[1]
        best = _promising_shifts(scores, first.level)
        scores = finer.scores(part, shift_px[best])
        fine = _over_orientations(scores, finer.level, contrasts)
        by_shift = by_shift.scatter(2, best.expand(len(fine), -1, -1), fine)
    prior = torch.logsumexp(first.level.log_prior_of_shifts(shift_px), dim=0)
    return torch.logsumexp(by_shift, dim=2) - prior, scores


def _over_orientations(scores: Scores, level: Level, contrasts: Sequence[float]) -> Tensor:
    """(c, n, S) log of the mean likelihood over all orientations, and log-prior, at each shift."""
    shape = len(scores.psi), *scores.power.shape
    of_angles, found = scores.of_angles.view(shape), []
    score = torch.empty_like(of_angles)
    for contrast in contrasts:
        same = scores.prior - 0.5 * contrast**2 * scores.power
        found.append(_log_sum(torch.mul(of_angles, contrast, out=score).add_(same), (0, 3)))
    return torch.stack(found) - _log_orientations(scores, level)


def _log_sum(score: Tensor, dim: tuple[int, int]) -> Tensor:
    """`torch.logsumexp` of scores, which are written over.

    What is less than e^-80 of the largest counts as that much: it would be denormal, and slow.
    """
    most = score.amax(dim[0], keepdim=True).amax(dim[1], keepdim=True).clamp_min(_LEAST)
    total = score.sub_(most).clamp_min_(_NOTHING).exp_().sum(dim=dim)
    return total.log() + most.squeeze(dim)


def _log_orientations(scores: Scores, level: Level) -> float:
    """Log of how many orientations there are, each with its prior over that of uniform views."""
    views = float(level.views.relative(scores.direction, level.nside).sum())
    return math.log(len(scores.psi) * views)


def log_likelihood_by_view(
    observations: Observations,
    references: Sequence[Reference],
    levels: Sequence[Level],
    contrast_sd: float = 0.0,
    chunk: int = SEARCHED_TOGETHER,
) -> Tensor:
    """(n, 12 nside²) log of the mean likelihood over in-plane angles, for each viewing direction.

    On the first level of orientations, of which all poses count: those of `search` are the best
    few, among which directions are not represented in proportion where posteriors are broad. The
    directions' own prior is left out; those that are not searched have -inf.

    Args:
        observations, references, levels, chunk: as for `search`.
        contrast_sd: standard deviation of the images' contrast, which is integrated out.
    """
    level = levels[int(levels[0].of_shifts)]
    exhaustive = _exhaustive(references, levels)
    found = []
    for start in range(0, len(observations), chunk):
        part = observations[start : start + chunk]
        scores = _everywhere(part, exhaustive)
        score = scores.of_angles.view(len(scores.psi), *scores.power.shape) - 0.5 * scores.power
        if contrast_sd > 0.0:
            score = with_contrast(score, scores.power, contrast_sd)[0]
        score = score + level.log_prior_of_shifts(scores.shift_px)[..., None]
        mean = _log_sum(score, (0, 2)) - math.log(len(score))
        whole = mean.new_full((len(part), 12 * level.nside**2), -math.inf)
        found.append(whole.index_copy_(1, scores.direction, mean))
    return torch.cat(found)


def _exhaustive(
    references: Sequence[Reference], levels: Sequence[Level]
) -> tuple[ExhaustiveSearch, ...]:
    """Of the first level of orientations, and of that of shifts before it if there is one."""
    count = 2 if levels[0].of_shifts and len(levels) > 1 else 1
    both = zip(references[:count], levels[:count], strict=True)
    return tuple(ExhaustiveSearch.of(reference, level) for reference, level in both)


def _first(
    part: Observations, exhaustive: Sequence[ExhaustiveSearch], reference: Reference
) -> Cells:
    """The best cells of the first level of orientations, of which `reference` is."""
    level = exhaustive[-1].level
    cells = Cells(*_everywhere(part, exhaustive).best(max(level.keep, level.most)))
    if len(exhaustive) == 1:
        return cells
    few = cells.promising(_SHIFTED[level.nside], min(level.most, _REFINED), level.complete)
    return _shifted(part, few, reference, level)


def _everywhere(part: Observations, exhaustive: Sequence[ExhaustiveSearch]) -> Scores:
    """Scores of all orientations of the last of these, at the best shifts for any of the first."""
    first = exhaustive[0]
    shift_px = first.level.shifts_px(part.a.device)[None]
    scores = first.scores(part, shift_px)
    if len(exhaustive) == 1:
        return scores
    best = _promising_shifts(scores, first.level)
    return exhaustive[1].scores(part, shift_px[0, best])


def _promising_shifts(scores: Scores, level: Level) -> Tensor:
    """(n, K) numbers of the best shifts, as many as at least one of these images may need."""
    best = scores.best_shifts()
    top = best.amax(dim=1, keepdim=True)
    near = (best >= top - 10.0 - _NEAR * top.clamp_min(0.0)).sum(dim=1)
    needed = min(int(near.max()), level.keep)
    if level.complete:
        needed = max(needed, int((best >= top - _UNLIKELY).sum(dim=1).max()))
    return best.topk(needed, dim=1).indices


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
    mine = band.turned(a[row], -cells.psi).conj().resolve_conj()
    child = 4 * cells.direction[..., None] + torch.arange(4, device=device)  # (n, K, 4)
    plane, power = ref.take(child)
    half = 0.25 * 2.0 * math.pi / len(in_plane_angles(ref.grid.nside // 2, device))
    step = torch.tensor([-half, half], device=device)
    phase = band.order[:, None] * step
    turn = torch.stack((phase.cos(), -phase.sin()), dim=1).flatten(0, 1)  # Re(z exp(i m step))
    power = 0.5 * torch.einsum("nr,nkcr->nkc", part.b[:, : level.rings], power)
    product = torch.view_as_real(plane * mine[:, :, None]).flatten(3)
    score = product @ turn - power[..., None]  # (n, K, 4, 2)
    score = score + level.log_prior(child, cells.shift_px[:, :, None])[..., None]
    shape = score.shape
    return Cells(
        child[..., None].expand(shape).flatten(1),
        (cells.psi[..., None, None] + step).expand(shape).flatten(1),
        cells.shift_px[:, :, None, None].expand(*shape, 2).flatten(1, 3),
        score.flatten(1),
    )


def _shifted(part: Observations, cells: Cells, ref: Reference, level: Level) -> Cells:
    """Shifts about those of each cell: sums of conj P A exp(2πi k·shift) over the rings."""
    band, count = ref.band, cells.direction.shape
    images = band.to_samples(part.a[:, : len(band.order)] / band.weight) * band.sample_weight
    plane, power = ref.take(cells.direction)
    power = 0.5 * torch.einsum("nr,nkr->nk", part.b[:, : level.rings], power)
    plane = band.to_samples(band.turned(plane, cells.psi).flatten(0, 1)).view(*count, -1)
    values = images[:, None] * plane.conj() * band.moving_back(cells.shift_px)
    offset_px = level.shifts_px(part.a.device)
    waves = torch.view_as_real(band.moving_back(-offset_px)).flatten(1)
    score = torch.view_as_real(values).flatten(2) @ waves.T
    shift_px = cells.shift_px[:, :, None] + offset_px
    shift_px = (shift_px / level.shift_step_px).round() * level.shift_step_px  # however reached
    score = score - power[..., None] + level.log_prior(cells.direction[..., None], shift_px)
    shape = score.shape
    found = Cells(
        cells.direction[..., None].expand(shape).flatten(1),
        cells.psi[..., None].expand(shape).flatten(1),
        shift_px.flatten(1, 2),
        score.flatten(1),
    )
    return _each_once(found, level.shift_step_px).best(max(level.keep, level.most))


def _each_once(cells: Cells, shift_step_px: float) -> Cells:
    """With no likelihood for cells that an image has already: neighbours have common neighbours."""
    place = (cells.shift_px / shift_step_px).round().long() & 0xFFF
    angle = (cells.psi * (2**16 / (2.0 * math.pi))).round().long() & 0xFFFF
    key = (((cells.direction << 16) + angle) << 24) + (place[..., 0] << 12) + place[..., 1]
    key, order = key.sort(dim=1, stable=True)
    again = torch.zeros_like(key, dtype=torch.bool)
    again[:, 1:] = key[:, 1:] == key[:, :-1]
    again = torch.zeros_like(again).scatter_(1, order, again)
    return replace(cells, score=torch.where(again, -math.inf, cells.score))
