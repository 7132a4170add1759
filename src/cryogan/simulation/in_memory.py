"""Data sets with a known answer: from structures and CTFs to noisy particle images and truth."""

import csv
import math
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
from cryogan.physics.noise import white
from cryogan.physics.projection import volume_spectrum


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


def noise_sigma_at(clean: Tensor, snr_dB: float, snr_box_size: int | None = None) -> float:
    """Standard deviation of white noise for `20 log10(‖clean‖ / ‖noise‖) = snr_dB`.

    Args:
        clean: (n, D, D) noise-free images, CTF applied; the norm is over all their pixels.
        snr_dB: amplitude signal-to-noise ratio in dB; -20 dB is a power ratio of 0.01.
        snr_box_size: box in which the ratio is meant, where it is larger than D: images of that
            box, Fourier-cropped by f = snr_box_size / D, keep the signal's grey values and lose
            the noise beyond Nyquist, a gain of 20 log10(f) dB.
    """
    box_size = clean.shape[-1]
    gain_dB = 20.0 * math.log10((snr_box_size or box_size) / box_size)
    rms = float(clean.square().mean(dtype=torch.float64).sqrt())
    return rms / math.pow(10.0, (snr_dB + gain_dB) / 20.0)


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
        snr_dB: see `noise_sigma_at`; math.inf for no noise.
        generator: source of poses, states and noise.
        snr_box_size: see `noise_sigma_at`.
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
    sigma = noise_sigma_at(images, snr_dB, snr_box_size)
    for chunk in torch.split(images, batch):
        chunk += sigma * white(chunk.shape[0], box_size, generator)
    recorded = perfect_ctf(n) if ctf is None else ctf
    particles = Particles(ArrayStack(images), recorded, pixel_size_A)
    return SimulatedSet(particles, pose, state, sigma)


def perfect_ctf(n: int) -> CTFParams:
    """Parameters whose CTF is 1 at every frequency (all amplitude contrast, in focus)."""
    return CTFParams.constant(
        n, defocus_u_A=0.0, spherical_aberration_mm=0.0, amplitude_contrast=1.0
    )


def random_ctf(
    n: int,
    generator: torch.Generator,
    defocus_range_A: tuple[float, float] = (8000.0, 25000.0),
    max_astigmatism_A: float = 300.0,
) -> CTFParams:
    """n CTFs at 300 kV: defocus u uniform in a range, u - v in [0, max], angle in [0, 180)."""
    low, high = defocus_range_A
    uniform = torch.rand(3, n, generator=generator)
    u = low + (high - low) * uniform[0]
    return CTFParams.constant(
        n,
        defocus_u_A=u,
        defocus_v_A=u - max_astigmatism_A * uniform[1],
        defocus_angle_deg=180.0 * uniform[2],
    )


def ctf_table(
    path: Path | str,
    *,
    voltage_kV: float = 300.0,
    spherical_aberration_mm: float = 2.7,
    amplitude_contrast: float = 0.1,
) -> tuple[CTFParams, Tensor]:
    """CTFs of micrographs, and how many particles each holds, from a CSV file.

    The columns `defocus_u_A`, `defocus_v_A`, `defocus_angle_deg`, `phase_shift_deg` and
    `particles` are read, the rest ignored.

    Returns:
        m CTFs and an (m,) tensor of weights for `draw_ctf`.

    Raises:
        InputError: the file cannot be read, lacks a column or holds something else than numbers.
    """
    names = ("defocus_u_A", "defocus_v_A", "defocus_angle_deg", "phase_shift_deg", "particles")
    try:
        with Path(path).open(newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in names if name not in (reader.fieldnames or [])]
            if missing:
                raise InputError(f"{path} has no column {', '.join(missing)}; add it.")
            rows = []
            for row in reader:
                try:
                    rows.append([float(row[name]) for name in names])
                except (TypeError, ValueError) as error:
                    raise InputError(
                        f"{path}, line {reader.line_num}: a value of {', '.join(names)} is not "
                        "a number; correct or remove the line."
                    ) from error
    except OSError as error:
        raise InputError(f"Cannot read the CTF table {path}: {error.strerror}.") from error
    if not rows:
        raise InputError(f"{path} holds no micrograph; give a table with at least one row.")
    u, v, angle, phase, particles = torch.tensor(rows).unbind(dim=1)
    table = CTFParams.constant(
        len(rows),
        defocus_u_A=u,
        defocus_v_A=v,
        defocus_angle_deg=angle,
        phase_shift_deg=phase,
        voltage_kV=voltage_kV,
        spherical_aberration_mm=spherical_aberration_mm,
        amplitude_contrast=amplitude_contrast,
    )
    return table, particles


def draw_ctf(table: CTFParams, weights: Tensor, n: int, generator: torch.Generator) -> CTFParams:
    """n rows of `table` drawn with replacement, with probability in proportion to `weights`."""
    return table[torch.multinomial(weights, n, replacement=True, generator=generator)]


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
