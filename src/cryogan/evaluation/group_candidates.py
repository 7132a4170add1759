"""A point group that a map may have: its axes, refined all at once, and every rotation's evidence.

A rotation holds if half-map 1 agrees with the rotated half-map 2 as well as with half-map 2 itself,
shell by shell. Rotations that are not of the group are the null: of a map without detail they are
as good.
"""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product

import roma
import torch
from torch import Tensor

from cryogan.evaluation.alignment import Alignment, refine_alignment
from cryogan.evaluation.resampling import move_map
from cryogan.evaluation.rotation_axes import ORDERS, Axis, Pair
from cryogan.physics.rotations import angle_between
from cryogan.symmetry import generating_axes, symmetry_matrices

HOLDS = 0.9
"""Quality of a symmetry, at least."""

_ABOVE_CHANCE = 0.75  # and of that less three standard deviations
_KNOWN = 0.5  # quality of a known group, less three standard deviations; others have less
_CLEARER = 3.0  # times as far from 1 are other rotations, at least
_REFINED = 0.7  # quality before the axes are refined, at least
_HALF = 0.5  # of the reference: to where a rotation is said to hold
_RIGHT_DEG = 6.0  # between axes
_OTHER_DEG = 10.0  # from all rotations of a group
_FRACTIONS = (0.5, 0.382)  # of the angle of an axis: C14 has the half of C7, none has both
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
        return self.quality >= HOLDS and self.quality - 3.0 * self.error >= _ABOVE_CHANCE


@dataclass(frozen=True)
class Candidate:
    """A group that was tried.

    Attributes:
        group: its name.
        rotations: evidence on each but the identity, one of two inverse ones.
        other: highest quality of rotations that are not of the group, but by a fraction of the
            angle about its axes or about other axes found: what chance, or a shape without detail,
            has.
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
    def places_known_group(self) -> bool:
        """Whether the axes may be those of a group that the molecule is known to have.

        Errors of the maps lower the quality, but other rotations must not be as good: about axes of
        a shape without detail all are.
        """
        worst = self.worst
        if worst.quality >= HOLDS:
            return 1.0 - self.other >= max(1.0 - HOLDS, 3.0 * worst.error)
        return worst.quality - 3.0 * worst.error >= _KNOWN and self.other <= _KNOWN

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
            f"holds to {self.resolution_A:.1f} Å, quality {worst.quality:.2f} ± "
            f"{worst.error:.2f}, other rotations {self.other:.2f}"
        )


def best_candidate(
    group: str, axes: list[Axis], pair: Pair, width_A: float, count: int
) -> Candidate | None:
    """A group about the axes that fit it best; None where none have the right angle between them.

    Args:
        group: its name.
        axes: of the map.
        pair: the maps.
        width_A: of their box.
        count: number of maps: 1 or 2.
    """
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
    """A group about the axes chosen; they are refined if its rotations hold nearly."""
    operators = symmetry_matrices(group)
    frames = [_standard_orientation(group, chosen)] * count
    rotations = _evidence(pair, frames, _one_of_inverses(operators), width_A)
    if min(each.quality for each in rotations) >= _REFINED:
        frames = [
            _refined(volume, frame, operators)
            for volume, frame in zip((pair.first, pair.second), frames, strict=False)
        ]
        rotations = _evidence(pair, frames, _one_of_inverses(operators), width_A)
    others = _others(group, axes, pair, frames, width_A)
    scale_A = width_A / pair.first.shape[-1]
    placed = [
        Alignment(frame.rotation, frame.shift * scale_A, False, rotations[0].quality)
        for frame in frames
    ]
    return Candidate(group, tuple(rotations), max(others), tuple(placed))


def _others(
    group: str, axes: list[Axis], pair: Pair, frames: list[_Frame], width_A: float
) -> list[float]:
    """Qualities of rotations that are not of the group.

    Of two fractions of the angle about each generating axis the lower one: either may be of a
    larger group, of which this is a part. Axes found along these, of any order, tell no more.
    """
    own: list[Tensor] = []
    others: list[float] = []
    for order, direction in generating_axes(group):
        own.append(torch.tensor(direction))
        null = [_about(direction, share * 360.0 / order) for share in _FRACTIONS]
        evidence = _evidence(pair, frames, null, width_A, least=-1.0)
        others.append(min(each.quality for each in evidence))
    operators = symmetry_matrices(group)
    for axis in axes:
        placed = frames[0].rotation @ axis.direction.to(frames[0].rotation)
        if min(_between_deg(placed, direction) for direction in own) < _RIGHT_DEG:
            continue
        turned = frames[0].rotation @ axis.rotation @ frames[0].rotation.T
        if float(angle_between(operators, turned).min()) > _OTHER_DEG:
            others.append(pair.quality(axis.curve)[0])
    return others


def _evidence(
    pair: Pair,
    frames: list[_Frame],
    rotations: list[Tensor],
    width_A: float,
    least: float = _REFINED,
) -> list[Rotation]:
    """Of every rotation, in the standard orientation; the first below `least` is the last."""
    moved = move_map(pair.first, frames[0].rotation, frames[0].shift, False)
    standard = replace(pair, first=moved)
    found: list[Rotation] = []
    for rotation in rotations:
        curve = standard.curve(*frames[-1].then(rotation))
        quality, error = pair.quality(curve)
        below = (curve < _HALF * pair.reference)[1 : pair.shells + 1].nonzero()
        reach = int(below[0]) if len(below) else pair.shells
        turns = float(angle_between(rotation, torch.eye(3))) / 360.0
        order = Fraction(turns).limit_denominator(ORDERS[-1]).denominator
        found.append(Rotation(order, quality, error, width_A / max(reach, 1)))
        if quality < least:
            break
    return found


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
    """(3, 3) unit vectors in columns: the first, one towards the second, and across both."""
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
