"""What the training loop asks of the thing that is learnt, be it one volume or many."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Mixture(NamedTuple):
    """Which volume each of n simulated particles shows.

    Attributes:
        amounts: (n, m), particle i shows `Σ_k amounts[i, k] · components[k]`; None where there
            is one component, or where n / m particles in turn show each of m components.
        importance: (n,) weight of every particle in the expectations of the losses, with a mean
            of 1; None for equal weights.
    """

    amounts: Tensor | None = None
    importance: Tensor | None = None


ALIKE = Mixture()


class Generator(nn.Module, ABC):
    """Learnt volumes (D, D, D).

    The loop projects `components`, mixes projections by `mixture`, and averages `snapshot`
    over its steps; results are read off that average.

    Attributes:
        box_size: D.
        leak: factor of negative grey values where positivity is "leaky"; 1 releases it.
    """

    box_size: int
    leak: float

    @abstractmethod
    def components(self, generator: torch.Generator) -> Tensor:
        """(D, D, D) or (m, D, D, D) volumes to project, differentiable in the parameters."""

    @abstractmethod
    def mixture(self, n: int, generator: torch.Generator) -> Mixture:
        """A random draw for n particles."""

    @abstractmethod
    def snapshot(self) -> Tensor:
        """What is averaged over the steps of training."""

    @abstractmethod
    def start_from(self, snapshot: Tensor) -> None:
        """Start from an (averaged) snapshot, or from one volume (D, D, D)."""

    @abstractmethod
    def mean_volume(self, snapshot: Tensor) -> Tensor:
        """(D, D, D) mean over all particles."""

    @abstractmethod
    def components_of(self, snapshot: Tensor, generator: torch.Generator) -> Tensor:
        """As `components`, of an averaged snapshot."""
