"""Spreads of assigned poses: true poses are as far away as they say, whatever the noise."""

import math

import pytest
import torch

from cryogan.objectives.likelihood.assignment import assign
from cryogan.objectives.likelihood.latent_grid import SINGLE_STRUCTURE
from cryogan.phantom import phantom_map
from cryogan.physics.rotations import angle_between
from simulated_sets import centred_particles, known_half_set

BOX, PIXEL_A, RINGS = 24, 8.0, 10
CPU = torch.device("cpu")
UNIFORM_DEG = math.degrees(math.sqrt(math.pi**2 / 3.0 + 2.0))
"""Root mean square angle of a uniform rotation: its density is (1 - cos θ) / π."""

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("snr_dB", [0.0, -6.0, -12.0, -18.0])
def test_true_poses_are_as_far_as_spreads_say(snr_dB: float) -> None:
    generator = torch.Generator().manual_seed(4)
    volume = phantom_map(BOX, PIXEL_A)
    made = centred_particles(volume, PIXEL_A, 200, snr_dB, generator)
    half, maps, config = known_half_set(made.particles, made.noise_sigma, volume)
    found = assign(half, maps, SINGLE_STRUCTURE, RINGS, config, CPU)
    ratio = angle_between(found.pose.rotation, made.pose.rotation) / found.spread_deg
    assert 0.8 < float(ratio.clamp_max(4.0).square().mean().sqrt()) < 1.2
    assert 0.45 < float((ratio < 1.0).double().mean()) < 0.8  # 0.61 of Gaussians
    assert float((ratio < 2.0).double().mean()) > 0.93  # 0.99 of Gaussians


def test_an_image_of_noise_says_nothing_of_its_pose() -> None:
    generator = torch.Generator().manual_seed(5)
    volume = phantom_map(BOX, PIXEL_A)
    made = centred_particles(volume, PIXEL_A, 60, -10.0, generator)
    half, maps, config = known_half_set(made.particles, made.noise_sigma, volume)
    nothing, weak, clear = (
        assign(half, scale * maps, SINGLE_STRUCTURE, RINGS, config, CPU)
        for scale in (1e-3, 0.3, 1.0)
    )
    assert float(nothing.spread_deg.square().mean().sqrt()) == pytest.approx(UNIFORM_DEG, rel=0.1)
    told = [float(each.information.mean()) for each in (nothing, weak, clear)]
    assert told == sorted(told)
    assert told[2] > told[0] + 4.0
