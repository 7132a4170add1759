"""Shaded pictures of the surface of a density, its parts in their colours."""

from dataclasses import dataclass

import torch
from matplotlib import colors
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, normalize

PICTURE, SUPERSAMPLING = 300, 2  # pixels of a picture's side, rays along each
STILL, MOVING, OUTLINE = "#9db2c4", "#f28e3c", "#7a3b06"


@dataclass(frozen=True)
class View:
    """An orthographic view: what points right, what up (unit vectors x, y, z), and its width."""

    right: Tensor
    up: Tensor
    field_A: float = 132.0

    @property
    def towards(self) -> Tensor:
        """From the molecule to the eye."""
        return torch.linalg.cross(self.right, self.up)

    def plane(self, pixel_size_A: float) -> Tensor:
        """(n, n, 3) points of the picture's plane through the origin, in voxels."""
        n = PICTURE * SUPERSAMPLING
        axis = (torch.arange(n) - (n - 1) / 2) * (self.field_A / pixel_size_A / n)
        return axis[None, :, None] * self.right - axis[:, None, None] * self.up


ALONG = {
    "x": View(torch.tensor([0.0, 1.0, 0.0]), torch.tensor([0.0, 0.0, 1.0])),
    "y": View(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, -1.0])),
    "z": View(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])),
}


def at(volumes: Tensor, points: Tensor) -> Tensor:
    """Trilinear values (c, ...) of (c, D, D, D) at points (..., 3), x, y, z in voxels."""
    grid = points.view(1, 1, 1, -1, 3) / (volumes.shape[-1] / 2)
    values = grid_sample(volumes[None], grid, align_corners=False)
    return values.view(len(volumes), *points.shape[:-1])


def surface(volume: Tensor, pixel_size_A: float, view: View, level: float) -> Tensor:
    """(n, n) height towards the eye at which the density first reaches `level`; NaN: nowhere."""
    plane = view.plane(pixel_size_A)
    height = torch.full(plane.shape[:2], torch.nan)
    within = (volume >= level).nonzero() - (volume.shape[-1] - 1) / 2
    reach = float(within.norm(dim=1).max()) + 2.0
    before = torch.zeros_like(height)
    unmet = plane.norm(dim=-1) <= reach
    for step in range(int(reach) + 1, -int(reach) - 2, -1):  # voxel by voxel, from the eye
        now = at(volume[None], plane[unmet] + step * view.towards)[0]
        met = now >= level
        where = unmet.nonzero()[met].unbind(dim=1)
        height[where] = step + ((now - level) / (now - before[unmet]))[met]
        before[unmet] = now
        unmet[where] = False
    return height


def coverage(height: Tensor) -> Tensor:
    """How much of every pixel of the picture a surface covers."""
    return avg_pool2d((~height.isnan()).float()[None], SUPERSAMPLING)[0]


def render(parts: Tensor, pixel_size_A: float, view: View, level: float) -> Tensor:
    """(n, n, 4) picture of the surface of (2, D, D, D): what stands still, and what moves."""
    volume = parts.sum(dim=0)
    height = surface(volume, pixel_size_A, view, level)
    points = view.plane(pixel_size_A) + height.nan_to_num(0.0)[..., None] * view.towards
    normal = -normalize(at(torch.stack(torch.gradient(volume)[::-1]), points), dim=0)
    light = normalize(view.towards + 0.5 * view.up - 0.5 * view.right, dim=0)
    lit = torch.einsum("cij,c->ij", normal, light).clamp(0.0)
    facing = torch.einsum("cij,c->ij", normal, view.towards).clamp(0.0, 1.0)
    depth_A = height * pixel_size_A
    shade = (0.5 + 0.65 * lit) * (0.5 + 0.5 * facing.sqrt()) * openness(depth_A, view.field_A)
    share = torch.softmax(torch.log(at(parts, points).clamp(1e-9)) * 4.0, dim=0)
    paint = torch.tensor([colors.to_rgb(STILL), colors.to_rgb(MOVING)])
    colour = torch.einsum("pij,pc->cij", share, paint) * shade * ~height.isnan()
    covered = coverage(height)
    mean = avg_pool2d(colour[None], SUPERSAMPLING)[0] / covered.clamp(1e-6)
    return torch.cat((mean.clamp(0.0, 1.0), covered[None])).movedim(0, -1)


def openness(height_A: Tensor, field_A: float) -> Tensor:
    """Less than 1 where the surface lies deeper than what is around it: soft shadows."""
    result = torch.ones_like(height_A)
    for width_A, strength in ((6.0, 0.25), (20.0, 0.35)):
        width = 2 * round(width_A / field_A * len(height_A) / 2) + 1

        def blurred(image: Tensor, width: int = width) -> Tensor:
            for _ in range(3):
                image = avg_pool2d(image[None], (width, 1), 1, (width // 2, 0))[0]
                image = avg_pool2d(image[None], (1, width), 1, (0, width // 2))[0]
            return image

        known = blurred((~height_A.isnan()).float()).clamp(1e-6)
        around_A = blurred(height_A.nan_to_num(0.0)) / known
        deeper_A = around_A - height_A.nan_to_num(0.0)
        result *= 1.0 - strength * (deeper_A / width_A).clamp(0.0, 1.0)
    return result
