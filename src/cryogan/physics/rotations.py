"""Rotation matrices, RELION's Euler angles and uniform sampling of SO(3).

The convention, written once: RELION's angles (rot, tilt, psi) name the intrinsic ZYZ rotation
`R = Rz(rot) Ry(tilt) Rz(psi)`. R takes image-frame to molecule-frame coordinates, so that the
spectrum of a projection is the central slice `F2(k) = F3(R k)`; the viewing direction is
`R e_z = (cos rot sin tilt, sin rot sin tilt, cos tilt)`. RELION's own matrix is Rᵀ.
"""

import roma
import torch
from torch import Tensor


def euler_to_matrix(euler_deg: Tensor) -> Tensor:
    """Rotation matrices (n, 3, 3) of RELION's angles (n, 3) = (rot, tilt, psi) in degrees."""
    matrix: Tensor = roma.euler_to_rotmat("ZYZ", euler_deg, degrees=True)
    return matrix


def matrix_to_euler(rotation: Tensor) -> Tensor:
    """RELION's angles (rot, tilt, psi) in degrees, (n, 3), of rotation matrices (n, 3, 3).

    tilt is in [0, 180]; at the poles, where only rot ± psi is defined, rot is set to 0.
    """
    view = rotation.double()
    tilt = torch.atan2(view[:, :2, 2].norm(dim=-1), view[:, 2, 2])
    regular = view[:, :2, 2].norm(dim=-1) > 1e-7
    rot = torch.atan2(view[:, 1, 2], view[:, 0, 2]) * regular
    psi = torch.where(
        regular,
        torch.atan2(view[:, 2, 1], -view[:, 2, 0]),
        torch.atan2(view[:, 1, 0], view[:, 1, 1]),
    )
    return torch.rad2deg(torch.stack((rot, tilt, psi), dim=-1)).to(rotation.dtype)


def random_rotations(n: int, generator: torch.Generator) -> Tensor:
    """n rotations drawn uniformly (Haar measure) from SO(3): (n, 3, 3) on the CPU."""
    quaternion = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    matrix: Tensor = roma.unitquat_to_rotmat(torch.nn.functional.normalize(quaternion, dim=-1))
    return matrix.float()


def about_z(psi: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) about z by (...) radians."""
    cosine, sine, zero = psi.cos(), psi.sin(), torch.zeros_like(psi)
    rows = (cosine, -sine, zero, sine, cosine, zero, zero, zero, zero + 1.0)
    return torch.stack(rows, dim=-1).view(*psi.shape, 3, 3)


def angle_between(first: Tensor, second: Tensor) -> Tensor:
    """Geodesic angle in degrees between rotation matrices (..., 3, 3)."""
    angle: Tensor = roma.rotmat_geodesic_distance(first, second)
    return torch.rad2deg(angle)
