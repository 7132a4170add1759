"""The noise of a simulated set: white, coloured or measured, at a stated signal-to-noise ratio.

The ratio is `20 log10(‖clean‖ / ‖noise‖)` over the whole set (an amplitude ratio, as in the
CryoGAN paper: -20 dB is a power ratio of 0.01). It depends on the box, since the molecule's
power lies at low frequencies and the noise's everywhere. It may therefore be stated for a larger
box S: images of S px, Fourier-cropped to D px of the same field of view, keep the signal's grey
values and lose the noise beyond the new Nyquist frequency. A source makes the noise that is left
in the box D and knows what it was in the box S, the reference.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.io.mrc import MrcStack, contradict
from cryogan.particles import ArrayStack
from cryogan.physics.noise import BackgroundPatches, radial_spectrum, white
from cryogan.simulation.table import read_columns

_CHUNK = 64
_MAX_DB = 200


@dataclass(frozen=True)
class NoiseSettings:
    """Noise of the images.

    Attributes:
        kind: none, white, coloured (Gaussian, of a given power spectrum) or background
            (particle-free patches of real micrographs).
        snr_dB: 20 log10(|clean| / |noise|) over the whole set, in dB; -20 is a hundred times
            more noise than signal in power.
        snr_box_size: box in pixels for which snr_dB is meant, where larger than the images':
            images of that box were Fourier-cropped to theirs, which leaves part of the noise.
        file: coloured: .csv with the columns spatial_frequency_per_A and power (in any unit), or
            a stack of patches whose spectrum is measured. background: a stack of patches; every
            second one is used and the others are kept for reconstruction.

    Raises:
        InputError: a number is out of its range, or `file` and `kind` contradict each other.
    """

    kind: Literal["none", "white", "coloured", "background"] = "white"
    snr_dB: float = -10.0
    snr_box_size: int | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        if not abs(self.snr_dB) <= _MAX_DB:
            raise InputError(
                f"noise.snr_dB is {self.snr_dB:g}; give a number from -{_MAX_DB} to {_MAX_DB}, or "
                "noise.kind none for images without noise."
            )
        needs_file = self.kind in ("coloured", "background")
        if needs_file and self.file is None:
            raise InputError(f"noise.kind is {self.kind} but no noise.file is given; name a file.")
        if not needs_file and self.file is not None:
            raise InputError(
                f"noise.file is given but noise.kind is {self.kind}; set it to coloured or "
                "background, or leave out noise.file."
            )


class NoiseSource(Protocol):
    """Noise in one arbitrary unit; `gain` makes it that of a ratio.

    Attributes:
        rms: root mean square of a pixel of the noise that `sample` makes.
        reference_rms: the same of that noise before it was cropped from the reference box.
    """

    @property
    def rms(self) -> float: ...

    @property
    def reference_rms(self) -> float: ...

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, D, D) on the CPU."""
        ...


def gain(source: NoiseSource, clean_rms: float, snr_dB: float) -> float:
    """What samples of `source` are multiplied by.

    Args:
        source: the noise.
        clean_rms: root mean square over all pixels of the noise-free images, CTF applied.
        snr_dB: the ratio in the reference box; math.inf for no noise.
    """
    if source.reference_rms == 0:
        return 0.0
    return clean_rms / (source.reference_rms * math.pow(10.0, snr_dB / 20.0))


def open_noise(settings: NoiseSettings, *, box_size: int, pixel_size_A: float) -> NoiseSource:
    """The source that the settings describe, for images of `box_size` and `pixel_size_A`.

    Raises:
        InputError: the reference box is smaller than the images', or the file cannot be read or
            used: see `Coloured.open` and `Background.open`.
    """
    if settings.kind == "none":
        return NoNoise(box_size)
    reference = settings.snr_box_size or box_size
    if reference < box_size:
        raise InputError(
            f"noise.snr_box_size is {reference}, smaller than the images' box of {box_size}; "
            "leave it out or give a larger one."
        )
    if settings.file is None:
        return White(box_size, reference)
    kind = Coloured if settings.kind == "coloured" else Background
    return kind.open(Path(settings.file), box_size, pixel_size_A, reference)


@dataclass(frozen=True)
class NoNoise:
    """Zeros."""

    box_size: int
    rms: float = 0.0
    reference_rms: float = 0.0

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.zeros(n, self.box_size, self.box_size)


@dataclass(frozen=True)
class White:
    """White Gaussian noise, of unit variance in the reference box."""

    box_size: int
    reference_box_size: int
    reference_rms: float = 1.0

    @property
    def rms(self) -> float:
        return self.box_size / self.reference_box_size

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return self.rms * white(n, self.box_size, generator)


@dataclass(frozen=True, eq=False)
class Coloured:
    """Gaussian noise whose power depends on spatial frequency.

    Attributes:
        amplitude: (D, D // 2 + 1) what the coefficients of unit white noise are multiplied by.
    """

    amplitude: Tensor
    rms: float
    reference_rms: float

    @classmethod
    def open(
        cls, path: Path, box_size: int, pixel_size_A: float, reference_box_size: int
    ) -> "Coloured":
        """Power from a table (.csv) or measured on a stack, over spatial frequency.

        Between the frequencies given, power is interpolated linearly; beyond the first and the
        last it stays what it is there. The spectrum of a stack is its shells' from 1 to below
        Nyquist; without a pixel size in its header, patches are as wide as the images in Å.

        Raises:
            InputError: the file cannot be read; frequencies of a table are negative or do not
                ascend; a power is negative, or all are 0.
        """
        if path.suffix == ".csv":
            frequency_per_A, power = read_columns(path, ("spatial_frequency_per_A", "power"))
            if frequency_per_A[0] < 0 or bool((frequency_per_A.diff() <= 0).any()):
                raise InputError(
                    f"The column spatial_frequency_per_A of {path} must ascend from 0 or more; "
                    "sort its rows."
                )
            if power.min() < 0:
                raise InputError(f"{path} holds a negative power; give powers from 0.")
        else:
            frequency_per_A, power = _measured(MrcStack.open(path), box_size * pixel_size_A)

        def on_grid(size: int) -> Tensor:
            width_A = box_size * pixel_size_A
            k = fourier.frequency_grid(size).norm(dim=-1) * (size / width_A)
            return torch.from_numpy(np.interp(k, frequency_per_A, power))

        reference_rms = _rms_of_power(on_grid(reference_box_size), reference_box_size)
        if reference_rms == 0:
            raise InputError(f"The noise of {path} has no power; give another file.")
        crop = box_size / reference_box_size
        inside = on_grid(box_size)
        return cls(
            (crop * inside.sqrt()).float(), crop * _rms_of_power(inside, box_size), reference_rms
        )

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        box_size = self.amplitude.shape[0]
        plane = fourier.rfft(white(n, box_size, generator)) * self.amplitude
        return fourier.irfft(plane, box_size)


def _rms_of_power(power: Tensor, box_size: int) -> float:
    """Root mean square of a pixel, from the power of each coefficient (unit white noise: 1)."""
    return math.sqrt(float((power * fourier.half_weights(box_size)).sum()) / box_size**2)


def _measured(stack: MrcStack, width_A: float) -> tuple[Tensor, Tensor]:
    """Spatial frequencies (1/Å) and power of a stack's whole shells."""
    size = stack.box_size
    if stack.files[0].known_pixel_size_A is not None:
        width_A = size * stack.files[0].known_pixel_size_A
    power = torch.zeros(size // 2 + 1, dtype=torch.float64)
    for index in torch.split(torch.arange(len(stack)), _CHUNK):
        power += len(index) * radial_spectrum(stack.read(index)).double()
    shells = torch.arange(1, (size - 1) // 2 + 1)
    return shells / width_A, power[shells] / len(stack)


@dataclass(frozen=True, eq=False)
class Background:
    """Measured noise: patches 0, 2, 4 ... of a stack, turned and mirrored at random.

    Attributes:
        patches: those that `sample` draws from.
        held_out: (m, D, D) patches 1, 3, 5 ..., cropped in the same way and in the same unit.
            Images are made of none of them, so a reconstruction may use them as its noise.
    """

    patches: BackgroundPatches
    held_out: Tensor
    rms: float
    reference_rms: float

    @classmethod
    def open(
        cls, path: Path, box_size: int, pixel_size_A: float, reference_box_size: int
    ) -> "Background":
        """Patches cut to the images' field of view about their centres, then Fourier-cropped.

        Patches without a pixel size in their header are as wide as the images in Å. Each is
        freed of its mean. Pixel sizes and fields of view that differ by up to 1 % are equal.

        Raises:
            InputError: the stack cannot be read, or holds fewer than two patches or only
                constant ones; patches are narrower than the images, or sampled too coarsely for
                the box or the reference box.
        """
        stack = MrcStack.open(path)
        if len(stack) < 2:
            raise InputError(
                f"{path} holds one background patch, but half of the patches are kept for "
                "reconstruction; give a stack of two or more."
            )
        size = _covering(stack, path, box_size, pixel_size_A)
        if size < reference_box_size:
            raise InputError(
                f"noise.snr_box_size is {reference_box_size}, but over the images' field of view "
                f"the patches of {path} have {size} px; give at most that."
            )
        kept = torch.empty(len(stack), box_size, box_size)
        squares = 0.0
        for index in torch.split(torch.arange(len(stack)), _CHUNK):
            cut = fourier.crop_or_pad(stack.read(index), size)
            cut = cut - cut.mean(dim=(-2, -1), keepdim=True)
            kept[index] = fourier.resample(cut, box_size)
            used = fourier.resample(cut[index % 2 == 0], reference_box_size)
            squares += float(used.square().sum(dtype=torch.float64))
        used, held_out = kept[::2].clone(), kept[1::2].clone()
        reference_rms = math.sqrt(squares / (len(used) * reference_box_size**2))
        if reference_rms == 0:
            raise InputError(f"The patches of {path} are constant; give measured background.")
        rms = float(used.square().mean(dtype=torch.float64).sqrt())
        return cls(BackgroundPatches(ArrayStack(used)), held_out, rms, reference_rms)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return self.patches.sample(n, generator)


def _covering(stack: MrcStack, path: Path, box_size: int, pixel_size_A: float) -> int:
    """How many pixels of a patch are as wide as an image."""
    width_A = box_size * pixel_size_A
    patch_pixel_A = stack.files[0].known_pixel_size_A or width_A / stack.box_size
    patch_width_A = stack.box_size * patch_pixel_A
    if not contradict(patch_pixel_A, pixel_size_A):
        size = box_size
    elif not contradict(patch_width_A, width_A):
        size = stack.box_size
    else:
        size = round(width_A / patch_pixel_A)
    if size > stack.box_size:
        raise InputError(
            f"The patches of {path} are {patch_width_A:.4g} Å wide, less than the images' "
            f"{width_A:.4g} Å; give larger patches, or smaller images."
        )
    if size < box_size:
        raise InputError(
            f"The patches of {path} have pixels of {patch_pixel_A:.4g} Å, coarser than the "
            f"images' {pixel_size_A:.4g} Å; give finer patches, or images of larger pixels."
        )
    return size
