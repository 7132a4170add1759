"""The other hand of a map and of poses: inversion through the origin.

An inverted map keeps its symmetry axes, and the map's projection along any direction is that of the
original turned by 180° in its plane. A particle keeps its viewing direction and shift, and psi
grows by 180°.
"""

from dataclasses import replace

from torch import Tensor

from cryogan.particles import Pose


def other_hand(volume: Tensor) -> Tensor:
    """The mirror image of a map (D, D, D), inverted through voxel D // 2; no value changes.

    In an even box the first section along each axis, which has no partner, stays in its place.

    Example:
        >>> import torch
        >>> other_hand(torch.arange(8.0).view(2, 2, 2)).flatten()[-1].item()
        7.0
    """
    axes = (0, 1, 2)
    turned = volume.flip(axes)
    return turned if volume.shape[-1] % 2 else turned.roll((1, 1, 1), axes)


def poses_of_other_hand(pose: Pose) -> Pose:
    """Poses that show in the other hand of a map what `pose` shows in the map."""
    half_turn = pose.rotation.new_tensor((-1.0, -1.0, 1.0))  # about z: columns x and y change sign
    return replace(pose, rotation=pose.rotation * half_turn)
