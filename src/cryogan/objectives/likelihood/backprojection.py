"""Slices put back into Fourier space: backprojections, and kernels of weights on the slices.

Directions of whole levels are put back parallel by parallel, others and those of a symmetry one by
one. Either is the adjoint of reading slices of volumes that lie in the ball that the box holds.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from cryogan.objectives.likelihood.orientation_grid import OrientationGrid, orientation_grid
from cryogan.objectives.likelihood.parallels import northern_parallels
from cryogan.physics.circular_harmonics import CircularHarmonics
from cryogan.physics.cylindrical_spectrum import cylindrical_grid
from cryogan.physics.projection import add_sample_adjoint, volume_spectrum_adjoint

_POINTS_AT_ONCE = 5_000_000  # of slices


class Backprojection(Protocol):
    """Sums of slices.

    Attributes:
        place: (V,) of every direction in the order in which slices are put back; -1 of those that
            are put back as mirror images of the opposite ones.
    """

    place: Tensor

    def groups(self, used: Tensor) -> Sequence[Tensor]:
        """Places (V',), of those used, that are put back together."""
        ...

    def add(self, plane: Tensor, group: Tensor) -> None:
        """Coefficients (C, n, M), each its own weight, of a group (n,)."""
        ...

    def finish(self) -> Tensor:
        """(C, D, D, D); nothing can be added any more."""
        ...

    def kernel(self, weight: Tensor, directions: Tensor) -> Tensor:
        """(P, 2D, 2D, 2D) kernels of weights (P, V', R) on the rings of slices.

        Args:
            weight: of every pair of basis volumes.
            directions: (V',) their numbers, divided by `merged_directions`.
        """
        ...


def merged_directions(grid: OrientationGrid) -> int:
    """How many directions share a slice of the kernel: weights vary slowly from one to another."""
    return 4 if grid.nside >= 16 else 1


class SlicesOfFrames:
    """A `Backprojection` of slices one by one, at all equivalents of a symmetry."""

    def __init__(
        self,
        count: int,
        grid: OrientationGrid,
        operators: Tensor,
        harmonics: CircularHarmonics,
        padding: float,
    ) -> None:
        device = grid.frame.device
        self.place = torch.arange(len(grid), device=device)
        if grid.opposite is not None:
            self.place[self.place > grid.opposite] = -1
        self.grid, self.operators, self.harmonics = grid, operators, harmonics
        self.padding = padding
        self.k = torch.nn.functional.pad(harmonics.frequency, (0, 1))
        self.total = _Adjoint(count, harmonics.box_size, padding, device)

    def groups(self, used: Tensor) -> Sequence[Tensor]:
        return torch.split(used, max(1, _POINTS_AT_ONCE // len(self.k)))

    def add(self, plane: Tensor, group: Tensor) -> None:
        weight = self.harmonics.sample_weight
        samples = [self.harmonics.to_samples(values) * weight for values in plane]
        self.total.add(samples, self.operators, self.grid.frame[group], self.k)

    def finish(self) -> Tensor:
        return self.total.finish()

    def kernel(self, weight: Tensor, directions: Tensor) -> Tensor:
        grid, harmonics, size = self.grid, self.harmonics, 2 * self.harmonics.box_size
        if merged_directions(grid) > 1:
            grid = orientation_grid(grid.nside // 2, grid.frame.device)
        padding = self.padding / 2 + 0.5
        total = _Adjoint(len(weight), size, padding, grid.frame.device, parts=1)
        rows = torch.arange(len(directions), device=directions.device)
        for part in torch.split(rows, max(1, _POINTS_AT_ONCE // len(self.k))):
            samples = [
                values[part][:, harmonics.sample_ring - 1] * harmonics.sample_weight
                for values in weight
            ]
            total.add(samples, self.operators, grid.frame[directions[part]], self.k)
        return total.finish()


class SlicesOfParallels:
    """A `Backprojection` of slices parallel by parallel, without a symmetry."""

    def __init__(
        self, count: int, grid: OrientationGrid, harmonics: CircularHarmonics, padding: float
    ) -> None:
        device = grid.frame.device
        self.parallels = northern_parallels(grid.nside, device)
        northern = torch.cat([each.direction for each in self.parallels])
        self.place = torch.full((len(grid),), -1, device=device)
        self.place[northern] = torch.arange(len(northern), device=device)
        self.ends = torch.tensor([each.parallel.count for each in self.parallels]).cumsum(0)
        self.level, self.harmonics, self.padding = grid, harmonics, padding
        self.grid = cylindrical_grid(harmonics.box_size, harmonics.rings, padding, device)
        self.totals = [self.grid.zeros() for _ in range(count)]

    def groups(self, used: Tensor) -> Sequence[Tensor]:
        parts = torch.tensor_split(used, torch.searchsorted(used, self.ends[:-1].to(used)).cpu())
        return [part for part in parts if len(part)]

    def add(self, plane: Tensor, group: Tensor) -> None:
        number = int(torch.searchsorted(self.ends, int(group[0]), right=True))
        each, harmonics = self.parallels[number], self.harmonics
        column = group - (int(self.ends[number]) - each.parallel.count)
        for total, values in zip(self.totals, plane, strict=True):
            turned = harmonics.turned(values, -each.psi[column])
            samples = harmonics.to_samples(turned) * harmonics.sample_weight
            every = samples.new_zeros(samples.shape[1], each.parallel.count)
            every[:, column] = samples.T
            self.grid.add_slices_adjoint(total, every, harmonics.frequency, each.parallel)

    def finish(self) -> Tensor:
        found = []
        while self.totals:  # they may be most of the memory
            found.append(self.grid.of_volume_adjoint(self.totals.pop(0)))
        return torch.stack(found)

    def kernel(self, weight: Tensor, directions: Tensor) -> Tensor:
        level, harmonics = self.level, self.harmonics
        nside, device = level.nside // (2 if merged_directions(level) > 1 else 1), directions.device
        size, padding = 2 * harmonics.box_size, self.padding / 2 + 0.5
        grid = cylindrical_grid(size, 2 * harmonics.rings, padding, device)
        of_level = weight.new_zeros(len(weight), 12 * nside**2, harmonics.rings)
        of_level[:, directions] = weight
        totals = [grid.zeros(real=True) for _ in weight]
        for each in northern_parallels(nside, device):
            for total, values in zip(totals, of_level[:, each.direction], strict=True):
                if values.any():
                    samples = values.T[harmonics.sample_ring - 1]
                    samples = samples * harmonics.sample_weight[:, None]
                    grid.add_slices_adjoint(total, samples, harmonics.frequency, each.parallel)
        return torch.stack([grid.of_volume_adjoint(total) for total in totals])


class _Adjoint:
    """Sums of `Re Σ conj(values) exp(...)` over points: the adjoint of reading slices."""

    def __init__(
        self, count: int, box_size: int, padding: float, device: torch.device, parts: int = 2
    ) -> None:
        """Of complex values, or of real ones (`parts` 1)."""
        self.box_size, self.size = box_size, 2 * round(box_size * padding / 2)
        shape = (parts, self.size, self.size, self.size // 2 + 1)
        self.totals = [torch.zeros(shape, device=device) for _ in range(count)]

    def add(
        self, sums: Sequence[Tensor], operators: Tensor, frame: Tensor, frequency: Tensor
    ) -> None:
        """Values (n, m) of each sum at frequencies (m, 3), in cycles per pixel, of n frames."""
        for operator in operators.to(frame):
            point = torch.einsum("nij,mj->nmi", operator @ frame, frequency * self.size)
            for total, values in zip(self.totals, sums, strict=True):
                add_sample_adjoint(total, values, point)

    def finish(self) -> Tensor:
        """(count, D, D, D); nothing can be added any more."""
        sums = []
        while self.totals:
            total = self.totals.pop(0)
            spectrum = total[0] if len(total) == 1 else torch.complex(total[0], total[1])
            del total  # may be most of the memory
            sums.append(volume_spectrum_adjoint(spectrum, self.box_size))
        return torch.stack(sums)
