"""The critics' scores of single particles: whose, of what, and where junk ends up."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cryogan import fourier
from cryogan.cli import main
from cryogan.errors import InputError
from cryogan.handover import critic_scores
from cryogan.io.mrc import write_map
from cryogan.io.relion import read_particles
from cryogan.io.star import read_star
from cryogan.models.critic import TemplateCritic
from cryogan.particles import ArrayStack, Particles
from cryogan.phantom import phantom_map
from cryogan.physics.ctf import ctf
from cryogan.physics.imaging import preprocess
from cryogan.physics.noise import white
from cryogan.reconstruction import HalfRun, split_halves, train_half
from cryogan.run_record import read_run
from cryogan.simulation.in_memory import write_dataset
from cryogan.training.config import Stage, TrainingConfig
from cryogan.training.data import measure
from cryogan.training.judgement import read_judges, standardised
from cryogan.training.loop import preprocessing
from simulated_sets import centred_particles

CPU = torch.device("cpu")
COUNT, JUNK, BOX, PIXEL_SIZE_A, SEED = 400, 80, 20, 10.0, 3
CONFIG = TrainingConfig(
    stages=(Stage(16, 50 * 32), Stage(64, 150 * 32)),
    batch_size=32,
    templates=8,
    precision="float32",
)
"""The last stage is limited to the particles' box."""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data/`: 400 images, of which the first 80 are noise alone; `run/`, trained on them.

    The run's maps are the truth: they decide poses, not scores.
    """
    folder = tmp_path_factory.mktemp("judged")
    generator = torch.Generator().manual_seed(1)
    volume = phantom_map(BOX, PIXEL_SIZE_A)
    simulated = centred_particles(volume, PIXEL_SIZE_A, COUNT, 5.0, generator)
    images = simulated.particles.stack.read(torch.arange(COUNT))
    images[:JUNK] = simulated.noise_sigma * white(JUNK, BOX, generator)
    particles = Particles(ArrayStack(images), simulated.particles.ctf, PIXEL_SIZE_A)
    (folder / "data").mkdir()
    write_dataset(folder / "data", replace(simulated, particles=particles), volume)
    run = folder / "run"
    for number, index in enumerate(split_halves(COUNT, SEED), start=1):
        half = run / f"half{number}"
        half.mkdir(parents=True)
        parts = HalfRun(half, particles.subset(index), None, CONFIG, 2 * SEED + number, "cpu", 1)
        assert train_half(parts, should_stop=lambda: False)
    for name in ("half1", "half2", "map"):
        write_map(run / f"{name}.mrc", volume, PIXEL_SIZE_A)
    about = {
        "particles": {
            "star": str((folder / "data" / "particles.star").resolve()),
            "count": COUNT,
            "box_size": BOX,
        },
        "seed": SEED,
        "config": asdict(CONFIG),
    }
    (run / "config.json").write_text(json.dumps(about))
    return folder


@pytest.fixture(scope="module")
def particles(folder: Path) -> Particles:
    return read_particles(folder / "data" / "particles.star").particles


@pytest.fixture(scope="module")
def column(folder: Path) -> Tensor:
    """`cryoganCriticScore` as `cryogan assign` writes it."""
    star = folder / "poses.star"
    data = str(folder / "data" / "particles.star")
    assert main(["assign", data, str(folder / "run"), "-o", str(star), "--device=cpu"]) == 0
    table = next(table for table in read_star(star) if "rlnImageName" in table)
    return torch.tensor([float(word) for word in table.columns["cryoganCriticScore"]])


def critic_of(half: Path) -> TemplateCritic:
    critic = TemplateCritic(BOX, fourier.rings_within(BOX, CONFIG.band), CONFIG.templates)
    critic.load_state_dict(torch.load(half / "checkpoint.pt", weights_only=True)["critic"])
    return critic


@torch.no_grad()
def test_a_judge_sees_images_as_training_showed_them(folder: Path, particles: Particles) -> None:
    """Its scores of its own half are those of the images that training wrote as examples."""
    judges = read_judges(folder / "run", asdict(CONFIG), BOX)
    assert [judge.box_size for judge in judges] == [BOX, BOX]
    for number, index in enumerate(split_halves(COUNT, SEED)):
        half = folder / "run" / f"half{number + 1}"
        shown = torch.from_numpy(np.load(half / "examples.npz")["real"])
        own = particles.subset(index)
        scores = judges[number].scores(own, own, None, CPU)
        torch.testing.assert_close(scores[: len(shown)], critic_of(half)(shown))


@torch.no_grad()
def test_the_column_is_the_other_halfs_critic(
    folder: Path, particles: Particles, column: Tensor
) -> None:
    """Written out: spectra of the critic's half, its filter, the particle's CTF, its critic."""
    halves = split_halves(COUNT, SEED)
    for number in (0, 1):
        judged, trained = halves[number], halves[1 - number]
        measurement = measure(particles.subset(trained), None)
        settings = preprocessing(CONFIG, measurement, BOX)
        transfer = ctf(particles.ctf[judged], BOX, PIXEL_SIZE_A)
        images = preprocess(particles.stack.read(judged) * measurement.gain, settings, transfer)
        scores = critic_of(folder / "run" / f"half{2 - number}")(images).numpy()
        distance = scores - np.sort(scores)[len(scores) // 2 - 1]
        wanted = distance / (1.4826 * np.sort(np.abs(distance))[len(scores) // 2 - 1])
        np.testing.assert_allclose(column[judged].numpy(), wanted, atol=2e-4)


def test_a_refinement_has_the_critics_of_its_run(
    folder: Path, particles: Particles, column: Tensor, tmp_path: Path
) -> None:
    """And none, where that run is another by now, or has no critics, or is gone."""
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    path = run / "refine"
    path.mkdir()
    for name in ("half1.mrc", "half2.mrc", "map.mrc"):
        shutil.copy(run / name, path)
    about = json.loads((run / "config.json").read_text())
    refined = about | {"particles": about["particles"] | {"from": str(run)}, "config": {}}
    (path / "config.json").write_text(json.dumps(refined))

    def scores() -> Tensor | None:
        return critic_scores(particles, path, read_run(path), same=True, device="cpu")

    found = scores()
    assert found is not None
    torch.testing.assert_close(found, column, atol=1e-5, rtol=1e-4)
    (run / "config.json").write_text(json.dumps(about | {"seed": SEED + 1}))
    assert scores() is None
    (run / "config.json").write_text(json.dumps(about))
    (run / "half2" / "checkpoint.pt").unlink()
    assert scores() is None
    run.rename(tmp_path / "moved")
    path = tmp_path / "moved" / "refine"
    assert scores() is None


@torch.no_grad()
def test_other_particles_are_judged_by_both_critics(folder: Path, particles: Particles) -> None:
    """Twice as bright, and of these alone: units are measured on what is judged."""
    some = torch.arange(0, COUNT, 2)
    images = particles.stack.read(some)
    sets = [Particles(ArrayStack(k * images), particles.ctf[some], PIXEL_SIZE_A) for k in (1, 2)]
    run = folder / "run"
    single, double = (
        critic_scores(each, run, read_run(run), same=False, device="cpu") for each in sets
    )
    assert single is not None
    assert double is not None
    torch.testing.assert_close(single, double, atol=1e-3, rtol=1e-3)
    measurement = measure(sets[0], None)
    transfer = ctf(sets[0].ctf, BOX, PIXEL_SIZE_A)
    shown = preprocess(images * measurement.gain, preprocessing(CONFIG, measurement, BOX), transfer)
    both = [standardised(critic_of(run / name)(shown)) for name in ("half1", "half2")]
    torch.testing.assert_close(single, standardised(both[0] + both[1]), atol=1e-4, rtol=1e-4)


def test_junk_that_the_critics_were_shown_scores_high(column: Tensor) -> None:
    """The simulator makes no empty images, so that they are real for certain.

    A random pair of noise and particle is in this order in 94 to 99 % of cases (three seeds).
    """
    higher = (column[:JUNK, None] > column[JUNK:]).float().mean()
    assert float(higher) > 0.8


def test_standardised_scores_are_those_of_a_normal_distribution() -> None:
    """With one in eleven far away, where mean and standard deviation would be 18.6 and 43.2."""
    scores = 5.0 + 3.0 * torch.randn(20_000, generator=torch.Generator().manual_seed(1))
    found = standardised(torch.cat((scores, torch.full((2_000,), 155.0))))[:20_000]
    assert abs(float(found.mean())) < 0.2
    assert 0.8 < float(found.std()) < 1.0
    assert not standardised(torch.ones(3)).any()


def test_critics_of_other_settings_are_refused(folder: Path, tmp_path: Path) -> None:
    settings = asdict(CONFIG) | {"templates": 9}
    with pytest.raises(InputError, match=r"half1/checkpoint\.pt does not belong to the settings"):
        read_judges(folder / "run", settings, BOX)
    assert read_judges(tmp_path, settings, BOX) == []
