"""The density of viewing directions: as a prior of poses, and estimated from images."""

import json
import math
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import healpix
import numpy as np
import pytest
import torch
from torch import Tensor

import cryogan as cg
from cryogan.cli import main
from cryogan.conformations.latent import make_latent
from cryogan.data.halves import split_halves
from cryogan.errors import InputError
from cryogan.evaluation.alignment import Alignment, apply_alignment
from cryogan.objectives.adversarial.config import AdversarialConfig, Stage
from cryogan.objectives.adversarial.loop import train
from cryogan.objectives.adversarial.objective import Adversarial
from cryogan.objectives.adversarial.views import orientations_of
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.likelihood.bands import box_for, harmonics_for, search_for
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.em import expectation_maximisation
from cryogan.objectives.likelihood.em_state import EMState
from cryogan.objectives.likelihood.em_step import e_step
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.image_model import ALIKE, FIRST, ImageModel
from cryogan.objectives.likelihood.latent_grid import SINGLE_STRUCTURE, LatentGrid
from cryogan.objectives.likelihood.objective import Likelihood
from cryogan.objectives.likelihood.orientation_grid import orientation_grid
from cryogan.objectives.likelihood.pose_search import (
    log_likelihood_by_view,
    log_marginal_likelihood,
)
from cryogan.objectives.likelihood.posterior import Posterior, posterior_of, references_of
from cryogan.objectives.likelihood.search_levels import Level, under_views
from cryogan.objectives.likelihood.view_counts import ViewCounts
from cryogan.objectives.likelihood.view_density import CELLS, NSIDE, UNIFORM, ViewDensity
from cryogan.particles import Pose
from cryogan.phantom import Symmetry, phantom_map
from cryogan.physics.distributions import (
    AngularCentralGaussian,
    Orientations,
    PoseDistribution,
    Uniform,
)
from cryogan.physics.imaging import form_images, rescale_volume
from cryogan.physics.projection import volume_spectrum
from cryogan.physics.rotations import euler_to_matrix, random_rotations
from cryogan.report.page import write_report
from cryogan.report.validation_figures import view_density_figure
from cryogan.run.contents import read_run_contents
from cryogan.run.continuation import likelihood_of
from cryogan.run.folder import open_run_folder, read_run
from cryogan.run.view_input import opened_views
from cryogan.run.views import write_view_density
from cryogan.simulation.in_memory import SimulatedSet, simulate_particles
from cryogan.simulation.microscope import random_ctf
from cryogan.symmetry import symmetry_matrices
from simulated_sets import centred_particles
from test_likelihood_pose_search import (
    GLOBAL,
    HARMONICS,
    NOISE,
    explicit,
    flat,
    in_order,
    molecule,
    noisy,
    observed,
)
from test_report import Page
from test_report_validation import half_maps, validated

BOX, PIXEL_A, RINGS = 24, 8.0, 10
CPU = torch.device("cpu")
CENTRES = orientation_grid(NSIDE, CPU).frame[:, :, 2]


def some_density(generator: torch.Generator) -> ViewDensity:
    """Of a hundredfold range."""
    weight = torch.exp(1.2 * torch.randn(CELLS, generator=generator))
    return ViewDensity(weight / weight.mean())


def divergence(true: Tensor, found: Tensor) -> float:
    """Kullback-Leibler divergence of a density (768,) from the true one."""
    return float((true * (true / found).clamp_min(1e-30).log()).mean())


# The prior


@pytest.mark.parametrize("nside", [1, 2, 4, 8, 16, 64])
def test_the_prior_has_a_mean_of_one_at_every_level(nside, generator):
    density = some_density(generator)
    every = torch.arange(12 * nside**2)
    relative = density.log_prior(every, nside).exp()
    assert float(relative.mean()) == pytest.approx(1.0, abs=1e-5)
    if nside > 1:  # a cell has the mean of its children
        parents = density.relative(torch.arange(3 * nside**2), nside // 2)
        torch.testing.assert_close(relative.view(-1, 4).mean(1), parents, rtol=1e-5, atol=1e-6)
    assert not UNIFORM.log_prior(every, nside).any()


def test_evenness_is_the_share_of_the_sphere_that_is_seen():
    assert UNIFORM.evenness == pytest.approx(1.0)
    half = torch.where(torch.arange(CELLS) < CELLS // 2, 2.0, 1e-12)
    assert ViewDensity(half).evenness == pytest.approx(0.5, rel=1e-6)


def posterior_under(
    views: ViewDensity, seen, volumes: Tensor, grid: LatentGrid, model: ImageModel
) -> tuple[Posterior, list[Level]]:
    levels = under_views([GLOBAL], views)
    references = references_of(volumes, grid, HARMONICS, levels)
    return posterior_of(seen, references, image_model=model), levels


def test_posteriors_move_as_bayes_says(generator):
    """All 672 poses of four images, formed one by one, times the prior of their directions."""
    views = some_density(generator)
    images = noisy(flat(4), generator)
    seen = observed(images, flat(4), noise=16.0)  # so that posteriors are broad
    found, levels = posterior_under(views, seen, molecule()[None], SINGLE_STRUCTURE, ALIKE)
    prior = views.relative(torch.arange(48), 2).repeat_interleave(14)
    scores = explicit(images, flat(4)).double() * (NOISE / 16.0)
    joint = scores.exp() * prior
    wanted = joint / joint.sum(dim=1, keepdim=True)
    mine = in_order(replace(found.cells, score=found.probability)).double()
    assert float((mine - wanted).abs().sum(1).max()) < 0.05
    plain = scores.exp() / scores.exp().sum(1, keepdim=True)
    assert float((plain - wanted).abs().sum(1).min()) > 0.2  # the prior matters
    marginal = log_marginal_likelihood(found.cells, levels)
    torch.testing.assert_close(marginal.double(), joint.mean(1).log(), atol=0.05, rtol=0.01)


def test_the_prior_enters_once_whatever_the_image_model(generator):
    """With a contrast to be integrated out, or two classes, it is added to scores as it is."""
    views = some_density(generator)
    seen = observed(noisy(flat(3), generator), flat(3), noise=1.0)
    classes = make_latent("discrete", 2)
    two = LatentGrid(classes.grid(2), torch.eye(2), torch.tensor([0.3, 0.7]), torch.eye(2))
    two = replace(two, coefficients=torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    two = replace(two, anchors=two.coefficients)
    pair = torch.stack((molecule(), 0.3 * molecule().flip(0)))
    for volumes, grid, model in (
        (molecule()[None], SINGLE_STRUCTURE, ImageModel(contrast_sd=0.3)),
        (pair, two, ALIKE),
    ):
        (under, _), (plain, _) = (
            posterior_under(each, seen, volumes, grid, model) for each in (views, UNIFORM)
        )
        for image in range(3):  # of conformations the most promising cells are kept, not all
            scores = {}
            for name, found in (("under", under), ("plain", plain)):
                cells = found.cells
                keys = zip(
                    cells.direction[image].tolist(),
                    cells.psi[image].tolist(),
                    cells.score[image].tolist(),
                    strict=True,
                )
                scores[name] = {key[:2]: key[2] for key in keys if key[2] > -math.inf}
            common = scores["under"].keys() & scores["plain"].keys()
            assert len(common) > 5
            for key in common:
                prior = float(views.log_prior(torch.tensor(key[0]), 2))
                difference = scores["under"][key] - scores["plain"][key]
                assert difference == pytest.approx(prior, abs=2e-3)


def test_likelihoods_by_view_are_means_over_the_angles(generator):
    views = some_density(generator)
    images = noisy(flat(4), generator)
    seen = observed(images, flat(4))
    levels = under_views([GLOBAL], views)
    references = references_of(molecule()[None], SINGLE_STRUCTURE, HARMONICS, levels)
    found = log_likelihood_by_view(seen, references.references[0], levels)
    wanted = torch.logsumexp(explicit(images, flat(4)).view(4, 48, 14), dim=2) - math.log(14)
    scale = float(wanted.abs().max())
    assert float((found - wanted).abs().max()) < 0.02 * scale


# The estimate


ONE = torch.eye(3)[None]


def certain(cell: Tensor) -> ViewCounts:
    """Images whose viewing directions are known."""
    return ViewCounts(torch.nn.functional.one_hot(cell, CELLS).float())


def cells_of(direction: Tensor) -> Tensor:
    return (direction.to(CENTRES) @ CENTRES.T).argmax(1)


def test_known_views_give_a_smooth_density_of_mean_one(generator):
    """The angular central Gaussian of 2,000 directions; evenly spread ones are uniform."""
    true = AngularCentralGaussian(3.0)
    cell = cells_of(true.sample(2000, generator)[:, :, 2])
    found = certain(cell).density(UNIFORM, ONE).weight
    assert float(found.mean()) == pytest.approx(1.0, abs=1e-5)
    assert float(found.min()) > 0.0
    wanted = 4.0 * math.pi * true.density(CENTRES.double()).float()
    assert divergence(wanted, found) < 0.05 < 0.4 < divergence(wanted, torch.ones(CELLS))
    for _ in range(5):
        even = cells_of(random_rotations(500, generator)[:, :, 2])
        assert divergence(torch.ones(CELLS), certain(even).density(UNIFORM, ONE).weight) < 0.02


def test_images_without_information_leave_views_uniform():
    nothing = ViewCounts(torch.full((300, CELLS), 1.0 / CELLS))
    torch.testing.assert_close(nothing.density(UNIFORM, ONE).weight, torch.ones(CELLS))


def test_the_density_turns_with_the_map(generator):
    """By any rotation; and by one of the symmetry's it stays what it is."""
    counts = certain(cells_of(AngularCentralGaussian(5.0).sample(1500, generator)[:, :, 2]))
    turn = euler_to_matrix(torch.tensor([[40.0, 65.0, 10.0]]))[0]
    found = counts.density(UNIFORM, ONE, turn).weight
    plain = counts.density(UNIFORM, ONE).weight
    there = plain[cells_of(CENTRES @ turn)]  # at Rᵀ u, to the nearest cell
    assert float(torch.corrcoef(torch.stack((found, there)))[0, 1]) > 0.98
    assert float(torch.corrcoef(torch.stack((found, plain)))[0, 1]) < 0.5
    for symmetry in ("C3", "D2"):
        group = symmetry_matrices(symmetry)
        mates = [counts.density(UNIFORM, group, each).weight for each in group]
        for each in mates:
            torch.testing.assert_close(each, mates[0], rtol=1e-3, atol=1e-4)
            wanted = counts.density(UNIFORM, group).weight
            assert float(wanted.std()) > 0.05


def test_an_inverted_map_is_seen_from_the_same_directions(generator):
    """Its projection is that of the map after half a turn in the plane."""
    volume = molecule()
    inverted = apply_alignment(volume, Alignment(torch.eye(3), torch.zeros(3), True, 1.0), 1.0)
    rotation = random_rotations(3, generator)
    half_turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))
    images = [
        form_images(
            volume_spectrum(each, 4.0), Pose(turned, torch.zeros(3, 2)), None,
            box_size=BOX, pixel_size_A=1.0,
        )
        for each, turned in ((volume, rotation), (inverted, rotation @ half_turn))
    ]  # fmt: skip
    torch.testing.assert_close(
        images[0], images[1], atol=0.02 * float(images[0].abs().max()), rtol=0
    )


# From images


def simulated(
    n: int, snr_dB: float, views: Orientations, symmetry: Symmetry = "C1"
) -> SimulatedSet:
    generator = torch.Generator().manual_seed(3)
    return simulate_particles(
        phantom_map(BOX, PIXEL_A, symmetry=symmetry),
        pixel_size_A=PIXEL_A,
        n=n,
        ctf=random_ctf(n, generator),
        poses=PoseDistribution(views),
        snr_dB=snr_dB,
        generator=generator,
    )


def true_density(views: Orientations, symmetry: str = "C1") -> Tensor:
    """(768,) of mean 1, as mean over equivalent directions."""
    if not isinstance(views, AngularCentralGaussian):
        return torch.ones(CELLS)
    mates = [CENTRES.double() @ each.double() for each in symmetry_matrices(symmetry)]
    found = torch.stack([views.density(each) for each in mates]).mean(0)
    return (found / found.mean()).float()


@pytest.mark.parametrize(
    ("views", "snr_dB", "symmetry", "most"),
    [
        (AngularCentralGaussian(3.0), -4.0, "C1", 0.1),
        (AngularCentralGaussian(3.0), -12.0, "C1", 0.2),
        (AngularCentralGaussian(0.3), -8.0, "D2", 0.1),
        (Uniform(), -4.0, "C1", 0.02),
        (Uniform(), -12.0, "C1", 0.05),
        (Uniform(), -8.0, "D2", 0.02),
    ],
)
def test_the_density_is_found_given_the_true_map(
    views: Orientations, snr_dB: float, symmetry: Symmetry, most: float
) -> None:
    """400 images, three iterations, each under the density of the last; uniform ones have 0.5."""
    found = simulated(400, snr_dB, views, symmetry)
    half = HalfSet.of(found.particles)
    config = LikelihoodConfig(assumptions=Assumptions(symmetry))
    size = box_for(RINGS, BOX)
    harmonics = harmonics_for(size, RINGS, config, CPU)
    truth = phantom_map(BOX, PIXEL_A, symmetry=symmetry) * half.measurement.gain
    references = references_of(
        rescale_volume(truth, size)[None],
        SINGLE_STRUCTURE,
        harmonics,
        search_for(harmonics, config),
    )
    seen = half.observed(torch.arange(400), harmonics, CPU)
    density, operators = UNIFORM, symmetry_matrices(symmetry)
    for _ in range(3):
        under = replace(references, levels=under_views(references.levels, density))
        density = ViewCounts.of(seen, under, FIRST, torch.ones(400)).density(density, operators)
    wanted = true_density(views, symmetry)
    assert float(density.weight.mean()) == pytest.approx(1.0, abs=1e-4)
    assert divergence(wanted, density.weight) < most
    assert divergence(wanted, torch.ones(CELLS)) > 0.4 or isinstance(views, Uniform)


def test_images_whose_views_are_counted_are_not_the_first_of_a_file() -> None:
    """Sets are often collections one after another: untilted, then tilted."""
    half = HalfSet.of(simulated(60, -4.0, Uniform()).particles)
    config = LikelihoodConfig()
    size = box_for(5, BOX)
    harmonics = harmonics_for(size, 5, config, CPU)
    maps = rescale_volume(phantom_map(BOX, PIXEL_A) * half.measurement.gain, size)[None]

    def counted(view_images: int) -> Tensor:
        found = e_step(
            half, torch.arange(60), maps, SINGLE_STRUCTURE, search_for(harmonics, config), 5,
            harmonics, generator=torch.Generator().manual_seed(1), view_images=view_images,
        )  # fmt: skip
        assert found.views is not None
        return found.views.images

    every, some = counted(60), counted(12)
    assert len(some) == 12
    row = torch.cdist(some, every).argmin(dim=1)
    torch.testing.assert_close(some, every[row])
    assert int((row >= 12).sum()) >= 6


@pytest.mark.slow
def test_the_densities_of_both_halves_are_in_the_frame_of_the_first() -> None:
    """From maps of other orientation and hand, which the first iteration aligns; then resumed."""
    views = AngularCentralGaussian(4.0)
    made = simulated(300, -2.0, views)
    truth = phantom_map(BOX, PIXEL_A)
    turn = euler_to_matrix(torch.tensor([[40.0, 70.0, 20.0]]))[0]
    other = apply_alignment(truth, Alignment(turn, torch.zeros(3), True, 1.0), PIXEL_A)
    halves = [HalfSet.of(made.particles.subset(rows)) for rows in split_halves(300, 0)]
    config = LikelihoodConfig(iterations=2, full_iterations=3, initial_rings=(3, 3))

    def states(begun: EMState | None) -> list[EMState]:
        steps = expectation_maximisation(
            (halves[0], halves[1]),
            config,
            seed=4,
            device=CPU,
            maps=torch.stack((truth, other))[:, None],
            state=begun,
        )
        return [step.state for step in steps if isinstance(step.state, EMState)]

    found = states(None)
    wanted = true_density(views)
    for state in found:
        for mine in state.views:
            assert divergence(wanted, mine) < 0.35 * divergence(wanted, torch.ones(CELLS))
    (again,) = states(EMState(**found[0].record()))
    for each in fields(EMState):
        one, two = getattr(found[1], each.name), getattr(again, each.name)
        assert torch.equal(one, two) if isinstance(one, Tensor) else one == two


# What others make of it


def written(folder: Path, density: ViewDensity) -> dict[str, Any]:
    return write_view_density(folder, torch.stack((density.weight, density.weight)))


def test_the_adversarial_sampler_follows_a_runs_density(tmp_path, generator):
    """Of 20,000 views, as many in each cell as its density says (χ²), anywhere in the cell."""
    density = some_density(generator)
    written(tmp_path, density)
    for name in (tmp_path, tmp_path / "view_density.csv"):
        orientations = orientations_of(AdversarialConfig(view_density=str(name)))
        direction = orientations.sample(20_000, generator)[:, :, 2].double()
        tilt, rot = direction[:, 2].clamp(-1, 1).acos(), torch.atan2(*direction[:, [1, 0]].T)
        cell = torch.from_numpy(
            healpix.ang2pix(NSIDE, tilt.numpy(), rot.numpy() % (2.0 * math.pi), nest=True)
        )
        counts = torch.bincount(cell, minlength=CELLS)
        expected = 20_000 / CELLS * density.weight
        chi2 = float(((counts - expected).square() / expected).sum())
        assert abs(chi2 - CELLS) < 5.0 * math.sqrt(2.0 * CELLS)
        assert float((20_000 / CELLS - counts).square().sum() / (20_000 / CELLS)) > 10.0 * CELLS
        apart_deg = torch.rad2deg((direction.float() * CENTRES[cell]).sum(1).clamp(-1, 1).acos())
        assert 2.0 < float(apart_deg.mean()) < 4.0


def test_what_is_no_density_is_refused(tmp_path):
    (tmp_path / "table.csv").write_text("cell,half1,half2\n0,1,1\n1,1,1\n")
    with pytest.raises(InputError, match="no density of viewing directions"):
        orientations_of(AdversarialConfig(view_density=str(tmp_path / "table.csv")))
    written(tmp_path, UNIFORM)
    config = AdversarialConfig(view_density=str(tmp_path), assumptions=Assumptions(view_sigma=2.0))
    with pytest.raises(InputError, match="not both"):
        orientations_of(config)


def finished_run(folder: Path, symmetry: str, **settings: Any) -> Path:
    """What `read_run` needs of one, without its maps."""
    config = LikelihoodConfig(assumptions=Assumptions(symmetry), **settings)
    particles = {"star": None, "count": 300, "box_size": BOX}
    open_run_folder(folder, particles, Likelihood(config), 0, "cpu", {})
    for name in ("half1.mrc", "half2.mrc", "map.mrc"):
        (folder / name).touch()
    return folder


def test_what_goes_on_from_a_run_estimates_the_density_if_the_run_did(tmp_path):
    for estimated in (False, True):
        record = read_run(finished_run(tmp_path / str(estimated), "C1", view_density=estimated))
        assert likelihood_of(record, Assumptions()).config.view_density is estimated
        changes = {"view_density": not estimated}
        assert likelihood_of(record, Assumptions(), changes).config.view_density is not estimated


def viewed(path: Path | str, symmetry: str = "C1") -> Adversarial:
    return Adversarial(AdversarialConfig(view_density=str(path), assumptions=Assumptions(symmetry)))


def test_the_density_of_a_run_is_found_from_any_folder_and_known_by_what_it_holds(
    tmp_path, monkeypatch, generator
):
    """By an absolute path; the same values under another name are the same density."""
    density, run = some_density(generator), finished_run(tmp_path / "run", "C1")
    written(run, density)
    monkeypatch.chdir(tmp_path)
    found, digest = opened_views(viewed("run"))
    assert found.config == replace(viewed("run").config, view_density=str(run.resolve()))
    shutil.copy(run / "view_density.csv", "other.csv")
    assert opened_views(viewed("other.csv"))[1] == digest
    weight = density.weight.clone()
    weight[5] *= 1.001
    before = orientations_of(found.config).weights
    written(run, ViewDensity(weight))
    assert opened_views(viewed("run"))[1] != digest
    changed = orientations_of(found.config).weights / before
    assert (changed - 1.0 > 1e-4).sum() == 1  # the file is read again
    assert opened_views(Adversarial()) == (Adversarial(), None)
    assert opened_views(Likelihood()) == (Likelihood(), None)


def test_views_are_those_of_a_run_of_the_same_symmetry(tmp_path):
    run = finished_run(tmp_path / "run", "D2")
    written(run, UNIFORM)
    assert opened_views(viewed(run, "d2"))[0].config.view_density == str(run)
    for symmetry in ("C1", "D3"):
        with pytest.raises(InputError, match=f"symmetry D2.* not with {symmetry}; give --sym D2"):
            opened_views(viewed(run, symmetry))
    auto = finished_run(tmp_path / "auto", "auto")
    written(auto, UNIFORM)
    (auto / "summary.json").write_text(json.dumps({"symmetry": {"group": "C3"}}))
    assert opened_views(viewed(auto, "C3"))[1] is not None
    with pytest.raises(InputError, match=r"symmetry C3.* not with D2"):
        opened_views(viewed(auto, "D2"))
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no run folder"):
        opened_views(viewed(tmp_path / "none"))


@pytest.mark.parametrize("symmetry", ["C3", "D7", "I"])
def test_the_views_of_a_file_must_have_the_symmetry(symmetry, tmp_path, generator):
    """One that was estimated with it has, however peaked; cells are not equivalent themselves."""
    images = torch.zeros(300, CELLS)
    images[:, torch.randint(CELLS, (3,), generator=generator)] = 1.0 / 3.0
    operators = symmetry_matrices(symmetry)
    written(tmp_path, ViewCounts(images).density(UNIFORM, operators))
    name = tmp_path / "view_density.csv"
    orientations_of(viewed(name, symmetry).config)
    written(tmp_path, ViewCounts(images).density(UNIFORM, operators[:1]))
    orientations_of(viewed(name).config)
    with pytest.raises(InputError, match=f"lack the symmetry {symmetry}: densities in equiv"):
        orientations_of(viewed(name, symmetry).config)


def test_views_of_equivalent_directions_may_differ_by_5_per_cent(tmp_path):
    """1 + a x: the twofold axes of D2 along y and z make 1 - a x of it, 2 a away at the most."""
    name = tmp_path / "view_density.csv"
    written(tmp_path, ViewDensity(1.0 + 0.024 * CENTRES[:, 0]))
    orientations_of(viewed(name, "D2").config)
    written(tmp_path, ViewDensity(1.0 + 0.027 * CENTRES[:, 0]))
    with pytest.raises(InputError, match="differ by 5 % of the mean"):
        orientations_of(viewed(name, "D2").config)


class Begun(Exception):
    """A run has opened its folder."""


def begin(particles: cg.Particles, folder: Path, views: Path | str) -> None:
    def stop(about: Any) -> None:
        raise Begun

    settings = {"view_density": str(views), "batch_size": 16, "stages": (Stage(16, 64),)}
    cg.reconstruct(
        particles,
        objective="adversarial",
        diameter_A=100.0,
        max_shift=0.0,
        settings=settings,
        folder=folder,
        device="cpu",
        started=stop,
    )


def test_a_run_is_resumed_with_the_density_that_it_began_with(tmp_path, monkeypatch, generator):
    """From another folder too; not once its file holds other views."""
    volume = phantom_map(16, 12.0)
    particles = centred_particles(volume, 12.0, 64, 0.0, generator).particles
    density = some_density(generator)
    written(tmp_path, density)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Begun):
        begin(particles, tmp_path / "run", "view_density.csv")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(Begun):
        begin(particles, tmp_path / "run", "../view_density.csv")
    written(tmp_path, ViewDensity(density.weight.flip(0)))
    with pytest.raises(InputError, match=r"what the file of viewing directions holds differs"):
        begin(particles, tmp_path / "run", "../view_density.csv")


def test_a_run_keeps_the_views_that_it_has_read(tmp_path, generator):
    """A file that is written again meanwhile changes nothing."""
    particles = centred_particles(phantom_map(20, 12.0), 12.0, 64, 0.0, generator).particles
    config = AdversarialConfig(
        stages=(Stage(16, 32), Stage(20, 32)),
        batch_size=16,
        templates=4,
        precision="float32",
        view_density=str(tmp_path),
    )
    seen = []
    density = some_density(generator)
    for changes in (False, True):
        written(tmp_path, density)
        steps = train(particles, config, seed=0, device=CPU, log_every=1)
        next(steps)
        if changes:
            written(tmp_path, ViewDensity(density.weight.flip(0)))
        *_, last = steps
        seen.append(last.state.average)
    assert torch.equal(*seen)


def test_the_report_shows_the_density(tmp_path, generator):
    """Beside the directional FSC; the figure has the density of the direction at its place."""
    maps = half_maps(4.0, generator)
    folder = validated(tmp_path / "run", maps)
    weight = 4.0 * math.pi * AngularCentralGaussian(3.0).density(CENTRES.double()).float()
    density = ViewDensity(weight / weight.mean())
    summary = json.loads((folder / "summary.json").read_text())
    summary["views"] = written(folder, density)
    (folder / "summary.json").write_text(json.dumps(summary))
    page = Page(write_report(folder))
    assert 'id="view-density"' in page.source
    assert f"as even as uniform views of {100 * density.evenness:.0f} %" in page.text
    (shown,) = view_density_figure(read_run_contents(folder).view_density).data
    middle, top = shown.z[len(shown.y) // 2], shown.z[:, len(shown.x) // 2]
    cell = int(cells_of(torch.tensor([[1.0, 0.0, 0.0]])))
    assert middle[len(shown.x) // 2] == pytest.approx(float(density.weight[cell]), abs=0.02)
    assert top[-1] == pytest.approx(float(density.weight.max()), rel=0.02)  # z, not x
    assert math.isnan(shown.z[0, 0])


def test_a_table_of_no_grid_is_refused_by_the_report(tmp_path, generator, capsys):
    folder = validated(tmp_path / "run", half_maps(4.0, generator))
    written(folder, UNIFORM)
    path = folder / "view_density.csv"
    lines = path.read_text().splitlines()
    swapped = [*lines[:-2], lines[-1], lines[-2]]
    for wrong, rows in ((lines[:-1], 767), (lines[:1], 0), (lines[:25], 24), (swapped, 768)):
        path.write_text("\n".join(wrong) + "\n")
        assert main(["report", str(folder)]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"cryogan: {path} has {rows} rows and should have one for each")
        assert said.count("\n") == 1


def test_nearly_uniform_views_are_shown_in_one_colour():
    """Without an upper end plotly stretches a density of 0.99 to 1.02 over all of its colours."""
    nearly = {"half1": np.linspace(0.99, 1.02, 768), "half2": np.linspace(0.99, 1.02, 768)}
    (shown,) = view_density_figure(nearly).data
    assert (shown.zmin, shown.zmax) == (0.0, 2.0)
    uneven = {name: np.linspace(0.1, 5.0, 768) for name in nearly}
    (shown,) = view_density_figure(uneven).data
    assert (shown.zmin, shown.zmax) == (0.0, 5.0)
