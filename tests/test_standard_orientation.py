"""A symmetry given to what goes on from a run: maps have it, are turned to it, or it is refused."""

import pytest
import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.evaluation.alignment import Alignment, apply_alignment
from cryogan.phantom import phantom_map
from cryogan.physics.rotations import euler_to_matrix
from cryogan.run.standard_orientation import in_standard_orientation, symmetry_correlation

BOX, PIXEL_A = 24, 8.0


def halves(symmetry: str, turn_deg: list[float], generator: torch.Generator) -> Tensor:
    """(2, 1, D, D, D) a phantom turned and moved, and noise."""
    turn = euler_to_matrix(torch.tensor([turn_deg]))[0]
    truth = phantom_map(BOX, PIXEL_A, symmetry=symmetry)  # type: ignore[arg-type]
    moved = apply_alignment(truth, Alignment(turn, torch.tensor([5.0, -3.0, 2.0]), False, 1.0), 8.0)
    noise = torch.randn(2, 1, BOX, BOX, BOX, generator=generator)
    return moved + 0.3 * float(truth.std()) * noise


def test_maps_that_have_the_symmetry_stay_as_they_are(generator):
    basis = phantom_map(BOX, PIXEL_A, symmetry="D2").expand(2, 1, -1, -1, -1)
    for symmetry in ("D2", "C2", "C1"):
        assert in_standard_orientation(basis, symmetry, PIXEL_A) is basis


@pytest.mark.slow
def test_maps_are_turned_to_the_axes_of_the_symmetry(generator):
    basis = halves("D2", [30.0, 50.0, 70.0], generator)
    assert symmetry_correlation(basis[:, 0].mean(0), "D2") < 0.7
    found = in_standard_orientation(basis, "D2", PIXEL_A)
    for half in found[:, 0]:
        assert symmetry_correlation(half, "D2") > 0.9


@pytest.mark.slow
def test_a_symmetry_that_maps_do_not_have_is_refused(generator):
    with pytest.raises(InputError, match=r"no symmetry D2 in any .* anew with --sym D2"):
        in_standard_orientation(halves("C1", [10.0, 20.0, 30.0], generator), "D2", PIXEL_A)
