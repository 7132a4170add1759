"""The posterior over poses and conformations together.

Image i shows `Σ_k φ_k(z) V_k` from some direction. At a pose its score is quadratic in the
coefficients φ: `φ · l - ½ φᵀ G φ`, with `l_k = Re Σ conj P_k A` and `G_kl = Σ Re(conj P_k P_l) B`
from the slices P_k of the basis volumes. One slice of each basis volume thus serves all
conformations, and the latent z is summed over a grid.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryogan.objectives.data_parallel import SINGLE_PROCESS, ProcessGroup
from cryogan.objectives.likelihood.central_slices import (
    MapSpectrum,
    Reference,
    reference,
    slices_of_level,
)
from cryogan.objectives.likelihood.image_model import (
    ALIKE,
    SUPPOSED_JUNK,
    ImageModel,
    junk_log_likelihood,
    particle_probability,
    with_contrast,
)
from cryogan.objectives.likelihood.latent_grid import LatentGrid
from cryogan.objectives.likelihood.normal_equations import pairs
from cryogan.objectives.likelihood.observations import Observations, moved
from cryogan.objectives.likelihood.orientation_grid import OrientationGrid, orientation_grid
from cryogan.objectives.likelihood.pose_search import (
    SEARCHED_TOGETHER,
    Cells,
    joined,
    log_marginal_likelihood,
    search,
)
from cryogan.objectives.likelihood.search_levels import Level
from cryogan.physics.circular_harmonics import CircularHarmonics

_MOST = 32  # cells of an image that are scored in all conformations, for a map
_KEPT_BYTES = 2e9  # of slices of basis volumes
_HELD_BYTES = 256e6  # of slices that images are compared with at a time


@dataclass(frozen=True)
class SeriesSlices:
    """Central slices of C basis volumes in the directions of one level.

    Attributes:
        grid: the directions.
        band: the rings of the level.
        spectra: of the C basis volumes.
        plane: (V, C, M') coefficients; None where there are too many to keep.
        gram: (V, R', C (C + 1) / 2) ring means of Re(conj P_k P_l), or None.
    """

    grid: OrientationGrid
    band: CircularHarmonics
    spectra: Sequence[MapSpectrum]
    plane: Tensor | None
    gram: Tensor | None

    @classmethod
    def of(
        cls,
        spectra: Sequence[MapSpectrum],
        level: Level,
        most_bytes: float = _KEPT_BYTES,
    ) -> "SeriesSlices":
        """Slices; made on demand if all together take over `most_bytes`."""
        directions = orientation_grid(level.nside, spectra[0].volume.device)
        band = spectra[0].harmonics.within(level.rings)
        if 8 * len(directions) * len(band.order) * len(spectra) > most_bytes:
            return cls(directions, band, spectra, None, None)
        every = [slices_of_level(spectrum, band, level.nside) for spectrum in spectra]
        plane = torch.stack(every, dim=1)
        gram = torch.cat([_products(part, band) for part in torch.split(plane, 256)])
        return cls(directions, band, spectra, plane, gram)

    def take(self, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients (..., C, M') and products (..., R', C (C + 1) / 2) of directions (...)."""
        if self.plane is not None and self.gram is not None:
            return self.plane[direction], self.gram[direction]
        needed, place = torch.unique(direction, return_inverse=True)
        frame = self.grid.frame[needed]
        every = [spectrum.slices(frame, self.band) for spectrum in self.spectra]
        plane = torch.stack(every, dim=1)
        return plane[place], _products(plane, self.band)[place]


def _products(plane: Tensor, band: CircularHarmonics) -> Tensor:
    """(n, R', C (C + 1) / 2) ring means of Re(conj P_k P_l) of planes (n, C, M')."""
    twice = torch.where(band.order > 0, 2.0, 1.0)
    gram = []
    for first, second in zip(*(side.tolist() for side in pairs(plane.shape[1])), strict=True):
        product = (plane[:, first].conj() * plane[:, second]).real * twice
        power = product.new_zeros(len(plane), band.rings)
        gram.append(power.index_add_(1, band.ring - 1, product))
    return torch.stack(gram, dim=2)


@dataclass(frozen=True)
class References:
    """The references that images are compared with.

    Attributes:
        latent_grid: the conformations.
        levels: of the search for poses.
        references: for every anchor of the latent_grid, slices of its map at every level.
        slices: of the basis volumes at the finest level, and at others where posteriors may be
            taken; None at the rest. Empty for one structure.
    """

    latent_grid: LatentGrid
    levels: Sequence[Level]
    references: Sequence[Sequence[Reference]]
    slices: Sequence[SeriesSlices | None]

    @property
    def is_series(self) -> bool:
        """Whether images are compared with conformations, not with one structure."""
        return len(self.slices) > 0

    @property
    def ends_anywhere(self) -> bool:
        """Whether posteriors can be taken at every level that is `complete`.

        Searches with several conformations can only be joined at the finest one.
        """
        return not self.is_series or len(self.references) == 1

    def until(self, number: int) -> "References":
        """For a search that ends at a level, if it `ends_anywhere`."""
        end = number + 1
        return replace(
            self,
            levels=self.levels[:end],
            references=[each[:end] for each in self.references],
            slices=self.slices[:end],
        )


def references_of(
    maps: Tensor, latent_grid: LatentGrid, harmonics: CircularHarmonics, levels: Sequence[Level]
) -> References:
    """Slices of basis volumes (C, D, D, D)."""
    spectra = [MapSpectrum(volume, harmonics) for volume in maps]
    mixed = torch.einsum("ac,czyx->azyx", latent_grid.anchors.to(maps), maps)
    anchors = [MapSpectrum(volume, harmonics) for volume in mixed]
    references = [[reference(anchor, level) for level in levels] for anchor in anchors]
    if len(maps) == 1:
        return References(latent_grid, levels, references, ())
    wanted = [level.complete and len(anchors) == 1 for level in levels[:-1]] + [True]
    slices = [
        SeriesSlices.of(spectra, level, _KEPT_BYTES / sum(wanted)) if needed else None
        for level, needed in zip(levels, wanted, strict=True)
    ]
    return References(latent_grid, levels, references, slices)


@dataclass(frozen=True)
class Posterior:
    """Posteriors of n images over pose and conformation.

    Attributes:
        cells: K poses an image; scores are logs of means over the latent.
        coefficient: (n, K, C) posterior expectations of the coefficients, at each pose: sums of
            posterior probability times coefficient. The first column holds the probabilities of
            the poses.
        product: (n, K, C (C + 1) / 2) the same of products of coefficients.
        latent: (n, L) posterior probability of each point of the latent grid.
        particle: (n,) posterior probability that the image shows a particle; coefficients and
            products are times it if the image model has a share of others.
        contrast: (n,) posterior mean of the contrast, by which they are multiplied too.
        contrast2: (n,) of its square.
    """

    cells: Cells
    coefficient: Tensor
    product: Tensor
    latent: Tensor
    particle: Tensor
    contrast: Tensor
    contrast2: Tensor

    def __getitem__(self, index: Tensor) -> "Posterior":
        return Posterior(
            self.cells[index],
            self.coefficient[index],
            self.product[index],
            self.latent[index],
            self.particle[index],
            self.contrast[index],
            self.contrast2[index],
        )

    @property
    def probability(self) -> Tensor:
        """(n, K) posterior probabilities of the poses."""
        weight = self.coefficient[..., 0]
        return weight / weight.sum(dim=1, keepdim=True).clamp_min(1e-30)

    @property
    def effective_poses(self) -> Tensor:
        """(n,) inverse participation ratios 1 / Σ p² of the poses' probabilities."""
        return 1.0 / self.probability.square().sum(dim=1)


def posterior_of(
    observations: Observations,
    references: References,
    max_log_likelihood: float = math.inf,
    image_model: ImageModel = ALIKE,
    start: Cells | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Posterior:
    """Search poses with a few conformations, and score those found in all conformations.

    At a level that is `complete`, all poses are that the search has kept: of the few that are
    best for the mean map, those of a conformation far from it may be none, and its probability
    would come out too small. Contrast is that of one structure only: conformations differ in it.

    Args:
        observations: n images.
        references: what they are compared with.
        max_log_likelihood: posteriors are annealed such that the log-likelihood of the best pose
            of the average image is no more than this.
        image_model: contrast, and images without a particle.
        start: cells of the last level but one, if it was searched before, and `references`
            `ends_anywhere`.
        group: the processes whose images are annealed alike; all call this.
    """
    if not references.is_series:
        cells = search(observations, references.references[0], references.levels, start=start)
        mean = square = torch.ones_like(cells.score)
        if image_model.contrast_sd > 0.0:
            parts = torch.split(torch.arange(len(observations)), SEARCHED_TOGETHER)
            finest = references.references[0][-1]
            power = [finest.power_of(cells.direction[i], observations.b[i]) for i in parts]
            prior = references.levels[-1].log_prior(cells.direction, cells.shift_px)
            score, mean, square = with_contrast(
                cells.score - prior, torch.cat(power), image_model.contrast_sd
            )
            cells = replace(cells, score=score + prior)
        weight = torch.softmax(
            _inverse_temperature(cells.score, max_log_likelihood, group) * cells.score, dim=1
        )
        particle = _particle(observations, cells, references, image_model)
        counts = (particle if image_model.junk_share > 0.0 else torch.ones_like(particle))[:, None]
        return Posterior(
            cells,
            (counts * weight * mean)[..., None],
            (counts * weight * square)[..., None],
            weight.sum(dim=1, keepdim=True),
            particle,
            (weight * mean).sum(dim=1),
            (weight * square).sum(dim=1),
        )
    latent_grid, level, slices = (
        references.latent_grid,
        references.levels[-1],
        references.slices[-1],
    )
    assert slices is not None
    keep = level.most if level.complete and references.ends_anywhere else _MOST
    scores, found = [], []
    for begin in range(0, len(observations), SEARCHED_TOGETHER):
        chunk = slice(begin, begin + SEARCHED_TOGETHER)
        part, from_ = observations[chunk], None if start is None else start[chunk]
        searches = [
            search(part, each, references.levels, start=from_).promising(keep)
            for each in references.references
        ]
        cells = distinct(searches).promising(keep)
        found.append(cells)
        image_bytes = 8 * cells.score.shape[1] * len(slices.band.order) * len(slices.spectra)
        at_once = max(1, int(_HELD_BYTES / image_bytes))
        few = [slice(k, k + at_once) for k in range(0, len(part), at_once)]
        each_score = [score_over_latents(part[k], cells[k], slices, latent_grid) for k in few]
        scores.append(torch.cat(each_score))
    most = max(cells.score.shape[1] for cells in found)
    cells = joined([cells.padded(most) for cells in found], 0)
    pad = torch.nn.functional.pad
    score = torch.cat([pad(part, (0, 0, 0, most - part.shape[1])) for part in scores])  # (n, K, L)
    score = torch.where(cells.score[..., None] > -math.inf, score, -math.inf)
    pose_prior = references.levels[-1].log_prior(cells.direction, cells.shift_px)[..., None]
    log_prior = pose_prior + latent_grid.prior.to(score).clamp_min(1e-30).log()
    inverse_temperature = _inverse_temperature(score.flatten(1), max_log_likelihood, group)
    annealed = inverse_temperature * score + log_prior
    probability = torch.softmax(annealed.flatten(1), dim=1).view(score.shape)
    marginal = torch.logsumexp(score + log_prior, dim=2)
    cells = replace(cells, score=marginal)
    particle = _particle(observations, cells, references, image_model)
    one = torch.ones_like(particle)
    weighted = (particle if image_model.junk_share > 0.0 else one)[:, None, None] * probability
    return Posterior(
        cells,
        weighted @ latent_grid.coefficients.to(score),
        weighted @ latent_grid.products.to(score),
        probability.sum(dim=1),
        particle,
        one,
        one,
    )


def _particle(
    observations: Observations, cells: Cells, references: References, image_model: ImageModel
) -> Tensor:
    """(n,) posterior probability that an image shows a particle."""
    found = log_marginal_likelihood(cells, references.levels)
    if observations.blobs is None:
        return torch.ones_like(found)
    junk = junk_log_likelihood(observations.blobs, references.levels[-1].rings)
    return particle_probability(found, junk, image_model.junk_share or SUPPOSED_JUNK)


def _inverse_temperature(score: Tensor, max_log_likelihood: float, group: ProcessGroup) -> float:
    if max_log_likelihood == math.inf:
        return 1.0
    tops = score.amax(dim=1)
    total, count = group.sum(torch.stack((tops.sum(), tops.new_tensor(len(tops))))).tolist()
    best = total / count
    return 1.0 if best <= max_log_likelihood else max_log_likelihood / best


def distinct(found: Sequence[Cells]) -> Cells:
    """Cells of several searches of the same images; one found twice counts once."""
    if len(found) == 1:
        return found[0]
    cells = joined(found, 1)
    same = (cells.direction[:, :, None] == cells.direction[:, None]) & (
        cells.psi[:, :, None] == cells.psi[:, None]
    )
    if cells.shift_px.any():
        same &= (cells.shift_px[:, :, None] == cells.shift_px[:, None]).all(-1)
    # the better of two scores stays, so that the cell is kept if any search finds it promising
    best = torch.where(same, cells.score[:, None], -math.inf).amax(dim=2)
    repeated = same.tril(-1).any(dim=2)
    return Cells(cells.direction, cells.psi, cells.shift_px, torch.where(repeated, -math.inf, best))


def score_over_latents(
    part: Observations, cells: Cells, slices: SeriesSlices, latent_grid: LatentGrid
) -> Tensor:
    """(n, K, L) log-likelihoods of poses and grid points, up to a constant of each image."""
    band = slices.band
    plane, gram = slices.take(cells.direction)  # (n, K, C, M'), (n, K, R', P)
    shift_px = cells.shift_px if cells.shift_px.any() else cells.shift_px[:, :1]
    mine = band.turned(moved(part.a, shift_px, band), -cells.psi)
    mine = torch.view_as_real(mine.expand(*cells.direction.shape, -1).contiguous()).flatten(2)
    linear = (torch.view_as_real(plane).flatten(3) @ mine[..., None])[..., 0]
    quadratic = torch.einsum("nr,nkrp->nkp", part.b[:, : band.rings], gram)
    first, second = pairs(latent_grid.coefficients.shape[1])
    twice = torch.where(first == second, 0.5, 1.0).to(linear.device)
    coefficients, products = latent_grid.coefficients.to(linear), latent_grid.products.to(linear)
    score: Tensor = linear @ coefficients.T - quadratic @ (products * twice).T
    return score
