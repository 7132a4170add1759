"""Data sets with a known answer: from structures and CTFs to noisy particle images and truth."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.files import write_text
from cryogan.io.mrc import write_map, write_stack
from cryogan.io.relion import write_particles
from cryogan.particles import ArrayStack, CTFParams, Particles, Pose
from cryogan.physics.ctf import ctf as ctf_of
from cryogan.physics.distributions import PoseDistribution
from cryogan.physics.imaging import form_images
from cryogan.physics.projection import volume_spectrum
from cryogan.simulation.microscope import perfect_ctf
from cryogan.simulation.noise import White, gain


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
        InputError: `ctf` does not hold n rows.
    """
    if ctf is not None and len(ctf) != n:
        raise InputError(f"{n} images need {n} CTFs, but {len(ctf)} were given; draw {n}.")
    states = volume if volume.ndim == 4 else volume[None]
    box_size = volume.shape[-1]
    pose = poses.sample(n, generator)
    state = torch.randint(states.shape[0], (n,), generator=generator)
    images = torch.empty(n, box_size, box_size)
    for number in range(states.shape[0]):
        spectrum = volume_spectrum(states[number])
        for index in torch.split((state == number).nonzero()[:, 0], batch):
            images[index] = form_images(
                spectrum,
                pose[index],
                None if ctf is None else ctf_of(ctf[index], box_size, pixel_size_A),
                box_size=box_size,
                pixel_size_A=pixel_size_A,
            )
    noise = White(box_size, snr_box_size or box_size)
    clean_rms = float(images.square().mean(dtype=torch.float64).sqrt())
    factor = gain(noise, clean_rms, snr_dB)
    for chunk in torch.split(images, batch):
        chunk += factor * noise.sample(chunk.shape[0], generator)
    recorded = perfect_ctf(n) if ctf is None else ctf
    particles = Particles(ArrayStack(images), recorded, pixel_size_A)
    return SimulatedSet(particles, pose, state, factor * noise.rms)


def write_dataset(folder: Path | str, simulated: SimulatedSet, truth_volume: Tensor) -> None:
    """Write a data set as a user would get it, and the truth beside it.

    `particles.mrcs` and `particles.star` hold no pose; `truth/poses.star` does. The truth is
    `truth/map.mrc`, or for several volumes (m, D, D, D) `truth/map_000.mrc` ... and
    `truth/states.csv`. Every file is whole or absent, and the star files come last.

    Raises:
        InputError: the folder cannot be made or written.
    """
    folder = Path(folder)
    truth = folder / "truth"
    try:
        truth.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"Cannot make the folder {truth}: {error.strerror}; choose another place."
        ) from error
    particles = simulated.particles
    pixel_size_A = particles.pixel_size_A
    everything = torch.arange(len(particles))
    if truth_volume.ndim == 3:
        write_map(truth / "map.mrc", truth_volume, pixel_size_A)
    else:
        for number, volume in enumerate(truth_volume):
            write_map(truth / f"map_{number:03d}.mrc", volume, pixel_size_A)
        rows = (f"{i},{s}\n" for i, s in enumerate(simulated.state.tolist(), start=1))
        write_text(truth / "states.csv", "image,state\n" + "".join(rows))
    write_stack(folder / "particles.mrcs", particles.stack.read(everything), pixel_size_A)
    for star, stack, pose in (
        (truth / "poses.star", "../particles.mrcs", simulated.pose),
        (folder / "particles.star", "particles.mrcs", None),
    ):
        write_particles(
            star,
            image_names=stack,
            ctf=particles.ctf,
            pixel_size_A=pixel_size_A,
            box_size=particles.box_size,
            pose=pose,
        )
