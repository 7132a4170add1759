"""How much memory a training run needs, known before it starts.

A step keeps, for the way back, a few copies of everything that it makes. The sizes follow from
the settings; how many copies was measured: peak resident memory of 32 short runs on a CPU (volume,
subspace and U-Net; all critics; boxes of 20 to 192 px; `benchmarks/memory_forecast.py`), fitted
and lowered by a fifth. Forecasts are 0.6 to 1.0 times what was measured: a lower bound.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from cryogan.errors import InputError
from cryogan.memory import available_GB
from cryogan.models.unet import UNet3D
from cryogan.particles import Particles
from cryogan.training.config import Stage, TrainingConfig
from cryogan.training.loop import limited_to
from cryogan.training.state import make_critic
from cryogan.training.team import Launch

_ON_GPU = 0.5  # of the forecast, whose arrays are the same but were not measured there
PROCESS_GB = 0.25  # the libraries; all processes of a machine share most of it

# Copies of each array that a step keeps at its peak.
_SPECTRUM, _IMAGES, _SLICES, _TEMPLATES, _LAYERS, _UNET, _WEIGHTS = 6.5, 18, 5.5, 17, 0.8, 0.95, 5

_VOLUMES = {"volume": "", "subspace": ", --training.basis or classes", "unet": ""}


@dataclass(frozen=True)
class Forecast:
    """The most that one process trains with, beside the libraries.

    Attributes:
        box_size: of the stage that needs most.
        parts_GB: the settings to lower → what depends on them, in that stage (1e9 bytes).
    """

    box_size: int
    parts_GB: dict[str, float]

    @property
    def total_GB(self) -> float:
        return sum(self.parts_GB.values())

    @property
    def advice(self) -> str:
        """The settings that matter most, in words."""
        ranked = sorted(self.parts_GB, key=lambda name: -self.parts_GB[name])
        largest = self.parts_GB[ranked[0]]
        chosen = [name for name in ranked if self.parts_GB[name] > 0.2 * largest]
        return " or ".join(chosen)


def forecast(config: TrainingConfig, count: int, box_size: int, members: int = 1) -> Forecast:
    """A lower bound of the memory that training one half-set needs in each process.

    Args:
        config: settings; `memory_GB` is that of one half-set.
        count: number of its images.
        box_size: of the particles, to which stages are limited.
        members: processes that share every batch.

    Raises:
        InputError: no training is possible in that box.
    """
    config = limited_to(config, box_size)
    each = [_of_stage(config, stage, count, members) for stage in config.stages]
    return max(each, key=lambda found: found.total_GB)


def check_memory(
    particles: Particles, config: TrainingConfig, device: str, launch: Launch | None = None
) -> None:
    """Refuse a run that cannot fit, before anything is written.

    Args:
        particles: the whole set.
        config: settings of both half-sets together.
        device: a torch device name.
        launch: torchrun's processes, or None for one for each half-set.

    Raises:
        InputError: a lower bound of what the run needs exceeds what is available.
    """
    members = 1 if launch is None else launch.size // 2
    alone = device == "cuda" and (launch is not None or torch.cuda.device_count() >= 2)
    processes = 1 if alone else 2 if launch is None else launch.local_size
    half = replace(config, memory_GB=config.memory_GB / 2)
    each = forecast(half, len(particles) // 2, particles.box_size, members)
    needed_GB = PROCESS_GB + processes * each.total_GB
    if device.startswith("cuda"):
        needed_GB *= _ON_GPU
    available = available_GB(device)
    if available is not None and needed_GB > available:
        raise InputError(
            f"This run needs at least {needed_GB:.1f} GB of memory in the stage of {each.box_size} "
            f"px, and {available:.1f} GB are available; lower {each.advice}."
        )


def _of_stage(config: TrainingConfig, stage: Stage, count: int, members: int) -> Forecast:
    size, n = stage.box_size, config.batch_size / members
    kind = "volume" if stage.consensus else config.generator
    padded = 2 * round(size * stage.padding / 2)
    plane = size if stage.padding >= 3 else padded
    mixed = 1
    if kind == "subspace":
        mixed += config.classes - 1 if config.latent == "discrete" else config.basis
    volumes = config.volumes_per_step if kind == "unet" else mixed
    spectrum = volumes * padded**2 * (padded // 2 + 1) * 8
    slices = (
        n * mixed * (plane * (plane // 2 + 1) * 8 + 4 * math.pi / 8 * (config.band * plane) ** 2)
    )
    images = 2 * n * size**2 * 4  # real and simulated
    parts = {
        f"--training.stages (box_size or padding{_VOLUMES[kind]})": _SPECTRUM * spectrum,
        "--training.batch_size": _IMAGES * images + _SLICES * slices,
        "--training.memory_GB": _held(config, count, size),
    }
    if config.critic == "template":
        parts["--training.templates"] = _TEMPLATES * 2 * n * size * config.templates * 4
    else:
        with torch.device("meta"):
            critic = make_critic(config, size)
            layers = _outputs(critic, torch.empty(1, size, size))
        parts["--training.batch_size"] += _LAYERS * 2 * n * layers
        parts["--training.critic_channels"] = _WEIGHTS * _weights(critic)
    if kind == "unet":
        with torch.device("meta"):
            network = UNet3D()
            layers = _outputs(network, torch.empty(1, 1, size, size, size))
        parts["--training.volumes_per_step"] = (
            _UNET * config.volumes_per_step * layers + _WEIGHTS * _weights(network)
        )
    return Forecast(size, {name: value / 1e9 for name, value in parts.items()})


def _held(config: TrainingConfig, count: int, size: int) -> float:
    """Bytes of the real images that are held (`training.stream.hold_or_stream`)."""
    whole, room = 4.0 * count * size**2, config.memory_GB * 1e9
    if whole <= room:
        return whole
    return whole / 2 if whole / 2 <= room else 0.0


def _weights(network: nn.Module) -> float:
    return 4.0 * sum(parameter.numel() for parameter in network.parameters())


def _outputs(network: nn.Module, example: Tensor) -> float:
    """Bytes of what all layers of a network put out for an example (on the device "meta")."""
    total = 0

    def count(layer: nn.Module, given: object, output: Tensor) -> None:
        nonlocal total
        total += 4 * output.numel()

    hooks = [
        layer.register_forward_hook(count)
        for layer in network.modules()
        if not list(layer.children())
    ]
    with torch.no_grad():
        network(example)
    for hook in hooks:
        hook.remove()
    return float(total)
