"""How far assigned poses are from the true ones, once the map's frame and hand are known."""

import torch
from torch import Tensor

from cryogan.evaluation.alignment import Alignment
from cryogan.physics.rotations import angle_between

_OTHER_HAND = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))


def in_frame_of_truth(rotation: Tensor, alignment: Alignment) -> Tensor:
    """Assigned orientations (n, 3, 3), as they are in the frame that the map is moved to.

    A map of the other hand shows an image of the molecule turned by 180° in its plane.
    """
    turned = alignment.rotation.double() @ rotation.double()
    return turned @ _OTHER_HAND if alignment.mirrored else turned


def pose_errors_deg(
    assigned: Tensor, true: Tensor, operators: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(n,) angles between orientations (n, 3, 3) of one frame, and the nearest symmetric copy (n,).

    Args:
        assigned, true: orientations.
        operators: (g, 3, 3) of the molecule's symmetry in that frame; None for C1.
    """
    if operators is None:
        operators = torch.eye(3, dtype=torch.float64)[None]
    copies = operators.double()[:, None] @ assigned.double()
    error, copy = angle_between(copies, true.double()).min(dim=0)
    return error, copy
