"""The verdict: maps of noise are named as such, maps of particles are not; no truth is known."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import cryogan as cg
from cryogan.objectives.adversarial.config import Stage
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.base import Maps
from cryogan.objectives.likelihood.held_out import HeldOut
from cryogan.particles import ArrayStack, Particles
from cryogan.phantom import phantom_map
from cryogan.run.verdict import verdict_of, weigh
from cryogan.simulation.microscope import perfect_ctf
from simulated_sets import centred_particles

BOX, PIXEL_A = 24, 8.0
SHORT = {
    "initialisations": 1,
    "initial_attempts": 1,
    "initial_batches": 2,
    "initial_batch_size": 150,
    "initial_rings": (5, 7),
    "iterations": 2,
}


def held(gain: float, spread: float = 1.0, n: int = 200) -> HeldOut:
    """Images that gain so much over five random maps, which differ by 0.1, and over a sphere."""
    generator = torch.Generator().manual_seed(3)
    scatter = spread * torch.randn(n, generator=generator)
    of_random = torch.linspace(-0.1, 0.1, 5)[:, None].expand(5, n)
    return HeldOut(gain + scatter - scatter.mean(), of_random, torch.zeros(n) - 0.5)


def test_statistics_of_the_gain():
    found = held(2.0)
    assert found.gain == pytest.approx(2.0, abs=1e-5)
    assert found.z_of_images == pytest.approx(2.0 * 200**0.5 / float(found.of_map.std()), rel=1e-4)
    assert found.z_of_maps == pytest.approx(2.0 / 0.0790569, rel=1e-4)


def test_a_map_no_better_than_its_spherical_average_gains_nothing():
    found = replace(held(2.0), of_sphere=held(2.1).of_map)
    assert found.gain < 0
    assert found.z_of_images < 0


def test_a_map_worse_than_noise_alone_gains_nothing():
    """Of images that hold nothing, the map that holds least loses least."""
    found = held(2.0)
    found = HeldOut(found.of_map - 5.0, found.of_random - 5.0, found.of_sphere - 5.0)
    assert found.gain == pytest.approx(-3.0, abs=1e-5)
    assert found.z_of_images < 0
    assert weigh(found, found, 200.0, 20.0).word == "no structure"


@pytest.mark.parametrize(
    ("gains", "agreed_A", "word"),
    [
        ((2.0, 2.0), 20.0, "structure found"),
        ((2.0, 0.02), 20.0, "no structure"),  # one half-set has none
        ((2.0, 0.32), 20.0, "doubtful"),  # four standard deviations
        ((2.0, 0.2), 20.0, "no structure"),  # 2.5
        ((2.0, 2.0), 150.0, "doubtful"),  # half-maps that do not agree
        ((-1.0, 2.0), 20.0, "no structure"),
    ],
)
def test_the_weaker_half_set_decides(gains, agreed_A, word):
    first, second = (held(gain) for gain in gains)
    assert weigh(first, second, 200.0, agreed_A).word == word


@pytest.mark.parametrize(
    ("gain", "word"),
    [(0.12, "no structure"), (0.2, "doubtful"), (0.26, "structure found")],
)
def test_random_maps_must_explain_less_by_more_than_they_differ(gain, word):
    """Images gain by 17 standard deviations or more; maps by 1.5, 2.5 and 3.3 of their own."""
    found = held(gain, spread=0.1)
    assert found.z_of_images > 15
    assert weigh(found, found, 200.0, 20.0).word == word


@pytest.fixture(scope="module")
def particles() -> Particles:
    generator = torch.Generator().manual_seed(5)
    return centred_particles(
        phantom_map(BOX, PIXEL_A)[None], PIXEL_A, 300, -4.0, generator
    ).particles


def run(particles: Particles, folder: Path, max_shift: str | None = None) -> cg.Reconstruction:
    return cg.reconstruct(
        particles,
        objective="likelihood",
        settings=SHORT,
        max_shift=max_shift,
        folder=folder,
        device="cpu",
    )


def noise_in_place_of(particles: Particles, colour: str) -> Particles:
    generator = torch.Generator().manual_seed(8)
    noise = torch.randn(300, BOX, BOX, generator=generator)
    if colour == "coloured":
        noise = noise + torch.nn.functional.avg_pool2d(noise, 3, 1, 1) * 3.0
    return replace(particles, stack=ArrayStack(noise))


@pytest.mark.slow
@pytest.mark.parametrize("colour", ["white", "coloured"])
def test_noise_has_no_structure(particles, colour, tmp_path):
    found = run(noise_in_place_of(particles, colour), tmp_path / "run")
    assert found.verdict == "no structure"
    summary = json.loads((found.folder / "summary.json").read_text())
    assert summary["verdict"]["word"] == "no structure"


@pytest.mark.slow
def test_noise_has_none_by_adversarial_training(particles, tmp_path):
    found = cg.reconstruct(
        noise_in_place_of(particles, "coloured"),
        objective="adversarial",
        settings={"stages": (Stage(16, 3200, 3.0),), "batch_size": 64},
        max_shift="0",
        folder=tmp_path / "run",
        device="cpu",
    )
    assert found.verdict == "no structure"


@pytest.mark.slow
def test_particles_have(particles, tmp_path):
    found = run(particles, tmp_path / "run", "0")
    assert found.verdict == "structure found"
    assert float(found.fsc["half_map"][1:4].min()) > 0.7  # plain half-maps are right there, too


def kept(particles: Particles, first: int) -> Particles:
    """With half-sets of their own, of which one has so many particles."""
    half = 1 + (torch.arange(len(particles)) >= first).long()
    return replace(particles, half=half)


@pytest.mark.slow
def test_half_sets_of_unequal_size_have_a_verdict(particles, tmp_path):
    """As a .cs file can have them; of one in three images, too: 100 may leave it doubtful."""
    found = cg.reconstruct(
        kept(particles, 100),
        objective="likelihood",
        settings=SHORT,
        max_shift="0",
        keep_halves=True,
        folder=tmp_path / "run",
        device="cpu",
    )
    assert found.verdict in ("structure found", "doubtful")


def test_a_half_set_of_few_particles_tells_nothing():
    few = (Particles(ArrayStack(torch.zeros(n, BOX, BOX)), perfect_ctf(n), 8.0) for n in (40, 160))
    maps = Maps(*(torch.zeros(1, 1, 1),) * 4, *(torch.zeros(1),) * 2, PIXEL_A)
    where = {"noise": None, "seed": 0, "device": torch.device("cpu")}
    found = verdict_of(maps, tuple(few), Assumptions(), **where)
    assert found.word == "doubtful"
    assert "40 and 160 particles" in found.reason
