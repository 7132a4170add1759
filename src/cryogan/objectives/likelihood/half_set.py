"""One half-set, its units, and its images as the likelihood needs them."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.data.images import PreprocessedStack
from cryogan.data.padding import PaddedBox
from cryogan.data.parts import in_parts
from cryogan.data.statistics import Measurement, at_box, measure, shell_amplitude
from cryogan.objectives.data_parallel import SINGLE_PROCESS, ProcessGroup
from cryogan.objectives.likelihood.image_model import blob_gains
from cryogan.objectives.likelihood.observations import Observations, observations_of
from cryogan.particles import ArrayStack, Particles
from cryogan.physics.circular_harmonics import CircularHarmonics
from cryogan.physics.ctf import ctf
from cryogan.physics.imaging import Preprocessing
from cryogan.physics.noise import NoiseModel
from cryogan.physics.spectra import PowerSpectra

_MOST_NOISE = 4.0  # times what was measured
_LEAST_SIGNAL = 0.01  # of the images' power


@dataclass(frozen=True)
class PowerSplit:
    """How the images' power is divided anew, by shell of the spectra that were measured.

    Attributes:
        noise: (S,) factors of the noise, 1 or more.
        signal: (S,) factors of the signal, 1 or less; the power of the images stays the same.
        width_A: of the box whose shells these are.
    """

    noise: Tensor
    signal: Tensor
    width_A: float

    @classmethod
    def read(cls, record: Tensor, width_A: float) -> "PowerSplit":
        """From what `record` gives."""
        noise, signal = record
        return cls(noise, signal, width_A)

    @property
    def record(self) -> Tensor:
        """(2, S), for checkpoints and results."""
        return torch.stack((self.noise, self.signal))

    @classmethod
    def unchanged(cls, shells: int, width_A: float) -> "PowerSplit":
        """As it was measured."""
        return cls(torch.ones(shells), torch.ones(shells), width_A)

    def at(self, shells: int, width_A: float) -> "PowerSplit":
        """The same by the shells of another box: interpolated in spatial frequency, then held."""
        place = torch.arange(shells) * (self.width_A / width_A)
        place = place.clamp_max(len(self.noise) - 1)
        below = place.floor().long().clamp_max(len(self.noise) - 2)
        noise, signal = (
            torch.lerp(values[below], values[below + 1], place - below)
            for values in (self.noise, self.signal)
        )
        return PowerSplit(noise, signal, width_A)

    def with_residuals(self, residual: Tensor, power: Tensor) -> "PowerSplit":
        """After a map has left residuals.

        Residuals above the noise are noise that the spectra took for signal, or signal that the
        map does not explain yet: both are noise to the poses. The noise never falls below what was
        measured, because a map that follows the noise of its images leaves too little; nor does it
        exceed four times that, because of strong images a coarse map leaves far more than noise.

        Args:
            residual: (R,) mean residual of rings 1 ... R, in units of the noise now.
            power: (R,) mean power of the images there, in the same units.
        """
        shells = len(self.noise)
        ring = (torch.arange(shells) - 1).clamp(0, len(residual) - 1)  # held beyond the band
        inside = torch.arange(shells) <= len(residual)
        total = self.noise * power[ring]  # in units of the noise that was measured
        noise = torch.minimum(self.noise * residual[ring], total).clamp(1.0, _MOST_NOISE)
        left = (total - noise).clamp_min(_LEAST_SIGNAL * total) / (total - 1.0).clamp_min(1e-6)
        last = len(residual)
        noise = torch.where(inside, noise, noise[min(last, shells - 1)])
        left = torch.where(inside, left, left[min(last, shells - 1)]).clamp_max(1.0)
        return PowerSplit(noise, left, self.width_A)


@dataclass(frozen=True)
class HalfSet:
    """One half-set with what was measured on it.

    Attributes:
        particles: its images.
        measurement: spectra and unit.
        noise_share: share of the power of noise that window and padding leave in a coefficient.
        padded: the box that the images are padded to, if any.
        split: how the power of the images is divided anew, if it is.
        group: the processes that share its images.
    """

    particles: Particles
    measurement: Measurement
    noise_share: float = 1.0
    padded: PaddedBox | None = None
    split: PowerSplit | None = None
    group: ProcessGroup = SINGLE_PROCESS

    @property
    def likely(self) -> Tensor:
        """(m,) int64 images that show a particle more likely than not; all if most would not."""
        every = torch.arange(len(self))
        probability = self.particles.particle_probability
        if probability is None:
            return every
        likely = every[probability >= 0.5]
        return likely if 2 * len(likely) >= len(every) else every

    @classmethod
    def of(
        cls,
        particles: Particles,
        noise: NoiseModel | None = None,
        padded: PaddedBox | None = None,
    ) -> "HalfSet":
        """Measure its spectra; the noise has the shape of the model's, if there is one.

        Args:
            particles: the images.
            noise: measured or known noise, in the particles' box.
            padded: box that the images are padded to; by default they stay as they are.
        """
        if padded is None:
            return cls(particles, measure(particles, noise))
        if noise is not None:
            noise = noise.transformed(lambda images: images * padded.window)
        measured = measure(particles, noise, radius=padded.reach, window=padded.window)
        # a window weakens the noise, which is everywhere, but not the molecule, which is inside;
        # and power is per pixel, of which a wider box has more
        spectra = PowerSpectra(
            padded.shells(measured.spectra.signal) * (padded.box_size / padded.width_px) ** 2,
            padded.shells(measured.spectra.noise) / padded.noise_share,
        )
        measured = replace(measured, spectra=spectra)
        share = padded.noise_share * padded.share**2
        return cls(padded.pad_particles(particles), measured, share, padded)

    def __len__(self) -> int:
        return len(self.particles)

    def noise(self, size: int) -> Tensor:
        """(size // 2 + 1,) power at a box, the median of 7 shells.

        A few hundred images do not separate noise from signal in every single shell, and a shell
        whose noise is underestimated a hundredfold would dominate the likelihood.
        """
        measured = self.measurement.spectra.noise
        wide = torch.nn.functional.pad(measured[None, :-1], (3, 3), mode="reflect")[0]
        smooth = wide.unfold(0, 7, 1).median(dim=1).values
        noise = torch.cat((smooth, measured[-1:]))
        return at_box(noise if self.split is None else noise * self.split.noise, size)

    @property
    def signal(self) -> Tensor:
        """Power of the projections by shell."""
        signal = self.measurement.spectra.signal
        return signal if self.split is None else signal * self.split.signal

    def divided(self, split: PowerSplit | None) -> "HalfSet":
        """With power divided as in another set, of any box; as it was measured, if None."""
        if split is None:
            return replace(self, split=None)
        return replace(self, split=split.at(len(self.measurement.spectra.noise), self.width_A))

    def with_residuals(self, residual: Tensor, power: Tensor) -> "HalfSet":
        """With power divided anew: `PowerSplit.with_residuals`."""
        return replace(self, split=self.power_split.with_residuals(residual, power))

    @property
    def power_split(self) -> PowerSplit:
        """How power is divided now."""
        shells = len(self.measurement.spectra.noise)
        return self.split or PowerSplit.unchanged(shells, self.width_A)

    @property
    def width_A(self) -> float:
        """Of the box that the images are padded to, or of their own."""
        return self.particles.box_size * self.particles.pixel_size_A

    def window(self, size: int) -> Tensor:
        """(size, size) what the images are multiplied by, at a box."""
        if self.padded is None:
            return torch.ones(size, size)
        whole = fourier.crop_or_pad(self.padded.window, self.padded.width_px)
        return fourier.resample(whole, size)

    def signal_prior(self, size: int) -> Tensor:
        """(size // 2 + 1,) expected |F|² of the map at a box, from the images' power alone.

        CTFs leave next to nothing in the first shells: there it is no less than further out.
        """
        signal = at_box(self.signal, size).clone()
        signal[:4] = signal[:4].flip(0).cummax(0).values.flip(0)
        return shell_amplitude(signal, size).square()

    def scaled_to_images(self, volume: Tensor) -> Tensor:
        """A map (D, D, D) scaled so that its low shells have the power that the images show.

        Shells 2 to D / 4, or to where the images' signal falls below a tenth of their noise.
        """
        size = volume.shape[-1]
        signal = self.signal_prior(size).to(volume.device)
        power = fourier.shell_mean(fourier.rfft(volume, 3).abs().square(), size, 3)
        noise = self.noise(size).to(volume.device) * size**2
        clear = (signal > 0.1 * noise)[2 : size // 4].int().cumprod(0).sum().clamp_min(2)
        shells = slice(2, 2 + int(clear))
        return volume * (signal[shells].sum() / power[shells].sum().clamp_min(1e-30)).sqrt()

    def basis_scaled_to_images(self, basis: Tensor) -> Tensor:
        """Basis volumes (C, D, D, D), scaled alike as `scaled_to_images` scales the mean."""
        mean = basis[0]
        gain = self.scaled_to_images(mean).norm() / mean.norm().clamp_min(1e-30)
        scaled: Tensor = basis * gain
        return scaled

    def in_memory(self, index: Tensor, rows: Tensor) -> "HalfSet":
        """Some images alone ((m,) int64), read once: some of their rows, the others are zero."""
        part = self.particles.subset(index)
        images = torch.zeros(len(index), part.box_size, part.box_size)
        for some in in_parts(rows, part.stack):
            images[some] = part.stack.read(some)
        return replace(self, particles=replace(part, stack=ArrayStack(images)))

    def stack(self, size: int) -> PreprocessedStack:
        """The images at a box."""
        return PreprocessedStack(self.particles, self.measurement.gain, Preprocessing(size))

    def observed(
        self, index: Tensor, harmonics: CircularHarmonics, device: torch.device
    ) -> Observations:
        """The images of `index` ((n,) int64) as the likelihood needs them."""
        parts = in_parts(index, self.particles.stack)
        found = [self._observed(part, harmonics, device) for part in parts]
        return found[0] if len(found) == 1 else Observations.joined(found)

    def _observed(
        self, index: Tensor, harmonics: CircularHarmonics, device: torch.device
    ) -> Observations:
        """A few images, all at once."""
        stack = self.stack(harmonics.box_size)
        ctf_params = self.particles.ctf[index].to(device)
        size = harmonics.box_size
        transfer = ctf(ctf_params, size, stack.pixel_size_A)
        noise = self.noise(size).to(device)
        images = stack.read(index).to(device)
        shells = fourier.shell_index(size, 2, device).clamp_max(size // 2)
        usual = self.noise_share * noise[shells].clamp_min(1e-20)
        signal = at_box(self.signal.clamp_min(0.0), size).to(device)[shells]
        excess = (fourier.rfft(images).abs() / size).square() / usual
        ratio = transfer.square() * signal / usual
        blobs = blob_gains(excess, ratio, harmonics.rings, self.noise_share)
        return replace(observations_of(images, transfer, noise, harmonics), blobs=blobs)
