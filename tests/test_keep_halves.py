"""Half-sets that the particles came with are kept, by a run and what goes on from it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import cryogan as cg
from cryogan.api import settings_for
from cryogan.data.normalisation import normalised
from cryogan.objectives.assumptions import Assumptions
from cryogan.particles import ArrayStack, Particles
from simulated_sets import centred_particles

BOX, PIXEL_SIZE_A, N = 16, 12.0, 24

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread_everywhere", "one_thread")]


@pytest.fixture(scope="module")
def particles() -> Particles:
    generator = torch.Generator().manual_seed(3)
    volume = cg.phantom_map(BOX, PIXEL_SIZE_A)
    made = centred_particles(volume, PIXEL_SIZE_A, N, 5.0, generator).particles
    half = 1 + (torch.arange(N) % 3 > 0).long()
    return replace(made, stack=ArrayStack(made.stack.read(torch.arange(N))), half=half)


def run(particles: Particles, folder: Path, *, keep_halves: bool) -> cg.Reconstruction:
    objective = settings_for("simple_objective:Together", Assumptions())
    return cg.reconstruct(
        particles, objective=objective, folder=folder, keep_halves=keep_halves, device="cpu"
    )


def test_half_sets_are_kept(particles: Particles, tmp_path: Path) -> None:
    found = run(particles, tmp_path / "run", keep_halves=True)
    assert particles.half is not None
    images = normalised(particles)[0].stack
    for number, half_map in enumerate(found.halves, start=1):
        index = (particles.half == number).nonzero()[:, 0]
        sum_of_first = images.read(index[:3]).sum(0)
        torch.testing.assert_close(half_map.volume[0], sum_of_first)
    assert "halves" in json.loads((tmp_path / "run" / "config.json").read_text())["particles"]
    poses = cg.assign(particles, found, device="cpu")
    assert torch.equal(poses.half, particles.half)

    assert run(particles, tmp_path / "run", keep_halves=True).finished
    with pytest.raises(cg.InputError, match=r"another run \(halves differs\)"):
        run(particles, tmp_path / "run", keep_halves=False)
    others = replace(particles, half=3 - particles.half)
    with pytest.raises(cg.InputError, match=r"another run \(halves differs\)"):
        run(others, tmp_path / "run", keep_halves=True)
    with pytest.raises(cg.InputError, match="these particles come with others"):
        cg.assign(others, found, device="cpu")


@pytest.mark.parametrize("half", [None, torch.ones(N, dtype=torch.int64)])
def test_what_is_not_there_is_not_kept(
    half: torch.Tensor | None, particles: Particles, tmp_path: Path
) -> None:
    with pytest.raises(cg.InputError, match=r"rlnRandomSubset must be 1 or 2 .* --keep-halves"):
        run(replace(particles, half=half), tmp_path / "run", keep_halves=True)
    assert not (tmp_path / "run").exists()
