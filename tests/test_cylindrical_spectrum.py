"""Spectra in cylindrical coordinates: slices of Gaussians, adjoints, and whole levels."""

import math

import pytest
import torch
from torch import Tensor

from cryogan.objectives.likelihood.central_slices import MapSpectrum, reference, slices_of_level
from cryogan.objectives.likelihood.orientation_grid import orientation_grid
from cryogan.objectives.likelihood.parallels import is_southern, northern_parallels
from cryogan.objectives.likelihood.search_levels import Level
from cryogan.physics.circular_harmonics import CircularHarmonics
from cryogan.physics.cylindrical_spectrum import CylindricalGrid, Parallel
from cryogan.physics.nonuniform import SpectrumSampler
from cryogan.physics.rotations import euler_to_matrix

CPU = torch.device("cpu")
BOX, RINGS, RADIUS_PX, SIGMA_PX = 32, 12, 12.0, 1.5
HARMONICS = CircularHarmonics(BOX, RINGS, RADIUS_PX, CPU)
CENTRE_PX = torch.tensor(
    [[5.0, 1.0, -4.0], [-7.5, 2.0, 1.0], [0.5, -6.5, 6.0], [1.0, 0.5, 9.5], [8.0, -4.0, 0.2]]
).double()
WEIGHT = torch.tensor([1.0, 0.7, -0.9, 0.4, 0.8]).double()
PARALLELS = [
    Parallel(0.0, 0.2, 4),
    Parallel(0.4, -1.0, 9),
    Parallel(1.1, 2.0, 32),
    Parallel(math.pi / 2, 0.3, 500),
    Parallel(2.4, 0.3, 6),
]


def molecule() -> Tensor:
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    voxel = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")[::-1], -1)
    apart = (voxel[..., None, :] - CENTRE_PX).square().sum(-1)
    return (torch.exp(-0.5 * apart / SIGMA_PX**2) @ WEIGHT).float()


def frames(parallel: Parallel) -> Tensor:
    step = 2.0 * math.pi / parallel.count
    azimuth = parallel.azimuth + step * torch.arange(parallel.count, dtype=torch.float64)
    zero = torch.zeros_like(azimuth)
    return euler_to_matrix(torch.stack((azimuth, zero + parallel.tilt, zero), -1).rad2deg())


def exact(frame: Tensor) -> Tensor:
    """(n, N) spectrum of the Gaussians on slices."""
    k = torch.nn.functional.pad(HARMONICS.frequency.double(), (0, 1))
    point = torch.einsum("nij,mj->nmi", frame.double(), k)
    phase = -2.0 * math.pi * point @ CENTRE_PX.T
    decay = torch.exp(-2.0 * (math.pi * SIGMA_PX) ** 2 * point.square().sum(-1))
    waves = torch.complex(phase.cos(), phase.sin()) @ WEIGHT.to(torch.complex128)
    return (2.0 * math.pi * SIGMA_PX**2) ** 1.5 * decay * waves


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize(("padding", "most"), [(2.0, 0.02), (4.0, 0.004)])
@pytest.mark.parametrize("parallel", PARALLELS)
def test_slices_of_a_parallel(parallel: Parallel, padding: float, most: float) -> None:
    """Those of Gaussians, most of them far out, are known."""
    grid = CylindricalGrid(BOX, RINGS, padding, CPU)
    found = grid.slices(grid.of_volume(molecule()), HARMONICS.frequency, parallel).T
    assert relative(found, exact(frames(parallel))) < most


def test_no_ring_is_weaker() -> None:
    """What linear interpolation takes away is divided out: over a level, no ring loses anything."""
    frame = orientation_grid(4, CPU).frame
    found = slices_of_level(MapSpectrum(molecule(), HARMONICS), HARMONICS, 4)
    wanted = HARMONICS.to_orders(exact(frame).to(torch.complex64))
    for ring in range(1, RINGS + 1):
        mine = HARMONICS.ring == ring
        gain = (found[:, mine] * wanted[:, mine].conj()).real.sum()
        assert float(gain / wanted[:, mine].abs().square().sum()) == pytest.approx(1.0, abs=3e-3)


@pytest.mark.parametrize("parallel", PARALLELS)
def test_adjoints(parallel: Parallel, generator: torch.Generator) -> None:
    """`Re ⟨slices(V), y⟩ = ⟨V, adjoint(y)⟩`, of each step and of both."""
    grid = CylindricalGrid(BOX, RINGS, 2.0, CPU)
    volume = torch.randn(BOX, BOX, BOX, generator=generator)
    values = grid.of_volume(volume)
    slices = grid.slices(values, HARMONICS.frequency, parallel)
    samples = torch.randn(slices.shape, generator=generator, dtype=torch.complex64)
    total = torch.zeros_like(values)
    grid.add_slices_adjoint(total, samples, HARMONICS.frequency, parallel)
    grid.add_slices_adjoint(total, samples, HARMONICS.frequency, parallel)
    scale = float(slices.norm() * samples.norm())
    wanted = 2.0 * float((slices.conj() * samples).real.double().sum())
    assert float((values.conj() * total).real.double().sum()) == pytest.approx(
        wanted, abs=1e-5 * scale
    )
    back = grid.of_volume_adjoint(total)
    assert float((volume * back).double().sum()) == pytest.approx(wanted, abs=1e-5 * scale)


def test_adjoint_of_the_sampler(generator: torch.Generator) -> None:
    frequency = torch.rand(50, 2, generator=generator) - 0.5
    sampler = SpectrumSampler.of(torch.rand(BOX, BOX, generator=generator), frequency)
    images = torch.randn(3, BOX, BOX, generator=generator)
    samples = torch.randn(3, 50, generator=generator, dtype=torch.complex64)
    found = (sampler(images).conj() * samples).real.sum()
    torch.testing.assert_close((images * sampler.adjoint(samples)).sum(), found, rtol=1e-4, atol=1)


@pytest.mark.parametrize("nside", [1, 2, 8])
def test_parallels_of_a_level(nside: int) -> None:
    """Every northern direction is on one, its frame turned as said; opposites are the others."""
    every = orientation_grid(nside, CPU)
    assert every.opposite is not None
    northern = torch.cat([each.direction for each in northern_parallels(nside, CPU)])
    assert len(northern.unique()) == len(northern) == 6 * nside**2 + 2 * nside
    southern = is_southern(nside, CPU)
    assert torch.equal(southern.nonzero()[:, 0], northern.sort().values.new_tensor(
        sorted(set(range(12 * nside**2)) - set(northern.tolist()))
    ))  # fmt: skip
    assert not southern[every.opposite[southern]].any()
    for each in northern_parallels(nside, CPU):
        zero = torch.zeros_like(each.psi)
        turn = euler_to_matrix(torch.stack((zero, zero, each.psi), -1).rad2deg())
        wanted = frames(each.parallel).float() @ turn
        torch.testing.assert_close(every.frame[each.direction], wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("nside", [1, 2, 8])
@pytest.mark.parametrize("whole_bytes", [1e9, 0.0])
def test_slices_of_a_level(nside: int, whole_bytes: float) -> None:
    """In all directions, whole or in float16."""
    spectrum = MapSpectrum(molecule(), HARMONICS, 4.0)
    frame = orientation_grid(nside, CPU).frame
    wanted = HARMONICS.to_orders(exact(frame).to(torch.complex64))
    assert relative(slices_of_level(spectrum, HARMONICS, nside), wanted) < 0.01
    found = reference(spectrum, Level(nside, RINGS, 8), whole_bytes=whole_bytes)
    plane, power = found.take(torch.arange(len(frame)))
    assert relative(plane, wanted) < 0.01
    twice = torch.where(HARMONICS.order > 0, 2.0, 1.0)
    ring = torch.zeros(len(frame), RINGS)
    ring.index_add_(1, HARMONICS.ring - 1, wanted.abs().square() * twice)
    assert relative(power, ring) < 0.01
