"""Signal and noise power against simulations in which both are known."""

import pytest
import torch

from cryogan import fourier
from cryogan.data.statistics import at_box, measure
from cryogan.particles import ArrayStack, CTFParams, Particles
from cryogan.phantom import phantom_map
from cryogan.physics.ctf import ctf
from cryogan.physics.distributions import PoseDistribution
from cryogan.physics.imaging import Preprocessing, preprocess
from cryogan.physics.noise import BackgroundPatches, colour, radial_spectrum, white
from cryogan.physics.projection import project
from cryogan.physics.spectra import fit_spectra, power_sums
from cryogan.simulation.microscope import random_ctf
from simulated_sets import clean_phantom_images

BOX, PIXEL_SIZE_A, COUNT = 32, 6.0, 4000
FLAT = torch.ones(BOX // 2 + 1)
RED = 0.5 + 2.0 * torch.exp(-torch.arange(BOX // 2 + 1) / 4.0)


@pytest.fixture(scope="module")
def clean_images():
    """Images of the phantom at random poses and CTFs, no noise; and the CTF parameters."""
    return clean_phantom_images(BOX, PIXEL_SIZE_A, COUNT, seed=10061)


def noise_power(clean, snr_dB, shape):
    """Power per shell of noise whose pixels, were it white, gave the SNR."""
    return shape * float(clean.square().mean()) / 10.0 ** (snr_dB / 10.0)


@pytest.fixture(scope="module")
def true_signal():
    """S of the phantom, from projections that no CTF has touched."""
    generator = torch.Generator().manual_seed(5)
    rotation = PoseDistribution().sample(2000, generator).rotation
    return radial_spectrum(project(phantom_map(BOX, PIXEL_SIZE_A), rotation, padding=4.0))


def worst(estimate, truth, shells):
    return float((estimate / truth - 1.0)[shells].abs().max())


@pytest.mark.parametrize(
    ("snr_dB", "shape", "shells", "bound"),
    [
        (-20.0, FLAT, slice(3, BOX // 2), 0.03),
        (-20.0, FLAT, slice(0, 3), 0.1),
        (-20.0, RED, slice(3, BOX // 2), 0.06),
        (0.0, FLAT, slice(8, BOX // 2), 0.03),
        (0.0, FLAT, slice(0, 8), 0.35),
        (0.0, RED, slice(9, BOX // 2), 0.03),
        (0.0, RED, slice(3, 9), 0.2),
    ],
)
def test_noise_is_found(snr_dB, shape, shells, bound, clean_images, generator):
    """To 3 % where the CTFs differ much; less well where they hardly do and the signal is loud."""
    clean, params = clean_images
    noise = noise_power(clean, snr_dB, shape)
    images = clean + colour(white(COUNT, BOX, generator), noise)
    fitted = fit_spectra(power_sums(images, ctf(params, BOX, PIXEL_SIZE_A)))
    assert worst(fitted.noise, noise, shells) < bound


@pytest.mark.parametrize("shape", [FLAT, RED], ids=["white", "red"])
def test_signal_is_found_in_every_shell_below_nyquist(shape, clean_images, true_signal, generator):
    clean, params = clean_images
    images = clean + colour(white(COUNT, BOX, generator), noise_power(clean, 0.0, shape))
    fitted = fit_spectra(power_sums(images, ctf(params, BOX, PIXEL_SIZE_A)))
    assert worst(fitted.signal, true_signal, slice(1, BOX // 2)) < 0.13


def test_known_noise_leaves_the_rest_to_the_signal(clean_images, true_signal, generator):
    clean, params = clean_images
    noise = noise_power(clean, -5.0, RED)
    images = clean + colour(white(COUNT, BOX, generator), noise)
    fitted = fit_spectra(power_sums(images, ctf(params, BOX, PIXEL_SIZE_A)), noise)
    assert torch.equal(fitted.noise, noise)
    assert worst(fitted.signal, true_signal, slice(0, 9)) < 0.1


def test_noise_and_signal_add_up_to_the_power_of_the_images(clean_images, generator):
    clean, params = clean_images
    images = clean + colour(white(COUNT, BOX, generator), noise_power(clean, 0.0, RED))
    transfer = ctf(params, BOX, PIXEL_SIZE_A)
    fitted = fit_spectra(power_sums(images, transfer))
    mean_ctf2 = fourier.shell_mean(transfer.square().mean(0), BOX)
    total = fitted.noise + mean_ctf2 * fitted.signal
    below = slice(0, BOX // 2)
    torch.testing.assert_close(total[below], radial_spectrum(images)[below], rtol=1e-4, atol=0.0)


def test_sums_of_parts_add_up(generator):
    images = white(64, BOX, generator)
    transfer = ctf(random_ctf(64, generator), BOX, PIXEL_SIZE_A)
    parts = power_sums(images[:20], transfer[:20]) + power_sums(images[20:], transfer[20:])
    whole = power_sums(images, transfer)
    assert parts.count == whole.count == 64
    torch.testing.assert_close(parts.ctf2_power, whole.ctf2_power)
    torch.testing.assert_close(fit_spectra(parts).noise, fit_spectra(whole).noise)


@pytest.mark.parametrize("noise_is_known", [True, False])
def test_cropping_images_leaves_the_spectra_of_their_shells(
    noise_is_known, clean_images, generator
):
    """Unless the noise of low shells has to be taken from shells that the crop removes."""
    clean, params = clean_images
    noise = noise_power(clean, 0.0, RED)
    images = clean + colour(white(COUNT, BOX, generator), noise)
    half = BOX // 2
    cropped = preprocess(images, Preprocessing(half))
    sums = power_sums(images, ctf(params, BOX, PIXEL_SIZE_A))
    cropped_sums = power_sums(cropped, ctf(params, half, 2 * PIXEL_SIZE_A))
    fitted = fit_spectra(sums, noise if noise_is_known else None)
    expected = fit_spectra(cropped_sums, at_box(noise, half) if noise_is_known else None)
    whole, tolerance = (slice(0, 8), 1e-3) if noise_is_known else (slice(4, 8), 0.25)
    for larger, smaller in ((fitted.noise, expected.noise), (fitted.signal, expected.signal)):
        values = at_box(larger, half)
        assert values.shape == smaller.shape == (half // 2 + 1,)
        torch.testing.assert_close(values[whole], smaller[whole], rtol=tolerance, atol=0.0)


def test_scaled_spectra_are_those_of_scaled_images(clean_images, generator):
    clean, params = clean_images
    transfer = ctf(params, BOX, PIXEL_SIZE_A)
    images = clean + colour(white(COUNT, BOX, generator), noise_power(clean, 0.0, FLAT))
    scaled = fit_spectra(power_sums(images, transfer)).scaled(0.25)
    expected = fit_spectra(power_sums(0.25 * images, transfer))
    torch.testing.assert_close(scaled.noise, expected.noise, rtol=1e-4, atol=0.0)
    torch.testing.assert_close(scaled.signal, expected.signal, rtol=1e-3, atol=0.0)


def test_low_shells_take_their_noise_from_shells_that_know_it(clean_images, generator):
    """In shells 0 to 2 the CTFs hardly differ; their own lines know nothing of the noise."""
    clean, params = clean_images
    noise = noise_power(clean, 0.0, FLAT)
    transfer = ctf(params, BOX, PIXEL_SIZE_A)
    variance = fourier.shell_mean(transfer.square().var(0), BOX)
    assert variance[:3].max() < 0.01 * variance[BOX // 4 :].min()
    images = clean + colour(white(COUNT, BOX, generator), noise)
    fitted = fit_spectra(power_sums(images, transfer)).noise
    assert worst(fitted, noise, slice(0, 3)) < 0.35
    assert (radial_spectrum(images) / noise)[:3].min() > 5.0  # the signal is not taken for noise


def test_equal_ctfs_give_finite_spectra_that_explain_the_images(generator):
    """Nothing tells signal from noise then; whatever is said must add up."""
    params = CTFParams.constant(200, defocus_u_A=15_000.0)
    transfer = ctf(params, BOX, PIXEL_SIZE_A)
    images = white(200, BOX, generator)
    fitted = fit_spectra(power_sums(images, transfer))
    for values in (fitted.noise, fitted.signal):
        assert torch.isfinite(values).all()
        assert (values > 0).all()
    mean_ctf2 = fourier.shell_mean(transfer[0].square(), BOX)
    explained = fitted.noise + mean_ctf2 * fitted.signal
    assert (explained > 0.99 * radial_spectrum(images)).all()


def test_equal_images_are_all_signal(clean_images, true_signal):
    """No noise at all: N falls to its floor, a thousandth of the power."""
    clean, params = clean_images
    transfer = ctf(params, BOX, PIXEL_SIZE_A)
    fitted = fit_spectra(power_sums(clean, transfer))
    middle = slice(8, BOX // 2)
    assert (fitted.noise / radial_spectrum(clean))[middle].max() < 0.05
    assert worst(fitted.signal, true_signal, middle) < 0.05


@pytest.mark.parametrize(("snr_dB", "bound"), [(-20.0, 0.02), (-10.0, 0.03), (0.0, 0.12)])
def test_measured_background_finds_its_level(snr_dB, bound, clean_images, generator):
    """Patches three times too strong: their gain is a third of the images'."""
    clean, params = clean_images
    noise = noise_power(clean, snr_dB, RED)
    particles = Particles(
        ArrayStack(clean + colour(white(COUNT, BOX, generator), noise)), params, PIXEL_SIZE_A
    )
    patches = 3.0 * colour(white(600, BOX, generator), noise)
    measured = measure(particles, BackgroundPatches(ArrayStack(patches)))
    assert measured.noise_gain is not None
    assert 3.0 * measured.noise_gain / measured.gain == pytest.approx(1.0, abs=bound)
    found = measured.spectra.noise / measured.gain**2
    assert worst(found, noise, slice(1, BOX // 2)) < 0.05 + 2 * bound


@pytest.mark.parametrize("box_size", [BOX, BOX + 1])
def test_measured_images_have_unit_noise(box_size, generator):
    images = 7.0 * white(COUNT, box_size, generator)
    particles = Particles(ArrayStack(images), random_ctf(COUNT, generator), PIXEL_SIZE_A)
    measured = measure(particles, None)
    assert measured.noise_gain is None
    assert measured.gain == pytest.approx(1.0 / 7.0, rel=0.01)
    assert worst(measured.spectra.noise, torch.ones(17), slice(0, 16)) < 0.05


def test_spectra_are_continued_beyond_the_measured_box_by_the_last_whole_shell():
    """The Nyquist shell of a measured box is not whole: its value is not carried on."""
    values = torch.tensor([4.0, 3.0, 2.0, 1.0, 99.0])
    expected = torch.tensor([4.0, 3.0, 2.0, 1.0, 1.0, 1.0, 1.0])
    assert torch.equal(at_box(values, 12), expected)
    assert torch.equal(at_box(values, 4), values[:3])
