"""Posterior over poses and conformations together.

Image i shows `Σ_k φ_k(z) V_k` from some direction. At a pose its score is quadratic in the
amounts φ: `φ · l - ½ φᵀ G φ`, with `l_k = Re Σ conj P_k A` and `G_kl = Σ Re(conj P_k P_l) B` from
the slices P_k of the components. One slice of each component so serves all conformations, and the
latent z is summed over a grid of nodes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan.likelihood.expectation import (
    Cells,
    Level,
    Observations,
    Reference,
    joined,
    moved,
    reference,
    search,
)
from cryogan.likelihood.maximisation import pairs
from cryogan.likelihood.polar import Polar
from cryogan.likelihood.views import Views, views
from cryogan.physics.projection import volume_spectrum

_CHUNK = 16
_PADDING = 2.0
_MOST = 32  # cells of an image that are judged in all conformations


@dataclass(frozen=True)
class Landscape:
    """The conformations an image may show.

    Attributes:
        latent: (L, dimension) nodes of the latent.
        amounts: (L, C) amounts of the components at the nodes; the first is 1.
        prior: (L,) probability of each node before any image was seen; sums to 1.
        anchors: (A, C) amounts of the conformations that poses are searched with.
    """

    latent: Tensor
    amounts: Tensor
    prior: Tensor
    anchors: Tensor

    @property
    def average(self) -> Tensor:
        """(C,) mean amounts: of the mean map of all particles."""
        return self.prior @ self.amounts

    @property
    def products(self) -> Tensor:
        """(L, C (C + 1) / 2) products of amounts, for `pairs(C)`."""
        first, second = pairs(self.amounts.shape[1])
        return self.amounts[:, first] * self.amounts[:, second]


_ONE = torch.ones(1, 1)
SINGLE = Landscape(torch.zeros(1, 1), _ONE, _ONE[0], _ONE)
"""One conformation."""


@dataclass(frozen=True)
class SeriesSlices:
    """Central slices of C components in the directions of one level.

    Attributes:
        views: the directions.
        band: the rings of the level.
        spectra: (C, ...) from `physics.projection.volume_spectrum`.
        plane: (V, C, M') coefficients; None where there are too many to keep.
        gram: (V, R', C (C + 1) / 2) ring means of Re(conj P_k P_l), or None.
    """

    views: Views
    band: Polar
    spectra: Tensor
    plane: Tensor | None
    gram: Tensor | None

    @classmethod
    def of(
        cls, spectra: Tensor, polar: Polar, level: Level, most_bytes: float = 2e9
    ) -> "SeriesSlices":
        """Slices; made when asked for if all take over `most_bytes`."""
        directions, band = views(level.nside, spectra.device), polar.within(level.rings)
        if 8 * len(directions) * len(band.order) * len(spectra) > most_bytes:
            return cls(directions, band, spectra, None, None)
        parts = [_slices(spectra, band, frame) for frame in torch.split(directions.frame, 256)]
        plane, gram = (torch.cat(part) for part in zip(*parts, strict=True))
        return cls(directions, band, spectra, plane, gram)

    def take(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients (..., C, M') and products (..., R', C (C + 1) / 2) of directions (...)."""
        if self.plane is not None and self.gram is not None:
            return self.plane[view], self.gram[view]
        needed, place = torch.unique(view, return_inverse=True)
        plane, gram = _slices(self.spectra, self.band, self.views.frame[needed])
        return plane[place], gram[place]


def _slices(spectra: Tensor, band: Polar, frame: Tensor) -> tuple[Tensor, Tensor]:
    plane = torch.stack([band.slices(spectrum, frame) for spectrum in spectra], dim=1)
    twice = torch.where(band.order > 0, 2.0, 1.0)
    gram = []
    for first, second in zip(*(side.tolist() for side in pairs(len(spectra))), strict=True):
        product = (plane[:, first].conj() * plane[:, second]).real * twice
        power = product.new_zeros(len(plane), band.rings)
        gram.append(power.index_add_(1, band.ring - 1, product))
    return plane, torch.stack(gram, dim=2)


@dataclass(frozen=True)
class Sources:
    """What images are compared with.

    Attributes:
        landscape: the conformations.
        levels: of the search for poses.
        references: for every anchor of the landscape, slices of its map at every level.
        slices: of the components at the finest level; None for one structure.
    """

    landscape: Landscape
    levels: Sequence[Level]
    references: Sequence[Sequence[Reference]]
    slices: SeriesSlices | None


def sources_of(
    maps: Tensor, landscape: Landscape, polar: Polar, levels: Sequence[Level]
) -> Sources:
    """Slices of components (C, D, D, D)."""
    spectra = volume_spectrum(maps, _PADDING)
    anchors = torch.einsum("ac,czyx->azyx", landscape.anchors.to(spectra), spectra)
    references = [[reference(anchor, polar, level) for level in levels] for anchor in anchors]
    slices = SeriesSlices.of(spectra, polar, levels[-1]) if len(maps) > 1 else None
    return Sources(landscape, levels, references, slices)


@dataclass(frozen=True)
class Judged:
    """n images with what is known of pose and conformation.

    Attributes:
        cells: K poses an image; scores are logs of means over the latent.
        amount: (n, K, C) posterior expectations of the amounts, at each pose: sums of posterior
            probability times amount. The first column holds the poses' probabilities.
        product: (n, K, C (C + 1) / 2) the same of products of amounts.
        node: (n, L) posterior probability of each node of the latent.
    """

    cells: Cells
    amount: Tensor
    product: Tensor
    node: Tensor


def judge(observations: Observations, sources: Sources, nats: float = math.inf) -> Judged:
    """Search poses, with a few conformations, and judge those found in all conformations.

    Args:
        observations: n images.
        sources: what they are compared with.
        nats: posteriors are softened so that the best pose of the average image explains no more
            than this.
    """
    if sources.slices is None:
        cells = search(observations, sources.references[0], sources.levels)
        weight = torch.softmax(_sharpness(cells.score, nats) * cells.score, dim=1)[..., None]
        return Judged(cells, weight, weight, weight.sum(dim=1))
    landscape = sources.landscape
    scores, found = [], []
    for start in range(0, len(observations), _CHUNK):
        part = observations[start : start + _CHUNK]
        searches = [
            search(part, each, sources.levels).promising(_MOST) for each in sources.references
        ]
        cells = distinct(searches).promising(_MOST)
        found.append(cells)
        scores.append(score_over_latents(part, cells, sources.slices, landscape))
    most = max(cells.score.shape[1] for cells in found)
    cells = joined([cells.padded(most) for cells in found], 0)
    pad = torch.nn.functional.pad
    score = torch.cat([pad(part, (0, 0, 0, most - part.shape[1])) for part in scores])  # (n, K, L)
    score = torch.where(cells.score[..., None] > -math.inf, score, -math.inf)
    log_prior = landscape.prior.to(score).clamp_min(1e-30).log()
    soft = _sharpness(score.flatten(1), nats) * score + log_prior
    probability = torch.softmax(soft.flatten(1), dim=1).view(score.shape)
    marginal = torch.logsumexp(score + log_prior, dim=2)
    return Judged(
        Cells(cells.view, cells.psi, cells.shift_px, marginal),
        probability @ landscape.amounts.to(score),
        probability @ landscape.products.to(score),
        probability.sum(dim=1),
    )


def _sharpness(score: Tensor, nats: float) -> float:
    explained = float(score.amax(dim=1).mean())
    return 1.0 if explained <= nats else nats / explained


def distinct(found: Sequence[Cells]) -> Cells:
    """Cells of several searches of the same images; one found twice counts once."""
    if len(found) == 1:
        return found[0]
    cells = joined(found, 1)
    same = (cells.view[:, :, None] == cells.view[:, None]) & (
        cells.psi[:, :, None] == cells.psi[:, None]
    )
    if cells.shift_px.any():
        same &= (cells.shift_px[:, :, None] == cells.shift_px[:, None]).all(-1)
    # the better of two scores stays, so that it is kept if any search finds it promising
    best = torch.where(same, cells.score[:, None], -math.inf).amax(dim=2)
    repeated = same.tril(-1).any(dim=2)
    return Cells(cells.view, cells.psi, cells.shift_px, torch.where(repeated, -math.inf, best))


def score_over_latents(
    part: Observations, cells: Cells, slices: SeriesSlices, landscape: Landscape
) -> Tensor:
    """(n, K, L) log-likelihoods of poses and nodes, up to a number that is the image's own."""
    band = slices.band
    plane, gram = slices.take(cells.view)  # (n, K, C, M'), (n, K, R', P)
    shift_px = cells.shift_px if cells.shift_px.any() else cells.shift_px[:, :1]
    mine = band.turned(moved(part.a, shift_px, band), -cells.psi)
    mine = torch.view_as_real(mine.expand(*cells.view.shape, -1).contiguous()).flatten(2)
    linear = (torch.view_as_real(plane).flatten(3) @ mine[..., None])[..., 0]
    quadratic = torch.einsum("nr,nkrp->nkp", part.b[:, : band.rings], gram)
    first, second = pairs(landscape.amounts.shape[1])
    twice = torch.where(first == second, 0.5, 1.0).to(linear.device)
    amounts, products = landscape.amounts.to(linear), landscape.products.to(linear)
    score: Tensor = linear @ amounts.T - quadratic @ (products * twice).T
    return score
