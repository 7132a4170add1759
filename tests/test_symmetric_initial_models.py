"""Initial models of a molecule whose symmetry is given: about the axes that it has."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from cryogan import fourier
from cryogan.data.halves import split_halves
from cryogan.evaluation.alignment import align, apply_alignment
from cryogan.evaluation.fsc import fourier_shell_correlation
from cryogan.evaluation.symmetry_search import find_axes
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.data_parallel import SINGLE_PROCESS
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.side_by_side import side_by_side
from cryogan.objectives.likelihood.symmetric_initial_models import (
    PHASE,
    describe_symmetry,
    initial_models,
)
from cryogan.particles import ArrayStack
from cryogan.physics.density import gaussian_density
from cryogan.physics.imaging import rescale_volume
from cryogan.physics.rotations import random_rotations
from cryogan.symmetry import symmetry_matrices
from simulated_sets import centred_particles

pytestmark = pytest.mark.slow

BOX, PIXEL_A = 24, 8.0
CPU = torch.device("cpu")
CONFIG = LikelihoodConfig(
    initialisations=2,
    initial_rings=(5, 8),
    initial_batches=3,
    initial_batch_size=120,
    assumptions=Assumptions("C3", max_shift_percent=0.0),
)


def long_trimer(turn: Tensor | None = None) -> Tensor:
    """Three rods around their common axis, about which each winds; thicker at one end."""
    height = torch.linspace(-6.0, 6.0, 13)
    angle = 0.12 * height
    rod = torch.stack((2.6 * angle.cos(), 2.6 * angle.sin(), height), dim=1)
    points = torch.cat([rod @ operator.T for operator in symmetry_matrices("C3")])
    points = points if turn is None else points @ turn.T
    weights = (1.0 + 0.08 * (height + 6.0)).repeat(3)
    return gaussian_density(
        points, box_size=BOX, pixel_size_A=1.0, sigma_A=1.1, weights=10.0 * weights
    )


def halves_of(volume: Tensor, snr_dB: float) -> tuple[HalfSet, HalfSet]:
    generator = torch.Generator().manual_seed(2)
    particles = centred_particles(volume, PIXEL_A, 400, snr_dB, generator).particles
    first, second = split_halves(len(particles), 0)
    return HalfSet.of(particles.subset(first)), HalfSet.of(particles.subset(second))


def made(
    halves: tuple[HalfSet, HalfSet], config: LikelihoodConfig = CONFIG
) -> tuple[list[dict[str, Any]], Tensor, int]:
    """Records, maps and images seen."""
    records: list[dict[str, Any]] = []
    with side_by_side(SINGLE_PROCESS) as sides:
        steps = initial_models(halves, None, config, 3, CPU, sides)
        while True:
            try:
                records.append(dict(next(steps).record))
            except StopIteration as end:
                return records, *end.value


def test_axes_of_a_known_group(generator: torch.Generator) -> None:
    """Wherever they are: the map is moved onto them."""
    (turn,) = random_rotations(1, generator)
    volume = long_trimer(turn)
    pair = torch.stack(
        [volume + 0.02 * torch.randn(volume.shape, generator=generator) for _ in range(2)]
    )
    found = find_axes(pair, PIXEL_A, "C3")
    assert found is not None
    assert found.places_known_group
    for each, frame in zip(pair, found.frames, strict=True):
        moved = apply_alignment(each, frame, PIXEL_A)
        axis = torch.linalg.svd(_second_moments(moved))[0][:, 0]
        assert abs(float(axis[2])) > 0.99
    other = find_axes(pair, PIXEL_A, "C5")
    assert other is None or not other.places_known_group


def test_axes_that_nothing_determines_are_not_taken(generator: torch.Generator) -> None:
    """Of a ball every axis is one, and of an ellipsoid all three have order 2."""
    line = torch.arange(BOX) - float(BOX // 2)
    z, y, x = torch.meshgrid(line, line, line, indexing="ij")
    for radii, group in (((5.0, 5.0, 5.0), "C3"), ((3.0, 5.0, 7.0), "C2")):
        shape = torch.exp(-((x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2))
        noise = 0.01 * torch.randn(2, BOX, BOX, BOX, generator=generator)
        found = find_axes(shape + noise, PIXEL_A, group)
        assert found is None or not found.places_known_group


def test_maps_that_share_nothing_have_no_axes(generator: torch.Generator) -> None:
    noise = torch.randn(BOX, BOX, BOX, generator=generator)
    assert find_axes(torch.stack((noise, -noise)), PIXEL_A, "C3") is None


def _second_moments(volume: Tensor) -> Tensor:
    line = torch.arange(BOX) - float(BOX // 2)
    z, y, x = torch.meshgrid(line, line, line, indexing="ij")
    place = torch.stack((x, y, z)).flatten(1)
    weight = (volume * fourier.soft_disc(BOX, 9.0, 1.0, 3)).flatten().clamp_min(0.0)
    return (place * weight) @ place.T


def test_a_molecule_is_found_about_its_own_axes() -> None:
    """With symmetric random numbers, a rod may come out as three of them across the axis."""
    records, maps, seen = made(halves_of(long_trimer(), -2.0))
    (found,) = [record for record in records if record["phase"] == PHASE]
    assert found["holds"], found
    assert seen == found["images_seen"]
    assert maps.shape[:2] == (2, 1)
    size = maps.shape[-1]
    pixel_A = PIXEL_A * BOX / size
    truth = rescale_volume(long_trimer(), size)
    for volume in maps[:, 0]:
        fsc = fourier_shell_correlation(
            apply_alignment(volume, align(volume, truth, pixel_A), pixel_A), truth
        )
        assert float(fsc[1:5].min()) > 0.7
        moved = torch.stack([volume, volume])
        again = find_axes(moved, pixel_A, "C3")
        assert again is not None
        assert again.frames[0].rotation[2, 2].abs() > 0.95  # where it is already


def test_where_no_axes_are_found_the_symmetry_is_imposed_from_the_start() -> None:
    generator = torch.Generator().manual_seed(11)
    config = replace(CONFIG, initialisations=1, initial_attempts=1, initial_rings=(5, 6))
    noise = []
    for half in halves_of(long_trimer(), -2.0):
        images = torch.randn(len(half), BOX, BOX, generator=generator)
        noise.append(HalfSet.of(replace(half.particles, stack=ArrayStack(images))))
    records, _, seen = made((noise[0], noise[1]), config)
    assert [record["phase"] for record in records].count("half-map comparison") == 2
    found, last = [record for record in records if record["phase"] == PHASE]
    assert not found["holds"]
    assert seen == last["images_seen"] == 2 * found["images_seen"]
    batches = [each for each in records if each["phase"] == "initial model"]
    ends = [batches[-1], batches[len(batches) // 2 - 1]]
    assert last["log_likelihoods"] == [each["log_likelihood"] for each in ends]
    assert [record["images_seen"] for record in records] == sorted(
        record["images_seen"] for record in records
    )


@pytest.mark.parametrize("symmetry", ["C1", "C3"])
def test_given_maps_and_no_symmetry_take_no_detour(symmetry: str) -> None:
    """Poor maps have a frame already."""
    config = replace(
        CONFIG,
        initialisations=1,
        initial_attempts=1,
        initial_rings=(5, 5),
        assumptions=replace(CONFIG.assumptions, symmetry=symmetry),
    )
    halves = halves_of(long_trimer(), -2.0)
    with side_by_side(SINGLE_PROCESS) as sides:
        given = None if symmetry == "C1" else torch.randn(2, 1, BOX, BOX, BOX)
        steps = initial_models(halves, given, config, 3, CPU, sides)
        assert all(step.record["phase"] != PHASE for step in steps)


@pytest.mark.parametrize(
    ("imposed", "plain", "named"),
    [(95.0, 100.0, False), (95.0, 130.0, True), (-2.0, -2.1, False), (0.01, 0.02, False)],
)
def test_a_symmetry_that_costs_likelihood_is_named(
    imposed: float, plain: float, named: bool
) -> None:
    record = {"group": "D2", "holds": False, "reason": "", "log_likelihoods": [imposed, plain]}
    assert ("may not have D2" in describe_symmetry(record)) == named
