"""The CTF against its formula written out, against torch-ctf, and its limits."""

import math

import pytest
import torch
from torch_ctf import calculate_ctf_2d

from cryogan.particles import CTFParams
from cryogan.physics.ctf import ctf


def by_hand(u, v, angle_deg, kV, cs_mm, w, phase_deg, kx, ky):
    """The formula, scalar and in double precision; k in 1/Å."""
    volts = 1e3 * kV
    lam = 12.2643 / math.sqrt(volts + 0.97845e-6 * volts**2)
    theta, theta_0 = math.atan2(ky, kx), math.radians(angle_deg)
    k2 = kx**2 + ky**2
    z = 0.5 * ((u + v) + (u - v) * math.cos(2.0 * (theta - theta_0)))
    chi = math.pi * lam * z * k2 - 0.5 * math.pi * cs_mm * 1e7 * lam**3 * k2**2
    chi += math.radians(phase_deg)
    return math.sqrt(1.0 - w**2) * math.sin(chi) + w * math.cos(chi)


@pytest.mark.parametrize(("kV", "expected"), [(200.0, 0.0250793), (300.0, 0.0196875)])
def test_wavelength_of_the_common_microscopes(kV, expected):
    assert float(
        CTFParams.constant(1, defocus_u_A=1e4, voltage_kV=kV).wavelength_A
    ) == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("box_size", [32, 33])
def test_every_coefficient_equals_the_formula(box_size):
    params = CTFParams.constant(
        2,
        defocus_u_A=torch.tensor([12345.0, 8000.0]),
        defocus_v_A=torch.tensor([11000.0, 9000.0]),  # v > u too
        defocus_angle_deg=torch.tensor([33.0, -70.0]),
        voltage_kV=torch.tensor([300.0, 200.0]),
        spherical_aberration_mm=torch.tensor([2.7, 2.0]),
        amplitude_contrast=torch.tensor([0.1, 0.07]),
        phase_shift_deg=torch.tensor([0.0, 60.0]),
    )
    pixel_size_A = 2.5
    result = ctf(params, box_size, pixel_size_A)
    frequency = torch.fft.fftfreq(box_size, pixel_size_A, dtype=torch.float64)
    expected = torch.tensor(
        [
            [
                [
                    by_hand(*row, frequency[ix].abs().item(), frequency[iy].item())
                    for ix in range(box_size // 2 + 1)
                ]
                for iy in range(box_size)
            ]
            for row in (
                (12345.0, 11000.0, 33.0, 300.0, 2.7, 0.1, 0.0),
                (8000.0, 9000.0, -70.0, 200.0, 2.0, 0.07, 60.0),
            )
        ]
    )
    assert (result - expected).abs().max() < 1e-4


def test_ctf_equals_torch_ctf():
    """u > v and some astigmatism: where torch-ctf is defined; its defocus is in µm."""
    params = CTFParams.constant(1, defocus_u_A=15000.0, defocus_v_A=14000.0, defocus_angle_deg=25.0)
    theirs = calculate_ctf_2d(
        defocus=1.45,
        astigmatism=0.05,
        astigmatism_angle=25.0,
        voltage=300.0,
        spherical_aberration=2.7,
        amplitude_contrast=0.1,
        phase_shift=0.0,
        pixel_size=3.0,
        image_shape=(64, 64),
        rfft=True,
        fftshift=False,
    )
    ours = ctf(params, 64, 3.0)[0]
    assert (ours - theirs.reshape(64, 33)).abs().max() < 1e-3


def test_protein_stays_bright_at_low_frequency():
    params = CTFParams.constant(3, defocus_u_A=torch.tensor([5000.0, 15000.0, 30000.0]))
    values = ctf(params, 64, 4.0)
    torch.testing.assert_close(values[:, 0, 0], torch.full((3,), 0.1))
    assert (values[:, 0, 1] > 0.1).all()


def first_zero(values):
    return int((values < 0).nonzero()[0])


def test_larger_defocus_lies_along_the_astigmatism_angle():
    """u > v and angle 0: the CTF falls faster along x; angle 90: along y."""
    for angle, along_x_first in ((0.0, True), (90.0, False)):
        params = CTFParams.constant(
            1, defocus_u_A=20000.0, defocus_v_A=12000.0, defocus_angle_deg=angle
        )
        values = ctf(params, 256, 3.0)[0]
        assert (first_zero(values[0, :]) < first_zero(values[:128, 0])) is along_x_first


def test_astigmatism_angle_turns_from_x_towards_y():
    """At 45° the larger defocus lies along (+x, +y), not along (+x, -y)."""
    params = CTFParams.constant(1, defocus_u_A=20000.0, defocus_v_A=12000.0, defocus_angle_deg=45.0)
    values = ctf(params, 256, 3.0)[0]
    step = torch.arange(1, 120)
    assert first_zero(values[step, step]) < first_zero(values[-step, step])


def test_envelope_and_scale():
    params = CTFParams.constant(2, defocus_u_A=10000.0)
    damped = CTFParams.constant(2, defocus_u_A=10000.0, b_factor_A2=80.0, scale=0.5)
    plain, result = ctf(params, 32, 2.0), ctf(damped, 32, 2.0)
    k2 = (8.0 / (32 * 2.0)) ** 2
    expected = 0.5 * math.exp(-80.0 / 4.0 * k2)
    assert float(result[0, 0, 8] / plain[0, 0, 8]) == pytest.approx(expected, rel=1e-4)


def test_gradient_exists_without_astigmatism():
    u = torch.tensor([12000.0], requires_grad=True)
    params = CTFParams.constant(1, defocus_u_A=0.0)
    params = type(params)(**{**params.__dict__, "defocus_u_A": u, "defocus_v_A": u})
    ctf(params, 16, 3.0).sum().backward()
    assert torch.isfinite(u.grad).all()
