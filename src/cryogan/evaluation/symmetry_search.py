"""The symmetry of a map: which point group it has, about which axes, and on what evidence.

Rotation axes are found first (`rotation_axes`). Every group that two of them may generate is then
tried, the largest first: the map is brought into the group's standard orientation (RELION's), its
axes are refined all at once, and every rotation of the group has to hold. Of half-maps it holds if
half-map 1 agrees with the rotated half-map 2 as well as with half-map 2 itself, shell by shell; a
molecule that is only nearly symmetric fails in the shells in which it differs. Each half-map has
axes of its own.
"""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from typing import Any

import roma
import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.evaluation.alignment import Alignment, refine_alignment
from cryogan.evaluation.fsc import band_end, fourier_shell_correlation
from cryogan.evaluation.resampling import move_map
from cryogan.evaluation.rotation_axes import Axis, Pair, ball_of, rotation_axes
from cryogan.physics.rotations import angle_between
from cryogan.symmetry import generating_axes, symmetry_matrices

ORDERS = range(2, 13)
"""Of the axes that are looked for."""

_HOLDS = 0.9  # quality of a symmetry
_ABOVE_CHANCE = 0.75  # and of that less three standard deviations
_POSSIBLE = 0.5  # and of one that is tried
_CLEARER = 3.0  # times as far from 1 are other rotations, at least
_FEWEST_SHELLS = 5  # every molecule is an ellipsoid, which has D2, in the first few
_THRESHOLD = 0.143
_SINGLE = 0.8  # correlation of its best axis to which one map is compared
_HALF = 0.5  # of the reference: to where a rotation is said to hold
_MOST_SHELLS = 61  # boxes of 128 px
_RIGHT_DEG = 6.0  # between axes
_OTHER_DEG = 10.0  # from all rotations of a group
_TRIED = 3  # orientations of a group
_AVERAGED = 12  # rotations, in the refinement of the axes
_REFINEMENTS = 3


@dataclass(frozen=True)
class Rotation:
    """Evidence on a rotation of a group.

    Attributes:
        order: n, of a rotation by a multiple of 360° / n.
        quality: what half-map 1 shares with the rotated half-map 2, over what it shares with
            half-map 2 itself; 1 for a symmetry. Of one map, its correlation with itself rotated,
            over that of its best axis.
        error: standard deviation of that for a symmetry.
        resolution_A: to which the quality of single shells stays above 0.5.
    """

    order: int
    quality: float
    error: float
    resolution_A: float

    @property
    def holds(self) -> bool:
        """Whether it may be a symmetry."""
        return self.quality >= _HOLDS and self.quality - 3.0 * self.error >= _ABOVE_CHANCE


@dataclass(frozen=True)
class Candidate:
    """A group that was tried.

    Attributes:
        group: its name.
        rotations: evidence on each but the identity, one of two inverse ones.
        other: highest quality of rotations that are not of the group, but by half the angle about
            its axes or about other axes found: what chance, or a shape without detail, has.
        frames: what moves each map into the standard orientation.
    """

    group: str
    rotations: tuple[Rotation, ...]
    other: float
    frames: tuple[Alignment, ...]

    @property
    def holds(self) -> bool:
        """Whether every rotation does, and clearly better than others."""
        distance = max(1.0 - self.worst.quality, self.worst.error)
        clear = 1.0 - self.other >= _CLEARER * distance
        return clear and all(each.holds for each in self.rotations)

    @property
    def worst(self) -> Rotation:
        """The rotation of lowest quality."""
        return min(self.rotations, key=lambda each: each.quality)

    @property
    def resolution_A(self) -> float:
        """To which all rotations hold."""
        return max(each.resolution_A for each in self.rotations)

    def describe(self) -> str:
        """The evidence in words."""
        worst = self.worst
        return (
            f"{self.group} to {self.resolution_A:.1f} Å, quality {worst.quality:.2f} ± "
            f"{worst.error:.2f}, other rotations {self.other:.2f}"
        )


@dataclass(frozen=True)
class Symmetry:
    """What was found.

    Attributes:
        group: the largest group that holds; "C1" for none.
        reason: in words.
        limit_A: resolution to which maps were compared.
        candidates: groups that were tried, the largest first, each at its best axes.
        frames: what moves each map into the standard orientation of the group.
    """

    group: str
    reason: str
    limit_A: float
    candidates: tuple[Candidate, ...]
    frames: tuple[Alignment, ...]

    def record(self) -> dict[str, Any]:
        """Group, reason and evidence, for a log."""
        return {
            "group": self.group,
            "reason": self.reason,
            "compared_to_A": self.limit_A,
            "candidates": [
                {
                    "group": each.group,
                    "quality": each.worst.quality,
                    "error": each.worst.error,
                    "other": each.other,
                    "resolution_A": each.resolution_A,
                }
                for each in self.candidates
            ],
        }


def find_symmetry(
    maps: Tensor, pixel_size_A: float, *, resolution_A: float | None = None
) -> Symmetry:
    """The largest point group that a map has, with axes and evidence.

    Axes of orders 2 to 12 are looked for, which may be up to a tenth of the box off its centre.

    Args:
        maps: (2, D, D, D) half-maps in one frame; or (1, D, D, D) one map, whose noise is not
            known: it is compared to where its best axis has a correlation of 0.8.
        pixel_size_A: of the maps.
        resolution_A: only this resolution and lower is used; None for that of the half-maps (FSC
            0.143), or for the band of one map.

    Raises:
        InputError: the maps are smaller than 16 voxels, or one is constant.
    """
    _check(maps)
    width_A = maps.shape[-1] * pixel_size_A
    shells, reference = _reference(maps)
    if resolution_A is not None:
        shells = min(shells, int(width_A / resolution_A))
    axes: list[Axis] = []
    if shells >= _FEWEST_SHELLS:
        pair = Pair.of(maps[0], maps[-1], shells, reference)
        axes = [axis for order in ORDERS for axis in rotation_axes(pair, order)]
        if len(maps) == 1:
            pair = _as_best(pair, axes)
            shells = pair.shells
    limit_A = width_A / max(shells, 1)
    candidates: list[Candidate] = []
    if shells >= _FEWEST_SHELLS:
        axes = [axis for axis in axes if pair.quality(axis.curve)[0] >= _POSSIBLE]
        for group in _possible_groups(axes):
            found = _best_candidate(group, axes, pair, width_A, len(maps))
            if found is None:
                continue
            candidates.append(found)
            if found.holds:
                return Symmetry(group, found.describe(), limit_A, tuple(candidates), found.frames)
            if min(found.worst.quality, found.other) >= _HOLDS:
                break  # round
    nothing = tuple(Alignment.identity() for _ in maps)
    if candidates and min(candidates[-1].worst.quality, candidates[-1].other) >= _HOLDS:
        reason = f"rotations of no common group are as good: {candidates[-1].describe()}"
    elif candidates:
        nearest = max(candidates, key=lambda each: each.worst.quality)
        reason = f"the nearest group does not hold: {nearest.describe()}"
    elif shells < _FEWEST_SHELLS:
        reason = f"what can be compared ends at {limit_A:.1f} Å, {shells} shells, too few to tell"
    else:
        reason = "no rotation axis was found"
    return Symmetry("C1", reason, limit_A, tuple(candidates), nothing)


def _check(maps: Tensor) -> None:
    if maps.ndim != 4 or len(set(maps.shape[1:])) != 1 or maps.shape[-1] < 16:
        raise InputError(
            f"Maps of {tuple(maps.shape[1:])} voxels have no symmetry to be found; give cubes of "
            "at least 16 voxels."
        )
    if not bool(torch.isfinite(maps).all()) or float(maps.flatten(1).std(1).min()) == 0.0:
        raise InputError(
            "A map is constant or holds values that are not finite, so that no symmetry can be "
            "found; give a map with density."
        )


def _reference(maps: Tensor) -> tuple[int, Tensor]:
    """The last shell that may count, and what a symmetry has in every shell."""
    most = min((maps.shape[-1] - 1) // 2, _MOST_SHELLS)
    if len(maps) == 1:
        curve = torch.ones(maps.shape[-1] // 2 + 1, device=maps.device)
        return min(band_end(maps[0]), most), curve
    curve = fourier_shell_correlation(maps[0], maps[1], ball_of(maps[0]))
    below = (~(curve[1:] >= _THRESHOLD)).nonzero()
    return min(int(below[0]) if len(below) else most, most), curve


def _as_best(pair: Pair, axes: list[Axis]) -> Pair:
    """With the curve of the best axis as reference, as far as it reaches."""

    def reach(axis: Axis) -> int:
        below = (axis.curve[1 : pair.shells + 1] < _SINGLE).nonzero()
        return int(below[0]) if len(below) else pair.shells

    if not axes:
        return replace(pair, reference=torch.zeros_like(pair.reference))
    best = max(axes, key=reach)
    within = torch.arange(len(best.curve), device=best.curve.device) <= reach(best)
    return replace(pair, reference=torch.where(within, best.curve.clamp(0.0, 1.0), 0.0))


def _possible_groups(axes: list[Axis]) -> list[str]:
    """Groups whose generating axes have been found, the largest first."""
    orders = {axis.order for axis in axes}
    names = [f"{family}{order}" for order in orders for family in "CD"] + ["T", "O", "I"]
    possible = [
        name for name in names if all(order in orders for order, _ in generating_axes(name))
    ]
    return sorted(possible, key=lambda name: -len(symmetry_matrices(name)))


def _best_candidate(
    group: str, axes: list[Axis], pair: Pair, width_A: float, count: int
) -> Candidate | None:
    """The first that holds, or the best, of a few pairs of axes with the right angle between."""
    wanted = generating_axes(group)
    between_deg = _between_deg(*(torch.tensor(direction) for _, direction in wanted))
    choices = [
        chosen
        for chosen in product(*([a for a in axes if a.order == order] for order, _ in wanted))
        if abs(_between_deg(*(axis.direction for axis in chosen)) - between_deg) < _RIGHT_DEG
    ]
    quality = {id(axis): pair.quality(axis.curve)[0] for axis in axes}
    choices.sort(key=lambda chosen: -min(quality[id(axis)] for axis in chosen))
    best = None
    for chosen in choices[:_TRIED]:
        found = _candidate(group, chosen, axes, pair, width_A, count)
        if found.holds:
            return found
        if best is None or found.worst.quality > best.worst.quality:
            best = found
    return best


def _between_deg(first: Tensor, second: Tensor | None = None) -> float:
    """Angle between two lines; 0 of one."""
    if second is None:
        return 0.0
    cosine = abs(float(first.double() @ second.double())) / float(first.norm() * second.norm())
    return math.degrees(math.acos(min(1.0, cosine)))


@dataclass(frozen=True)
class _Frame:
    """Density at x moves to `rotation @ x + shift`, in voxels of the pair."""

    rotation: Tensor
    shift: Tensor

    def then(self, rotation: Tensor) -> tuple[Tensor, Tensor]:
        """Rotation and shift with a rotation after it."""
        return rotation @ self.rotation, rotation @ self.shift


def _candidate(
    group: str,
    chosen: tuple[Axis, ...],
    axes: list[Axis],
    pair: Pair,
    width_A: float,
    count: int,
) -> Candidate:
    """A group about the axes chosen: refined, and the evidence on every rotation."""
    start = _standard_orientation(group, chosen)
    operators = symmetry_matrices(group)
    frames = [_refined(volume, start, operators) for volume in (pair.first, pair.second)[:count]]
    moved = move_map(pair.first, frames[0].rotation, frames[0].shift, False)
    standard = replace(pair, first=moved)

    def evidence(rotation: Tensor) -> Rotation:
        curve = standard.curve(*frames[-1].then(rotation))
        quality, error = pair.quality(curve)
        below = (curve < _HALF * pair.reference)[1 : pair.shells + 1].nonzero()
        reach = int(below[0]) if len(below) else pair.shells
        turns = float(angle_between(rotation, torch.eye(3))) / 360.0
        order = Fraction(turns).limit_denominator(ORDERS[-1]).denominator
        return Rotation(order, quality, error, width_A / max(reach, 1))

    rotations: list[Rotation] = []
    for operator in _one_of_inverses(operators):
        rotations.append(evidence(operator))
        if rotations[-1].quality < _POSSIBLE:
            break
    halves = [_about(direction, 180.0 / order) for order, direction in generating_axes(group)]
    others = [evidence(rotation).quality for rotation in halves]
    for axis in axes:
        turned = frames[-1].rotation @ axis.rotation @ frames[-1].rotation.T
        if float(angle_between(operators, turned).min()) > _OTHER_DEG:
            others.append(pair.quality(axis.curve)[0])
    scale_A = width_A / pair.first.shape[-1]
    placed = [
        Alignment(frame.rotation, frame.shift * scale_A, False, rotations[0].quality)
        for frame in frames
    ]
    return Candidate(group, tuple(rotations), max(others), tuple(placed))


def _about(direction: tuple[float, float, float], angle_deg: float) -> Tensor:
    """(3, 3) rotation about an axis."""
    axis = torch.nn.functional.normalize(torch.tensor(direction, dtype=torch.float64), dim=0)
    matrix: Tensor = roma.rotvec_to_rotmat(axis * math.radians(angle_deg))
    return matrix.float()


def _one_of_inverses(operators: Tensor) -> list[Tensor]:
    """The rotations of a group without the identity and without inverses."""
    kept: list[Tensor] = []
    for operator in operators[1:]:
        if not any(torch.allclose(operator.T, other, atol=1e-4) for other in kept):
            kept.append(operator)
    return kept


def _standard_orientation(group: str, axes: tuple[Axis, ...]) -> _Frame:
    """What brings axes to where a group has them, and the point in which they meet to the origin.

    A single axis goes through the point nearest to the origin.
    """
    wanted = [torch.tensor(direction).double() for _, direction in generating_axes(group)]
    found = [axis.direction.double() for axis in axes]
    if len(found) == 1:  # any direction across will do
        smallest = torch.eye(3, dtype=torch.float64)[int(found[0].abs().argmin())]
        found.append(torch.linalg.cross(found[0], smallest))
        wanted.append(torch.tensor([1.0, 0.0, 0.0]).double())
    elif float(found[0] @ found[1]) < 0.0:
        found[1] = -found[1]
    rotation = _right_angled(*wanted) @ _right_angled(*found).T
    # a rotation about a centre c shifts by c - R c
    matrix = torch.cat([torch.eye(3).double() - axis.rotation.double() for axis in axes])
    shift = torch.cat([axis.shift_px.double() for axis in axes])
    centre = torch.linalg.pinv(matrix, rtol=1e-3) @ shift
    return _Frame(rotation.float(), -(rotation @ centre).float())


def _right_angled(first: Tensor, second: Tensor) -> Tensor:
    """(3, 3) right-handed unit vectors in columns: the first, one towards the second, and across."""
    one = first / first.norm()
    two = second - (second @ one) * one
    two = two / two.norm()
    return torch.stack((one, two, torch.linalg.cross(one, two)), dim=1)


def _refined(volume: Tensor, frame: _Frame, operators: Tensor) -> _Frame:
    """The frame in which a map is most like the mean of its copies turned by the operators.

    Errors of the axes differ from copy to copy, so that the mean has hardly any: the map is
    aligned to it. A few of many copies will do.
    """
    some = operators[:: math.ceil(len(operators) / _AVERAGED)]
    for _ in range(_REFINEMENTS):
        copies = [move_map(volume, *frame.then(operator), False) for operator in some]
        step = refine_alignment(copies[0], torch.stack(copies).mean(0), 1.0, Alignment.identity())
        shift = step.rotation @ frame.shift + step.shift_A
        frame = _Frame(step.rotation @ frame.rotation, shift)
    return frame
