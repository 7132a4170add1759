"""Memory of adversarial training (`objectives.memory`): a few steps of the largest stage."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from cryogan.data.statistics import measure
from cryogan.objectives.adversarial.config import AdversarialConfig, Stage
from cryogan.objectives.adversarial.loop import train
from cryogan.objectives.adversarial.stage import limited_to, prepare_stage, preprocessing
from cryogan.objectives.adversarial.state import make_critic
from cryogan.objectives.data_parallel import ProcessGroup
from cryogan.objectives.memory import MemoryPlan, noise_particles, of_one_structure
from cryogan.particles import Particles
from cryogan.physics.distributions import Uniform

_READ = 512  # images that are read at a time before the steps
_STEPS = 2  # the second has what the first leaves: gradients, optimisers, gaps between arrays
_ARRAYS, _LAYERS = 40, 8  # copies of arrays, and of networks' layers: more than any step has
_BATCH = "--adversarial.batch_size"


@dataclass(frozen=True)
class _LoneMember(ProcessGroup):
    """A member of a group whose others are not there."""

    def mean(self, values: Tensor) -> Tensor:
        return values.clone()


def memory_plan(config: AdversarialConfig, particles: Particles, members: int) -> MemoryPlan:
    """See `objectives.memory.MeasuresMemory`; `memory_GB` is that of both half-sets."""
    stage = _largest_stage(config, particles, members)
    options = _options(config, stage, particles, members)
    batch_size = config.batch_size
    unit = math.lcm(members, config.volumes_per_step)
    least = config.assumptions.classes if config.assumptions.latent == "discrete" else 1
    few, more = (unit * math.ceil(n / unit) for n in (max(batch_size / 8, least), batch_size / 2))
    bytes_of = _held_bytes(config, stage.box_size, particles)
    return MemoryPlan(
        where=f"in the stage of {stage.box_size} px",
        size=batch_size,
        trials=(0, few, more) if few < more else (0, batch_size),
        held_GB=(bytes_of((len(particles) + 1) // 2) - bytes_of(batch_size)) / 1e9,
        passing_GB=0.0,
        options=options,
        bounded=_is_built_in(config),
    )


def memory_trial(
    config: AdversarialConfig, particles: Particles, size: int, members: int, device: torch.device
) -> None:
    """See `objectives.memory.MeasuresMemory`."""
    stage = _largest_stage(config, particles, members)
    held = _held_bytes(config, stage.box_size, particles)(1) > 0
    config = replace(config, memory_GB=math.inf if held else 0.0)
    if size == 0:
        some = noise_particles(particles, _READ)
        measurement = measure(some)
        settings = preprocessing(config, measurement, stage.box_size)
        config = replace(config, memory_GB=math.inf)
        prepare_stage(some, config, settings, measurement, None, device, Uniform())
        return
    if stage.consensus:
        config = replace(
            config,
            volume_model="volume",
            assumptions=of_one_structure(config.assumptions),
        )
    critic_steps = min(2, config.critic_steps)
    stage = replace(stage, images=_STEPS * size * critic_steps, consensus=False)
    config = replace(
        config, stages=(stage,), batch_size=size, critic_steps=critic_steps, penalty_every=1
    )
    # images that are held have been read before; streamed ones come in their own box
    some = noise_particles(particles, size, stage.box_size if held else None)
    group = _LoneMember(0, members)
    for progress in train(some, config, seed=0, device=device, group=group):
        progress.state.volume.mean_volume(progress.state.average)


def _largest_stage(config: AdversarialConfig, particles: Particles, members: int) -> Stage:
    stages = limited_to(config, particles.box_size).stages
    return max(stages, key=lambda stage: sum(_options(config, stage, particles, members).values()))


def _is_built_in(config: AdversarialConfig) -> bool:
    names = {"volume", "subspace", "unet"}, {"template", "compact", "paper"}
    return config.model_name in names[0] and config.critic in names[1]


def _options(
    config: AdversarialConfig, stage: Stage, particles: Particles, members: int
) -> dict[str, float]:
    """`MemoryPlan.options` (1e9 bytes), from the sizes of arrays."""
    size, n = stage.box_size, 2 * config.batch_size / members  # real and simulated
    model = "volume" if stage.consensus else config.model_name
    volumes = {
        "volume": 1,
        "unet": config.volumes_per_step,
    }.get(model, config.assumptions.volumes)
    padded = 2 * round(size * stage.padding / 2)
    plane = size if stage.padding >= 3 else padded
    spectrum = 8 * padded**2 * (padded // 2 + 1)
    slices = n / 2 * (1 if model == "unet" else volumes) * 8 * plane * (plane // 2 + 1)
    found = {
        "--adversarial.stages (box_size or padding)": _ARRAYS * spectrum,
        _BATCH: _ARRAYS * (4 * n * size**2 + slices),
        "--adversarial.memory_GB": _held_bytes(config, size, particles)(len(particles) / 2),
        "--box (or a coarser --resolution)": _ARRAYS / 2 * 4 * _READ * particles.box_size**2,
    }
    more = _ARRAYS * (volumes - 1) * spectrum
    if model == "unet":
        found["--adversarial.volumes_per_step"] = more + _LAYERS * volumes * _unet_bytes(size)
    elif config.assumptions.latent == "discrete":
        found["--classes"] = more
    else:
        found["--basis-volumes"] = more
    if config.critic == "template":
        found["--adversarial.templates"] = _ARRAYS * n * size * 4 * config.templates
    elif config.critic in ("compact", "paper"):
        with torch.device("meta"):
            critic = make_critic(config, size)
            each = _output_bytes(critic, torch.empty(1, size, size))
        found[_BATCH] += _LAYERS * n * each
        found["--adversarial.critic_channels"] = _LAYERS * _weight_bytes(critic)
    return {name: value / 1e9 for name, value in found.items() if value > 0}


def _held_bytes(
    config: AdversarialConfig, box_size: int, particles: Particles
) -> Callable[[float], float]:
    """Bytes of so many real images that are held, by the rules of `data.images.hold_or_stream`."""
    whole, most = 4.0 * len(particles) * box_size**2, config.memory_GB * 1e9
    centred = config.power_limit is not None or config.normalise
    bytes_of_pixel = 4 if whole <= most else 2 if whole / 2 <= most and centred else 0
    return lambda count: bytes_of_pixel * count * box_size**2


def _unet_bytes(box_size: int) -> float:
    from cryogan.models.unet import UNet3D

    with torch.device("meta"):
        network = UNet3D()
        layers = _output_bytes(network, torch.empty(1, 1, *(box_size,) * 3))
    return layers + _weight_bytes(network)


def _weight_bytes(network: nn.Module) -> float:
    return 4.0 * sum(parameter.numel() for parameter in network.parameters())


def _output_bytes(network: nn.Module, example: Tensor) -> float:
    """Of what all layers of a network put out for an example (on the device "meta")."""
    total = 0

    def count(layer: nn.Module, given: object, output: Tensor) -> None:
        nonlocal total
        total += 4 * output.numel()

    layers = [layer for layer in network.modules() if not list(layer.children())]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        network(example)
    for hook in hooks:
        hook.remove()
    return float(total)
