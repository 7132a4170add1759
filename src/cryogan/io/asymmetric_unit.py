"""The part of the sphere of viewing directions in which RELION keeps symmetric particles."""

from dataclasses import replace

import torch
from torch import Tensor

from cryogan.particles import Pose
from cryogan.symmetry import symmetry_matrices

# A direction well inside RELION's unit: its cell among its equivalents is that unit.
_INSIDE = {
    "C": (1.0, 0.0, 0.0),  # rot within 0° ± 180° / n
    "D": (0.0, 1e-3, 1.0),  # tilt up to 90° first, then rot within 90° ± 180° / n
    "T": (-0.460, 0.725, 0.513),  # threefold axes at its corners, a twofold one on its far edge
    "O": (0.0, 0.38, 0.92),  # a fourfold and two threefold axes at its corners
    "I": (0.0, 0.18, 0.98),  # two fivefold axes and a threefold one at its corners
}


def in_asymmetric_unit(pose: Pose, symmetry: str) -> Pose:
    """The symmetry-equivalent poses whose viewing directions RELION itself would have given.

    `relion_refine` 3.1.3 samples directions inside one asymmetric unit only, and its local searches
    around poses outside end far away from them (as if the equivalent of the direction were taken
    but not that of the in-plane angle; `docs/handover.md` has numbers). The unit was established
    from the directions that RELION lists in `run_it001_sampling.star`.

    Args:
        pose: n poses.
        symmetry: as for `symmetry.symmetry_matrices`.

    Returns:
        n poses; the images that they describe are the same.

    Raises:
        InputError: the symmetry is unknown.
    """
    group = symmetry_matrices(symmetry).double()
    inside = torch.tensor(_INSIDE[symmetry.strip()[0].upper()], dtype=torch.float64)
    direction = pose.rotation[:, :, 2].double()
    nearest = (direction @ (inside @ group).T).argmax(1)
    rotation: Tensor = group[nearest] @ pose.rotation.double()
    return replace(pose, rotation=rotation.to(pose.rotation.dtype))
