"""Residuals: what is left of images without the map's projections, ring by ring.

If the model is right, an image and a pose drawn from its posterior are distributed as the image and
its true pose. The residual at such a pose, in units of the noise, is therefore distributed as noise
is, however broad the posterior is: nothing needs to be corrected for the pose having been found on
the image itself.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.image_model import ImageModel
from cryogan.objectives.likelihood.orientation_grid import orientation_grid
from cryogan.objectives.likelihood.posterior import Posterior
from cryogan.objectives.likelihood.search_levels import Level
from cryogan.particles import Pose
from cryogan.physics.ctf import ctf
from cryogan.physics.imaging import form_images
from cryogan.physics.projection import volume_spectrum
from cryogan.physics.rotations import about_z

_CHUNK = 64
_PADDING = 2.0


@dataclass(frozen=True)
class Residuals:
    """Residuals of n images on rings 1 ... R, each at one pose drawn from its posterior.

    Attributes:
        residual: (n, R) Σ |Y - α C P|² / N, its mean over the posterior of the contrast α.
        power: (n, R) Σ |Y|² / N.
        linear: (n, R) Re Σ conj(C P) Y / N.
        quadratic: (n, R) Σ |C P|² / N.
        response: (n, R) Σ C² / N: what an error of the map adds to the residual, if its
            coefficients have a mean |F|² of 1.
        noise: (R,) expected residual of noise alone.
    """

    residual: Tensor
    power: Tensor
    linear: Tensor
    quadratic: Tensor
    response: Tensor
    noise: Tensor


def residuals(
    half: HalfSet,
    index: Tensor,
    posterior: Posterior,
    basis: Tensor,
    level: Level,
    draw: Tensor,
    image_model: ImageModel,
) -> Residuals:
    """Residuals of the images of `index`.

    Args:
        half: where the images come from.
        index: (n,) images.
        posterior: of these images; poses are drawn as if it were not annealed.
        basis: (C, D, D, D) basis volumes that it is of, of the working box.
        level: the finest of the pose search; its rings are the band.
        draw: (n,) random numbers of [0, 1), for the choice of poses.
        image_model: contrast of one structure.
    """
    device, size = basis.device, basis.shape[-1]
    stack = half.stack(size)
    window, noise = half.window(size).to(device), half.noise(size).to(device)
    rings = slice(1, level.rings + 1)
    pose, coefficient = _drawn(posterior, level, stack.pixel_size_A, draw)
    spectrum = volume_spectrum(basis, _PADDING)
    found = []
    for part in torch.split(torch.arange(len(index)), _CHUNK):
        transfer = ctf(half.particles.ctf[index[part]].to(device), size, stack.pixel_size_A)
        expected = form_images(
            spectrum[0] if len(basis) == 1 else spectrum,
            pose[part],
            transfer,
            box_size=size,
            pixel_size_A=stack.pixel_size_A,
            coefficients=None if len(basis) == 1 else coefficient[part],
        )
        seen = fourier.rfft(stack.read(index[part]).to(device)) / size
        mine = fourier.rfft(expected * window) / size

        def by_ring(values: Tensor) -> Tensor:
            return fourier.shell_sum(values, size)[:, rings] / noise[rings].clamp_min(1e-20)

        linear = by_ring((mine.conj() * seen).real)
        quadratic = by_ring(mine.abs().square())
        mean, square = _contrast(linear.sum(1), quadratic.sum(1), image_model, len(basis))
        power = by_ring(seen.abs().square())
        residual = power - 2.0 * mean[:, None] * linear + square[:, None] * quadratic
        response = by_ring(transfer.square()) / size**2
        found.append(torch.stack((residual, power, linear, quadratic, response)).cpu())
    count = fourier.shell_sum(torch.ones(size, size // 2 + 1), size)[rings]
    residual, power, linear, quadratic, response = torch.cat(found, dim=1)
    expected_noise = count * float(window.square().mean())
    return Residuals(residual, power, linear, quadratic, response, expected_noise)


def _drawn(
    posterior: Posterior, level: Level, pixel_size_A: float, draw: Tensor
) -> tuple[Pose, Tensor]:
    """A pose of every image, and the mean coefficients (n, C) there."""
    cells = posterior.cells
    below = torch.softmax(cells.score.double(), dim=1).cumsum(dim=1)
    place = draw.to(below)[:, None] * below[:, -1:]
    chosen = torch.searchsorted(below, place, right=True).clamp_max(below.shape[1] - 1)
    direction, psi = cells.direction.gather(1, chosen)[:, 0], cells.psi.gather(1, chosen)[:, 0]
    shift_px = cells.shift_px.gather(1, chosen[..., None].expand(-1, -1, 2))[:, 0]
    frame = orientation_grid(level.nside, psi.device).frame[direction]
    here = posterior.coefficient.gather(
        1, chosen[..., None].expand(-1, -1, posterior.coefficient.shape[2])
    )[:, 0]
    coefficient = here / here[:, :1].clamp_min(1e-30)
    return Pose(frame @ about_z(psi), shift_px * pixel_size_A), coefficient


def _contrast(
    linear: Tensor, power: Tensor, image_model: ImageModel, basis_volumes: int
) -> tuple[Tensor, Tensor]:
    """Posterior mean of the contrast at a pose, and of its square; 1 for conformations."""
    if basis_volumes > 1 or image_model.contrast_sd == 0.0:
        return torch.ones_like(linear), torch.ones_like(linear)
    precision = image_model.contrast_sd**-2
    mean = (linear + precision) / (power + precision)
    return mean, mean.square() + 1.0 / (power + precision)
