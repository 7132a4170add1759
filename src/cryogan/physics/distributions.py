"""What the simulator assumes of poses: samplers, separate from rendering."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan.particles import Pose
from cryogan.physics.rotations import random_rotations


@dataclass(frozen=True)
class PoseDistribution:
    """Uniform orientations and, per axis, triangular shifts (density 1 - |x|).

    Attributes:
        max_shift_A: half width of the shift's triangle; 0 for centred particles.
    """

    max_shift_A: float = 0.0

    def sample(self, n: int, generator: torch.Generator) -> Pose:
        """n poses on the CPU."""
        rotation = random_rotations(n, generator)
        shift = triangular(n, self.max_shift_A, generator)
        return Pose(rotation, shift)


def triangular(n: int, half_width: float, generator: torch.Generator) -> Tensor:
    """(n, 2) values of the density (1 - |x| / w) / w on ±w (the sum of two uniforms)."""
    uniform = torch.rand(n, 2, 2, generator=generator)
    return half_width * (uniform.sum(-1) - 1.0)
