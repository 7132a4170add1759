"""Mean maps that mix both hands, and the map of one hand that is made of them."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cryogan.data.halves import split_halves
from cryogan.evaluation.alignment import alignments
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.data_parallel import SINGLE_PROCESS
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.hands import log_likelihoods, map_of_one_hand, mirror_image
from cryogan.objectives.likelihood.mean_maps import mean_maps
from cryogan.objectives.likelihood.side_by_side import side_by_side
from cryogan.objectives.likelihood.view_density import UNIFORM
from cryogan.phantom import phantom_map
from cryogan.physics.imaging import rescale_volume
from simulated_sets import centred_particles

pytestmark = pytest.mark.slow

BOX, PIXEL_A, COUNT = 16, 9.0, 200


CENTRED = LikelihoodConfig(assumptions=Assumptions(max_shift_percent=0.0))
CPU = torch.device("cpu")


def halves_of(truth: Tensor, snr_dB: float = 0.0) -> tuple[HalfSet, HalfSet]:
    """200 images of a map."""
    generator = torch.Generator().manual_seed(0)
    particles = centred_particles(truth, PIXEL_A, COUNT, snr_dB, generator).particles
    first, second = (HalfSet.of(particles.subset(rows)) for rows in split_halves(COUNT, 0))
    return first, second


def correlations(volume: Tensor, truth: Tensor) -> list[float]:
    """With the truth and with its mirror image, least first, each where it is highest."""
    hands = ((False,), (True,))
    found = [alignments(volume, truth, PIXEL_A, hands=each)[0].correlation for each in hands]
    return sorted(found)


@pytest.mark.parametrize("share", [0.5, 0.35])
def test_a_map_of_both_hands_becomes_one_of_one_hand(share: float) -> None:
    """The mixture of equal shares has 0.92 with both hands, what is made of it 0.98 and 0.88."""
    truth = phantom_map(BOX, PIXEL_A)
    mixed = (1.0 - share) * truth + share * mirror_image(truth, PIXEL_A, CENTRED)
    halves = halves_of(truth)
    generator = torch.Generator().manual_seed(1)
    with side_by_side(SINGLE_PROCESS) as sides:
        *batches, last = map_of_one_hand(
            halves, halves[0].scaled_to_images(mixed), CENTRED, generator, CPU, sides
        )
    other, chosen = correlations(last.maps, truth)
    assert chosen > 0.97
    assert other < chosen - 0.08
    assert last.log_likelihood > batches[0].log_likelihood + 10.0


def test_centred_images_do_not_tell_a_map_from_its_mirror_image() -> None:
    """Where it overlaps with the map most, it would be off its centre."""
    truth = phantom_map(BOX, PIXEL_A)
    halves = halves_of(truth)
    volume = halves[0].scaled_to_images(truth)
    mirrored = mirror_image(volume, PIXEL_A, CENTRED)
    assert correlation_of(mirrored, volume) < 0.9
    batch = (torch.arange(COUNT // 2), torch.arange(COUNT // 2))
    candidates = [(volume, volume), (mirrored, mirrored)]
    with side_by_side(SINGLE_PROCESS) as sides:
        one, other = log_likelihoods(halves, candidates, batch, CENTRED, CPU, sides)
    assert other == pytest.approx(one, abs=0.3)
    assert one > 50.0


def correlation_of(first: Tensor, second: Tensor) -> float:
    return float((first * second).sum() / (first.norm() * second.norm()))


def test_mean_maps_are_in_the_frame_and_of_the_hand_of_a_given_map() -> None:
    """Whatever became of the hand on the way; views are to be measured anew in that frame."""
    truth = phantom_map(BOX, PIXEL_A)
    halves = halves_of(truth)
    volume = halves[0].scaled_to_images(truth)
    given = mirror_image(volume, PIXEL_A, CENTRED)
    two = replace(CENTRED, assumptions=replace(CENTRED.assumptions, latent="discrete", classes=2))
    with side_by_side(SINGLE_PROCESS) as sides:
        steps = mean_maps(halves, volume.expand(2, 1, -1, -1, -1), 0, two, 0, CPU, sides, given)
        records = []
        while True:
            try:
                records.append(next(steps).record)
            except StopIteration as end:
                state = end.value
                break
    mean = rescale_volume(state.halves[:, 0].mean(0), BOX)
    assert correlation_of(mean, given) > 0.93
    assert correlation_of(mean, volume) < 0.9
    assert torch.equal(state.views, UNIFORM.weight.repeat(2, 1))
    compared = records[-1]["log_likelihoods"]
    assert max(compared) > 50.0
    assert state.images_seen == records[-1]["images_seen"] > records[0]["images_seen"]
