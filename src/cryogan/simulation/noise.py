"""The noise of a simulated set: a noise model at a stated signal-to-noise ratio.

The ratio is `20 log10(‖clean‖ / ‖noise‖)` over the whole set (an amplitude ratio, as in the
CryoGAN paper: -20 dB is a power ratio of 0.01). It depends on the box, since the molecule's
power lies at low frequencies and the noise's everywhere. It may therefore be stated for a larger
box S: images of S px, Fourier-cropped to D px of the same field of view, keep the signal's grey
values and lose the noise beyond the new Nyquist frequency. A source draws the noise that is left
in the box D and knows what it was in the box S, the reference.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.io.mrc import MrcStack
from cryogan.io.ranges import contradict
from cryogan.io.tables import read_columns
from cryogan.particles import ArrayStack
from cryogan.physics.noise import (
    BackgroundPatches,
    ColouredNoise,
    NoiseModel,
    WhiteNoise,
    radial_spectrum,
)
from cryogan.simulation.noise_settings import NOISE_KINDS, NoiseSettings

_CHUNK = 64
_MEASURED_SAMPLES = 1024  # of a noise model whose power nobody tells


@dataclass(frozen=True, eq=False)
class NoiseSource:
    """A noise model in one arbitrary unit; `gain` makes it that of a ratio.

    Attributes:
        model: what is sampled.
        rms: root mean square of a pixel of the model's samples.
        reference_rms: the same of that noise before it was cropped from the reference box.
        held_out: (m, D, D) measured noise in the model's unit of which no sample is made, so that
            a reconstruction may use it; None where the noise is not measured.
    """

    model: NoiseModel
    rms: float
    reference_rms: float
    held_out: Tensor | None = None


NoiseOpener = Callable[[NoiseSettings, int, float], NoiseSource]
"""Called with the settings, the images' box size and their pixel size in Å."""


def gain(source: NoiseSource, clean_rms: float, snr_dB: float) -> float:
    """What samples of `source` are multiplied by.

    Args:
        source: the noise.
        clean_rms: root mean square over all pixels of the noise-free images, CTF applied.
        snr_dB: the ratio in the reference box; math.inf for no noise.

    Example:
        >>> from cryogan.simulation.noise import gain, open_noise
        >>> from cryogan.simulation.noise_settings import NoiseSettings
        >>> noise = open_noise(NoiseSettings("white"), box_size=32, pixel_size_A=6.0)
        >>> gain(noise, clean_rms=0.5, snr_dB=-20.0)
        5.0
    """
    if source.reference_rms == 0:
        return 0.0
    return clean_rms / (source.reference_rms * math.pow(10.0, snr_dB / 20.0))


def open_noise(settings: NoiseSettings, *, box_size: int, pixel_size_A: float) -> NoiseSource:
    """The noise that the settings describe, for images of `box_size` and `pixel_size_A`.

    Raises:
        InputError: the reference box is smaller than the images', the file cannot be read or used
            (see `open_coloured` and `open_background`), or the kind is no noise model.

    Example:
        >>> from cryogan.simulation.noise import open_noise
        >>> from cryogan.simulation.noise_settings import NoiseSettings
        >>> settings = NoiseSettings("white", snr_dB=-5.2, snr_box_size=192)
        >>> noise = open_noise(settings, box_size=64, pixel_size_A=3.822)
        >>> round(noise.reference_rms / noise.rms, 3)
        3.0

        A noise model of one's own has the name under which Python imports it:

        >>> own = NoiseSettings("cryogan.physics.noise:WhiteNoise")
        >>> noise = open_noise(own, box_size=64, pixel_size_A=3.822)
        >>> round(noise.rms, 2)
        1.0
    """
    settings.reference_box_size(box_size)  # refuses one that is too small
    found = NOISE_KINDS[settings.kind]
    if callable(found) and not isinstance(found, type):
        return found(settings, box_size, pixel_size_A)
    return _of_class(found, settings, box_size)


def open_none(settings: NoiseSettings, box_size: int, pixel_size_A: float) -> NoiseSource:
    """Zeros."""
    return NoiseSource(WhiteNoise(box_size, 0.0), 0.0, 0.0)


def open_white(settings: NoiseSettings, box_size: int, pixel_size_A: float) -> NoiseSource:
    """White Gaussian noise, of unit variance in the reference box."""
    rms = box_size / settings.reference_box_size(box_size)
    return NoiseSource(WhiteNoise(box_size, rms), rms, 1.0)


def open_coloured(settings: NoiseSettings, box_size: int, pixel_size_A: float) -> NoiseSource:
    """Gaussian noise whose power is that of a table (.csv), or is measured on a stack.

    Between the spatial frequencies given, power is interpolated linearly; beyond the first and the
    last it stays what it is there. The spectrum of a stack is its rings' from 1 to below Nyquist;
    without a pixel size in its header, patches are as wide as the images in Å.

    Raises:
        InputError: the file cannot be read; frequencies of a table are negative or do not ascend;
            a power is negative, or all are 0.
    """
    path = Path(settings.file or "")
    width_A = box_size * pixel_size_A
    frequency_per_A, power = (
        _power_table(path) if path.suffix == ".csv" else _measured(MrcStack.open(path), width_A)
    )

    def on_grid(size: int) -> Tensor:
        k = fourier.frequency_grid(size).norm(dim=-1) * (size / width_A)
        return torch.from_numpy(np.interp(k, frequency_per_A, power))

    reference = settings.reference_box_size(box_size)
    reference_rms = _rms_of_power(on_grid(reference), reference)
    if reference_rms == 0:
        raise InputError(f"The noise of {path} has no power; give another file.")
    crop = box_size / reference
    inside = on_grid(box_size)
    model = ColouredNoise((crop * inside.sqrt()).float())
    return NoiseSource(model, crop * _rms_of_power(inside, box_size), reference_rms)


def open_background(settings: NoiseSettings, box_size: int, pixel_size_A: float) -> NoiseSource:
    """Patches 0, 2, 4 ... of a stack, rotated and mirrored at random; 1, 3, 5 ... are held out.

    They are cut to the images' field of view about their centres, then Fourier-cropped. Patches
    without a pixel size in their header are as wide as the images in Å. Each is freed of its mean.
    Pixel sizes and fields of view that differ by up to 1 % are equal.

    Raises:
        InputError: the stack cannot be read, or holds fewer than two patches or only constant
            ones; patches are narrower than the images, or sampled too coarsely for the box or the
            reference box.
    """
    path = Path(settings.file or "")
    reference = settings.reference_box_size(box_size)
    stack = MrcStack.open(path)
    if len(stack) < 2:
        raise InputError(
            f"{path} holds one background patch, but half of the patches are kept for "
            "reconstruction; give a stack of two or more."
        )
    size = _covering(stack, path, box_size, pixel_size_A)
    if size < reference:
        raise InputError(
            f"noise.snr_box_size is {reference}, but over the images' field of view "
            f"the patches of {path} have {size} px; give at most that."
        )
    kept = torch.empty(len(stack), box_size, box_size)
    squares = 0.0
    for index in torch.split(torch.arange(len(stack)), _CHUNK):
        cut = fourier.crop_or_pad(stack.read(index), size)
        cut = cut - cut.mean(dim=(-2, -1), keepdim=True)
        kept[index] = fourier.resample(cut, box_size)
        used = fourier.resample(cut[index % 2 == 0], reference)
        squares += float(used.square().sum(dtype=torch.float64))
    used, held_out = kept[::2].clone(), kept[1::2].clone()
    reference_rms = math.sqrt(squares / (len(used) * reference**2))
    if reference_rms == 0:
        raise InputError(f"The patches of {path} are constant; give measured background.")
    rms = float(used.square().mean(dtype=torch.float64).sqrt())
    return NoiseSource(BackgroundPatches(ArrayStack(used)), rms, reference_rms, held_out)


def _of_class(found: type[NoiseModel], settings: NoiseSettings, box_size: int) -> NoiseSource:
    """A noise model of one's own, made in the reference box and Fourier-cropped; rms measured."""
    if not (isinstance(found, type) and issubclass(found, NoiseModel)):
        raise InputError(
            f"noise.kind is {settings.kind}, which is no NoiseModel; give a class derived from "
            "cryogan.physics.noise.NoiseModel."
        )
    reference = settings.reference_box_size(box_size)
    made = _made(found, settings, reference)
    crop = partial(fourier.resample, new_size=box_size)
    model = made if reference == box_size else made.transformed(crop)
    return NoiseSource(model, _measured_rms(model, settings), _measured_rms(made, settings))


def _made(found: Callable[[int], NoiseModel], settings: NoiseSettings, size: int) -> NoiseModel:
    try:
        return found(size)
    except TypeError as error:
        raise InputError(
            f"noise.kind is {settings.kind}, which cannot be made from a box size alone ({error}); "
            "give its other arguments defaults."
        ) from error


def _measured_rms(model: NoiseModel, settings: NoiseSettings) -> float:
    generator = torch.Generator().manual_seed(0)
    squares, size = 0.0, model.box_size
    for _ in range(_MEASURED_SAMPLES // _CHUNK):
        images = model.sample(_CHUNK, generator)
        if images.shape != (_CHUNK, size, size):
            raise InputError(
                f"noise.kind is {settings.kind}, whose samples are of shape {tuple(images.shape)} "
                f"where {(_CHUNK, size, size)} were asked for; correct it."
            )
        squares += float(images.square().sum(dtype=torch.float64))
    rms = math.sqrt(squares / (_MEASURED_SAMPLES * size**2))
    if not 0.0 < rms < math.inf:
        raise InputError(
            f"noise.kind is {settings.kind}, whose root mean square is {rms:g}; correct it."
        )
    return rms


def _power_table(path: Path) -> tuple[Tensor, Tensor]:
    """Spatial frequencies (1/Å) and power of a .csv file."""
    frequency_per_A, power = read_columns(path, ("spatial_frequency_per_A", "power"))
    if frequency_per_A[0] < 0 or bool((frequency_per_A.diff() <= 0).any()):
        raise InputError(
            f"The column spatial_frequency_per_A of {path} must ascend from 0 or more; sort its "
            "rows."
        )
    if power.min() < 0:
        raise InputError(f"{path} holds a negative power; give powers from 0.")
    return frequency_per_A, power


def _measured(stack: MrcStack, width_A: float) -> tuple[Tensor, Tensor]:
    """Spatial frequencies (1/Å) and power of a stack's whole rings."""
    size = stack.box_size
    if stack.files[0].known_pixel_size_A is not None:
        width_A = size * stack.files[0].known_pixel_size_A
    power = torch.zeros(size // 2 + 1, dtype=torch.float64)
    for index in torch.split(torch.arange(len(stack)), _CHUNK):
        power += len(index) * radial_spectrum(stack.read(index)).double()
    rings = torch.arange(1, (size - 1) // 2 + 1)
    return rings / width_A, power[rings] / len(stack)


def _rms_of_power(power: Tensor, box_size: int) -> float:
    """Root mean square of a pixel, from the power of each coefficient (unit white noise: 1)."""
    return math.sqrt(float((power * fourier.half_weights(box_size)).sum()) / box_size**2)


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
