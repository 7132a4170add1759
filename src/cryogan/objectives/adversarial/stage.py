"""A stage of training: its box, its preprocessing, and the particles at that box."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryogan.data.images import PreprocessedStack, RealImages, hold_or_stream
from cryogan.data.statistics import Measurement, at_box
from cryogan.errors import InputError
from cryogan.objectives.adversarial.config import AdversarialConfig, Stage
from cryogan.particles import CTFParams, Particles
from cryogan.physics.distributions import Orientations
from cryogan.physics.imaging import Preprocessing, preprocess
from cryogan.physics.noise import ColouredNoise, NoiseModel, WhiteNoise
from cryogan.physics.spectra import PowerSpectra


def limited_to(config: AdversarialConfig, box_size: int) -> AdversarialConfig:
    """The same settings for images of `box_size`: no stage has a larger box, all have even ones.

    Stages that come to have the same box are made one, unless conformations begin with one.

    Raises:
        InputError: no training is possible in that box.
    """
    even = box_size - box_size % 2
    if even < 16:
        raise InputError(
            f"The particles have a box of {box_size} px; give particles of at least 16 px."
        )
    stages: list[Stage] = []
    for stage in config.stages:
        stage = replace(stage, box_size=min(stage.box_size, even))
        last = stages[-1] if stages else None
        if last and (last.box_size, last.consensus) == (stage.box_size, stage.consensus):
            stages[-1] = replace(last, images=last.images + stage.images)
        else:
            stages.append(stage)
    return replace(config, stages=tuple(stages))


def preprocessing(
    config: AdversarialConfig, measurement: Measurement, box_size: int
) -> Preprocessing:
    """The one preprocessing of a stage, for real and simulated images."""
    whitening = None
    if config.power_limit is not None:
        noise = at_box(measurement.spectra.noise, box_size)
        power = at_box(measurement.power, box_size)
        whitening = (noise + power / config.power_limit).rsqrt()
        whitening[0] = 0.0  # an image's mean is an accident of its micrograph
    return Preprocessing(
        box_size,
        band=config.band,
        whitening=whitening,
        phase_flip=config.phase_flip,
        window_radius=config.window_radius,
        normalise=config.normalise,
    )


@dataclass(frozen=True)
class StageData:
    """The particles of a stage, on the training device.

    Attributes:
        images: the real ones as the critic sees them, held in memory or streamed.
        ctf: their CTF parameters.
        pixel_size_A: at the stage's box.
        spectra: signal and noise power at the stage's box, in units of the noise.
        noise: what noise is drawn from, at the stage's box and in the same units.
        orientations: what those of simulated images are drawn from.
        scale_sd: standard deviation of the logarithm of the images' scales.
    """

    images: RealImages
    ctf: CTFParams
    pixel_size_A: float
    spectra: PowerSpectra
    noise: NoiseModel
    orientations: Orientations
    scale_sd: float = 0.0

    def __len__(self) -> int:
        return len(self.images)

    @property
    def box_size(self) -> int:
        return self.images.box_size


def prepare_stage(
    particles: Particles,
    config: AdversarialConfig,
    settings: Preprocessing,
    measurement: Measurement,
    noise: NoiseModel | None,
    device: torch.device,
    orientations: Orientations,
) -> StageData:
    """The particles at the stage's box: read now if they fit into memory, else streamed."""
    size = settings.box_size
    stack = PreprocessedStack(particles, measurement.gain, settings)
    spectra = PowerSpectra(
        at_box(measurement.spectra.signal, size), at_box(measurement.spectra.noise, size)
    )
    return StageData(
        hold_or_stream(stack, config.memory_GB, device),
        particles.ctf.to(device),
        stack.pixel_size_A,
        spectra,
        _noise_at(size, config, spectra.noise, measurement.noise_gain, noise),
        orientations,
        particles.scale_sd,
    )


def _noise_at(
    size: int,
    config: AdversarialConfig,
    spectrum: Tensor,
    gain: float | None,
    noise: NoiseModel | None,
) -> NoiseModel:
    if noise is None:
        if not config.estimate_spectra:
            return WhiteNoise(size)
        return ColouredNoise.of_spectrum(spectrum, size)
    assert gain is not None
    crop = Preprocessing(size)
    return noise.transformed(lambda images: preprocess(images * gain, crop))
