"""What the simulator assumes of poses: samplers, separate from rendering.

An orientation is a viewing direction `R e_z` and an in-plane angle psi (see `rotations`).
Everything is drawn on the CPU from the generator that is passed in.
"""

from dataclasses import dataclass
from typing import Protocol

import healpix
import numpy as np
import torch
from torch import Tensor

from cryogan.particles import Pose
from cryogan.physics.rotations import euler_to_matrix, random_rotations


class Orientations(Protocol):
    """A distribution on SO(3)."""

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, 3, 3) float32 rotation matrices in the convention of `Pose.rotation`."""
        ...


class Shifts(Protocol):
    """A distribution of in-plane displacements."""

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, 2) float32 displacements (x, y) in Å, as `Pose.shift_A`."""
        ...


@dataclass(frozen=True)
class Uniform:
    """All orientations alike: the Haar measure."""

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return random_rotations(n, generator)


@dataclass(frozen=True)
class AngularCentralGaussian:
    """Viewing directions `x / |x|` with `x ~ N(0, diag(1, 1, σ²))`; psi uniform.

    The angular central Gaussian distribution (Tyler, Biometrika 74, 1987). σ = 1 is uniform;
    larger σ gathers the views along ±z, smaller σ around the equator.

    Attributes:
        sigma: σ, positive.
    """

    sigma: float

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        direction = torch.randn(n, 3, generator=generator, dtype=torch.float64)
        direction[:, 2] *= self.sigma
        return _looking_along(direction, _uniform_deg(n, generator))

    def density(self, direction: Tensor) -> Tensor:
        """Density per steradian at unit vectors (m, 3): (m,), of integral 1 over the sphere.

        `|Λ|^(-1/2) (xᵀ Λ⁻¹ x)^(-3/2) / 4π` with Λ = diag(1, 1, σ²).
        """
        x, y, z = direction.unbind(-1)
        form = x.square() + y.square() + (z / self.sigma).square()
        return form.pow(-1.5) / (4.0 * torch.pi * self.sigma)


@dataclass(frozen=True)
class SideViews:
    """Views of a standing cylinder: tilt is normal about 90°, rot and psi are uniform.

    Attributes:
        spread_deg: standard deviation of tilt in degrees.
    """

    spread_deg: float = 0.0

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        normal = torch.randn(n, generator=generator, dtype=torch.float64)
        tilt_deg = 90.0 + self.spread_deg * normal
        rot_deg, psi_deg = _uniform_deg(n, generator), _uniform_deg(n, generator)
        return _euler_rotations(rot_deg, tilt_deg, psi_deg)


@dataclass(frozen=True)
class SphereDensity:
    """A density of viewing directions that is constant within HEALPix cells; psi uniform.

    Cells of one map have equal areas (Górski et al., Astrophys. J. 622, 2005).

    Attributes:
        weights: (12 nside²,) nonnegative weight of each cell, in RING order, not all zero.
    """

    weights: Tensor

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        cumulative = self.weights.double().cumsum(0)
        uniform = torch.rand(n, generator=generator, dtype=torch.float64)
        cell = torch.searchsorted(cumulative, uniform * cumulative[-1], right=True)
        seed = torch.randint(2**63 - 1, (1,), generator=generator)
        x, y, z = healpix.randvec(
            healpix.npix2nside(len(self.weights)),
            cell.clamp_max(len(self.weights) - 1).numpy(),
            rng=np.random.default_rng(int(seed)),
        )
        direction = torch.from_numpy(np.stack((x, y, z), axis=-1))
        return _looking_along(direction, _uniform_deg(n, generator))


@dataclass(frozen=True)
class Listed:
    """Orientations drawn with replacement from a list.

    Attributes:
        rotation: (m, 3, 3) rotation matrices, m ≥ 1.
    """

    rotation: Tensor

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return self.rotation[torch.randint(len(self.rotation), (n,), generator=generator)].float()


@dataclass(frozen=True)
class Triangular:
    """Per axis, the density (1 - |x| / w) / w on ±w: the sum of two uniform variables.

    Attributes:
        half_width_A: w in Å; 0 for centred particles.
    """

    half_width_A: float = 0.0

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        uniform = torch.rand(n, 2, 2, generator=generator)
        return self.half_width_A * (uniform.sum(-1) - 1.0)


@dataclass(frozen=True)
class UniformShifts:
    """Per axis, all displacements within ±w alike.

    Attributes:
        half_width_A: w in Å.
    """

    half_width_A: float

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return self.half_width_A * (2.0 * torch.rand(n, 2, generator=generator) - 1.0)


@dataclass(frozen=True)
class Gaussian:
    """Per axis, a normal distribution about 0.

    Attributes:
        sigma_A: standard deviation in Å.
    """

    sigma_A: float

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return self.sigma_A * torch.randn(n, 2, generator=generator)


@dataclass(frozen=True)
class PoseDistribution:
    """Independent orientations and shifts; uniform and centred unless told otherwise."""

    orientations: Orientations = Uniform()
    shifts: Shifts = Triangular()

    def sample(self, n: int, generator: torch.Generator) -> Pose:
        """n poses on the CPU; orientations are drawn before shifts."""
        rotation = self.orientations.sample(n, generator)
        return Pose(rotation, self.shifts.sample(n, generator))


def _uniform_deg(n: int, generator: torch.Generator) -> Tensor:
    """(n,) angles in [0, 360)."""
    return 360.0 * torch.rand(n, generator=generator, dtype=torch.float64)


def _looking_along(direction: Tensor, psi_deg: Tensor) -> Tensor:
    """Rotations (n, 3, 3) with `R e_z` along `direction` ((n, 3), any length)."""
    x, y, z = direction.unbind(-1)
    rot = torch.atan2(y, x)
    tilt = torch.atan2(torch.hypot(x, y), z)
    return _euler_rotations(torch.rad2deg(rot), torch.rad2deg(tilt), psi_deg)


def _euler_rotations(rot_deg: Tensor, tilt_deg: Tensor, psi_deg: Tensor) -> Tensor:
    return euler_to_matrix(torch.stack((rot_deg, tilt_deg, psi_deg), dim=-1)).float()
