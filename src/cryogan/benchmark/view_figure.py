"""Samples of distributions of viewing directions on the sphere (CryoGAN, Figure 7)."""

import math
from collections.abc import Mapping
from pathlib import Path

import healpix
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray
from torch import Tensor

from cryogan.benchmark.curves import COLOURS, save_figure
from cryogan.simulation.pose_settings import OrientationSettings, ShiftSettings
from cryogan.simulation.poses import pose_distribution

REAL_FILES = {
    "RyR1 (RELION), real": "ryr1_refined_particles.star",
    "T20S (cryoSPARC), real": "t20s_refined_particles.cs",
}
_SAMPLES, _COUNTED, _NSIDE = 2000, 100_000, 8
_ELEVATION_DEG = 25.0
_MOST = 8.0  # times uniform


def distributions(datadirs: Mapping[str, Path]) -> dict[str, OrientationSettings]:
    """Those of the tables, and those of refined particle files.

    Args:
        datadirs: label -> particle file.
    """
    found = {"uniform": OrientationSettings()}
    for sigma in (2.0, 3.0):
        found[f"σ = {sigma:g}"] = OrientationSettings(kind="angular-gaussian", sigma=sigma)
    for label, path in datadirs.items():
        found[label] = OrientationSettings(kind="file", file=str(path))
    return found


def draw_views(path: Path, given: Mapping[str, OrientationSettings], seed: int = 0) -> None:
    """Samples on the sphere, and below how frequent directions are, beside uniform ones.

    The sphere is seen from 25° above the equator, +z upwards; points behind it are pale.

    Args:
        path: PNG file.
        given: label -> distribution.
        seed: of the samples.

    Raises:
        InputError: a file of poses cannot be read.
    """
    figure = Figure(figsize=(2.5 * len(given), 4.6), dpi=120)
    width = 1.0 / len(given)
    image = None
    for column, (label, settings) in enumerate(given.items()):
        directions = _directions(settings, seed)
        sphere = figure.add_axes((column * width, 0.4, width, 0.54))
        sphere.set_title(label, fontsize=11)
        across, up, towards = _seen(directions[:_SAMPLES]).T
        sphere.add_patch(Circle((0.0, 0.0), 1.0, facecolor="0.96", edgecolor="0.6", lw=0.8))
        for is_near, shade in ((False, "0.8"), (True, COLOURS[0])):
            chosen = (towards > 0) == is_near
            sphere.scatter(across[chosen], up[chosen], s=2.5, color=shade, lw=0)
        _draw_axis(sphere)
        sphere.set(xlim=(-1.12, 1.12), ylim=(-1.12, 1.12), aspect="equal")
        sphere.axis("off")
        flat = figure.add_axes((column * width + 0.01, 0.13, width - 0.02, 0.27))
        image = flat.imshow(
            _mollweide(_frequency(directions)),
            extent=(-2.0, 2.0, -1.0, 1.0),
            origin="lower",
            cmap="magma",
            norm=PowerNorm(0.5, 0.0, _MOST),
        )
        flat.axis("off")
    assert image is not None
    bar = figure.add_axes((0.3, 0.1, 0.4, 0.022))
    figure.colorbar(image, cax=bar, orientation="horizontal", ticks=[0, 1, 2, 4, 8], extend="max")
    bar.set_xlabel(
        "frequency of viewing directions, uniform = 1 (Mollweide, z upwards)", fontsize=9
    )
    bar.tick_params(labelsize=8)
    save_figure(path, figure)


def _directions(settings: OrientationSettings, seed: int) -> Tensor:
    """(n, 3) unit vectors `R e_z`."""
    poses = pose_distribution(settings, ShiftSettings(), box_size=64, pixel_size_A=1.0)
    generator = torch.Generator().manual_seed(seed)
    return poses.orientations.sample(_COUNTED, generator)[:, :, 2].double()


def _seen(direction: Tensor) -> NDArray[np.float64]:
    """(n, 3) across, up and towards the reader."""
    angle = math.radians(_ELEVATION_DEG)
    x, y, z = direction.unbind(-1)
    up = math.cos(angle) * z - math.sin(angle) * x
    towards = math.sin(angle) * z + math.cos(angle) * x
    return torch.stack((y, up, towards), dim=-1).numpy()


def _draw_axis(axes: Axes) -> None:
    """The z axis where it leaves the sphere."""
    tip = math.cos(math.radians(_ELEVATION_DEG))
    axes.plot([0.0, 0.0], [tip, 1.06], color="0.2", lw=1.0)
    axes.text(0.04, 1.03, "z", fontsize=9, va="center")


def _frequency(direction: Tensor) -> NDArray[np.float64]:
    """(12 nside²,) counts in HEALPix cells, in units of uniform views."""
    cell = healpix.vec2pix(_NSIDE, *direction.numpy().T)
    count = np.bincount(cell, minlength=12 * _NSIDE**2)
    return np.asarray(count / count.mean(), dtype=np.float64)


def _mollweide(frequency: NDArray[np.float64], height: int = 200) -> NDArray[np.float64]:
    """(height, 2 height) picture of the sphere, +z on top; NaN outside."""
    up, across = np.meshgrid(
        (np.arange(height) + 0.5) / (height / 2) - 1.0,
        (np.arange(2 * height) + 0.5) / (height / 2) - 2.0,
        indexing="ij",
    )
    inside = np.square(across / 2.0) + np.square(up) < 1.0
    angle = np.arcsin(up)
    sine = ((2.0 * angle + np.sin(2.0 * angle)) / math.pi).clip(-1.0, 1.0)
    longitude = np.pi * across / (2.0 * np.cos(angle))
    cell = healpix.ang2pix(_NSIDE, np.arccos(sine)[inside], longitude[inside] % (2.0 * np.pi))
    picture = np.full(inside.shape, np.nan)
    picture[inside] = frequency[cell]
    return picture
