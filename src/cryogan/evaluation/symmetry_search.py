"""The symmetry of a map: which point group it has, about which axes, and on what evidence.

Rotation axes are found first (`rotation_axes`). Every group that two of them may generate is then
tried, the largest first: the map is brought into the group's standard orientation (RELION's), its
axes are refined all at once, and every rotation of the group has to hold. Of half-maps it holds if
half-map 1 agrees with the rotated half-map 2 as well as with half-map 2 itself, shell by shell; a
molecule that is only nearly symmetric fails in the shells in which it differs. Each half-map has
axes of its own.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.evaluation.alignment import Alignment
from cryogan.evaluation.fsc import band_end, fourier_shell_correlation
from cryogan.evaluation.group_candidates import HOLDS, Candidate, best_candidate
from cryogan.evaluation.rotation_axes import ORDERS, Axis, Pair, ball_of, rotation_axes
from cryogan.symmetry import generating_axes, symmetry_matrices

_FEWEST_SHELLS = 5  # every molecule is an ellipsoid, which has D2, in the first few
_POSSIBLE = 0.5  # quality of axes that are tried
_THRESHOLD = 0.143
_SINGLE = 0.8  # correlation of its best axis to which one map is compared
_MOST_SHELLS = 61  # boxes of 128 px


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
            found = best_candidate(group, axes, pair, width_A, len(maps))
            if found is None:
                continue
            candidates.append(found)
            if found.holds:
                return Symmetry(group, found.describe(), limit_A, tuple(candidates), found.frames)
            if min(found.worst.quality, found.other) >= HOLDS:
                break  # round
    nothing = tuple(Alignment.identity() for _ in maps)
    if candidates and min(candidates[-1].worst.quality, candidates[-1].other) >= HOLDS:
        reason = (
            f"{candidates[-1].group} {candidates[-1].describe()}: rotations of no common group are "
            "as good, as of a map without detail"
        )
    elif candidates:
        nearest = max(candidates, key=lambda each: each.worst.quality)
        reason = f"the nearest group, {nearest.group}, is not enough: {nearest.describe()}"
    elif shells < _FEWEST_SHELLS:
        reason = f"what can be compared ends at {limit_A:.1f} Å, {shells} shells, too few to tell"
    else:
        reason = "no rotation axis was found"
    return Symmetry("C1", reason, limit_A, tuple(candidates), nothing)


def find_axes(maps: Tensor, pixel_size_A: float, group: str) -> Candidate | None:
    """Where half-maps have a group that the molecule is known to have.

    None where no axes are found, or where the maps agree in too few shells to tell.

    Args:
        maps: (2, D, D, D) half-maps in one frame.
        pixel_size_A: of the maps.
        group: its name.
    """
    _check(maps)
    shells, reference = _reference(maps)
    if shells < _FEWEST_SHELLS:
        return None
    pair = Pair.of(maps[0], maps[1], shells, reference)
    orders = sorted({order for order, _ in generating_axes(group)})
    axes = [axis for order in orders for axis in rotation_axes(pair, order)]
    return best_candidate(group, axes, pair, maps.shape[-1] * pixel_size_A, 2)


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
