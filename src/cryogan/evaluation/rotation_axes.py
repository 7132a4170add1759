"""Axes about which a map is like itself: its correlation with copies turned by 360° / n.

All axes of a HEALPix grid (7.3° apart) are tried for every n, with shifts, at low resolution; the
best are refined as alignments are, the angle left free, and kept if it stays 360° / n. Of two
half-maps one is turned and compared with the other, so that noise never correlates with itself.
"""

import math
from dataclasses import dataclass

import healpix
import numpy as np
import roma
import torch
from torch import Tensor

from cryogan import fourier
from cryogan.evaluation.alignment import alignments
from cryogan.evaluation.fsc import fourier_shell_correlation
from cryogan.evaluation.resampling import move_map

ORDERS = range(2, 13)
"""Of the axes that are looked for."""

_NSIDE = 8
_KEPT = 6  # of every order
_ANGLE_TOLERANCE_DEG = 3.0
_SAME_AXIS = math.cos(math.radians(5.0))
_SEARCHED = 16  # the most shells of the search
_FILL = 0.38  # of the box: the ball that maps are compared in


@dataclass(frozen=True)
class Pair:
    """The maps that are compared, in a box that holds the shells.

    Attributes:
        first: (D, D, D).
        second: (D, D, D) in the same frame; the first itself if there is one map.
        reference: (D // 2 + 1,) FSC of a perfect symmetry; 0 in shells that do not count.
    """

    first: Tensor
    second: Tensor
    reference: Tensor

    @classmethod
    def of(cls, first: Tensor, second: Tensor, shells: int, reference: Tensor) -> "Pair":
        """Of maps (D, D, D) to a shell; the reference (D // 2 + 1,) is that of all shells."""
        size = box_of(shells, first.shape[-1])
        curve = reference.new_zeros(size // 2 + 1)
        curve[1 : shells + 1] = reference[1 : shells + 1].clamp(0.0, 1.0)
        return cls(fourier.resample(first, size, 3), fourier.resample(second, size, 3), curve)

    @property
    def shells(self) -> int:
        """The last that counts."""
        counting = self.reference.nonzero()
        return int(counting.max()) if len(counting) else 0

    def curve(self, rotation: Tensor, shift_px: Tensor) -> Tensor:
        """(D // 2 + 1,) FSC of the first with the second, rotated and shifted."""
        ball = ball_of(self.first)
        moved = move_map(self.second, rotation.to(self.second), shift_px.to(self.second), False)
        return fourier_shell_correlation(self.first, moved, ball)

    def quality(self, curve: Tensor) -> tuple[float, float]:
        """How much of the reference a curve has, and the standard deviation of that.

        Least squares over shells, weighted by their numbers of coefficients; 1 for a symmetry, up
        to the sampling error of both curves.
        """
        size = self.first.shape[-1]
        count = fourier.shell_sum(
            torch.ones(size, size, size // 2 + 1, device=curve.device), size, 3
        )
        reference = self.reference
        weight = count * reference
        total = float((weight * reference).sum())
        independent = (0.5 * _FILL * count).clamp_min(1.0)
        variance = ((1.0 - curve.square()).square() + (1.0 - reference.square()).square()) / (
            independent
        )
        error = math.sqrt(float((weight.square() * variance).sum())) / total
        return float((weight * curve).sum()) / total, error


def box_of(shells: int, box_size: int) -> int:
    """Box, at least 16 px if the maps have one, that holds shells and a few more."""
    return min(box_size, max(16, 2 * (shells + 3)))


def ball_of(volume: Tensor) -> Tensor:
    """(D, D, D) soft ball in which maps are compared."""
    size = volume.shape[-1]
    return fourier.soft_disc(size, 0.4 * size, 0.1 * size, 3, volume.device)


@dataclass(frozen=True)
class Axis:
    """A rotation axis of a map.

    Attributes:
        order: n, of rotations by 360° / n.
        direction: (3,) unit vector, x, y, z.
        rotation: (3, 3) about it.
        shift_px: (3,) that goes with the rotation, which is about the axis, not the origin.
        curve: (D // 2 + 1,) of the rotation, see `Pair.curve`.
    """

    order: int
    direction: Tensor
    rotation: Tensor
    shift_px: Tensor
    curve: Tensor


def rotation_axes(pair: Pair, order: int) -> list[Axis]:
    """The axes of an order that are most like symmetries; there may be none."""
    shells = min(pair.shells, _SEARCHED)
    found = alignments(
        pair.second,
        pair.first,
        1.0,
        hands=(False,),
        count=_KEPT,
        resolution_A=pair.first.shape[-1] / shells,
        rotations=_rotations(order),
    )
    axes: list[Axis] = []
    for each in found:
        rotvec: Tensor = roma.rotmat_to_rotvec(each.rotation.double())
        angle = float(rotvec.norm())
        if abs(math.degrees(angle) - 360.0 / order) > _ANGLE_TOLERANCE_DEG:
            continue
        direction = rotvec / angle
        if any(abs(float(direction @ axis.direction)) > _SAME_AXIS for axis in axes):
            continue  # the other way round
        curve = pair.curve(each.rotation, each.shift_A)
        axes.append(Axis(order, direction, each.rotation, each.shift_A, curve))
    return axes


def _rotations(order: int) -> Tensor:
    """(n, 3, 3) by 360° / order about all axes of the grid; opposite ones are the same."""
    tilt, rot = healpix.pix2ang(_NSIDE, np.arange(healpix.nside2npix(_NSIDE)))
    direction = np.stack((np.sin(tilt) * np.cos(rot), np.sin(tilt) * np.sin(rot), np.cos(tilt)), 1)
    half = direction[(tilt < 0.5 * np.pi - 1e-6) | ((tilt < 0.5 * np.pi + 1e-6) & (rot < np.pi))]
    rotvec = torch.from_numpy(half) * (2.0 * math.pi / order)
    matrices: Tensor = roma.rotvec_to_rotmat(rotvec)
    return matrices.float()
