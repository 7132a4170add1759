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

_AT_ONCE = 16_384  # directions


@dataclass(frozen=True)
class OrientationGrid:
    """HEALPix viewing directions of one level (nested numbering: v has children 4v ... 4v + 3).

    A pose is `R = frame Rz(ψ)`. The frame of a direction is that of its parent, moved by the
    shortest rotation, so that an in-plane angle means the same in both.

    Attributes:
        nside: HEALPix resolution; directions are about 58.6° / nside apart.
        frame: (12 nside², 3, 3) rotations, of which the third column is the direction.
        opposite: (12 nside²,) number of the opposite direction, whose frame is `frame Rx(π)`; None
            of directions that are no whole level.
    """

    nside: int
    frame: Tensor
    opposite: Tensor | None = None

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def spacing(self) -> float:
        """Distance of neighbouring directions, radians."""
        return math.sqrt(4.0 * math.pi / len(self))


@lru_cache(maxsize=12)
def orientation_grid(nside: int, device: torch.device) -> OrientationGrid:
    """The directions of a level."""
    tilt, rot = _angles(nside)
    opposite = torch.from_numpy(healpix.ang2pix(nside, np.pi - tilt, rot + np.pi, nest=True))
    return OrientationGrid(nside, _frames(nside).to(device), opposite.to(device))


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
    """(12 nside², 3, 3); those of nside 1 are `Rz(rot) Ry(tilt)`.

    The shortest rotation from a to b takes x to `x + v × x + v × (v × x) / (1 + a·b)`, v = a × b.
    """
    tilt, rot = (torch.from_numpy(angle) for angle in _angles(nside))
    if nside == 1:
        euler = torch.stack((rot, tilt, torch.zeros_like(rot)), dim=-1)
        return euler_to_matrix(euler.rad2deg()).float()
    parents = orientation_grid(nside // 2, torch.device("cpu")).frame
    frames = torch.empty(len(tilt), 3, 3)
    for part in torch.split(torch.arange(len(tilt)), _AT_ONCE):
        before = parents[part // 4].double()
        flat = tilt[part].sin()
        x, y = flat * rot[part].cos(), flat * rot[part].sin()
        direction = torch.stack((x, y, tilt[part].cos()), dim=-1)
        axis = torch.linalg.cross(before[:, :, 2], direction)[:, :, None]
        once = torch.linalg.cross(axis, before, dim=1)
        twice = torch.linalg.cross(axis, once, dim=1)
        cosine = (before[:, :, 2] * direction).sum(dim=1)[:, None, None]
        frames[part] = (before + once + twice / (1.0 + cosine)).float()
    return frames
