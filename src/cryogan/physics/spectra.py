"""Signal and noise power of a particle set, measured without a pose.

At every frequency the power of an image is `|Y|² = CTF² S + N`, where S is the power of the
molecule's projections (rotationally averaged) and N that of the noise. The CTFs of a set differ,
so within a shell a straight line through |Y|² against CTF² has slope S and intercept N. This
fixes the noise, the contrast and the fall-off of the volume's spectrum before any training.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan import fourier

_MIN_CTF_SPREAD = 0.15
"""Least standard deviation of CTF² in a shell, relative to 1/3, for its line to be trusted."""


@dataclass(frozen=True)
class PowerSpectra:
    """Power per coefficient in every shell 0 ... D // 2; white noise of unit variance has 1.

    Attributes:
        signal: (D // 2 + 1,) S, of projections before the CTF.
        noise: (D // 2 + 1,) N.
    """

    signal: Tensor
    noise: Tensor


@dataclass(frozen=True)
class PowerSums:
    """Sums over images and shell coefficients from which the lines are fitted.

    Each is (D // 2 + 1,): number of coefficients, sums of CTF², |Y|², CTF⁴ and CTF² |Y|².
    """

    count: Tensor
    ctf2: Tensor
    power: Tensor
    ctf4: Tensor
    ctf2_power: Tensor

    def __add__(self, other: "PowerSums") -> "PowerSums":
        return PowerSums(
            self.count + other.count,
            self.ctf2 + other.ctf2,
            self.power + other.power,
            self.ctf4 + other.ctf4,
            self.ctf2_power + other.ctf2_power,
        )


def power_sums(images: Tensor, ctf: Tensor) -> PowerSums:
    """The sums for one batch: images (n, D, D) and their CTFs (n, D, D // 2 + 1)."""
    box_size = images.shape[-1]
    power = fourier.rfft(images).abs().square() / box_size**2
    ctf2 = ctf.square()

    def total(values: Tensor) -> Tensor:
        return fourier.shell_sum(values.double(), box_size).sum(0)

    return PowerSums(
        total(torch.ones_like(power)),
        total(ctf2),
        total(power),
        total(ctf2.square()),
        total(ctf2 * power),
    )


def fit_spectra(sums: PowerSums, noise: Tensor | None = None) -> PowerSpectra:
    """Fit `|Y|² = CTF² S + N` in every shell by least squares.

    Shells whose CTFs hardly differ (low frequencies) cannot tell S from N: there N is taken from
    the nearest shell that can, and S from what is left. S is kept above 1e-4 of its largest
    value, N above 1e-3 of the image power.

    Args:
        sums: of all images.
        noise: (D // 2 + 1,) known N, for example of measured background; only S is fitted then.
    """
    mean_ctf2, mean_power = sums.ctf2 / sums.count, sums.power / sums.count
    if noise is None:
        spread2 = sums.ctf4 / sums.count - mean_ctf2**2
        covariance = sums.ctf2_power / sums.count - mean_ctf2 * mean_power
        trusted = (spread2.clamp_min(0).sqrt() * 3 > _MIN_CTF_SPREAD).nonzero()[:, 0]
        fitted = mean_power - covariance / spread2.clamp_min(1e-12) * mean_ctf2
        if len(trusted) == 0:
            fitted, trusted = mean_power, torch.tensor([len(mean_power) - 1])
        shells = torch.arange(len(mean_power))
        nearest = trusted[(shells[:, None] - trusted[None, :]).abs().argmin(dim=1)]
        noise = fitted[nearest]
        noise = torch.minimum(torch.maximum(noise, 1e-3 * mean_power), mean_power)
    signal = (mean_power - noise.double()) / mean_ctf2.clamp_min(1e-6)
    signal = signal.clamp_min(1e-4 * float(signal.max().clamp_min(1e-12)))
    return PowerSpectra(signal.float(), noise.float())
