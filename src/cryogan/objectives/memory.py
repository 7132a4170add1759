"""How an objective tells what memory it needs: by a short run on noise, before the real one.

Arrays come and go in a step; how many are alive at its worst moment depends on libraries and on
networks that users bring. It is therefore measured. What is merely held is known from its size.
"""

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from cryogan.objectives.assumptions import Assumptions
from cryogan.particles import Particles


@dataclass(frozen=True)
class MemoryPlan:
    """What is measured, and what is known without measuring.

    Attributes:
        where: the most expensive part of a run, in words: "in the stage of 64 px".
        size: what memory grows with in a step, as in the run: images of a batch.
        trials: sizes that are measured, ascending, and extrapolated to `size`; 0 stands for what
            precedes the steps.
        held_GB: arrays (1e9 bytes) that a process holds beside those of a trial.
        passing_GB: arrays that come and go before the steps, beside those of the trial of that.
        options: option to lower → what depends on it (1e9 bytes), each several times what is
            expected, so that their sum is an upper bound.
        bounded: whether it is one. Of networks that users bring nothing is known.
    """

    where: str
    size: int
    trials: tuple[int, ...]
    held_GB: float
    passing_GB: float
    options: dict[str, float]
    bounded: bool = True

    @property
    def advice(self) -> str:
        """The options that matter most, in words."""
        ranked = sorted(self.options, key=lambda name: -self.options[name])
        largest = self.options[ranked[0]]
        return " or ".join(name for name in ranked if self.options[name] > 0.2 * largest)


@runtime_checkable
class MeasuresMemory(Protocol):
    """An objective whose memory can be estimated; one without these methods is not checked."""

    def memory_plan(self, particles: Particles, members: int) -> MemoryPlan:
        """What to measure.

        Args:
            particles: the whole set; no image is read.
            members: processes that share the images of a half-set.
        """
        ...

    def memory_trial(
        self, particles: Particles, size: int, members: int, device: torch.device
    ) -> None:
        """The most expensive steps of a run, as few as show their memory, by one process.

        Args:
            particles: noise in place of the whole set's images (`noise_particles`).
            size: one of `MemoryPlan.trials`.
            members: as for `memory_plan`.
            device: where it is computed.
        """
        ...


@dataclass(frozen=True)
class NoiseStack:
    """White noise of unit variance as an `ImageStack`, made when it is read.

    Example:
        >>> import torch
        >>> from cryogan.objectives.memory import NoiseStack
        >>> NoiseStack(32, 1000).read(torch.arange(4)).shape
        torch.Size([4, 32, 32])
    """

    box_size: int
    count: int

    def __len__(self) -> int:
        return self.count

    def read(self, index: Tensor) -> Tensor:
        """(n, D, D) noise: the same for all `index` of one length."""
        generator = torch.Generator().manual_seed(len(index))
        return torch.randn(len(index), self.box_size, self.box_size, generator=generator)


def noise_particles(
    particles: Particles, count: int | None = None, box_size: int | None = None
) -> Particles:
    """Noise in place of images.

    Args:
        particles: whose CTFs are kept.
        count: how many there are to be; all by default.
        box_size: of the noise, at the same width; the particles' by default.
    """
    count = len(particles) if count is None else min(count, len(particles))
    size = particles.box_size if box_size is None else box_size
    pixel_size_A = particles.pixel_size_A * particles.box_size / size
    return Particles(NoiseStack(size, count), particles.ctf[:count], pixel_size_A)


def of_one_structure(assumptions: Assumptions) -> Assumptions:
    """The same without conformations."""
    return replace(
        assumptions,
        latent=None,
        classes=Assumptions.classes,
        basis_volumes=Assumptions.basis_volumes,
    )
