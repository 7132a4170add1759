"""Goodness of fit: p-values are uniform if the model is right; misfits are found and named."""

import math
from dataclasses import replace

import pytest
import torch

from cryogan import fourier
from cryogan.evaluation.statistics import kolmogorov_smirnov
from cryogan.objectives.likelihood.assignment import levels_of_assignment
from cryogan.objectives.likelihood.bands import harmonics_for
from cryogan.objectives.likelihood.expected_residuals import Expectation, residuals_of_groups
from cryogan.objectives.likelihood.goodness_of_fit import (
    GoodnessOfFit,
    error_of_maps,
    goodness_of_fit,
)
from cryogan.objectives.likelihood.image_model import ALIKE, ImageModel
from cryogan.objectives.likelihood.latent_grid import SINGLE_STRUCTURE
from cryogan.objectives.likelihood.posterior import references_of
from cryogan.objectives.likelihood.residuals import Residuals
from cryogan.objectives.likelihood.resolved_posteriors import resolved_posteriors
from cryogan.particles import ArrayStack
from cryogan.phantom import phantom_map
from cryogan.physics.imaging import rescale_volume
from simulated_sets import centred_particles, known_half_set

BOX, PIXEL_A, RINGS = 24, 8.0, 10
WIDTH_A = BOX * PIXEL_A
CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("one_thread")


def fitted(
    seed: int,
    snr_dB: float = 0.0,
    n: int = 200,
    *,
    noise: float = 1.0,
    scale: float = 1.0,
    junk: float = 0.0,
    defocus_A: float = 0.0,
    spread: float = 0.0,
    b_factor_A2: float = 0.0,
    image_model: ImageModel = ALIKE,
) -> tuple[Residuals, Expectation]:
    """Residuals of the phantom's images, given its map and their noise, but for what is changed.

    Args:
        seed: of the images.
        snr_dB: amplitude ratio.
        n: number of images.
        noise: supposed power of the noise, in units of the true one.
        scale: of the map supposed.
        junk: fraction of the images that show noise alone.
        defocus_A: error of the defocus of a tenth of the images.
        spread: standard deviation of the images' contrast.
        b_factor_A2: of the images' envelope, which is not supposed.
        image_model: supposed.
    """
    generator = torch.Generator().manual_seed(seed)
    volume = phantom_map(BOX, PIXEL_A)
    simulated = centred_particles(volume, PIXEL_A, n, snr_dB, generator)
    particles, sigma = simulated.particles, simulated.noise_sigma
    images = particles.stack.read(torch.arange(n)).clone()
    empty = sigma * torch.randn(images.shape, generator=generator)
    images[: int(junk * n)] = empty[: int(junk * n)]
    if spread > 0.0:
        clean = centred_particles(volume, PIXEL_A, n, math.inf, torch.Generator().manual_seed(seed))
        of_image = spread * torch.randn(n, 1, 1, generator=generator)
        images += of_image * clean.particles.stack.read(torch.arange(n))
    off = torch.where(torch.arange(n) < n // 10, defocus_A, 0.0)
    moved = replace(
        particles.ctf,
        defocus_u_A=particles.ctf.defocus_u_A + off,
        defocus_v_A=particles.ctf.defocus_v_A + off,
        b_factor_A2=particles.ctf.b_factor_A2 - b_factor_A2,
    )
    particles = replace(particles, stack=ArrayStack(images), ctf=moved)
    half, maps, config = known_half_set(particles, sigma * noise**0.5, volume * scale)
    size, levels = levels_of_assignment(RINGS, config, half.particles.box_size)
    harmonics = harmonics_for(size, levels[-1].rings, config, CPU)
    maps = rescale_volume(maps, size)
    references = references_of(maps, SINGLE_STRUCTURE, harmonics, levels)
    index = torch.arange(n)
    groups = list(
        resolved_posteriors(half.observed(index, harmonics, CPU), references, image_model)
    )
    expected = Expectation.of_levels(half, maps, levels, generator, image_model)
    return residuals_of_groups(half, index, groups, maps, expected, generator, image_model)


def fit(seed: int, snr_dB: float = 0.0, **changes) -> GoodnessOfFit:
    return goodness_of_fit(*fitted(seed, snr_dB, **changes))


@pytest.mark.parametrize("snr_dB", [-12.0, -6.0, 0.0, 6.0])
def test_p_values_are_uniform_if_the_model_is_right(snr_dB: float) -> None:
    found = [fit(seed, snr_dB) for seed in range(4 if snr_dB > -10.0 else 2)]
    for each in found:
        assert each.misfits(WIDTH_A) == []
        assert kolmogorov_smirnov(each.p_value)[1] > 1e-3
        assert ((each.variance - each.expected).abs() < 4.5 * each.error).all()
    together = torch.cat([each.p_value for each in found])
    assert kolmogorov_smirnov(together)[1] > 0.01


def test_contrast_that_the_model_knows_fits() -> None:
    known = fit(1, -3.0, spread=0.2, image_model=ImageModel(contrast_sd=0.2))
    assert known.misfits(WIDTH_A) == []
    assert kolmogorov_smirnov(known.p_value)[1] > 1e-3
    assert "varies more" in " ".join(fit(1, -3.0, spread=0.2).misfits(WIDTH_A))


def test_the_variance_of_noise_is_that_of_windowed_images() -> None:
    found, expectation = fitted(0, -3.0, n=600)
    variance = float(found.residual.sum(1).var())
    assert variance == pytest.approx(expectation.noise_variance, rel=4.0 * (2.0 / 600) ** 0.5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"noise": 1.0 / 1.1}, "above the noise"),
        ({"noise": 1.1}, "below the noise"),
        ({"junk": 0.2}, "of the images show less of the map"),
        ({"defocus_A": 1e4}, "of the images show less of the map"),
        ({"b_factor_A2": 600.0}, " 24.0 "),
        ({"scale": 1.0 / 1.2}, "times its contrast"),
        ({"scale": 1.2}, "times its contrast"),
    ],
)
def test_misfits_are_found_and_named(changes: dict[str, float], words: str) -> None:
    found = fit(3, **changes)
    phrases = found.misfits(WIDTH_A)
    assert phrases
    assert all(words in phrase for phrase in phrases), phrases
    assert kolmogorov_smirnov(found.p_value)[1] < 0.02
    wrong = changes.get("junk", 0.1 if "defocus_A" in changes else 0.0)  # fraction of the images
    assert wrong - 0.02 <= 1.0 - float(found.shows.double().mean()) <= wrong + 0.005


def test_an_envelope_is_named_with_its_shells() -> None:
    found = fit(3)
    of_rings = found.ring_contrast.clone()
    assert float((of_rings[2:] - 1.0).abs().max()) < 0.1
    of_rings[7:] = 0.7
    error = found.ring_contrast_error.clone()
    assert replace(found, ring_contrast=of_rings).misfits(WIDTH_A) == [
        f"the images show the map at 0.70 times its contrast from {WIDTH_A / 8:.1f} to "
        f"{WIDTH_A / 10:.1f} Å"
    ]
    error[7:] = 0.1  # three standard errors
    assert replace(found, ring_contrast=of_rings, ring_contrast_error=error).misfits(WIDTH_A) == []


def test_noise_is_named_with_its_shells() -> None:
    found = fit(3)
    variance = found.variance.clone()
    variance[4:7] += 0.2  # shells 5 to 7
    assert replace(found, variance=variance).misfits(WIDTH_A) == [
        f"residuals are {100 * float((variance / found.expected - 1)[4:7].mean()):.0f} % above the "
        f"noise from {WIDTH_A / 5:.1f} to {WIDTH_A / 7:.1f} Å"
    ]


def test_residuals_between_noise_and_the_largest_error_fit() -> None:
    """How much an error of the map adds is known as an upper bound."""
    found = fit(3)
    assert found.is_calibrated
    bound = replace(found, expected=found.expected + 1.0)
    assert bound.misfits(WIDTH_A) == []
    assert not bound.is_calibrated
    more = replace(bound, variance=bound.variance + 1.5)
    assert "above the noise" in " ".join(more.misfits(WIDTH_A))
    less = replace(bound, variance=0.8 * bound.variance)
    assert "below the noise" in " ".join(less.misfits(WIDTH_A))


def test_an_error_of_the_map_is_expected() -> None:
    """As much where images had no part in the map, and as much less where it was made from them."""
    found, expectation = fitted(5)
    error = torch.full((RINGS,), 0.3 / float((found.response / found.noise).mean()))
    without, held_out = (goodness_of_fit(found, expectation, *each) for each in ((), (error,)))
    own = goodness_of_fit(found, expectation, error, held_out=False)
    more, less = held_out.expected - without.expected, without.expected - own.expected
    assert float(more.mean()) == pytest.approx(0.3, rel=0.1)
    torch.testing.assert_close(more, less)
    assert (held_out.p_value > without.p_value).all()
    assert (own.p_value < without.p_value).all()
    assert own.contrast < without.contrast  # the map follows the images' noise


def test_the_error_of_filtered_half_maps(generator: torch.Generator) -> None:
    size = 32
    signal, *noise = torch.randn(3, size, size, size, generator=generator)
    weight = 1.0 / (1.0 + 0.5)  # FSC at a noise of half the signal's power
    first, second = (weight * (signal + 0.5**0.5 * each) for each in noise)
    found = fourier.rfft(error_of_maps(first, second), 3).abs().square()
    wanted = fourier.rfft(first - signal, 3).abs().square()  # what is left after the filter
    shells = slice(4, size // 2)
    ratio = fourier.shell_mean(found, size, 3)[shells] / fourier.shell_mean(wanted, size, 3)[shells]
    assert ratio.log().abs().max() < 0.25
    assert float(ratio.log().mean()) == pytest.approx(0.0, abs=0.05)
    assert float(error_of_maps(signal, signal).abs().max()) == 0.0
