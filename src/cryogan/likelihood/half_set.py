"""One half of the particles, its units, and its images as the likelihood needs them."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.likelihood.expectation import Observations, observe
from cryogan.likelihood.field import Field, FieldStack
from cryogan.likelihood.polar import Polar
from cryogan.particles import Particles
from cryogan.physics.ctf import ctf
from cryogan.physics.imaging import Preprocessing
from cryogan.physics.noise import BackgroundPatches
from cryogan.physics.spectra import PowerSpectra
from cryogan.training.data import Measurement, at_box, measure
from cryogan.training.state import shell_amplitude
from cryogan.training.stream import PreprocessedStack


@dataclass(frozen=True)
class HalfSet:
    """One half of the particles with what was measured on it.

    Attributes:
        particles: its images.
        measurement: spectra and unit.
    """

    particles: Particles
    measurement: Measurement

    @classmethod
    def of(
        cls,
        particles: Particles,
        background: BackgroundPatches | None = None,
        field: Field | None = None,
    ) -> "HalfSet":
        """Measure its spectra; the noise has the shape of the background's, if there is one.

        Args:
            particles: the images.
            background: measured noise, patches of the particles' box.
            field: that the images are put into; by default they stay as they are.
        """
        if field is None:
            return cls(particles, measure(particles, background))
        own = replace(field, width_px=field.box_size)
        if background is not None:
            background = BackgroundPatches(FieldStack(background.stack, own))
        measured = measure(own.wide(particles), background)
        # a window weakens the noise, which is everywhere, but not the molecule, which is inside;
        # and power is per pixel, of which a wider box has more
        spectra = PowerSpectra(
            field.shells(measured.spectra.signal) * (field.box_size / field.width_px) ** 2,
            field.shells(measured.spectra.noise) / field.seen,
        )
        return cls(field.wide(particles), replace(measured, spectra=spectra))

    def __len__(self) -> int:
        return len(self.particles)

    def noise(self, size: int) -> Tensor:
        """(size // 2 + 1,) power at a box, the median of 7 shells.

        A few hundred images do not tell noise from signal in every single shell, and a shell whose
        noise is taken to be a hundredth of what it is would decide all.
        """
        measured = self.measurement.spectra.noise
        wide = torch.nn.functional.pad(measured[None, :-1], (3, 3), mode="reflect")[0]
        smooth = wide.unfold(0, 7, 1).median(dim=1).values
        return at_box(torch.cat((smooth, measured[-1:])), size)

    def signal_prior(self, size: int) -> Tensor:
        """(size // 2 + 1,) expected |F|² of the map at a box, from the images' power alone.

        CTFs leave next to nothing in the first shells: there it is no less than further out.
        """
        signal = at_box(self.measurement.spectra.signal, size).clone()
        signal[:4] = signal[:4].flip(0).cummax(0).values.flip(0)
        return shell_amplitude(signal, size).square()

    def in_units(self, volume: Tensor) -> Tensor:
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

    def components_in_units(self, components: Tensor) -> Tensor:
        """Components (C, D, D, D) of a series, scaled alike as `in_units` scales the mean."""
        mean = components[0]
        gain = self.in_units(mean).norm() / mean.norm().clamp_min(1e-30)
        scaled: Tensor = components * gain
        return scaled

    def stack(self, size: int) -> PreprocessedStack:
        return PreprocessedStack(self.particles, self.measurement.gain, Preprocessing(size))

    def observed(self, index: Tensor, polar: Polar, device: torch.device) -> Observations:
        """The images of `index` ((n,) int64) as the likelihood needs them."""
        stack = self.stack(polar.box_size)
        ctf_params = self.particles.ctf[index].to(device)
        transfer = ctf(ctf_params, polar.box_size, stack.pixel_size_A)
        noise = self.noise(polar.box_size).to(device)
        return observe(stack.read(index).to(device), transfer, noise, polar)
