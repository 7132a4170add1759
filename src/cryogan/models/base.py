"""What adversarial training asks of the maps that it learns, be it one volume or many."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from cryogan.conformations.latent import Latent


class Mixture(NamedTuple):
    """Which volume each of n simulated particles shows.

    Attributes:
        coefficients: (n, m), particle i shows `Σ_k coefficients[i, k] · volumes[k]`; None where
            there is one volume, or where n / m particles in turn show each of m volumes.
        importance: (n,) weight of every particle in the expectations of the losses, with a mean
            of 1; None for equal weights.
    """

    coefficients: Tensor | None = None
    importance: Tensor | None = None


ALIKE = Mixture()


@dataclass(frozen=True)
class VolumeSpec:
    """What a volume model is made for: a stage of training.

    Attributes:
        box_size: D.
        shell_amplitude: (D // 2 + 1,) expected modulus of the (unnormalised) 3D Fourier
            coefficients in every shell.
        mask: (D, D, D) that multiplies the volumes.
        parametrisation: "fourier" or "voxels" (see `models.volume`).
        positivity: "relu", "leaky" or "none" (see `models.volume`).
        symmetry: point group (RELION's name).
        latent: of conformations; None for one structure.
        basis_volumes: number of volumes beside the mean, for models that have a basis.
        basis_noise: standard deviation of their first parameters.
        volumes_per_step: number of volumes that a network makes in a step.
    """

    box_size: int
    shell_amplitude: Tensor
    mask: Tensor
    parametrisation: str = "fourier"
    positivity: str = "leaky"
    symmetry: str = "C1"
    latent: Latent | None = None
    basis_volumes: int = 0
    basis_noise: float = 0.0
    volumes_per_step: int = 1


class VolumeModel(nn.Module, ABC):
    """Learnt volumes (D, D, D).

    Training projects `basis`, mixes the projections by `mixture`, and averages `snapshot` over
    its steps; results are read off that average. A model of your own is named as
    `package.module:Class`.

    Attributes:
        box_size: D.
        leak: factor of negative grey values where positivity is "leaky"; 1 releases it.
        latent: of conformations; None for one structure.
    """

    box_size: int
    leak: float = 1.0
    latent: Latent | None = None

    @classmethod
    @abstractmethod
    def build(cls, spec: VolumeSpec) -> Self:
        """A model with its first parameters; random ones come from torch's global source."""

    @classmethod
    def check(cls, spec: VolumeSpec, *, stages: int, batch_size: int) -> None:
        """Refuse what the model cannot do, before long work starts; nothing by default.

        Args:
            spec: of the first stage of conformations, with an empty amplitude and mask.
            stages: number of stages of training.
            batch_size: images in a step.

        Raises:
            InputError: the model cannot be trained so.
        """

    @abstractmethod
    def basis(self, generator: torch.Generator) -> Tensor:
        """(D, D, D) or (m, D, D, D) volumes to project, differentiable in the parameters."""

    def mixture(self, n: int, generator: torch.Generator) -> Mixture:
        """A random draw for n particles; all are alike unless a model says otherwise."""
        return ALIKE

    @abstractmethod
    def snapshot(self) -> Tensor:
        """What is averaged over the steps: volumes, unless the model is for one stage only."""

    @abstractmethod
    def start_from(self, snapshot: Tensor) -> None:
        """Start from an (averaged) snapshot, or from one volume (D, D, D)."""

    def mean_volume(self, snapshot: Tensor) -> Tensor:
        """(D, D, D) mean over all particles; of one structure, the snapshot itself."""
        return snapshot

    def basis_of(self, snapshot: Tensor, generator: torch.Generator) -> Tensor:
        """As `basis`, of an averaged snapshot."""
        return snapshot

    def volumes(self, snapshot: Tensor, latent: Tensor) -> Tensor:
        """Volumes (n, D, D, D) of an averaged snapshot at latents (n, dimension)."""
        raise TypeError(f"{type(self).__name__} has no latent")

    def populations(self) -> Tensor | None:
        """(classes,) share of each class of a discrete latent; None if they are not learnt."""
        return None
