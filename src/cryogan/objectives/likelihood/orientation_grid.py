"""Orientation grids: directions and in-plane angles, each level twice as fine as the last."""

import math
from dataclasses import dataclass
from functools import lru_cache

import healpix
import numpy as np
import torch
from torch import Tensor

from cryogan.physics.rotations import euler_to_matrix
from cryogan.symmetry import is_in_asymmetric_unit


@dataclass(frozen=True)
class OrientationGrid:
    """HEALPix viewing directions of one level (nested numbering: v has children 4v ... 4v + 3).

    A pose is `R = frame Rz(ψ)`.

    Attributes:
        nside: HEALPix resolution; directions are about 58.6° / nside apart.
        frame: (12 nside², 3, 3) `Rz(rot) Ry(tilt)`.
        twist: (12 nside²,) radians: an in-plane angle ψ of the parent's frame is ψ + twist here.
        opposite: (12 nside²,) number of the opposite direction, whose frame is `frame Rx(π)`; None
            of directions that are no whole level.
    """

    nside: int
    frame: Tensor
    twist: Tensor
    opposite: Tensor | None = None

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def spacing(self) -> float:
        """Distance of neighbouring directions, radians."""
        return math.sqrt(4.0 * math.pi / len(self))


@lru_cache(maxsize=8)
def orientation_grid(nside: int, device: torch.device) -> OrientationGrid:
    """The directions of a level."""
    frame = _frames(nside)
    twist = torch.zeros(len(frame))
    if nside > 1:
        between = frame.mT @ _frames(nside // 2).repeat_interleave(4, dim=0)
        twist = torch.atan2(
            between[:, 1, 0] - between[:, 0, 1], between[:, 0, 0] + between[:, 1, 1]
        )
    tilt, rot = _angles(nside)
    opposite = torch.from_numpy(healpix.ang2pix(nside, np.pi - tilt, rot + np.pi, nest=True))
    return OrientationGrid(nside, frame.to(device), twist.to(device), opposite.to(device))


@lru_cache(maxsize=8)
def asymmetric_directions(nside: int, symmetry: str, device: torch.device) -> Tensor:
    """(V',) numbers of the directions of a level whose cells meet the asymmetric unit.

    A cell is the sphere nearer to none of its level, known by its 64 descendants of three levels
    on: every direction of the sphere has an equivalent in one of the cells.
    """
    return share_in_asymmetric_unit(nside, symmetry, device).nonzero()[:, 0]


@lru_cache(maxsize=8)
def share_in_asymmetric_unit(nside: int, symmetry: str, device: torch.device) -> Tensor:
    """(12 nside²,) share of the 64 descendants of each cell that are in the asymmetric unit."""
    fine = orientation_grid(8 * nside, torch.device("cpu")).frame[:, :, 2]
    inside = is_in_asymmetric_unit(fine, symmetry).view(-1, 64)
    return inside.float().mean(dim=1).to(device)


def _angles(nside: int) -> tuple[np.ndarray, np.ndarray]:
    """Tilt and rot of the directions, radians."""
    tilt, rot = healpix.pix2ang(nside, np.arange(12 * nside**2), nest=True)
    return tilt, rot


def _frames(nside: int) -> Tensor:
    tilt, rot = _angles(nside)
    euler = np.rad2deg(np.stack((rot, tilt, np.zeros_like(rot)), axis=-1))
    return euler_to_matrix(torch.from_numpy(euler)).float()
