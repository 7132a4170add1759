"""Posteriors over poses and conformations against images of every conformation, one by one."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.likelihood.config import AscentConfig
from cryogan.likelihood.expectation import (
    Cells,
    Level,
    Observations,
    log_evidence,
    moved,
    observe,
    search,
)
from cryogan.likelihood.landscape import (
    SINGLE,
    Judged,
    Landscape,
    SeriesSlices,
    Sources,
    distinct,
    judge,
    score_over_latents,
    sources_of,
)
from cryogan.likelihood.maximisation import (
    NormalEquations,
    normal_equations,
    pairs,
    posterior,
    together,
)
from cryogan.likelihood.polar import Polar
from cryogan.likelihood.step import Expectation, widened
from cryogan.likelihood.views import views
from cryogan.models.conformations import Latent, LatentKind
from cryogan.particles import CTFParams, Pose
from cryogan.physics.ctf import ctf
from cryogan.physics.density import gaussian_density
from cryogan.physics.imaging import form_images
from cryogan.physics.projection import volume_spectrum
from cryogan.physics.rotations import random_rotations

BOX, RINGS, RADIUS_PX, PIXEL_A = 24, 8, 10.5, 6.0
CPU = torch.device("cpu")
POLAR = Polar(BOX, RINGS, RADIUS_PX, CPU)
FINE = Level(nside=4, rings=RINGS, keep=48)
FEW = Level(nside=1, rings=RINGS, keep=48)  # 12 directions x 8 angles; half are kept
NOISE = 1.0


def components(count: int) -> Tensor:
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


def landscape(kind: LatentKind, nodes: int, count: int) -> Landscape:
    """Of unequal populations, poses searched with its mean."""
    space = Latent(kind, nodes)
    latent = space.grid(nodes)
    prior = torch.arange(1.0, len(latent) + 1.0)
    amounts = space.amounts(latent, count)
    return Landscape(latent, amounts, prior / prior.sum(), torch.eye(count)[:1])


LANDSCAPES = {
    "line": landscape("uniform", 7, 3),
    "circle": landscape("circle", 6, 3),
    "classes": landscape("discrete", 3, 3),
}


def series(maps: Tensor, amounts: Tensor) -> Tensor:
    return torch.einsum("lc,czyx->lzyx", amounts, maps)


def observed(n: int, generator: torch.Generator, noise: float = NOISE) -> Observations:
    """Images of the first node of a line, of n CTFs."""
    rotation = random_rotations(n, generator)
    (volume,) = series(components(3), LANDSCAPES["line"].amounts[:1])
    params = CTFParams.constant(n, defocus_u_A=torch.linspace(8e3, 1.4e4, n))
    filters = ctf(params, BOX, PIXEL_A)
    pose = Pose(rotation, torch.zeros(n, 2))
    images = form_images(
        volume_spectrum(volume, 4.0), pose, filters, box_size=BOX, pixel_size_A=PIXEL_A
    )
    images = images + noise**0.5 * torch.randn(images.shape, generator=generator)
    return observe(images, filters, torch.full((BOX // 2 + 1,), noise), POLAR)


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
    frame = views(nside, CPU).frame[cells.view].view(-1, 3, 3)
    twice = torch.where(POLAR.order > 0, 2.0, 1.0)
    a = moved(seen.a, cells.shift_px, POLAR).expand(*cells.view.shape, -1)
    b = (seen.b[:, POLAR.ring - 1] * twice)[:, None]
    scores = []
    for volume in maps:
        plane = POLAR.slices(volume_spectrum(volume, 2.0), frame).view(*cells.view.shape, -1)
        plane = POLAR.turned(plane, cells.psi)
        cross = (plane.conj() * a).real.sum(-1)
        scores.append(cross - 0.5 * (plane.abs().square() * b).sum(-1))
    return torch.stack(scores, dim=2)


# Scores


@pytest.mark.parametrize("which", LANDSCAPES)
@pytest.mark.parametrize("largest_px", [0.0, 2.0])
def test_scores_are_those_of_the_summed_maps(
    which: str, largest_px: float, generator: torch.Generator
) -> None:
    """φ·l - ½ φᵀGφ is the score of Σ φ_k V_k at any pose, with slices kept or made."""
    land = LANDSCAPES[which]
    maps, seen = components(3), observed(4, generator)
    cells = some_cells(4, 9, largest_px, generator)
    wanted = one_by_one(seen, cells, series(maps, land.amounts), FINE.nside)
    assert float(wanted.std(dim=2).median()) > 0.05 * float(wanted.abs().max())  # z matters
    spectra = volume_spectrum(maps, 2.0)
    for most_bytes, kept in ((2e9, True), (0.0, False)):
        slices = SeriesSlices.of(spectra, POLAR, FINE, most_bytes)
        assert (slices.plane is not None) == kept
        found = score_over_latents(seen, cells, slices, land)
        scale = float(wanted.abs().max())
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * scale)


def test_products_of_amounts_are_in_the_order_of_pairs() -> None:
    land = LANDSCAPES["circle"]
    first, second = pairs(3)
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == [
        (0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2),
    ]  # fmt: skip
    outer = land.amounts[:, :, None] * land.amounts[:, None]
    torch.testing.assert_close(land.products, outer[:, first, second])


# Posteriors


def sources(land: Landscape, count: int, levels: Sequence[Level] = (FEW,)) -> Sources:
    return sources_of(components(count), land, POLAR, levels)


def numbered(cells: Cells) -> list[set[tuple[int, int, float, float]]]:
    """The poses of every image that have a likelihood."""
    every = []
    for view, psi, shift_px, score in zip(
        cells.view, cells.psi, cells.shift_px, cells.score, strict=True
    ):
        real = (score > -math.inf).tolist()
        rows = zip(view.tolist(), psi.tolist(), shift_px.tolist(), real, strict=True)
        poses = [(v, round(1e4 * p), *s) for v, p, s, there in rows if there]
        assert len(poses) == len(set(poses))
        every.append(set(poses))
    return every


@pytest.mark.parametrize("which", LANDSCAPES)
@pytest.mark.parametrize("shift_steps", [0, 1])
def test_posteriors_are_those_of_every_pose_and_node(
    which: str, shift_steps: int, generator: torch.Generator
) -> None:
    """Softmax of score + log prior over all that is kept, its moments, and its mean."""
    land = LANDSCAPES[which]
    level = replace(FEW, shift_steps=shift_steps, shift_step_px=1.5)
    seen = observed(5, generator, 30.0)  # noise that leaves many poses and nodes
    found = judge(seen, sources(land, 3, [level]))
    scores = one_by_one(seen, found.cells, series(components(3), land.amounts), level.nside)
    real = (found.cells.score > -math.inf)[..., None]
    logs = torch.where(real, scores.double() + land.prior.log(), -math.inf)
    wanted = torch.softmax(logs.flatten(1), dim=1).view(logs.shape)
    assert bool((wanted.amax((1, 2)) < 0.9).all())  # not a matter of one pose
    close = {"rtol": 1e-3, "atol": 1e-4}
    torch.testing.assert_close(found.node, wanted.sum(1).float(), **close)
    torch.testing.assert_close(found.amount, (wanted @ land.amounts.double()).float(), **close)
    torch.testing.assert_close(found.product, (wanted @ land.products.double()).float(), **close)
    torch.testing.assert_close(found.amount[..., 0].sum(1), torch.ones(5))
    marginal = torch.logsumexp(logs, 2).float()
    torch.testing.assert_close(found.cells.score, marginal, rtol=1e-3, atol=1e-2)
    mean = torch.logsumexp(marginal, 1) - math.log((96, 864)[shift_steps])
    torch.testing.assert_close(log_evidence(found.cells, [level]), mean, rtol=1e-3, atol=1e-2)


def test_poses_come_from_the_searches_of_all_anchors(generator: torch.Generator) -> None:
    """Those of each anchor's map alone, none twice, no image's best left out."""
    land = LANDSCAPES["line"]
    land = replace(land, anchors=land.amounts[[0, 6]])
    levels = [FEW, replace(FEW, nside=2)]
    seen = observed(6, generator, 30.0)
    given = sources(land, 3, levels)
    found = judge(seen, given)
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
                    int(best.view[image, 0]),
                    round(1e4 * float(best.psi[image, 0])),
                    *best.shift_px[image, 0].tolist(),
                )
                assert pose in mine[image]
    assert any(first != second for first, second in zip(*theirs, strict=True))


def test_one_node_is_one_structure(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C components of fixed amounts: what their sum alone gives."""
    monkeypatch.setattr("cryogan.likelihood.landscape._MOST", 1000)
    amounts = torch.tensor([[1.0, 0.7, -0.4]])
    land = Landscape(torch.zeros(1, 1), amounts, torch.ones(1), amounts)
    (volume,) = series(components(3), amounts)
    levels = [FEW, replace(FEW, nside=2)]
    seen = observed(20, generator, 10.0)
    found = judge(seen, sources(land, 3, levels))
    alone = judge(seen, sources_of(volume[None], SINGLE, POLAR, levels))
    assert alone.amount.shape[-1] == alone.product.shape[-1] == alone.node.shape[-1] == 1
    torch.testing.assert_close(found.node, torch.ones(20, 1))
    torch.testing.assert_close(alone.node, torch.ones(20, 1))
    kept = found.cells.best(5)
    torch.testing.assert_close(kept.score, alone.cells.best(5).score, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(
        log_evidence(found.cells, levels), log_evidence(alone.cells, levels), rtol=0, atol=0.02
    )
    top = found.amount.gather(1, found.amount[..., :1].argmax(1, keepdim=True).expand(-1, -1, 3))
    one = alone.amount.amax(1)
    torch.testing.assert_close(top[:, 0], one * amounts, rtol=0, atol=0.02)


def test_softened_posteriors(generator: torch.Generator) -> None:
    """Raised to the power at which the average image's best pose explains that much."""
    land, seen = LANDSCAPES["line"], observed(5, generator, 4.0)
    given = sources(land, 3)
    plain, soft = judge(seen, given), judge(seen, given, nats=2.0)
    scores = one_by_one(seen, plain.cells, series(components(3), land.amounts), FEW.nside)
    real = (plain.cells.score > -math.inf)[..., None]
    scores = torch.where(real, scores, -math.inf)
    power = 2.0 / float(scores.amax((1, 2)).mean())
    assert power < 0.5
    wanted = torch.softmax((power * scores + land.prior.log()).flatten(1), 1).view(scores.shape)
    torch.testing.assert_close(soft.node, wanted.sum(1), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(soft.amount, wanted @ land.amounts, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(soft.cells.score, plain.cells.score)  # evidence is not softened
    never = judge(seen, given, nats=1e9)
    assert torch.equal(never.amount, plain.amount)


def test_cells_found_twice_count_once() -> None:
    """The same direction, angle and shift: the better score stays, in its first place."""
    view = torch.tensor([[3, 3, 5, 7]])
    psi = torch.tensor([[0.1, 0.2, 0.1, 0.1]])
    shift_px = torch.tensor([[[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [1.0, 2.0]]])
    first = Cells(view, psi, shift_px, torch.tensor([[5.0, 4.0, 3.0, -math.inf]]))
    apart = [[1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [1.0, 2.0]]
    second = Cells(view, psi, torch.tensor([apart]), torch.tensor([[7.0, 6.0, 1.0, 2.0]]))
    assert distinct([first]) is first
    found = distinct([first, second])
    inf = math.inf
    assert found.score.tolist() == [[5.0, 6.0, 3.0, 2.0, 7.0, -inf, -inf, -inf]]
    assert torch.equal(found.view, torch.cat((view, view), 1))


# Derivative


def evidence(
    seen: Observations, maps: Tensor, land: Landscape, level: Level
) -> tuple[float, Judged]:
    found = judge(seen, sources_of(maps, land, POLAR, [level]))
    return float(log_evidence(found.cells, [level]).double().sum()), found


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


def test_derivative_of_the_evidence(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fisher's identity: d/dV_k Σ log p = backprojection_k - Σ kernel_kl * V_l.

    All 96 poses are judged in all nodes.
    """
    monkeypatch.setattr("cryogan.likelihood.landscape._MOST", 96)
    monkeypatch.setattr(Cells, "promising", lambda cells, keep: cells.best(keep))
    land = landscape("uniform", 5, 2)
    level = replace(FEW, keep=96)
    maps = 0.5 * components(2)
    seen = observed(4, generator, 4.0)
    _, found = evidence(seen, maps, land, level)
    assert found.cells.score.shape == (4, 96)
    poses = posterior(found.cells, found.amount, found.product, least=0.0)
    slope = gradient(normal_equations(seen, poses, views(1, CPU), POLAR), maps)
    inside = fourier.soft_disc(BOX, 8.0, 2.0, 3)
    rough = torch.randn(2, BOX, BOX, BOX, generator=generator) * inside
    for direction in (maps, slope * inside, rough):
        for k in range(2):
            along = torch.zeros_like(maps)
            along[k] = direction[k] / direction[k].norm() * maps[0].norm()
            step = 0.03
            ahead, behind = (evidence(seen, maps + s * step * along, land, level)[0]
                             for s in (1.0, -1.0))  # fmt: skip
            numeric = (ahead - behind) / (2.0 * step)
            wanted = float((slope * along).sum())
            scale = float(slope[k].norm() * along.norm())
            assert numeric == pytest.approx(wanted, rel=0.03, abs=0.003 * scale)


# Many images


def test_posteriors_of_several_sets_of_images(generator: torch.Generator) -> None:
    """Put into one list, they give the sum of their equations; the last set may be smaller."""
    land, parts = LANDSCAPES["line"], []
    given = sources(land, 3)
    seen = [observed(n, generator, 4.0) for n in (3, 3, 2)]
    for each in seen:
        found = judge(each, given)
        parts.append(posterior(found.cells, found.amount, found.product))
    whole = normal_equations(Observations.joined(seen), together(parts, 3), views(1, CPU), POLAR)
    apart = [
        normal_equations(each, part, views(1, CPU), POLAR)
        for each, part in zip(seen, parts, strict=True)
    ]
    total = apart[0] + apart[1] + apart[2]
    for name in ("backprojection", "kernel"):
        wanted = getattr(total, name)
        scale = float(wanted.abs().max())
        torch.testing.assert_close(getattr(whole, name), wanted, atol=1e-5 * scale, rtol=0)


def expectation(land: Landscape, node: Tensor) -> Expectation:
    nothing = NormalEquations(torch.zeros(3, 2, 2, 2), torch.zeros(6, 4, 4, 4))
    return Expectation(0.0, nothing, node, land)


@pytest.mark.parametrize("which", ["line", "circle"])
def test_a_series_that_is_too_short_is_widened(which: str, generator: torch.Generator) -> None:
    """The new series has, over the prior, the mean and covariances of the old over its images."""
    land = LANDSCAPES[which]
    node = torch.rand(len(land.prior), generator=generator) ** 2
    node = node / node.sum()
    found = expectation(land, node)
    turn = found.widening
    assert torch.equal(turn, turn.tril())
    torch.testing.assert_close(turn[0], torch.eye(3)[0])
    maps = torch.randn(3, 2, 2, 2, generator=generator)
    before = series(maps, land.amounts).flatten(1)
    config = AscentConfig(generator="subspace", basis=2)
    after = series(widened(maps, found, config), land.amounts).flatten(1)
    node = 0.99 * node + 0.01 * land.prior  # as many nodes as it takes to be invertible
    torch.testing.assert_close(land.prior @ after, node @ before, rtol=1e-3, atol=1e-4)
    now, then = (
        (volumes.T * weight) @ volumes for volumes, weight in ((after, land.prior), (before, node))
    )
    torch.testing.assert_close(now, then, rtol=1e-3, atol=1e-3)
    assert found.change == float((turn - torch.eye(3)).abs().max()) > 0.02
    same = expectation(land, land.prior)
    torch.testing.assert_close(same.widening, torch.eye(3), atol=1e-4, rtol=0)
    assert same.change < 1e-4


def test_classes_are_not_widened(generator: torch.Generator) -> None:
    land = LANDSCAPES["classes"]
    found = expectation(land, torch.tensor([0.4, 0.3, 0.3]))
    maps = torch.randn(3, 2, 2, 2, generator=generator)
    config = AscentConfig(generator="subspace", latent="discrete", classes=3)
    assert torch.equal(widened(maps, found, config), maps)
    assert found.change == pytest.approx(0.4 - 1 / 6)
    assert expectation(SINGLE, torch.ones(1)).change == 0.0


def test_images_that_crowd_at_few_nodes(generator: torch.Generator) -> None:
    """Two states in all images, and no doubt: fewer nodes than components."""
    land = LANDSCAPES["line"]
    node = torch.zeros(7)
    node[[0, 6]] = torch.tensor([0.7, 0.3])
    found = expectation(land, node)
    maps = torch.randn(3, 2, 2, 2, generator=generator)
    config = AscentConfig(generator="subspace", basis=2)
    assert bool(widened(maps, found, config).isfinite().all())
    assert found.change < math.inf


# Settings


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (AscentConfig(generator="subspace", basis=6), (16, 7)),
        (AscentConfig(generator="subspace", latent="circle", basis=4, nodes=11), (11, 5)),
        (AscentConfig(generator="subspace", latent="uniform2d", basis=5, nodes=4), (16, 6)),
        (AscentConfig(generator="subspace", latent="discrete", classes=5), (5, 5)),
    ],
)
def test_landscapes_of_settings(config: AscentConfig, shape: tuple[int, int]) -> None:
    land = config.landscape(config.components)
    assert land.amounts.shape == shape
    assert land.anchors.shape[1] == shape[1]
    assert len(land.anchors.unique(dim=0)) == len(land.anchors)
    assert bool((land.amounts[:, 0] == 1).all())
    torch.testing.assert_close(land.prior, torch.full(shape[:1], 1.0 / shape[0]))
    # all kinds are even about their mean, and so are the conformations that poses are found with
    for amounts in (land.amounts, land.anchors):
        slowest = amounts.mean(0)[1 : 1 + config.space.slowest]
        torch.testing.assert_close(slowest, torch.zeros_like(slowest), atol=1e-5, rtol=0)
    given = torch.linspace(1.0, 2.0, shape[0])
    assert torch.equal(config.landscape(config.components, given).prior, given)
    assert config.landscape(1) is SINGLE


def test_one_structure_has_one_component() -> None:
    assert AscentConfig().components == 1
    assert AscentConfig().landscape(1) is SINGLE
    config = AscentConfig(full_passes=2, conformation_passes=5)
    assert config.last_passes == 2
    assert replace(config, generator="subspace").last_passes == 5


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"conformation_passes": 0}, "conformation_passes is 0"),
        ({"wake_steps": 0}, "wake_steps is 0"),
        ({"wake_images": 0}, "wake_images is 0"),
        ({"latent": "discrete", "classes": 1}, "classes is 1"),
        ({"basis": 0}, "basis is 0"),
        ({"latent": "circle", "basis": 1}, "basis is 1"),
        ({"basis": 4, "nodes": 9}, "nodes is 9, too few for 5 volumes"),
        ({"nodes": 0}, "nodes is 0"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        AscentConfig(generator="subspace", **settings)
