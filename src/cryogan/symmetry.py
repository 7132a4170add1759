"""Point groups of molecules, in the orientation that RELION gives them.

Names are checked without importing torch, so that a wrong one is refused at once.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from cryogan.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from cryogan.particles import Pose

_GOLDEN = (1.0 + math.sqrt(5.0)) / 2.0
# Generators (order of the axis, direction of the axis in x, y, z), as `relion_refine --sym`.
_POLYHEDRAL = {
    "T": [(3, (0.0, 0.0, 1.0)), (2, (0.0, math.sqrt(2.0), 1.0))],
    "O": [(4, (0.0, 0.0, 1.0)), (3, (1.0, 1.0, 1.0))],
    "I": [(2, (0.0, 0.0, 1.0)), (5, (1.0, 0.0, _GOLDEN))],
}


# A direction well inside RELION's asymmetric unit: its cell among its equivalents is that unit.
_INSIDE = {
    "C": (1.0, 0.0, 0.0),  # rot within 0° ± 180° / n
    "D": (0.0, 1e-3, 1.0),  # tilt up to 90° first, then rot within 90° ± 180° / n
    "T": (-0.460, 0.725, 0.513),  # threefold axes at its corners, a twofold one on its far edge
    "O": (0.0, 0.38, 0.92),  # a fourfold and two threefold axes at its corners
    "I": (0.0, 0.18, 0.98),  # two fivefold axes and a threefold one at its corners
}


def point_group(name: str) -> tuple[str, int]:
    """Family ("C", "D", "T", "O", "I") and order of the main axis (1 for T, O, I) of a group.

    Raises:
        InputError: the name is no point group.
    """
    plain = name.strip().upper()
    match = re.fullmatch(r"([CD])([1-9]\d{0,2})|([TOI])", "I" if plain == "I2" else plain)
    if match is None:
        raise InputError(
            f"The symmetry {name!r} is unknown; give Cn or Dn with n from 1 to 999 "
            "(C1 is no symmetry), T, O or I (the same as I2, with twofold axes along x, y and z)."
        )
    family, order, polyhedron = match.groups()
    return (polyhedron, 1) if polyhedron else (family, int(order))


def symmetry_matrices(name: str) -> Tensor:
    """All rotations of a point group, the identity first.

    Axes as in RELION (`relion_refine --sym NAME --print_symmetry_ops`): Cn and Dn have their
    n-fold axis along z and Dn a twofold axis along x; O has fourfold axes along x, y, z; T a
    threefold axis along z and a twofold axis along (0, √2, 1); I (RELION's I, also called I2,
    Crowther's setting) has twofold axes along x, y, z and a fivefold axis along (1, 0, φ).

    Args:
        name: "C1", "C4", "D2", "T", "O", "I" (or "I2") ..., upper or lower case.

    Returns:
        (m, 3, 3) float32 rotation matrices; m is the order of the group.

    Raises:
        InputError: the name is none of these.
    """
    import roma
    import torch

    family, order = point_group(name)
    if family in _POLYHEDRAL:
        return _closure([_rotation(n, axis) for n, axis in generating_axes(name)]).float()
    steps = torch.arange(order, dtype=torch.float64)
    rotvec = torch.zeros(order, 3, dtype=torch.float64)
    rotvec[:, 2] = steps * (2.0 * math.pi / order)
    cyclic: Tensor = roma.rotvec_to_rotmat(rotvec)
    if family == "D":
        cyclic = torch.cat((cyclic, cyclic @ _rotation(2, (1.0, 0.0, 0.0))))
    return cyclic.float()


def generating_axes(name: str) -> list[tuple[int, tuple[float, float, float]]]:
    """Order and direction (x, y, z) of axes whose rotations generate a point group, as above.

    Raises:
        InputError: the name is no point group.

    Example:
        >>> generating_axes("D7")
        [(7, (0.0, 0.0, 1.0)), (2, (1.0, 0.0, 0.0))]
    """
    family, order = point_group(name)
    if family in _POLYHEDRAL:
        return list(_POLYHEDRAL[family])
    main = [(order, (0.0, 0.0, 1.0))]
    return main if family == "C" else [*main, (2, (1.0, 0.0, 0.0))]


def _rotation(order: int, axis: tuple[float, float, float]) -> Tensor:
    """Rotation by 360° / order about an axis: (3, 3) float64."""
    import roma
    import torch

    direction = torch.nn.functional.normalize(torch.tensor(axis, dtype=torch.float64), dim=0)
    matrix: Tensor = roma.rotvec_to_rotmat(direction * (2.0 * math.pi / order))
    return matrix


def _closure(generators: list[Tensor]) -> Tensor:
    """The finite group that the generators span: (m, 3, 3)."""
    import torch

    group = [torch.eye(3, dtype=torch.float64)]
    for element in group:  # grows while it is walked through
        for generator in generators:
            product = element @ generator
            if min((product - known).abs().max().item() for known in group) > 1e-6:
                group.append(product)
    return torch.stack(group)


def is_in_asymmetric_unit(direction: Tensor, symmetry: str) -> Tensor:
    """(n,) whether viewing directions (n, 3) lie in RELION's asymmetric unit, edge included.

    Raises:
        InputError: the symmetry is unknown.
    """
    import torch

    group = symmetry_matrices(symmetry).double()
    inside = torch.tensor(_INSIDE[symmetry.strip()[0].upper()], dtype=torch.float64)
    along = direction.double() @ (inside @ group).T
    found: Tensor = along[:, 0] >= along.amax(dim=1) - 1e-6
    return found


def in_asymmetric_unit(pose: Pose, symmetry: str) -> Pose:
    """The symmetry-equivalent poses whose viewing directions RELION itself would have given.

    `relion_refine` 3.1.3 samples directions inside one asymmetric unit only, and its local searches
    around poses outside end far away from them (as if the equivalent of the direction were taken
    but not that of the in-plane angle; `docs/export.md` has numbers). The unit was established
    from the directions that RELION lists in `run_it001_sampling.star`.

    Args:
        pose: n poses.
        symmetry: as for `symmetry_matrices`.

    Returns:
        n poses; the images that they describe are the same.

    Raises:
        InputError: the symmetry is unknown.
    """
    import torch

    group = symmetry_matrices(symmetry).double()
    inside = torch.tensor(_INSIDE[symmetry.strip()[0].upper()], dtype=torch.float64)
    direction = pose.rotation[:, :, 2].double()
    nearest = (direction @ (inside @ group).T).argmax(1)
    rotation: Tensor = group[nearest] @ pose.rotation.double()
    return replace(pose, rotation=rotation.to(pose.rotation.dtype))
