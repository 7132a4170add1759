"""Conventions proven against RELION itself: its projections are ours, it rebuilds our map.

No alignment anywhere: Euler angles, shifts, CTF (sign, astigmatism, phase plate, B-factor and
scale), hand, frame and grey values have to agree as written.

Odd boxes: `relion_project` 3.1.3 puts the origin of the image at pixel (D + 1) / 2 (that of the
map is at D // 2, as in even boxes), so its images are moved by one pixel before they are compared.
`relion_reconstruct` 3.1.3 rebuilds no sharp map from odd boxes wherever their origin is put
(whole and half pixels were tried), and is held to even boxes.
"""

import pytest
import torch

from cryogan import fourier
from cryogan.io.mrc import MrcStack, read_map, write_map
from cryogan.io.relion_writing import write_particles
from cryogan.particles import CTFParams, Pose
from cryogan.phantom import phantom_map
from cryogan.physics.ctf import ctf
from cryogan.physics.distributions import PoseDistribution, Triangular
from cryogan.physics.imaging import simulate_images
from cryogan.physics.rotations import euler_to_matrix, random_rotations
from cryogan.simulation.in_memory import simulate_particles, write_dataset
from cryogan.simulation.microscope import random_ctf
from relion_programs import relion

pytestmark = pytest.mark.slow

WIDTH_A = 192.0


def project_by_relion(folder, volume, pixel_size_A, pose, params, padding):
    """(n, D, D) images made by `relion_project`, origin at pixel D // 2."""
    box_size = volume.shape[-1]
    write_map(folder / "map.mrc", volume, pixel_size_A)
    write_particles(
        folder / "angles.star",
        image_names="none.mrcs",
        ctf=params,
        pixel_size_A=pixel_size_A,
        box_size=box_size,
        pose=pose,
    )
    relion(
        *("relion_project", "--i", "map.mrc", "--ang", "angles.star", "--o", "projections"),
        *("--ctf", "--angpix", pixel_size_A, "--pad", padding),
        folder=folder,
    )
    images = MrcStack.open(folder / "projections.mrcs").read(torch.arange(len(pose)))
    step = -(box_size % 2)
    return images.roll((step, step), dims=(-2, -1))


def various_ctf(n, generator):
    """Different in everything that a particle's CTF can differ in, two optics groups."""
    uniform = torch.rand(6, n, generator=generator)
    second = torch.arange(n) % 2 == 1
    return CTFParams.constant(
        n,
        defocus_u_A=8000.0 + 15000.0 * uniform[0],
        defocus_v_A=8000.0 + 15000.0 * uniform[1],
        defocus_angle_deg=180.0 * uniform[2] - 90.0,
        voltage_kV=torch.where(second, 200.0, 300.0),
        spherical_aberration_mm=torch.where(second, 2.0, 2.7),
        amplitude_contrast=torch.where(second, 0.07, 0.1),
        phase_shift_deg=90.0 * uniform[3] * second,
        b_factor_A2=100.0 * uniform[4],
        scale=0.5 + uniform[5],
    )


def smooth_edged_phantom(box_size, pixel_size_A):
    mask = fourier.soft_disc(box_size, 70.0 / pixel_size_A, 12.0 / pixel_size_A, dims=3)
    return phantom_map(box_size, pixel_size_A) * mask


def band_limited(images, fraction):
    box_size = images.shape[-1]
    mask = fourier.band_mask(box_size, fraction * box_size / 2)
    return fourier.irfft(fourier.rfft(images) * mask, box_size)


@pytest.mark.parametrize("box_size", [64, 49])
@pytest.mark.parametrize(("padding", "bound"), [(2, 0.012), (3, 0.006)])
def test_images_equal_relions_projections(tmp_path, generator, box_size, padding, bound):
    """Relative L2 error over all images, up to 0.9 of Nyquist, after one global scale.

    The scale is 1: RELION too sums voxels along the ray. What differs is interpolation.
    """
    n = 24
    pixel_size_A = WIDTH_A / box_size
    volume = smooth_edged_phantom(box_size, pixel_size_A)
    pose = Pose(random_rotations(n, generator), 8.0 * torch.randn(n, 2, generator=generator))
    params = various_ctf(n, generator)
    theirs = project_by_relion(tmp_path, volume, pixel_size_A, pose, params, padding)
    transfer = ctf(params, box_size, pixel_size_A)
    ours = simulate_images(volume, pose, transfer, pixel_size_A=pixel_size_A, padding=padding)
    ours, theirs = band_limited(ours, 0.9), band_limited(theirs, 0.9)
    scale = float((ours * theirs).sum() / theirs.square().sum())
    assert scale == pytest.approx(1.0, abs=2e-3)
    error = (ours - scale * theirs).norm(dim=(1, 2)) / ours.norm(dim=(1, 2))
    total = float((ours - scale * theirs).norm() / ours.norm())
    assert total < bound
    assert error.max() < 2.0 * bound


def test_each_euler_angle_and_shift_axis_on_its_own(tmp_path):
    """One thing at a time, so that a failure names its cause."""
    euler_deg = [[0, 0, 0], [40, 0, 0], [0, 40, 0], [0, 0, 40], [30, 60, 20], [0, 0, 0], [0, 0, 0]]
    shift_A = [[0, 0], [0, 0], [0, 0], [0, 0], [0, 0], [18, 0], [0, -12]]
    pose = Pose(euler_to_matrix(torch.tensor(euler_deg).float()), torch.tensor(shift_A).float())
    volume = smooth_edged_phantom(48, 4.0)
    params = CTFParams.constant(7, defocus_u_A=15000.0)
    theirs = project_by_relion(tmp_path, volume, 4.0, pose, params, 3)
    ours = simulate_images(volume, pose, ctf(params, 48, 4.0), pixel_size_A=4.0, padding=3)
    ours, theirs = band_limited(ours, 0.9), band_limited(theirs, 0.9)
    error = (ours - theirs).norm(dim=(1, 2)) / ours.norm(dim=(1, 2))
    assert error.max() < 0.015, error.tolist()


def test_relion_rebuilds_the_map_from_our_particles(tmp_path, generator):
    """Noisy images with shifts, CTFs and true poses: FSC > 0.9 up to 0.8 of Nyquist."""
    n, box_size, pixel_size_A = 1500, 48, 4.0
    truth = phantom_map(box_size, pixel_size_A)
    simulated = simulate_particles(
        truth,
        pixel_size_A=pixel_size_A,
        n=n,
        ctf=random_ctf(n, generator),
        poses=PoseDistribution(shifts=Triangular(12.0)),
        snr_dB=0.0,
        generator=generator,
    )
    write_dataset(tmp_path, simulated, truth)
    relion(
        *("relion_reconstruct", "--i", "truth/poses.star", "--ctf", "--o", "rebuilt.mrc"),
        folder=tmp_path,
    )
    rebuilt = read_map(tmp_path / "rebuilt.mrc")
    assert rebuilt.pixel_size_A == pytest.approx(pixel_size_A, rel=1e-4)

    def shells(values):
        return fourier.shell_sum(values, box_size, dims=3)

    ours, theirs = fourier.rfft(truth, 3), fourier.rfft(rebuilt.volume, 3)
    cross = shells((ours * theirs.conj()).real)
    fsc = cross / (shells(ours.abs().square()) * shells(theirs.abs().square())).sqrt()
    assert fsc[: int(0.8 * box_size / 2) + 1].min() > 0.9
    gain = float((rebuilt.volume * truth).sum() / truth.square().sum())
    assert gain == pytest.approx(1.0, abs=0.08)
