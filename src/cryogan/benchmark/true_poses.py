"""The bound of a benchmark: the map that the same images give at their true poses.

For evaluation only; no reconstruction is given a pose.
"""

from pathlib import Path

import torch
from torch import Tensor

import cryogan as cg
from cryogan import fourier
from cryogan.data.normalisation import normalised
from cryogan.errors import InputError
from cryogan.io.relion_poses import read_poses
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.normal_equations import (
    NormalEquations,
    WeightedPoses,
    normal_equations,
    shell_weight,
    solve,
)
from cryogan.objectives.likelihood.orientation_grid import OrientationGrid
from cryogan.particles import Particles, Pose
from cryogan.physics.circular_harmonics import CircularHarmonics
from cryogan.symmetry import symmetry_matrices

_SIGNAL_TO_NOISE = 50.0  # of the prior: next to none
_AT_ONCE = 40_000_000  # coefficients of images in memory
_CPU = torch.device("cpu")


def posed_particles(star: Path) -> tuple[Particles, Pose]:
    """The particles of a simulated set, normalised as runs do, and their true poses."""
    particles, _ = normalised(cg.read_particles(star, sign="bright"))
    return particles, read_poses(star.parent / "truth" / "poses.star")


def symmetry_about_its_axes(truth: cg.Map, symmetry: str) -> Tensor:
    """(G, 3, 3) operators of a point group about the axes that the true map has.

    Raises:
        InputError: the map has another symmetry.
    """
    operators = symmetry_matrices(symmetry)
    if len(operators) == 1:
        return operators
    found = cg.find_symmetry(truth)
    if found.group != symmetry:
        raise InputError(f"The true map has {found.group}, not {symmetry}; give that.")
    turn = found.frames[0].rotation.to(operators)
    return turn.mT @ operators @ turn


def map_of_true_poses(particles: Particles, poses: Pose, operators: Tensor) -> cg.Map:
    """Least squares with next to no prior, one pose an image, of the symmetry of the molecule.

    Args:
        particles: n images.
        poses: of each.
        operators: (G, 3, 3).
    """
    half = HalfSet.of(particles)
    size = particles.box_size
    harmonics = CircularHarmonics(size, size // 2 - 1, size / 2, _CPU)
    at_once = max(1, _AT_ONCE // len(harmonics.order))
    total: NormalEquations | None = None
    for part in torch.split(torch.arange(len(particles)), at_once):
        shift_px = poses.shift_A[part].float() / particles.pixel_size_A
        n = len(part)
        index, one = torch.arange(n), torch.ones(n, 1)
        grid = OrientationGrid(1, poses.rotation[part].float())
        weighted = WeightedPoses(index, index, torch.zeros(n), shift_px, one, one)
        seen = half.observed(part, harmonics, _CPU)
        found = normal_equations(seen, weighted, grid, harmonics, operators=operators)
        total = found if total is None else total + found
    assert total is not None
    prior = _SIGNAL_TO_NOISE / shell_weight(total)
    prior[:, 0] = prior[:, 1]  # images hold no information on the mean
    ball = fourier.soft_disc(size, 0.46 * size, 0.04 * size, 3, _CPU)
    volume = solve(total, prior, ball, torch.zeros(1, size, size, size), iterations=24)
    return cg.Map(volume[0], particles.pixel_size_A)
