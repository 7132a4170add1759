"""Isosurfaces of a map: contour levels and triangle meshes light enough for a web page."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.measure import marching_cubes
from torch import Tensor

from cryogan import fourier

# Where levels lie between the mean of the map and the 99.9th percentile of its voxels, which
# stands for "fully inside the molecule" and is deaf to a few extreme voxels.
LEVEL_FRACTIONS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
DEFAULT_LEVEL = 2

# Small maps are Fourier-interpolated to this box before contouring, larger ones cropped.
CONTOUR_BOX = 80


@dataclass(frozen=True)
class Isosurface:
    """A closed triangle mesh.

    Attributes:
        vertices_A: (n, 3) float32 (x, y, z) in Å; the origin is voxel D // 2.
        faces: (m, 3) vertex numbers, anticlockwise seen from outside.
    """

    vertices_A: NDArray[np.float32]
    faces: NDArray[np.int64]


def contour_levels(volume: Tensor) -> list[float]:
    """Contour levels of a map (D, D, D), lowest first; none for a flat map.

    A fraction of the way from the mean to the 99.9th percentile suits maps whose molecule
    fills little or much of the box alike, which a fixed number of σ does not.
    """
    mean = float(volume.mean())
    inside = float(np.quantile(volume.numpy(), 0.999))
    if not inside > mean:
        return []
    return [mean + fraction * (inside - mean) for fraction in LEVEL_FRACTIONS]


def enclosed_volume_A3(volume: Tensor, level: float, pixel_size_A: float) -> float:
    """Volume of the voxels at or above `level`, in Å³."""
    return float((volume >= level).sum()) * pixel_size_A**3


def level_enclosing(volume: Tensor, pixel_size_A: float, enclosed_A3: float) -> float:
    """The level at which a map encloses `enclosed_A3` (Å³): compares maps of any grey scale."""
    voxels = max(1, min(volume.numel(), round(enclosed_A3 / pixel_size_A**3)))
    return float(volume.flatten().kthvalue(volume.numel() - voxels + 1).values)


def isosurfaces(
    volume: Tensor, pixel_size_A: float, levels: list[float], max_vertices: int
) -> list[Isosurface]:
    """The surfaces of `volume` (D, D, D; z, y, x) at `levels` by marching cubes.

    The map is Fourier-resampled to a box of `CONTOUR_BOX`, then, level by level, to ever
    smaller boxes until the mesh has at most `max_vertices`. A map that stays below a level
    gives an empty mesh.
    """
    field_A = pixel_size_A * volume.shape[-1]
    resampled = fourier.resample(volume, CONTOUR_BOX, 3)
    return [_within_budget(resampled, field_A, level, max_vertices) for level in levels]


def _within_budget(volume: Tensor, field_A: float, level: float, max_vertices: int) -> Isosurface:
    box_size = CONTOUR_BOX
    while True:
        surface = _marching_cubes(fourier.resample(volume, box_size, 3), field_A, level)
        excess = len(surface.vertices_A) / max_vertices
        if excess <= 1:
            return surface
        box_size = min(box_size - 2, int(box_size / excess**0.5))


def _marching_cubes(volume: Tensor, field_A: float, level: float) -> Isosurface:
    """The surface of a map whose box is `field_A` wide, closed where it leaves the box."""
    if not volume.min() < level < volume.max():
        return Isosurface(np.empty((0, 3), np.float32), np.empty((0, 3), np.int64))
    closed = np.pad(volume.numpy(), 1, constant_values=float(volume.min()))
    vertices, faces, _, _ = marching_cubes(closed, level)  # type: ignore[no-untyped-call]
    box_size = volume.shape[-1]
    centred = (vertices - 1 - box_size // 2) * (field_A / box_size)
    # Corners that skimage orders clockwise in (z, y, x) are anticlockwise in (x, y, z).
    return Isosurface(centred[:, ::-1].astype(np.float32), faces.astype(np.int64))
