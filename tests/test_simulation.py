"""Simulated data sets: signal-to-noise as defined, CTFs as drawn, files as a user gets them."""

import math

import pytest
import torch

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.io.mrc import read_map
from cryogan.io.relion import read_particles
from cryogan.io.relion_poses import read_poses
from cryogan.particles import CTFParams
from cryogan.phantom import phantom_map
from cryogan.physics.ctf import ctf
from cryogan.physics.distributions import PoseDistribution, Triangular
from cryogan.physics.imaging import simulate_images
from cryogan.physics.rotations import angle_between
from cryogan.simulation.in_memory import simulate_particles, write_dataset
from cryogan.simulation.microscope import random_ctf


def make(n=64, box_size=32, seed=7, **changes):
    generator = torch.Generator().manual_seed(seed)
    arguments = {
        "pixel_size_A": 192.0 / box_size,
        "n": n,
        "ctf": random_ctf(n, generator),
        "poses": PoseDistribution(shifts=Triangular(12.0)),
        "snr_dB": 0.0,
        "generator": generator,
    } | changes
    volume = arguments.pop("volume", phantom_map(box_size, arguments["pixel_size_A"]))
    return simulate_particles(volume, **arguments)


def pixels(simulated):
    return simulated.particles.stack.images


def snr_decibel(clean, noisy):
    return 20.0 * math.log10(float(clean.norm() / (noisy - clean).norm()))


def test_clean_images_are_the_physics_of_the_recorded_truth():
    result = make(snr_dB=math.inf, batch=10)
    assert result.noise_sigma == 0.0
    transfer = ctf(result.particles.ctf, 32, 6.0)
    expected = simulate_images(
        phantom_map(32, 6.0), result.pose, transfer, pixel_size_A=6.0, padding=4.0
    )
    torch.testing.assert_close(pixels(result), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("snr_dB", [-20.0, -5.2, 10.0])
def test_noise_is_at_the_ratio_asked_for(snr_dB):
    clean, noisy = make(snr_dB=math.inf), make(snr_dB=snr_dB)
    assert snr_decibel(pixels(clean), pixels(noisy)) == pytest.approx(snr_dB, abs=0.1)
    added = pixels(noisy) - pixels(clean)
    assert added.std().item() == pytest.approx(noisy.noise_sigma, rel=0.01)


def test_ratio_at_a_larger_box_is_that_of_images_cropped_from_it():
    """-5.2 dB at 96 px, cropped to 32 px, against -5.2 dB "as at 96 px" made at 32 px."""
    large = {"box_size": 96, "snr_dB": math.inf}
    clean, noisy = (fourier.resample(pixels(make(**large | s)), 32) for s in ({}, {"snr_dB": -5.2}))
    cropped = snr_decibel(clean, noisy)
    small = make(snr_dB=-5.2, snr_box_size=96)
    direct = snr_decibel(pixels(make(snr_dB=math.inf)), pixels(small))
    assert direct == pytest.approx(-5.2 + 20.0 * math.log10(3.0), abs=0.1)
    # The crop leaves out the Nyquist row of the noise, and signal beyond it before the crop.
    assert cropped == pytest.approx(direct, abs=0.2)


def test_the_same_seed_gives_the_same_set_and_another_seed_another():
    first, second, other = make(), make(), make(seed=8)
    assert torch.equal(pixels(first), pixels(second))
    assert not torch.equal(pixels(first), pixels(other))


def test_each_image_shows_the_state_that_is_recorded():
    volumes = torch.stack([phantom_map(32, 6.0, hinge_angle_deg=a) for a in (0.0, 60.0)])
    result = make(volume=volumes, ctf=None, snr_dB=math.inf)
    assert set(result.state.tolist()) == {0, 1}
    for state in (0, 1):
        expected = simulate_images(volumes[state], result.pose, None, pixel_size_A=6.0, padding=4.0)
        error = (pixels(result) - expected).norm(dim=(1, 2))
        assert torch.equal(error < 1e-2, result.state == state)


def test_a_perfect_microscope_is_recorded_as_a_ctf_of_one():
    recorded = make(ctf=None).particles.ctf
    assert torch.equal(ctf(recorded, 32, 6.0), torch.ones(64, 32, 17))


def test_too_few_ctfs_are_refused():
    with pytest.raises(InputError, match="64 images need 64 CTFs, but 3 were given"):
        make(ctf=CTFParams.constant(3, defocus_u_A=10000.0))


def test_written_data_set_is_what_was_simulated(tmp_path):
    result, truth = make(), phantom_map(32, 6.0)
    write_dataset(tmp_path / "set", result, truth)
    found = sorted(str(p.relative_to(tmp_path / "set")) for p in tmp_path.rglob("*.*"))
    assert found == ["particles.mrcs", "particles.star", "truth/map.mrc", "truth/poses.star"]
    particles = read_particles(tmp_path / "set" / "particles.star", sign="bright")
    assert particles.pixel_size_A == 6.0
    assert torch.equal(particles.stack.read(torch.arange(64)), pixels(result))
    for name, read in particles.ctf.columns.items():
        written = result.particles.ctf.columns[name]
        torch.testing.assert_close(read, written, atol=1e-5, rtol=1e-6)
    pose = read_poses(tmp_path / "set" / "truth" / "poses.star")
    assert angle_between(pose.rotation, result.pose.rotation).max() < 0.05
    torch.testing.assert_close(pose.shift_A, result.pose.shift_A, atol=1e-5, rtol=0.0)
    through_truth = read_particles(tmp_path / "set" / "truth" / "poses.star", sign="bright")
    assert torch.equal(through_truth.stack.read(torch.tensor([5])), pixels(result)[5:6])
    assert torch.equal(read_map(tmp_path / "set" / "truth" / "map.mrc").volume, truth)


def test_particle_star_tells_no_pose(tmp_path):
    write_dataset(tmp_path, make(n=4), phantom_map(32, 6.0))
    text = (tmp_path / "particles.star").read_text()
    assert "rlnDefocusU" in text
    assert "rlnAngleRot" not in text
    assert "rlnAnglePsi" not in text
    assert "rlnOrigin" not in text


def test_unwritable_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot make the folder"):
        write_dataset(tmp_path / "file" / "set", make(n=4), phantom_map(32, 6.0))
