"""Small data sets in memory: for demonstrations, tests and notebooks."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.io.mrc import write_map, write_stack
from cryogan.particles import ArrayStack, CTFParams, Particles, Pose
from cryogan.physics.ctf import ctf as ctf_of
from cryogan.physics.distributions import PoseDistribution
from cryogan.physics.imaging import form_images
from cryogan.physics.projection import volume_spectrum
from cryogan.simulation.dataset import make_folders
from cryogan.simulation.microscope import perfect_ctf
from cryogan.simulation.noise import gain, open_noise
from cryogan.simulation.noise_settings import NoiseSettings
from cryogan.simulation.settings import accurate_padding
from cryogan.simulation.truth import write_stars


@dataclass(frozen=True)
class SimulatedSet:
    """Simulated particles and the truth about them.

    Attributes:
        particles: images in memory, with their CTFs.
        pose: the true pose of every image.
        state: (n,) int64, which of the volumes every image shows.
        noise_sigma: standard deviation of the white noise that was added to each pixel.
    """

    particles: Particles
    pose: Pose
    state: Tensor
    noise_sigma: float


def simulate_particles(
    volume: Tensor,
    *,
    pixel_size_A: float,
    n: int,
    ctf: CTFParams | None,
    poses: PoseDistribution,
    snr_dB: float,
    generator: torch.Generator,
    snr_box_size: int | None = None,
    batch: int = 256,
) -> SimulatedSet:
    """n images `y = noise + C S P_R V` with poses drawn from `poses` and white noise.

    Args:
        volume: (D, D, D), or (m, D, D, D): every image then shows a volume drawn uniformly.
        pixel_size_A: pixel size of volume and images.
        n: number of images.
        ctf: n rows, or None for a perfect microscope (recorded as a CTF that is 1 everywhere).
        poses: distribution of the poses.
        snr_dB: see `simulation.noise`; math.inf for no noise.
        generator: source of poses, states and noise.
        snr_box_size: box in which the ratio is meant, where it is larger than D.
        batch: images formed at a time.

    Raises:
        InputError: `ctf` does not hold n rows, or `snr_box_size` is smaller than D.

    Example:
        >>> import torch
        >>> from cryogan.phantom import phantom_map
        >>> from cryogan.physics.distributions import PoseDistribution
        >>> from cryogan.simulation.in_memory import simulate_particles
        >>> from cryogan.simulation.microscope import random_ctf
        >>> generator = torch.Generator().manual_seed(0)
        >>> simulated = simulate_particles(
        ...     phantom_map(32, 6.0),
        ...     pixel_size_A=6.0,
        ...     n=10,
        ...     ctf=random_ctf(10, generator),
        ...     poses=PoseDistribution(),
        ...     snr_dB=-5.2,
        ...     generator=generator,
        ... )
        >>> len(simulated.particles), simulated.pose.rotation.shape
        (10, torch.Size([10, 3, 3]))
    """
    if ctf is not None and len(ctf) != n:
        raise InputError(f"{n} images need {n} CTFs, but {len(ctf)} were given; draw {n}.")
    states = volume if volume.ndim == 4 else volume[None]
    box_size = volume.shape[-1]
    pose = poses.sample(n, generator)
    state = torch.randint(states.shape[0], (n,), generator=generator)
    images = torch.empty(n, box_size, box_size)
    for number in range(states.shape[0]):
        spectrum = volume_spectrum(states[number], accurate_padding(box_size))
        for index in torch.split((state == number).nonzero()[:, 0], batch):
            images[index] = form_images(
                spectrum,
                pose[index],
                None if ctf is None else ctf_of(ctf[index], box_size, pixel_size_A),
                box_size=box_size,
                pixel_size_A=pixel_size_A,
            )
    noise = open_noise(
        NoiseSettings("white", snr_box_size=snr_box_size),
        box_size=box_size,
        pixel_size_A=pixel_size_A,
    )
    clean_rms = float(images.square().mean(dtype=torch.float64).sqrt())
    factor = gain(noise, clean_rms, snr_dB)
    for chunk in torch.split(images, batch):
        chunk += factor * noise.model.sample(chunk.shape[0], generator)
    recorded = perfect_ctf(n) if ctf is None else ctf
    particles = Particles(ArrayStack(images), recorded, pixel_size_A)
    return SimulatedSet(particles, pose, state, factor * noise.rms)


def write_dataset(folder: Path | str, simulated: SimulatedSet, truth_volume: Tensor) -> None:
    """Write a set of one molecule as `cryogan simulate` would, truth in `truth/`.

    Args:
        folder: made if it does not exist.
        simulated: the set.
        truth_volume: (D, D, D).

    Raises:
        InputError: the folder cannot be made or written.
    """
    folder = Path(folder)
    make_folders(folder)
    particles = simulated.particles
    write_map(folder / "truth" / "map.mrc", truth_volume, particles.pixel_size_A)
    images = particles.stack.read(torch.arange(len(particles)))
    write_stack(folder / "particles.mrcs", images, particles.pixel_size_A)
    write_stars(
        folder,
        simulated.pose,
        particles.ctf,
        box_size=particles.box_size,
        pixel_size_A=particles.pixel_size_A,
    )
