"""Images that have no part in a map tell how far it is right, whatever both half-maps share."""

import pytest
import torch
from torch import Tensor

from cryogan import fourier
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.base import Maps
from cryogan.objectives.likelihood.held_out_band import best_band, with_power
from cryogan.particles import Particles
from cryogan.phantom import phantom_map
from cryogan.physics.imaging import rescale_volume
from cryogan.run.held_out_resolution import held_out_resolution_A
from simulated_sets import centred_particles

BOX, PIXEL_A, COUNT, RIGHT = 24, 8.0, 240, 6
WIDTH_A = BOX * PIXEL_A


@pytest.fixture(scope="module")
def half_sets() -> tuple[Particles, Particles]:
    generator = torch.Generator().manual_seed(4)
    truth = phantom_map(BOX, PIXEL_A)
    particles = centred_particles(truth, PIXEL_A, 2 * COUNT, 0.0, generator).particles
    return particles.subset(torch.arange(COUNT)), particles.subset(torch.arange(COUNT, 2 * COUNT))


def maps_with(correlation: float, shared: bool, box_size: int = BOX) -> Maps:
    """Half-maps that are right in RIGHT shells, and have this FSC with the truth beyond.

    Their errors beyond are the same, or independent. Boxes may be smaller than the particles'.
    """
    generator = torch.Generator().manual_seed(5)
    truth = phantom_map(BOX, PIXEL_A)
    spectrum = fourier.rfft(truth, 3)
    power = fourier.shell_mean(spectrum.abs().square(), BOX, 3)
    right = fourier.shell_index(BOX, 3) <= RIGHT
    halves = []
    for _ in range(2):
        generator = generator.manual_seed(5) if shared else generator
        # an error is as compact as the molecule, so that the mask leaves it
        noise = torch.randn(truth.shape, generator=generator) * (truth.abs() > 0.02 * truth.max())
        error = fourier.rfft(with_power(noise, power), 3)
        wrong = correlation * spectrum + (1.0 - correlation**2) ** 0.5 * error
        halves.append(fourier.irfft(torch.where(right, spectrum, wrong), BOX, 3))
    fsc = fourier.shell_mean(
        (fourier.rfft(halves[0], 3) * fourier.rfft(halves[1], 3).conj()).real, BOX, 3
    ) / power.clamp_min(1e-30)
    halves = [rescale_volume(half_map, box_size) for half_map in halves]
    average, fsc = 0.5 * (halves[0] + halves[1]), fsc[: box_size // 2 + 1]
    mask = torch.ones_like(average)
    return Maps(*halves, average, mask, fsc, fsc, WIDTH_A / box_size)


def shells_supported(maps: Maps, half_sets: tuple[Particles, Particles]) -> float:
    found_A = held_out_resolution_A(
        maps,
        half_sets,
        Assumptions(max_shift_percent=0.0),
        noise=None,
        splits=(),
        views=(),
        seed=0,
        device=torch.device("cpu"),
    )
    return WIDTH_A / found_A


@pytest.mark.parametrize("box_size", [BOX, 18])
def test_errors_that_half_maps_share_are_not_supported(
    box_size: int,
    half_sets: tuple[Particles, Particles],
) -> None:
    """The half-maps agree everywhere (FSC 1), and are wrong beyond the sixth shell."""
    maps = maps_with(0.0, True, box_size)
    assert float(maps.fsc[1:].min()) > 0.9
    assert shells_supported(maps, half_sets) == pytest.approx(RIGHT, abs=1.0)


def test_right_maps_are_supported_as_far_as_half_maps_agree(
    half_sets: tuple[Particles, Particles],
) -> None:
    assert shells_supported(maps_with(1.0, shared=True), half_sets) > BOX / 2 - 1.5


def test_shells_count_whose_mean_has_half_a_correlation_with_the_truth(
    half_sets: tuple[Particles, Particles],
) -> None:
    """Half-maps of independent errors, each with an FSC of 0.55 or 0.2 with the truth.

    Their mean has 0.68, or 0.28.
    """
    assert shells_supported(maps_with(0.55, shared=False), half_sets) > RIGHT + 2
    assert shells_supported(maps_with(0.2, shared=False), half_sets) < RIGHT + 1.5


@pytest.mark.parametrize("peak", [3, 4, 11, 26, 39, 40])
def test_the_best_band_is_found_among_few(peak: int) -> None:
    asked: list[int] = []

    def parabola(rings: int) -> float:
        asked.append(rings)
        return -float((rings - peak) ** 2)

    assert best_band(parabola, 3, 40) == peak
    assert len(asked) == len(set(asked)) <= 16


def test_the_narrowest_of_equal_bands_is_taken() -> None:
    assert best_band(lambda rings: 1.0, 3, 9) == 3


def test_shells_get_the_power_that_is_given(generator: torch.Generator) -> None:
    volume = torch.randn(12, 12, 12, generator=generator)
    wanted = torch.rand(7, generator=generator) + 0.1
    spectrum: Tensor = fourier.rfft(with_power(volume, wanted), 3)
    found = fourier.shell_mean(spectrum.abs().square(), 12, 3)
    torch.testing.assert_close(found[:7], wanted, rtol=1e-4, atol=1e-6)
