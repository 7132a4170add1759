"""Conical FSC, cFAR and the sampling compensation factor against cases with known answers."""

import math

import pytest
import torch

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.evaluation.conical_fsc import conical_fsc, expected_spectra
from cryogan.evaluation.directional import (
    conical_areas,
    conical_fsc_area_ratio,
    directional_fsc,
    fibonacci_hemisphere,
    sampling_compensation,
    viewing_directions,
)
from cryogan.evaluation.fsc import fourier_shell_correlation
from cryogan.evaluation.masks import soft_mask
from cryogan.phantom import phantom_map
from cryogan.physics.rotations import euler_to_matrix

SIZE = 32


def noise(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(SIZE, SIZE, SIZE, generator=generator)


def halves(generator: torch.Generator, gain: torch.Tensor) -> list[torch.Tensor]:
    """One white signal, and in each half white noise whose amplitude is `gain` in Fourier space."""
    signal = noise(generator)
    return [
        signal + fourier.irfft(gain * fourier.rfft(noise(generator), 3), SIZE, 3) for _ in range(2)
    ]


def test_axes_are_unit_vectors_spread_evenly() -> None:
    axes = fibonacci_hemisphere(256)
    assert torch.allclose(axes.norm(dim=-1), torch.ones(256), atol=1e-6)
    assert axes[:, 2].min() > 0
    second = (axes.T @ axes) / 256  # of even directions a third of the identity
    assert torch.allclose(second, torch.eye(3) / 3, atol=0.01)


def test_the_widest_cones_hold_the_whole_shell(generator: torch.Generator) -> None:
    a, b = halves(generator, torch.tensor(1.0))
    found = conical_fsc(a, b, fibonacci_hemisphere(3), half_angle_deg=91.0)
    assert torch.allclose(found, fourier_shell_correlation(a, b).expand(3, -1), atol=1e-5)


def test_a_cone_against_a_loop_over_the_full_transform(generator: torch.Generator) -> None:
    a, b = halves(generator, torch.tensor(1.0))
    axis = torch.nn.functional.normalize(torch.tensor([[0.3, -0.5, 0.8]]), dim=-1)
    found = conical_fsc(a, b, axis)[0]
    fa, fb = torch.fft.fftn(a.double()), torch.fft.fftn(b.double())
    k = torch.fft.fftfreq(SIZE, dtype=torch.float64) * SIZE
    kz, ky, kx = torch.meshgrid(k, k, k, indexing="ij")
    vectors = torch.stack((kx, ky, kz), dim=-1)
    length = vectors.norm(dim=-1)
    cosine = (vectors @ axis[0].double()).abs() / length.clamp_min(1e-9)
    for shell in (5, 9, 14):
        pick = (length.round() == shell) & (cosine >= math.cos(math.radians(20.0)))
        cross = (fa[pick] * fb[pick].conj()).sum().real
        power = fa[pick].abs().square().sum() * fb[pick].abs().square().sum()
        assert float(found[shell]) == pytest.approx(float(cross / power.sqrt()), abs=1e-5)


def test_isotropic_halves_have_a_ratio_near_1(generator: torch.Generator) -> None:
    found = directional_fsc(*halves(generator, torch.tensor(0.3)))
    assert found.curves.shape == (256, SIZE // 2 + 1)
    assert found.cfar > 0.9
    assert found.mean[8:].mean() == pytest.approx(1 / 1.09, abs=0.02)


def test_noise_in_a_cone_gives_a_low_ratio(generator: torch.Generator) -> None:
    """The signal along z is lost beyond shell 6: the area there ends at it."""
    frequency = fourier.frequency_grid(SIZE, 3)
    radius = frequency.norm(dim=-1)
    along_z = frequency[..., 2].abs() >= math.cos(math.radians(35.0)) * radius
    gain = torch.where(along_z & (radius * SIZE > 6.5), 20.0, 0.3)
    found = directional_fsc(*halves(generator, gain))
    assert found.cfar < 0.15
    assert float(found.axes[found.areas.argmin(), 2]) > math.cos(math.radians(20.0))


def test_ratio_of_curves_that_end_at_known_shells() -> None:
    curves = torch.tensor([[1.0, 1.0, 1.0, 0.5, 0.1, 0.9], [1.0, 1.0, 0.5, math.nan, 1.0, 1.0]])
    assert conical_fsc_area_ratio(curves) == pytest.approx((1 + 2) / (1 + 4 + 4.5))
    assert math.isnan(conical_fsc_area_ratio(torch.zeros(2, 6)))


def test_a_mask_multiplies_both_and_the_band_ends(generator: torch.Generator) -> None:
    a, b = halves(generator, torch.tensor(0.5))
    mask, axes = fourier.soft_disc(SIZE, 8.0, 4.0, 3), fibonacci_hemisphere(256)
    found = conical_fsc(a, b, axes, mask=mask)
    torch.testing.assert_close(found, conical_fsc(a * mask, b * mask, axes))
    ended = directional_fsc(a, b, mask, last_shell=10).curves
    torch.testing.assert_close(ended[:, :3], found[:, :3])  # nothing to correct yet
    assert ended[:, 11:].isnan().all()


# The correction for the mask


def phantom_halves(kept: torch.Tensor, generator: torch.Generator) -> list[torch.Tensor]:
    """Coefficients of the phantom, and white noise of a tenth of its standard deviation."""
    volume = phantom_map(48, 4.0)
    signal = fourier.irfft(fourier.rfft(volume, 3) * kept, 48, 3)
    noises = torch.randn(2, 48, 48, 48, generator=generator)
    return [signal + 0.1 * volume.std() * each for each in noises]


def test_expected_spectra_are_means_over_random_phases(generator: torch.Generator) -> None:
    size, draws = 16, 400
    maps = halves(generator, torch.tensor(0.5))
    first, second = (fourier.resample(each, size, 3) for each in maps)
    mask = fourier.soft_disc(size, 4.0, 3.0, 3)
    beyond = fourier.shell_index(size, 3) >= 4
    cross, power, _ = expected_spectra(first, second, mask, beyond)
    shape = fourier.rfft(first, 3).shape
    total_cross, total_power = torch.zeros(shape), torch.zeros(shape)
    for _ in range(draws):
        drawn = []
        for each in (first, second):
            phase = torch.sgn(fourier.rfft(torch.randn(each.shape, generator=generator), 3))
            spectrum = fourier.rfft(each, 3)
            spectrum = torch.where(beyond, spectrum.abs() * phase, spectrum)
            drawn.append(fourier.rfft(mask * fourier.irfft(spectrum, size, 3), 3))
        total_cross += (drawn[0] * drawn[1].conj()).real / draws
        total_power += drawn[0].abs().square() / draws
    for found, drawn_mean, tolerance in ((cross, total_cross, 0.03), (power, total_power, 0.02)):
        found, wanted = (fourier.shell_sum(x, size, 3)[1:] for x in (found, drawn_mean))
        scale = fourier.shell_sum(total_power, size, 3)[1:]
        assert float(((found - wanted) / scale).abs().max()) < tolerance


def test_a_mask_resolves_nothing_beyond_the_signal(generator: torch.Generator) -> None:
    """The phantom up to shell 6, noise beyond: the mask alone makes the halves agree there."""
    mask = soft_mask(phantom_map(48, 4.0), 4.0)
    a, b = phantom_halves(fourier.shell_index(48, 3) <= 6, generator)
    axes = fibonacci_hemisphere(256)
    as_it_is = conical_fsc(a, b, axes, mask=mask)[:, 9:15]
    assert float(as_it_is.mean()) > 0.9
    found = directional_fsc(a, b, mask)
    assert float(found.mean[9:15].abs().max()) < 0.3
    last = ((found.curves[:, 1:] > 0.143).cumprod(1)).sum(1)
    assert float(last.float().median()) <= 9.0


def test_masked_noise_is_resolved_in_no_direction(generator: torch.Generator) -> None:
    mask = soft_mask(phantom_map(48, 4.0), 4.0)
    for _ in range(3):
        a, b = torch.randn(2, 48, 48, 48, generator=generator)
        found = directional_fsc(a, b, mask)
        full = sum(shell**2 for shell in range(1, 25))
        assert float(found.areas.max()) < 0.05 * full  # a few shells by chance


def test_ratio_inside_a_mask(generator: torch.Generator) -> None:
    """Lost along z beyond shell 6: 91 of 4,900 of the area; the mask brings some of it back."""
    mask = soft_mask(phantom_map(48, 4.0), 4.0)
    frequency, shells = fourier.frequency_grid(48, 3), fourier.shell_index(48, 3)
    even = directional_fsc(*phantom_halves(shells <= 24, generator), mask)
    assert even.cfar > 0.85
    steep = frequency[..., 2].abs() >= math.cos(math.radians(40.0)) * frequency.norm(dim=-1)
    a, b = phantom_halves((shells <= 6) | ~steep & (shells <= 24), generator)
    found = directional_fsc(a, b, mask)
    uncorrected = conical_areas(conical_fsc(a, b, found.axes, mask=mask))
    along = found.axes[:, 2] > math.cos(math.radians(20.0))  # their cones hold none of the rest
    resolved = (found.curves[:, 1:] > 0.143).cumprod(1).sum(1)[along]
    assert 6 <= float(resolved.float().median()) <= 9
    assert float(uncorrected[along].mean() / uncorrected.max()) > 0.5
    assert float(found.areas[along].mean() / found.areas.max()) < 0.1
    assert float(found.axes[found.areas.argmin(), 2]) > math.cos(math.radians(40.0))


def test_maps_of_different_boxes_are_refused() -> None:
    with pytest.raises(InputError, match="one box size"):
        directional_fsc(torch.zeros(8, 8, 8), torch.zeros(9, 9, 9))


# Sampling compensation factor


def test_even_views_compensate_fully() -> None:
    found = sampling_compensation(fibonacci_hemisphere(20000))
    assert found.scf == pytest.approx(1.0, abs=0.02)
    assert found.scf_star == found.scf
    assert found.unsampled == 0.0


def test_side_views_have_8_over_pi_squared() -> None:
    """S ∝ 1 / sin θ: <1/S> <S> = (π / 4) (π / 2), whatever the axis."""
    angle = torch.arange(20000) * (math.pi / 20000)
    views = torch.stack((angle.cos(), angle.sin(), torch.zeros_like(angle)), dim=-1)
    assert sampling_compensation(views).scf_star == pytest.approx(8 / math.pi**2, abs=0.01)
    assert sampling_compensation(views[:, [1, 2, 0]]).scf == pytest.approx(8 / math.pi**2, abs=0.01)


def test_one_view_samples_a_belt() -> None:
    """A share 1 / 2R of directions is sampled by all N views, the others by none."""
    views, radius = torch.tensor([[0.0, 0.0, 1.0]]).expand(500, 3), 20.0
    found = sampling_compensation(views, fourier_radius=radius)
    share = 0.5 / radius
    assert found.unsampled == pytest.approx(1 - share, abs=0.001)
    assert found.scf == pytest.approx(1 / share, rel=0.02)
    zeros = (1 - share) / share
    expected = 1 / (share + zeros * 500 * share)
    assert found.scf_star == pytest.approx(expected, rel=0.03)
    assert found.scf_star < 0.01


def test_weights_stand_for_repeated_views(generator: torch.Generator) -> None:
    views = torch.randn(300, 3, generator=generator)
    weights = torch.randint(0, 3, (300,), generator=generator)
    repeated = sampling_compensation(views.repeat_interleave(weights, dim=0))
    weighted = sampling_compensation(views, 5.0 * weights)
    assert weighted.scf == pytest.approx(repeated.scf, rel=1e-4)
    assert weighted.unsampled == repeated.unsampled


def test_few_views_have_gaps_in_fine_shells_only(generator: torch.Generator) -> None:
    views = torch.randn(300, 3, generator=generator)
    fine, coarse = (sampling_compensation(views, fourier_radius=r).scf_star for r in (50.0, 5.0))
    assert fine < 0.81
    assert coarse > 0.95


def test_no_views_are_refused() -> None:
    with pytest.raises(InputError, match="no views"):
        sampling_compensation(torch.zeros(0, 3))


def test_viewing_directions_have_their_symmetry_mates() -> None:
    """One view along x of a D2 molecule is two: along x and along -x."""
    along_x = euler_to_matrix(torch.tensor([[0.0, 90.0, 30.0]]))
    found = viewing_directions(along_x, "D2")
    assert found.shape == (4, 3)
    assert found[:, 0].sort().values.tolist() == pytest.approx([-1.0, -1.0, 1.0, 1.0], abs=1e-6)
    assert float(found[:, 1:].abs().max()) < 1e-6
    torch.testing.assert_close(viewing_directions(along_x), along_x[:, :, 2])
