"""Critic scores of single particles: whose critic, of which images, and where junk ends up."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import cryogan as cg
from adversarial_runs import CPU, load_state
from cryogan import fourier
from cryogan.cli import main
from cryogan.data.halves import split_halves
from cryogan.data.normalisation import normalised
from cryogan.data.statistics import measure
from cryogan.errors import InputError
from cryogan.io.mrc import write_map
from cryogan.io.star import read_star
from cryogan.models.critics import TemplateCritic
from cryogan.objectives.adversarial.config import AdversarialConfig, Stage
from cryogan.objectives.adversarial.critic_scores import TrainedCritic, standardised
from cryogan.objectives.adversarial.objective import Adversarial
from cryogan.objectives.adversarial.stage import preprocessing
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.particles import ArrayStack, Particles
from cryogan.phantom import phantom_map
from cryogan.physics.ctf import ctf
from cryogan.physics.imaging import preprocess
from cryogan.physics.noise import white
from cryogan.simulation.in_memory import write_dataset
from simulated_sets import centred_particles

COUNT, JUNK, BOX, PIXEL_SIZE_A, SEED = 400, 80, 20, 10.0, 3
CONFIG = AdversarialConfig(
    stages=(Stage(16, 50 * 32), Stage(64, 150 * 32)),
    batch_size=32,
    templates=8,
    precision="float32",
)
"""The last stage is limited to the particles' box."""
COLUMN = "cryoganCriticScore"

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data/`: 400 images, of which the first 80 are noise alone; `run/`, trained on them.

    The run's maps are the truth: they decide poses, not scores.
    """
    folder = tmp_path_factory.mktemp("scores")
    generator = torch.Generator().manual_seed(1)
    volume = phantom_map(BOX, PIXEL_SIZE_A)
    simulated = centred_particles(volume, PIXEL_SIZE_A, COUNT, 5.0, generator)
    images = simulated.particles.stack.read(torch.arange(COUNT))
    images[:JUNK] = simulated.noise_sigma * white(JUNK, BOX, generator)
    particles = Particles(ArrayStack(images), simulated.particles.ctf, PIXEL_SIZE_A)
    write_dataset(folder / "data", replace(simulated, particles=particles), volume)
    run = cg.reconstruct(
        cg.read_particles(folder / "data" / "particles.star"),
        objective=Adversarial(CONFIG),
        folder=folder / "run",
        seed=SEED,
        device="cpu",
    )
    assert run.finished
    for name in ("half1", "half2", "map"):
        write_map(folder / "run" / f"{name}.mrc", volume, PIXEL_SIZE_A)
    return folder


@pytest.fixture(scope="module")
def particles(folder: Path) -> Particles:
    """As a run takes them."""
    return normalised(cg.read_particles(folder / "data" / "particles.star"))[0]


@pytest.fixture(scope="module")
def column(folder: Path) -> Tensor:
    """`cryoganCriticScore` as `cryogan assign` writes it."""
    star = folder / "poses.star"
    data = str(folder / "data" / "particles.star")
    assert main(["assign", data, str(folder / "run"), "-o", str(star), "--device=cpu"]) == 0
    table = next(table for table in read_star(star) if "rlnImageName" in table)
    return torch.tensor([float(word) for word in table.columns[COLUMN]])


def critic_of(half: Path) -> TemplateCritic:
    critic = TemplateCritic(BOX, fourier.rings_within(BOX, CONFIG.band), CONFIG.templates)
    critic.load_state_dict(load_state(half / "checkpoint.pt")["critic"])
    return critic


@torch.no_grad()
def test_a_critic_scores_images_as_training_showed_them(folder: Path, particles: Particles) -> None:
    """Its scores of its own half are those of the images that training wrote as examples."""
    for number, index in enumerate(split_halves(COUNT, SEED), start=1):
        half = folder / "run" / f"half{number}"
        critic = TrainedCritic.of(load_state(half / "checkpoint.pt"), CONFIG, BOX)
        assert critic.box_size == BOX
        shown = torch.from_numpy(np.load(half / "examples.npz")["real"])
        own = particles.subset(index)
        scores = critic.scores(own, own, None, CPU)
        torch.testing.assert_close(scores[: len(shown)], critic_of(half)(shown))


@torch.no_grad()
def test_the_column_is_the_other_halfs_critic(
    folder: Path, particles: Particles, column: Tensor
) -> None:
    """Written out: spectra of the critic's half, its filter, the particle's CTF, its critic."""
    halves = split_halves(COUNT, SEED)
    for number in (0, 1):
        scored, trained = halves[number], halves[1 - number]
        measurement = measure(particles.subset(trained), None)
        settings = preprocessing(CONFIG, measurement, BOX)
        transfer = ctf(particles.ctf[scored], BOX, PIXEL_SIZE_A)
        images = preprocess(particles.stack.read(scored) * measurement.gain, settings, transfer)
        scores = critic_of(folder / "run" / f"half{2 - number}")(images).numpy()
        distance = scores - np.sort(scores)[len(scores) // 2 - 1]
        wanted = distance / (1.4826 * np.sort(np.abs(distance))[len(scores) // 2 - 1])
        np.testing.assert_allclose(column[scored].numpy(), wanted, atol=2e-4)


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
    refined = about | {
        "objective": "likelihood",
        "particles": about["particles"] | {"from": str(run)},
        "config": asdict(LikelihoodConfig()),
    }
    (path / "config.json").write_text(json.dumps(refined))

    found = cg.assign(particles, path, device="cpu").columns[COLUMN]
    torch.testing.assert_close(found, column, atol=1e-5, rtol=1e-4)

    few = particles.subset(torch.arange(10))

    def has_scores() -> bool:
        return COLUMN in cg.assign(few, path, device="cpu").columns

    assert has_scores()
    (run / "config.json").write_text(json.dumps(about | {"seed": SEED + 1}))
    assert not has_scores()
    (run / "config.json").write_text(json.dumps(about))
    (run / "half2" / "checkpoint.pt").unlink()
    assert not has_scores()
    run.rename(tmp_path / "moved")
    path = tmp_path / "moved" / "refine"
    assert not has_scores()


@torch.no_grad()
def test_other_particles_are_scored_by_both_critics(folder: Path, particles: Particles) -> None:
    """Twice as bright, and of these alone: units are measured on what is scored."""
    some = torch.arange(0, COUNT, 2)
    images = particles.stack.read(some)
    sets = [Particles(ArrayStack(k * images), particles.ctf[some], PIXEL_SIZE_A) for k in (1, 2)]
    run = folder / "run"
    single, double = (cg.assign(each, run, device="cpu").columns[COLUMN] for each in sets)
    sets = [normalised(each)[0] for each in sets]
    images = sets[0].stack.read(torch.arange(len(some)))
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


def test_critics_of_other_settings_are_refused(folder: Path) -> None:
    state = load_state(folder / "run" / "half1" / "checkpoint.pt")
    with pytest.raises(InputError, match=r"do not belong to the settings in config\.json"):
        TrainedCritic.of(state, replace(CONFIG, templates=9), BOX)
