"""Half-sets: which particles belong to which half."""

import hashlib

import torch
from torch import Tensor

from cryogan.data.centring import CentredStack
from cryogan.data.images import CroppedStack
from cryogan.data.noise_filter import FilteredStack
from cryogan.errors import InputError
from cryogan.particles import Particles
from cryogan.randomness import generator_for

_SAMPLE = 16


def split_halves(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two random disjoint halves of `count` particles, each in ascending order."""
    order = torch.randperm(count, generator=generator_for(seed, "half-sets"))
    return order[: count // 2].sort().values, order[count // 2 :].sort().values


def halves_of(particles: Particles, seed: int, kept: str | None = None) -> tuple[Tensor, Tensor]:
    """The half-sets of a run: (n,) numbers of the particles in each, ascending.

    Args:
        particles: the whole set.
        seed: of the run, for a random split.
        kept: name of the half-sets that the particles came with (`halves_digest`), if the run keeps
            them; None for a random split.

    Raises:
        InputError: the particles do not come with these half-sets.
    """
    if kept is None:
        return split_halves(len(particles), seed)
    if halves_digest(particles) != kept:
        raise InputError(
            "The run keeps the half-sets of its particle file, and these particles come with "
            "others; give the particle file as it was then."
        )
    assert particles.half is not None
    return (particles.half == 1).nonzero()[:, 0], (particles.half == 2).nonzero()[:, 0]


def halves_digest(particles: Particles) -> str:
    """A short name for the half-sets that particles came with.

    Raises:
        InputError: there are none.
    """
    half = particles.half
    if half is None or not 0 < int((half == 1).sum()) < len(half):
        raise InputError(
            "The particles have no half-sets to keep: rlnRandomSubset must be 1 or 2 in every "
            "row, and both must occur; leave out --keep-halves."
        )
    return _digest(half.numpy().astype("<i8").tobytes())


def particles_digest(particles: Particles) -> str | None:
    """A short name for which particles these are, so that a run knows its own again.

    Of particles of a file: for the rows that were chosen, None for all. Of particles in memory: for
    their CTFs and a few of their images.
    """
    if particles.source is not None:
        rows = particles.source.rows
        return None if rows is None else _digest(rows.numpy().astype("<i8").tobytes())
    stack = particles.stack
    while isinstance(stack, CroppedStack | CentredStack | FilteredStack):
        stack = stack.parent
    some = torch.arange(0, len(stack), max(1, len(stack) // _SAMPLE))
    columns = particles.ctf.columns.values()
    arrays = [column.cpu().numpy() for column in columns] + [stack.read(some).cpu().numpy()]
    return _digest(*(array.tobytes() for array in arrays))


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]
