"""Conformations as a linear subspace: a mean volume, and one for each function of z."""

from typing import Self

import torch
from torch import Tensor, nn

from cryogan import fourier
from cryogan.conformations.latent import Latent
from cryogan.errors import InputError
from cryogan.models.base import Mixture, VolumeModel, VolumeSpec
from cryogan.models.volume import Volume

_CHANGE = 0.5  # a change of shape, in units of the molecule, from a few shells on
_SATURATION = 4.0  # cycles per box


class Subspace(VolumeModel):
    """`V(z) = V₀ + Σ_k φ_k(z) V_k` with the latent's orthonormal functions φ.

    V₀ is the mean over all particles (of equal classes) and Σ ‖V_k‖² the variance. Projection
    is linear: a pose costs one slice of every V_k, whatever the number of different z. V₀ is a
    `Volume`; V_k have its parametrisation, mask and symmetry. An optimiser that moves all
    parameters alike needs them in units of what is expected: V_k count 1 / k
    (`Latent.falling`), so that smooth paths are favoured, and less in the lowest shells, which
    the motion of a part leaves as they are. They start as noise: at zero, z and 1 - z cannot be
    told apart, and the gradient has no direction.

    Args:
        mean: V₀, as it is at the start.
        latent: of z.
        basis: number of V_k, at most classes - 1 if the latent is discrete.
        start: standard deviation of the noise, in units of the parameters.
    """

    latent: Latent
    falling: Tensor
    rising: Tensor

    def __init__(self, mean: Volume, latent: Latent, basis: int, start: float) -> None:
        super().__init__()
        self.box_size = mean.box_size
        self.mean = mean
        self.latent = latent
        self.parts = nn.Parameter(start * torch.randn(basis, *mean.parameter.shape))
        self.register_buffer("falling", latent.falling(basis), persistent=False)
        self.register_buffer("rising", self._rising(), persistent=False)
        self.logits = nn.Parameter(torch.zeros(latent.classes), requires_grad=latent.is_discrete)

    @classmethod
    def build(cls, spec: VolumeSpec) -> Self:
        assert spec.latent is not None
        return cls(Volume.build(spec), spec.latent, spec.basis_volumes, spec.basis_noise)

    @classmethod
    def check(cls, spec: VolumeSpec, *, stages: int, batch_size: int) -> None:
        if spec.latent is None:
            raise InputError(
                "A subspace needs a latent; give --latent uniform, or "
                "--adversarial.volume_model volume for one structure."
            )

    def _rising(self) -> Tensor:
        """Expected amplitude of a change of shape, in units of the mean's."""
        if self.mean.parametrisation == "voxels":
            return torch.tensor(_CHANGE)
        shell = fourier.shell_index(self.box_size, 3).float()[..., None]
        return _CHANGE * shell * (shell.square() + _SATURATION**2).rsqrt()

    @property
    def leak(self) -> float:
        """That of V₀; the V_k are differences and have no sign."""
        return self.mean.leak

    @leak.setter
    def leak(self, value: float) -> None:
        self.mean.leak = value

    def forward(self) -> Tensor:
        """(1 + basis, D, D, D): V₀, V₁ ..."""
        parts = (
            self.mean.shaped(part * (factor * self.rising))
            for part, factor in zip(self.parts, self.falling, strict=True)
        )
        return torch.stack((self.mean(), *parts))

    def basis(self, generator: torch.Generator) -> Tensor:
        volumes: Tensor = self()
        return volumes

    def mixture(self, n: int, generator: torch.Generator) -> Mixture:
        """Latents for n particles.

        Classes are drawn in equal numbers, and their populations enter as importance weights:
        the losses' expectations are exact and their gradients reach the populations.
        """
        latent = self.latent.sample(n, generator)
        coefficients = self.coefficients(latent).to(self.parts.device)
        if not self.latent.is_discrete:
            return Mixture(coefficients)
        number = latent[:, 0].long().to(self.logits.device)
        share = torch.bincount(number, minlength=self.latent.classes) / n
        return Mixture(coefficients, (self.populations() / share)[number])

    def coefficients(self, latent: Tensor) -> Tensor:
        """(n, 1 + basis) coefficients of the volumes at latents (n, dimension)."""
        return self.latent.coefficients(latent, 1 + len(self.parts))

    def populations(self) -> Tensor:
        """(classes,) share of each class of a discrete latent."""
        shares: Tensor = self.logits.softmax(0)
        return shares

    def snapshot(self) -> Tensor:
        volumes: Tensor = self()
        return volumes

    @torch.no_grad()
    def start_from(self, snapshot: Tensor) -> None:
        """From volumes (1 + basis, D, D, D), or from a mean volume alone (D, D, D)."""
        self.mean.start_from(snapshot if snapshot.ndim == 3 else snapshot[0])
        if snapshot.ndim == 4:
            for parameter, volume, factor in zip(
                self.parts, snapshot[1:], self.falling, strict=True
            ):
                unit = (factor * self.rising).clamp_min(1e-20)
                parameter.copy_(self.mean.parameters_of(volume) / unit * (self.rising > 0))

    def mean_volume(self, snapshot: Tensor) -> Tensor:
        if not self.latent.is_discrete:
            return snapshot[0]
        volumes = self.volumes(snapshot, self.latent.grid(0))
        return torch.einsum("k,kzyx->zyx", self.populations().detach().to(volumes), volumes)

    def volumes(self, snapshot: Tensor, latent: Tensor) -> Tensor:
        """Volumes (n, D, D, D) of an averaged snapshot at latents (n, dimension)."""
        coefficients = self.coefficients(latent).to(snapshot)
        return torch.einsum("nk,kzyx->nzyx", coefficients, snapshot)
