"""One step of expectation maximisation: what posteriors say of maps, and the maps that follow."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.likelihood.config import AscentConfig
from cryogan.likelihood.expectation import Level, Observations, log_evidence
from cryogan.likelihood.half_set import HalfSet
from cryogan.likelihood.landscape import Landscape, judge, sources_of
from cryogan.likelihood.maximisation import (
    NormalEquations,
    normal_equations,
    posterior,
    solve,
    together,
)
from cryogan.likelihood.polar import Polar
from cryogan.likelihood.views import views
from cryogan.models.volume import symmetrise
from cryogan.symmetry import symmetry_matrices

_CHUNK = 2048
_HELD_BYTES = 500_000_000  # of coefficients, before they are put into equations
_CHANGE = 0.3  # expected power of a change of shape, in units of the molecule's
_SATURATION = 4.0  # cycles per box: the motion of a part leaves the lowest shells as they are


@dataclass(frozen=True)
class Expectation:
    """What images say about the maps of a landscape.

    Attributes:
        evidence: mean log-likelihood of an image, over that of noise alone.
        equations: of the components.
        node: (L,) mean posterior probability of each node of the latent.
        landscape: that the posteriors are of.
    """

    evidence: float
    equations: NormalEquations
    node: Tensor
    landscape: Landscape

    @property
    def widening(self) -> Tensor:
        """(C, C) T, by which the components V are to be replaced by `Tᵀ V`.

        The mean posterior of the latent should be its prior. If images crowd at the ends, the
        series is too short. Let their amounts be `T φ`, with φ distributed as the prior has it
        and T triangular, the first amount staying 1: `T Tᵀ` is the amounts' second moment now.
        Taking T over into the components is an iteration with expanded parameters (PX-EM; Liu,
        Rubin & Wu, Biometrika 85, 1998), which expectation maximisation by itself needs many
        steps for. Where the posterior is the prior, T is 1.
        """
        amounts, share = self.landscape.amounts.to(self.node), self.landscape.prior.to(self.node)
        node = 0.99 * self.node + 0.01 * share  # a few clear states would make `now` singular
        now = (amounts.T * node) @ amounts
        prior = (amounts.T * share) @ amounts
        change: Tensor = torch.linalg.cholesky(now) @ torch.linalg.inv(torch.linalg.cholesky(prior))
        return change

    @property
    def change(self) -> float:
        """How far the mean posterior of the latent is from its prior: largest entry of T - 1.

        Of classes, the largest change of a population.
        """
        if len(self.node) == 1:
            return 0.0
        if len(self.node) == self.landscape.amounts.shape[1]:
            return float((self.node - self.landscape.prior.to(self.node)).abs().max())
        one = torch.eye(self.landscape.amounts.shape[1]).to(self.node)
        return float((self.widening - one).abs().max())


def expect(
    half: HalfSet,
    index: Tensor,
    maps: Tensor,
    landscape: Landscape,
    levels: Sequence[Level],
    rings: int,
    polar: Polar,
    nats: float = math.inf,
) -> Expectation:
    """Posteriors of the images of `index`, and what they say about the maps.

    Args:
        half: where the images come from.
        index: (n,) images.
        maps: (C, D, D, D) components that poses and conformations are judged with.
        landscape: of C components.
        levels: of the search.
        rings: coefficients beyond this band are not believed in `maps`.
        polar: the rings that the maps are to be made of.
        nats: posteriors are softened so that the best pose explains no more than this.
    """
    device = maps.device
    sources = sources_of(_within(maps, rings), landscape, polar, levels)
    finest = views(levels[-1].nside, device)
    total, evidence, node = None, 0.0, torch.zeros(len(landscape.prior), device=device)
    many = max(_CHUNK, _HELD_BYTES // (8 * len(polar.order)))
    for group in torch.split(index, many):  # what equations cost does not depend on the images
        seen, poses = [], []
        for part in torch.split(group, _CHUNK):
            seen.append(half.observed(part, polar, device))
            judged = judge(seen[-1], sources, nats)
            evidence += float(log_evidence(judged.cells, levels).sum())
            node += judged.node.sum(dim=0)
            poses.append(posterior(judged.cells, judged.amount, judged.product))
        equations = normal_equations(
            Observations.joined(seen), together(poses, _CHUNK), finest, polar
        )
        total = equations if total is None else total + equations
    assert total is not None
    return Expectation(evidence / len(index), total, node / len(index), landscape)


def widened(maps: Tensor, found: Expectation, config: AscentConfig) -> Tensor:
    """Components (C, D, D, D) after `Expectation.widening`; classes have populations instead."""
    if len(maps) == 1 or config.latent == "discrete":
        return maps
    return torch.einsum("kj,kzyx->jzyx", found.widening, maps)


def solved(
    equations: NormalEquations, prior: Tensor, mask: Tensor, start: Tensor, config: AscentConfig
) -> Tensor:
    """(C, D, D, D) the most probable maps with the symmetry that is imposed."""
    operators = symmetry_matrices(config.symmetry)[1:].to(mask.device)
    maps = solve(equations, prior, mask, start)
    return torch.stack([symmetrise(volume, operators) for volume in maps])


def prior_of(half: HalfSet, size: int, rings: int, components: int, config: AscentConfig) -> Tensor:
    """(C, size // 2 + 1) expected |F|² of the components before anything is known of them.

    The mean's is the signal's power, measured without poses; the others' a fraction of it, less
    in the lowest shells and at high frequencies of the latent. Zero beyond the band.
    """
    signal = half.signal_prior(size)
    shell = torch.arange(len(signal))
    change = _CHANGE * shell.square() / (shell.square() + _SATURATION**2)
    share = config.space.falling(components - 1).square()[:, None] * change
    prior = signal * torch.cat((torch.ones(1, len(signal)), share))
    return torch.where(shell <= rings, prior, 0.0)


def _within(volume: Tensor, rings: int) -> Tensor:
    size = volume.shape[-1]
    inside = fourier.band_mask(size, rings + 0.5, 3, volume.device)
    return fourier.irfft(fourier.rfft(volume, 3) * inside, size, 3)
