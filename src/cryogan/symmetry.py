"""Point groups of molecules, in the orientation that RELION gives them."""

import math
import re

import roma
import torch
from torch import Tensor

from cryogan.errors import InputError

_GOLDEN = (1.0 + math.sqrt(5.0)) / 2.0
# Generators (order of the axis, direction of the axis in x, y, z), as `relion_refine --sym`.
_POLYHEDRAL = {
    "T": [(3, (0.0, 0.0, 1.0)), (2, (0.0, math.sqrt(2.0), 1.0))],
    "O": [(4, (0.0, 0.0, 1.0)), (3, (1.0, 1.0, 1.0))],
    "I": [(2, (0.0, 0.0, 1.0)), (5, (1.0, 0.0, _GOLDEN))],
}


def symmetry_matrices(name: str) -> Tensor:
    """All rotations of a point group, the identity first.

    Axes as in RELION (`relion_refine --sym NAME --print_symmetry_ops`): Cn and Dn have their
    n-fold axis along z and Dn a twofold axis along x; O has fourfold axes along x, y, z; T a
    threefold axis along z and a twofold axis along (0, √2, 1); I (RELION's I, also called I2,
    Crowther's setting) has twofold axes along x, y, z and a fivefold axis along (1, 0, φ).

    Args:
        name: "C1", "C4", "D2", "T", "O", "I" ..., upper or lower case.

    Returns:
        (m, 3, 3) float32 rotation matrices; m is the order of the group.

    Raises:
        InputError: the name is none of these.
    """
    match = re.fullmatch(r"([CD])([1-9]\d{0,2})|([TOI])", name.strip().upper())
    if match is None:
        raise InputError(
            f"The symmetry {name!r} is unknown; give Cn or Dn with n from 1 to 999 "
            "(C1 is no symmetry), T, O or I."
        )
    family, order, polyhedron = match.groups()
    if polyhedron:
        generators = [_rotation(n, axis) for n, axis in _POLYHEDRAL[polyhedron]]
        return _closure(generators).float()
    steps = torch.arange(int(order), dtype=torch.float64)
    rotvec = torch.zeros(int(order), 3, dtype=torch.float64)
    rotvec[:, 2] = steps * (2.0 * math.pi / int(order))
    cyclic: Tensor = roma.rotvec_to_rotmat(rotvec)
    if family == "D":
        cyclic = torch.cat((cyclic, cyclic @ _rotation(2, (1.0, 0.0, 0.0))))
    return cyclic.float()


def _rotation(order: int, axis: tuple[float, float, float]) -> Tensor:
    """Rotation by 360° / order about an axis: (3, 3) float64."""
    direction = torch.nn.functional.normalize(torch.tensor(axis, dtype=torch.float64), dim=0)
    matrix: Tensor = roma.rotvec_to_rotmat(direction * (2.0 * math.pi / order))
    return matrix


def _closure(generators: list[Tensor]) -> Tensor:
    """The finite group that the generators span: (m, 3, 3)."""
    group = [torch.eye(3, dtype=torch.float64)]
    for element in group:  # grows while it is walked through
        for generator in generators:
            product = element @ generator
            if min((product - known).abs().max().item() for known in group) > 1e-6:
                group.append(product)
    return torch.stack(group)
