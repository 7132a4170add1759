"""Conformations by likelihood: what a run starts from, writes, and assigns."""

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import cryogan as cg
from cryogan import fourier
from cryogan.cli import main
from cryogan.cli.exit_codes import ENDED
from cryogan.conformations.folder import write_conformations
from cryogan.conformations.series import numbered_series
from cryogan.data.halves import split_halves
from cryogan.data.normalisation import normalised
from cryogan.data.padding import PaddedBox
from cryogan.errors import InputError
from cryogan.evaluation.fsc import fourier_shell_correlation
from cryogan.io.mrc import read_map, write_map
from cryogan.io.star import Table, read_star
from cryogan.objectives.adversarial.config import AdversarialConfig
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.likelihood.assignment import Assignment, assign
from cryogan.objectives.likelihood.bands import fsc_cutoff_shell
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.latent_grid import latent_grid_of
from cryogan.objectives.likelihood.objective import Likelihood
from cryogan.particles import Particles
from cryogan.phantom import phantom_map
from cryogan.physics.rotations import angle_between
from cryogan.run.checkpoint import load_arrays, load_checkpoint
from cryogan.run.halves import make_jobs
from cryogan.run.starting_maps import half_basis
from cryogan.run.worker import Job, optimise
from cryogan.simulation.in_memory import write_dataset
from simulated_sets import centred_particles

COUNT, BOX, PIXEL_SIZE_A, SEED = 240, 16, 12.0, 3
CPU = torch.device("cpu")


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 images of the phantom in 16 px of 12 Å, its hinge in two positions."""
    folder = tmp_path_factory.mktemp("data")
    generator = torch.Generator().manual_seed(7)
    states = [phantom_map(BOX, PIXEL_SIZE_A, hinge_angle_deg=angle) for angle in (-40.0, 40.0)]
    simulated = centred_particles(torch.stack(states), PIXEL_SIZE_A, COUNT, 0.0, generator)
    write_dataset(folder, simulated, states[0])
    return folder


@pytest.fixture(scope="module")
def particles(dataset: Path) -> Particles:
    return cg.read_particles(dataset / "particles.star")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def particle_table(star: Path) -> Table:
    return next(table for table in read_star(star) if "rlnImageName" in table)


def numbers(star: Path, label: str) -> np.ndarray:
    return np.array(particle_table(star).columns[label], dtype=float)


def phases(folder: Path) -> list[str]:
    return [record["phase"] for record in log(folder)]


def log(folder: Path) -> list[dict[str, Any]]:
    """Without times."""
    lines = (folder / "stats.jsonl").read_text().splitlines()
    timed = ("wall_s", "cpu_s", "images_per_s")
    return [{k: v for k, v in json.loads(line).items() if k not in timed} for line in lines]


# A run that has found conformations by adversarial training


def assumed(latent: str, basis_volumes: int = 4, **more: Any) -> Assumptions:
    if latent == "discrete":
        return Assumptions(latent=latent, **{"classes": 3, **more})
    return Assumptions(latent=latent, basis_volumes=basis_volumes, **more)


def write_config(folder: Path, dataset: Path, config: AdversarialConfig) -> None:
    about = {
        "objective": "adversarial",
        "particles": {
            "star": str((dataset / "particles.star").resolve()),
            "count": COUNT,
            "box_size": BOX,
        },
        "seed": SEED,
        "config": asdict(config),
    }
    (folder / "config.json").write_text(json.dumps(about))


def trained(
    folder: Path,
    dataset: Path,
    assumptions: Assumptions,
    populations: Sequence[float] | None = None,
    volume_model: str = "subspace",
) -> tuple[Tensor, Tensor]:
    """A run folder as an adversarial run leaves it: its basis volumes, and what each half adds.

    A line has its 20 maps at unequal steps of z, the others those of their grids. The half-maps
    are means of the conformations, each with a little noise of its own.
    """
    folder.mkdir()
    generator = torch.Generator().manual_seed(12)
    space = assumptions.latent_space
    basis = 0.1 * torch.randn(assumptions.volumes, BOX, BOX, BOX, generator=generator)
    basis[0] = phantom_map(BOX, PIXEL_SIZE_A)
    latent, weight = space.grid(20), None
    if assumptions.latent == "uniform":
        latent = ((torch.arange(20) + 0.5) / 20).square()[:, None]
        weight = (torch.arange(21) / 20).square().diff()
    if weight is None:
        weight = torch.ones(len(latent)) if populations is None else torch.tensor(populations)
    coefficients = space.coefficients(latent, len(basis))
    volumes = torch.einsum("lc,czyx->lzyx", coefficients, basis)
    series = numbered_series(volumes, PIXEL_SIZE_A, weight, latent)
    write_conformations(folder / "conformations", series, path=assumptions.latent == "uniform")
    own = 0.05 * torch.randn(2, BOX, BOX, BOX, generator=generator)
    halves = series.mean + own
    for name, volume in zip(("half1", "half2", "map"), (*halves, series.mean), strict=True):
        write_map(folder / f"{name}.mrc", volume, PIXEL_SIZE_A)
    write_config(
        folder, dataset, AdversarialConfig(volume_model=volume_model, assumptions=assumptions)
    )
    return basis, own


@pytest.mark.parametrize("latent", ["uniform", "circle", "uniform2d", "discrete"])
def test_basis_volumes_are_those_that_the_maps_were_made_of(
    latent: str, dataset: Path, particles: Particles, tmp_path: Path
) -> None:
    """From 16 or 20 maps, or as many as there are classes; each half has its own mean."""
    shares = [0.5, 0.3, 0.2] if latent == "discrete" else None
    basis, own = trained(tmp_path / "run", dataset, assumed(latent), shares)
    found, populations = half_basis(tmp_path / "run", particles, assumed(latent))
    assert found.shape == (2, *basis.shape)
    close = {"atol": 2e-4, "rtol": 0}
    for half in range(2):
        torch.testing.assert_close(found[half, 1:], basis[1:], **close)
        torch.testing.assert_close(found[half, 0], basis[0] + own[half], **close)
    if shares is None:
        assert populations is None
    else:
        assert populations is not None
        torch.testing.assert_close(populations, torch.tensor(shares), atol=1e-5, rtol=0)


def test_fewer_basis_volumes_than_a_run_has(
    dataset: Path, particles: Particles, tmp_path: Path
) -> None:
    """One structure: the half-maps. A smaller basis: the best fit of that many."""
    basis, _ = trained(tmp_path / "run", dataset, assumed("uniform"))
    (first, second), populations = half_basis(tmp_path / "run", particles, Assumptions())
    assert populations is None
    assert torch.equal(first[0], read_map(tmp_path / "run" / "half1.mrc").volume)
    assert torch.equal(second[0], read_map(tmp_path / "run" / "half2.mrc").volume)
    less, _ = half_basis(tmp_path / "run", particles, assumed("uniform", 2))
    assert less.shape == (2, 3, BOX, BOX, BOX)
    torch.testing.assert_close(less[0, 1:], less[1, 1:])
    for k in (1, 2):
        cosine = torch.cosine_similarity(less[0, k].flatten(), basis[k].flatten(), 0)
        assert float(cosine) > 0.8


def test_half_maps_alone_if_a_run_has_no_conformations(
    dataset: Path, particles: Particles, tmp_path: Path
) -> None:
    trained(tmp_path / "run", dataset, assumed("uniform"))
    (tmp_path / "run" / "conformations").rename(tmp_path / "elsewhere")
    found, populations = half_basis(tmp_path / "run", particles, assumed("uniform"))
    assert found.shape == (2, 1, BOX, BOX, BOX)
    assert populations is None


@pytest.mark.parametrize(
    ("run", "wanted"),
    [
        ("uniform", assumed("discrete")),
        ("uniform", assumed("uniform2d")),
        ("discrete", assumed("uniform", 1)),
        ("discrete", assumed("discrete", classes=2)),
        ("discrete", assumed("discrete", classes=4)),
    ],
)
def test_conformations_of_another_latent_are_refused(
    run: str, wanted: Assumptions, dataset: Path, particles: Particles, tmp_path: Path
) -> None:
    trained(tmp_path / "run", dataset, assumed(run))
    with pytest.raises(InputError, match="are not of a latent"):
        half_basis(tmp_path / "run", particles, wanted)


def test_classes_without_their_table_are_refused(
    dataset: Path, particles: Particles, tmp_path: Path
) -> None:
    trained(tmp_path / "run", dataset, assumed("discrete"))
    (tmp_path / "run" / "conformations" / "latents.csv").unlink()
    with pytest.raises(InputError, match="are not of a latent"):
        half_basis(tmp_path / "run", particles, assumed("discrete"))


def test_functions_of_another_latent_are_not_refined(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A circle has as many numbers as a line, and as many maps: only the record can tell."""
    trained(tmp_path / "run", dataset, assumed("uniform"))
    assert main(["refine", str(tmp_path / "run"), "--latent=circle"]) != 0
    assert "of a latent 'uniform', not 'circle'" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run" / "refine").exists()


@pytest.mark.parametrize("own", [True, False])
def test_particles_are_assigned_with_conformations_whose_mean_is_the_map(
    own: bool, dataset: Path, particles: Particles, tmp_path: Path
) -> None:
    """Of their own half-set, or of all: the mean over unequal classes is the map on disk.

    As by basis volumes that are made for it here.
    """
    shares, run = [0.6, 0.3, 0.1], tmp_path / "run"
    assumptions = assumed("discrete")
    basis, halves = trained(run, dataset, assumptions, shares)
    config = LikelihoodConfig(assumptions=assumptions)
    grid = latent_grid_of(config, 3, torch.tensor(shares))
    noise = torch.randn(BOX, BOX, BOX, generator=torch.Generator().manual_seed(4))
    map_ = read_map(run / "map.mrc").volume
    write_map(run / "map.mrc", map_ + 0.1 * noise, PIXEL_SIZE_A)
    if not own:  # a copy is another file
        for path in dataset.glob("particles.*"):
            shutil.copy(path, tmp_path)
        particles = cg.read_particles(tmp_path / "particles.star")
    found = cg.assign(particles, run, device="cpu")
    assert (found.half is not None) == own

    particles, _ = normalised(particles)
    padded = PaddedBox.of(BOX, assumptions.reach)
    first, second = padded.pad(basis[0] + halves)
    rings = fsc_cutoff_shell(fourier_shell_correlation(first, second))

    def wanted(rows: Tensor, name: str, weight: Tensor) -> Assignment:
        """With a mean, so weighted, that is the map of that name."""
        volumes = basis.clone()
        mean = torch.einsum("l,lc,czyx->zyx", weight, grid.coefficients, basis)
        volumes[0] += read_map(run / f"{name}.mrc").volume - mean
        half = HalfSet.of(particles.subset(rows), None, padded)
        volumes = half.basis_scaled_to_images(padded.pad(volumes))
        return assign(half, volumes, grid, rings, config.padded(padded.share), CPU)

    groups = [(torch.arange(COUNT), "map")]
    if own:
        groups = list(zip(split_halves(COUNT, SEED), ("half1", "half2"), strict=True))
    for rows, name in groups:
        mine, its = found.assignment, wanted(rows, name, grid.prior)
        apart_deg = angle_between(mine.pose.rotation[rows], its.pose.rotation)
        assert float(apart_deg.quantile(0.95)) < 0.5
        close = {"atol": 0.02, "rtol": 0}
        torch.testing.assert_close(mine.log_likelihood[rows], its.log_likelihood, **close)
        torch.testing.assert_close(mine.latent[rows], its.latent, **close)
        best = its.latent.max(dim=1)
        assert torch.equal(found.class_number[rows], best.indices + 1)
        probability = found.columns["cryoganClassProbability"][rows]
        torch.testing.assert_close(probability, best.values, **close)
        other = wanted(rows, name, torch.full((3,), 1 / 3))
        assert float((other.log_likelihood - its.log_likelihood).abs().max()) > 0.5


def after_one() -> bool:
    """Stops a job at its first log record."""
    return True


@pytest.mark.parametrize("latent", ["discrete", "uniform"])
def test_a_resumed_run_is_the_same_run(
    latent: str, dataset: Path, particles: Particles, tmp_path: Path
) -> None:
    """From the state after the first iteration, with the populations learnt in it; bit for bit."""
    shares = [0.6, 0.3, 0.1] if latent == "discrete" else None
    assumptions = assumed(latent, 2)
    trained(tmp_path / "run", dataset, assumptions, shares)
    maps, populations = half_basis(tmp_path / "run", particles, assumptions)
    config = LikelihoodConfig(
        iterations=2, subset_size=30, latent_grid_points=6, assumptions=assumptions
    )

    def job(name: str) -> Job:
        (tmp_path / name).mkdir()
        (made,) = make_jobs(
            particles,
            tmp_path / name,
            Likelihood(config),
            seed=SEED,
            device="cpu",
            maps=maps,
            populations=populations,
        )
        return made

    whole, stopped = job("whole"), job("stopped")
    assert optimise(whole)
    assert [record["images"] for record in log(whole.folder)] == [180, 240]
    assert not optimise(stopped, should_stop=after_one)
    prior = load_checkpoint(stopped.folder / "checkpoint.pt").state["prior"]
    if shares is not None:
        assert float((prior - torch.tensor(shares)).abs().max()) > 1e-3
        assert float(prior.sum()) == pytest.approx(1.0, abs=1e-5)
    else:
        assert prior.tolist() == pytest.approx([1 / 6] * 6)
    # maps given again are ignored
    assert optimise(replace(stopped, task=replace(stopped.task, maps=0.0 * maps)))
    assert log(stopped.folder) == log(whole.folder)
    again, wanted = (load_arrays(each.folder / "result.npz") for each in (stopped, whole))
    assert again.keys() == wanted.keys()
    for name in wanted.keys() - {"wall_s", "cpu_s"}:
        assert torch.equal(again[name], wanted[name]), name


# The commands

QUICK = [
    "--likelihood.initial_rings=[5, 6]",
    "--likelihood.initial_batches=2",
    "--likelihood.initial_batch_size=60",
    "--likelihood.conformation_batches=2",
    "--likelihood.conformation_batch_size=60",
    "--likelihood.iterations=1",
    "--device=cpu",
]
CLASSES = ["--latent=discrete", "--classes=3"]
LINE = ["--basis-volumes=2", "--likelihood.latent_grid_points=6"]
HETEROGENEOUS = ["--model", "heterogeneous"]


def reconstructing(dataset: Path, output: Path, *more: str) -> list[str]:
    star = str(dataset / "particles.star")
    likelihood = ["--objective", "likelihood", "--seed", str(SEED), "--max-shift", "0", *QUICK]
    return ["reconstruct", star, "-o", str(output), *likelihood, *more]


@pytest.fixture(scope="module")
def classes(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from random numbers; not to be written to."""
    folder = tmp_path_factory.mktemp("classes") / "run"
    assert main(reconstructing(dataset, folder, *HETEROGENEOUS, *CLASSES)) in ENDED
    return folder


@pytest.fixture(scope="module")
def line(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one structure, refined to a line of conformations."""
    folder = tmp_path_factory.mktemp("line") / "run"
    trained(folder, dataset, assumed("uniform"))
    (folder / "conformations").rename(folder / "elsewhere")
    write_config(folder, dataset, AdversarialConfig(assumptions=Assumptions(mask_radius=0.8)))
    assert main(["refine", str(folder), *QUICK, *HETEROGENEOUS, *LINE]) in ENDED
    return folder / "refine"


def check_folder(folder: Path, latents: int, assumptions: Assumptions) -> None:
    """Maps, series and summary agree with one another and with the result."""
    rows = table(folder / "conformations" / "latents.csv")
    assert len(rows) == latents
    weight = torch.tensor([float(row["weight"]) for row in rows])
    assert float(weight.sum()) == pytest.approx(1.0, abs=1e-4)
    maps = [read_map(folder / "conformations" / row["volume"]) for row in rows]
    volumes = torch.stack([each.volume for each in maps])
    assert bool(volumes.isfinite().all())
    mean = torch.einsum("l,lzyx->zyx", weight, volumes)
    wanted = read_map(folder / "map.mrc")
    assert {each.pixel_size_A for each in maps} == {wanted.pixel_size_A}
    if assumptions.latent == "discrete":
        torch.testing.assert_close(mean, wanted.volume, atol=1e-3, rtol=1e-3)
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary["conformations"]) == {
        "halves_mean_fsc_0.5_A",
        "halves_motion_fsc_0.5_A",
        "amplitude_half1",
        "amplitude_half2",
    }
    result = load_arrays(folder / "result.npz")
    assert result["basis"].shape[:2] == (2, assumptions.volumes)
    assert float(result["populations"].sum()) == pytest.approx(1.0, abs=1e-4)
    state = load_checkpoint(folder / "checkpoint.pt").state
    assert state["fsc"].shape[0] == assumptions.volumes
    assert (folder / "report.html").stat().st_size > 10_000


def test_classes_from_random_numbers(classes: Path, particles: Particles) -> None:
    check_folder(classes, 3, assumed("discrete"))
    found = [(phase, len(list(records))) for phase, records in groupby(phases(classes))]
    assert [phase for phase, _ in found] == [
        "initial model",
        "half-map comparison",
        "mean map",
        "both hands",
        "map of one hand",
        "hand comparison",
        "conformations",
        "refinement",
    ]
    counts = dict(found)
    assert (counts["initial model"], counts["conformations"]) == (4, 2)
    assert 1 < counts["mean map"] <= 8
    assert 1 < counts["map of one hand"] <= 8
    about = json.loads((classes / "config.json").read_text())
    assert about["config"]["assumptions"] == asdict(assumed("discrete"))
    assert about["sources"]["latent"] == about["sources"]["classes"] == "given"
    found, populations = half_basis(classes, particles, assumed("discrete"))
    assert populations is not None
    state = load_checkpoint(classes / "checkpoint.pt").state  # as they are, not fitted
    assert torch.equal(found, fourier.crop_or_pad(state["halves"], found.shape[-1], 3))
    torch.testing.assert_close(populations, state["prior"], atol=1e-5, rtol=0)


def test_a_line_out_of_one_structure(line: Path) -> None:
    check_folder(line, 20, assumed("uniform", 2))
    assert phases(line) == ["conformations"] * 2 + ["refinement"]
    z = [float(row["z0"]) for row in table(line / "conformations" / "latents.csv")]
    assert z == sorted(z)
    about = json.loads((line / "config.json").read_text())
    assert about["config"]["assumptions"] == asdict(assumed("uniform", 2, mask_radius=0.8))
    assert about["sources"]["latent"] == about["sources"]["basis_volumes"] == "given"
    assert about["sources"]["mask_radius"].startswith("the run ")


def test_conformations_of_the_likelihood_are_refined_as_they_are(
    classes: Path, tmp_path: Path
) -> None:
    """Latent and classes are the run's; there is no new initialisation."""
    output = tmp_path / "refined"
    assert main(["refine", str(classes), "-o", str(output), *QUICK]) in ENDED
    check_folder(output, 3, assumed("discrete"))
    assert phases(output) == ["refinement"]


def test_conformations_of_a_trained_run_are_refined(dataset: Path, tmp_path: Path) -> None:
    """Those of a network like those of a subspace."""
    trained(tmp_path / "run", dataset, assumed("uniform", 2), volume_model="unet")
    command = ["refine", str(tmp_path / "run"), *QUICK, "--likelihood.latent_grid_points=6"]
    assert main(command) in ENDED
    check_folder(tmp_path / "run" / "refine", 20, assumed("uniform", 2))
    assert phases(tmp_path / "run" / "refine") == ["refinement"]


def test_one_structure_out_of_conformations(classes: Path, tmp_path: Path) -> None:
    output = tmp_path / "refined"
    command = ["refine", str(classes), "-o", str(output), *QUICK, "--model", "homogeneous"]
    assert main(command) in ENDED
    about = json.loads((output / "config.json").read_text())
    assert about["config"]["assumptions"] == asdict(Assumptions())
    assert not (output / "conformations").exists()
    assert "conformations" not in json.loads((output / "summary.json").read_text())


def test_an_interrupted_run_goes_on_with_its_conformations(
    classes: Path, dataset: Path, tmp_path: Path
) -> None:
    """Stopped after its last iteration, before anything was written."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("config.json", "result.npz", "checkpoint.pt", "stats.jsonl"):
        (folder / name).write_bytes((classes / name).read_bytes())
    assert main(reconstructing(dataset, folder, *HETEROGENEOUS, *CLASSES)) in ENDED
    names = ["half1.mrc", "half2.mrc", "map.mrc", "conformations/vol_000.mrc"]
    for name in [*names, "conformations/latents.csv", "fsc.csv"]:
        assert (folder / name).read_bytes() == (classes / name).read_bytes(), name


def test_classes_of_particles_are_written(classes: Path, dataset: Path, tmp_path: Path) -> None:
    star = tmp_path / "poses.star"
    command = ["assign", str(dataset / "particles.star"), str(classes), "-o", str(star)]
    assert main([*command, "--device=cpu"]) == 0
    number, share = (
        numbers(star, label) for label in ("rlnClassNumber", "cryoganClassProbability")
    )
    assert set(number) <= {1.0, 2.0, 3.0}
    assert len(set(number)) > 1
    assert share.min() >= 1 / 3 - 1e-4
    assert share.max() <= 1 + 1e-4
    records = np.load(star.with_suffix(".cs"))
    assert (records["alignments3D/class"] == number - 1).all()
    np.testing.assert_allclose(records["alignments3D/class_posterior"], share, atol=1e-4)
    assert "cryoganLatent0" not in particle_table(star)


def test_latents_of_particles_are_written(line: Path, dataset: Path, tmp_path: Path) -> None:
    star = tmp_path / "poses.star"
    command = ["assign", str(dataset / "particles.star"), str(line), "-o", str(star)]
    assert main([*command, "--device=cpu"]) == 0
    mean, spread = (numbers(star, f"cryogan{what}0") for what in ("Latent", "LatentSpread"))
    assert mean.min() > 0.0
    assert mean.max() < 1.0
    assert mean.std() > 0.01
    assert spread.min() > 0.0
    assert spread.max() < 0.5
    assert set(numbers(star, "rlnClassNumber")) == {1.0}
    assert "cryoganClassProbability" not in particle_table(star)
