"""Padding: the weight of noise near the edge, and maps, images and spectra in the padded box."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from cryogan import fourier
from cryogan.data.padding import PaddedBox, PaddedStack
from cryogan.errors import InputError
from cryogan.io.mrc import write_map
from cryogan.objectives.assumptions import Assumptions, GivenAssumptions
from cryogan.objectives.likelihood.bands import harmonics_for, limited, mask_for
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.observations import observations_of
from cryogan.particles import ArrayStack, Particles
from cryogan.phantom import phantom_map
from cryogan.physics.ctf import ctf
from cryogan.physics.imaging import rescale_volume
from cryogan.physics.noise import colour, white
from cryogan.physics.projection import volume_spectrum
from cryogan.physics.rotations import random_rotations
from cryogan.simulation.microscope import random_ctf

BOX, PIXEL_A = 32, 5.0
CPU = torch.device("cpu")


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(2)


def excess(box: int, config: LikelihoodConfig, map_: Tensor, generator: torch.Generator) -> float:
    """Variance of Re⟨P, A⟩ where images are noise, over ⟨|P|², B⟩ which it should be."""
    count = 1000
    params = random_ctf(count, generator)
    images = fourier.crop_or_pad(white(count, BOX, generator), box)
    harmonics = harmonics_for(box, box // 2 - 1, config, CPU)
    seen = observations_of(images, ctf(params, box, PIXEL_A), torch.ones(box // 2 + 1), harmonics)
    spectrum = volume_spectrum(fourier.crop_or_pad(map_, box, 3), 2.0)
    plane = harmonics.slices(spectrum, random_rotations(count, generator))
    twice = torch.where(harmonics.order > 0, 2.0, 1.0)
    cross = (plane.conj() * seen.a).real.sum(1)
    expected = (plane.abs().square() * twice * seen.b[:, harmonics.ring - 1]).sum()
    return float(cross.square().sum() / expected)


def test_noise_near_the_edge_of_the_mask_has_its_proper_weight(generator: torch.Generator) -> None:
    """Of a smooth half shell inside the mask's edge: 2.0 in the particles' box, 0.9 measured."""
    config = LikelihoodConfig()
    distance = fourier.radius_grid(BOX, 3)
    x = torch.arange(BOX) - BOX // 2
    rim = (1.0 - fourier.soft_disc(BOX, 12.0, 3.0, 3)) * mask_for(BOX, PIXEL_A, config, CPU)
    rim = rim * x / distance.clamp_min(1.0)
    padded = PaddedBox.of(BOX, config.assumptions.reach)
    wide = config.padded(padded.share)
    assert excess(BOX, config, rim, generator) > 1.4
    assert excess(padded.width_px, wide, rim, generator) == pytest.approx(0.93, abs=0.1)


@pytest.mark.parametrize(
    ("box_size", "assumptions", "width_px"),
    [
        (64, Assumptions(), 72),
        (64, Assumptions(max_shift_percent=5.0), 76),  # the image ends at its box
        (64, Assumptions(mask_radius=0.75, mask_edge=0.1), 64),
        (33, Assumptions(mask_radius=0.6), 33),
    ],
)
def test_the_padded_box_follows_from_mask_and_shifts(
    box_size: int, assumptions: Assumptions, width_px: int
) -> None:
    assert PaddedBox.of(box_size, assumptions.reach).width_px == width_px


def test_settings_are_the_same_lengths_in_a_padded_box() -> None:
    config = LikelihoodConfig(assumptions=Assumptions(max_shift_percent=4.0))
    wide = config.padded(PaddedBox(64, 80, 1.0).share)
    assert wide.assumptions.max_shift_percent * 80 == pytest.approx(4.0 * 64)
    assert wide.initial_rings == (6, 16)
    found = fourier.crop_or_pad(mask_for(80, PIXEL_A, wide, CPU), 64, 3)
    torch.testing.assert_close(found, mask_for(64, PIXEL_A, config, CPU))
    assert harmonics_for(80, 20, wide, CPU).radius_px == pytest.approx(32.0, abs=3.0)


def test_a_mask_file_is_the_same_mask_in_a_padded_box(tmp_path: Path) -> None:
    mask = fourier.soft_disc(64, 20.0, 6.0, 3).roll((3, -2, 1), (0, 1, 2))
    write_map(tmp_path / "mask.mrc", mask, PIXEL_A)
    given = GivenAssumptions(mask_file=str(tmp_path / "mask.mrc"))
    assumptions, _ = given.resolve(64 * PIXEL_A)
    config = LikelihoodConfig(assumptions=assumptions)
    torch.testing.assert_close(mask_for(64, PIXEL_A, config, CPU), mask, atol=1e-3, rtol=0)
    wide = config.padded(64 / 80)
    found = mask_for(80, PIXEL_A, wide, CPU)
    wanted = fourier.crop_or_pad(mask, 80, 3)
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=0)
    assert wide.assumptions.molecule * 80 / 2 == pytest.approx(28.5, abs=1.5)  # 26 px, off centre


def test_images_are_padded_about_their_middle(generator: torch.Generator) -> None:
    images = torch.randn(3, 8, 8, generator=generator)
    stack = PaddedStack(ArrayStack(images), PaddedBox(8, 12, 2.0))
    assert (len(stack), stack.box_size) == (3, 12)
    found = stack.read(torch.tensor([2, 0]))
    assert torch.equal(found[:, 2:10, 2:10], images[[2, 0]])
    assert float(found.abs().sum()) == pytest.approx(float(images[[2, 0]].abs().sum()))


def test_images_are_windowed_to_the_reach_of_the_molecule(generator: torch.Generator) -> None:
    images = torch.randn(3, 20, 20, generator=generator)
    found = PaddedStack(ArrayStack(images), PaddedBox(20, 20, 0.6)).read(torch.tensor([1]))[0]
    radius = fourier.radius_grid(20)
    assert torch.equal(found[radius <= 6.0], images[1][radius <= 6.0])
    assert not found[radius >= 7.0].any()


def test_maps_are_padded_and_cropped_back() -> None:
    """Also on a coarser box; a map that vanishes near its edge loses nothing."""
    map_ = phantom_map(48, PIXEL_A)
    padded = PaddedBox(48, 54, 1.0)
    wide = padded.pad(map_[None])
    assert wide.shape == (1, 54, 54, 54)
    torch.testing.assert_close(padded.crop(wide)[0], map_)
    coarse = padded.pad(rescale_volume(map_, 32)[None, None])
    assert coarse.shape == (1, 1, 36, 36, 36)
    found = padded.crop(coarse)[0, 0]
    wanted = rescale_volume(map_, 32)
    assert float((found - wanted).norm() / wanted.norm()) < 0.01
    assert PaddedBox(48, 48, 0.8).pad(map_) is map_


@pytest.mark.parametrize("framed", [False, True])
def test_spectra_in_a_padded_box(framed: bool, generator: torch.Generator) -> None:
    """Signal has its share of pixels, noise stays; rows outside the window do not matter."""
    count, width_px = 400, 40
    noise_power = 0.5 + torch.arange(BOX // 2 + 1) / BOX
    images = colour(white(count, BOX, generator), noise_power)
    blob = 20.0 * torch.exp(-fourier.radius_grid(BOX).square() / 8.0)
    params = random_ctf(count, generator)
    transfer = ctf(params, BOX, PIXEL_A)
    images = images + fourier.irfft(fourier.rfft(blob) * transfer, BOX)
    if framed:
        images[:, :2] *= 10.0
    padded = PaddedBox(BOX, width_px, 0.8)
    half = HalfSet.of(Particles(ArrayStack(images), params, PIXEL_A), None, padded)
    assert half.particles.box_size == width_px
    gain = half.measurement.gain
    wanted = gain * fourier.rfft(fourier.crop_or_pad(blob, width_px)).abs() / width_px
    amplitude = fourier.shell_mean(wanted.square(), width_px)
    torch.testing.assert_close(
        half.measurement.spectra.signal[1:6], amplitude[1:6], rtol=0.25, atol=0.0
    )
    wanted = gain**2 * (0.5 + torch.arange(width_px // 2 + 1) / width_px)
    torch.testing.assert_close(half.noise(width_px)[6:17], wanted[6:17], rtol=0.12, atol=0.0)


def test_poses_are_searched_no_finer_than_the_resolution_asked_for() -> None:
    config = LikelihoodConfig(pose_resolution_A=30.0)
    assert limited(22, 354.0, config) == 11
    assert limited(8, 354.0, config) == 8
    assert limited(8, 120.0, config) == 5
    assert limited(22, 354.0, LikelihoodConfig()) == 22
    with pytest.raises(InputError, match="pose_resolution_A is -1"):
        LikelihoodConfig(pose_resolution_A=-1.0)
