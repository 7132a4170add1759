"""Conformations by likelihood: what the commands start from, write, and assign."""

import csv
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cryogan import fourier, handover
from cryogan.cli import main
from cryogan.conformation_folder import numbered_series, write_conformations
from cryogan.errors import InputError
from cryogan.handover import assign_particles
from cryogan.io.mrc import read_map, write_map
from cryogan.io.relion import read_particles
from cryogan.io.star import Table, read_star
from cryogan.likelihood.ascent import AscentState, ascend
from cryogan.likelihood.assignment import unassigned
from cryogan.likelihood.config import AscentConfig
from cryogan.likelihood.half_set import HalfSet
from cryogan.models.conformations import LatentKind
from cryogan.phantom import phantom_map
from cryogan.reconstruction import split_halves
from cryogan.refinement import half_components
from cryogan.run_record import read_run
from cryogan.simulation.in_memory import write_dataset
from simulated_sets import centred_particles

COUNT, BOX, PIXEL_SIZE_A, SEED = 240, 16, 12.0, 3
CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 images of the phantom in 16 px of 12 Å, its hinge in two positions."""
    folder = tmp_path_factory.mktemp("data")
    generator = torch.Generator().manual_seed(7)
    states = [phantom_map(BOX, PIXEL_SIZE_A, hinge_angle_deg=angle) for angle in (-40.0, 40.0)]
    simulated = centred_particles(torch.stack(states), PIXEL_SIZE_A, COUNT, 0.0, generator)
    write_dataset(folder, simulated, states[0])
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def particle_table(star: Path) -> Table:
    return next(table for table in read_star(star) if "rlnImageName" in table)


def numbers(star: Path, label: str) -> np.ndarray:
    return np.array(particle_table(star).columns[label], dtype=float)


def phases(folder: Path) -> list[str]:
    return [json.loads(line)["phase"] for line in (folder / "stats.jsonl").read_text().splitlines()]


# A run that trained conformations


def trained(
    folder: Path, dataset: Path, kind: LatentKind, *, basis: int = 4, populations: Any = None
) -> tuple[Tensor, Tensor]:
    """A run folder as an adversarial run leaves it: components (C, D, D, D) and half maps.

    A line has its 20 maps at unequal steps of z, the others those of their grids. The halves'
    means are those of the conformations, each with a little of its own.
    """
    folder.mkdir()
    generator = torch.Generator().manual_seed(12)
    config = AscentConfig(
        generator="subspace", latent=kind, classes=3, basis=basis, nodes=2 * basis + 2
    )
    space = config.space
    components = 0.1 * torch.randn(config.components, BOX, BOX, BOX, generator=generator)
    components[0] = phantom_map(BOX, PIXEL_SIZE_A)
    latent, weight = space.grid(20), None
    if kind == "uniform":
        latent = ((torch.arange(20) + 0.5) / 20).square()[:, None]
        weight = (torch.arange(21) / 20).square().diff()
    if weight is None:
        weight = torch.ones(len(latent)) if populations is None else torch.tensor(populations)
    amounts = space.amounts(latent, config.components)
    volumes = torch.einsum("lc,czyx->lzyx", amounts, components)
    series = numbered_series(volumes, PIXEL_SIZE_A, weight, latent)
    write_conformations(folder / "conformations", series, path=kind == "uniform")
    own = 0.05 * torch.randn(2, BOX, BOX, BOX, generator=generator)
    halves = series.mean + own
    for name, volume in zip(("half1", "half2", "map"), (*halves, series.mean), strict=True):
        write_map(folder / f"{name}.mrc", volume, PIXEL_SIZE_A)
    about = {
        "particles": {
            "star": str((dataset / "particles.star").resolve()),
            "count": COUNT,
            "box_size": BOX,
        },
        "seed": SEED,
        "config": {"generator": "subspace", "latent": kind, "classes": 3, "basis": basis},
    }
    (folder / "config.json").write_text(json.dumps(about))
    return components, own


def settings(kind: LatentKind, **more: Any) -> AscentConfig:
    return AscentConfig(**({"generator": "subspace", "latent": kind, "classes": 3} | more))


@pytest.mark.parametrize("kind", ["uniform", "circle", "uniform2d", "discrete"])
def test_components_are_those_that_the_maps_were_made_of(
    kind: LatentKind, dataset: Path, tmp_path: Path
) -> None:
    """From 16 or 20 maps, or as many as there are classes; each half has its own mean."""
    shares = [0.5, 0.3, 0.2]
    components, own = trained(tmp_path / "run", dataset, kind, populations=shares
                              if kind == "discrete" else None)  # fmt: skip
    particles = read_particles(dataset / "particles.star").particles
    found, populations = half_components(tmp_path / "run", particles, settings(kind, basis=4))
    assert found.shape == (2, *components.shape)
    close = {"atol": 2e-4, "rtol": 0}
    for half in range(2):
        torch.testing.assert_close(found[half, 1:], components[1:], **close)
        torch.testing.assert_close(found[half, 0], components[0] + own[half], **close)
    if kind == "discrete":
        assert populations is not None
        torch.testing.assert_close(populations, torch.tensor(shares), atol=1e-5, rtol=0)
    else:
        assert populations is None


def test_fewer_components_than_a_run_has(dataset: Path, tmp_path: Path) -> None:
    """One structure: the half maps. A smaller basis: the best fit of that many."""
    components, _ = trained(tmp_path / "run", dataset, "uniform")
    particles = read_particles(dataset / "particles.star").particles
    (first, second), populations = half_components(tmp_path / "run", particles, AscentConfig())
    assert populations is None
    assert torch.equal(first[0], read_map(tmp_path / "run" / "half1.mrc").volume)
    assert torch.equal(second[0], read_map(tmp_path / "run" / "half2.mrc").volume)
    less, _ = half_components(tmp_path / "run", particles, settings("uniform", basis=2))
    assert less.shape == (2, 3, BOX, BOX, BOX)
    torch.testing.assert_close(less[0, 1:], less[1, 1:])
    for k in (1, 2):
        cosine = torch.cosine_similarity(less[0, k].flatten(), components[k].flatten(), 0)
        assert float(cosine) > 0.8


def test_half_maps_alone_if_a_run_has_no_conformations(dataset: Path, tmp_path: Path) -> None:
    trained(tmp_path / "run", dataset, "uniform")
    (tmp_path / "run" / "conformations").rename(tmp_path / "elsewhere")
    particles = read_particles(dataset / "particles.star").particles
    found, populations = half_components(tmp_path / "run", particles, settings("uniform"))
    assert found.shape == (2, 1, BOX, BOX, BOX)
    assert populations is None


@pytest.mark.parametrize(
    ("run", "wanted"),
    [
        ("uniform", {"latent": "discrete", "classes": 3}),
        ("uniform", {"latent": "uniform2d"}),
        ("discrete", {"latent": "uniform", "basis": 1}),
        ("discrete", {"latent": "discrete", "classes": 2}),
        ("discrete", {"latent": "discrete", "classes": 4}),
    ],
)
def test_conformations_of_another_latent_are_refused(
    run: LatentKind, wanted: dict[str, Any], dataset: Path, tmp_path: Path
) -> None:
    trained(tmp_path / "run", dataset, run)
    particles = read_particles(dataset / "particles.star").particles
    config = AscentConfig(generator="subspace", **wanted)
    with pytest.raises(InputError, match="are not of a latent"):
        half_components(tmp_path / "run", particles, config)


def test_classes_without_their_table_are_refused(dataset: Path, tmp_path: Path) -> None:
    trained(tmp_path / "run", dataset, "discrete")
    (tmp_path / "run" / "conformations" / "latents.csv").unlink()
    particles = read_particles(dataset / "particles.star").particles
    with pytest.raises(InputError, match="are not of a latent"):
        half_components(tmp_path / "run", particles, settings("discrete"))


def test_functions_of_another_latent_are_not_refined(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A circle has as many numbers as a line, and as many maps: only the record tells."""
    trained(tmp_path / "run", dataset, "uniform")
    assert main(["refine", str(tmp_path / "run"), "--ascent.latent=circle"]) != 0
    assert "of a latent 'uniform', not 'circle'" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run" / "refine").exists()


@pytest.mark.parametrize("same", [True, False])
def test_particles_are_judged_by_conformations_whose_mean_is_the_map(
    same: bool, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of their own half, or of all: the mean over unequal classes is the map that was written."""
    shares = [0.6, 0.3, 0.1]
    trained(tmp_path / "run", dataset, "discrete", populations=shares)
    given = []

    def assign(half: Any, components: Tensor, landscape: Any, *more: Any) -> Any:
        given.append(torch.einsum("l,lc,czyx->zyx", landscape.prior, landscape.amounts, components))
        return unassigned(len(half), landscape)

    monkeypatch.setattr(handover, "assign", assign)
    particles = read_particles(dataset / "particles.star").particles
    run = read_run(tmp_path / "run")
    found = assign_particles(
        particles, tmp_path / "run", run, settings("discrete"), same=same, device="cpu"
    )
    names = ("half1", "half2") if same else ("map",)
    for name, mean in zip(names, given, strict=True):
        wanted = read_map(tmp_path / "run" / f"{name}.mrc").volume
        mean = fourier.crop_or_pad(mean, wanted.shape[-1], 3)  # out of the field
        gain = float((mean * wanted).sum() / wanted.square().sum())
        torch.testing.assert_close(mean, gain * wanted, atol=1e-3 * gain, rtol=0)
    assert bool((found.class_number == 1).all())  # the largest, as nothing is known
    share = found.latent_columns["cryoganClassProbability"]
    torch.testing.assert_close(share, torch.full((COUNT,), 0.6), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["discrete", "uniform"])
def test_a_resumed_run_is_the_same_run(kind: LatentKind, dataset: Path, tmp_path: Path) -> None:
    """From the state after the first pass, with the populations learnt in it; bit for bit."""
    shares = [0.6, 0.3, 0.1] if kind == "discrete" else None
    trained(tmp_path / "run", dataset, kind, basis=2, populations=shares)
    config = settings(kind, basis=2, nodes=6, iterations=2, subset=30)
    particles = read_particles(dataset / "particles.star").particles
    maps, populations = half_components(tmp_path / "run", particles, config)
    first, second = (HalfSet.of(particles.subset(half)) for half in split_halves(COUNT, SEED))
    start = {"config": config, "seed": SEED, "device": CPU}
    whole = list(ascend((first, second), maps=maps, populations=populations, **start))
    assert [step.record["images"] for step in whole] == [180, 240]
    after = whole[0].state
    assert after is not None
    if kind == "discrete":
        assert float((after.prior - torch.tensor(shares)).abs().max()) > 1e-3
        assert float(after.prior.sum()) == pytest.approx(1.0, abs=1e-5)
    else:
        assert after.prior.tolist() == pytest.approx([1 / 6] * 6)
    (again,) = ascend((first, second), maps=0.0 * maps, state=after, **start)
    assert again.record == whole[1].record
    for field in fields(AscentState):
        mine, theirs = (getattr(step.state, field.name) for step in (again, whole[1]))
        assert torch.equal(torch.as_tensor(mine), torch.as_tensor(theirs)), field.name


# The commands

QUICK = [
    "--ascent.climb_rings=[5, 6]",
    "--ascent.climb_steps=2",
    "--ascent.climb_images=60",
    "--ascent.wake_steps=2",
    "--ascent.wake_images=60",
    "--ascent.iterations=1",
    "--device=cpu",
]
CLASSES = ["--ascent.latent=discrete", "--ascent.classes=3"]
LINE = ["--ascent.basis=2", "--ascent.nodes=6"]
HETEROGENEOUS = ["--model", "heterogeneous"]


def reconstructing(dataset: Path, output: Path, *more: str) -> list[str]:
    star = str(dataset / "particles.star")
    likelihood = ["--objective", "likelihood", "--seed", str(SEED), *QUICK]
    return ["reconstruct", star, "-o", str(output), *likelihood, *more]


@pytest.fixture(scope="module")
def classes(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from random numbers; not to be written to."""
    folder = tmp_path_factory.mktemp("classes") / "run"
    assert main(reconstructing(dataset, folder, *HETEROGENEOUS, *CLASSES)) == 0
    return folder


@pytest.fixture(scope="module")
def line(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one structure, refined to a line of conformations."""
    folder = tmp_path_factory.mktemp("line") / "run"
    trained(folder, dataset, "uniform")
    (folder / "conformations").rename(folder / "elsewhere")
    config = {"generator": "volume", "mask_radius": 0.8}
    about = json.loads((folder / "config.json").read_text()) | {"config": config}
    (folder / "config.json").write_text(json.dumps(about))
    assert main(["refine", str(folder), *QUICK, *HETEROGENEOUS, *LINE]) == 0
    return folder / "refine"


def check_folder(folder: Path, latents: int, config: AscentConfig) -> None:
    """Maps, series and summary agree with one another and with the state."""
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
    if config.latent == "discrete":
        torch.testing.assert_close(mean, wanted.volume, atol=1e-3, rtol=1e-3)
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary["conformations"]) == {
        "halves_mean_fsc_0.5_A",
        "halves_motion_fsc_0.5_A",
        "amplitude_half1",
        "amplitude_half2",
    }
    with np.load(folder / "state.npz") as state:
        assert state["halves"].shape[:2] == (2, config.components)
        assert state["fsc"].shape[0] == config.components
        assert state["prior"].sum() == pytest.approx(1.0, abs=1e-4)
    assert (folder / "report.html").stat().st_size > 10_000


def test_classes_from_random_numbers(classes: Path, dataset: Path) -> None:
    config = settings("discrete")
    check_folder(classes, 3, config)
    assert phases(classes) == ["climb"] * 4 + ["meet"] + ["wake"] * 2 + ["refine"]
    about = json.loads((classes / "config.json").read_text())["config"]
    assert (about["generator"], about["latent"], about["classes"]) == ("subspace", "discrete", 3)
    particles = read_particles(dataset / "particles.star").particles
    found, populations = half_components(classes, particles, config)
    assert populations is not None
    with np.load(classes / "state.npz") as state:  # as they are, not fitted
        halves = torch.from_numpy(state["halves"])
        assert torch.equal(found, fourier.crop_or_pad(halves, found.shape[-1], 3))
        np.testing.assert_allclose(populations, state["prior"], atol=1e-5)


def test_a_line_out_of_one_structure(line: Path) -> None:
    check_folder(line, 20, settings("uniform", basis=2, nodes=6))
    assert phases(line) == ["wake"] * 2 + ["refine"]
    z = [float(row["z0"]) for row in table(line / "conformations" / "latents.csv")]
    assert z == sorted(z)
    about = json.loads((line / "config.json").read_text())["config"]
    assert (about["generator"], about["basis"], about["mask_radius"]) == ("subspace", 2, 0.8)


def test_conformations_of_the_likelihood_are_refined_as_they_are(
    classes: Path, tmp_path: Path
) -> None:
    """Kind and number are the run's; nothing is searched for again."""
    output = tmp_path / "refined"
    assert main(["refine", str(classes), "-o", str(output), *QUICK]) == 0
    check_folder(output, 3, settings("discrete"))
    assert phases(output) == ["refine"]


def test_conformations_of_a_trained_run_are_refined(dataset: Path, tmp_path: Path) -> None:
    """Those of a network like those of a subspace."""
    trained(tmp_path / "run", dataset, "uniform", basis=2)
    path = tmp_path / "run" / "config.json"
    about = json.loads(path.read_text())
    about["config"]["generator"] = "unet"
    path.write_text(json.dumps(about))
    assert main(["refine", str(tmp_path / "run"), *QUICK, "--ascent.nodes=6"]) == 0
    check_folder(tmp_path / "run" / "refine", 20, settings("uniform", basis=2, nodes=6))
    assert phases(tmp_path / "run" / "refine") == ["refine"]


def test_one_structure_out_of_conformations(classes: Path, tmp_path: Path) -> None:
    output = tmp_path / "refined"
    command = ["refine", str(classes), "-o", str(output), *QUICK, "--model", "homogeneous"]
    assert main(command) == 0
    assert not (output / "conformations").exists()
    assert "conformations" not in json.loads((output / "summary.json").read_text())


def test_an_interrupted_run_goes_on_with_its_conformations(
    classes: Path, dataset: Path, tmp_path: Path
) -> None:
    """Stopped after its last pass, before anything was written."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("config.json", "state.npz", "stats.jsonl"):
        (folder / name).write_bytes((classes / name).read_bytes())
    assert main(reconstructing(dataset, folder, *HETEROGENEOUS, *CLASSES)) == 0
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
