"""Signal and noise power of a particle set, measured without a pose.

At every frequency k the power of an image is `|Y|² = CTF² S + N`, where S is the power of the
molecule's projections and N that of the noise. Neither depends on the CTF, and the CTFs of a set
differ, so at every k a straight line through |Y|² against CTF² has slope S(k) and intercept N(k).
Averaged over shells, this fixes the noise, the contrast and the fall-off of the volume's spectrum
before any training. (Lines must be fitted k by k: within a shell S and CTF² both vary with k,
and a line through the whole shell would mistake that for a relation between them.)
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan import fourier

_CLEAR = 0.05  # share of the images' power that signal above background must have


@dataclass(frozen=True)
class PowerSpectra:
    """Power per coefficient in every shell 0 ... D // 2; white noise of unit variance has 1.

    Attributes:
        signal: (D // 2 + 1,) S, of projections before the CTF.
        noise: (D // 2 + 1,) N.
    """

    signal: Tensor
    noise: Tensor

    def scaled(self, gain: float) -> "PowerSpectra":
        """The spectra of the same images multiplied by `gain`."""
        return PowerSpectra(self.signal * gain**2, self.noise * gain**2)


@dataclass(frozen=True)
class PowerSums:
    """Sums over images from which the lines are fitted.

    `count` is the number of images; the others are (D, D // 2 + 1): sums of CTF², |Y|², CTF⁴,
    CTF² |Y|² and |Y|⁴ at every coefficient of a half spectrum.
    """

    count: int
    ctf2: Tensor
    power: Tensor
    ctf4: Tensor
    ctf2_power: Tensor
    power2: Tensor

    def __add__(self, other: "PowerSums") -> "PowerSums":
        return PowerSums(
            self.count + other.count,
            self.ctf2 + other.ctf2,
            self.power + other.power,
            self.ctf4 + other.ctf4,
            self.ctf2_power + other.ctf2_power,
            self.power2 + other.power2,
        )


def power_sums(images: Tensor, ctf: Tensor) -> PowerSums:
    """The sums for one batch: images (n, D, D) and their CTFs (n, D, D // 2 + 1)."""
    power = (fourier.rfft(images).abs().square() / images.shape[-1] ** 2).double()
    ctf2 = ctf.square().double()
    return PowerSums(
        images.shape[0],
        ctf2.sum(0),
        power.sum(0),
        ctf2.square().sum(0),
        (ctf2 * power).sum(0),
        power.square().sum(0),
    )


def fit_spectra(sums: PowerSums, noise: Tensor | None = None) -> PowerSpectra:
    """Fit `|Y|² = CTF² S + N` at every frequency by least squares and average over shells.

    Coefficients count by the variance of CTF² among the images. Where the CTFs hardly differ (low
    frequencies) a line cannot tell S from N: every shell's N is therefore a mean over all shells
    t, with weights 1 / (1 + 16 (s - t)⁴) times the precision of the intercept, so that it is the
    shell's own where that is well determined and its better neighbours' where not. S is what is
    left. S is kept above a tenth of the shell before, N between 1e-3 of the image power and all.

    Args:
        sums: of all images.
        noise: (D // 2 + 1,) known N, for example of measured background; only S is fitted then.
    """
    box_size = sums.power.shape[-2]
    mean_ctf2, mean_power = sums.ctf2 / sums.count, sums.power / sums.count
    shell_power = fourier.shell_mean(mean_power, box_size)
    shell_ctf2 = fourier.shell_mean(mean_ctf2, box_size)
    if noise is None:
        variance = (sums.ctf4 / sums.count - mean_ctf2**2).clamp_min(1e-12)
        covariance = sums.ctf2_power / sums.count - mean_ctf2 * mean_power
        intercept = mean_power - covariance / variance * mean_ctf2
        total_variance = fourier.shell_sum(variance, box_size)
        fitted = fourier.shell_sum(variance * intercept, box_size) / total_variance
        precision = total_variance / (shell_ctf2 * shell_power).square().clamp_min(1e-20)
        precision[box_size // 2 :] *= 1e-6  # the Nyquist shell is not whole
        number = torch.arange(len(fitted), dtype=torch.float64)
        weight = precision / (1.0 + 16.0 * (number[:, None] - number[None, :]) ** 4)
        noise = (weight @ fitted) / weight.sum(dim=1)
        noise = torch.minimum(torch.maximum(noise, 1e-3 * shell_power), shell_power)
    signal = (shell_power - noise.double()) / shell_ctf2.clamp_min(1e-6)
    signal[0] = signal[0].clamp_min(1e-12)
    for shell in range(1, len(signal)):
        signal[shell] = torch.maximum(signal[shell], 0.1 * signal[shell - 1])
    return PowerSpectra(signal.float(), noise.float())


def bounded_spectra(sums: PowerSums, background: Tensor, area: float) -> PowerSpectra:
    """Spectra where noise is no more than background, and signal no more than a line's slope.

    The signal is what the images have above their background. Neighbours and delocalised signal
    may leave next to nothing, or nothing clear; it is then half that of the shell before, but no
    more than the slope, and above a tenth of either, up to half of the power. The noise is the
    rest.

    Args:
        sums: of all images.
        background: (D // 2 + 1,) power of the images beside the particles.
        area: share of the images in which that was measured.
    """
    box_size = sums.power.shape[-2]
    power = fourier.shell_mean(sums.power / sums.count, box_size)
    ctf2 = fourier.shell_mean(sums.ctf2 / sums.count, box_size).clamp_min(1e-6)
    coefficients = 0.5 * fourier.shell_sum(torch.ones_like(sums.power), box_size)
    error = (sums.count * area * coefficients).clamp_min(1.0).rsqrt()
    clear = power * (3.0 * error).clamp_min(_CLEAR)
    slope = ((power - fit_spectra(sums).noise.double()) / ctf2).clamp_min(0.0)
    above = power - background.double()
    half = 0.5 * power / ctf2
    signal = torch.where(above > clear, above / ctf2, torch.minimum(0.1 * slope, half))
    signal = signal.clamp_min(1e-12)
    for shell in range(2, len(signal)):
        if above[shell] < clear[shell]:
            before = signal[shell - 1]
            continued = torch.minimum(slope[shell], 0.5 * before)
            least = 0.1 * torch.maximum(slope[shell], before)
            signal[shell] = torch.minimum(torch.maximum(continued, least), half[shell])
    noise = torch.maximum(power - ctf2 * signal, 1e-3 * power)
    noise[0] = noise[1]  # background holds no information on the mean
    return PowerSpectra(signal.float(), noise.float())
