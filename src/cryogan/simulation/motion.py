"""Rigid-body motions: parts of a molecule rotate about axes; states are positions on the way."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import roma
import torch
from torch import Tensor

from cryogan.io.atoms import AtomicModel
from cryogan.simulation.molecule_settings import Motion


@dataclass(frozen=True)
class _Rotation:
    """A motion looked up in a model: (n,) bool, (3,) unit vector, (3,) Å."""

    moving: Tensor
    axis: Tensor
    pivot_A: Tensor

    def apply(self, positions_A: Tensor, angle_deg: float) -> Tensor:
        matrix: Tensor = roma.rotvec_to_rotmat(math.radians(angle_deg) * self.axis)
        rotated = (positions_A - self.pivot_A) @ matrix.T + self.pivot_A
        return torch.where(self.moving[:, None], rotated, positions_A)


@dataclass(frozen=True)
class States:
    """A sequence of K states, each computed when it is asked for: `states[k]` is (n, 3) in Å.

    Attributes:
        angles_deg: (K, m) angle of each motion in every state.
    """

    _positions_A: Tensor
    _rotations: tuple[_Rotation, ...]
    angles_deg: Tensor

    def __len__(self) -> int:
        return len(self.angles_deg)

    def __getitem__(self, state: int) -> Tensor:
        positions_A = self._positions_A
        angles = self.angles_deg[state].tolist()
        for rotation, angle_deg in reversed(list(zip(self._rotations, angles, strict=True))):
            positions_A = rotation.apply(positions_A, angle_deg)
        return positions_A


def path(model: AtomicModel, motions: Sequence[Motion]) -> tuple[States, Tensor]:
    """The states of a molecule on the grid of its motions, and their latent coordinates.

    Axes and pivots are those of the unmoved model. State = M₁(M₂(… model)): the *last* motion is
    applied first, so that a motion listed first also moves the parts of later ones. List an arm
    before a part of that arm, and both rotate rigidly about their own joints.

    Args:
        model: the molecule as it lies in its file.
        motions: m motions. Every combination of their states is a state, the last motion's
            varying fastest: K is the product of the numbers of states.

    Returns:
        K states, computed when asked for, and (K, m) float64 latent coordinates: 0 at
        `first_deg`, 1 at `last_deg` (which a circular motion leaves out), evenly spaced between; 0
        for a motion of one state.

    Raises:
        InputError: a selection names nothing, an axis or pivot cannot be understood, an angle is
            not finite, or a motion has no states or several that are all the same.

    Example:
        >>> import torch
        >>> from cryogan.io.atoms import AtomicModel
        >>> from cryogan.simulation.motion import path
        >>> from cryogan.simulation.molecule_settings import Motion
        >>> model = AtomicModel(
        ...     name="one atom of chain A",
        ...     positions_A=torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64),
        ...     chains=("A",),
        ...     residues=torch.tensor([1]),
        ...     atoms=("CA",),
        ...     atomic_numbers=torch.tensor([6]),
        ...     occupancies=torch.ones(1, dtype=torch.float64),
        ...     b_factors_A2=torch.zeros(1, dtype=torch.float64),
        ... )
        >>> states, latent = path(model, [Motion("A", "z", "0,0,0", 0.0, 180.0, states=3)])
        >>> latent[:, 0].tolist()
        [0.0, 0.5, 1.0]
        >>> states[2].round().tolist()
        [[-1.0, 0.0, 0.0]]
    """
    rotations = tuple(_look_up(model, motion) for motion in motions)
    steps = [_steps(motion).tolist() for motion in motions]
    latent = torch.tensor(list(itertools.product(*steps)), dtype=torch.float64)
    first = latent.new_tensor([motion.first_deg for motion in motions])
    last = latent.new_tensor([motion.last_deg for motion in motions])
    return States(model.positions_A, rotations, torch.lerp(first, last, latent)), latent


def rmsd(first_A: Tensor, second_A: Tensor) -> float:
    """Root mean square distance of the atoms of two states (n, 3), without superposition; Å.

    Example:
        >>> import torch
        >>> from cryogan.simulation.motion import rmsd
        >>> rmsd(torch.zeros(4, 3), torch.tensor([[3.0, 4.0, 0.0]]).expand(4, 3))
        5.0
    """
    return float((first_A - second_A).square().sum(dim=1).mean().sqrt())


def _steps(motion: Motion) -> Tensor:
    """(states,) latent coordinates."""
    if motion.circular:
        return torch.arange(motion.states, dtype=torch.float64) / motion.states
    return torch.linspace(0.0, 1.0, motion.states, dtype=torch.float64)


def _look_up(model: AtomicModel, motion: Motion) -> _Rotation:
    motion.check()
    moving = model.select(motion.atoms)
    direction = torch.tensor(motion.direction, dtype=torch.float64)
    axis = torch.nn.functional.normalize(direction, dim=0)
    return _Rotation(moving, axis, _pivot(model, motion, moving))


def _pivot(model: AtomicModel, motion: Motion, moving: Tensor) -> Tensor:
    if motion.pivot_A:
        return torch.tensor(motion.pivot_A, dtype=torch.float64)
    chosen = moving if motion.pivot.strip() == "moving" else model.select(motion.pivot)
    return model.positions_A[chosen].mean(dim=0)
