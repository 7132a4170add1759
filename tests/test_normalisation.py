"""Normalised images: what an image model does not explain goes, and nothing else."""

from dataclasses import replace

import pytest
import torch

from cryogan import fourier
from cryogan.background import background_mask, fit_plane, level, plane_basis
from cryogan.data.normalisation import DividedStack, normalised
from cryogan.errors import InputError
from cryogan.particles import FLIPPED, MULTIPLIED, ArrayStack, CTFParams, Particles, ParticleSource
from cryogan.phantom import phantom_map
from cryogan.physics.ctf import ctf
from simulated_sets import centred_particles

BOX, COUNT = 32, 200
SPRINKLED = (torch.arange(BOX**2) % 85 == 3).view(BOX, BOX)  # 1.3 % of the pixels
GROWING = torch.logspace(2, 9, BOX**2).view(BOX, BOX)


@pytest.fixture
def particles(generator) -> Particles:
    volume = phantom_map(BOX, 6.0)[None]
    return centred_particles(volume, 6.0, COUNT, -5.0, generator).particles


def images_of(particles: Particles) -> torch.Tensor:
    return particles.stack.read(torch.arange(len(particles)))


def with_images(particles: Particles, images: torch.Tensor) -> Particles:
    return replace(particles, stack=ArrayStack(images))


def test_a_plane_is_fitted_exactly_whatever_is_in_the_middle(generator):
    plane = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    images = torch.einsum("na,ayx->nyx", plane, plane_basis(BOX))
    images[:, ~background_mask(BOX)] += 100.0
    torch.testing.assert_close(fit_plane(images), plane)
    middle = level(images)[:, ~background_mask(BOX)]
    torch.testing.assert_close(middle, torch.full_like(middle, 100.0))


def test_offset_and_ramp_change_nothing(particles, generator):
    images = images_of(particles)
    plane = torch.randn(COUNT, 3, generator=generator) * torch.tensor([300.0, 20.0, 20.0])
    nuisance = torch.einsum("na,ayx->nyx", plane, plane_basis(BOX).float()) * images.std()
    plain, kept = normalised(particles)
    other, _ = normalised(with_images(particles, images + nuisance))
    assert kept.tolist() == list(range(COUNT))
    torch.testing.assert_close(images_of(other), images_of(plain), atol=2e-3, rtol=0.0)


def test_images_of_one_scale_keep_it_and_others_are_brought_to_it(particles, generator):
    """Chance makes backgrounds of 570 pixels differ by 3 %; a tenth to ten is no chance."""
    images = images_of(particles)
    plain = images_of(normalised(particles)[0])
    torch.testing.assert_close(plain, level(images), rtol=0.03, atol=1e-4)
    factor = 10.0 ** (2.0 * torch.rand(COUNT, generator=generator) - 1.0)
    scaled = images_of(normalised(with_images(particles, images * factor[:, None, None]))[0])
    gain = (scaled * plain).sum((1, 2)) / plain.square().sum((1, 2))
    assert float(gain.log().std()) < 0.06
    assert float(gain.log().mean()) == pytest.approx(float(factor.log().mean()), abs=0.02)


def test_what_chance_leaves_of_scales_is_known(generator):
    """Images of one scale keep it: nothing is left. Others differ by the error of their scale."""
    volume = phantom_map(BOX, 6.0)[None]
    particles = centred_particles(volume, 6.0, 1000, -5.0, generator).particles
    images = images_of(particles)
    assert normalised(particles)[0].scale_sd < 0.005
    factor = 10.0 ** (2.0 * torch.rand(1000, 1, 1, generator=generator) - 1.0)
    found, _ = normalised(with_images(particles, images * factor))
    gain = images_of(found).square().mean((1, 2)) / level(images).square().mean((1, 2))
    assert found.scale_sd == pytest.approx(0.5 * float(gain.log().std()), rel=0.15)
    assert found.subset(torch.arange(10)).scale_sd == found.scale_sd


def test_hot_pixels_are_set_to_zero_and_only_they(particles):
    images = images_of(particles)
    plain = images_of(normalised(particles)[0])
    hot = images.clone()
    hot[7, 3, 3] += 3600.0 * images.std()
    hot[7, 20, 16] -= 50.0 * images.std()
    hot[90, 16, 16] += 1e30
    found = images_of(normalised(with_images(particles, hot))[0])
    same = torch.ones_like(images, dtype=torch.bool)
    for at in ((7, 3, 3), (7, 20, 16), (90, 16, 16)):
        assert found[at] == 0.0
        same[at] = False
    torch.testing.assert_close(found[same], plain[same], rtol=0.02, atol=0.02 * float(plain.std()))


def test_strong_clean_images_have_no_hot_pixels(generator):
    """Of a molecule without noise, whose peaks are far above the mean."""
    volume = phantom_map(BOX, 6.0)[None]
    clean = centred_particles(volume, 6.0, 50, 60.0, generator).particles
    found = images_of(normalised(clean)[0])
    assert bool(((found == 0) == (level(images_of(clean)) == 0)).all())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda image: torch.full_like(image, 3.0), "constant"),
        (lambda image: torch.zeros_like(image), "constant"),
        (lambda image: image * 1e20, "of extreme scale"),
        (lambda image: image / 1e2, "of extreme scale"),
        (lambda image: torch.where(SPRINKLED, GROWING, image), "hot pixels"),
    ],
)
def test_images_that_cannot_be_used_are_left_out_and_named(particles, change, reason, tmp_path):
    images = images_of(particles)
    damaged = images.clone()
    for row in (3, 50):
        damaged[row] = change(images[row])
    source = ParticleSource(tmp_path / "p.star", None, None, None, None, False, "200 particles")
    found, kept = normalised(replace(with_images(particles, damaged), source=source))
    good = torch.tensor([row for row in range(COUNT) if row not in (3, 50)])
    assert kept.tolist() == good.tolist()
    assert found.source is not None
    assert found.source.rows is not None
    assert found.source.rows.tolist() == good.tolist()
    assert "left out: 2 images (rows 3, 50 from 0) " in found.source.summary
    assert reason in found.source.summary
    torch.testing.assert_close(found.ctf.defocus_u_A, particles.ctf.defocus_u_A[good])
    alone, _ = normalised(particles.subset(good))
    torch.testing.assert_close(images_of(found), images_of(alone), rtol=1e-3, atol=1e-3)


def test_copies_in_other_stacks_are_said(tmp_path, generator):
    """Files tell only that they are other files; so many images are looked at in several chunks."""
    images = torch.randn(4100, BOX, BOX, generator=generator)
    source = ParticleSource(tmp_path / "p.star", None, None, None, None, False, "particles")
    for copied, said in ((torch.arange(0), False), (torch.arange(15, 70), True)):
        stack = ArrayStack(torch.cat((images, images[copied])))
        ctf_of_them = CTFParams.constant(len(stack), defocus_u_A=10000.0)
        found, kept = normalised(Particles(stack, ctf_of_them, 6.0, source=source))
        assert len(kept) == len(stack)
        assert found.source is not None
        words = "warning: 55 images are the same as another, pixel by pixel"
        assert (words in found.source.summary) == said


def test_a_set_of_constant_images_is_refused(particles):
    with pytest.raises(InputError, match="200 of the 200 images of the set are constant"):
        normalised(with_images(particles, torch.ones(COUNT, BOX, BOX)))


def test_premultiplied_images_become_images_of_their_transfer_function(generator):
    """C² s + C n is to become T s + noise, T being what `ctf` gives, the noise no stronger."""
    n = 300
    params = CTFParams.constant(n, defocus_u_A=8e3 + 2e4 * torch.rand(n, generator=generator))
    transfer = ctf(params, BOX, 6.0)
    signal = fourier.rfft(torch.randn(n, BOX, BOX, generator=generator))
    noise = fourier.rfft(torch.randn(n, BOX, BOX, generator=generator))

    def stored(plane: torch.Tensor) -> Particles:
        images = fourier.irfft(transfer * plane, BOX)
        corrected = replace(params, correction=torch.full((n,), MULTIPLIED))
        return Particles(ArrayStack(images), corrected, 6.0)

    of_signal, of_noise = (stored(plane) for plane in (transfer * signal, noise))

    def divided(particles: Particles) -> torch.Tensor:
        stack = DividedStack(particles.stack, particles.ctf, 6.0)
        return fourier.rfft(stack.read(torch.arange(n)))

    expected = ctf(of_signal.ctf, BOX, 6.0) * signal
    band = fourier.band_mask(BOX, BOX / 2) > 0
    torch.testing.assert_close(divided(of_signal)[:, band], expected[:, band], atol=2e-2, rtol=1e-3)
    power = divided(of_noise).abs().square().mean(0)[band] / BOX**2
    assert float(power.max()) < 1.35
    assert float(power.mean()) == pytest.approx(1.0, abs=0.1)


def test_the_transfer_function_of_flipped_images_is_the_modulus():
    params = CTFParams.constant(4, defocus_u_A=15_000.0)
    flipped = replace(params, correction=torch.full((4,), FLIPPED))
    assert torch.equal(ctf(flipped, BOX, 3.0), ctf(params, BOX, 3.0).abs())
