"""What residuals are expected to be if the model is right: noise, and the pose grid's cells."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import roma
import torch
from torch import Tensor

from cryogan import fourier
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.image_model import ImageModel
from cryogan.objectives.likelihood.orientation_grid import orientation_grid
from cryogan.objectives.likelihood.posterior import Posterior
from cryogan.objectives.likelihood.residuals import Residuals, residuals
from cryogan.objectives.likelihood.search_levels import Level
from cryogan.particles import Pose
from cryogan.physics.imaging import form_images
from cryogan.physics.projection import volume_spectrum
from cryogan.physics.rotations import random_rotations

_PADDING = 2.0
_CELLS = 64


@dataclass(frozen=True)
class Expectation:
    """What is expected of residuals on rings 1 ... R besides the mean of noise.

    Attributes:
        noise_variance: variance of the sum of noise over the rings.
        grid_error: (R,) or (n, R) mean |F|² by which projections differ within a cell of the pose
            grid.
        contrast_sd: of the image model.
    """

    noise_variance: float
    grid_error: Tensor
    contrast_sd: float

    @classmethod
    def of(
        cls,
        half: HalfSet,
        basis: Tensor,
        level: Level,
        generator: torch.Generator,
        image_model: ImageModel,
    ) -> "Expectation":
        """Of poses at one level; otherwise as for `residuals`."""
        size = basis.shape[-1]
        spectrum = volume_spectrum(basis[0], _PADDING)
        error = _grid_error(spectrum, level, size, generator)[1 : level.rings + 1]
        return cls(
            _noise_variance(half.window(size), level.rings),
            error.cpu(),
            image_model.contrast_sd if len(basis) == 1 else 0.0,
        )

    @classmethod
    def of_levels(
        cls,
        half: HalfSet,
        basis: Tensor,
        levels: Sequence[Level],
        generator: torch.Generator,
        image_model: ImageModel,
    ) -> dict[Level, "Expectation"]:
        """Of all levels of the whole band."""
        return {
            level: cls.of(half, basis, level, generator, image_model)
            for level in levels
            if level.rings == levels[-1].rings
        }


def residuals_of_groups(
    half: HalfSet,
    index: Tensor,
    groups: Iterable[tuple[Tensor, Level, Posterior]],
    basis: Tensor,
    expected: Mapping[Level, Expectation],
    generator: torch.Generator,
    image_model: ImageModel,
) -> tuple[Residuals, Expectation]:
    """Residuals of n images whose posteriors are at different levels, and their expectation.

    Args:
        half: where the images come from.
        index: (n,) images.
        groups: all of them, from `resolved_posteriors`.
        basis: as for `residuals`.
        expected: of every level.
        generator: CPU generator, for the choice of poses.
        image_model: contrast of one structure.
    """
    found, rows, errors = [], [], []
    for row, level, posterior in groups:
        draw = torch.rand(len(row), generator=generator)
        found.append(residuals(half, index[row], posterior, basis, level, draw, image_model))
        errors.append(expected[level].grid_error.expand(len(row), -1))
        rows.append(row)
    order = torch.cat(rows).argsort()
    per_image = {
        field.name: torch.cat([getattr(each, field.name) for each in found])[order]
        for field in fields(Residuals)
        if field.name != "noise"
    }
    some = next(iter(expected.values()))
    return (
        replace(found[0], **per_image),
        replace(some, grid_error=torch.cat(errors)[order]),
    )


def _noise_variance(window: Tensor, rings: int) -> float:
    """Variance of Σ |Y|² over rings 1 ... R of windowed white noise of unit variance.

    Coefficients k and l have the covariance W(k - l), the spectrum of the window's square, so that
    the variance is twice the sum of |W|² over all pairs of the band.
    """
    size = window.shape[-1]
    spectrum = torch.fft.fft2(window.double().square()).abs().square() / size**4
    radius = torch.fft.fftfreq(size, dtype=torch.float64) * size
    shell = (radius[:, None].square() + radius.square()).sqrt().round()
    band = ((shell >= 1) & (shell <= rings)).double()
    wide = torch.fft.rfft2(band).abs().square()
    pairs = torch.fft.irfft2(wide, s=(size, size))
    return float(2.0 * (pairs * spectrum).sum())


def _grid_error(spectrum: Tensor, level: Level, size: int, generator: torch.Generator) -> Tensor:
    """(size // 2 + 1,) mean |F|² by which projections differ from those at a random place of
    their cell: turned by up to half the grid's step about each axis, shifted by half a step.
    """
    device = spectrum.device
    step = orientation_grid(level.nside, device).spacing
    centre = random_rotations(_CELLS, generator).to(device)
    turn = step * (torch.rand(_CELLS, 3, generator=generator) - 0.5)
    other = centre @ roma.rotvec_to_rotmat(turn.to(device))
    still = torch.zeros(_CELLS, 2, device=device)
    first, second = (
        fourier.rfft(
            form_images(spectrum, Pose(each, still), None, box_size=size, pixel_size_A=1.0)
        )
        for each in (centre, other)
    )
    error = fourier.shell_mean((first - second).abs().square(), size).mean(0)
    if level.shift_steps == 0:
        return error
    power = fourier.shell_mean(first.abs().square(), size).mean(0)
    shell = torch.arange(size // 2 + 1, device=device)
    return error + power * (2.0 * math.pi / size * shell * level.shift_step_px).square() / 12.0
