"""The network of Multi-CryoGAN: a 3D U-Net on a line between two fixed random volumes."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from cryogan import fourier
from cryogan.conformations.latent import Latent, Line
from cryogan.errors import InputError
from cryogan.models.base import Mixture, VolumeModel, VolumeSpec

_CHANNELS = (16, 32, 64, 128, 256)


def _convolution(incoming: int, outgoing: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(incoming, outgoing, 3, padding=1),
        nn.BatchNorm3d(outgoing),
        nn.ReLU(),
    )


class UNet3D(nn.Module):
    """Layers 1 to 27 of Gupta et al. (2020), from (n, 1, D, D, D) to (n, 1, D, D, D).

    Ten convolutions down from 16 channels at D to 256 at D / 16, each level a pair of which the
    second ends in a max-pooling; four levels up, each of an upsampling convolution, the
    concatenation with the same level's second convolution before its pooling, and two more
    convolutions; one convolution to a single channel. Kernels are 3×3×3. Where our source is
    silent: upsampling repeats voxels, and activations are ReLU.
    """

    def __init__(self) -> None:
        super().__init__()
        incoming = 1
        down: list[nn.Module] = []
        raising: list[nn.Module] = []
        joining: list[nn.Module] = []
        for channels in _CHANNELS:
            pair = (_convolution(incoming, channels), _convolution(channels, channels))
            down.append(nn.Sequential(*pair))
            incoming = channels
        for channels in reversed(_CHANNELS[:-1]):
            raising.append(
                nn.Sequential(nn.Upsample(scale_factor=2), _convolution(incoming, channels))
            )
            pair = (_convolution(2 * channels, channels), _convolution(channels, channels))
            joining.append(nn.Sequential(*pair))
            incoming = channels
        self.down = nn.ModuleList(down)
        self.raising, self.joining = nn.ModuleList(raising), nn.ModuleList(joining)
        self.last = nn.Conv3d(incoming, 1, 3, padding=1)

    def forward(self, volumes: Tensor) -> Tensor:
        kept: list[Tensor] = []
        values = volumes
        for level in self.down:
            if kept:
                values = nn.functional.max_pool3d(values, 2)
            values = level(values)
            kept.append(values)
        kept.pop()
        for raised, joined in zip(self.raising, self.joining, strict=True):
            values = joined(torch.cat((raised(values), kept.pop()), dim=1))
        result: Tensor = self.last(values)
        return result


class UNet(VolumeModel):
    """`V(z) = U((1 - z) z₀ + z z₁)`, z uniform on [0, 1], z₀ and z₁ fixed white noise.

    A volume costs far more than its projection, so every step makes few volumes and shows each
    to many particles. The snapshot that is averaged is the vector of the network's
    parameters and running statistics.

    Args:
        box_size: D, a multiple of 16.
        volumes_per_step: number of z in a step.
        shell_amplitude: (D // 2 + 1,) expected modulus of the 3D Fourier coefficients; the
            network's output is in units of the grey values' standard deviation that they give.
        mask: (D, D, D) that multiplies the volumes.
    """

    latent: Latent
    ends: Tensor
    mask: Tensor
    unit: Tensor

    def __init__(
        self, box_size: int, volumes_per_step: int, shell_amplitude: Tensor, mask: Tensor
    ) -> None:
        super().__init__()
        self.box_size = box_size
        self.leak = 1.0
        self.latent = Line()
        self.volumes_per_step = volumes_per_step
        self.network = UNet3D()
        self.register_buffer("ends", torch.randn(2, *(box_size,) * 3))
        self.register_buffer("mask", mask, persistent=False)
        shells = fourier.shell_index(box_size, 3).clamp_max(box_size // 2)
        power = shell_amplitude.square()[shells] * (shells > 0)
        total = float((power * fourier.half_weights(box_size)).sum())
        self.register_buffer("unit", torch.tensor(total**0.5 / box_size**3), persistent=False)

    @classmethod
    def build(cls, spec: VolumeSpec) -> Self:
        return cls(spec.box_size, spec.volumes_per_step, spec.shell_amplitude, spec.mask)

    @classmethod
    def check(cls, spec: VolumeSpec, *, stages: int, batch_size: int) -> None:
        if type(spec.latent) is not Line:
            raise InputError(
                "The U-Net has a latent on a line; give --latent uniform, or "
                "--adversarial.volume_model subspace."
            )
        if spec.symmetry != "C1":
            raise InputError(
                f"symmetry is {spec.symmetry}, which the U-Net cannot impose; give C1 or "
                "--adversarial.volume_model subspace."
            )
        if stages > 1 or spec.box_size % 16:
            raise InputError(
                "The U-Net is trained in one stage with a box that is a multiple of 16; give one "
                f"such stage (here: {stages}, {spec.box_size} px), as --preset paper does."
            )
        if batch_size % spec.volumes_per_step:
            raise InputError(
                f"A batch of {batch_size} images cannot be shared equally by "
                f"{spec.volumes_per_step} volumes; give a volumes_per_step that divides it."
            )

    def _volumes_at(self, network: Callable[[Tensor], Tensor], latent: Tensor) -> Tensor:
        place = latent.to(self.ends)[:, :, None, None]
        between = (1.0 - place) * self.ends[0] + place * self.ends[1]
        return network(between[:, None])[:, 0] * (self.unit * self.mask)

    def basis(self, generator: torch.Generator) -> Tensor:
        """(volumes_per_step, D, D, D) at random z."""
        return self._volumes_at(self.network, self.latent.sample(self.volumes_per_step, generator))

    def mixture(self, n: int, generator: torch.Generator) -> Mixture:
        """Every volume in turn for n / volumes_per_step particles."""
        return Mixture()

    def _values(self) -> dict[str, Tensor]:
        """What the network computes with, by name."""
        state = self.network.state_dict(keep_vars=True)
        return {name: value for name, value in state.items() if value.is_floating_point()}

    def snapshot(self) -> Tensor:
        return torch.cat([value.flatten() for value in self._values().values()])

    @torch.no_grad()
    def start_from(self, snapshot: Tensor) -> None:
        """From a vector of parameters; a volume (D, D, D) says nothing to a network."""
        if snapshot.ndim == 1:
            for name, value in self._split(snapshot).items():
                self._values()[name].copy_(value)

    def _split(self, snapshot: Tensor) -> dict[str, Tensor]:
        values = self._values()
        parts = torch.split(snapshot, [value.numel() for value in values.values()])
        return {
            name: part.view_as(value)
            for (name, value), part in zip(values.items(), parts, strict=True)
        }

    def volumes(self, snapshot: Tensor, latent: Tensor) -> Tensor:
        """Volumes (n, D, D, D) of an averaged snapshot at latents (n, 1), one at a time."""
        values = self._split(snapshot)
        self.network.eval()
        volumes = [
            self._volumes_at(lambda x: functional_call(self.network, values, (x,)), each)
            for each in torch.split(latent, 1)
        ]
        self.network.train()
        return torch.cat(volumes)

    def mean_volume(self, snapshot: Tensor) -> Tensor:
        return self.volumes(snapshot, self.latent.grid(self.volumes_per_step)).mean(0)

    def basis_of(self, snapshot: Tensor, generator: torch.Generator) -> Tensor:
        return self.volumes(snapshot, self.latent.sample(self.volumes_per_step, generator))
