"""Noise has the spectrum that was asked for; patches are those that were measured."""

import pytest
import torch

from cryogan import fourier
from cryogan.particles import ArrayStack
from cryogan.physics.distributions import PoseDistribution, Triangular
from cryogan.physics.noise import (
    BackgroundPatches,
    ColouredNoise,
    WhiteNoise,
    colour,
    radial_spectrum,
    white,
)


@pytest.mark.parametrize("box_size", [32, 33])
def test_white_noise_has_a_flat_unit_spectrum(box_size, generator):
    noise = white(2000, box_size, generator)
    assert noise.std().item() == pytest.approx(1.0, abs=0.005)
    assert (radial_spectrum(noise) - 1.0).abs().max() < 0.1


@pytest.mark.parametrize("box_size", [32, 33])
def test_coloured_noise_has_the_spectrum_asked_for(box_size, generator):
    shells = torch.arange(box_size // 2 + 1)
    spectrum = 4.0 / (1.0 + (shells / 4.0) ** 2)
    spectrum[3] = 0.0
    measured = radial_spectrum(colour(white(2000, box_size, generator), spectrum))
    torch.testing.assert_close(measured, spectrum, rtol=0.1, atol=1e-5)


def test_a_flat_spectrum_only_removes_the_corners(generator):
    noise = white(3, 32, generator)
    inside = fourier.shell_index(32) <= 16
    expected = fourier.irfft(fourier.rfft(noise) * inside, 32)
    torch.testing.assert_close(colour(noise, torch.ones(17)), expected, atol=1e-5, rtol=0.0)


def test_gradient_of_the_power_follows_the_spectrum(generator):
    """E ‖image‖² is linear in the spectrum: its gradient is the number of coefficients."""
    spectrum = torch.ones(17, requires_grad=True)
    (colour(white(4000, 32, generator), spectrum).square().sum() / 4000).backward()
    count = fourier.shell_sum(torch.ones(32, 17), 32)
    torch.testing.assert_close(spectrum.grad, count, rtol=0.1, atol=0.0)


def test_patches_are_the_eight_symmetric_copies_of_what_was_measured(generator):
    measured = 5.0 + torch.randn(3, 8, 8, generator=generator)
    untouched = measured.clone()
    sample = BackgroundPatches(ArrayStack(measured)).sample(400, generator)
    assert torch.equal(measured, untouched)
    assert sample.mean((1, 2)).abs().max() < 1e-6
    centred = measured - measured.mean((1, 2), keepdim=True)
    copies = torch.stack(
        [
            torch.rot90(p, quarter, dims=(0, 1))
            for patch in centred
            for p in (patch, patch.T)
            for quarter in range(4)
        ]
    )
    distance = (sample[:, None] - copies[None]).abs().amax((2, 3))
    assert distance.min(1).values.max() < 1e-5
    assert set(distance.argmin(1).tolist()) == set(range(24))


def models(generator):
    """One of each kind, of a box of 16."""
    spectrum = 4.0 / (1.0 + torch.arange(9.0))
    return {
        "none": WhiteNoise(16, 0.0),
        "white": WhiteNoise(16, 3.0),
        "coloured": ColouredNoise.of_spectrum(spectrum, 16),
        "background": BackgroundPatches(ArrayStack(torch.randn(400, 16, 16, generator=generator))),
        "cropped": WhiteNoise(32).transformed(lambda images: fourier.resample(images, 16)),
    }


@pytest.mark.parametrize("kind", ["none", "white", "coloured", "background", "cropped"])
def test_every_noise_model_tells_its_box_and_its_power(kind, generator):
    model = models(generator)[kind]
    sample = model.sample(3000, generator)
    assert sample.shape == (3000, model.box_size, model.box_size) == (3000, 16, 16)
    rings = slice(1, 8)  # a crop has no Nyquist row, a patch no mean
    measured = radial_spectrum(sample)[rings]
    torch.testing.assert_close(model.power()[rings], measured, rtol=0.15, atol=1e-6)


def test_a_scaled_model_has_the_power_of_its_scaled_images(generator):
    """The same patches or draws, whatever the model."""
    for model in models(generator).values():
        scaled = model.transformed(lambda images: 2.0 * images)
        one, two = (m.sample(5, torch.Generator().manual_seed(1)) for m in (model, scaled))
        torch.testing.assert_close(two, 2.0 * one)


def test_shifts_are_triangular(generator):
    """Density 1 - |x| / w: variance w² / 6, half of the mass within w (1 - 1/√2)."""
    shift = Triangular(12.0).sample(50_000, generator)
    assert shift.abs().max() <= 12.0
    assert shift.mean(0).abs().max() < 0.1
    assert shift.var(0).tolist() == pytest.approx([24.0, 24.0], rel=0.03)
    inside = (shift.abs() < 12.0 * (1.0 - 0.5**0.5)).float().mean()
    assert inside.item() == pytest.approx(0.5, abs=0.01)
    assert torch.corrcoef(shift.T)[0, 1].abs() < 0.02


def test_centred_poses_have_no_shift(generator):
    pose = PoseDistribution().sample(7, generator)
    assert pose.rotation.shape == (7, 3, 3)
    assert torch.equal(pose.shift_A, torch.zeros(7, 2))
