"""Particles with their assigned poses and latents, beside what is true of them."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.io.relion_columns import particle_table
from cryogan.io.relion_poses import read_poses
from cryogan.io.star import Table, read_star


@dataclass(frozen=True)
class AssignedParticles:
    """n particles.

    Attributes:
        latent: (n, d) assigned; of classes, their number from 0.
        rotation: (n, 3, 3) assigned orientations.
        state: (n,) int64, number of the true state.
        true_rotation: (n, 3, 3).
    """

    latent: Tensor
    rotation: Tensor
    state: Tensor
    true_rotation: Tensor

    def __len__(self) -> int:
        return len(self.state)

    def __getitem__(self, rows: Tensor) -> "AssignedParticles":
        return AssignedParticles(
            self.latent[rows], self.rotation[rows], self.state[rows], self.true_rotation[rows]
        )


def read_assigned(star: Path | str, latent: Tensor, truth: Path | str) -> AssignedParticles:
    """Particles of a star file of `cryogan assign`, and of the truth of a simulated set.

    Args:
        star: with poses.
        latent: (n, d) of its rows.
        truth: folder `truth` of the simulation, with `poses.star`. Particles are found by number
            and name of the stack of their image, whatever its folder.

    Raises:
        InputError: a file lacks what is needed, or the truth lacks a particle.
    """
    known = Path(truth) / "poses.star"
    if not known.is_file():
        raise InputError(f"{truth} holds no poses.star; give the folder truth of a simulation.")
    tables = [particle_table(read_star(path), path) for path in (Path(star), known)]
    images = [_images(table) for table in tables]
    row = {name: number for number, name in enumerate(images[1])}
    missing = next((name for name in images[0] if name not in row), None)
    if missing is not None:
        raise InputError(
            f"{known} lacks image {missing[0]} of {missing[1]}, which {star} has; give the truth "
            "of the same set."
        )
    rows = torch.tensor([row[name] for name in images[0]])
    if "rlnClassNumber" not in tables[1]:
        raise InputError(f"{known} lacks rlnClassNumber; give the truth of cryogan simulate.")
    state = torch.from_numpy(tables[1].numbers("rlnClassNumber")).long() - 1
    return AssignedParticles(
        latent.double(),
        read_poses(star, pixel_size_A=1.0).rotation.double(),
        state[rows],
        read_poses(known).rotation.double()[rows],
    )


def _images(table: Table) -> list[tuple[int, str]]:
    """Number and stack of each image."""
    split = (name.partition("@") for name in table.columns["rlnImageName"])
    return [(int(number), Path(stack).name) for number, _, stack in split]
