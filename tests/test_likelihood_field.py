"""The field that rings need: what noise along the rim counts, and ways in and out of it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.likelihood.config import AscentConfig, limited, mask_for, polar_for
from cryogan.likelihood.expectation import observe
from cryogan.likelihood.field import Field, FieldStack
from cryogan.likelihood.half_set import HalfSet
from cryogan.models.volume import rescale_volume
from cryogan.particles import ArrayStack, Particles
from cryogan.phantom import phantom_map
from cryogan.physics.ctf import ctf
from cryogan.physics.noise import colour, white
from cryogan.physics.projection import volume_spectrum
from cryogan.physics.rotations import random_rotations
from cryogan.simulation.microscope import random_ctf

BOX, PIXEL_A = 32, 5.0
CPU = torch.device("cpu")


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(2)


def excess(box: int, config: AscentConfig, map_: Tensor, generator: torch.Generator) -> float:
    """Variance of Re⟨P, A⟩ where images are noise, over ⟨|P|², B⟩ which it should be."""
    count = 1000
    params = random_ctf(count, generator)
    images = fourier.crop_or_pad(white(count, BOX, generator), box)
    polar = polar_for(box, box // 2 - 1, config, CPU)
    seen = observe(images, ctf(params, box, PIXEL_A), torch.ones(box // 2 + 1), polar)
    spectrum = volume_spectrum(fourier.crop_or_pad(map_, box, 3), 2.0)
    plane = polar.slices(spectrum, random_rotations(count, generator))
    twice = torch.where(polar.order > 0, 2.0, 1.0)
    cross = (plane.conj() * seen.a).real.sum(1)
    expected = (plane.abs().square() * twice * seen.b[:, polar.ring - 1]).sum()
    return float(cross.square().sum() / expected)


def test_noise_along_the_rim_counts_as_much_as_elsewhere(generator: torch.Generator) -> None:
    """Of a smooth half shell inside the mask's edge: 2.0 in the particles' box, 0.9 measured."""
    config = AscentConfig()
    distance = fourier.radius_grid(BOX, 3)
    x = torch.arange(BOX) - BOX // 2
    rim = (1.0 - fourier.soft_disc(BOX, 12.0, 3.0, 3)) * mask_for(BOX, config, CPU)
    rim = rim * x / distance.clamp_min(1.0)
    field = Field.of(BOX, config)
    wide = field.settings(config)
    assert excess(BOX, config, rim, generator) > 1.4
    assert excess(field.width_px, wide, rim, generator) == pytest.approx(0.93, abs=0.1)


def test_fields_are_as_wide_as_molecules_and_shifts_ask() -> None:
    for box_size, change, wanted in (
        (64, {}, 72),
        (64, {"shift_percent": 5.0}, 76),  # the image ends at its box
        (64, {"mask_radius": 0.75, "mask_edge": 0.1}, 64),
        (33, {"mask_radius": 0.6}, 33),
    ):
        assert Field.of(box_size, replace(AscentConfig(), **change)).width_px == wanted


def test_settings_mean_the_same_in_a_field(generator: torch.Generator) -> None:
    config = AscentConfig(shift_percent=4.0)
    wide = Field(64, 80, 1.0).settings(config)
    assert wide.shift_percent * 80 == pytest.approx(4.0 * 64)
    assert wide.climb_rings == (6, 16)
    found = fourier.crop_or_pad(mask_for(80, wide, CPU), 64, 3)
    torch.testing.assert_close(found, mask_for(64, config, CPU))
    assert polar_for(80, 20, wide, CPU).radius_px == pytest.approx(32.0, abs=3.0)


def test_images_stand_in_the_middle(generator: torch.Generator) -> None:
    images = torch.randn(3, 8, 8, generator=generator)
    stack = FieldStack(ArrayStack(images), Field(8, 12, 2.0))
    assert (len(stack), stack.box_size) == (3, 12)
    found = stack.read(torch.tensor([2, 0]))
    assert torch.equal(found[:, 2:10, 2:10], images[[2, 0]])
    assert float(found.abs().sum()) == pytest.approx(float(images[[2, 0]].abs().sum()))


def test_images_are_seen_where_there_may_be_molecule(generator: torch.Generator) -> None:
    images = torch.randn(3, 20, 20, generator=generator)
    found = FieldStack(ArrayStack(images), Field(20, 20, 0.6)).read(torch.tensor([1]))[0]
    radius = fourier.radius_grid(20)
    assert torch.equal(found[radius <= 6.0], images[1][radius <= 6.0])
    assert not found[radius >= 7.0].any()


def test_maps_come_back_from_a_field() -> None:
    """Also on a coarser box; a map that vanishes at the rim loses nothing."""
    map_ = phantom_map(48, PIXEL_A)
    field = Field(48, 54, 1.0)
    wide = field.enter(map_[None])
    assert wide.shape == (1, 54, 54, 54)
    torch.testing.assert_close(field.leave(wide)[0], map_)
    coarse = field.enter(rescale_volume(map_, 32)[None, None])
    assert coarse.shape == (1, 1, 36, 36, 36)
    found = field.leave(coarse)[0, 0]
    wanted = rescale_volume(map_, 32)
    assert float((found - wanted).norm() / wanted.norm()) < 0.01
    assert Field(48, 48, 0.8).enter(map_) is map_


@pytest.mark.parametrize("framed", [False, True])
def test_spectra_follow_into_a_field(framed: bool, generator: torch.Generator) -> None:
    """Signal has its share of pixels, noise stays; edges that are not seen do not matter."""
    count, width_px = 400, 40
    noise_power = 0.5 + torch.arange(BOX // 2 + 1) / BOX
    images = colour(white(count, BOX, generator), noise_power)
    blob = 20.0 * torch.exp(-fourier.radius_grid(BOX).square() / 8.0)
    params = random_ctf(count, generator)
    transfer = ctf(params, BOX, PIXEL_A)
    images = images + fourier.irfft(fourier.rfft(blob) * transfer, BOX)
    if framed:
        images[:, :2] *= 10.0
    field = Field(BOX, width_px, 0.8)
    half = HalfSet.of(Particles(ArrayStack(images), params, PIXEL_A), None, field)
    assert half.particles.box_size == width_px
    gain = half.measurement.gain
    wanted = gain * fourier.rfft(fourier.crop_or_pad(blob, width_px)).abs() / width_px
    amplitude = fourier.shell_mean(wanted.square(), width_px)
    torch.testing.assert_close(
        half.measurement.spectra.signal[1:6], amplitude[1:6], rtol=0.25, atol=0.0
    )
    wanted = gain**2 * (0.5 + torch.arange(width_px // 2 + 1) / width_px)
    torch.testing.assert_close(half.noise(width_px)[6:17], wanted[6:17], rtol=0.12, atol=0.0)


def test_poses_are_judged_by_no_more_than_is_asked_for() -> None:
    config = AscentConfig(limit_A=30.0)
    assert limited(22, 354.0, config) == 11
    assert limited(8, 354.0, config) == 8
    assert limited(8, 120.0, config) == 5
    assert limited(22, 354.0, AscentConfig()) == 22
    with pytest.raises(InputError, match="limit_A is -1"):
        AscentConfig(limit_A=-1.0)
