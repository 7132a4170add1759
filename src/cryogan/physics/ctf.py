"""The contrast transfer function of a transmission electron microscope.

`CTF(k) = sqrt(1 - w²) sin χ + w cos χ` with `χ(k) = π λ z(θ) |k|² - ½ π Cs λ³ |k|⁴ + φ`,
`z(θ) = ½ [(u + v) + (u - v) cos 2(θ - θ₀)]`: positive at k = 0 for protein that is bright, the
sign in which RELION applies it to references (Zhang, J. Struct. Biol. 193, 2016; RELION).
"""

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.particles import FLIPPED, MULTIPLIED, CTFParams, TransferFilter

_ROUNDING = 1e-4  # of a coefficient: frequencies that are the same are equal
LEAST_CTF = 0.1  # of images multiplied by their CTFs: where |CTF| is smaller, they stay weaker


def ctf(params: CTFParams, box_size: int, pixel_size_A: float) -> Tensor:
    """CTFs on half spectra: (n, D, D // 2 + 1), in `fourier`'s order, B-factor and scale applied.

    The B-factor envelope is `exp(-B |k|² / 4)`. Of images whose phases were flipped it is |CTF|; of
    those that were multiplied by their CTFs, and then divided by at least 0.1 of its modulus
    (`data.normalisation`), |CTF| or 10 CTF². All are multiplied by `params.filter`, if any.
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
    if bool(params.correction.any()):
        size = transfer.abs()
        transfer = torch.where(column(params.correction == FLIPPED), size, transfer)
        restored = size.square() / size.clamp_min(LEAST_CTF)
        transfer = torch.where(column(params.correction == MULTIPLIED), restored, transfer)
    if params.filter is None:
        return transfer
    return transfer * filter_at(params.filter, box_size, pixel_size_A)


def filter_at(filter: TransferFilter, box_size: int, pixel_size_A: float) -> Tensor:
    """A filter at the coefficients of another box: (D, D // 2 + 1), bilinear in frequency.

    Beyond the Nyquist frequency of its own box it has the values that it has there.
    """
    gain = filter.gain
    own = gain.shape[-2]
    scale = own * filter.pixel_size_A / pixel_size_A
    k = fourier.frequency_grid(box_size, 2, gain.device) * scale
    k = torch.where((k - k.round()).abs() < _ROUNDING, k.round(), k)
    below = k.floor()
    result = torch.zeros(k.shape[:-1], device=gain.device)
    for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
        step = torch.tensor(corner, device=gain.device)
        weight = torch.where(step == 1, k - below, 1.0 - (k - below)).prod(-1)
        place = below.long() + step
        x = place[..., 0].clamp_max(own // 2)
        y = place[..., 1].clamp(-(own // 2), (own - 1) // 2) % own
        result = result + weight * gain[y, x]
    return result
