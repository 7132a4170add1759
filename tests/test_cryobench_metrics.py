"""CryoBench's metrics against brute force, published values and textbook cases."""

import itertools
import math

import numpy as np
import pytest
import roma
import torch
from torch import Tensor

from cryogan.evaluation.alignment import Alignment
from cryogan.evaluation.classes import adjusted_rand_index, class_accuracy, contingency
from cryogan.evaluation.cryobench import (
    area_under_fsc,
    cryobench_fsc,
    images_at_equal_steps,
    images_of_states,
)
from cryogan.evaluation.embeddings import (
    circular_correlation,
    information_imbalance,
    neighbourhood_similarity,
    on_circle,
    smeared,
)
from cryogan.evaluation.pose_errors import in_frame_of_truth, pose_errors_deg
from cryogan.physics.rotations import random_rotations
from cryogan.symmetry import symmetry_matrices

# FSC


def by_the_definition(first: Tensor, second: Tensor) -> list[float]:
    """Shells of the whole centred transform, one after the other."""
    size = first.shape[-1]
    axis = np.arange(-(size // 2), size // 2)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    distance = np.sqrt(x**2 + y**2 + z**2)
    a, b = (
        np.fft.fftshift(np.fft.fftn(np.fft.fftshift(each.double().numpy())))
        for each in (first, second)
    )
    curve = [1.0]
    for shell in range(1, size // 2):
        mine = (distance < shell) & (distance >= shell - 1)
        cross = np.vdot(a[mine], b[mine])
        norm = np.sqrt(np.vdot(a[mine], a[mine]) * np.vdot(b[mine], b[mine]))
        curve.append(float((cross / norm).real))
    return curve


def test_fsc_in_cryobenchs_shells(generator):
    first, noise = torch.randn(2, 16, 16, 16, generator=generator)
    second, mask = first + noise, torch.rand(16, 16, 16, generator=generator)
    assert cryobench_fsc(first, second).tolist() == pytest.approx(
        by_the_definition(first, second), abs=1e-5
    )
    assert cryobench_fsc(first, second, mask).tolist() == pytest.approx(
        by_the_definition(first * mask, second * mask), abs=1e-5
    )


def test_the_largest_area_is_the_published_one(generator):
    volume = torch.randn(128, 128, 128, generator=generator)
    curve = cryobench_fsc(volume, volume)
    assert len(curve) == 64
    assert float(area_under_fsc(curve, 128)) == pytest.approx(63 / 128)
    assert float(area_under_fsc(cryobench_fsc(volume, -volume), 128)) == pytest.approx(63 / 128)
    assert float(area_under_fsc(torch.linspace(1.0, 0.0, 64), 128)) == pytest.approx(63 / 256)


def test_which_images():
    assert images_at_equal_steps(1000, 100).tolist() == list(range(0, 1000, 10))
    assert len(images_at_equal_steps(1050, 100)) == 105  # as published: steps of N // n
    assert images_at_equal_steps(3, 100).tolist() == [0, 1, 2]
    latent = torch.tensor([[0.0], [0.1], [0.5], [0.9], [0.2], [0.7]])
    state = torch.tensor([0, 0, 0, 2, 2, 2])
    assert images_of_states(latent, state, 3).tolist() == [1, 5]  # means 0.2 and 0.6


# Embeddings


def test_neighbourhood_similarity_by_brute_force(generator):
    first, second = torch.rand(50, 2, generator=generator), torch.rand(50, 3, generator=generator)
    expected = []
    for start in range(5):
        one, two = first[start::5], second[start::5]
        matches = 0
        for point in range(10):
            near = [
                set(((each - each[point]).norm(dim=1)).argsort()[:4].tolist())
                for each in (one, two)
            ]
            matches += len(near[0] & near[1])
        expected.append(matches / 10 / 3)
    mean, std = neighbourhood_similarity(first, second, 0.3)
    assert mean == pytest.approx(np.mean(expected))
    assert std == pytest.approx(np.std(expected))
    assert neighbourhood_similarity(first, first, 0.3)[0] == pytest.approx(4 / 3)


def test_neighbourhood_similarity_of_chance(generator):
    first, second = torch.rand(2, 2000, 1, generator=generator)
    assert neighbourhood_similarity(first, second, 0.1)[0] == pytest.approx(
        0.1 + 0.9 / 40, abs=0.01
    )


def test_information_imbalance_by_brute_force(generator):
    first, second = torch.rand(30, 2, generator=generator), torch.rand(30, 1, generator=generator)
    for k in (1, 3):
        total = [0.0, 0.0]
        for point, (side, one, two) in itertools.product(
            range(30), ((0, first, second), (1, second, first))
        ):
            order = (one - one[point]).norm(dim=1).argsort().tolist()
            ranks = (two - two[point]).norm(dim=1).argsort().tolist()
            order.remove(point)
            total[side] += sum(ranks.index(other) for other in order[:k]) / k
        expected = [2.0 * value / 30**2 for value in total]
        assert information_imbalance(first, second, k) == pytest.approx(expected)


DADAPY = {1: (0.26722222222222225, 0.22), 3: (0.27240740740740743, 0.2427777777777778)}


def test_information_imbalance_is_dadapys():
    """Values of dadapy 0.3.4: MetricComparisons(a).return_information_imbalace(b, k=k)."""
    draw = np.random.default_rng(0)
    turns = draw.random(60)
    circle = on_circle(torch.from_numpy(turns))
    line = torch.from_numpy((turns + 0.05 * draw.standard_normal(60))[:, None])
    for k, expected in DADAPY.items():
        assert information_imbalance(circle, line, k) == pytest.approx(expected, abs=1e-9)


def test_information_imbalance_of_chance_and_of_equals(generator):
    first, second = torch.rand(2, 1000, 1, generator=generator)
    assert information_imbalance(first, second) == pytest.approx((1.0, 1.0), abs=0.06)
    assert information_imbalance(first, first) == pytest.approx((2 / 1000, 2 / 1000))


def test_circular_correlation_by_all_pairs(generator):
    a, b = torch.rand(2, 12, generator=generator).double()
    b = a + 0.2 * b
    pairs = list(itertools.combinations(range(12), 2))
    one, two = (
        torch.tensor([math.sin(2 * math.pi * float(x[i] - x[j])) for i, j in pairs]) for x in (a, b)
    )
    expected = float((one * two).sum() / (one.square().sum() * two.square().sum()).sqrt())
    assert circular_correlation(a, b) == pytest.approx(expected, abs=1e-6)
    assert circular_correlation(a, (a + 0.3) % 1.0) == pytest.approx(1.0)
    assert circular_correlation(a, (0.8 - a) % 1.0) == pytest.approx(-1.0)
    one, two = torch.rand(2, 20_000, generator=generator)
    assert abs(circular_correlation(one, two)) < 0.02
    assert circular_correlation(torch.zeros(5), one[:5]) == 0.0


def test_states_are_smeared_to_the_next(generator):
    coordinate = torch.arange(4).double().repeat_interleave(1000) / 4
    spread = smeared(coordinate, generator)
    assert float((spread - coordinate).abs().max()) <= 0.125
    assert float((spread - coordinate).std()) == pytest.approx(0.25 / math.sqrt(12), rel=0.03)
    assert smeared(torch.zeros(3), generator).tolist() == [0.0] * 3


# Classes


def test_class_accuracy_is_the_best_of_all_matches(generator):
    table = torch.randint(0, 20, (4, 3), generator=generator)
    accuracy, match = class_accuracy(table)
    best = max(
        sum(int(table[row, column]) for column, row in enumerate(rows))
        for rows in itertools.permutations(range(4), 3)
    )
    assert accuracy == pytest.approx(best / int(table.sum()))
    assert sorted(match.tolist()) == [-1, 0, 1, 2]
    found, true = torch.tensor([1, 1, 0, 2]), torch.tensor([0, 0, 1, 1])
    assert contingency(found, true, 3, 2).tolist() == [[0, 1], [2, 0], [0, 1]]
    assert class_accuracy(contingency(found, true, 3, 2))[0] == 0.75


@pytest.mark.parametrize(
    ("found", "true", "expected"),
    [
        ([0, 0, 1, 1], [1, 1, 0, 0], 1.0),
        ([0, 0, 1, 2], [0, 0, 1, 1], 0.5714285714),  # scikit-learn's manual
        ([0, 0, 0, 0], [0, 1, 2, 3], 0.0),
        ([0, 0, 1, 1], [0, 1, 0, 1], -0.5),
        ([0, 0, 0], [0, 0, 0], 1.0),
    ],
)
def test_adjusted_rand_index(found, true, expected):
    table = contingency(torch.tensor(found), torch.tensor(true), 4, 4)
    assert adjusted_rand_index(table) == pytest.approx(expected)


def test_adjusted_rand_index_by_all_pairs(generator):
    found, true = torch.randint(0, 4, (2, 40), generator=generator)
    pairs = torch.combinations(torch.arange(40))
    same = [each[pairs[:, 0]] == each[pairs[:, 1]] for each in (found, true)]
    both, first, second = ((x.double().sum()) for x in (same[0] & same[1], same[0], same[1]))
    chance = first * second / len(pairs)
    expected = (both - chance) / ((first + second) / 2 - chance)
    table = contingency(found, true, 4, 4)
    assert adjusted_rand_index(table) == pytest.approx(float(expected))


# Poses


@pytest.mark.parametrize("mirrored", [False, True])
def test_pose_errors_in_the_frame_of_the_truth(mirrored, generator):
    """A map turned by Q has poses Qᵀ R; its mirror image shows R turned by 180° in the plane."""
    true = random_rotations(20, generator).double()
    turn = random_rotations(1, generator)[0].double()
    half = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))
    axis = torch.nn.functional.normalize(torch.randn(20, 3, generator=generator).double(), dim=1)
    off = roma.rotvec_to_rotmat(math.radians(5.0) * axis)
    assigned = turn.T @ off @ (true @ half if mirrored else true)
    alignment = Alignment(turn, torch.zeros(3), mirrored, 1.0)
    error, _ = pose_errors_deg(in_frame_of_truth(assigned, alignment), true)
    assert error.tolist() == pytest.approx([5.0] * 20, abs=1e-4)


def test_symmetric_copies_of_a_pose_are_the_same(generator):
    operators = symmetry_matrices("D2").double()
    true = random_rotations(10, generator).double()
    error, copy = pose_errors_deg(operators[2] @ true, true, operators)
    assert float(error.max()) < 1e-3
    assert float(angle := pose_errors_deg(operators[2] @ true, true)[0].min()) > 170, angle
    torch.testing.assert_close(
        operators[copy] @ operators[2], torch.eye(3).double().expand(10, 3, 3)
    )
