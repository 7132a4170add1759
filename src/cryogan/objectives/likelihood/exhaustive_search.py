"""Exhaustive search of a level: all directions and in-plane angles at given shifts.

The score of an image at an in-plane angle ψ is `Σ_m Re(exp(-i m ψ) c_m)`, with one complex sum c_m
over the rings for each circular order m: a matrix product for each order gives those of many images
in all directions, and a second one the angles. Half a turn changes the sign of odd orders only, so
that half of the angles are computed.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan.objectives.likelihood.central_slices import Reference
from cryogan.objectives.likelihood.observations import Observations, moved
from cryogan.objectives.likelihood.orientation_grid import asymmetric_directions
from cryogan.objectives.likelihood.search_levels import Level, in_plane_angles
from cryogan.physics.circular_harmonics import CircularHarmonics

_LEFT_OUT = 1e-5  # of the power of a ring: orders that molecules hardly have


@dataclass(frozen=True)
class Scores:
    """Scores of n images at S shifts, V directions and T in-plane angles.

    Attributes:
        shift_px: (n, S, 2).
        direction: (V,).
        psi: (T,).
        even: (T / 2, n, S V) sum of even orders at the first half of the angles.
        odd: (T / 2, n, S V) sum of odd orders.
        power: (n, S, V) Σ |P|² B.
        prior: (n, S, V) log-prior of shifts and directions.
    """

    shift_px: Tensor
    direction: Tensor
    psi: Tensor
    even: Tensor
    odd: Tensor
    power: Tensor
    prior: Tensor

    @property
    def same(self) -> Tensor:
        """(n, S V) what does not depend on the angle."""
        return (self.prior - 0.5 * self.power).flatten(1)

    @property
    def of_angles(self) -> Tensor:
        """(T, n, S V) what does."""
        return torch.cat((self.even + self.odd, self.even - self.odd))

    @property
    def best_angle(self) -> Tensor:
        """(n, S V) score at the best in-plane angle."""
        return (self.even + self.odd.abs()).amax(dim=0) + self.same

    def best_shifts(self) -> Tensor:
        """(n, S) score of every shift at its best orientation."""
        return self.best_angle.view(*self.shift_px.shape[:2], -1).amax(dim=2)

    def best(self, keep: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Direction, angle, shift and score of the best `keep` poses, each (n, K) or (n, K, 2).

        They have the best shifts and directions, so that the rest is not sorted.
        """
        pair = self.best_angle
        pair = pair.topk(min(keep, pair.shape[1]), dim=1).indices
        chosen = pair.expand(len(self.even), -1, -1)
        even, odd = self.even.gather(2, chosen), self.odd.gather(2, chosen)
        score = torch.cat((even + odd, even - odd)) + self.same.gather(1, pair)
        score = score.permute(1, 2, 0).flatten(1)
        best = score.topk(min(keep, score.shape[1]), dim=1)
        pair = pair.gather(1, best.indices // len(self.psi))
        shift = pair // len(self.direction)
        return (
            self.direction[pair % len(self.direction)],
            self.psi[best.indices % len(self.psi)],
            self.shift_px.gather(1, shift[..., None].expand(-1, -1, 2)),
            best.values,
        )


@dataclass(frozen=True)
class ExhaustiveSearch:
    """Central slices in the directions of a level, sorted by order.

    Attributes:
        level: of the search.
        band: its rings.
        direction: (V,) the directions, of one asymmetric unit.
        psi: (T,) the in-plane angles.
        power: (V, R) mean of |P|² on every ring.
        coefficient: (M,) coefficients that are compared, sorted by order; even orders first.
        planes: of every such order, (2, 2 Mm, V): what takes coefficients (real and imaginary part
            side by side) to the real and to the imaginary part of c_m.
        turns: of even and odd orders, (T / 2, 2 orders): what takes these parts to angles.
    """

    level: Level
    band: CircularHarmonics
    direction: Tensor
    psi: Tensor
    power: Tensor
    coefficient: Tensor
    planes: tuple[Tensor, ...]
    turns: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, reference: Reference, level: Level) -> "ExhaustiveSearch":
        """Of the slices of a map."""
        band, device = reference.band, reference.spectrum.volume.device
        direction = asymmetric_directions(level.nside, level.symmetry, device)
        plane, power = reference.take(direction)
        needed = _needed(plane, band)
        orders = range(max(band.highest_orders) + 1)
        of_order = [((band.order == m) & needed).nonzero()[:, 0] for m in orders]
        kept = [m for m in orders if len(of_order[m])]
        parity = [[m for m in kept if m % 2 == odd] for odd in (0, 1)]
        psi = in_plane_angles(level.nside, device)
        planes, turns = [], []
        for same in parity:
            for m in same:
                mine = plane[:, of_order[m]]
                both = torch.stack((mine, 1j * mine))
                planes.append(torch.view_as_real(both).flatten(2).mT.contiguous())
            phase = psi[: len(psi) // 2, None] * torch.tensor(same, device=device)
            turns.append(torch.cat((phase.cos(), phase.sin()), dim=1))
        coefficient = torch.cat([of_order[m] for same in parity for m in same])
        return cls(
            level, band, direction, psi, power, coefficient, tuple(planes), (turns[0], turns[1])
        )

    def scores(self, part: Observations, shift_px: Tensor) -> Scores:
        """Of n images at shifts (n, S, 2), or (1, S, 2) that are the same for all."""
        n, shifts, directions = len(part), shift_px.shape[1], len(self.direction)
        a = moved(part.a, shift_px, self.band).flatten(0, 1)
        a = torch.view_as_real(a.index_select(1, self.coefficient)).flatten(1)
        sums, start, first = [], 0, 0
        for turn in self.turns:
            orders = turn.shape[1] // 2
            cross = a.new_empty(2, orders, len(a), directions)
            for number, plane in enumerate(self.planes[first : first + orders]):
                mine = a[:, start : start + plane.shape[1]]
                torch.mm(mine, plane[0], out=cross[0, number])
                torch.mm(mine, plane[1], out=cross[1, number])
                start += plane.shape[1]
            first += orders
            sums.append((turn @ cross.view(2 * orders, -1)).view(len(turn), n, -1))
        power = part.b[:, None, : self.level.rings] @ self.power.T
        shift_px = shift_px.expand(n, shifts, 2)
        prior = self.level.log_prior(self.direction, shift_px[:, :, None])
        power = power.expand_as(prior)
        return Scores(shift_px, self.direction, self.psi, sums[0], sums[1], power, prior)


def _needed(plane: Tensor, band: CircularHarmonics) -> Tensor:
    """(M,) whether a coefficient is compared: the highest orders of a ring hold next to nothing."""
    power = plane.abs().square().sum(dim=0)
    needed = torch.ones_like(band.order, dtype=torch.bool)
    sizes = [top + 1 for top in band.highest_orders]
    for mine, ring in zip(torch.split(needed, sizes), torch.split(power, sizes), strict=True):
        above = ring.flip(0).cumsum(0).flip(0)  # this order and all higher ones
        mine[:] = above >= _LEFT_OUT * above[0]
    return needed
