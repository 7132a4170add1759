"""What posteriors say of the shifts: their spread, and where the map should be.

A map that is moved by v shows the particle of orientation R moved by the x and y of `Rᵀ v`. The map
is moved by the v that explains most of the shifts; what is left of their second moment is the
variance of the Gaussian prior (Scheres, J. Struct. Biol. 180, 2012).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan.objectives.likelihood.orientation_grid import OrientationGrid
from cryogan.objectives.likelihood.pose_search import Cells


@dataclass(frozen=True)
class ShiftMoments:
    """Sums over images, in pixels of their box.

    Attributes:
        images: how many.
        second: posterior mean of |t|².
        normal: (3, 3) sum of Mᵀ M, where M (2, 3) takes a move of the map to a shift.
        right: (3,) sum of Mᵀ t.
    """

    images: int
    second: float
    normal: Tensor
    right: Tensor

    @classmethod
    def of(cls, cells: Cells, probability: Tensor, grid: OrientationGrid) -> "ShiftMoments":
        """Of posteriors (n, K); orientations are those of the best cells."""
        best = probability.argmax(dim=1, keepdim=True)
        frame = grid.frame[cells.direction.gather(1, best)[:, 0]]
        psi = cells.psi.gather(1, best)
        x, y = frame[:, :, 0], frame[:, :, 1]
        cosine, sine = psi.cos(), psi.sin()
        operator = torch.stack((cosine * x + sine * y, cosine * y - sine * x), dim=1)
        mean = (probability[..., None] * cells.shift_px).sum(dim=1)
        return cls(
            len(mean),
            float((probability * cells.shift_px.square().sum(-1)).sum()),
            torch.einsum("nai,naj->ij", operator, operator).double().cpu(),
            torch.einsum("nai,na->i", operator, mean).double().cpu(),
        )

    def __add__(self, other: "ShiftMoments") -> "ShiftMoments":
        return ShiftMoments(
            self.images + other.images,
            self.second + other.second,
            self.normal + other.normal,
            self.right + other.right,
        )

    def move_px(self, operators: Tensor) -> Tensor:
        """(3,) by which the map should move, as far as its symmetry (G, 3, 3) leaves it free."""
        allowed = operators.double().cpu().mean(dim=0)  # projects on what all of them leave alone
        ridge = 1e-6 * self.normal.trace() * torch.eye(3, dtype=torch.float64)
        normal = allowed @ self.normal @ allowed + ridge
        found: Tensor = allowed @ torch.linalg.solve(normal, allowed @ self.right)
        return found

    def sd_px(self, move_px: Tensor) -> float:
        """Standard deviation along an axis of shifts that the move does not explain."""
        explained = 2.0 * self.right @ move_px - move_px @ self.normal @ move_px
        left = max(self.second - float(explained), 0.0)
        return math.sqrt(left / (2.0 * self.images))


def shift_prior(moments: Sequence[ShiftMoments], operators: Tensor) -> tuple[float, Tensor]:
    """Standard deviation of the next prior, mean of all maps, and move (3,) of the first map.

    Both are in pixels of the images.

    Args:
        moments: of each half-set, searched with a map of its own.
        operators: (G, 3, 3) of the molecule's symmetry.
    """
    moves = [each.move_px(operators) for each in moments]
    sd_px = sum(each.sd_px(own) for each, own in zip(moments, moves, strict=True)) / len(moments)
    return sd_px, moves[0].float()
