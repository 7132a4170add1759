"""Noise measured by what a map leaves of the images: found where spectra took it for signal."""

from dataclasses import replace

import pytest
import torch

from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.likelihood.bands import box_for, harmonics_for, search_for
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.em_step import e_step, with_residual_noise
from cryogan.objectives.likelihood.half_set import HalfSet, PowerSplit
from cryogan.objectives.likelihood.image_model import ALIKE
from cryogan.objectives.likelihood.latent_grid import SINGLE_STRUCTURE
from cryogan.phantom import phantom_map
from cryogan.physics.imaging import rescale_volume
from cryogan.physics.spectra import PowerSpectra
from simulated_sets import centred_particles

BOX, PIXEL_A, COUNT, RINGS = 24, 8.0, 400, 9
WIDTH_A = BOX * PIXEL_A
CPU = torch.device("cpu")
INSIDE = slice(2, RINGS + 1)


def test_the_power_of_the_images_stays_the_same() -> None:
    """Rings of noise 1, 2 and 3 times that measured, in images of three times its power."""
    before = PowerSplit.unchanged(6, WIDTH_A)
    split = before.with_residuals(torch.tensor([1.0, 2.0, 3.0]), torch.full((3,), 3.0))
    torch.testing.assert_close(split.noise, torch.tensor([1.0, 1.0, 2.0, 3.0, 3.0, 3.0]))
    signal = split.signal * (3.0 - 1.0)  # in units of the noise
    torch.testing.assert_close((split.noise + signal)[1:3], torch.tensor([3.0, 3.0]))
    assert float(split.signal.min()) > 0.0  # the prior of a map needs some


def test_what_was_raised_too_far_comes_down_again_but_not_below_the_measured() -> None:
    high = PowerSplit.unchanged(4, WIDTH_A).with_residuals(torch.tensor([2.0]), torch.tensor([4.0]))
    assert float(high.noise[1]) == 2.0
    low = high.with_residuals(torch.tensor([0.75]), torch.tensor([2.0]))
    assert float(low.noise[1]) == 1.5
    least = low.with_residuals(torch.tensor([0.1]), torch.tensor([4.0 / 1.5]))
    assert float(least.noise[1]) == 1.0
    assert float(least.signal[1]) == 1.0


def test_a_record_reads_back() -> None:
    split = PowerSplit(torch.rand(5), torch.rand(5), WIDTH_A)
    torch.testing.assert_close(PowerSplit.read(split.record, WIDTH_A).record, split.record)


def test_a_split_follows_spatial_frequency_into_another_box() -> None:
    """Half as wide a box has every other shell; a wider one holds the last beyond."""
    noise = torch.tensor([1.0, 1.0, 2.0, 3.0, 4.0])
    split = PowerSplit(noise, 1.0 / noise, WIDTH_A)
    torch.testing.assert_close(split.at(5, WIDTH_A).record, split.record, rtol=0.0, atol=0.0)
    narrow = split.at(3, WIDTH_A / 2)
    torch.testing.assert_close(narrow.noise, torch.tensor([1.0, 2.0, 4.0]))
    wide = split.at(12, 2 * WIDTH_A)
    torch.testing.assert_close(
        wide.noise[[2, 3, 4, 8, 11]], torch.tensor([1.0, 1.5, 2.0, 4.0, 4.0])
    )


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_noise_that_was_taken_for_signal_is_found(share: float) -> None:
    """Its whole power from the residuals of the true map, whatever share of it was measured."""
    generator = torch.Generator().manual_seed(3)
    truth = phantom_map(BOX, PIXEL_A)
    made = centred_particles(truth, PIXEL_A, COUNT, 0.0, generator)
    half = HalfSet.of(made.particles)
    measured = half.measurement
    level = (made.noise_sigma * measured.gain) ** 2
    flat = torch.full_like(measured.spectra.noise, share * level)
    spectra = PowerSpectra(measured.spectra.signal, flat)
    half = replace(half, measurement=replace(measured, spectra=spectra))
    config = LikelihoodConfig(assumptions=Assumptions())
    size = box_for(RINGS, BOX)
    harmonics = harmonics_for(size, RINGS, config, CPU)
    levels = search_for(harmonics, config)
    maps = rescale_volume(truth[None] * measured.gain, size)
    index = torch.arange(COUNT)
    for _ in range(2):  # wrong noise makes wrong poses
        half = with_residual_noise(
            half, maps, SINGLE_STRUCTURE, levels, harmonics, ALIKE, generator
        )
    found = half.noise(size)[INSIDE] / level
    assert float(found.min()) > 0.97
    assert float(found.max()) < 1.15
    step = e_step(
        half, index, maps, SINGLE_STRUCTURE, levels, RINGS, harmonics, generator=generator
    )
    assert step.left is not None
    torch.testing.assert_close(step.left[0, 1:], torch.ones(RINGS - 1), rtol=0.1, atol=0.0)


def test_residuals_are_measured_where_they_are_asked_for_only() -> None:
    made = centred_particles(
        phantom_map(BOX, PIXEL_A), PIXEL_A, 32, 0.0, torch.Generator().manual_seed(1)
    )
    half = HalfSet.of(made.particles)
    config = LikelihoodConfig(assumptions=Assumptions())
    size = box_for(RINGS, BOX)
    harmonics = harmonics_for(size, RINGS, config, CPU)
    maps = rescale_volume(phantom_map(BOX, PIXEL_A)[None], size)
    levels = search_for(harmonics, config)
    found = e_step(half, torch.arange(32), maps, SINGLE_STRUCTURE, levels, RINGS, harmonics)
    assert found.left is None
