"""Conformations: latent variables, and volumes that depend on them."""

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from cryogan import fourier
from cryogan.models.generator import Generator, Mixture
from cryogan.models.volume import Volume

LatentKind = Literal["uniform", "uniform2d", "circle", "discrete"]


@dataclass(frozen=True)
class Latent:
    """The distribution of the latent z, and an orthonormal set of functions of it.

    - "uniform": z on [0, 1]; Legendre polynomials √(2k+1) P_k(2z - 1). A straight path is the
      first of them; cosines, which would do as well inside, would come to rest at its ends.
    - "uniform2d": z on [0, 1]²; products of these, by rising k₁² + k₂².
    - "circle": z on [0, 1), its ends the same; √2 cos(2πkz) and √2 sin(2πkz).
    - "discrete": z one of 0 ... classes - 1; classes - 1 contrasts, which put the classes at
      the corners of a regular simplex.

    All have mean 0, variance 1 and no correlation with one another over the distribution (over
    equal classes, if discrete). Together with the constant they are complete, so that every
    dependence on z is a series of them; a smooth one needs few.

    Attributes:
        kind: see above.
        classes: of "discrete".
    """

    kind: LatentKind
    classes: int = 2

    @property
    def dimension(self) -> int:
        """Number of coordinates of z."""
        return 2 if self.kind == "uniform2d" else 1

    @property
    def slowest(self) -> int:
        """Number of functions that vary most slowly: one an axis, two on a circle."""
        return {"uniform": 1, "uniform2d": 2, "circle": 2, "discrete": self.classes - 1}[self.kind]

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, dimension) latents in random order, spread evenly.

        One falls into each of n equal parts of every axis (Latin hypercube sampling, McKay et
        al. 1979), or as equal numbers as n allows into each class: expectations are those of
        independent draws, with less scatter.
        """
        columns = []
        for _ in range(self.dimension):
            order = torch.randperm(n, generator=generator)
            if self.kind == "discrete":
                columns.append((order % self.classes).float())
            else:
                columns.append((order + torch.rand(n, generator=generator)) / n)
        return torch.stack(columns, dim=1)

    def functions(self, latent: Tensor, count: int) -> Tensor:
        """(n, count) values of the first `count` functions at latents (n, dimension)."""
        if self.kind == "discrete":
            contrasts = _contrasts(self.classes)[:, :count].to(latent)
            return contrasts[latent[:, 0].long()]
        if self.kind == "circle":
            order = torch.arange(count, device=latent.device)
            phase = 2 * math.pi * latent * (order // 2 + 1)
            waves = torch.where(order % 2 == 0, phase.cos(), phase.sin())
            return math.sqrt(2) * waves
        orders = self._orders(count)
        axes = [_legendre(z, int(orders.max()) if count else 0) for z in latent.T]
        factors = [axis[:, order] for axis, order in zip(axes, orders.T, strict=True)]
        values: Tensor = torch.stack(factors).prod(0)
        return values

    def amounts(self, latent: Tensor, components: int) -> Tensor:
        """(n, components) the constant and the first functions at latents (n, dimension)."""
        functions = self.functions(latent, components - 1)
        return torch.cat((torch.ones_like(latent[:, :1]), functions), dim=1)

    def falling(self, count: int) -> Tensor:
        """(count,) 1 / k of each, k its degree or frequency: smooth dependences are likelier."""
        if self.kind == "discrete":
            return torch.ones(count)
        if self.kind == "circle":
            return 1.0 / (torch.arange(count) // 2 + 1)
        return self._orders(count).square().sum(1).rsqrt()

    def _orders(self, count: int) -> Tensor:
        """(count, dimension) the lowest degrees k of polynomials on the line or the square."""
        axis = range(count + 1)
        orders = sorted(
            itertools.product(axis, repeat=self.dimension),
            key=lambda order: (sum(k * k for k in order), order),
        )
        lowest = torch.tensor(orders[1 : count + 1], dtype=torch.int64)
        return lowest.view(count, self.dimension)

    def moments(self, probability: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (n, dimension) of z, of probabilities (n, L) at nodes.

        A node stands for its part of the axis, which counts in the spread. On a circle the mean
        is that of directions, and the spread is about it. Not for classes.
        """
        cell = 1.0 / round(len(nodes) ** (1.0 / self.dimension))
        if self.kind == "circle":
            wave = torch.polar(torch.ones_like(nodes), 2 * math.pi * nodes)
            mean = (torch.angle(probability.to(wave.dtype) @ wave) / (2 * math.pi)) % 1.0
            apart = (nodes[:, 0] - mean + 0.5) % 1.0 - 0.5  # (n, L)
            square = (probability * apart.square()).sum(dim=1, keepdim=True)
        else:
            mean = probability @ nodes
            square = probability @ nodes.square() - mean.square()
        return mean, (square.clamp_min(0.0) + cell**2 / 12).sqrt()

    def grid(self, count: int) -> Tensor:
        """(about `count`, dimension) latents at the centres of equal parts; all the classes."""
        if self.kind == "discrete":
            return torch.arange(self.classes)[:, None].float()
        if self.kind == "uniform2d":
            side = max(2, round(math.sqrt(count)))
            axis = (torch.arange(side) + 0.5) / side
            return torch.cartesian_prod(axis, axis)
        return ((torch.arange(count) + 0.5) / count)[:, None]


def _legendre(z: Tensor, highest: int) -> Tensor:
    """(n, highest + 1) orthonormal Legendre polynomials on [0, 1] at z (n,)."""
    x = 2.0 * z - 1.0
    values = [torch.ones_like(x), x]
    for k in range(1, highest):
        values.append(((2 * k + 1) * x * values[k] - k * values[k - 1]) / (k + 1))
    norms = [math.sqrt(2 * k + 1) for k in range(highest + 1)]
    return torch.stack([norm * value for norm, value in zip(norms, values, strict=False)], dim=1)


def _contrasts(classes: int) -> Tensor:
    """(classes, classes - 1) Helmert contrasts; columns have mean 0 and mean square 1."""
    matrix = torch.zeros(classes, classes - 1)
    for column in range(classes - 1):
        matrix[: column + 1, column] = 1.0
        matrix[column + 1, column] = -(column + 1.0)
    lengths: Tensor = torch.linalg.vector_norm(matrix, dim=0)
    return matrix * (math.sqrt(classes) / lengths)


_CHANGE = 0.5  # a change of shape, in units of the molecule, from a few shells on
_SATURATION = 4.0  # cycles per box


class Subspace(Generator):
    """`V(z) = V₀ + Σ_k φ_k(z) V_k` with the latent's orthonormal functions φ.

    V₀ is the mean over all particles (of equal classes) and Σ ‖V_k‖² the variance. Projection
    is linear: a pose costs one slice of every V_k, whatever the number of different z. V₀ is a
    `Volume`; V_k have its parametrisation, mask and symmetry. An optimiser that moves all
    parameters alike needs them in units of what is expected: V_k count 1 / k
    (`Latent.falling`), so that smooth paths are favoured, and less in the lowest shells, which
    the motion of a part leaves as they are. They start as noise: at zero, a game that does not
    know z from 1 - z would give them no direction.

    Args:
        mean: V₀, as it is at the start.
        latent: of z.
        basis: number of V_k, at most classes - 1 if the latent is discrete.
        start: standard deviation of the noise, in units of the parameters.
    """

    falling: Tensor
    rising: Tensor

    def __init__(self, mean: Volume, latent: Latent, basis: int, start: float) -> None:
        super().__init__()
        self.box_size = mean.box_size
        self.mean = mean
        self.latent = latent
        self.basis = nn.Parameter(start * torch.randn(basis, *mean.parameter.shape))
        self.register_buffer("falling", latent.falling(basis), persistent=False)
        self.register_buffer("rising", self._rising(), persistent=False)
        self.logits = nn.Parameter(
            torch.zeros(latent.classes), requires_grad=latent.kind == "discrete"
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
        basis = (
            self.mean.shaped(part * (factor * self.rising))
            for part, factor in zip(self.basis, self.falling, strict=True)
        )
        return torch.stack((self.mean(), *basis))

    def components(self, generator: torch.Generator) -> Tensor:
        components: Tensor = self()
        return components

    def mixture(self, n: int, generator: torch.Generator) -> Mixture:
        """Latents for n particles.

        Classes are drawn in equal numbers, and their populations enter as importance weights:
        the losses' expectations are exact and their gradients reach the populations.
        """
        latent = self.latent.sample(n, generator)
        amounts = self.amounts(latent).to(self.basis.device)
        if self.latent.kind != "discrete":
            return Mixture(amounts)
        number = latent[:, 0].long().to(self.logits.device)
        share = torch.bincount(number, minlength=self.latent.classes) / n
        return Mixture(amounts, (self.populations() / share)[number])

    def amounts(self, latent: Tensor) -> Tensor:
        """(n, 1 + basis) amounts of the components at latents (n, dimension)."""
        return self.latent.amounts(latent, 1 + len(self.basis))

    def populations(self) -> Tensor:
        """(classes,) share of each class of a discrete latent."""
        return self.logits.softmax(0)

    def snapshot(self) -> Tensor:
        components: Tensor = self()
        return components

    @torch.no_grad()
    def start_from(self, snapshot: Tensor) -> None:
        """From components (1 + basis, D, D, D), or from a mean volume alone (D, D, D)."""
        self.mean.start_from(snapshot if snapshot.ndim == 3 else snapshot[0])
        if snapshot.ndim == 4:
            for parameter, volume, factor in zip(
                self.basis, snapshot[1:], self.falling, strict=True
            ):
                unit = (factor * self.rising).clamp_min(1e-20)
                parameter.copy_(self.mean.parameters_of(volume) / unit * (self.rising > 0))

    def mean_volume(self, snapshot: Tensor) -> Tensor:
        if self.latent.kind != "discrete":
            return snapshot[0]
        volumes = self.volumes(snapshot, self.latent.grid(0))
        return torch.einsum("k,kzyx->zyx", self.populations().detach().to(volumes), volumes)

    def volumes(self, snapshot: Tensor, latent: Tensor) -> Tensor:
        """Volumes (n, D, D, D) of an averaged snapshot at latents (n, dimension)."""
        amounts = self.amounts(latent).to(snapshot)
        return torch.einsum("nk,kzyx->nzyx", amounts, snapshot)

    def components_of(self, snapshot: Tensor, generator: torch.Generator) -> Tensor:
        return snapshot
