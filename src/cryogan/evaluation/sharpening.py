"""B-factor of a map by the Guinier plot, and the map sharpened by it.

Rosenthal & Henderson, J. Mol. Biol. 333, 2003: amplitudes of a protein beyond about 10 Å would be
flat; what a map lacks falls as `exp(-B / (4 d²))`. The B-factor here is the slope of the
logarithm of the amplitude over `1 / (4 d²)`, as RELION and cryoSPARC quote it: negative where
amplitudes fall.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.evaluation.fsc import resolution_A

FIT_FROM_A = 10.0
_FEWEST_SHELLS = 5
_LEAST_RANGE = 2.0  # of 1 / d² within the fit
_EDGE_SHELLS = 2.0


@dataclass(frozen=True)
class GuinierPlot:
    """Amplitudes by shell, and a line fitted to their logarithms.

    Attributes:
        inverse_d2: (n,) 1 / d² in 1/Å² of shells 1 ... n.
        ln_amplitude: (n,) logarithm of the root mean square amplitude of a shell; NaN beyond the
            band of the maps.
        ln_signal: (n,) the same after the weight `sqrt(2 FSC / (1 + FSC))`; -inf where that is 0.
        fit_from_A, fit_to_A: the range of the fit.
        b_factor_A2: the slope times 4; None if there is no fit.
        intercept: logarithm of the fitted amplitude at 1 / d² = 0; None if there is no fit.
        reason: why there is no fit; empty if there is one.
    """

    inverse_d2: Tensor
    ln_amplitude: Tensor
    ln_signal: Tensor
    fit_from_A: float
    fit_to_A: float
    b_factor_A2: float | None
    intercept: float | None
    reason: str

    @property
    def fit(self) -> Tensor:
        """(n,) values of the line within the range of the fit, NaN beyond."""
        if self.b_factor_A2 is None or self.intercept is None:
            return torch.full_like(self.inverse_d2, math.nan)
        line = self.intercept + self.b_factor_A2 / 4.0 * self.inverse_d2
        return torch.where(_within(self.inverse_d2, self.fit_from_A, self.fit_to_A), line, math.nan)


def guinier_plot(
    average: Tensor,
    fsc: Tensor,
    pixel_size_A: float,
    *,
    mask: Tensor | None = None,
    fit_from_A: float = FIT_FROM_A,
    fit_to_A: float | None = None,
) -> GuinierPlot:
    """Fit the B-factor of a map.

    The line is fitted by least squares to `ln_signal`, each shell weighted by
    `2 FSC / (1 + FSC)`: its share of signal in the power of the mean map. There is no fit to fewer
    than five shells, nor where 1 / d² does not double (from 10 Å on: coarser than 7.1 Å), since the
    slope is then that of the fold, not of the map's errors.

    Args:
        average: (D, D, D) mean of two half-maps without filter.
        fsc: (D // 2 + 1,) of the half-maps, masked and corrected if `mask` is given; NaN beyond
            their band.
        pixel_size_A: of the map.
        mask: (D, D, D) that multiplies the map first, or None.
        fit_from_A: coarse end of the fit.
        fit_to_A: fine end; the resolution (FSC 0.143) by default.
    """
    size = average.shape[-1]
    end_A = resolution_A(fsc, 0.143, pixel_size_A, size) if fit_to_A is None else fit_to_A
    masked = average if mask is None else average * mask
    power = fourier.shell_mean(fourier.rfft(masked.double(), 3).abs().square(), size, 3)[1:]
    shell = torch.arange(1, size // 2 + 1, device=average.device, dtype=torch.float64)
    inverse_d2 = (shell / (size * pixel_size_A)).square()
    weight = signal_share(fsc)[1:].double()
    ln_amplitude = torch.where(fsc[1:].isfinite(), 0.5 * power.log(), math.nan)
    ln_signal = ln_amplitude + 0.5 * weight.log()
    used = _within(inverse_d2, fit_from_A, end_A) & ln_signal.isfinite()
    slope = intercept = None
    reason = _why_not(fit_from_A, end_A, int(used.sum()))
    if not reason:
        slope, intercept = _line(inverse_d2[used], ln_signal[used], weight[used])
    return GuinierPlot(
        inverse_d2,
        ln_amplitude,
        ln_signal,
        fit_from_A,
        end_A,
        None if slope is None else 4.0 * slope,
        intercept,
        reason,
    )


def signal_share(fsc: Tensor) -> Tensor:
    """`2 FSC / (1 + FSC)`: share of the signal in the power of the mean of two half-maps.

    Its square root is the figure of merit C_ref of Rosenthal & Henderson; 0 where the FSC is
    negative or not known (NaN).
    """
    known = fsc.nan_to_num(0.0).clamp(0.0, 1.0)
    return 2.0 * known / (1.0 + known)


def sharpened(
    average: Tensor, fsc: Tensor, b_factor_A2: float, pixel_size_A: float, cut_A: float
) -> Tensor:
    """A map with its fall-off undone, each shell weighted by what its half-maps share.

    Multiplied by `sqrt(2 FSC / (1 + FSC)) exp(-B / (4 d²))` up to the resolution, beyond which it
    falls to 0 within two shells as a raised cosine.

    Args:
        average: (D, D, D) mean of two half-maps without filter.
        fsc: (D // 2 + 1,) of the half-maps.
        b_factor_A2: as in `GuinierPlot`: negative sharpens.
        pixel_size_A: of the map.
        cut_A: resolution at which the map ends.

    Returns:
        (D, D, D), not masked.
    """
    size = average.shape[-1]
    width_A = size * pixel_size_A
    frequency = fourier.frequency_grid(size, 3, average.device).norm(dim=-1)
    weight = signal_share(fsc).sqrt()[fourier.shell_index(size, 3).clamp_max(size // 2)]
    beyond = (frequency * size - width_A / cut_A) / _EDGE_SHELLS
    edge = 0.5 + 0.5 * torch.cos(torch.pi * beyond.clamp(0.0, 1.0))
    fall = torch.exp(-0.25 * b_factor_A2 * (frequency / pixel_size_A).square())
    gain = torch.where(edge > 0, weight.to(average) * edge * fall, 0.0)
    return fourier.irfft(fourier.rfft(average, 3) * gain, size, 3)


def _within(inverse_d2: Tensor, from_A: float, to_A: float) -> Tensor:
    return (inverse_d2 >= from_A**-2) & (inverse_d2 <= (1.0 + 1e-6) * to_A**-2)


def _why_not(from_A: float, to_A: float, shells: int) -> str:
    least_A = from_A / math.sqrt(_LEAST_RANGE)
    if to_A > least_A:
        return (
            f"no B-factor: the resolution, {to_A:.1f} Å, is coarser than {least_A:.1f} Å, and the "
            f"Guinier plot is fitted from {from_A:g} Å on"
        )
    if shells < _FEWEST_SHELLS:
        return f"no B-factor: only {shells} shells lie between {from_A:g} and {to_A:.1f} Å"
    return ""


def _line(x: Tensor, y: Tensor, weight: Tensor) -> tuple[float, float]:
    """Slope and intercept by weighted least squares."""
    weight = weight / weight.sum()
    mean_x, mean_y = (weight * x).sum(), (weight * y).sum()
    slope = (weight * (x - mean_x) * (y - mean_y)).sum() / (weight * (x - mean_x).square()).sum()
    return float(slope), float(mean_y - slope * mean_x)
