"""Rigid-body motions: analytic turns, what moves and what does not, and the Hsp90 paths."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cryogan.errors import InputError
from cryogan.io.atoms import AtomicModel, model_density, read_model
from cryogan.physics.density import molmap_density
from cryogan.simulation.motion import path, rmsd
from cryogan.simulation.settings import Motion


def make_model(positions, chains, residues) -> AtomicModel:
    n = len(chains)
    return AtomicModel(
        name="test.pdb",
        positions_A=torch.as_tensor(positions, dtype=torch.float64),
        chains=tuple(chains),
        residues=torch.tensor(residues),
        atoms=("CA",) * n,
        atomic_numbers=torch.tensor([6, 7, 8, 16] * n)[:n],
        occupancies=torch.ones(n, dtype=torch.float64),
        b_factors_A2=torch.full((n,), 30.0, dtype=torch.float64),
    )


@pytest.fixture
def model(generator) -> AtomicModel:
    """Chains A and B of 20 residues, an atom each."""
    positions = 10.0 * torch.randn(40, 3, generator=generator, dtype=torch.float64)
    return make_model(positions, "A" * 20 + "B" * 20, [*range(1, 21)] * 2)


def turned(point, **motion):
    """Where a motion's last state takes one atom."""
    states, _ = path(make_model([point], "A", [1]), [Motion("A", states=2, **motion)])
    return states[1][0].tolist()


@pytest.mark.parametrize(
    ("axis", "start", "end"),
    [
        ("x", (5, 1, 0), (5, 0, 1)),
        ("y", (0, 5, 1), (1, 5, 0)),
        ("z", (1, 0, 5), (0, 1, 5)),
        ("0,0,2", (1, 0, 5), (0, 1, 5)),
        ("0, 0, -1", (1, 0, 5), (0, -1, 5)),
    ],
)
def test_quarter_turns_are_right_handed(axis, start, end):
    found = turned(start, axis=axis, pivot="0,0,0", last_deg=90.0)
    assert found == pytest.approx(end, abs=1e-12)


def test_a_third_of_a_turn_about_the_diagonal_permutes_the_axes():
    found = turned((1, 2, 3), axis="1,1,1", pivot="0,0,0", last_deg=120.0)
    assert found == pytest.approx((3, 1, 2), abs=1e-12)


def test_turn_about_a_point():
    found = turned((3, 1, 7), axis="z", pivot="2,1,-4", last_deg=30.0)
    expected = (2 + math.cos(math.radians(30)), 1 + math.sin(math.radians(30)), 7)
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("pivot", ["all", "moving", "A/3/CA", "A/1-5,B/2"])
def test_pivot_is_the_centroid_of_a_selection(model, pivot):
    """The component of the pivot across the axis stays where it is, seen from the moving part."""
    motion = Motion("B", axis="y", pivot=pivot, first_deg=-40.0, last_deg=40.0, states=3)
    states, _ = path(model, [motion])
    moving = model.select("B")
    chosen = moving if pivot == "moving" else model.select(pivot)
    centroid = model.positions_A[chosen].mean(dim=0)
    c, s = math.cos(math.radians(40)), math.sin(math.radians(40))
    matrix = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]], dtype=torch.float64)
    expected = (model.positions_A[moving] - centroid) @ matrix.T + centroid
    torch.testing.assert_close(states[2][moving], expected)
    torch.testing.assert_close(states[1], model.positions_A)


def test_moving_part_is_rigid_and_the_rest_stays(model):
    states, _ = path(model, [Motion("B/5-20,A/1", axis="1,2,3", last_deg=70.0, states=4)])
    moving = model.select("B/5-20,A/1")
    start = model.positions_A
    for state in states:
        torch.testing.assert_close(
            torch.cdist(state[moving], state[moving]), torch.cdist(start[moving], start[moving])
        )
        assert torch.equal(state[~moving], start[~moving])
    assert rmsd(states[3][moving], start[moving]) > 5.0
    assert torch.equal(states[-1], states[3])
    assert len(list(states)) == 4


def test_an_arm_carries_its_part_along(model):
    """The angle between arm and part, and the shape of both, do not depend on the arm's angle."""
    arm = Motion("B", axis="y", pivot="A/1/CA", first_deg=-20.0, last_deg=50.0, states=3)
    part = Motion("B/1-8", axis="z", pivot="B/9/CA", last_deg=60.0, states=2)
    states, latent = path(model, [arm, part])
    assert len(states) == 6
    expected = [[0, 0], [0, 1], [0.5, 0], [0.5, 1], [1, 0], [1, 1]]
    assert latent.tolist() == expected
    expected_deg = [[-20, 0], [-20, 60], [15, 0], [15, 60], [50, 0], [50, 60]]
    assert states.angles_deg.tolist() == expected_deg
    b, rest_of_b = model.select("B"), model.select("B/9-20")
    alone, _ = path(model, [part])
    only_arm, _ = path(model, [arm])
    for number, state in enumerate(states):
        torch.testing.assert_close(
            torch.cdist(state[b], state[b]),
            torch.cdist(alone[number % 2][b], alone[number % 2][b]),
        )
        torch.testing.assert_close(state[rest_of_b], only_arm[number // 2][rest_of_b])
    carried, _ = path(model.moved(alone[1]), [replace(arm, pivot="A/1/CA")])
    torch.testing.assert_close(states[5], carried[2])


def test_latent_coordinates_are_even_and_zero_for_a_single_state(model):
    motions = [
        Motion("A", last_deg=10.0, states=5),
        Motion("B", first_deg=7.0, states=1),
        Motion("B", first_deg=8.0, last_deg=-4.0, states=3),
    ]
    states, latent = path(model, motions)
    assert latent.shape == states.angles_deg.shape == (15, 3)
    assert latent[:, 0].unique().tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert latent[:, 1].tolist() == [0.0] * 15
    assert latent[:3, 2].tolist() == [0.0, 0.5, 1.0]
    assert states.angles_deg[:3].tolist() == [[0.0, 7.0, 8.0], [0.0, 7.0, 2.0], [0.0, 7.0, -4.0]]
    alone, none = path(model, [])
    assert none.shape == (1, 0)
    assert torch.equal(alone[0], model.positions_A)


def test_rmsd_is_over_all_atoms_without_superposition():
    first = torch.zeros(4, 3)
    second = torch.zeros(4, 3)
    second[0] = torch.tensor([3.0, 4.0, 0.0])
    assert rmsd(first, second) == pytest.approx(2.5)


def test_a_million_states_are_computed_when_asked_for(model):
    motions = [Motion("A", last_deg=1.0, states=2000), Motion("B", last_deg=1.0, states=500)]
    states, latent = path(model, motions)
    assert len(states) == len(latent) == 1_000_000
    both, _ = path(model, [Motion("all", last_deg=1.0, states=2)])
    torch.testing.assert_close(states[999_999], both[1])


@pytest.mark.parametrize("convention", ["scattering", "molmap"])
def test_density_of_a_turned_model_is_the_turned_density(model, convention):
    """x' = -y, y' = x: the value at (x, y) of the new map was at (y, -x) of the old one."""

    def density(positions):
        options = {"box_size": 41, "pixel_size_A": 2.0, "resolution_A": 8.0}
        if convention == "molmap":
            return molmap_density(positions, model.atomic_numbers, **options)
        return model_density(model.moved(positions), **options)

    states, _ = path(model, [Motion("all", pivot="0,0,0", last_deg=90.0, states=2)])
    before, after = density(states[0]), density(states[1])
    expected = before.transpose(1, 2).flip(2)
    assert float((after - expected).abs().max()) < 3e-3 * float(before.max())
    assert float((after - before).norm()) > 0.5 * float(before.norm())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axis": "w"}, "axis 'w' of the motion of B is not a direction; write x, y, z"),
        ({"axis": "1,0"}, "is not a direction"),
        ({"axis": "0,0,0"}, "is not a direction"),
        ({"axis": "1,nan,0"}, "is not a direction"),
        ({"pivot": "1,2"}, "selection '1,2' names chain 1, which test.pdb does not have"),
        ({"pivot": "A/99"}, "names residue 99 of chain A"),
        ({"atoms": "C"}, "its chains are A, B"),
        ({"states": 0}, "has 0 states; give 1 or more"),
        ({"last_deg": math.inf}, "give finite angles"),
        ({"last_deg": 0.0}, "20 states of the motion of B all lie at 0 degrees"),
    ],
)
def test_bad_motions(model, change, message):
    with pytest.raises(InputError, match=message):
        path(model, [replace(Motion("B", last_deg=19.0), **change)])


@pytest.mark.parametrize(
    "motion",
    [
        Motion("B", axis="y", pivot="A/677/CA", last_deg=9.5),  # ½° a state
        Motion("B/12-442", axis="z", pivot="all", last_deg=19 * 1.44),
    ],
    ids=["arm", "part"],
)
def test_hsp90_states_are_as_far_apart_as_published(shared_data: Path, motion):
    """Seitz et al. 2019 give 0.44 Å between neighbouring states of both motions."""
    models = shared_data / "models"
    model = read_model(models / "monoA_snip.pdb", models / "monoB_snip.pdb")
    assert len(model) == 4842 + 4916
    states, latent = path(model, [motion])
    assert len(states) == 20
    torch.testing.assert_close(latent[:, 0], torch.arange(20, dtype=torch.float64) / 19)
    steps = [rmsd(states[k], states[k + 1]) for k in range(19)]
    assert 0.40 < min(steps) <= max(steps) < 0.46
