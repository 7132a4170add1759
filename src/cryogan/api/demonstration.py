"""What `cryogan demo` works on: two simulated sets, and the error of poses known from one."""

from pathlib import Path
from typing import Any

from torch import Tensor

from cryogan.api.simulation import simulate
from cryogan.evaluation.alignment import Alignment
from cryogan.evaluation.pose_errors import in_frame_of_truth, pose_errors_deg
from cryogan.io.relion_poses import read_poses
from cryogan.particles import Particles
from cryogan.run.continuation import Assigned
from cryogan.symmetry import symmetry_matrices

STILL: dict[str, Any] = {
    "box_size": 32,
    "pixel_size_A": 6.0,
    "images": 1_000,
    "noise": {"snr_dB": -5.2, "snr_box_size": 192},
}
"""A made-up protein of D2 symmetry."""
MOVING: dict[str, Any] = {
    "box_size": 16,
    "pixel_size_A": 12.0,
    "images": 1_000,
    "noise": {"snr_dB": 3.0},
    "molecule": {"hinge_deg": (-40.0, 40.0), "hinge_states": 5},
}
"""One without symmetry, a domain of which turns about a hinge."""


def simulate_demo(folder: Path, seed: int) -> tuple[Particles, Particles]:
    """Write both sets into `still` and `moving`, truth included; those that are there stay.

    Raises:
        InputError: a folder cannot be written, or holds something else.
    """
    still = simulate("phantom:D2", folder / "still", **STILL, seed=seed)
    moving = simulate("phantom", folder / "moving", **MOVING, seed=seed)
    return still, moving


def errors_of_poses_deg(poses: Assigned, alignment: Alignment, truth: Path) -> Tensor:
    """(n,) angles between assigned orientations and the true ones, modulo the symmetry.

    Args:
        poses: of all particles of a simulated set.
        alignment: of the map that they were assigned with to the true one.
        truth: folder `truth` of the set; its molecule lies about its axes.
    """
    true = read_poses(truth / "poses.star").rotation[poses.kept]
    turned = in_frame_of_truth(poses.pose.rotation, alignment)
    return pose_errors_deg(turned, true, symmetry_matrices(poses.symmetry))[0]
