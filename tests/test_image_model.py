"""Contrast and images without a particle, against integrals and densities written out."""

import math

import pytest
import torch

from cryogan import fourier
from cryogan.data.padding import PaddedBox
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.image_model import (
    ImageMoments,
    blob_gains,
    junk_log_likelihood,
    particle_probability,
    with_contrast,
)
from cryogan.particles import ArrayStack, Particles
from cryogan.phantom import phantom_map
from cryogan.physics.circular_harmonics import CircularHarmonics
from cryogan.physics.distributions import PoseDistribution
from cryogan.simulation.in_memory import simulate_particles
from cryogan.simulation.microscope import random_ctf

CPU = torch.device("cpu")


@pytest.mark.parametrize("contrast_sd", [0.05, 0.3])
def test_contrast_is_integrated_out(contrast_sd: float) -> None:
    """Against the integral over α of exp(α l - α² g / 2), summed on a fine grid."""
    linear = torch.tensor([[30.0, 2.0, -4.0]], dtype=torch.float64)
    power = torch.tensor([[25.0, 9.0, 12.0]], dtype=torch.float64)
    found, mean, square = with_contrast(linear - 0.5 * power, power, contrast_sd)
    alpha = torch.linspace(1 - 8 * contrast_sd, 1 + 8 * contrast_sd, 20_001, dtype=torch.float64)
    step = float(alpha[1] - alpha[0])
    prior = torch.exp(-0.5 * ((alpha - 1) / contrast_sd) ** 2) / (
        contrast_sd * math.sqrt(2 * math.pi)
    )
    density = prior * torch.exp(alpha * linear[..., None] - 0.5 * alpha**2 * power[..., None])
    total = density.sum(-1) * step
    torch.testing.assert_close(found, total.log(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mean, (density * alpha).sum(-1) * step / total, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        square, (density * alpha**2).sum(-1) * step / total, rtol=1e-3, atol=1e-3
    )


def test_poses_that_do_not_count_stay_out() -> None:
    score = torch.tensor([[3.0, -math.inf]])
    found, mean, square = with_contrast(score, torch.tensor([[4.0, 0.0]]), 0.2)
    assert bool(found[0, 1].isneginf())
    assert bool(mean.isfinite().all())
    assert bool(square.isfinite().all())


def test_blobs_are_gaussian_fields() -> None:
    """Log-density of independent coefficients of a real image against that of noise alone."""
    size, rings = 8, 3
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(1, size, size, generator=generator)
    excess = (fourier.rfft(image).abs() / size).square()
    ratio = torch.rand(1, size, size // 2 + 1, generator=generator)
    found = blob_gains(excess, ratio, rings, 1.0)[0, 0]
    shells = fourier.shell_index(size)
    half = fourier.half_weights(size).expand(size, -1)
    for ring in range(1, rings + 1):
        inside = shells == ring
        variance = 1.0 + ratio[0][inside]
        y2, count = excess[0][inside], half[inside]
        expected = (0.5 * count * (y2 - y2 / variance - variance.log())).sum()
        torch.testing.assert_close(found[ring - 1], expected)


def test_probabilities_are_those_of_bayes_and_never_quite_nothing() -> None:
    one = torch.zeros(3)
    even = particle_probability(one, one, 0.25)
    torch.testing.assert_close(even, torch.full((3,), 0.75))
    assert bool((particle_probability(one, one + 500.0, 0.25) > 0.0).all())


def test_noise_and_particles_are_told_apart_by_their_own_likelihoods() -> None:
    """Noise alone has a blob's log-likelihood below 0; a blob of the particle's power above."""
    generator = torch.Generator().manual_seed(4)
    volume = phantom_map(24, 8.0)
    made = simulate_particles(
        volume,
        pixel_size_A=8.0,
        n=300,
        ctf=random_ctf(300, generator),
        poses=PoseDistribution(),
        snr_dB=-2.0,
        generator=generator,
    )
    padded = PaddedBox.of(24, 1.0)
    half = HalfSet.of(made.particles, None, padded)
    harmonics = CircularHarmonics(24, 10, 10.0, CPU)
    # the gain makes the noise that a window leaves of unit variance
    sd = 1.0 / (half.measurement.gain * padded.noise_share**0.5)
    noise = sd * torch.randn(200, 24, 24, generator=generator)
    empty = Particles(ArrayStack(noise), made.particles.ctf[:200], 8.0)
    other = HalfSet(padded.pad_particles(empty), half.measurement, half.noise_share)
    every = torch.arange(200)
    of_particles, of_noise = (
        junk_log_likelihood(each.observed(every, harmonics, CPU).blobs, 10)
        for each in (half, other)
    )
    assert float(of_noise.mean()) < 0.5  # the best of three kinds, one of which has 0
    assert float((of_noise < of_particles.median()).float().mean()) > 0.9
    # noise in units of what is usual has a mean of 1, window and padding notwithstanding
    flat = blob_mean(other, harmonics)
    assert flat == pytest.approx(1.0, abs=0.05)


def blob_mean(half: HalfSet, harmonics: CircularHarmonics) -> float:
    size = harmonics.box_size
    images = half.stack(size).read(torch.arange(200))
    power = fourier.shell_mean((fourier.rfft(images).abs() / size).square(), size).mean(0)
    return float((power / (half.noise_share * half.noise(size)))[2:10].mean())


def test_moments_give_back_the_distribution() -> None:
    generator = torch.Generator().manual_seed(2)
    contrast = 1.0 + 0.25 * torch.randn(5000, generator=generator)
    particle = (torch.rand(5000, generator=generator) > 0.2).float()
    one = ImageMoments.of(particle[:2000], contrast[:2000], contrast[:2000].square())
    two = ImageMoments.of(particle[2000:], contrast[2000:], contrast[2000:].square())
    found = (one + two).model
    assert found.contrast_sd == pytest.approx(0.25, abs=0.01)
    assert found.junk_share == pytest.approx(0.2, abs=0.02)


def test_no_image_counts_less_while_most_fit_no_map() -> None:
    fits = torch.tensor([0.9, 0.2, 0.1, 0.3])
    one = torch.ones(4)
    assert ImageMoments.of(fits, one, one).model.junk_share == 0.0
    assert ImageMoments.of(1.0 - fits, one, one).model.junk_share == pytest.approx(0.375)
