"""Shifts, the CTF's place in the image, and the one preprocessing of both streams."""

import math

import numpy as np
import pytest
import torch

from cryogan import fourier
from cryogan.particles import CTFParams, Pose
from cryogan.phantom import phantom_map
from cryogan.physics.ctf import ctf
from cryogan.physics.imaging import Preprocessing, form_images, preprocess, simulate_images
from cryogan.physics.projection import project, slices, volume_spectrum
from cryogan.physics.rotations import random_rotations


def relative_error(result, expected):
    return float((result - expected).norm() / expected.norm())


@pytest.mark.parametrize(("box_size", "pixel_size_A"), [(32, 6.0), (33, 6.0)])
def test_whole_pixel_shift_is_a_roll(box_size, pixel_size_A, generator):
    volume = phantom_map(box_size, pixel_size_A)
    rotation = random_rotations(3, generator)
    pixels = torch.tensor([[3.0, 0.0], [0.0, -2.0], [-4.0, 5.0]])  # (x, y)
    moved = simulate_images(
        volume, Pose(rotation, pixels * pixel_size_A), None, pixel_size_A=pixel_size_A
    )
    still = project(volume, rotation)
    for image, plain, (x, y) in zip(moved, still, pixels.int().tolist(), strict=True):
        expected = np.roll(plain.numpy(), (y, x), axis=(0, 1))
        np.testing.assert_allclose(image.numpy(), expected, atol=2e-4 * float(plain.max()))


def test_half_pixel_shifts_add_up(generator):
    volume = fourier.resample(phantom_map(32, 6.0), 64, dims=3)  # nothing at Nyquist
    rotation = random_rotations(1, generator)
    half = simulate_images(
        volume, Pose(rotation, torch.tensor([[1.5, 0.0]])), None, pixel_size_A=3.0
    )
    phase = torch.exp(-2j * torch.pi * fourier.frequency_grid(64)[..., 0] * 0.5)
    twice = fourier.irfft(fourier.rfft(half) * phase, 64)
    plain = project(volume, rotation)
    torch.testing.assert_close(twice, plain.roll(1, -1), atol=1e-3 * float(plain.max()), rtol=0)


def test_ctf_multiplies_the_spectrum(generator):
    volume = phantom_map(32, 6.0)
    rotation = random_rotations(4, generator)
    transfer = ctf(CTFParams.constant(4, defocus_u_A=20000.0), 32, 6.0)
    image = simulate_images(volume, Pose(rotation, torch.zeros(4, 2)), transfer, pixel_size_A=6.0)
    expected = fourier.rfft(project(volume, rotation)) * transfer
    torch.testing.assert_close(fourier.rfft(image), expected, atol=1e-2, rtol=1e-4)


def test_noise_is_added_last(generator):
    volume = phantom_map(32, 6.0)
    pose = Pose(random_rotations(2, generator), torch.ones(2, 2))
    transfer = ctf(CTFParams.constant(2, defocus_u_A=20000.0), 32, 6.0)
    noise = torch.randn(2, 32, 32, generator=generator)
    clean = simulate_images(volume, pose, transfer, pixel_size_A=6.0)
    noisy = simulate_images(volume, pose, transfer, pixel_size_A=6.0, noise=noise)
    torch.testing.assert_close(noisy - clean, noise, atol=1e-4, rtol=0.0)


def test_protein_is_bright(generator):
    volume = phantom_map(32, 6.0)
    pose = Pose(random_rotations(20, generator), torch.zeros(20, 2))
    transfer = ctf(CTFParams.constant(20, defocus_u_A=20000.0), 32, 6.0)
    image = simulate_images(volume, pose, transfer, pixel_size_A=6.0)
    disc = fourier.radius_grid(32) < 6
    ring = fourier.radius_grid(32) > 13
    assert (image[:, disc].mean(1) > image[:, ring].mean(1)).all()


def clean_images(box_size, pixel_size_A, pose, params):
    return form_images(
        volume_spectrum(phantom_map(box_size, pixel_size_A)),
        pose,
        ctf(params, box_size, pixel_size_A),
        box_size=box_size,
        pixel_size_A=pixel_size_A,
    )


@pytest.mark.parametrize(("window_radius", "bound"), [(None, 0.035), (0.8, 0.025)])
def test_images_cropped_from_64_px_equal_images_formed_at_32_px(window_radius, bound, generator):
    """A ray crosses twice as many voxels, and the unitary crop doubles grey values once more.

    What else differs is interpolation, and the ringing of the 32-px map that its box cuts off.
    """
    pose = Pose(random_rotations(16, generator), 20.0 * torch.randn(16, 2, generator=generator))
    params = CTFParams.constant(
        16, defocus_u_A=15000.0, defocus_v_A=14000.0, defocus_angle_deg=40.0
    )
    settings = Preprocessing(32, window_radius=window_radius)
    fine = preprocess(clean_images(64, 3.0, pose, params), settings)
    coarse = preprocess(clean_images(32, 6.0, pose, params), settings)
    assert relative_error(fine, 4.0 * coarse) < bound
    normal = Preprocessing(32, window_radius=window_radius, normalise=True)
    assert relative_error(preprocess(fine, normal), preprocess(coarse, normal)) < bound


@pytest.mark.parametrize(("box_size", "size"), [(64, 32), (65, 32), (64, 33), (32, 32)])
def test_nothing_is_left_at_or_beyond_nyquist(box_size, size, generator):
    images = torch.randn(4, box_size, box_size, generator=generator)
    power = fourier.rfft(preprocess(images, Preprocessing(size))).abs()
    radius = fourier.frequency_grid(size).norm(dim=-1) * size
    assert power[:, radius >= size / 2].max() < 1e-3
    assert power[:, radius < size / 2].min() > 1e-4


def test_band_limits_at_its_fraction_of_nyquist(generator):
    images = torch.randn(4, 64, 64, generator=generator)
    power = fourier.rfft(preprocess(images, Preprocessing(64, band=0.5))).abs()
    radius = fourier.frequency_grid(64).norm(dim=-1) * 64
    assert power[:, radius >= 16].max() < 1e-3
    original = fourier.rfft(images).abs()
    torch.testing.assert_close(
        power[:, radius < 16], original[:, radius < 16], atol=1e-3, rtol=1e-4
    )


def test_normalised_images_have_mean_zero_and_variance_one(generator):
    images = 7.0 + 3.0 * torch.randn(8, 64, 64, generator=generator)
    result = preprocess(images, Preprocessing(32, window_radius=0.9, normalise=True))
    assert result.mean((1, 2)).abs().max() < 1e-5
    torch.testing.assert_close(result.var((1, 2), correction=0), torch.ones(8))


def test_an_empty_image_stays_finite():
    result = preprocess(torch.zeros(2, 32, 32), Preprocessing(32, normalise=True))
    assert torch.equal(result, torch.zeros(2, 32, 32))


@pytest.mark.parametrize("normalise", [False, True])
def test_preprocessing_twice_is_preprocessing_once(normalise, generator):
    images = torch.randn(4, 48, 48, generator=generator)
    settings = Preprocessing(32, band=0.8, normalise=normalise)
    once = preprocess(images, settings)
    torch.testing.assert_close(preprocess(once, settings), once, atol=1e-5, rtol=1e-4)


def astigmatic_ctf(n, box_size, pixel_size_A):
    params = CTFParams.constant(n, defocus_u_A=21000.0, defocus_v_A=18000.0, defocus_angle_deg=25.0)
    return ctf(params, box_size, pixel_size_A)


@pytest.mark.parametrize("size", [32, 24])
def test_phase_flip_multiplies_the_spectrum_by_the_sign_of_the_ctf(size, generator):
    images = torch.randn(4, 32, 32, generator=generator)
    transfer = astigmatic_ctf(4, size, 6.0 * 32 / size)
    assert 0.2 < (transfer < 0).double().mean() < 0.8
    plain = preprocess(images, Preprocessing(size, band=0.8))
    flipped = preprocess(images, Preprocessing(size, band=0.8, phase_flip=True), transfer)
    sign = torch.where(transfer < 0, -1.0, 1.0)
    torch.testing.assert_close(
        fourier.rfft(flipped), fourier.rfft(plain) * sign, atol=1e-3, rtol=1e-4
    )


def test_flipping_a_simulated_image_leaves_the_modulus_of_its_ctf(generator):
    """At the images' own box, and of 64-px images at 32 px, with the CTF taken at 32 px."""
    volume = phantom_map(64, 3.0)
    pose = Pose(random_rotations(4, generator), 10.0 * torch.randn(4, 2, generator=generator))
    fine, coarse = astigmatic_ctf(4, 64, 3.0), astigmatic_ctf(4, 32, 6.0)
    images = simulate_images(volume, pose, fine, pixel_size_A=3.0)
    clean = simulate_images(volume, pose, None, pixel_size_A=3.0)
    for size, transfer in ((64, fine), (32, coarse)):
        flipped = preprocess(images, Preprocessing(size, phase_flip=True), transfer)
        projection = fourier.rfft(preprocess(clean, Preprocessing(size)))
        expected = fourier.irfft(projection * transfer.abs(), size)
        assert relative_error(flipped, expected) < 1e-4


@pytest.mark.parametrize("box_size", [32, 33, 64])
@pytest.mark.parametrize(("padding", "bound"), [(2.0, 0.025), (3.0, 0.0125), (4.0, 0.0075)])
def test_folded_slices_give_nearly_the_same_images(box_size, padding, bound, generator):
    """Of Gaussians within 0.3 box of the origin. Measured: 2.1, 1.0 and 0.6 % at even boxes (the
    errors that `slices` states), at most 2.2, 1.2 and 0.7 % at an odd one."""
    axis = torch.arange(box_size, dtype=torch.float32) - box_size // 2
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")[::-1], dim=-1)
    centres = torch.nn.functional.normalize(torch.randn(20, 3, generator=generator), dim=1)
    centres = centres * 0.3 * box_size * torch.rand(20, 1, generator=generator) ** (1 / 3)
    volume = sum(torch.exp(-(grid - c).square().sum(-1) / (2 * 1.5**2)) for c in centres)
    spectrum = volume_spectrum(volume, padding)
    pose = Pose(random_rotations(8, generator), 3.0 * torch.randn(8, 2, generator=generator))
    transfer = astigmatic_ctf(8, box_size, 3.0)
    for microscope, band in ((None, 1.0), (transfer, 0.8)):
        whole, folded = (
            form_images(
                spectrum,
                pose,
                microscope,
                box_size=box_size,
                pixel_size_A=3.0,
                band=band,
                folded=folded,
            )
            for folded in (False, True)
        )
        assert relative_error(folded, whole) < bound


def test_folded_slices_are_whole_slices_read_at_every_second_point(generator):
    """With padding 2, box D of the padded box's points is every second one of each axis."""
    spectrum = volume_spectrum(torch.randn(16, 16, 16, generator=generator))
    rotation = random_rotations(3, generator)
    whole, folded = slices(spectrum, rotation), slices(spectrum, rotation, 1.0, 16)
    assert folded.shape == (3, 16, 9)
    inside = fourier.frequency_grid(16).norm(dim=-1) * 32 <= 15
    torch.testing.assert_close(folded[:, inside], whole[:, ::2, ::2][:, inside])
    assert folded[:, ~inside].abs().max() == 0


@pytest.mark.parametrize("box_size", [16, 17])
def test_gradient_of_folded_images_is_the_adjoint(box_size, generator):
    """⟨A v, y⟩ = ⟨v, Aᵀ y⟩, and finite differences of a quadratic loss, which have no error."""
    pose = Pose(random_rotations(4, generator), torch.randn(4, 2, generator=generator))
    transfer = torch.randn(4, box_size, box_size // 2 + 1, generator=generator)
    volume = torch.randn(*(box_size,) * 3, generator=generator, requires_grad=True)
    other = torch.randn(*(box_size,) * 3, generator=generator)
    y = torch.randn(4, box_size, box_size, generator=generator)

    def images(v):
        return form_images(
            volume_spectrum(v, 3.0),
            pose,
            transfer,
            box_size=box_size,
            pixel_size_A=2.0,
            folded=True,
        ).double()

    (adjoint,) = torch.autograd.grad((images(volume) * y).sum(), volume)
    left, right = (images(other) * y).sum(), (other.double() * adjoint).sum()
    assert float(left) == pytest.approx(float(right), rel=1e-4, abs=1e-2)

    def loss(v):
        return (images(v) - y).square().mean()

    (gradient,) = torch.autograd.grad(loss(volume), volume)
    with torch.no_grad():
        difference = (loss(volume + other) - loss(volume - other)) / 2.0
    assert float((gradient * other).sum()) == pytest.approx(float(difference), rel=1e-3)


@pytest.mark.parametrize("folded", [False, True])
def test_frequencies_beyond_the_band_are_not_formed(folded, generator):
    """To the spectral leakage of the crop, where there is one."""
    spectrum = volume_spectrum(torch.randn(32, 32, 32, generator=generator), 3.0)
    pose = Pose(random_rotations(2, generator), torch.zeros(2, 2))
    images = form_images(
        spectrum, pose, None, box_size=32, pixel_size_A=3.0, band=0.5, folded=folded
    )
    power = fourier.rfft(images).abs()
    radius = fourier.frequency_grid(32).norm(dim=-1) * 32
    beyond = power[:, radius > 8.5].square().mean() / power[:, radius <= 8].square().mean()
    assert beyond.item() < (1e-10 if folded else 0.01)


def test_known_zero_shifts_need_no_phases(generator):
    volume, rotation = phantom_map(32, 6.0), random_rotations(3, generator)
    spectrum, pose = volume_spectrum(volume), Pose(rotation, torch.zeros(3, 2))
    with_phases, without = (
        form_images(spectrum, pose, None, box_size=32, pixel_size_A=6.0, shifted=shifted)
        for shifted in (True, False)
    )
    torch.testing.assert_close(without, with_phases)
    torch.testing.assert_close(without, project(volume, rotation), atol=1e-4, rtol=1e-4)


def test_white_noise_loses_20_log_f_decibel_when_cropped(generator):
    images = torch.randn(50, 96, 96, generator=generator)
    cropped = fourier.resample(images, 32)
    lost_dB = 20.0 * math.log10(float(images.std() / cropped.std()))
    assert lost_dB == pytest.approx(20.0 * math.log10(3.0), abs=0.35)
