"""Assignment: every particle's orientation, shift and latent, with their posterior uncertainty."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import roma
import torch
from torch import Tensor

from cryogan import fourier
from cryogan.data.padding import PaddedBox
from cryogan.evaluation.fsc import fourier_shell_correlation
from cryogan.objectives.likelihood.bands import (
    box_for,
    fsc_cutoff_shell,
    harmonics_for,
    limited,
    search_for,
)
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.expected_residuals import Expectation, residuals_of_groups
from cryogan.objectives.likelihood.goodness_of_fit import (
    error_of_maps,
    goodness_of_fit,
)
from cryogan.objectives.likelihood.half_set import HalfSet, PowerSplit
from cryogan.objectives.likelihood.image_model import ALIKE, ImageModel
from cryogan.objectives.likelihood.latent_grid import LatentGrid, latent_grid_of
from cryogan.objectives.likelihood.orientation_grid import orientation_grid
from cryogan.objectives.likelihood.pose_search import log_marginal_likelihood
from cryogan.objectives.likelihood.posterior import Posterior, references_of
from cryogan.objectives.likelihood.resolved_posteriors import complete, resolved_posteriors
from cryogan.objectives.likelihood.search_levels import Level, under_views
from cryogan.objectives.likelihood.view_density import UNIFORM, ViewDensity
from cryogan.particles import Particles, Pose
from cryogan.physics.imaging import rescale_volume
from cryogan.physics.noise import NoiseModel
from cryogan.physics.rotations import about_z, angle_between
from cryogan.randomness import generator_for
from cryogan.symmetry import symmetry_matrices

_CHUNK = 1024
_AT_ONCE = 32  # images that are summed up
_UNLIKELY = 12.0  # log-likelihood that a pose lacks
_NEAR = 3.0  # steps of the finest grid


@dataclass(frozen=True)
class Assignment:
    """Posteriors of n particles, summed up.

    Attributes:
        pose: mean pose of the posterior's highest peak.
        spread_deg: (n,) root mean square angle of the whole posterior to that pose, modulo the
            molecule's symmetry; no less than that of a cell of the finest grid, half its step.
        shift_spread_A: (n,) the same for shifts; no less than a cell's where they are searched.
        peak: (n,) posterior probability of that peak.
        information: (n,) what the image tells of its pose, in nats: the relative entropy of
            posterior and prior, log of the number of all poses over the effective number; no more
            than the finest grid resolves.
        log_likelihood: (n,) log of the mean likelihood over all poses and conformations, over that
            of noise alone.
        latent: (n, L) posterior probability of each point of the latent grid.
        particle: (n,) posterior probability that the image shows a particle.
        contrast: (n,) posterior mean of its contrast; 1 where there are conformations.
        fit_p_value: (n,) probability of a residual as large or larger (`goodness_of_fit`).
    """

    pose: Pose
    spread_deg: Tensor
    shift_spread_A: Tensor
    peak: Tensor
    information: Tensor
    log_likelihood: Tensor
    latent: Tensor
    particle: Tensor
    contrast: Tensor
    fit_p_value: Tensor

    def scattered(self, index: Tensor, other: "Assignment") -> "Assignment":
        """With the particles of `index` replaced by those of `other`."""

        def put(mine: Tensor, theirs: Tensor) -> Tensor:
            mine = mine.clone()
            mine[index] = theirs
            return mine

        return Assignment(
            Pose(
                put(self.pose.rotation, other.pose.rotation),
                put(self.pose.shift_A, other.pose.shift_A),
            ),
            put(self.spread_deg, other.spread_deg),
            put(self.shift_spread_A, other.shift_spread_A),
            put(self.peak, other.peak),
            put(self.information, other.information),
            put(self.log_likelihood, other.log_likelihood),
            put(self.latent, other.latent),
            put(self.particle, other.particle),
            put(self.contrast, other.contrast),
            put(self.fit_p_value, other.fit_p_value),
        )

    def displaced(self, by_A: Tensor) -> "Assignment":
        """Of images that were moved back by (n, 2) beforehand."""
        return replace(self, pose=Pose(self.pose.rotation, self.pose.shift_A + by_A))


def unassigned(n: int, latent_grid: LatentGrid) -> Assignment:
    """n particles before anything is known of them."""
    pose = Pose(torch.eye(3).repeat(n, 1, 1), torch.zeros(n, 2))
    zero = torch.zeros(n)
    prior = latent_grid.prior.repeat(n, 1)
    return Assignment(pose, zero, zero, zero, zero, zero, prior, zero, zero, zero)


def levels_of_assignment(
    rings: int, config: LikelihoodConfig, box_size: int
) -> tuple[int, list[Level]]:
    """The box, and a search that ends one level finer than a map needs."""
    size = box_for(rings, box_size)
    rings = min(rings, size // 2 - 1)
    harmonics = harmonics_for(size, rings, config, torch.device("cpu"))
    levels = search_for(harmonics, config)
    last = levels[-1]
    finer = replace(
        last, nside=2 * last.nside, rings=rings, keep=8, shift_step_px=last.shift_step_px / 2
    )
    return size, complete([*levels, finer])


def assign(
    half: HalfSet,
    basis: Tensor,
    latent_grid: LatentGrid,
    rings: int,
    config: LikelihoodConfig,
    device: torch.device,
    show: Callable[[int], None] = lambda count: None,
    image_model: ImageModel = ALIKE,
    error_map: Tensor | None = None,
    held_out: bool = True,
    views: ViewDensity = UNIFORM,
) -> Assignment:
    """Assign poses, and conformations if there are any, to all particles of a set.

    Args:
        half: the particles and what was measured on them.
        basis: (C, D, D, D) basis volumes of their field of view, in their units
            (`HalfSet.basis_scaled_to_images`).
        latent_grid: the conformations, of C basis volumes.
        rings: the band of the pose search, in Fourier pixels.
        config: mask, shifts and symmetry.
        device: where it is computed.
        show: called with the number of particles just done.
        image_model: contrast, and images without a particle.
        error_map: (D, D, D) of the power of the map's error, such as from `error_of_maps`; none by
            default.
        held_out: False if the map was made from these images.
        views: density of their viewing directions.
    """
    size, levels = levels_of_assignment(rings, config, half.particles.box_size)
    levels = under_views(levels, views)
    harmonics = harmonics_for(size, levels[-1].rings, config, device)
    pixel_size_A = half.stack(size).pixel_size_A
    maps = rescale_volume(basis.to(device), size)
    references = references_of(maps, latent_grid, harmonics, levels)
    operators = symmetry_matrices(config.assumptions.symmetry).to(device)
    map_error = None
    if error_map is not None:
        error = fourier.rfft(rescale_volume(error_map.to(device), size), 3).abs().square()
        map_error = fourier.shell_mean(error, size, 3)[1 : levels[-1].rings + 1].cpu()
    generator = generator_for(0, "poses drawn from the posteriors")
    expected = Expectation.of_levels(half, maps, levels, generator, image_model)
    result = unassigned(len(half), latent_grid)
    for part in torch.split(torch.arange(len(half)), _CHUNK):
        seen = half.observed(part, harmonics, device)
        groups = list(resolved_posteriors(seen, references, image_model))
        rest, expectation = residuals_of_groups(
            half, part, groups, maps, expected, generator, image_model
        )
        fit = goodness_of_fit(rest, expectation, map_error, held_out=held_out)
        for rows, level, posterior in groups:
            until = levels[: levels.index(level) + 1]
            for few in torch.split(torch.arange(len(rows)), _AT_ONCE):
                found = _summary(posterior[few.to(device)], until, operators, pixel_size_A)
                found = replace(found, fit_p_value=fit.p_value[rows[few]].float())
                result = result.scattered(part[rows[few]], found)
        show(len(part))
    return result


def _summary(
    posterior: Posterior,
    levels: Sequence[Level],
    operators: Tensor,
    pixel_size_A: float,
) -> Assignment:
    """Of posteriors at the last of the levels."""
    level = levels[-1]
    finest = orientation_grid(level.nside, operators.device)
    cells = posterior.cells
    likely = cells.score > cells.score.amax(dim=1, keepdim=True) - _UNLIKELY
    cells = cells.best(int(likely.sum(dim=1).max()))
    weight = torch.softmax(cells.score, dim=1)
    rotation = finest.frame[cells.direction] @ about_z(cells.psi)  # (n, K, 3, 3)
    mode = rotation[:, :1]
    # every pose in the copy (R and S R look alike) that is nearest to the best one
    copies = operators[:, None, None] @ rotation
    nearest = angle_between(copies, mode).argmin(dim=0)
    rotation = copies.movedim(0, -3).gather(
        -3, nearest[..., None, None, None].expand(*nearest.shape, 1, 3, 3)
    )[..., 0, :, :]
    near = angle_between(rotation, mode) < math.degrees(_NEAR * finest.spacing)
    close = torch.where(near, weight, 0.0)
    peak = close.sum(dim=1)
    close = close / peak[:, None]
    mean = roma.special_procrustes((close[..., None, None] * rotation).sum(dim=1))
    shift_px = (close[..., None] * cells.shift_px).sum(dim=1)
    angle = angle_between(rotation, mean[:, None])
    cell_deg = math.degrees(finest.spacing) / 2.0  # a direction ± s / √6, an angle ± s / √12
    apart = (cells.shift_px - shift_px[:, None]).square().sum(-1)
    cell_px = level.shift_step_px / math.sqrt(6.0) if level.shift_steps else 0.0  # ± step / √12
    marginal = log_marginal_likelihood(posterior.cells, levels)
    known = (
        weight * (cells.score - level.log_prior(cells.direction, cells.shift_px)).clamp_min(-1e30)
    ).sum(1)
    return Assignment(
        Pose(mean.cpu(), (shift_px * pixel_size_A).cpu()),
        (weight * angle.square()).sum(1).sqrt().clamp_min(cell_deg).cpu(),
        ((weight * apart).sum(1).sqrt().clamp_min(cell_px) * pixel_size_A).cpu(),
        peak.cpu(),
        (known - marginal).clamp_min(0.0).cpu(),
        marginal.cpu(),
        posterior.latent.cpu(),
        posterior.particle.cpu(),
        posterior.contrast.cpu(),
        torch.zeros(len(mean)),
    )


def assign_halves(
    particles: Particles,
    groups: Sequence[tuple[Tensor, Tensor]],
    average: Tensor,
    config: LikelihoodConfig,
    *,
    resolution_A: float | None = None,
    populations: Tensor | None = None,
    device: torch.device,
    noise: NoiseModel | None = None,
    show: Callable[[float], None] = lambda fraction: None,
    image_model: ImageModel = ALIKE,
    splits: Sequence[PowerSplit] = (),
    views: Sequence[ViewDensity] = (),
) -> Assignment:
    """Assign particles with the maps of the half-set that each belongs to, or with the average.

    Each particle is assigned with the map of its own half-set, so that the half-sets stay
    independent; those in neither with the average.

    Args:
        particles: the set.
        groups: of both half-sets: rows of its particles, which may be none, and basis volumes
            (C, D, D, D).
        average: (D, D, D) map of all particles.
        config: mask, shifts, symmetry.
        resolution_A: up to which poses are searched; by default that of the maps' FSC at 0.143.
        populations: (classes,) of a discrete latent; equal by default.
        device: where it is computed.
        noise: as for the likelihood.
        show: called with the fraction that is done.
        image_model: contrast, and images without a particle.
        splits: how the run divided the power of each half-set's images; of others, as the first.
        views: densities of the viewing directions of each half-set; uniform by default, and for
            others, which may be another collection.
    """
    latent_grid = latent_grid_of(config, len(groups[0][1]), populations)
    padded = PaddedBox.of(particles.box_size, config.assumptions.reach)
    inside = config.padded(padded.share)
    maps = padded.pad(torch.stack([basis for _, basis in groups]))
    width_A = padded.width_px * particles.pixel_size_A
    if resolution_A is None:
        rings = fsc_cutoff_shell(fourier_shell_correlation(maps[0, 0], maps[1, 0]))
    else:
        rings = max(5, int(width_A / resolution_A))
    rings = limited(rings, width_A, config)
    error = error_of_maps(maps[0, 0], maps[1, 0])
    work = [(rows, basis, error) for (rows, _), basis in zip(groups, maps, strict=True)]
    neither = torch.ones(len(particles), dtype=torch.bool)
    neither[torch.cat([rows for rows, _ in groups])] = False
    joined = maps.mean(0)
    joined[0] += padded.pad(average) - torch.einsum("c,czyx->zyx", latent_grid.average, joined)
    work.append((neither.nonzero()[:, 0], joined, 0.5**0.5 * error))
    known_views = [*views, UNIFORM] if views else [UNIFORM] * len(work)
    result, done = unassigned(len(particles), latent_grid), 0

    def count_up(more: int) -> None:
        nonlocal done
        done += more
        show(done / len(particles))

    for number, (rows, basis, error) in enumerate(work):
        if len(rows) == 0:
            continue
        half = HalfSet.of(particles.subset(rows), noise, padded)
        half = half.divided(splits[number % len(splits)] if splits else None)
        scaled = half.basis_scaled_to_images(basis)
        found = assign(
            half,
            scaled,
            latent_grid,
            rings,
            inside,
            device,
            count_up,
            image_model,
            error * (scaled.norm() / basis.norm().clamp_min(1e-30)),
            held_out=number == len(groups),
            views=known_views[number],
        )
        result = result.scattered(rows, found)
    return result
