"""One EM iteration of a half-set: posteriors of its images, and the maps that follow from them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.image_model import ALIKE, ImageModel, ImageMoments
from cryogan.objectives.likelihood.latent_grid import LatentGrid
from cryogan.objectives.likelihood.normal_equations import (
    NormalEquations,
    normal_equations,
    together,
    weighted_poses,
)
from cryogan.objectives.likelihood.observations import (
    HELD_BYTES,
    HeldObservations,
    bytes_of_image,
)
from cryogan.objectives.likelihood.orientation_grid import orientation_grid
from cryogan.objectives.likelihood.pose_search import SEARCHED_TOGETHER, log_marginal_likelihood
from cryogan.objectives.likelihood.posterior import posterior_of, references_of
from cryogan.objectives.likelihood.residuals import Residuals, residuals
from cryogan.objectives.likelihood.search_levels import Level
from cryogan.objectives.likelihood.shifts import ShiftMoments
from cryogan.objectives.likelihood.view_counts import ViewCounts
from cryogan.physics.circular_harmonics import CircularHarmonics
from cryogan.symmetry import symmetry_matrices

_CHUNK = 2048
_FEW = 300  # images by whose residuals noise is measured
_CHANGE = 0.3  # expected power of a change of shape, in units of the molecule's
_SATURATION = 4.0  # cycles per box: the motion of a part leaves the lowest shells as they are


@dataclass(frozen=True)
class EStep:
    """The E-step's result.

    Attributes:
        log_likelihood: mean log marginal likelihood of an image, over that of noise alone.
        equations: of the basis volumes.
        latent: (L,) mean posterior probability of each point of the latent grid.
        latent_grid: that the posteriors are of.
        effective_poses: mean over the images of the inverse participation ratio 1 / Σ p² of their
            poses' probabilities: 1 if every pose is known, many if posteriors are flat.
        shifts: moments of the shifts; None where they are not searched.
        images: moments of contrast, and how many images show a particle.
        views: posterior mass by viewing direction; None unless it was asked for.
        left: (2, R) mean residual of some images in each ring, and their mean power, in units of
            the noise; None unless it was asked for.
    """

    log_likelihood: float
    equations: NormalEquations
    latent: Tensor
    latent_grid: LatentGrid
    effective_poses: float = 1.0
    shifts: ShiftMoments | None = None
    images: ImageMoments = field(default_factory=ImageMoments)
    views: ViewCounts | None = None
    left: Tensor | None = None

    @property
    def expansion(self) -> Tensor:
        """(C, C) T of the parameter expansion: basis volumes V are to be replaced by `Tᵀ V`.

        The mean posterior of the latent should be its prior. If images accumulate at the ends, the
        path is too short. Let their coefficients be `T φ`, with φ distributed as in the prior and
        T triangular, the first coefficient staying 1: `T Tᵀ` is the coefficients' second moment
        now. Applying T to the basis volumes is an iteration with expanded parameters (PX-EM; Liu,
        Rubin & Wu, Biometrika 85, 1998), for which EM by itself needs many iterations. Where the
        posterior is the prior, T is 1.
        """
        coefficients = self.latent_grid.coefficients.to(self.latent)
        share = self.latent_grid.prior.to(self.latent)
        latent = 0.99 * self.latent + 0.01 * share  # few distinct states would make `now` singular
        now = (coefficients.T * latent) @ coefficients
        prior = (coefficients.T * share) @ coefficients
        change: Tensor = torch.linalg.cholesky(now) @ torch.linalg.inv(torch.linalg.cholesky(prior))
        return change

    @property
    def change(self) -> float:
        """How far the mean posterior of the latent is from its prior: largest entry of T - 1.

        Of classes, the largest change of a population.
        """
        if len(self.latent) == 1:
            return 0.0
        basis_volumes = self.latent_grid.coefficients.shape[1]
        if len(self.latent) == basis_volumes:
            return float((self.latent - self.latent_grid.prior.to(self.latent)).abs().max())
        one = torch.eye(basis_volumes).to(self.latent)
        return float((self.expansion - one).abs().max())


def e_step(
    half: HalfSet,
    index: Tensor,
    maps: Tensor,
    latent_grid: LatentGrid,
    levels: Sequence[Level],
    rings: int,
    harmonics: CircularHarmonics,
    max_log_likelihood: float = math.inf,
    image_model: ImageModel = ALIKE,
    generator: torch.Generator | None = None,
    view_images: int = 0,
    residual_images: int = _FEW,
) -> EStep:
    """Posteriors of the images of `index`, and the normal equations of the maps.

    The processes of the half-set's group share the images, and have the same result.

    Args:
        half: where the images come from.
        index: (n,) images.
        maps: (C, D, D, D) basis volumes that poses and conformations are searched with.
        latent_grid: of C basis volumes.
        levels: of the pose search.
        rings: coefficients of `maps` beyond this band are not used.
        harmonics: the rings of the maps to be made.
        max_log_likelihood: of annealed posteriors (`posterior_of`).
        image_model: contrast, and images without a particle.
        generator: CPU generator for the poses at which residuals are measured; none without.
        view_images: of how many images viewing directions are counted, at most; drawn at random,
            as files are often in the order of collections, tilted ones last.
        residual_images: how many images residuals are measured on, at most.
    """
    device, counted = maps.device, torch.zeros(len(index), dtype=torch.bool)
    if view_images > 0:
        counted[torch.randperm(len(index), generator=generator)[:view_images]] = True
    draw = torch.full((len(index),), -1.0)  # for residuals, of a few
    if generator is not None:
        few = torch.randperm(len(index), generator=generator)[:residual_images]
        draw[few] = torch.rand(len(few), generator=generator)
    count, group = len(index), half.group
    parts = math.ceil(group.largest_share(count, SEARCHED_TOGETHER) / _CHUNK)
    index, counted, draw = (group.share(each, SEARCHED_TOGETHER) for each in (index, counted, draw))
    chunk = SEARCHED_TOGETHER * math.ceil(len(index) / (SEARCHED_TOGETHER * parts))
    references = references_of(_within(maps, rings), latent_grid, harmonics, levels)
    finest = orientation_grid(levels[-1].nside, device)
    total, log_likelihood, effective_poses = None, 0.0, 0.0
    shifts: ShiftMoments | None = None
    images = ImageMoments()
    views: ViewCounts | None = None
    left = torch.zeros(3, levels[-1].rings)
    latent = torch.zeros(len(latent_grid.prior), device=device)
    image_bytes = bytes_of_image(len(index), harmonics)
    many = chunk * max(1, HELD_BYTES // (image_bytes * chunk))
    rows = torch.arange(len(index))
    groups = torch.split(rows, many)  # what equations cost does not depend on the images
    for number, some_rows in enumerate(groups):
        half_precision = image_bytes < 8 * len(harmonics.order)
        held, poses = HeldObservations(len(some_rows), half_precision), []
        for row in torch.split(some_rows, chunk):
            part, viewed = index[row], counted[row]
            seen = half.observed(part, harmonics, device)
            held.add(seen)
            found = posterior_of(seen, references, max_log_likelihood, image_model, group=group)
            log_likelihood += float(log_marginal_likelihood(found.cells, levels).sum())
            latent += found.latent.sum(dim=0)
            effective_poses += float(found.effective_poses.sum())
            if levels[0].shift_steps:
                mine = ShiftMoments.of(found.cells, found.probability, finest)
                shifts = mine if shifts is None else shifts + mine
            images += ImageMoments.of(found.particle, found.contrast, found.contrast2)
            if viewed.any():
                some, shown = seen[viewed.to(device)], found.particle[viewed.to(device)]
                more = ViewCounts.of(some, references, image_model, shown)
                views = more if views is None else views + more
            few = (draw[row] >= 0.0).nonzero()[:, 0]
            if len(few):
                at = found[few.to(device)]
                drawn = draw[row[few]]
                rest = residuals(half, part[few], at, maps, levels[-1], drawn, image_model)
                left += _sum_by_ring(rest, at.particle, image_model)
            poses.append(weighted_poses(found.cells, found.coefficient, found.product))
        if number == len(groups) - 1:
            del references  # its slices are not needed any more, and may be most of the memory
        equations = normal_equations(
            held,
            together(poses, chunk),
            finest,
            harmonics,
            operators=symmetry_matrices(levels[0].symmetry),
        )
        total = equations if total is None else total + equations
    assert total is not None
    means = torch.tensor((log_likelihood, effective_poses), dtype=torch.float64)
    log_likelihood, effective_poses = (group.sum(means) / count).tolist()
    return EStep(
        log_likelihood,
        NormalEquations(group.sum(total.backprojection), group.sum(total.kernel)),
        group.sum(latent) / count,
        latent_grid,
        effective_poses,
        group.total(shifts),
        group.total(images) or images,
        group.total(views),
        None if generator is None else _mean_by_ring(group.sum(left)),
    )


def _sum_by_ring(rest: Residuals, particle: Tensor, image_model: ImageModel) -> Tensor:
    """(3, R) sums of residual, of power, both in units of the noise, and of 1, over the images.

    Images count as likely as they show a particle, where some may not.
    """
    values = torch.stack((rest.residual, rest.power)) / rest.noise
    values = torch.cat((values, torch.ones_like(values[:1])))
    counts = particle if image_model.junk_share > 0.0 else torch.ones_like(particle)
    return torch.einsum("n,vnr->vr", counts.to(values), values)


def _mean_by_ring(sums: Tensor) -> Tensor:
    """(2, R) mean residual and power."""
    return sums[:2] / sums[2].clamp_min(1e-6)


def with_residual_noise(
    half: HalfSet,
    maps: Tensor,
    latent_grid: LatentGrid,
    levels: Sequence[Level],
    harmonics: CircularHarmonics,
    image_model: ImageModel,
    generator: torch.Generator,
) -> HalfSet:
    """A half-set whose noise is what `maps` leave of up to 300 of its images; as for `e_step`."""
    index = torch.randperm(len(half), generator=generator)[:_FEW].sort().values
    maps = _within(maps, levels[-1].rings)
    references = references_of(maps, latent_grid, harmonics, levels)
    seen = half.observed(index, harmonics, maps.device)
    found = posterior_of(seen, references, image_model=image_model)
    draw = torch.rand(len(index), generator=generator)
    rest = residuals(half, index, found, maps, levels[-1], draw, image_model)
    sums = _sum_by_ring(rest, found.particle, replace(image_model, junk_share=0.0))
    return half.with_residuals(*_mean_by_ring(sums))


def parameter_expanded(maps: Tensor, found: EStep, config: LikelihoodConfig) -> Tensor:
    """Basis volumes (C, D, D, D) after `EStep.expansion`; classes have populations instead."""
    if len(maps) == 1 or config.assumptions.latent_space.is_discrete:
        return maps
    return torch.einsum("kj,kzyx->jzyx", found.expansion, maps)


def signal_prior_of(
    half: HalfSet, size: int, rings: int, basis_volumes: int, config: LikelihoodConfig
) -> Tensor:
    """(C, size // 2 + 1) expected |F|² of the basis volumes before any of them is known.

    The mean's is the signal's power, measured without poses; the others' a fraction of it, less
    in the lowest shells and at high frequencies of the latent. Zero beyond the band.
    """
    signal = half.signal_prior(size)
    shell = torch.arange(len(signal))
    prior = signal[None]
    if basis_volumes > 1:
        change = _CHANGE * shell.square() / (shell.square() + _SATURATION**2)
        falling = config.assumptions.latent_space.falling(basis_volumes - 1)
        share = falling.square()[:, None] * change
        prior = signal * torch.cat((torch.ones(1, len(signal)), share))
    return torch.where(shell <= rings, prior, 0.0)


def _within(volume: Tensor, rings: int) -> Tensor:
    size = volume.shape[-1]
    inside = fourier.band_mask(size, rings + 0.5, 3, volume.device)
    return fourier.irfft(fourier.rfft(volume, 3) * inside, size, 3)
