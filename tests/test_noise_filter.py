"""Noise that depends on direction, against simulations in which its spectrum is known."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cryogan import fourier
from cryogan.data.noise_filter import filtered, measure_anisotropy, with_isotropic_noise
from cryogan.data.padding import PaddedBox
from cryogan.data.statistics import measure
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.particles import ArrayStack, Particles, ParticleSource, TransferFilter
from cryogan.phantom import phantom_map
from cryogan.physics.circular_harmonics import CircularHarmonics
from cryogan.physics.ctf import ctf
from cryogan.physics.distributions import PoseDistribution
from cryogan.physics.noise import BackgroundPatches, colour, white
from cryogan.simulation.in_memory import simulate_particles
from cryogan.simulation.microscope import random_ctf

BOX, PIXEL_SIZE_A, COUNT = 32, 6.0, 3000
RED = 0.3 + 10.0 * torch.exp(-torch.arange(BOX // 2 + 1) / 3.0)


def elliptic():
    """Power twice as strong along x as along y, at every frequency; its mean in a shell is 1."""
    k = fourier.frequency_grid(BOX)
    angle = torch.atan2(k[..., 1], k[..., 0])
    return 1.0 + 0.35 * torch.cos(2.0 * angle)


def weave():
    """Two pairs of peaks, ten times the noise."""
    power = torch.ones(BOX, BOX // 2 + 1)
    power[0, 8] = power[8, 0] = power[-8, 0] = 10.0
    return power


@pytest.fixture(scope="module")
def clean_images():
    """Images of the phantom, no noise, at a mean power of 1; and their CTFs."""
    generator = torch.Generator().manual_seed(10017)
    params = random_ctf(COUNT, generator)
    simulated = simulate_particles(
        phantom_map(BOX, PIXEL_SIZE_A),
        pixel_size_A=PIXEL_SIZE_A,
        n=COUNT,
        ctf=params,
        poses=PoseDistribution(),
        snr_dB=math.inf,
        generator=generator,
    )
    images = simulated.particles.stack.images
    return images / images.square().mean().sqrt(), params


def particles_of(images, params):
    return Particles(ArrayStack(images), params, PIXEL_SIZE_A)


def inside():
    shells = fourier.shell_index(BOX)
    return (shells > 0) & (shells < BOX // 2)


@pytest.mark.parametrize("shape", [elliptic, weave])
def test_known_noise_is_found(shape, clean_images, generator):
    """Within five standard errors of a mean of 3,000 exponential variables, nearly everywhere."""
    clean, params = clean_images
    noise = 6.0 * filtered(white(COUNT, BOX, generator), shape().sqrt())
    found = measure_anisotropy(particles_of(0.5 * clean + noise, params))
    expected = shape() / fourier.shell_mean(shape(), BOX)[fourier.shell_index(BOX).clamp_max(16)]
    error = (found.ratio / expected - 1.0).abs()
    changed = inside() & (found.ratio != 1.0)
    assert changed[4, 8] if shape is elliptic else changed[0, 8]
    if shape is elliptic:
        assert changed[fourier.shell_index(BOX) > 2][:, None].any()
        assert (changed & inside()).sum() > 0.9 * inside().sum()
    assert error[changed].median() < 0.05
    assert error[changed].max() < 0.2


@pytest.mark.parametrize("spectrum", [torch.ones(BOX // 2 + 1), RED], ids=["white", "red"])
@pytest.mark.parametrize(("strength", "count"), [(6.0, COUNT), (1.0, COUNT), (0.0, COUNT), (6.0, 200)])
def test_isotropic_noise_is_left_alone(strength, count, spectrum, clean_images, generator):
    clean, params = clean_images
    images = clean[:count] + strength * colour(white(count, BOX, generator), spectrum)
    particles = particles_of(images, params[torch.arange(count)])
    assert measure_anisotropy(particles).is_isotropic
    patches = BackgroundPatches(ArrayStack(colour(white(300, BOX, generator), spectrum)))
    assert measure_anisotropy(particles, patches).is_isotropic
    assert with_isotropic_noise(particles, patches) == (particles, patches)
