"""The symmetry of maps: found where it is, not found where it is not, in any orientation."""

import math

import pytest
import torch
from torch import Generator, Tensor

from cryogan.errors import InputError
from cryogan.evaluation.alignment import apply_alignment
from cryogan.evaluation.fsc import fourier_shell_correlation
from cryogan.evaluation.resampling import move_map
from cryogan.evaluation.symmetry_search import Symmetry, find_symmetry
from cryogan.physics.rotations import angle_between, random_rotations
from cryogan.symmetry import symmetry_matrices

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
PIXEL_A = 2.0


def balls(places: Tensor, box_size: int) -> Tensor:
    """(D, D, D) Gaussian balls of 1 px at places (n, 3): analytic, in any orientation."""
    axis = torch.arange(box_size) - box_size // 2
    line = torch.exp(-0.5 * (axis - places[..., None]).square())  # (n, 3, D)
    return torch.einsum("nz,ny,nx->zyx", line[:, 2], line[:, 1], line[:, 0])


def subunit(count: int, radius_px: float, generator: Generator) -> Tensor:
    """(count, 3) places in a ball."""
    place = torch.randn(count, 3, generator=generator)
    distance = radius_px * torch.rand(count, 1, generator=generator) ** (1 / 3)
    return place / place.norm(dim=1, keepdim=True) * distance


def copies(group: str, places: Tensor) -> Tensor:
    """(g, n, 3) of places (n, 3)."""
    return torch.einsum("gij,nj->gni", symmetry_matrices(group), places)


def placed(places: Tensor, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Places (..., 3) in a random orientation, off centre, and what they were moved by."""
    rotation = random_rotations(1, generator)[0]
    centre = 3.0 * torch.rand(3, generator=generator) - 1.5
    return (places @ rotation.T + centre).reshape(-1, 3), rotation, centre


def half_maps(volume: Tensor, generator: Generator, snr: float = 0.5) -> Tensor:
    """(2, D, D, D) with independent white noise."""
    noise = torch.randn(2, *volume.shape, generator=generator)
    return volume + volume.std() / math.sqrt(snr) * noise


def axes_apart_deg(found: Symmetry, number: int, group: str, rotation: Tensor) -> float:
    """The largest angle from an operator of the group, as placed, to the nearest one found."""
    frame, operators = found.frames[number].rotation, symmetry_matrices(group)
    mine, true = frame.T @ operators @ frame, rotation @ operators @ rotation.T
    return max(float(angle_between(mine, each).min()) for each in true)


@pytest.mark.parametrize(
    ("group", "rotations"), [("C2", 1), ("C7", 3), ("D2", 3), ("T", 7), ("O", 16), ("I", 37)]
)
def test_every_group_is_found_about_its_axes(
    group: str, rotations: int, generator: Generator
) -> None:
    """In both half-maps, each on its own; the map is brought to the operators of its name.

    Measured: axes within 0.4 to 2.0°, centres within 0.1 px, qualities 0.96 and more.
    """
    box_size = 44 if group == "I" else 32
    order = len(symmetry_matrices(group))
    places = copies(group, subunit(max(4, 60 // order), 0.36 * box_size, generator))
    moved, rotation, centre = placed(places, generator)
    maps = half_maps(balls(moved, box_size), generator)
    found = find_symmetry(maps, PIXEL_A, resolution_A=box_size * PIXEL_A / 13)
    assert found.group == group
    evidence = found.candidates[-1]
    assert evidence.worst.quality > 0.93
    assert evidence.other < 0.9
    assert len(evidence.rotations) == rotations  # one of two inverse ones
    for number, frame in enumerate(found.frames):
        assert axes_apart_deg(found, number, group, rotation) < 2.5
        left = frame.rotation @ centre + frame.shift_A / PIXEL_A
        assert float((left[:2] if group[0] == "C" else left).norm()) < 0.3


def test_a_map_in_standard_orientation_has_the_operators_of_its_group(generator: Generator) -> None:
    """And it is found there as it is."""
    moved, _, _ = placed(copies("D3", subunit(10, 11.0, generator)), generator)
    volume = balls(moved, 32)
    found = find_symmetry(volume[None], PIXEL_A)
    assert found.group == "D3"
    standard = apply_alignment(volume, found.frames[0], PIXEL_A)
    for operator in symmetry_matrices("D3")[1:]:
        turned = move_map(standard, operator, torch.zeros(3), False)
        assert float(fourier_shell_correlation(standard, turned)[1:10].min()) > 0.95


@pytest.mark.parametrize(("count", "number"), [(8, 2), (30, 2), (120, 2), (30, 1)])
def test_a_map_without_symmetry_has_none(count: int, number: int, generator: Generator) -> None:
    """From a few balls to a nearly uniform ball of many; half-maps, and one map alone."""
    moved, _, _ = placed(subunit(count, 11.0, generator), generator)
    maps = half_maps(balls(moved, 32), generator)[:number]
    assert find_symmetry(maps, PIXEL_A).group == "C1"


@pytest.mark.parametrize(("altered", "left"), [((0,), "C1"), ((0, 1), "C2")])
def test_altered_subunits_break_the_symmetry(
    altered: tuple[int, ...], left: str, generator: Generator
) -> None:
    """A quarter of the balls of one subunit of D2 elsewhere: none; alike in two of them: C2."""
    places = copies("D2", subunit(16, 11.0, generator))
    instead = copies("D2", subunit(4, 11.0, generator))
    for number in altered:
        places[number, :4] = instead[number]
    moved, _, _ = placed(places, generator)
    found = find_symmetry(half_maps(balls(moved, 32), generator, snr=2.0), PIXEL_A)
    assert found.group == left
    assert "D2" in [candidate.group for candidate in found.candidates]


def test_pseudo_symmetry_ends_where_half_maps_say_so(generator: Generator) -> None:
    """Subunits of one shape and different detail: D2 to 11 Å and no further."""
    coarse = copies("D2", subunit(6, 10.0, generator))
    apart = 0.6 * torch.randn(coarse.shape, generator=generator)
    moved, _, _ = placed(torch.cat((coarse + apart, coarse - apart)), generator)
    maps = half_maps(balls(moved, 32), generator, snr=2.0)
    fine = find_symmetry(maps, PIXEL_A)
    assert fine.group == "C1"
    assert find_symmetry(maps, PIXEL_A, resolution_A=11.0).group == "D2"
    d2 = next(each for each in fine.candidates if each.group == "D2")
    assert d2.worst.quality < 0.8
    assert d2.resolution_A > fine.limit_A


@pytest.mark.parametrize(("group", "part"), [("C14", "C7"), ("C16", "C8")])
def test_of_orders_above_12_a_part_is_found(group: str, part: str, generator: Generator) -> None:
    """Half the angle of C7 is a rotation of C14, as is the twofold rotation about the axis."""
    places = subunit(8, 5.0, generator) + torch.tensor([8.0, 0.0, 0.0])
    moved, rotation, _ = placed(copies(group, places), generator)
    maps = half_maps(balls(moved, 32), generator, snr=2.0)
    found = find_symmetry(maps, PIXEL_A, resolution_A=5.0)
    assert found.group == part
    assert found.candidates[-1].other < 0.9
    assert axes_apart_deg(found, 0, part, rotation) < 2.5


def rod() -> Tensor:
    axis = torch.zeros(40, 3)
    axis[:, 2] = torch.linspace(-9.0, 9.0, 40)
    return axis


def cone() -> Tensor:
    """No rotation but those about one axis, which are as good at every angle."""
    angle = torch.linspace(0.0, 2.0 * math.pi, 121)[:-1]
    rings = [(3.0 + height, 2.0 * height - 6.0) for height in (0.0, 2.0, 4.0, 6.0)]
    return torch.cat(
        [
            torch.stack((r * angle.cos(), r * angle.sin(), torch.full_like(angle, z)), dim=1)
            for r, z in rings
        ]
    )


@pytest.mark.parametrize("places", [rod(), cone(), torch.zeros(1, 3)], ids=["rod", "cone", "ball"])
def test_a_smooth_round_map_has_no_group_of_its_own(places: Tensor, generator: Generator) -> None:
    """It is as good at every angle about its axis, or about any."""
    moved, _, _ = placed(places, generator)
    found = find_symmetry(half_maps(balls(moved, 32), generator), PIXEL_A, resolution_A=7.0)
    assert found.group == "C1"
    assert "no common group" in found.reason


def test_noise_and_maps_of_few_shells_tell_nothing(generator: Generator) -> None:
    noise = torch.randn(2, 32, 32, 32, generator=generator)
    found = find_symmetry(noise, PIXEL_A)
    assert found.group == "C1"
    assert "too few to tell" in found.reason
    moved, _, _ = placed(copies("D2", subunit(10, 11.0, generator)), generator)
    found = find_symmetry(half_maps(balls(moved, 32), generator), PIXEL_A, resolution_A=16.0)
    assert (found.group, found.limit_A) == ("C1", 16.0)


@pytest.mark.parametrize(
    ("maps", "words"),
    [
        (torch.zeros(1, 20, 20, 20), "constant"),
        (torch.ones(2, 12, 12, 12), "at least 16"),
        (torch.ones(1, 16, 16, 18), "cubes"),
    ],
)
def test_maps_that_cannot_have_one_are_refused(maps: Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        find_symmetry(maps, PIXEL_A)
