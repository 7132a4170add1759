"""Posteriors over poses and latents against images of every conformation, scored one by one."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from cryogan import fourier
from cryogan.conformations.latent import make_latent
from cryogan.errors import InputError
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.likelihood.central_slices import MapSpectrum, slices_of_level
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.em_step import EStep, parameter_expanded
from cryogan.objectives.likelihood.latent_grid import SINGLE_STRUCTURE, LatentGrid, latent_grid_of
from cryogan.objectives.likelihood.normal_equations import (
    NormalEquations,
    normal_equations,
    pairs,
    together,
    weighted_poses,
)
from cryogan.objectives.likelihood.objective import Likelihood
from cryogan.objectives.likelihood.observations import Observations, moved, observations_of
from cryogan.objectives.likelihood.orientation_grid import orientation_grid
from cryogan.objectives.likelihood.pose_search import Cells, log_marginal_likelihood, search
from cryogan.objectives.likelihood.posterior import (
    Posterior,
    References,
    SeriesSlices,
    distinct,
    posterior_of,
    references_of,
    score_over_latents,
)
from cryogan.objectives.likelihood.search_levels import Level
from cryogan.particles import ArrayStack, CTFParams, Particles, Pose
from cryogan.physics.circular_harmonics import CircularHarmonics
from cryogan.physics.ctf import ctf
from cryogan.physics.density import gaussian_density
from cryogan.physics.imaging import form_images
from cryogan.physics.projection import volume_spectrum
from cryogan.physics.rotations import random_rotations

BOX, RINGS, RADIUS_PX, PIXEL_A = 24, 8, 10.5, 6.0
CPU = torch.device("cpu")
HARMONICS = CircularHarmonics(BOX, RINGS, RADIUS_PX, CPU)
FINE = Level(nside=4, rings=RINGS, keep=48)
FEW = Level(nside=1, rings=RINGS, keep=48)  # 12 directions x 8 angles; half are kept
NOISE = 1.0


def basis_volumes(count: int) -> Tensor:
    """(C, D, D, D): blobs, and differences that are smaller the later they come."""
    centres_px = [
        [[3.0, 1.0, -2.0], [-2.5, 2.0, 1.0], [0.5, -3.5, 2.0]],
        [[4.0, -1.0, 0.0], [4.0, 2.5, 0.0], [-3.0, -3.0, -1.0]],
        [[-1.0, 4.0, 3.0], [-1.0, 1.0, 4.0], [2.0, 0.0, -4.0]],
    ]
    weights = [[90.0, 60.0, -70.0], [40.0, -40.0, 10.0], [25.0, -30.0, 10.0]]
    blobs = [
        gaussian_density(
            torch.tensor(centre), box_size=BOX, pixel_size_A=1.0, sigma_A=1.8,
            weights=torch.tensor(weight),
        )
        for centre, weight in zip(centres_px, weights, strict=True)
    ]  # fmt: skip
    return torch.stack(blobs[:count])


def latent_grid(name: str, points: int, count: int) -> LatentGrid:
    """Of unequal populations, poses searched with its mean."""
    space = make_latent(name, points)
    latent = space.grid(points)
    prior = torch.arange(1.0, len(latent) + 1.0)
    coefficients = space.coefficients(latent, count)
    return LatentGrid(latent, coefficients, prior / prior.sum(), torch.eye(count)[:1])


GRIDS = {
    "line": latent_grid("uniform", 7, 3),
    "circle": latent_grid("circle", 6, 3),
    "classes": latent_grid("discrete", 3, 3),
}


def series(maps: Tensor, coefficients: Tensor) -> Tensor:
    return torch.einsum("lc,czyx->lzyx", coefficients, maps)


def observed(n: int, generator: torch.Generator, noise: float = NOISE) -> Observations:
    """Images of the first conformation of a line, of n CTFs."""
    rotation = random_rotations(n, generator)
    (volume,) = series(basis_volumes(3), GRIDS["line"].coefficients[:1])
    params = CTFParams.constant(n, defocus_u_A=torch.linspace(8e3, 1.4e4, n))
    filters = ctf(params, BOX, PIXEL_A)
    pose = Pose(rotation, torch.zeros(n, 2))
    images = form_images(
        volume_spectrum(volume, 4.0), pose, filters, box_size=BOX, pixel_size_A=PIXEL_A
    )
    images = images + noise**0.5 * torch.randn(images.shape, generator=generator)
    return observations_of(images, filters, torch.full((BOX // 2 + 1,), noise), HARMONICS)


def some_cells(n: int, count: int, largest_px: float, generator: torch.Generator) -> Cells:
    """In no order, anywhere on the finest grid and at any shift."""
    return Cells(
        torch.randint(12 * FINE.nside**2, (n, count), generator=generator),
        2.0 * math.pi * torch.rand(n, count, generator=generator),
        largest_px * (2.0 * torch.rand(n, count, 2, generator=generator) - 1.0),
        torch.randn(n, count, generator=generator),
    )


def one_by_one(seen: Observations, cells: Cells, maps: Tensor, nside: int) -> Tensor:
    """(n, K, L) scores of maps (L, D, D, D), every pose from a slice of its own."""
    twice = torch.where(HARMONICS.order > 0, 2.0, 1.0)
    a = moved(seen.a, cells.shift_px, HARMONICS).expand(*cells.direction.shape, -1)
    b = (seen.b[:, HARMONICS.ring - 1] * twice)[:, None]
    scores = []
    for volume in maps:
        every = slices_of_level(MapSpectrum(volume, HARMONICS), HARMONICS, nside)
        plane = HARMONICS.turned(every[cells.direction], cells.psi)
        cross = (plane.conj() * a).real.sum(-1)
        scores.append(cross - 0.5 * (plane.abs().square() * b).sum(-1))
    return torch.stack(scores, dim=2)


PARTICLES = Particles(
    ArrayStack(torch.zeros(200, 16, 16)), CTFParams.constant(200, defocus_u_A=1e4), PIXEL_A
)


# Scores


@pytest.mark.parametrize("which", GRIDS)
@pytest.mark.parametrize("largest_px", [0.0, 2.0])
def test_scores_are_those_of_the_summed_maps(
    which: str, largest_px: float, generator: torch.Generator
) -> None:
    """φ·l - ½ φᵀGφ is the score of Σ φ_k V_k at any pose, with slices kept or made.

    Those made one by one are read from another grid.
    """
    grid = GRIDS[which]
    maps, seen = basis_volumes(3), observed(4, generator)
    cells = some_cells(4, 9, largest_px, generator)
    wanted = one_by_one(seen, cells, series(maps, grid.coefficients), FINE.nside)
    assert float(wanted.std(dim=2).median()) > 0.05 * float(wanted.abs().max())  # z matters
    spectra = [MapSpectrum(volume, HARMONICS) for volume in maps]
    for most_bytes, kept, close in ((2e9, True, 1e-4), (0.0, False, 0.01)):
        slices = SeriesSlices.of(spectra, FINE, most_bytes)
        assert (slices.plane is not None) == kept
        found = score_over_latents(seen, cells, slices, grid)
        scale = float(wanted.abs().max())
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=close * scale)


def test_products_of_coefficients_are_in_the_order_of_pairs() -> None:
    grid = GRIDS["circle"]
    first, second = pairs(3)
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == [
        (0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2),
    ]  # fmt: skip
    outer = grid.coefficients[:, :, None] * grid.coefficients[:, None]
    torch.testing.assert_close(grid.products, outer[:, first, second])


# Posteriors


def references(grid: LatentGrid, count: int, levels: Sequence[Level] = (FEW,)) -> References:
    return references_of(basis_volumes(count), grid, HARMONICS, levels)


def numbered(cells: Cells) -> list[set[tuple[int, int, float, float]]]:
    """The poses of every image that have a likelihood."""
    every = []
    for direction, psi, shift_px, score in zip(
        cells.direction, cells.psi, cells.shift_px, cells.score, strict=True
    ):
        real = (score > -math.inf).tolist()
        rows = zip(direction.tolist(), psi.tolist(), shift_px.tolist(), real, strict=True)
        poses = [(v, round(1e4 * p), *s) for v, p, s, there in rows if there]
        assert len(poses) == len(set(poses))
        every.append(set(poses))
    return every


@pytest.mark.parametrize("which", GRIDS)
@pytest.mark.parametrize("shift_steps", [0, 1])
def test_posteriors_are_those_of_every_pose_and_latent(
    which: str, shift_steps: int, generator: torch.Generator
) -> None:
    """Softmax of score + log prior over all that is kept, its moments, and its mean."""
    grid = GRIDS[which]
    level = replace(FEW, shift_steps=shift_steps, shift_step_px=1.5)
    seen = observed(5, generator, 30.0)  # noise that leaves many poses and latents
    found = posterior_of(seen, references(grid, 3, [level]))
    scores = one_by_one(seen, found.cells, series(basis_volumes(3), grid.coefficients), level.nside)
    real = (found.cells.score > -math.inf)[..., None]
    logs = torch.where(real, scores.double() + grid.prior.log(), -math.inf)
    wanted = torch.softmax(logs.flatten(1), dim=1).view(logs.shape)
    assert bool((wanted.amax((1, 2)) < 0.9).all())  # not a matter of one pose
    close = {"rtol": 1e-3, "atol": 1e-4}
    torch.testing.assert_close(found.latent, wanted.sum(1).float(), **close)
    torch.testing.assert_close(
        found.coefficient, (wanted @ grid.coefficients.double()).float(), **close
    )
    torch.testing.assert_close(found.product, (wanted @ grid.products.double()).float(), **close)
    torch.testing.assert_close(found.coefficient[..., 0].sum(1), torch.ones(5))
    marginal = torch.logsumexp(logs, 2).float()
    torch.testing.assert_close(found.cells.score, marginal, rtol=1e-3, atol=1e-2)
    mean = torch.logsumexp(marginal, 1) - math.log((96, 864)[shift_steps])
    torch.testing.assert_close(
        log_marginal_likelihood(found.cells, [level]), mean, rtol=1e-3, atol=1e-2
    )


def test_poses_come_from_the_searches_of_all_anchors(generator: torch.Generator) -> None:
    """Those of each anchor's map alone, none twice, no image's best left out."""
    grid = GRIDS["line"]
    grid = replace(grid, anchors=grid.coefficients[[0, 6]])
    levels = [FEW, replace(FEW, nside=2)]
    seen = observed(6, generator, 30.0)
    given = references(grid, 3, levels)
    found = posterior_of(seen, given)
    mine = numbered(found.cells)
    searches = [search(seen, each, levels) for each in given.references]
    theirs = [numbered(cells) for cells in searches]
    for image in range(6):
        assert mine[image] <= theirs[0][image] | theirs[1][image]
        for cells in searches:
            best = cells.best(1)
            top = max(float(each.score[image].max()) for each in searches)
            if float(best.score[image, 0]) >= top - 10.0:
                pose = (
                    int(best.direction[image, 0]),
                    round(1e4 * float(best.psi[image, 0])),
                    *best.shift_px[image, 0].tolist(),
                )
                assert pose in mine[image]
    assert any(first != second for first, second in zip(*theirs, strict=True))


def test_one_grid_point_is_one_structure(generator: torch.Generator) -> None:
    """C basis volumes of fixed coefficients: what their sum alone gives.

    The noise leaves several poses, but fewer than are scored in all conformations.
    """
    coefficients = torch.tensor([[1.0, 0.7, -0.4]])
    grid = LatentGrid(torch.zeros(1, 1), coefficients, torch.ones(1), coefficients)
    (volume,) = series(basis_volumes(3), coefficients)
    levels = [FEW, replace(FEW, nside=2)]
    seen = observed(20, generator, 0.5)
    found = posterior_of(seen, references(grid, 3, levels))
    alone = posterior_of(seen, references_of(volume[None], SINGLE_STRUCTURE, HARMONICS, levels))
    assert alone.coefficient.shape[-1] == alone.product.shape[-1] == alone.latent.shape[-1] == 1
    torch.testing.assert_close(found.latent, torch.ones(20, 1))
    torch.testing.assert_close(alone.latent, torch.ones(20, 1))
    kept = found.cells.best(5)
    torch.testing.assert_close(kept.score, alone.cells.best(5).score, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(
        log_marginal_likelihood(found.cells, levels),
        log_marginal_likelihood(alone.cells, levels),
        rtol=0,
        atol=0.02,
    )
    top = found.coefficient.gather(
        1, found.coefficient[..., :1].argmax(1, keepdim=True).expand(-1, -1, 3)
    )
    one = alone.coefficient.amax(1)
    assert float(one.min()) < 0.5
    torch.testing.assert_close(top[:, 0], one * coefficients, rtol=0, atol=0.02)


def test_annealed_posteriors(generator: torch.Generator) -> None:
    """At the inverse temperature at which the average image's best log-likelihood is 2."""
    grid, seen = GRIDS["line"], observed(5, generator, 4.0)
    given = references(grid, 3)
    plain, annealed = posterior_of(seen, given), posterior_of(seen, given, max_log_likelihood=2.0)
    scores = one_by_one(seen, plain.cells, series(basis_volumes(3), grid.coefficients), FEW.nside)
    real = (plain.cells.score > -math.inf)[..., None]
    scores = torch.where(real, scores, -math.inf)
    power = 2.0 / float(scores.amax((1, 2)).mean())
    assert power < 0.5
    wanted = torch.softmax((power * scores + grid.prior.log()).flatten(1), 1).view(scores.shape)
    torch.testing.assert_close(annealed.latent, wanted.sum(1), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        annealed.coefficient, wanted @ grid.coefficients, rtol=1e-3, atol=1e-3
    )
    # marginal likelihoods are not annealed
    torch.testing.assert_close(annealed.cells.score, plain.cells.score)
    never = posterior_of(seen, given, max_log_likelihood=1e9)
    assert torch.equal(never.coefficient, plain.coefficient)


def test_cells_found_twice_count_once() -> None:
    """The same direction, angle and shift: the better score stays, in its first place."""
    direction = torch.tensor([[3, 3, 5, 7]])
    psi = torch.tensor([[0.1, 0.2, 0.1, 0.1]])
    shift_px = torch.tensor([[[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [1.0, 2.0]]])
    first = Cells(direction, psi, shift_px, torch.tensor([[5.0, 4.0, 3.0, -math.inf]]))
    apart = [[1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [1.0, 2.0]]
    second = Cells(direction, psi, torch.tensor([apart]), torch.tensor([[7.0, 6.0, 1.0, 2.0]]))
    assert distinct([first]) is first
    found = distinct([first, second])
    inf = math.inf
    assert found.score.tolist() == [[5.0, 6.0, 3.0, 2.0, 7.0, -inf, -inf, -inf]]
    assert torch.equal(found.direction, torch.cat((direction, direction), 1))


# Gradient


def log_likelihood(
    seen: Observations, maps: Tensor, grid: LatentGrid, level: Level
) -> tuple[float, Posterior]:
    found = posterior_of(seen, references_of(maps, grid, HARMONICS, [level]))
    return float(log_marginal_likelihood(found.cells, [level]).double().sum()), found


def gradient(equations: NormalEquations, maps: Tensor) -> Tensor:
    """Backprojections less Σ kernel_kl * V_l."""
    padded = fourier.rfft(fourier.crop_or_pad(maps, 2 * BOX, 3), 3)
    slope = equations.backprojection.clone()
    for pair, (k, other) in enumerate(zip(*pairs(len(maps)), strict=True)):
        transfer = fourier.rfft(equations.kernel[pair], 3)
        for to, of in {(int(k), int(other)), (int(other), int(k))}:
            wide = fourier.irfft(padded[of] * transfer, 2 * BOX, 3)
            slope[to] -= fourier.crop_or_pad(wide, BOX, 3)
    return slope


def test_gradient_of_the_marginal_likelihood(generator: torch.Generator) -> None:
    """Fisher's identity: d/dV_k Σ log p = backprojection_k - Σ kernel_kl * V_l.

    Of 96 poses 32 are scored in all conformations; the noise is such that these hold the posterior.
    """
    grid = latent_grid("uniform", 5, 2)
    level = replace(FEW, keep=96)
    maps = 0.5 * basis_volumes(2)
    seen = observed(4, generator, 2.0)
    _, found = log_likelihood(seen, maps, grid, level)
    weight = found.coefficient[..., 0]
    assert weight.shape == (4, 32)
    assert bool((weight.amin(1) < 0.004).all())
    assert bool((weight.amax(1) < 0.6).all())
    poses = weighted_poses(found.cells, found.coefficient, found.product, mass=math.inf)
    slope = gradient(normal_equations(seen, poses, orientation_grid(1, CPU), HARMONICS), maps)
    inside = fourier.soft_disc(BOX, 8.0, 2.0, 3)
    rough = torch.randn(2, BOX, BOX, BOX, generator=generator) * inside
    for direction in (maps, slope * inside, rough):
        for k in range(2):
            along = torch.zeros_like(maps)
            along[k] = direction[k] / direction[k].norm() * maps[0].norm()
            step = 0.03
            ahead, behind = (log_likelihood(seen, maps + s * step * along, grid, level)[0]
                             for s in (1.0, -1.0))  # fmt: skip
            numeric = (ahead - behind) / (2.0 * step)
            wanted = float((slope * along).sum())
            scale = float(slope[k].norm() * along.norm())
            assert numeric == pytest.approx(wanted, rel=0.03, abs=0.003 * scale)


# Many images, and parameter expansion


def test_posteriors_of_several_sets_of_images(generator: torch.Generator) -> None:
    """Put into one list, they give the sum of their equations; the last set may be smaller."""
    grid, parts = GRIDS["line"], []
    given = references(grid, 3)
    seen = [observed(n, generator, 4.0) for n in (3, 3, 2)]
    for each in seen:
        found = posterior_of(each, given)
        parts.append(weighted_poses(found.cells, found.coefficient, found.product))
    whole = normal_equations(
        Observations.joined(seen), together(parts, 3), orientation_grid(1, CPU), HARMONICS
    )
    apart = [
        normal_equations(each, part, orientation_grid(1, CPU), HARMONICS)
        for each, part in zip(seen, parts, strict=True)
    ]
    total = apart[0] + apart[1] + apart[2]
    for name in ("backprojection", "kernel"):
        wanted = getattr(total, name)
        scale = float(wanted.abs().max())
        torch.testing.assert_close(getattr(whole, name), wanted, atol=1e-5 * scale, rtol=0)


def configured(**assumptions: Any) -> LikelihoodConfig:
    return LikelihoodConfig(assumptions=Assumptions(**assumptions))


def e_step_of(grid: LatentGrid, latent: Tensor) -> EStep:
    nothing = NormalEquations(torch.zeros(3, 2, 2, 2), torch.zeros(6, 4, 4, 4))
    return EStep(0.0, nothing, latent, grid)


@pytest.mark.parametrize("which", ["line", "circle"])
def test_parameter_expansion_keeps_the_moments_of_the_images(
    which: str, generator: torch.Generator
) -> None:
    """The new series has, over the prior, the mean and covariances of the old over its images."""
    grid = GRIDS[which]
    latent = torch.rand(len(grid.prior), generator=generator) ** 2
    latent = latent / latent.sum()
    found = e_step_of(grid, latent)
    expansion = found.expansion
    assert torch.equal(expansion, expansion.tril())
    torch.testing.assert_close(expansion[0], torch.eye(3)[0])
    maps = torch.randn(3, 2, 2, 2, generator=generator)
    before = series(maps, grid.coefficients).flatten(1)
    config = configured(latent="uniform", basis_volumes=2)
    after = series(parameter_expanded(maps, found, config), grid.coefficients).flatten(1)
    latent = 0.99 * latent + 0.01 * grid.prior  # as many points as make it invertible
    torch.testing.assert_close(grid.prior @ after, latent @ before, rtol=1e-3, atol=1e-4)
    now, then = (
        (volumes.T * weight) @ volumes
        for volumes, weight in ((after, grid.prior), (before, latent))
    )
    torch.testing.assert_close(now, then, rtol=1e-3, atol=1e-3)
    assert found.change == float((expansion - torch.eye(3)).abs().max()) > 0.02
    same = e_step_of(grid, grid.prior)
    torch.testing.assert_close(same.expansion, torch.eye(3), atol=1e-4, rtol=0)
    assert same.change < 1e-4


def test_classes_are_not_expanded(generator: torch.Generator) -> None:
    grid = GRIDS["classes"]
    found = e_step_of(grid, torch.tensor([0.4, 0.3, 0.3]))
    maps = torch.randn(3, 2, 2, 2, generator=generator)
    config = configured(latent="discrete", classes=3)
    assert torch.equal(parameter_expanded(maps, found, config), maps)
    assert found.change == pytest.approx(0.4 - 1 / 6)
    assert e_step_of(SINGLE_STRUCTURE, torch.ones(1)).change == 0.0


def test_parameter_expansion_of_a_posterior_at_few_grid_points(generator: torch.Generator) -> None:
    """Two states with certainty: fewer grid points than basis volumes."""
    grid = GRIDS["line"]
    latent = torch.zeros(7)
    latent[[0, 6]] = torch.tensor([0.7, 0.3])
    found = e_step_of(grid, latent)
    maps = torch.randn(3, 2, 2, 2, generator=generator)
    config = configured(latent="uniform", basis_volumes=2)
    assert bool(parameter_expanded(maps, found, config).isfinite().all())
    assert found.change < math.inf


# Settings


@pytest.mark.parametrize(
    ("assumptions", "points", "shape"),
    [
        (Assumptions(latent="uniform", basis_volumes=6), 16, (16, 7)),
        (Assumptions(latent="circle", basis_volumes=4), 11, (11, 5)),
        (Assumptions(latent="uniform2d", basis_volumes=5), 4, (16, 6)),
        (Assumptions(latent="uniform", basis_volumes=9), 16, (20, 10)),  # more than were asked for
        (Assumptions(latent="uniform2d", basis_volumes=9), 4, (25, 10)),
        (Assumptions(latent="discrete", classes=5), 16, (5, 5)),
    ],
)
def test_latent_grids_of_settings(
    assumptions: Assumptions, points: int, shape: tuple[int, int]
) -> None:
    config = LikelihoodConfig(assumptions=assumptions, latent_grid_points=points)
    grid = latent_grid_of(config, assumptions.volumes)
    assert grid.coefficients.shape == shape
    assert grid.anchors.shape[1] == shape[1]
    assert len(grid.anchors.unique(dim=0)) == len(grid.anchors)
    assert bool((grid.coefficients[:, 0] == 1).all())
    torch.testing.assert_close(grid.prior, torch.full(shape[:1], 1.0 / shape[0]))
    # all latents are even about their mean, and so are the conformations of the pose search
    for coefficients in (grid.coefficients, grid.anchors):
        slowest = coefficients.mean(0)[1 : 1 + assumptions.latent_space.slowest]
        torch.testing.assert_close(slowest, torch.zeros_like(slowest), atol=1e-5, rtol=0)
    given = torch.linspace(1.0, 2.0, shape[0])
    assert torch.equal(latent_grid_of(config, assumptions.volumes, given).prior, given)
    assert latent_grid_of(config, 1) is SINGLE_STRUCTURE


def test_one_structure_has_one_basis_volume() -> None:
    assert Assumptions().volumes == 1
    assert latent_grid_of(LikelihoodConfig(), 1) is SINGLE_STRUCTURE
    config = LikelihoodConfig(full_iterations=2, conformation_iterations=5)
    assert config.last_iterations == 2
    many = replace(config, assumptions=Assumptions(latent="uniform"))
    assert many.last_iterations == 5


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"conformation_iterations": 0}, "conformation_iterations is 0"),
        ({"conformation_batches": 0}, "conformation_batches is 0"),
        ({"conformation_batch_size": 0}, "conformation_batch_size is 0"),
        ({"latent_grid_points": 0}, "latent_grid_points is 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        LikelihoodConfig(**settings)


@pytest.mark.parametrize(
    ("assumptions", "words"),
    [
        ({"latent": "discrete", "classes": 1}, "classes is 1"),
        ({"basis_volumes": 0}, "basis_volumes is 0"),
        ({"latent": "circle", "basis_volumes": 1}, "basis_volumes is 1"),
    ],
)
def test_impossible_conformations_are_refused(assumptions: dict[str, Any], words: str) -> None:
    """Before a run begins: of what `Likelihood.check` asks."""
    with pytest.raises(InputError, match=words):
        Likelihood(configured(**({"latent": "uniform"} | assumptions))).check(PARTICLES)
