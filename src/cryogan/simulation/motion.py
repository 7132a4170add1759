"""Rigid-body motions: parts of a molecule that turn about axes, and the states on their way."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import roma
import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.io.atoms import AtomicModel

_AXES = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)}


@dataclass(frozen=True)
class Motion:
    """A part of the molecule that turns about an axis.

    Attributes:
        atoms: what turns: a chain such as B, residues B/12-442, or several joined by commas.
        axis: axis of the turn: x, y, z, or a direction such as 0.3,1,0; positive angles are
            right-handed about it.
        pivot: point on the axis: the centroid of a selection of atoms (A/677/CA; all; moving for
            the atoms that turn), or x,y,z in Å in the frame of the model's file.
        first_deg: angle of the first state in degrees; 0 is the model as it is.
        last_deg: angle of the last state in degrees.
        states: number of states, at even steps.
    """

    atoms: str
    axis: str = "z"
    pivot: str = "all"
    first_deg: float = 0.0
    last_deg: float = 0.0
    states: int = 20


@dataclass(frozen=True)
class _Turn:
    """A motion looked up in a model: (n,) bool, (3,) unit vector, (3,) Å."""

    moving: Tensor
    axis: Tensor
    pivot_A: Tensor

    def apply(self, positions_A: Tensor, angle_deg: float) -> Tensor:
        rotation: Tensor = roma.rotvec_to_rotmat(math.radians(angle_deg) * self.axis)
        turned = (positions_A - self.pivot_A) @ rotation.T + self.pivot_A
        return torch.where(self.moving[:, None], turned, positions_A)


@dataclass(frozen=True)
class States:
    """A sequence of K states, each computed when it is asked for: `states[k]` is (n, 3) in Å.

    Attributes:
        angles_deg: (K, m) angle of each motion in every state.
    """

    _positions_A: Tensor
    _turns: tuple[_Turn, ...]
    angles_deg: Tensor

    def __len__(self) -> int:
        return len(self.angles_deg)

    def __getitem__(self, state: int) -> Tensor:
        positions_A = self._positions_A
        angles = self.angles_deg[state].tolist()
        for turn, angle_deg in reversed(list(zip(self._turns, angles, strict=True))):
            positions_A = turn.apply(positions_A, angle_deg)
        return positions_A


def path(model: AtomicModel, motions: Sequence[Motion]) -> tuple[States, Tensor]:
    """The states of a molecule on the grid of its motions, and their latent coordinates.

    Axes and pivots are those of the unmoved model. State = M₁(M₂(… model)): the *last* motion is
    applied first, so that a motion listed first carries later ones along with it. List an arm
    before a part of that arm, and both turn rigidly about their own joints.

    Args:
        model: the molecule as it lies in its file.
        motions: m motions. Every combination of their states is a state, the last motion's
            varying fastest: K is the product of the numbers of states.

    Returns:
        K states, computed when asked for, and (K, m) float64 latent coordinates: 0 at
        `first_deg`, 1 at `last_deg`, evenly spaced between; 0 for a motion of one state.

    Raises:
        InputError: a selection names nothing, an axis or pivot cannot be understood, an angle is
            not finite, or a motion has no states or several that are all the same.
    """
    turns = tuple(_look_up(model, motion) for motion in motions)
    steps = [torch.linspace(0.0, 1.0, m.states, dtype=torch.float64).tolist() for m in motions]
    latent = torch.tensor(list(itertools.product(*steps)), dtype=torch.float64)
    first = latent.new_tensor([motion.first_deg for motion in motions])
    last = latent.new_tensor([motion.last_deg for motion in motions])
    return States(model.positions_A, turns, torch.lerp(first, last, latent)), latent


def rmsd(first_A: Tensor, second_A: Tensor) -> float:
    """Root mean square distance of the atoms of two states (n, 3), without superposition; Å."""
    return float((first_A - second_A).square().sum(dim=1).mean().sqrt())


def _look_up(model: AtomicModel, motion: Motion) -> _Turn:
    if motion.states < 1:
        raise InputError(
            f"The motion of {motion.atoms} has {motion.states} states; give 1 or more."
        )
    if not (math.isfinite(motion.first_deg) and math.isfinite(motion.last_deg)):
        raise InputError(
            f"The motion of {motion.atoms} turns from {motion.first_deg} to {motion.last_deg} "
            "degrees; give finite angles."
        )
    if motion.states > 1 and motion.first_deg == motion.last_deg:
        raise InputError(
            f"The {motion.states} states of the motion of {motion.atoms} all lie at "
            f"{motion.first_deg:g} degrees; give different first_deg and last_deg, or 1 state."
        )
    moving = model.select(motion.atoms)
    return _Turn(moving, _axis(motion), _pivot(model, motion, moving))


def _axis(motion: Motion) -> Tensor:
    vector = _AXES.get(motion.axis.strip()) or _numbers(motion.axis)
    if vector is None or not any(vector):
        raise InputError(
            f"The axis '{motion.axis}' of the motion of {motion.atoms} is not a direction; write "
            "x, y, z or three numbers such as 0.3,1,0, not all zero."
        )
    return torch.nn.functional.normalize(torch.tensor(vector, dtype=torch.float64), dim=0)


def _pivot(model: AtomicModel, motion: Motion, moving: Tensor) -> Tensor:
    point = _numbers(motion.pivot)
    if point is not None:
        return torch.tensor(point, dtype=torch.float64)
    chosen = moving if motion.pivot.strip() == "moving" else model.select(motion.pivot)
    return model.positions_A[chosen].mean(dim=0)


def _numbers(text: str) -> tuple[float, ...] | None:
    """Three finite numbers joined by commas, or None."""
    try:
        values = tuple(float(word) for word in text.split(","))
    except ValueError:
        return None
    return values if len(values) == 3 and all(map(math.isfinite, values)) else None
