"""Noise that depends on direction, against simulations in which its spectrum is known."""

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
from cryogan.physics.circular_harmonics import CircularHarmonics
from cryogan.physics.ctf import ctf, filter_at
from cryogan.physics.noise import BackgroundPatches, colour, white
from cryogan.simulation.microscope import random_ctf
from simulated_sets import clean_phantom_images

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
    images, params = clean_phantom_images(BOX, PIXEL_SIZE_A, COUNT, seed=10017)
    return images / images.square().mean().sqrt(), params


def particles_of(images, params):
    return Particles(ArrayStack(images), params, PIXEL_SIZE_A)


def inside():
    shells = fourier.shell_index(BOX)
    return (shells > 0) & (shells < BOX // 2)


def relative(shape):
    """A spectrum over its mean in every shell."""
    return shape / fourier.shell_mean(shape, BOX)[fourier.shell_index(BOX).clamp_max(BOX // 2)]


def noisy(clean, params, shape, generator, strength=6.0):
    noise = strength * filtered(white(len(clean), BOX, generator), shape.sqrt())
    return particles_of(0.5 * clean + noise, params)


def test_known_noise_is_found_in_images(clean_images, generator):
    """The standard error of a mean of 3,000 exponential variables is 1.8 %."""
    found = measure_anisotropy(noisy(*clean_images, elliptic(), generator))
    assert (found.ratio != 1.0)[inside()].float().mean() > 0.8
    error = (found.ratio / relative(elliptic()) - 1.0).abs()
    outer = inside() & (fourier.shell_index(BOX) > 3)
    assert error[outer].square().mean().sqrt() < 0.03


def test_peaks_are_found_in_their_shell_only(clean_images, generator):
    found = measure_anisotropy(noisy(*clean_images, weave(), generator))
    changed = found.ratio != 1.0
    assert (fourier.shell_index(BOX)[changed] == 8).all()
    error = (found.ratio / relative(weave()) - 1.0).abs()
    assert error[inside()].max() < 0.1


@pytest.mark.parametrize("shape", [elliptic, weave])
def test_known_noise_is_found_in_patches(shape, clean_images, generator):
    clean, params = clean_images
    some = torch.arange(200)
    patches = 3.0 * filtered(white(2000, BOX, generator), shape().sqrt())
    noise = BackgroundPatches(ArrayStack(patches))
    found = measure_anisotropy(noisy(clean[some], params[some], shape(), generator), noise)
    changed = inside() & (found.ratio != 1.0) & (fourier.shell_index(BOX) > 3)
    assert changed[0, 8]
    error = (found.ratio / relative(shape()) - 1.0).abs()
    assert error[changed].square().mean().sqrt() < 0.04  # 2.2 % of chance
    assert error[changed].max() < 0.15


@pytest.mark.parametrize("spectrum", [torch.ones(BOX // 2 + 1), RED], ids=["white", "red"])
@pytest.mark.parametrize(
    ("strength", "count"), [(6.0, COUNT), (1.0, COUNT), (0.0, COUNT), (6.0, 200)]
)
def test_isotropic_noise_is_left_alone(strength, count, spectrum, clean_images, generator):
    clean, params = clean_images
    images = clean[:count] + strength * colour(white(count, BOX, generator), spectrum)
    particles = particles_of(images, params[torch.arange(count)])
    assert measure_anisotropy(particles).is_isotropic
    patches = BackgroundPatches(ArrayStack(colour(white(300, BOX, generator), spectrum)))
    assert measure_anisotropy(particles, patches).is_isotropic
    assert with_isotropic_noise(particles, patches) == (particles, patches)


def test_what_a_filter_left_in_noise_and_signal_is_told_from_what_was_added(
    clean_images, generator
):
    """Then the transfer function stays the CTF; else it is filtered with the images."""
    clean, params = clean_images
    shape = elliptic() + 2.0 * (weave() - 1.0) / 9.0
    shape[2:15:3, 2:15:2] *= 0.1
    white_noise = white(COUNT, BOX, generator)
    processed = particles_of(filtered(clean + white_noise, shape.sqrt()), params)
    found = measure_anisotropy(processed)
    assert not found.is_isotropic
    assert found.signal_share > 0.9
    assert (found.signal_gain - 1.0)[inside()].abs().mean() < 0.05
    added = measure_anisotropy(noisy(clean, params, shape, generator, strength=0.7))
    assert added.signal_share < 0.2
    assert (added.signal_gain / added.image_gain - 1.0).abs().mean() < 0.05


def test_filtered_images_have_radial_noise_and_their_signal(clean_images, generator):
    """A second measurement finds nothing, and the spectra are those of the images before."""
    particles = noisy(*clean_images, elliptic(), generator, strength=2.0)
    source = ParticleSource(Path("p.star"), None, None, None, None, False, "read")
    after, noise = with_isotropic_noise(replace(particles, source=source))
    assert noise is None
    assert measure_anisotropy(after).is_isotropic
    lines = after.source.summary.splitlines()
    assert lines[0] == "read"
    assert len(lines) == 2
    assert lines[1].startswith("noise is not isotropic: between ")
    plain, spectra = (
        measure(each).spectra.scaled(1.0 / measure(each).gain) for each in (particles, after)
    )
    shells = slice(4, BOX // 2)
    torch.testing.assert_close(spectra.noise[shells], plain.noise[shells], rtol=0.05, atol=0.0)
    torch.testing.assert_close(spectra.signal[4:8], plain.signal[4:8], rtol=0.2, atol=0.0)


def test_the_likelihood_sees_filtered_images_and_transfer_functions(clean_images, generator):
    particles = noisy(*clean_images, elliptic(), generator)
    after, _ = with_isotropic_noise(particles)
    found = measure_anisotropy(particles)
    images = filtered(particles.stack.images, found.image_gain)
    index, harmonics = torch.arange(7), CircularHarmonics(BOX, 12, BOX / 2, torch.device("cpu"))
    half = HalfSet.of(after)
    by_hand = replace(half, particles=particles_of(images, after.ctf))
    seen, expected = (
        each.observed(index, harmonics, torch.device("cpu")) for each in (half, by_hand)
    )
    torch.testing.assert_close(seen.a, expected.a, rtol=1e-4, atol=1e-4)
    transfer = ctf(particles.ctf[index], BOX, PIXEL_SIZE_A) * found.signal_gain
    torch.testing.assert_close(ctf(after.ctf[index], BOX, PIXEL_SIZE_A), transfer)
    precision = harmonics.means(transfer.square()) / half.noise(BOX)[1:13]
    torch.testing.assert_close(seen.b, precision.clamp_min(0.0) * harmonics.ring_weight)


def test_noise_alone_is_given_no_signal(generator):
    """A weave, and nothing else: once filtered, a radial spectrum explains every coefficient."""
    params = random_ctf(COUNT, generator)
    particles = particles_of(filtered(white(COUNT, BOX, generator), weave().sqrt()), params)
    after, _ = with_isotropic_noise(particles)
    power = fourier.rfft(after.stack.read(torch.arange(COUNT))).abs().square().mean(0)
    ratio = relative(power)
    assert relative(fourier.rfft(particles.stack.images).abs().square().mean(0))[0, 8] > 5.0
    assert (ratio - 1.0)[inside()].abs().max() < 0.1


def test_patches_are_filtered_with_the_images(clean_images, generator):
    patches = filtered(white(2000, BOX, generator), elliptic().sqrt())
    particles = noisy(*clean_images, elliptic(), generator)
    _, noise = with_isotropic_noise(particles, BackgroundPatches(ArrayStack(patches)))
    power = fourier.rfft(noise.examples()).abs().square().mean(0)
    outer = inside() & (fourier.shell_index(BOX) > 3)
    assert (relative(power) - 1.0)[outer].abs().max() < 0.1  # it was 0.35


@pytest.mark.parametrize("box_size", [BOX, BOX - 1, BOX // 2, BOX + 12])
def test_a_filter_has_its_values_at_the_frequencies_of_every_box(box_size):
    """Of the same field of view its own values; of a wider one those between."""
    frequency = fourier.frequency_grid(BOX)
    gain = TransferFilter(1.0 + frequency[..., 0] + 0.5 * frequency[..., 1].abs(), 1.5)
    pixel_size_A = 1.5 if box_size >= BOX else 1.5 * BOX / box_size
    found = filter_at(gain, box_size, pixel_size_A)
    k = fourier.frequency_grid(box_size) * (1.5 / pixel_size_A)
    expected = 1.0 + k[..., 0] + 0.5 * k[..., 1].abs()
    within = (k < 0.45).all(-1) & (k > -0.45).all(-1)
    torch.testing.assert_close(found[within], expected[within])


def test_padded_images_keep_their_filter(clean_images, generator):
    after, _ = with_isotropic_noise(noisy(*clean_images, elliptic(), generator))
    padded = PaddedBox(BOX, 2 * BOX, 1.0).pad_particles(after)
    index = torch.arange(3)
    wide = ctf(padded.ctf[index], 2 * BOX, PIXEL_SIZE_A)
    own = ctf(after.ctf[index], BOX, PIXEL_SIZE_A)
    torch.testing.assert_close(wide[:, ::2, ::2][:, :8, :8], own[:, :8, :8])
