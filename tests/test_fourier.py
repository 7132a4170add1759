"""Fourier conventions: origin, half spectra, shells, crop and pad, for even and odd boxes."""

import pytest
import torch

from cryogan import fourier

BOXES = [16, 15]


def full_frequency_norm(box_size, dims):
    axis = torch.fft.fftfreq(box_size) * box_size
    return torch.stack(torch.meshgrid(*[axis] * dims, indexing="ij")).norm(dim=0)


def wave(box_size, k, phase, dims):
    """cos(2π k·x / D + phase) with x measured from pixel D // 2; k is (kx, ky[, kz])."""
    axis = (torch.arange(box_size) - box_size // 2).double() / box_size
    grid = torch.meshgrid(*[axis] * dims, indexing="ij")[::-1]
    argument = sum(ki * xi for ki, xi in zip(k, grid, strict=True))
    return torch.cos(2.0 * torch.pi * argument + phase)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("box_size", BOXES)
def test_a_point_at_the_origin_has_a_flat_real_spectrum(box_size, dims):
    array = torch.zeros((box_size,) * dims)
    array[(box_size // 2,) * dims] = 1.0
    spectrum = fourier.rfft(array, dims)
    torch.testing.assert_close(spectrum, torch.ones_like(spectrum), atol=1e-6, rtol=0.0)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("box_size", BOXES)
def test_transform_survives_the_round_trip(box_size, dims, generator):
    array = torch.randn(2, *(box_size,) * dims, generator=generator)
    back = fourier.irfft(fourier.rfft(array, dims), box_size, dims)
    torch.testing.assert_close(back, array, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("box_size", BOXES)
def test_frequency_grid_names_the_wave_in_x_y_z_order(box_size):
    array = wave(box_size, (3, -2, 1), 0.0, 3)
    power = fourier.rfft(array, 3).abs()
    peak = torch.unravel_index(power.argmax(), power.shape)
    k = fourier.frequency_grid(box_size, 3)[peak] * box_size
    assert k.round().tolist() == [3.0, -2.0, 1.0]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("box_size", BOXES)
def test_shell_sums_equal_those_of_the_full_transform(box_size, dims, generator):
    array = torch.randn(3, *(box_size,) * dims, generator=generator, dtype=torch.float64)
    axes = tuple(range(-dims, 0))
    power = torch.fft.fftn(array, dim=axes).abs().square().flatten(1)
    shells = full_frequency_norm(box_size, dims).round().long().flatten()
    expected = torch.stack([power[:, shells == s].sum(1) for s in range(box_size // 2 + 1)], dim=1)
    half = fourier.rfft(array, dims).abs().square()
    torch.testing.assert_close(fourier.shell_sum(half, box_size, dims), expected)
    counts = torch.bincount(shells)[: box_size // 2 + 1]
    torch.testing.assert_close(fourier.shell_mean(half, box_size, dims), expected / counts)


def test_half_weights_count_the_full_spectrum():
    for box_size in BOXES:
        assert fourier.half_weights(box_size).sum() == box_size


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("box_size", "new_size"), [(16, 32), (15, 32), (16, 21), (15, 21)])
def test_resample_is_exact_for_band_limited_functions(box_size, new_size, dims):
    """Both ways: the same wave sampled on another grid; grey values kept."""
    k, phase = (3, -5, 2)[:dims], 0.7
    coarse = 2.0 + wave(box_size, k, phase, dims)
    fine = 2.0 + wave(new_size, k, phase, dims)
    torch.testing.assert_close(fourier.resample(coarse, new_size, dims), fine)
    torch.testing.assert_close(fourier.resample(fine, box_size, dims), coarse)


def test_crop_removes_what_the_small_box_cannot_hold():
    array = wave(32, (8, 0), 0.0, 2) + wave(32, (0, 9), 0.4, 2) + 1.0
    torch.testing.assert_close(fourier.resample(array, 16), torch.ones(16, 16, dtype=torch.float64))


@pytest.mark.parametrize(("box_size", "new_size"), [(16, 24), (15, 24), (16, 25), (15, 25)])
def test_spectrum_padded_then_cropped_is_the_same_below_nyquist(box_size, new_size, generator):
    spectrum = fourier.rfft(torch.randn(2, box_size, box_size, generator=generator))
    grown = fourier.resize(spectrum, box_size, new_size)
    back = fourier.resize(grown, new_size, box_size)
    inside = (fourier.frequency_grid(box_size).abs() < 0.5).all(-1)
    assert torch.equal(back, spectrum * inside)


@pytest.mark.parametrize(("box_size", "new_size"), [(16, 24), (15, 24), (16, 25), (15, 25)])
def test_real_space_pad_keeps_the_origin(box_size, new_size, generator):
    array = torch.zeros(box_size, box_size)
    array[box_size // 2, box_size // 2] = 1.0
    grown = fourier.crop_or_pad(array, new_size)
    assert grown[new_size // 2, new_size // 2] == 1.0
    image = torch.randn(box_size, box_size, generator=generator)
    there_and_back = fourier.crop_or_pad(fourier.crop_or_pad(image, new_size), box_size)
    assert torch.equal(there_and_back, image)


def test_band_mask_keeps_what_lies_inside_the_radius():
    mask = fourier.band_mask(16, 5.0)
    radius = fourier.frequency_grid(16).norm(dim=-1) * 16
    assert torch.equal(mask.bool(), radius < 5.0)
    assert mask[0, 5] == 0
    assert mask[3, 3] == 1


def test_soft_disc_is_one_inside_and_zero_outside():
    disc = fourier.soft_disc(33, 8.0, 4.0)
    radius = fourier.radius_grid(33)
    assert (disc[radius <= 8.0] == 1.0).all()
    assert disc[radius >= 12.0].abs().max() < 1e-6
    assert disc[16, 26].item() == pytest.approx(0.5)  # radius 10: half way


@pytest.mark.parametrize("size", [15, 16])
@pytest.mark.parametrize("code", range(8))
def test_dihedral_moves_a_point_about_the_origin_pixel(size, code):
    middle = size // 2
    image = torch.zeros(1, size, size)
    image[0, middle + 2, middle + 5] = 1.0  # x = 5, y = 2
    x, y = (-5, 2) if code >= 4 else (5, 2)
    for _ in range(code % 4):
        x, y = y, -x  # a quarter turn of rows and columns
    moved = fourier.dihedral(image, code)
    assert moved[0, middle + y, middle + x] == 1.0
    assert moved.sum() == 1.0


@pytest.mark.parametrize(("box_size", "padded_size"), [(8, 16), (8, 13), (7, 14), (7, 9), (6, 6)])
def test_padded_transform_is_the_transform_of_the_padded_array(box_size, padded_size, generator):
    array = torch.randn(2, box_size, box_size, box_size, generator=generator)
    expected = fourier.rfft(fourier.crop_or_pad(array, padded_size, 3), 3)
    assert torch.equal(fourier.rfft_padded(array, padded_size, 3), expected)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("box_size", "padded_size"), [(4, 8), (5, 9), (4, 4)])
def test_padded_transform_has_true_first_and_second_derivatives(
    dims, box_size, padded_size, generator
):
    shape = (2,) + (box_size,) * dims
    array = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)

    def transform(x):
        return torch.view_as_real(fourier.rfft_padded(x, padded_size, dims)).square()

    assert torch.autograd.gradcheck(transform, array)
    assert torch.autograd.gradgradcheck(transform, array)


@pytest.mark.parametrize(("box_size", "padded_size"), [(6, 12), (8, 14), (7, 12), (6, 9), (8, 8)])
def test_pruned_transforms_are_those_of_whole_boxes(box_size, padded_size, generator):
    array = torch.randn(2, *(box_size,) * 3, generator=generator, dtype=torch.float64)
    spectrum = fourier.rfft(fourier.crop_or_pad(array, padded_size, 3), 3)
    torch.testing.assert_close(fourier.rfft_of_padded(array, padded_size), spectrum)
    whole = torch.randn(2, *(padded_size,) * 3, generator=generator, dtype=torch.float64)
    spectrum = fourier.rfft(whole, 3)
    found = fourier.irfft_cropped(spectrum, padded_size, box_size)
    torch.testing.assert_close(found, fourier.crop_or_pad(whole, box_size, 3))
