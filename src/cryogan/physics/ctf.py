"""The contrast transfer function of a transmission electron microscope.

`CTF(k) = sqrt(1 - w²) sin χ + w cos χ` with `χ(k) = π λ z(θ) |k|² - ½ π Cs λ³ |k|⁴ + φ`,
`z(θ) = ½ [(u + v) + (u - v) cos 2(θ - θ₀)]`: positive at k = 0 for protein that is bright, the
sign in which RELION applies it to references (Zhang, J. Struct. Biol. 193, 2016; RELION).
"""

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.particles import FLIPPED, MULTIPLIED, CTFParams

LEAST_CTF = 0.1  # of images multiplied by their CTFs: where |CTF| is smaller, they stay weaker


def ctf(params: CTFParams, box_size: int, pixel_size_A: float) -> Tensor:
    """CTFs on half spectra: (n, D, D // 2 + 1), in `fourier`'s order, B-factor and scale applied.

    The B-factor envelope is `exp(-B |k|² / 4)`. Of images whose phases were flipped it is |CTF|; of
    those that were multiplied by their CTFs, and then divided by at least 0.1 of its modulus
    (`data.normalisation`), |CTF| or 10 CTF².
    """
    k = fourier.frequency_grid(box_size, 2, params.defocus_u_A.device) / pixel_size_A
    k2 = k.square().sum(-1)
    azimuth = torch.atan2(k[..., 1], k[..., 0])

    def column(value: Tensor) -> Tensor:
        return value[:, None, None]

    wavelength = column(params.wavelength_A)
    u, v = column(params.defocus_u_A), column(params.defocus_v_A)
    angle = torch.deg2rad(column(params.defocus_angle_deg))
    defocus = 0.5 * ((u + v) + (u - v) * torch.cos(2.0 * (azimuth - angle)))
    aberration_A = column(params.spherical_aberration_mm) * 1e7
    chi = (
        torch.pi * wavelength * defocus * k2
        - 0.5 * torch.pi * aberration_A * wavelength**3 * k2**2
        + torch.deg2rad(column(params.phase_shift_deg))
    )
    w = column(params.amplitude_contrast)
    envelope = column(params.scale) * torch.exp(-column(params.b_factor_A2) / 4.0 * k2)
    transfer = envelope * (torch.sqrt(1.0 - w**2) * torch.sin(chi) + w * torch.cos(chi))
    if not bool(params.correction.any()):
        return transfer
    size = transfer.abs()
    transfer = torch.where(column(params.correction == FLIPPED), size, transfer)
    restored = size.square() / size.clamp_min(LEAST_CTF)
    return torch.where(column(params.correction == MULTIPLIED), restored, transfer)
