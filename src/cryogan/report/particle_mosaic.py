"""Particles beside projections of the map at the poses that they have been assigned."""

from pathlib import Path

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray
from torch import Tensor

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.io.mrc import Map
from cryogan.io.particle_files import read_particles
from cryogan.io.relion_poses import read_poses
from cryogan.particles import Particles, Pose
from cryogan.physics.ctf import ctf
from cryogan.physics.imaging import simulate_images
from cryogan.report.images import grey_range
from cryogan.report.strips import Picture, picture, scale_bar
from cryogan.report.template import missing, render
from cryogan.run.contents import RunContents

COLUMNS = 8
_LOW_PASS_A, _LOW_PASS_PX = 20.0, 4.0
_SAME_WIDTH = 0.02


def mosaic(run: RunContents, path: Path, rows: NDArray[np.int64], heads: list[str]) -> Markup:
    """Images, the same low-passed, and projections of the map through the same CTFs.

    Args:
        run: whose map is projected.
        path: star file with poses.
        rows: (m,) which of its particles.
        heads: what is said of each.
    """
    if "map" not in run.maps:
        return missing("the run folder has no map.mrc to project")
    map_, chosen = run.maps["map"], torch.from_numpy(rows)
    try:
        particles = read_particles(path, index=chosen, sign="bright")
        pose = read_poses(path, pixel_size_A=particles.pixel_size_A)[chosen]
        images = particles.stack.read(torch.arange(len(particles)))
    except InputError as error:
        return missing(f"the images of particles: {error}")
    size = map_.volume.shape[-1]
    width_A, wanted_A = particles.box_size * particles.pixel_size_A, size * map_.pixel_size_A
    if abs(width_A / wanted_A - 1.0) > _SAME_WIDTH:
        return missing(
            f"the images of particles: they are {width_A:.0f} Å wide, the map {wanted_A:.0f} Å"
        )
    images = fourier.resample(images, size)
    projections = _projections(map_, particles, pose)
    centred = images - images.mean(dim=(1, 2), keepdim=True)
    if float((centred * projections).sum()) < 0.0:
        images = -images  # protein bright, as the poses were found
    low_pass_A = max(_LOW_PASS_A, _LOW_PASS_PX * map_.pixel_size_A)
    kinds = {
        "image": images,
        f"low-passed to {low_pass_A:.0f} Å": low_passed(images, low_pass_A / map_.pixel_size_A),
        "the map, at its pose": projections,
    }
    return render(
        "particle_mosaic",
        heads=heads,
        rows=[(label, _pictures(label, shown, map_)) for label, shown in kinds.items()],
    )


def _projections(map_: Map, particles: Particles, pose: Pose) -> Tensor:
    """(m, D, D) projections of the map with shifts and CTFs."""
    transfer = ctf(particles.ctf, map_.volume.shape[-1], map_.pixel_size_A)
    return simulate_images(map_.volume, pose, transfer, pixel_size_A=map_.pixel_size_A)


def low_passed(images: Tensor, wavelength_px: float) -> Tensor:
    """Images (n, D, D) times a Gaussian in Fourier space that is ½ at a wavelength in pixels."""
    size = images.shape[-1]
    k2 = fourier.frequency_grid(size, 2).square().sum(-1)
    return fourier.irfft(fourier.rfft(images) * torch.exp2(-k2 * wavelength_px**2), size)


def _pictures(label: str, images: Tensor, map_: Map) -> list[Picture]:
    """Each image on its own grey scale; the first with a scale bar."""
    shown = images.double().numpy()
    bar = scale_bar(map_.volume.shape[-1] * map_.pixel_size_A)
    return [
        picture(image, grey_range(image), f"{label}, {number + 1}", bar if number == 0 else None)
        for number, image in enumerate(shown)
    ]
