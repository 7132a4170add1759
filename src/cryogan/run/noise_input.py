"""The noise model that a run is given, or has been given."""

from functools import partial
from pathlib import Path

from cryogan.data.normalisation import LevelStack
from cryogan.errors import InputError
from cryogan.io.mrc import MrcStack
from cryogan.particles import Particles
from cryogan.physics.imaging import Preprocessing, preprocess
from cryogan.physics.noise import BackgroundPatches, NoiseModel
from cryogan.registry import NOISE_MODELS
from cryogan.run.folder import RunRecord

_OBJECT = "an object of class"


def read_noise(path: Path | str, particles: Particles) -> NoiseModel:
    """Measured background patches, for particles of the same box, pixel size and contrast.

    Args:
        path: stack of particle-free patches.
        particles: as read from their file, not cropped.

    Raises:
        InputError: the stack cannot be read, or has another box.
    """
    inverted = particles.source is not None and particles.source.inverted
    stack = MrcStack.open(Path(path), sign=-1.0 if inverted else 1.0)
    if stack.box_size != particles.box_size:
        raise InputError(
            f"{path} has box {stack.box_size} but the particles have {particles.box_size}; "
            "cut both at the same size."
        )
    return BackgroundPatches(LevelStack(stack))


def opened_noise(
    noise: NoiseModel | Path | str | None, particles: Particles
) -> tuple[NoiseModel | None, str | None]:
    """A noise model, and what `config.json` says of it: its file, its name, or its class."""
    if noise is None:
        return None, None
    if isinstance(noise, NoiseModel):
        return noise, f"{_OBJECT} {NOISE_MODELS.name_of(type(noise))}"
    is_name = str(noise) in NOISE_MODELS or ":" in str(noise)
    if is_name and not Path(noise).exists():
        return NOISE_MODELS[str(noise)](particles), str(noise)
    return read_noise(noise, particles), str(Path(noise).resolve())


def noise_of_run(
    record: RunRecord, noise: NoiseModel | Path | str | None, particles: Particles
) -> tuple[NoiseModel | None, str | None]:
    """That of a run, unless another one is given."""
    if noise is None and (record.noise or "").startswith(_OBJECT):
        raise InputError(
            f"The noise of {record.folder} was {record.noise}, which the run folder does not hold; "
            "give noise=, or name a noise model as package.module:function from the start."
        )
    return opened_noise(record.noise if noise is None else noise, particles)


def cropped_noise(
    noise: NoiseModel | None, particles: Particles, work: Particles
) -> NoiseModel | None:
    if noise is None or work.box_size == particles.box_size:
        return noise
    return noise.transformed(partial(preprocess, settings=Preprocessing(work.box_size)))
