"""Images of a set beside those that a reconstruction explains, and sections of maps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

import cryogan as cg
from cryogan.benchmark.curves import save_figure
from cryogan.benchmark.evaluating import ALIGNED, SEEN, TRUTH_HALF
from cryogan.benchmark.experiments import TRUE_POSES
from cryogan.benchmark.fsc_figures import label_of
from cryogan.benchmark.order import Order
from cryogan.benchmark.tables import row_in
from cryogan.evaluation.resampling import resample_map
from cryogan.io.relion_poses import read_poses
from cryogan.particles import Particles, Pose
from cryogan.physics.ctf import ctf
from cryogan.physics.imaging import form_images
from cryogan.physics.projection import volume_spectrum
from cryogan.run.checkpoint import load_arrays
from cryogan.simulation.settings import accurate_padding

_COLUMNS = 6
_STATES = 6
_TIGHT = {"right": 0.995, "bottom": 0.005, "wspace": 0.03, "hspace": 0.03}
_TAIL = 0.002  # of the pixels are black, as many white
Rows = list[tuple[str, Tensor]]


def draw_gallery(path: Path, orders: Sequence[Order]) -> None:
    """Images of a set at three stages, and the same of the best map, in the true poses.

    Noise-free, with CTF, noisy. The noise of what a map explains is that of other images of the
    set, so that only the map differs.

    Args:
        path: PNG file.
        orders: finished cells of one set, with maps.
    """
    set_folder = orders[0].set_folder
    particles = cg.read_particles(set_folder / "particles.star", sign="bright")
    index = torch.arange(min(_COLUMNS, len(particles)))
    poses = read_poses(set_folder / "truth" / "poses.star")[index]
    shown = particles.subset(index)
    truth = cg.read_map(set_folder / "truth" / "map.mrc")
    images = shown.stack.read(torch.arange(len(index))).float()
    clean, filtered = _stages(truth.volume, poses, shown)
    rows: Rows = [
        ("true map:\nprojection", clean),
        ("with CTF", filtered),
        ("the particle\nimage", images),
    ]
    order = _best(orders)
    if order is not None:
        found = cg.read_map(order.folder / ALIGNED)
        size = truth.volume.shape[-1]
        volume = resample_map(found.volume, found.pixel_size_A, truth.pixel_size_A, size)
        scale = (volume * truth.volume).sum() / volume.square().sum()
        mine, mine_filtered = _stages(scale * volume, poses, shown)
        noise = (images - filtered).roll(1, 0)
        label = f"{label_of(order)}:\nprojection"
        rows += [(label, mine), ("with CTF", mine_filtered), ("with noise", mine_filtered + noise)]
    _draw_images(path, rows, orders[0].set_.label)


def _stages(volume: Tensor, poses: Pose, particles: Particles) -> tuple[Tensor, Tensor]:
    """(n, D, D) projections, and with their CTFs."""
    size, pixel_size_A = particles.box_size, particles.pixel_size_A
    spectrum = volume_spectrum(volume, accurate_padding(size))
    transfer = ctf(particles.ctf, size, pixel_size_A)
    clean, filtered = (
        form_images(spectrum, poses, each, box_size=size, pixel_size_A=pixel_size_A)
        for each in (None, transfer)
    )
    return clean, filtered


def _best(orders: Sequence[Order]) -> Order | None:
    """The cell that agrees best with the truth, the bound aside."""
    own = [order for order in orders if order.cell.method != TRUE_POSES]
    return min(own, key=lambda order: (row_in(order) or {})[TRUTH_HALF], default=None)


def _draw_images(path: Path, rows: Rows, title: str) -> None:
    columns = len(rows[0][1])
    figure = Figure(figsize=(1.45 * columns + 1.1, 1.5 * len(rows) + 0.3), dpi=130)
    figure.suptitle(title, fontsize=11, y=0.995)
    grid = figure.add_gridspec(
        len(rows),
        columns,
        left=0.13,
        right=0.995,
        bottom=0.005,
        top=0.955,
        wspace=0.03,
        hspace=0.03,
    )
    for row, (label, images) in enumerate(rows):
        for column, image in enumerate(images):
            axes = figure.add_subplot(grid[row, column])
            show_grey(axes, image.numpy(), _limits(images.numpy()))
            if column == 0:
                axes.set_ylabel(label, fontsize=9)
    save_figure(path, figure)


def draw_sections(path: Path, orders: Sequence[Order]) -> None:
    """Central sections of the true map and of every cell's map, in the frame of the truth.

    Args:
        path: PNG file.
        orders: finished cells of one set, one a seed, with maps.
    """
    truth = cg.read_map(orders[0].set_folder / "truth" / "map.mrc")
    maps = [("truth", truth)]
    maps += [(label_of(order), cg.read_map(order.folder / ALIGNED)) for order in orders]
    figure = Figure(figsize=(1.9 * len(maps), 5.9), dpi=130)
    grid = figure.add_gridspec(3, len(maps), left=0.04, top=0.87, **_TIGHT)
    for column, (label, map_) in enumerate(maps):
        volume = map_.volume.numpy()
        middle = volume.shape[0] // 2
        sections = (volume[middle], volume[:, middle], volume[:, :, middle])
        for row, (plane, section) in enumerate(zip(("xy", "xz", "yz"), sections, strict=True)):
            axes = figure.add_subplot(grid[row, column])
            show_grey(axes, section, _limits(np.stack(sections)))
            if column == 0:
                axes.set_ylabel(plane)
            if row == 0:
                axes.set_title(label.replace(", ", ",\n"), fontsize=9)
    figure.suptitle(f"{orders[0].set_.label}: central sections", fontsize=11, y=0.995)
    save_figure(path, figure)


def draw_states(path: Path, orders: Sequence[Order]) -> None:
    """True states seen along y, and the map of each cell that is nearest to each.

    Args:
        path: PNG file.
        orders: finished cells of one set with conformations.
    """
    seen = [load_arrays(order.folder / SEEN) for order in orders]
    count = len(seen[0]["truth"])
    states = torch.linspace(0, count - 1, min(count, _STATES)).round().long()
    rows: Rows = [("truth", seen[0]["truth"][states])]
    rows += [
        (label_of(order).replace(", ", ",\n"), each["found"][states])
        for order, each in zip(orders, seen, strict=True)
    ]
    numbers = ", ".join(str(state + 1) for state in states.tolist())
    _draw_images(path, rows, f"{orders[0].set_.label}: states {numbers}, seen along y")


def show_grey(axes: Axes, image: NDArray[np.float32], limits: tuple[float, float]) -> None:
    """An image with its first row on top, and nothing around it."""
    axes.imshow(image, cmap="gray", vmin=limits[0], vmax=limits[1], interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)


def _limits(images: NDArray[np.float32]) -> tuple[float, float]:
    low, high = np.quantile(images, [_TAIL, 1.0 - _TAIL])
    return float(low), float(high)
