"""Conical FSC, cFAR and the sampling compensation factor against cases with known answers."""

import math

import pytest
import torch

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.evaluation.directional import (
    conical_fsc,
    conical_fsc_area_ratio,
    directional_fsc,
    fibonacci_hemisphere,
    sampling_compensation,
    viewing_directions,
)
from cryogan.evaluation.fsc import fourier_shell_correlation
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
    mask = fourier.soft_disc(SIZE, 8.0, 4.0, 3)
    found = directional_fsc(a, b, mask, last_shell=10)
    assert torch.equal(found.curves[:, :11], directional_fsc(a * mask, b * mask).curves[:, :11])
    assert found.curves[:, 11:].isnan().all()


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
