"""What is assumed of the sample: ranges, users' units, and where each assumption comes from."""

import json
import math
import shutil
from dataclasses import asdict

import pytest
import torch

import cryogan as cg
from cryogan import fourier
from cryogan.cli.options import add_assumptions, assumptions_of
from cryogan.cli.parser import CommandParser
from cryogan.data.images import cropped
from cryogan.errors import InputError
from cryogan.io.mrc import write_map, write_stack
from cryogan.objectives.adversarial.config import AdversarialConfig, Stage
from cryogan.objectives.adversarial.objective import Adversarial
from cryogan.objectives.assumptions import Assumptions, GivenAssumptions, percent_of_box
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.objective import Likelihood
from cryogan.objectives.masks import volume_mask
from cryogan.particles import ArrayStack, CTFParams, Particles
from cryogan.run.checkpoint import RESULT, load_arrays
from cryogan.run.halves import make_jobs
from cryogan.run.worker import optimise
from cryogan.simulation.in_memory import write_dataset
from simulated_sets import centred_particles

pytestmark = pytest.mark.slow

WIDTH_A = 240.0
# Assumptions that a largest shift decides.
SHIFTS = {"max_shift_percent", "shift_sd_percent", "centred"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"symmetry": "D0"}, "D0"),
        ({"mask_radius": 0.0}, "mask_radius is 0; give a fraction"),
        ({"mask_radius": 2.1}, "mask_radius is 2.1"),
        ({"mask_edge": -0.1}, "mask_edge is -0.1"),
        ({"max_shift_percent": 60.0}, "largest shift is 60 % of the box"),
        ({"max_shift_percent": math.nan}, "largest shift is nan %"),
        ({"view_sigma": 0.0}, "view_sigma is 0; give a positive number"),
        ({"view_sigma": math.inf}, "view_sigma is inf"),
        ({"latent": "line"}, "latent 'line' is unknown"),
        ({"latent": "discrete", "classes": 1}, "classes is 1; give at least 2"),
        (
            {"latent": "discrete", "basis_volumes": 3},
            "basis_volumes is 3, but the volumes beside the mean of 2 classes are 1",
        ),
        ({"latent": "uniform", "basis_volumes": 0}, "basis_volumes is 0; give at least 1"),
        ({"latent": "uniform", "classes": 3}, "classes is 3, but the latent is not discrete"),
        ({"classes": 3}, "classes is 3, but the latent is not discrete"),
    ],
)
def test_wrong_assumptions_are_named(change, sentence):
    """In one sentence."""
    with pytest.raises(InputError, match=sentence) as caught:
        Assumptions(**change)
    assert str(caught.value).endswith(".")
    assert ". " not in str(caught.value)


@pytest.mark.parametrize("latent", ["uniform2d", "circle"])
def test_a_latent_needs_a_basis_volume_for_each_of_its_slowest_functions(latent):
    few = Assumptions(latent=latent, basis_volumes=1)
    with pytest.raises(InputError, match=f"basis_volumes is 1, and a latent '{latent}' needs at"):
        assert few.latent_space
    assert Assumptions(latent=latent, basis_volumes=2).latent_space.slowest == 2


def test_extreme_assumptions_that_fit_are_taken():
    Assumptions(mask_radius=2.0, mask_edge=0.0, max_shift_percent=50.0)
    Assumptions(mask_edge=1.0, view_sigma=100.0, latent="discrete", classes=50)


@pytest.mark.parametrize(
    ("assumptions", "volumes"),
    [
        (Assumptions(), 1),
        (Assumptions(latent="uniform"), 5),
        (Assumptions(latent="circle", basis_volumes=2), 3),
        (Assumptions(latent="discrete", classes=3), 3),
    ],
)
def test_volumes_are_the_mean_and_the_basis(assumptions, volumes):
    assert assumptions.volumes == volumes


# Users' units


def test_shifts_are_given_in_angstroms_or_percent():
    assert percent_of_box(12, WIDTH_A) == percent_of_box("12", WIDTH_A) == 5.0
    assert percent_of_box("5%", WIDTH_A) == percent_of_box("5 %", 1.0) == 5.0
    for wrong in ("five", "", "%", "nan"):
        with pytest.raises(InputError, match="12"):
            percent_of_box(wrong, WIDTH_A)


def test_a_diameter_is_that_of_the_mask_before_its_edge():
    found, sources = GivenAssumptions(diameter_A=120.0, max_shift="3%").resolve(WIDTH_A)
    assert found == Assumptions(mask_radius=0.5, max_shift_percent=3.0)
    given = {name for name, source in sources.items() if source == "given"}
    assert given == {"mask_radius", "mask_file"} | SHIFTS
    mask = volume_mask(found, 48, WIDTH_A / 48)
    radius_A = fourier.radius_grid(48, 3) * WIDTH_A / 48
    assert bool((mask[radius_A <= 60.0] == 1).all())
    assert bool((mask[radius_A > 60.0] < 1).all())
    assert bool((mask[radius_A >= 60.0 + 0.15 * 120.0] == 0).all())


@pytest.mark.parametrize("diameter_A", [0.0, -3.0, math.nan, math.inf])
def test_a_diameter_that_is_no_length_is_refused(diameter_A):
    with pytest.raises(InputError, match="--diameter is"):
        GivenAssumptions(diameter_A=diameter_A).resolve(WIDTH_A)


def test_a_mask_file_is_used_as_it_is_and_its_ball_is_noted(tmp_path):
    """Resampled to the box asked for; the ball is the smallest about the origin that holds it."""
    path = str(tmp_path / "mask.mrc")
    mask = fourier.soft_disc(32, 8.0, 3.0, 3)
    mask[:, :, :10] = 0.0
    write_map(path, mask, 5.0)
    found, _ = GivenAssumptions(mask_file=path).resolve(32 * 5.0)
    assert (found.mask_file, found.mask_edge) == (path, 0.0)
    assert found.mask_radius == pytest.approx(10.5 / 16, abs=0.05)
    torch.testing.assert_close(volume_mask(found, 32, 5.0), mask, atol=1e-5, rtol=0)
    finer = volume_mask(found, 64, 2.5)
    torch.testing.assert_close(finer[::2, ::2, ::2], mask, atol=0.1, rtol=0)
    with pytest.raises(InputError, match="--diameter or --mask, not both"):
        GivenAssumptions(mask_file=path, diameter_A=80.0).resolve(WIDTH_A)
    path = str(tmp_path / "map.mrc")
    write_map(path, 3.0 * mask, 5.0)
    with pytest.raises(InputError, match="a mask is from 0 to 1"):
        GivenAssumptions(mask_file=path).resolve(32 * 5.0)


# What is not given


def test_what_is_not_given_is_that_of_the_run():
    run = asdict(Assumptions("D2", mask_radius=0.6, max_shift_percent=4.0, latent="uniform"))
    found, sources = GivenAssumptions().resolve(WIDTH_A, run, "the run x")
    assert asdict(found) == run
    assert set(sources.values()) == {"the run x"}
    found, sources = GivenAssumptions(symmetry="C1").resolve(WIDTH_A, run, "the run x")
    assert asdict(found) == run | {"symmetry": "C1"}
    assert sources.pop("symmetry") == "given"
    assert set(sources.values()) == {"the run x"}
    found, sources = GivenAssumptions(latent="none").resolve(WIDTH_A, run, "the run x")
    assert asdict(found) == run | {"latent": None}


def test_numbers_of_classes_and_basis_volumes_go_with_their_latent():
    run = asdict(Assumptions(latent="discrete", classes=5))
    found, _ = GivenAssumptions(latent="uniform").resolve(WIDTH_A, run)
    assert found == Assumptions(latent="uniform")
    found, _ = GivenAssumptions(classes=3).resolve(WIDTH_A, run)
    assert found == Assumptions(latent="discrete", classes=3)


def test_without_anything_given_or_inherited_defaults_hold():
    found, sources = GivenAssumptions().resolve(WIDTH_A)
    assert found == Assumptions()
    assert set(sources.values()) == {"default"}


@pytest.mark.parametrize(
    ("given", "resolved"),
    [
        ([], {}),
        (["--sym", "D2"], {"symmetry": "D2"}),
        (["--sym", "C1"], {"symmetry": "C1"}),
        (["--diameter", "90"], {"diameter_A": 90.0}),
        (["--max-shift", "5%", "--mask-edge", "0.2"], {"max_shift": "5%", "mask_edge": 0.2}),
        (["--max-shift", "12"], {"max_shift": "12"}),
        (["--latent", "discrete", "--classes", "3"], {"latent": "discrete", "classes": 3}),
        (["--model", "heterogeneous"], {"latent": "uniform"}),
        (["--model", "heterogeneous", "--latent", "circle"], {"latent": "circle"}),
        (["--model", "homogeneous"], {"latent": "none"}),
    ],
)
def test_an_option_that_is_not_given_is_not_there(given, resolved):
    """So that it can be inherited: it is not "equal to the default"."""
    parser = CommandParser("refine", "")
    add_assumptions(parser, "that of the run")
    assert assumptions_of(parser.given(given), inherits=True) == resolved


def test_a_diameter_takes_the_place_of_a_runs_mask():
    """With the usual edge, since the mask had its own."""
    run = asdict(Assumptions(mask_radius=0.9, mask_edge=0.0, mask_file="/run/mask.mrc"))
    found, sources = GivenAssumptions(diameter_A=120.0).resolve(WIDTH_A, run, "the run x")
    assert found == Assumptions(mask_radius=0.5)
    assert sources["mask_edge"] == "default"
    assert sources["mask_file"] == sources["mask_radius"] == "given"
    found, _ = GivenAssumptions(diameter_A=120.0, mask_edge=0.3).resolve(WIDTH_A, run)
    assert found == Assumptions(mask_radius=0.5, mask_edge=0.3)
    with pytest.raises(InputError, match="mask has its own edge"):
        GivenAssumptions(mask_edge=0.3).resolve(WIDTH_A, run)
    with pytest.raises(InputError, match="--mask-edge or --mask, not both"):
        GivenAssumptions(mask_edge=0.3, mask_file="mask.mrc")


# Runs


COUNT, BOX, PIXEL_SIZE_A = 240, 16, 15.0  # 240 Å wide
TASKS = {
    "adversarial": AdversarialConfig(stages=(Stage(BOX, 64),), batch_size=8, templates=4),
    "likelihood": LikelihoodConfig(
        initial_rings=(5, 5),
        initial_batches=2,
        initial_batch_size=60,
        initialisations=1,
        initial_attempts=1,
        iterations=1,
    ),
}


class Started(Exception):
    """Raised when a run has been checked and its folder opened: before any long work."""


def stop(about):
    raise Started


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    generator = torch.Generator().manual_seed(7)
    volume = cg.phantom_map(BOX, PIXEL_SIZE_A)
    write_dataset(folder, centred_particles(volume, PIXEL_SIZE_A, COUNT, 0.0, generator), volume)
    return folder


@pytest.fixture(scope="module")
def particles(dataset):
    return cg.read_particles(dataset / "particles.star")


def begun(particles, folder, **options):
    """What `config.json` says of a run that was checked and not begun."""
    with pytest.raises(Started):
        cg.reconstruct(particles, folder=folder, device="cpu", started=stop, **options)
    return json.loads((folder / "config.json").read_text())


def finished(run, dataset):
    """A run that was begun, with maps as if it had ended."""
    for name in ("half1", "half2", "map"):
        shutil.copy(dataset / "truth" / "map.mrc", run / f"{name}.mrc")
    return run


def refined(run, folder, **options):
    """What `config.json` says of the refinement of a run."""
    with pytest.raises(Started):
        cg.refine(run, folder=folder, device="cpu", started=stop, **options)
    return json.loads((folder / "config.json").read_text())


def test_a_run_folder_says_what_was_assumed_and_why(particles, tmp_path):
    about = begun(
        particles,
        tmp_path / "run",
        objective="likelihood",
        symmetry="d2",
        diameter_A=96.0,
        max_shift="5%",
    )
    assumed, sources = about["config"]["assumptions"], about["sources"]
    assert assumed["mask_radius"] == pytest.approx(96.0 / 240.0)
    assert assumed["max_shift_percent"] == 5.0
    assert assumed["mask_edge"] == 0.15
    given = {"symmetry", "mask_radius", "mask_file"} | SHIFTS
    assert {name for name, source in sources.items() if source == "given"} == given
    assert {sources[name] for name in sources.keys() - given} == {"default"}
    assert sources.keys() == assumed.keys()


def test_without_an_objective_it_is_the_likelihood_or_that_of_the_run(particles, tmp_path):
    """A run that is in the folder goes on as what it was."""
    assert begun(particles, tmp_path / "new")["objective"] == "likelihood"
    options = {"settings": {"batch_size": 8}, "view_sigma": 2.0}
    begun(particles, tmp_path / "old", objective="adversarial", **options)
    about = begun(particles, tmp_path / "old", **options)
    assert about["objective"] == "adversarial"
    assert about["config"]["batch_size"] == 8
    with pytest.raises(InputError, match="the objective differs"):
        cg.reconstruct(particles, objective="likelihood", folder=tmp_path / "old", device="cpu")


def test_a_refinement_takes_the_rest_from_the_run(particles, dataset, tmp_path):
    """And C1 that is given is not "nothing given", though it is the default."""
    options = {"symmetry": "D2", "max_shift": 12.0, "diameter_A": 120.0}
    settings = {"batch_size": 8}
    begun(particles, tmp_path / "run", objective="adversarial", settings=settings, **options)
    run = finished(tmp_path / "run", dataset)
    about = refined(run, tmp_path / "same")
    assert about["objective"] == "likelihood"
    assumed = about["config"]["assumptions"]
    assert (assumed["symmetry"], assumed["max_shift_percent"]) == ("D2", 5.0)
    assert assumed["mask_radius"] == 0.5
    assert set(about["sources"].values()) == {f"the run {run}"}
    about = refined(run, tmp_path / "other", symmetry="C1", max_shift=24.0)
    assumed = about["config"]["assumptions"]
    assert (assumed["symmetry"], assumed["max_shift_percent"]) == ("C1", 10.0)
    changed = {name for name, source in about["sources"].items() if source == "given"}
    assert changed == {"symmetry"} | SHIFTS


def test_an_assignment_takes_the_rest_from_the_run(particles, dataset, tmp_path):
    begun(particles, tmp_path / "run", objective="likelihood", symmetry="D2")
    run = finished(tmp_path / "run", dataset)
    assert cg.assign(particles, run, device="cpu").symmetry == "D2"
    moved = cg.assign(particles, run, symmetry="C1", max_shift=15.0, device="cpu")
    assert moved.symmetry == "C1"
    assert 0 < float(moved.pose.shift_A.abs().max()) < 15.0 + PIXEL_SIZE_A


def test_a_latent_of_another_kind_than_the_runs_is_refused(particles, dataset, tmp_path):
    begun(particles, tmp_path / "run", objective="likelihood", latent="uniform")
    run = finished(tmp_path / "run", dataset)
    with pytest.raises(InputError, match="latent 'uniform', not 'circle'"):
        cg.refine(run, latent="circle", folder=tmp_path / "out")
    about = refined(run, tmp_path / "one", latent="none")
    assert about["config"]["assumptions"]["latent"] is None
    assert not (tmp_path / "out").exists()


# The mask


@pytest.fixture(scope="module")
def half_ball(tmp_path_factory):
    """A mask of one side only, and the side where it is zero."""
    folder = tmp_path_factory.mktemp("mask")
    mask = fourier.soft_disc(BOX, 5.0, 2.0, 3)
    mask[:, :, : BOX // 2] = 0.0
    write_map(folder / "mask.mrc", mask, PIXEL_SIZE_A)
    return folder / "mask.mrc", mask == 0


@pytest.mark.parametrize("objective", ["adversarial", "likelihood"])
def test_the_mask_file_is_what_shapes_the_map(objective, particles, half_ball, tmp_path):
    """Nothing where it is zero; without it, the molecule is on both sides."""
    path, outside = half_ball
    made = {"adversarial": Adversarial, "likelihood": Likelihood}[objective]
    shares = []
    for mask in (None, str(path)):
        given = GivenAssumptions(mask_file=mask)
        assumptions, _ = given.resolve(particles.box_size * particles.pixel_size_A)
        chosen = type(TASKS[objective])(**{**vars(TASKS[objective]), "assumptions": assumptions})
        folder = tmp_path / str(mask is None)
        folder.mkdir()
        job, *_ = make_jobs(particles, folder, made(chosen), seed=1, device="cpu")
        assert optimise(job)
        result = load_arrays(job.folder / RESULT)
        volume = result["volume"] if objective == "adversarial" else result["average"]
        shares.append(float(volume[outside].square().sum() / volume.square().sum()))
    assert shares[0] > 0.2
    assert shares[1] < 0.01


def test_a_mask_is_found_from_another_folder(particles, half_ball, tmp_path, monkeypatch):
    path, _ = half_ball
    monkeypatch.chdir(path.parent)
    about = begun(particles, tmp_path / "run", objective="likelihood", mask="mask.mrc")
    assert about["config"]["assumptions"]["mask_file"] == str(path.resolve())


def test_a_mask_that_was_written_again_is_read_again(tmp_path):
    path = str(tmp_path / "mask.mrc")
    for radius in (4.0, 6.0):
        mask = fourier.soft_disc(BOX, radius, 1.0, 3)
        write_map(path, mask, PIXEL_SIZE_A)
        found, _ = GivenAssumptions(mask_file=path).resolve(WIDTH_A)
        torch.testing.assert_close(volume_mask(found, BOX, PIXEL_SIZE_A), mask)


def test_a_mask_of_a_wrong_kind_is_refused(particles, tmp_path):
    empty = torch.zeros(BOX, BOX, BOX)
    for volume, words in (
        (empty, "a mask is from 0 to 1"),
        (empty - 1.0, "a mask is from 0 to 1"),
        (torch.randn(BOX, BOX, BOX), "a mask is from 0 to 1"),
        (empty + math.nan, "NaN or infinite"),
        (torch.ones(BOX, BOX, 8), "not a cubic map"),
    ):
        write_map(tmp_path / "mask.mrc", volume, PIXEL_SIZE_A)
        with pytest.raises(InputError, match=words):
            cg.reconstruct(particles, mask=tmp_path / "mask.mrc", folder=tmp_path / "run")
    (tmp_path / "mask.mrc").write_text("a ball, please")
    with pytest.raises(InputError, match="not an MRC file"):
        cg.reconstruct(particles, mask=tmp_path / "mask.mrc", folder=tmp_path / "run")
    write_stack(tmp_path / "mask.mrc", torch.ones(BOX, BOX, BOX), 0.0)
    with pytest.raises(InputError, match="pixel size"):
        cg.reconstruct(particles, mask=tmp_path / "mask.mrc", folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# How far to go


def test_a_smaller_box_keeps_coefficients_and_the_noise_in_every_shell(generator):
    images = torch.randn(300, 32, 32, generator=generator)
    stack = ArrayStack(images)
    whole = Particles(stack, CTFParams.constant(300, defocus_u_A=1e4), 5.0)
    small = cropped(whole, 20)
    assert (small.box_size, small.pixel_size_A, len(small)) == (20, 8.0, 300)
    some = torch.tensor([7, 3])
    inside = fourier.band_mask(20, 10.0)
    found = fourier.rfft(small.stack.read(some))
    expected = fourier.resize(fourier.rfft(images[some]), 32, 20) * inside * (20 / 32)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)
    power = fourier.rfft(small.stack.read(torch.arange(300))).abs().square().mean(0)
    shells = fourier.shell_mean(power, 20)[:10] / 20**2
    torch.testing.assert_close(shells, torch.ones(10), atol=0.1, rtol=0)
    assert cropped(whole, 32) is whole
    assert cropped(whole) is whole


def test_a_resolution_is_a_box_whose_nyquist_limit_it_is():
    """32 px of 5 Å: 160 Å wide; the smallest even box that is fine enough, at most the own."""
    whole = Particles(
        ArrayStack(torch.zeros(4, 32, 32)), CTFParams.constant(4, defocus_u_A=1e4), 5.0
    )
    for resolution_A, box in ((20.0, 16), (16.0, 20), (15.9, 22), (10.0, 32), (1.0, 32)):
        small = cropped(whole, resolution_A=resolution_A)
        assert small.box_size == box
        assert 2 * small.pixel_size_A <= max(resolution_A, 10.0) + 1e-6
    for options, words in (
        ({"box_size": 15}, "--box is 15; give an even number from 16"),
        ({"box_size": 14}, "--box is 14"),
        ({"box_size": 34}, "--box is 34; give an even number from 16 to the particles' 32"),
        ({"resolution_A": 0.0}, "--resolution is 0"),
        ({"resolution_A": math.nan}, "--resolution is nan"),
        ({"resolution_A": 25.0}, "give 20 Å or finer"),
        ({"box_size": 16, "resolution_A": 12.0}, "not both"),
    ):
        with pytest.raises(InputError, match=words):
            cropped(whole, **options)


def test_what_goes_on_from_a_run_is_as_fine_as_the_run(tmp_path):
    """Box, field of view and lengths in Å stay what they were."""
    generator = torch.Generator().manual_seed(7)
    volume = cg.phantom_map(24, 10.0)
    write_dataset(tmp_path, centred_particles(volume, 10.0, COUNT, 0.0, generator), volume)
    particles = cg.read_particles(tmp_path / "particles.star")
    options = {"objective": "likelihood", "diameter_A": 96.0, "resolution_A": 30.0}
    about = begun(particles, tmp_path / "run", **options)
    assert about["particles"]["box_size"] == 16
    assert about["particles"]["pixel_size_A"] == pytest.approx(15.0)
    assert about["config"]["assumptions"]["mask_radius"] == pytest.approx(0.4)
    for name in ("half1", "half2", "map"):
        write_map(tmp_path / "run" / f"{name}.mrc", fourier.resample(volume, 16, 3), 15.0)
    about = refined(tmp_path / "run", tmp_path / "refined")
    assert about["particles"]["box_size"] == 16
    poses = cg.assign(particles, tmp_path / "run", device="cpu")
    assert poses.half is not None
    assert len(poses) == COUNT
    some = cg.assign(particles.subset(torch.arange(30)), tmp_path / "run", device="cpu")
    assert some.half is not None
    torch.testing.assert_close(some.half, poses.half[:30])
