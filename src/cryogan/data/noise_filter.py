"""Noise whose power depends on direction, and the filter that makes it radial.

Detectors, compression and processing leave patterns, such as weaves, whose power is in few
directions. Fitted as if it were the mean of its shell, a pattern counts as signal. Images are
therefore multiplied by `sqrt(N_radial / N)` in Fourier space, after which a radial spectrum
describes their noise. N is measured at every frequency: on background patches, if there are any,
else on the images. All views are assumed to be equally likely in the plane, so that the signal
depends on direction only through the CTFs and through whatever made the noise do so.

If a pattern was added to the images, the filter is a part of the signal's transfer function. If it
was left by a filter, the signal has the same pattern and is restored with the noise. What is true
is measured: the signal's power is `(1 - q + q N / N_radial)` times radial, and q is fitted to the
slopes of |Y|² against CTF² (`physics.spectra`).
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.data.background import LARGEST_RADIUS, background_power, background_weight
from cryogan.data.parts import in_parts
from cryogan.particles import DerivedStack, Particles, TransferFilter
from cryogan.physics.ctf import ctf
from cryogan.physics.noise import NoiseModel
from cryogan.physics.spectra import PowerSpectra, PowerSums, bounded_spectra, power_sums

_PIXELS = 8192 * 128**2
_SIGNIFICANT = 5.0  # standard deviations
_LEAST = 0.1  # root mean square of N / N_radial - 1; weighting by less gains 1 %
_LEAST_PART = 0.1  # of the power
FEWEST = 100  # images or patches
_TREND = 3  # coefficients
_PEAK = 4.0  # times the median of a shell
_WEAKEST = 1e-3  # of the radial noise: weaker noise is amplified as if it were that
_MOST_SIGNAL = 2.0
_FLOOR = 0.1  # of a shell's mean power: weights are no larger than for that
_SHARES = 21


@dataclass(frozen=True)
class Anisotropy:
    """How noise depends on direction.

    Attributes:
        ratio: (D, D // 2 + 1) N over its mean in the shell; exactly 1 in shells where it does not
            differ, or not significantly.
        signal_share: q: 1 if the signal has the same pattern, 0 if the pattern is the noise's own.
    """

    ratio: Tensor
    signal_share: float

    @property
    def is_isotropic(self) -> bool:
        """Whether no shell differs."""
        return bool((self.ratio == 1.0).all())

    @property
    def image_gain(self) -> Tensor:
        """(D, D // 2 + 1) what images are multiplied by.

        At most 32, and at most what doubles the signal's amplitude: where next to nothing is left
        of either, their ratio is not well known.
        """
        most = _MOST_SIGNAL / self._signal_power.clamp_min(1e-6).sqrt()
        return torch.minimum(self.ratio.clamp_min(_WEAKEST).rsqrt(), most)

    @property
    def signal_gain(self) -> Tensor:
        """(D, D // 2 + 1) the transfer function, besides the CTF, of the filtered images."""
        return self._signal_power.sqrt() * self.image_gain

    @property
    def _signal_power(self) -> Tensor:
        return 1.0 + self.signal_share * (self.ratio - 1.0)

    @property
    def largest(self) -> tuple[float, float, float]:
        """The largest ratio, its direction in degrees from x, and its wavelength in pixels."""
        largest = self.ratio == self.ratio.max()
        x, y = fourier.frequency_grid(len(self.ratio))[largest][0].tolist()
        along_deg = math.degrees(math.atan2(y, x)) % 180.0
        return float(self.ratio.max()), along_deg, 1.0 / math.hypot(x, y)

    @property
    def band_px(self) -> tuple[float, float]:
        """Longest and shortest wavelength of the shells that differ, in pixels."""
        size = len(self.ratio)
        shells = fourier.shell_index(size)[self.ratio != 1.0]
        return size / float(shells.min()), size / float(shells.max())

    def words(self, pixel_size_A: float) -> str:
        """A line for people, with the pixel size of the images."""
        (coarse_px, fine_px), (ratio, along_deg, at_px) = self.band_px, self.largest
        return (
            f"noise is not isotropic: between {coarse_px * pixel_size_A:.1f} and "
            f"{fine_px * pixel_size_A:.1f} Å its power depends on direction, by up to "
            f"{ratio:.2g} times its shell's mean ({along_deg:.0f}° from x, at "
            f"{at_px * pixel_size_A:.1f} Å); images are filtered accordingly; the signal "
            f"shares {100.0 * self.signal_share:.0f} % of it"
        )


@dataclass(frozen=True)
class FilteredStack(DerivedStack):
    """The images of `parent`, their spectra multiplied by `gain`: an `ImageStack`."""

    gain: Tensor

    def read(self, index: Tensor) -> Tensor:
        return filtered(self.parent.read(index), self.gain)


def filtered(images: Tensor, gain: Tensor) -> Tensor:
    """Images (n, D, D) whose spectra are multiplied by `gain` (D, D // 2 + 1)."""
    return fourier.irfft(fourier.rfft(images) * gain.to(images.device), images.shape[-1])


def with_isotropic_noise(
    particles: Particles, noise: NoiseModel | None = None
) -> tuple[Particles, NoiseModel | None]:
    """Particles and noise model, filtered if the noise depends on direction; else as they are.

    What was done is added to the summary of the particles' source.

    Args:
        particles: level images (`data.normalisation`).
        noise: measured or known noise in the particles' box, or None.

    Raises:
        InputError: an image cannot be read.
    """
    found = measure_anisotropy(particles, noise)
    if found.is_isotropic:
        return particles, noise
    source, gain = particles.source, found.image_gain
    if source is not None:
        words = found.words(particles.pixel_size_A)
        source = replace(source, summary=f"{source.summary}\n{words}")
    result = replace(
        particles,
        stack=FilteredStack(particles.stack, gain),
        ctf=replace(
            particles.ctf, filter=TransferFilter(found.signal_gain, particles.pixel_size_A)
        ),
        source=source,
    )
    return result, noise and noise.transformed(lambda images: filtered(images, gain))


def measure_anisotropy(particles: Particles, noise: NoiseModel | None = None) -> Anisotropy:
    """Measure N / N_radial at every frequency.

    The images are taken evenly from the set, up to 8,192 of 128 px or as many pixels. Without a
    noise model N is what their mean power exceeds that of the fitted signal by. Where noise is less
    than half of the power, deviations are divided by that half, and where it is less than a tenth
    there are none: they could be the signal's.

    A trend with |k| within a shell does not count. A shell is isotropic unless its coefficients
    scatter by 5 standard deviations more than their sampling errors say (χ², as Wilson and Hilferty
    approximate it), and by a tenth of N. What is left is drawn towards 1 by the share of its
    variance that the sampling errors explain.
    """
    sums, spectra = _sums_of(particles)
    if noise is None:
        measured = sums
        expected, noise_part = _expected(sums, spectra)
    else:
        patches = noise.examples()
        measured = power_sums(patches, torch.ones_like(fourier.rfft(patches[:1]).real))
        expected = noise_part = torch.ones_like(measured.power)
    relative = _within_shells(measured.power / measured.count / expected.clamp_min(1e-30))
    deviation = _significant(relative, _relative_error(measured))
    if measured.count < FEWEST:
        deviation = torch.zeros_like(deviation)
    share = _signal_share(sums, 1.0 + deviation)
    part = noise_part + share * (1.0 - noise_part)  # of the power has the pattern
    deviation = torch.where(part > _LEAST_PART, deviation / part.clamp_min(0.5), 0.0)
    ratio = (1.0 + deviation).clamp_min(0.0)
    share = _signal_share(sums, ratio)
    return Anisotropy(ratio.float(), share)


def _sums_of(particles: Particles) -> tuple[PowerSums, PowerSpectra]:
    """Sums over the images, and radial spectra that fit them."""
    size = particles.box_size
    count = max(1, min(len(particles), _PIXELS // size**2))
    outside = background_weight(size, LARGEST_RADIUS)
    background = torch.zeros(size // 2 + 1, dtype=torch.float64)
    total = None
    chosen = torch.linspace(0, len(particles) - 1, count).round().long()
    for index in in_parts(chosen, particles.stack):
        transfer = ctf(particles.ctf[index], size, particles.pixel_size_A)
        images = particles.stack.read(index)
        background += len(index) / count * background_power(images, outside)
        sums = power_sums(images, transfer)
        total = sums if total is None else total + sums
    assert total is not None
    return total, bounded_spectra(total, background, float(outside.square().mean()))


def _expected(sums: PowerSums, spectra: PowerSpectra) -> tuple[Tensor, Tensor]:
    """Power of radial signal and noise at every coefficient, and the noise's share of it.

    The share is the median of 5 shells: where one stands out, the fit takes a part for signal.
    """
    size = sums.power.shape[-2]
    shells = fourier.shell_index(size).clamp_max(size // 2)
    noise, signal = spectra.noise.double()[shells], spectra.signal.double()[shells]
    expected = noise + sums.ctf2 / sums.count * signal
    part = spectra.noise.double() / fourier.shell_mean(expected, size).clamp_min(1e-30)
    wide = torch.nn.functional.pad(part[None], (2, 2), mode="replicate")[0]
    return expected, wide.unfold(0, 5, 1).median(dim=1).values[shells]


def _relative_error(sums: PowerSums) -> Tensor:
    """Standard error of the mean power, relative to it; of noise it is 1 / sqrt(n) or more."""
    mean = sums.power / sums.count
    variance = sums.power2 / sums.count - mean.square()
    relative = variance / mean.square().clamp_min(1e-30)
    return (relative.clamp_min(1.0) / max(1, sums.count - 1)).sqrt()


def _within_shells(values: Tensor) -> Tensor:
    """Positive values (D, D // 2 + 1) over their trend with |k| in the shell, less 1.

    The logarithm of the trend is quadratic and fitted to all values but peaks and gaps, those
    beyond four times or a quarter of the median. If most are such, there is no trend.
    """
    size = len(values)
    shells = fourier.shell_index(size)
    place = fourier.frequency_grid(size).norm(dim=-1).double() * size
    result = torch.zeros_like(values)
    for shell in range(2, size // 2):
        here = shells == shell
        found = values[here].clamp_min(1e-30)
        off = (place[here] - shell)[:, None] ** torch.arange(_TREND)
        logs = (found / found.median()).log()
        used = logs.abs() < math.log(_PEAK)
        if 2 * int(used.sum()) > len(logs):
            coefficients = torch.linalg.lstsq(off[used], logs[used, None], driver="gelsd").solution
            found = found / (off @ coefficients)[:, 0].exp()
        weight = fourier.half_weights(size).expand_as(values)[here]
        result[here] = found / ((weight * found).sum() / weight.sum()) - 1.0
    return result


def _significant(deviation: Tensor, error: Tensor) -> Tensor:
    """Deviations (D, D // 2 + 1), drawn towards 0 by the share that is chance; or 0.

    Args:
        deviation: relative, of power.
        error: its standard error.
    """
    size = len(deviation)
    count = fourier.shell_sum(torch.ones_like(deviation), size) / 2.0  # k and -k are one
    freedom = (count - _TREND).clamp_min(1.0)
    chi2 = fourier.shell_sum((deviation / error).square(), size) / 2.0
    spread = 2.0 / (9.0 * freedom)
    z = ((chi2 / freedom).pow(1.0 / 3.0) - (1.0 - spread)) / spread.sqrt()
    variance = fourier.shell_mean(deviation.square(), size)
    chance = fourier.shell_mean(error.square(), size)
    share = (1.0 - chance / variance.clamp_min(1e-30)).clamp_min(0.0)
    clear = (z > _SIGNIFICANT) & (share * variance > _LEAST**2)
    return (share * clear)[fourier.shell_index(size).clamp_max(size // 2)] * deviation


def _signal_share(sums: PowerSums, ratio: Tensor) -> float:
    """Posterior mean of q, given the slopes of |Y|² against CTF²; each shell has its own signal."""
    size = len(ratio)
    mean_ctf2, power = sums.ctf2 / sums.count, sums.power / sums.count
    variance = sums.ctf4 / sums.count - mean_ctf2.square()
    covariance = sums.ctf2_power / sums.count - mean_ctf2 * power
    shells = fourier.shell_index(size).clamp_max(size // 2)
    least = _FLOOR * fourier.shell_mean(power, size)[shells]
    weight = (shells < size // 2) / torch.maximum(power, least).square().clamp_min(1e-30)
    shares, explained = torch.linspace(0.0, 1.0, _SHARES, dtype=torch.float64), []
    for share in shares:
        expected = 1.0 + share * (ratio - 1.0)
        above = fourier.shell_sum(weight * covariance * expected, size).clamp_min(0.0)
        below = fourier.shell_sum(weight * variance * expected.square(), size)
        explained.append((above.square() / below.clamp_min(1e-30)).sum())
    log_likelihood = 0.25 * sums.count * torch.stack(explained)  # k and -k are one
    return float((torch.softmax(log_likelihood, dim=0) * shares).sum())
