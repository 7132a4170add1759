"""Point groups: group axioms, published orders, RELION's own operators and asymmetric units."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from cryogan.errors import InputError
from cryogan.io.mrc import write_map, write_stack
from cryogan.io.relion_writing import write_particles
from cryogan.io.star import read_star
from cryogan.particles import CTFParams, Pose
from cryogan.phantom import phantom_map
from cryogan.physics.rotations import euler_to_matrix, matrix_to_euler, random_rotations
from cryogan.symmetry import in_asymmetric_unit, point_group, symmetry_matrices
from relion_programs import relion

ORDERS = {"C1": 1, "C7": 7, "D1": 2, "D2": 4, "D7": 14, "T": 12, "O": 24, "I": 60}


def same_set(first: torch.Tensor, second: torch.Tensor, tolerance: float) -> bool:
    """Whether every matrix of each list is in the other."""
    distance = (first[:, None] - second[None]).abs().amax(dim=(-2, -1))
    return bool(distance.amin(0).max() < tolerance and distance.amin(1).max() < tolerance)


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_is_a_group_of_rotations_of_the_right_order(name: str, order: int) -> None:
    group = symmetry_matrices(name)
    assert group.shape == (order, 3, 3)
    assert torch.equal(group[0], torch.eye(3))
    assert torch.allclose(group @ group.mT, torch.eye(3).expand_as(group), atol=1e-6)
    assert torch.allclose(torch.linalg.det(group), torch.ones(order), atol=1e-6)
    distinct = (group[:, None] - group[None]).abs().amax(dim=(-2, -1)) + torch.eye(order)
    assert distinct.min() > 1e-3
    products = (group[:, None] @ group[None]).reshape(-1, 3, 3)
    assert same_set(products, group, 1e-5)


@pytest.mark.parametrize("name", ["C3", "D2", "D7", "T", "O", "I"])
def test_equals_the_operators_that_relion_prints(name: str, tmp_path: Path) -> None:
    printed = relion("relion_refine", "--sym", name, "--print_symmetry_ops", folder=tmp_path)
    rows = [
        [float(word) for word in line.split()]
        for line in printed.splitlines()
        if re.fullmatch(r"(\s+-?\d[-+.\de]*){3}\s*", line)
    ]
    theirs = torch.tensor(rows).reshape(-1, 3, 3)
    assert len(theirs) == ORDERS.get(name, 3)
    assert same_set(symmetry_matrices(name), theirs, 1e-4)


def test_names_are_read_in_either_case() -> None:
    assert torch.equal(symmetry_matrices("d2"), symmetry_matrices("D2"))


@pytest.mark.parametrize("name", ["", "C", "C0", "X3", "T2", "D-2", "C1.5", "O3"])
def test_an_unknown_name_is_named_in_the_error(name: str) -> None:
    with pytest.raises(InputError, match=re.escape(repr(name))):
        symmetry_matrices(name)


@pytest.mark.parametrize("name", ["", "C", "C0", "X3", "T2", "D-2", "C1.5", "O3", "C1000"])
def test_names_are_checked_without_making_the_group(name: str) -> None:
    with pytest.raises(InputError, match=re.escape(repr(name))):
        point_group(name)
    assert point_group(" d7 ") == ("D", 7)
    assert point_group("o") == ("O", 1)


# RELION's asymmetric unit


def random_poses(n: int, generator: torch.Generator) -> Pose:
    return Pose(random_rotations(n, generator), 4 * torch.randn(n, 2, generator=generator))


@pytest.mark.parametrize("symmetry", ["C1", "C3", "D2", "D3", "T", "O", "I"])
def test_equivalent_poses_show_the_same(symmetry: str, generator: torch.Generator) -> None:
    """Moved by an element of the group; twice moved is once moved; the unit is 1/m of a sphere."""
    pose = random_poses(20_000, generator)
    moved = in_asymmetric_unit(pose, symmetry)
    group = symmetry_matrices(symmetry)
    element = moved.rotation @ pose.rotation.mT
    distance = (element[:, None] - group).abs().amax((-2, -1)).min(1).values
    assert float(distance.max()) < 1e-5
    assert torch.equal(moved.shift_A, pose.shift_A)
    again = in_asymmetric_unit(moved, symmetry)
    stays = (again.rotation - moved.rotation).abs().amax((-2, -1)) < 1e-5
    assert float(stays.double().mean()) > 0.999  # all but those on its edge
    stayed = (moved.rotation - pose.rotation).abs().amax((-2, -1)) < 1e-5
    assert int(stayed.sum()) == pytest.approx(20_000 / len(group), rel=0.15)


def test_the_unit_of_dihedral_groups(generator: torch.Generator) -> None:
    for n in (2, 3, 7):
        pose = in_asymmetric_unit(random_poses(1000, generator), f"D{n}")
        rot_deg, tilt_deg, _ = matrix_to_euler(pose.rotation).unbind(-1)
        assert float(tilt_deg.max()) < 90.1
        assert float((rot_deg - 90.0).abs().max()) < 180.0 / n + 0.1


@pytest.mark.parametrize("symmetry", ["C3", "D2", "D7", "T", "O", "I"])
def test_directions_that_relion_samples_are_inside(
    tmp_path: Path, generator: torch.Generator, symmetry: str
) -> None:
    write_map(tmp_path / "map.mrc", phantom_map(16, 12.0), 12.0)
    write_stack(tmp_path / "a.mrcs", torch.randn(2, 16, 16, generator=generator), 12.0)
    ctf = CTFParams.constant(2, defocus_u_A=10000.0)
    write_particles(
        tmp_path / "in.star", image_names="a.mrcs", ctf=ctf, pixel_size_A=12.0, box_size=16
    )
    (tmp_path / "out").mkdir()
    relion(
        *("relion_refine", "--i", "in.star", "--ref", "map.mrc", "--o", "out/run"),
        *("--iter", 1, "--particle_diameter", 150, "--sym", symmetry, "--healpix_order", 3),
        *("--offset_range", 0, "--oversampling", 0, "--pad", 1, "--dont_check_norm"),
        folder=tmp_path,
    )
    tables = read_star(tmp_path / "out/run_it001_sampling.star")
    table = next(table for table in tables if "rlnAngleTilt" in table)
    assert len(table) > 0.8 * 768 / len(symmetry_matrices(symmetry))
    angles = (table.numbers("rlnAngleRot"), table.numbers("rlnAngleTilt"), np.zeros(len(table)))
    direction = euler_to_matrix(torch.from_numpy(np.stack(angles, 1)).float())[:, :, 2]
    direction = direction + 0.02 * direction.mean(0)  # off the edges, where either side will do
    rot_deg = torch.rad2deg(torch.atan2(direction[:, 1], direction[:, 0]))
    tilt_deg = torch.rad2deg(torch.atan2(direction[:, :2].norm(dim=1), direction[:, 2]))
    rotation = euler_to_matrix(torch.stack((rot_deg, tilt_deg, 0 * tilt_deg), 1))
    moved = in_asymmetric_unit(Pose(rotation, torch.zeros(len(table), 2)), symmetry)
    torch.testing.assert_close(moved.rotation, rotation, atol=1e-5, rtol=0)


def test_relions_names_of_the_icosahedral_settings():
    assert torch.equal(symmetry_matrices("I2"), symmetry_matrices("I"))
    assert torch.equal(symmetry_matrices(" i2 "), symmetry_matrices("I"))
    for other in ("I1", "I3", "I4", "I5", "T2", "O2", "TD", "OH"):
        with pytest.raises(InputError, match=f"symmetry '{other}' is unknown.*same as I2"):
            symmetry_matrices(other)
