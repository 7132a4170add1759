"""The background of images: its power, and what it says of their noise."""

import math
from dataclasses import replace

import pytest
import torch

from cryogan import fourier
from cryogan.data.background import background_power, background_weight
from cryogan.data.statistics import measure
from cryogan.particles import ArrayStack, Particles
from cryogan.phantom import phantom_map
from cryogan.physics.ctf import ctf
from cryogan.physics.distributions import PoseDistribution
from cryogan.physics.imaging import Preprocessing, preprocess
from cryogan.physics.noise import colour, white
from cryogan.physics.spectra import bounded_spectra, fit_spectra, power_sums
from cryogan.simulation.in_memory import simulate_particles
from cryogan.simulation.microscope import random_ctf

BOX, PIXEL_SIZE_A, COUNT = 48, 5.0, 1500
INSIDE = slice(1, BOX // 2)


@pytest.mark.parametrize("radius", [0.5, 0.85])
@pytest.mark.parametrize("box_size", [24, 33, 64])
def test_the_power_of_white_noise_is_one(box_size, radius, generator):
    """Also where the mean is subtracted from a narrow ring, and next to empty corners."""
    weight = background_weight(box_size, radius)
    images = white(3000, box_size, generator)
    found = background_power(images, weight)[1 : box_size // 2]
    assert float((found - 1.0).abs().max()) < 0.05
    limited = preprocess(white(2000, 2 * box_size, generator), Preprocessing(box_size))
    found = background_power(limited, weight)[1 : box_size // 2]
    assert float((found - 1.0).abs().max()) < 0.06


def test_the_power_of_coloured_noise_is_its_own(generator):
    spectrum = 0.5 + 2.0 * torch.exp(-torch.arange(BOX // 2 + 1) / 5.0)
    images = colour(white(3000, BOX, generator), spectrum)
    found = background_power(images, background_weight(BOX, 0.6))
    assert float((found / spectrum - 1.0)[3 : BOX // 2].abs().max()) < 0.1


def test_particles_and_spoilt_edges_are_left_out(generator):
    """What is inside the radius, or in the outermost rows, has no weight."""
    weight = background_weight(64, 0.7)
    spoilt = torch.zeros(64, 64)
    spoilt[fourier.radius_grid(64) < 0.7 * 32] = 100.0
    spoilt[:3] = spoilt[-3:] = spoilt[:, :3] = spoilt[:, -3:] = 100.0
    assert float((weight * spoilt).abs().max()) == 0.0
    assert 0.0 <= float(weight.min()) < float(weight.max()) <= 1.0


@pytest.fixture(scope="module")
def clean() -> Particles:
    generator = torch.Generator().manual_seed(17)
    return simulate_particles(
        phantom_map(BOX, PIXEL_SIZE_A),
        pixel_size_A=PIXEL_SIZE_A,
        n=COUNT,
        ctf=random_ctf(COUNT, generator),
        poses=PoseDistribution(),
        snr_dB=math.inf,
        generator=generator,
    ).particles


def with_noise(clean: Particles, solvent: float, generator: torch.Generator) -> Particles:
    """White noise and, imaged with the particles' CTFs, that of solvent; equal power at 1."""
    images = clean.stack.read(torch.arange(COUNT))
    level = 3.0 * float(images.std())
    transfer = ctf(clean.ctf, BOX, PIXEL_SIZE_A)
    ice = fourier.irfft(fourier.rfft(white(COUNT, BOX, generator)) * transfer, BOX)
    noise = level * (white(COUNT, BOX, generator) + math.sqrt(2.0 * solvent) * ice)
    return replace(clean, stack=ArrayStack(images + noise))


@pytest.mark.parametrize("solvent", [0.0, 1.0, 4.0])
def test_noise_is_found_though_solvent_has_the_ctf(clean, generator, solvent):
    """A line through |Y|² against CTF² takes such noise for signal: it misses most of it."""
    particles = with_noise(clean, solvent, generator)
    level2 = 9.0 * float(clean.stack.read(torch.arange(COUNT)).var())
    transfer = ctf(particles.ctf, BOX, PIXEL_SIZE_A)
    ctf2 = fourier.shell_mean(transfer.square().mean(0), BOX)
    truth = level2 * (1.0 + 2.0 * solvent * ctf2)
    measured = measure(particles, radius=0.6)
    found = measured.spectra.noise / measured.gain**2
    upper = slice(5, BOX // 2 - 1)  # further in, the spectrum is steeper than the ring resolves
    assert float((found / truth - 1.0)[upper].abs().max()) < 0.2
    line = fit_spectra(power_sums(particles.stack.read(torch.arange(COUNT)), transfer)).noise
    assert float((line / level2 - 1.0)[upper].mean()) == pytest.approx(0.0, abs=0.1)


def test_signal_is_what_is_above_the_background(clean, generator):
    images = clean.stack.read(torch.arange(COUNT))
    truth = fourier.shell_mean(fourier.rfft(images).abs().square().mean(0) / BOX**2, BOX)
    measured = measure(with_noise(clean, 0.5, generator), radius=0.6)
    ctf2 = fourier.shell_mean(ctf(clean.ctf, BOX, PIXEL_SIZE_A).square().mean(0), BOX)
    found = measured.spectra.signal / measured.gain**2 * ctf2
    assert float((found / truth - 1.0)[2:7].abs().max()) < 0.3


def test_noise_alone_has_next_to_no_signal(clean, generator):
    """In a band-limited set, too."""
    for images in (
        white(COUNT, BOX, generator),
        preprocess(white(COUNT, 2 * BOX, generator), Preprocessing(BOX)),
    ):
        measured = measure(replace(clean, stack=ArrayStack(images)))
        assert float((measured.spectra.noise / measured.power - 1.0)[INSIDE].abs().max()) < 0.05


def test_where_background_is_no_weaker_than_the_images_half_of_their_power_is_noise(clean):
    """Also where power falls steeply from shell to shell: next to nothing would dominate."""
    steep = torch.where(torch.arange(BOX // 2 + 1) < 8, 1.0, 1e-3)
    images = colour(clean.stack.read(torch.arange(COUNT)), steep)
    sums = power_sums(images, ctf(clean.ctf, BOX, PIXEL_SIZE_A))
    power = fourier.shell_mean(sums.power / sums.count, BOX)
    found = bounded_spectra(sums, 1.3 * power, 0.2)
    share = (found.noise / power)[INSIDE]
    assert 0.499 < float(share.min()) < float(share.max()) < 1.001
    assert float((fit_spectra(sums).noise / power)[INSIDE].min()) < 0.1
