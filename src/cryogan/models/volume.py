"""The volume that is learnt: its parameters, and the constraints that make it a molecule."""

from typing import Self

import torch
from torch import Tensor, nn

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.models.base import VolumeModel, VolumeSpec
from cryogan.symmetry import symmetry_matrices


class Volume(VolumeModel):
    """A volume (D, D, D) with soft mask, positivity and point-group symmetry.

    Two parametrisations of the same volumes:

    - "voxels": the grey values themselves (the published way);
    - "fourier": Fourier coefficients in units of the amplitude that the data's signal spectrum
      gives to their shell. A step of an optimiser that scales every parameter's gradient alike
      (Adam) then moves every shell by the same fraction of its expected amplitude, where voxel
      steps move the low shells only.

    Args:
        box_size: D.
        parametrisation: "voxels" or "fourier".
        shell_amplitude: (D // 2 + 1,) expected modulus of the (unnormalised) 3D Fourier
            coefficients in every shell; not used by "voxels".
        positivity: "relu" clips negative values, "leaky" scales them by `leak` (a gradient is
            left that can bring them back), "none".
        mask: (D, D, D) that multiplies the volume.
        symmetry: point group (RELION's name).
    """

    mask: Tensor
    scale: Tensor
    operators: Tensor

    def __init__(
        self,
        box_size: int,
        *,
        parametrisation: str,
        shell_amplitude: Tensor,
        positivity: str,
        mask: Tensor,
        symmetry: str = "C1",
    ) -> None:
        super().__init__()
        self.box_size = box_size
        self.parametrisation = parametrisation
        self.positivity = positivity
        self.leak = 0.1
        self.register_buffer("mask", mask, persistent=False)
        if parametrisation == "fourier":
            shells = fourier.shell_index(box_size, 3).clamp_max(box_size // 2)
            scale = shell_amplitude[shells] * fourier.band_mask(box_size, box_size / 2, 3)
            shape: tuple[int, ...] = (*scale.shape, 2)
        else:
            scale, shape = torch.ones(()), (box_size,) * 3
        self.register_buffer("scale", scale)
        self.parameter = nn.Parameter(torch.zeros(shape))
        operators = symmetry_matrices(symmetry)[1:]
        self.register_buffer("operators", operators.float(), persistent=False)

    @classmethod
    def build(cls, spec: VolumeSpec) -> Self:
        return cls(
            spec.box_size,
            parametrisation=spec.parametrisation,
            shell_amplitude=spec.shell_amplitude,
            positivity=spec.positivity,
            mask=spec.mask,
            symmetry=spec.symmetry,
        )

    @classmethod
    def check(cls, spec: VolumeSpec, *, stages: int, batch_size: int) -> None:
        if spec.latent is not None:
            raise InputError(
                "A single volume has no latent; give --model homogeneous, or "
                "--adversarial.volume_model subspace for conformations."
            )

    def forward(self) -> Tensor:
        """The volume (D, D, D), differentiable in the parameters."""
        volume = self.shaped(self.parameter)
        if self.positivity == "relu":
            return volume.clamp_min(0.0)  # unlike relu, passes a gradient at exactly 0
        if self.positivity == "leaky":
            return nn.functional.leaky_relu(volume, self.leak)
        return volume

    def shaped(self, parameter: Tensor) -> Tensor:
        """What parameters stand for, masked and symmetric but not yet positive: (D, D, D)."""
        if self.parametrisation == "fourier":
            coefficients = torch.view_as_complex(parameter) * self.scale
            volume = fourier.irfft(coefficients, self.box_size, 3)
        else:
            volume = parameter * self.scale
        return symmetrise(volume * self.mask, self.operators)

    def parameters_of(self, volume: Tensor) -> Tensor:
        """Parameters that stand for a volume (D, D, D)."""
        if self.parametrisation == "fourier":
            coefficients = fourier.rfft(volume, 3) / self.scale.clamp_min(1e-20)
            coefficients = coefficients * (self.scale > 0)
            return torch.view_as_real(coefficients)
        return volume / self.scale

    @torch.no_grad()
    def start_from(self, snapshot: Tensor) -> None:
        """Start from a volume (D, D, D); it is reproduced where the constraints allow it."""
        if self.positivity == "leaky":
            snapshot = torch.where(snapshot < 0, snapshot / self.leak, snapshot)
        self.parameter.copy_(self.parameters_of(snapshot))

    def basis(self, generator: torch.Generator) -> Tensor:
        volume: Tensor = self()
        return volume

    def snapshot(self) -> Tensor:
        volume: Tensor = self()
        return volume


def symmetrise(volume: Tensor, operators: Tensor) -> Tensor:
    """Mean of `volume` (D, D, D) and its copies turned by `operators` (m, 3, 3) (no identity).

    Trilinear in real space: exact for operators that permute the grid's axes (D2, O).
    """
    if operators.shape[0] == 0:
        return volume
    size = volume.shape[-1]
    axis = torch.arange(size, device=volume.device, dtype=volume.dtype) - size // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    point = torch.stack((x, y, z), dim=-1)
    total = volume
    for operator in operators:
        coordinate = (point @ operator.T + size // 2) * (2.0 / (size - 1)) - 1.0
        total = (
            total
            + nn.functional.grid_sample(volume[None, None], coordinate[None], align_corners=True)[
                0, 0
            ]
        )
    return total / (operators.shape[0] + 1)


def initial_blob(box_size: int, shell_amplitude: Tensor) -> Tensor:
    """A centred Gaussian ball (σ = D / 5) to start from.

    Its mass is 0.3 of the largest expected coefficient, so that the first simulated images are
    neither empty nor overwhelming.
    """
    radius = fourier.radius_grid(box_size, 3)
    blob = torch.exp(-0.5 * (radius / (0.2 * box_size)).square())
    return blob * (0.3 * float(shell_amplitude.max()) / float(blob.sum()))
