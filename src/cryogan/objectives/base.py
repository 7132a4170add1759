"""What the run asks of an objective: one protocol for adversarial training and the likelihood.

An objective of your own has these members and is named as `package.module:Class`; log, checkpoints,
half-sets, results and report then work as for the others (docs/extending.md).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor

from cryogan.conformations.series import Series
from cryogan.errors import InputError
from cryogan.evaluation.comparison import half_map_comparison
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.data_parallel import ProcessGroup
from cryogan.particles import Particles
from cryogan.physics.noise import NoiseModel
from cryogan.randomness import generator_for

Arrays = dict[str, Tensor]

CONFORMATIONS = 20
"""Number of maps along a conformational path that a run writes."""


@dataclass(frozen=True)
class Task:
    """What an objective works on: one half-set, or both.

    Attributes:
        half_sets: their particles.
        noise: measured or known noise; None to measure its spectrum on the particles.
        seed: of everything random.
        device: where it is computed.
        maps: (2, C, D, D, D) basis volumes of both halves to start from, or None.
        populations: (classes,) that come with them, or None.
    """

    half_sets: tuple[Particles, ...]
    noise: NoiseModel | None
    seed: int
    device: torch.device
    maps: Tensor | None = None
    populations: Tensor | None = None


class StateError(InputError):
    """A checkpoint's state is damaged, or of another version."""


@contextmanager
def restoring() -> Iterator[None]:
    """Whatever goes wrong while a state is taken over is a `StateError`.

    Example:
        >>> with restoring():
        ...     {}["volume"]
        Traceback (most recent call last):
        ...
        cryogan.objectives.base.StateError: KeyError: 'volume'
    """
    try:
        yield
    except Exception as error:
        line = (str(error).splitlines() or [""])[0]
        raise StateError(f"{type(error).__name__}: {line}") from error


class State(Protocol):
    """Everything that decides what follows."""

    def record(self) -> dict[str, Any]:
        """Tensors, numbers and nested dictionaries of these, for `torch.save`."""
        ...


@dataclass(frozen=True)
class Step:
    """What an objective yields.

    Attributes:
        record: numbers for the log; `images_seen` counts images shown so far.
        state: to go on from after an interruption; None between two such states.
        fraction: of the whole that is done; None if it is not known.
        finished: whether nothing is left to do.
        milestone: whether the state is to be saved at once; otherwise once a minute.
        section: (D, D, D) the map so far, for pictures of it, or None.
        map_so_far: makes the (D, D, D) map so far, of the width of the particles' box, for those
            who watch the run; called once a minute; by default that is `section`.
        live: whatever the objective needs to make an outcome of the last step.
    """

    record: dict[str, Any]
    state: Any = None
    fraction: float | None = None
    finished: bool = False
    milestone: bool = False
    section: Tensor | None = None
    map_so_far: Callable[[], Tensor] | None = None
    live: Any = None


@dataclass(frozen=True)
class Maps:
    """What both half-sets have come to.

    Attributes:
        half1, half2: (D, D, D) half-maps in one frame, without filter or mask.
        average: (D, D, D) the map of all particles.
        mask: (D, D, D) soft mask of the average.
        fsc: (D // 2 + 1,) of the half-maps, unmasked; NaN beyond their band.
        fsc_masked: the same inside the mask, corrected by phase randomisation.
        pixel_size_A: of all.
        conformations: of all particles; None for one structure.
        halves: those of both halves, to compare; None for one structure.
        symmetry: group, reason and evidence of a symmetry that was to be found
            (`evaluation.symmetry_search.Symmetry.record`); None if it was given.
    """

    half1: Tensor
    half2: Tensor
    average: Tensor
    mask: Tensor
    fsc: Tensor
    fsc_masked: Tensor
    pixel_size_A: float
    conformations: Series | None = None
    halves: tuple[Series, Series] | None = None
    symmetry: Mapping[str, Any] | None = None

    @classmethod
    def of_independent(cls, half1: Tensor, half2: Tensor, pixel_size_A: float, seed: int) -> "Maps":
        """Maps (D, D, D) that share no frame: half 2 is aligned over rotation, shift and hand.

        Args:
            half1, half2: of the half-sets.
            pixel_size_A: of both.
            seed: of the phase randomisation.
        """
        generator = generator_for(seed, "phase randomisation")
        found = half_map_comparison(half1, half2, pixel_size_A, generator=generator)
        return cls(
            found.half1,
            found.aligned_half2,
            found.average,
            found.mask,
            found.fsc,
            found.fsc_masked,
            pixel_size_A,
        )


class Settings(Protocol):
    """Settings of an objective: a frozen dataclass of numbers, strings and such dataclasses."""

    @property
    def assumptions(self) -> Assumptions: ...


class Objective(Protocol):
    """A way to fit maps to half-sets: called with its settings, or with nothing for the defaults.

    Attributes:
        together: whether both half-sets are one task: they exchange their FSC. Otherwise they are
            two, which share nothing.
        config: settings; `assumptions` are among them.
    """

    together: ClassVar[bool]

    @property
    def config(self) -> Any: ...

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """From the settings in `config.json`; InputError if they are not of this version."""
        ...

    def check(self, particles: Particles) -> None:
        """Raise InputError for what cannot work, before anything is written."""
        ...

    def iterate(
        self, task: Task, checkpoint: Mapping[str, Any] | None, group: ProcessGroup
    ) -> Iterator[Step]:
        """Optimise; the last step is `finished`.

        Args:
            task: what is worked on.
            checkpoint: record of the state to go on from, as if never stopped; None to begin.
            group: the processes that share the task, of both half-sets if they are one; all call
                this.

        Raises:
            InputError: an image cannot be used.
            StateError: the checkpoint cannot (`restoring`).
        """
        ...

    def outcome(self, step: Step, task: Task) -> dict[str, Arrays]:
        """What is kept of the last step: file name → arrays. `result.npz` must be among them."""
        ...

    def maps(self, outcomes: Sequence[Arrays], particles: Particles, seed: int) -> Maps:
        """Compare and join the halves.

        Args:
            outcomes: `result.npz` of every task.
            particles: the whole set.
            seed: of the phase randomisation.
        """
        ...

    @staticmethod
    def describe(record: Mapping[str, Any]) -> str:
        """A log record in a line for people."""
        ...
