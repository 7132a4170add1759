"""Normal equations and their solution against explicit sums and dense linear algebra."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from cryogan import fourier
from cryogan.evaluation.fsc import fourier_shell_correlation
from cryogan.likelihood.expectation import Cells, Observations, in_plane_angles, moved, observe
from cryogan.likelihood.maximisation import (
    NormalEquations,
    Posterior,
    normal_equations,
    posterior,
    shell_weight,
    solve,
)
from cryogan.likelihood.polar import Polar
from cryogan.likelihood.views import views
from cryogan.particles import CTFParams, Pose
from cryogan.phantom import phantom_map
from cryogan.physics.ctf import ctf
from cryogan.physics.imaging import form_images
from cryogan.physics.projection import volume_spectrum
from cryogan.physics.rotations import euler_to_matrix

BOX, RINGS, RADIUS_PX, PIXEL_A = 16, 7, 7.2, 12.0
CPU = torch.device("cpu")
POLAR = Polar(BOX, RINGS, RADIUS_PX, CPU)


def some_observations(n: int, generator: torch.Generator) -> Observations:
    images = torch.randn(n, BOX, BOX, generator=generator)
    filters = ctf(CTFParams.constant(n, defocus_u_A=torch.linspace(1e4, 2e4, n)), BOX, PIXEL_A)
    return observe(images, filters, torch.ones(BOX // 2 + 1), POLAR)


def some_poses(
    count: int, images: int, nside: int, generator: torch.Generator, shift_px: float = 1.5
) -> Posterior:
    """Weighted poses in no order; some images have several, some views are used twice."""
    return Posterior(
        torch.randint(images, (count,), generator=generator),
        torch.randint(12 * nside**2, (count,), generator=generator),
        2.0 * math.pi * torch.rand(count, generator=generator),
        shift_px * (2.0 * torch.rand(count, 2, generator=generator) - 1.0),
        torch.rand(count, generator=generator),
    )


def rotations(poses: Posterior, nside: int) -> Tensor:
    zero = torch.zeros_like(poses.psi)
    turn = euler_to_matrix(torch.stack((zero, zero, torch.rad2deg(poses.psi)), -1))
    return views(nside, CPU).frame[poses.view] @ turn


def smooth_volume(generator: torch.Generator) -> Tensor:
    noise = torch.randn(BOX, BOX, BOX, generator=generator)
    gain = torch.exp(-(fourier.shell_index(BOX, 3) / 4.0).square())
    return fourier.irfft(fourier.rfft(noise, 3) * gain, BOX, 3) * fourier.soft_disc(BOX, 5, 2, 3)


def convolved(equations: NormalEquations, volume: Tensor) -> Tensor:
    size = volume.shape[-1]
    padded = fourier.rfft(fourier.crop_or_pad(volume, 2 * size, 3), 3)
    wide = fourier.irfft(padded * fourier.rfft(equations.kernel, 3), 2 * size, 3)
    return fourier.crop_or_pad(wide, size, 3)


def expected(
    volume: Tensor, seen: Observations, poses: Posterior, nside: int
) -> tuple[Tensor, ...]:
    """Σ γ Re⟨P, A⟩ and ½ Σ γ ⟨|P|², B⟩, pose by pose, from slices of the volume."""
    frame = views(nside, CPU).frame[poses.view]
    plane = POLAR.turned(POLAR.slices(volume_spectrum(volume), frame), poses.psi)
    a = moved(seen.a[poses.image], poses.shift_px[:, None], POLAR)[:, 0]
    cross = (poses.weight[:, None] * (plane.conj() * a).real).sum()
    twice = torch.where(POLAR.order > 0, 2.0, 1.0)
    b = seen.b[poses.image][:, POLAR.ring - 1] * twice
    return cross, 0.5 * (poses.weight[:, None] * b * plane.abs().square()).sum()


# Equations


@pytest.mark.parametrize("nside", [2, 16])
def test_backprojection_is_the_adjoint_of_slices(nside: int, generator: torch.Generator) -> None:
    """⟨V, s⟩ = Σ γ Re⟨slice(V), A⟩ for any volume, to rounding."""
    seen = some_observations(5, generator)
    poses = some_poses(40, 5, nside, generator)
    equations = normal_equations(seen, poses, views(nside, CPU), POLAR)
    for _ in range(3):
        volume = torch.randn(BOX, BOX, BOX, generator=generator)
        wanted = float(expected(volume, seen, poses, nside)[0])
        found = float((volume * equations.backprojection).sum())
        scale = float(volume.norm() * equations.backprojection.norm())
        assert found == pytest.approx(wanted, abs=1e-5 * scale)
        assert abs(wanted) > 1e-4 * scale


@pytest.mark.parametrize("nside", [2, 16, 32])
def test_kernel_stands_for_all_slices(nside: int, generator: torch.Generator) -> None:
    """k * V against the derivative of ½ Σ γ ⟨|slice(V)|², B⟩: what interpolation leaves.

    At nside 32 weights are put on the directions of the level above.
    """
    seen = some_observations(5, generator)
    poses = some_poses(300, 5, nside, generator)
    volume = smooth_volume(generator).requires_grad_()
    (wanted,) = torch.autograd.grad(expected(volume, seen, poses, nside)[1], volume)
    equations = normal_equations(seen, poses, views(nside, CPU), POLAR)
    inside = fourier.soft_disc(BOX, 5, 2, 3)
    found = convolved(equations, volume.detach())
    error = float(((found - wanted) * inside).norm() / (wanted * inside).norm())
    assert error < (0.02 if nside < 32 else 0.05)


def test_kernel_is_symmetric(generator: torch.Generator) -> None:
    equations = normal_equations(
        some_observations(3, generator), some_poses(20, 3, 2, generator), views(2, CPU), POLAR
    )
    inner = equations.kernel[1:, 1:, 1:]  # index 0 has no partner
    scale = float(inner.abs().max())
    torch.testing.assert_close(inner, inner.flip((0, 1, 2)), atol=1e-5 * scale, rtol=0)
    assert float(inner.argmax()) == (inner.numel() - 1) / 2  # lag 0


def test_equations_of_parts_add_up(generator: torch.Generator) -> None:
    """Poses in any order, in one call or in two."""
    seen, poses = some_observations(4, generator), some_poses(30, 4, 4, generator)
    whole = normal_equations(seen, poses, views(4, CPU), POLAR)
    order = torch.randperm(30, generator=generator)
    parts = [
        Posterior(*(getattr(poses, name)[index] for name in poses.__dataclass_fields__))
        for index in (order[:13], order[13:])
    ]
    first, second = (normal_equations(seen, part, views(4, CPU), POLAR) for part in parts)
    total = first + second
    for name in ("backprojection", "kernel"):
        wanted = getattr(whole, name)
        scale = float(wanted.abs().max())
        torch.testing.assert_close(getattr(total, name), wanted, atol=1e-5 * scale, rtol=0)


def test_posteriors_are_normalised_without_unlikely_cells() -> None:
    score = torch.tensor([[0.0, -1.0, -20.0], [-5.0, 2.0, -math.inf]])
    shift_px = torch.arange(12.0).view(2, 3, 2)
    cells = Cells(torch.arange(6).view(2, 3), 0.1 * torch.arange(6.0).view(2, 3), shift_px, score)
    found = posterior(cells)
    assert found.image.tolist() == [0, 0, 1]
    assert found.view.tolist() == [0, 1, 4]
    assert found.shift_px.tolist() == [[0.0, 1.0], [2.0, 3.0], [8.0, 9.0]]
    odds = math.exp(-1.0)
    wanted = [1.0 / (1.0 + odds), odds / (1.0 + odds), 1.0]
    assert found.weight.tolist() == pytest.approx(wanted, rel=1e-6)
    assert len(posterior(cells, least=0.0).weight) == 6


# Solution


class Dense:
    """The same problem as matrices over all voxels, float64.

    The least of `½⟨V, k * V⟩ - ⟨V, s⟩ + ½ Σ |F|² / prior` over V = mask · (band-limited x).
    """

    def __init__(self, equations: NormalEquations, prior: Tensor, mask: Tensor) -> None:
        size = mask.shape[-1]
        axis = np.arange(size) - size // 2
        voxel = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
        transform = np.exp(-2j * np.pi * voxel @ voxel.T / size)  # symmetric
        shell = np.round(np.linalg.norm(voxel, axis=1)).astype(int)
        of_shell = prior.double().numpy()[np.minimum(shell, size // 2)]
        inside = (shell <= size // 2) & (of_shell > 0)
        inverse = np.where(inside, 1.0 / np.maximum(of_shell, 1e-30), 0.0)
        limit = (transform.conj() @ (inside[:, None] * transform)).real / size**3
        lag = voxel[:, None] - voxel[None] + size
        kernel = equations.kernel.double().numpy()[lag[..., 0], lag[..., 1], lag[..., 2]]
        self.system = kernel + (transform.conj() @ (inverse[:, None] * transform)).real
        self.right = equations.backprojection.double().numpy().reshape(-1)
        self.basis = mask.double().numpy().reshape(-1, 1) * limit

    def objective(self, volume: Tensor) -> float:
        v = volume.double().numpy().reshape(-1)
        return float(0.5 * v @ self.system @ v - v @ self.right)

    def solution(self) -> Tensor:
        """Directions that hardly count (below 1e-7 of the others) are left out."""
        system = self.basis.T @ self.system @ self.basis
        x = np.linalg.lstsq(system, self.basis.T @ self.right, rcond=1e-7)[0]
        size = round(len(x) ** (1 / 3))
        return torch.from_numpy(self.basis @ x).float().view(size, size, size)


@pytest.fixture
def tiny(generator: torch.Generator) -> NormalEquations:
    """512 voxels, 12 images of noise, 600 poses."""
    polar = Polar(8, 3, 3.6, CPU)
    images = torch.randn(12, 8, 8, generator=generator)
    filters = ctf(CTFParams.constant(12, defocus_u_A=torch.linspace(1e4, 2e4, 12)), 8, 20.0)
    seen = observe(images, filters, torch.ones(5), polar)
    return normal_equations(seen, some_poses(600, 12, 4, generator), views(4, CPU), polar)


TINY_PRIOR = torch.tensor([100.0, 100.0, 60.0, 30.0, 0.0])  # the last shell is not there


def test_solution_is_that_of_dense_least_squares(
    tiny: NormalEquations, generator: torch.Generator
) -> None:
    """Without a mask all that is solved for counts: the same map, wherever it starts."""
    everything = torch.ones(8, 8, 8)
    wanted = Dense(tiny, TINY_PRIOR, everything).solution()
    for start in (torch.zeros(8, 8, 8), torch.randn(8, 8, 8, generator=generator)):
        found = solve(tiny, TINY_PRIOR, everything, start, iterations=40)
        assert float((found - wanted).norm() / wanted.norm()) < 1e-4
    bold = Dense(tiny, 10.0 * TINY_PRIOR, everything).solution()
    assert float((bold - wanted).norm() / wanted.norm()) > 0.1  # the prior is felt


def test_solution_inside_a_mask_is_approached(tiny: NormalEquations) -> None:
    """Masked, many directions hardly count and are left to later iterations.

    Of what the dense solution gains on images of noise, 71 % after 12 and 95 % after 200.
    """
    mask = fourier.soft_disc(8, 2.5, 1.0, 3)
    problem = Dense(tiny, TINY_PRIOR, mask)
    gain = []
    for iterations in (3, 12, 50, 200):
        found = solve(tiny, TINY_PRIOR, mask, torch.zeros(8, 8, 8), iterations)
        assert not found[mask == 0].any()
        gain.append(problem.objective(found) / problem.objective(problem.solution()))
    assert 0.3 < gain[0] < gain[1] < gain[2] < gain[3] < 1.0 + 1e-6
    assert gain[1] > 0.6
    assert gain[3] > 0.9


def test_nothing_is_said_beyond_the_prior(generator: torch.Generator) -> None:
    seen, poses = some_observations(4, generator), some_poses(30, 4, 2, generator)
    equations = normal_equations(seen, poses, views(2, CPU), POLAR)
    prior = torch.where(torch.arange(BOX // 2 + 1) <= 4, 100.0, 0.0)
    full = torch.ones(BOX, BOX, BOX)
    found = solve(equations, prior, full, torch.randn(full.shape, generator=generator))
    power = fourier.shell_mean(fourier.rfft(found, 3).abs().square(), BOX, 3)
    assert float(power[5:].max()) < 1e-8 * float(power[1:5].min())


def test_images_of_known_poses_give_back_the_map(generator: torch.Generator) -> None:
    """Clean images, one pose each, with shifts: FSC ≥ 0.999 and shells right to 3 % measured."""
    truth = phantom_map(BOX, PIXEL_A)
    n, nside = 400, 16
    count = len(in_plane_angles(nside, CPU))
    poses = Posterior(
        torch.arange(n),
        torch.randint(12 * nside**2, (n,), generator=generator),
        torch.randint(count, (n,), generator=generator) * (2.0 * math.pi / count),
        2.0 * torch.rand(n, 2, generator=generator) - 1.0,
        torch.ones(n),
    )
    filters = ctf(CTFParams.constant(n, defocus_u_A=torch.linspace(1e4, 2.5e4, n)), BOX, PIXEL_A)
    images = form_images(
        volume_spectrum(truth, 4.0),
        Pose(rotations(poses, nside), poses.shift_px * PIXEL_A),
        filters,
        box_size=BOX,
        pixel_size_A=PIXEL_A,
    )
    noise = torch.full((BOX // 2 + 1,), 0.01 * float(images.var()))
    seen = observe(images, filters, noise, POLAR)
    equations = normal_equations(seen, poses, views(nside, CPU), POLAR)
    assert bool((shell_weight(equations)[1:RINGS] > 0).all())
    power = fourier.shell_mean(fourier.rfft(truth, 3).abs().square(), BOX, 3)
    prior = torch.where(torch.arange(BOX // 2 + 1) <= RINGS, power, 0.0)
    mask = fourier.soft_disc(BOX, 6.0, 1.5, 3)
    found = solve(equations, prior, mask, torch.zeros_like(mask), iterations=30)
    fsc = fourier_shell_correlation(found, truth)
    assert float(fsc[1:RINGS].min()) > 0.99
    product = fourier.rfft(found, 3) * fourier.rfft(truth, 3).conj()
    gain = fourier.shell_mean(product.real, BOX, 3) / power
    torch.testing.assert_close(gain[1:RINGS], torch.ones(RINGS - 1), atol=0.05, rtol=0)
    # turned the wrong way, the same images give another map
    wrong = Posterior(poses.image, poses.view, -poses.psi, poses.shift_px, poses.weight)
    other = solve(
        normal_equations(seen, wrong, views(nside, CPU), POLAR), prior, mask, torch.zeros_like(mask)
    )
    assert float(fourier_shell_correlation(other, truth)[4:RINGS].max()) < 0.8
