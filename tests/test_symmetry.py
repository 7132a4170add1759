"""Point groups: group axioms, published orders, and RELION's own operators."""

import re
import shutil
import subprocess

import pytest
import torch

from cryogan.errors import InputError
from cryogan.symmetry import symmetry_matrices

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


@pytest.mark.skipif(shutil.which("relion_refine") is None, reason="RELION is not installed")
@pytest.mark.parametrize("name", ["C3", "D2", "D7", "T", "O", "I"])
def test_equals_the_operators_that_relion_prints(name: str) -> None:
    printed = subprocess.run(
        ["relion_refine", "--sym", name, "--print_symmetry_ops"], capture_output=True, text=True
    ).stdout
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
