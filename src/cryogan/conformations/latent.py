"""Latents: the distribution of a conformational coordinate, and functions of it.

Every latent z comes with a set of functions φ of mean 0, variance 1 and no correlation with one
another over its distribution. Together with the constant they are complete, so that every
dependence on z is a series of them; a smooth one needs few. One class a latent; another one is
added to `registry.LATENTS`, or named as `package.module:Class`.
"""

import itertools
import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.registry import LATENTS


class Latent(ABC):
    """The distribution of z, and an orthonormal set of functions of it.

    Args:
        classes: number of classes, for a latent that has classes.

    Attributes:
        dimension: number of coordinates of z.
        is_path: whether maps along z have an order: a line or a circle.
        is_discrete: whether z is a class, of which there are `classes`.
        slowest: number of functions that vary most slowly: one an axis, two on a circle.
    """

    dimension: ClassVar[int] = 1
    is_path: ClassVar[bool] = True
    is_discrete: ClassVar[bool] = False
    slowest: int = 1

    def __init__(self, classes: int = 2) -> None:
        self.classes = classes

    @abstractmethod
    def functions(self, latent: Tensor, count: int) -> Tensor:
        """(n, count) values of the first `count` functions at latents (n, dimension)."""

    @abstractmethod
    def falling(self, count: int) -> Tensor:
        """(count,) 1 / k of each, k its degree or frequency: smooth dependences are likelier."""

    @abstractmethod
    def grid(self, count: int) -> Tensor:
        """(about `count`, dimension) latents at the centres of equal parts; all the classes."""

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, dimension) latents in random order, spread evenly.

        One falls into each of n equal parts of every axis (Latin hypercube sampling, McKay et
        al. 1979), or as equal numbers as n allows into each class: expectations are those of
        independent draws, with less scatter.
        """
        columns = []
        for _ in range(self.dimension):
            order = torch.randperm(n, generator=generator)
            columns.append(self._spread(order, n, generator))
        return torch.stack(columns, dim=1)

    def _spread(self, order: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """(n,) coordinates from the numbers (n,) of the parts that they fall into."""
        spread: Tensor = (order + torch.rand(n, generator=generator)) / n
        return spread

    def coefficients(self, latent: Tensor, count: int) -> Tensor:
        """(n, count) the constant and the first functions at latents (n, dimension)."""
        functions = self.functions(latent, count - 1)
        return torch.cat((torch.ones_like(latent[:, :1]), functions), dim=1)

    def moments(self, probability: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (n, dimension) of z, of probabilities (n, L) at grid points.

        A grid point stands for its part of the axis, which counts in the spread.
        """
        mean = probability @ points
        square = probability @ points.square() - mean.square()
        return mean, self._spread_of(square, points)

    def _spread_of(self, square: Tensor, points: Tensor) -> Tensor:
        cell = 1.0 / round(len(points) ** (1.0 / self.dimension))
        spread: Tensor = (square.clamp_min(0.0) + cell**2 / 12).sqrt()
        return spread

    def fits(self, coordinate: Tensor, basis_volumes: int) -> bool:
        """Whether maps at these latents (n, m) are of such a latent, enough to fit volumes to."""
        if coordinate.shape[1] != self.dimension or len(coordinate) < basis_volumes:
            return False
        return bool(((coordinate > 0) & (coordinate < 1)).all())


class Line(Latent):
    """z on [0, 1]; Legendre polynomials √(2k+1) P_k(2z - 1).

    A straight path is the first of them; cosines, which would do as well inside, would come to rest
    at its ends.
    """

    def functions(self, latent: Tensor, count: int) -> Tensor:
        orders = self._orders(count)
        axes = [_legendre(z, int(orders.max()) if count else 0) for z in latent.T]
        factors = [axis[:, order] for axis, order in zip(axes, orders.T, strict=True)]
        values: Tensor = torch.stack(factors).prod(0)
        return values

    def falling(self, count: int) -> Tensor:
        return self._orders(count).square().sum(1).rsqrt()

    def grid(self, count: int) -> Tensor:
        return ((torch.arange(count) + 0.5) / count)[:, None]

    def _orders(self, count: int) -> Tensor:
        """(count, dimension) the lowest degrees k of polynomials on the line or the square."""
        axis = range(count + 1)
        orders = sorted(
            itertools.product(axis, repeat=self.dimension),
            key=lambda order: (sum(k * k for k in order), order),
        )
        lowest = torch.tensor(orders[1 : count + 1], dtype=torch.int64)
        return lowest.view(count, self.dimension)


class Square(Line):
    """z on [0, 1]²; products of the line's polynomials, by rising k₁² + k₂²."""

    dimension = 2
    is_path = False
    slowest = 2

    def grid(self, count: int) -> Tensor:
        side = max(2, round(math.sqrt(count)))
        axis = (torch.arange(side) + 0.5) / side
        return torch.cartesian_prod(axis, axis)


class Circle(Latent):
    """z on [0, 1), its ends the same; √2 cos(2πkz) and √2 sin(2πkz)."""

    slowest = 2

    def functions(self, latent: Tensor, count: int) -> Tensor:
        order = torch.arange(count, device=latent.device)
        phase = 2 * math.pi * latent * (order // 2 + 1)
        waves = torch.where(order % 2 == 0, phase.cos(), phase.sin())
        return math.sqrt(2) * waves

    def falling(self, count: int) -> Tensor:
        return 1.0 / (torch.arange(count) // 2 + 1)

    def grid(self, count: int) -> Tensor:
        return ((torch.arange(count) + 0.5) / count)[:, None]

    def moments(self, probability: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """The mean is that of directions, and the spread is about it."""
        wave = torch.polar(torch.ones_like(points), 2 * math.pi * points)
        mean = (torch.angle(probability.to(wave.dtype) @ wave) / (2 * math.pi)) % 1.0
        apart = (points[:, 0] - mean + 0.5) % 1.0 - 0.5  # (n, L)
        square = (probability * apart.square()).sum(dim=1, keepdim=True)
        return mean, self._spread_of(square, points)


class Classes(Latent):
    """z one of 0 ... classes - 1; classes - 1 contrasts: the corners of a regular simplex."""

    is_path = False
    is_discrete = True

    def __init__(self, classes: int = 2) -> None:
        super().__init__(classes)
        self.slowest = classes - 1

    def functions(self, latent: Tensor, count: int) -> Tensor:
        contrasts = _contrasts(self.classes)[:, :count].to(latent)
        return contrasts[latent[:, 0].long()]

    def falling(self, count: int) -> Tensor:
        return torch.ones(count)

    def grid(self, count: int) -> Tensor:
        return torch.arange(self.classes)[:, None].float()

    def _spread(self, order: Tensor, n: int, generator: torch.Generator) -> Tensor:
        numbers: Tensor = (order % self.classes).float()
        return numbers

    def moments(self, probability: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        raise TypeError("classes have no mean; take the most probable one")

    def fits(self, coordinate: Tensor, basis_volumes: int) -> bool:
        return coordinate.shape[1] == 1 and coordinate[:, 0].tolist() == list(range(self.classes))


def make_latent(name: str, classes: int = 2) -> Latent:
    """The latent of that name.

    Raises:
        InputError: there is none.

    Example:
        >>> from cryogan.conformations.latent import make_latent
        >>> make_latent("circle").grid(4)[:, 0]
        tensor([0.1250, 0.3750, 0.6250, 0.8750])
    """
    found: object = LATENTS[name]
    if not (isinstance(found, type) and issubclass(found, Latent)):
        raise InputError(f"The latent '{name}' is not a subclass of cryogan's Latent; make it one.")
    return found(classes)


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
