"""Normal equations and their solution against explicit sums and dense linear algebra."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from cryogan import fourier
from cryogan.evaluation.fsc import fourier_shell_correlation
from cryogan.objectives.likelihood.central_slices import MapSpectrum, slices_of_level
from cryogan.objectives.likelihood.normal_equations import (
    NormalEquations,
    WeightedPoses,
    normal_equations,
    pairs,
    shell_weight,
    solve,
    weighted_poses,
)
from cryogan.objectives.likelihood.observations import (
    HeldObservations,
    Observations,
    moved,
    observations_of,
)
from cryogan.objectives.likelihood.orientation_grid import orientation_grid
from cryogan.objectives.likelihood.pose_search import Cells
from cryogan.objectives.likelihood.search_levels import in_plane_angles
from cryogan.particles import CTFParams, Pose
from cryogan.phantom import phantom_map
from cryogan.physics.circular_harmonics import CircularHarmonics
from cryogan.physics.ctf import ctf
from cryogan.physics.imaging import form_images
from cryogan.physics.projection import volume_spectrum
from cryogan.physics.rotations import euler_to_matrix

BOX, RINGS, RADIUS_PX, PIXEL_A = 16, 7, 7.2, 12.0
CPU = torch.device("cpu")
HARMONICS = CircularHarmonics(BOX, RINGS, RADIUS_PX, CPU)


def some_observations(n: int, generator: torch.Generator) -> Observations:
    images = torch.randn(n, BOX, BOX, generator=generator)
    filters = ctf(CTFParams.constant(n, defocus_u_A=torch.linspace(1e4, 2e4, n)), BOX, PIXEL_A)
    return observations_of(images, filters, torch.ones(BOX // 2 + 1), HARMONICS)


def some_poses(
    count: int,
    images: int,
    nside: int,
    generator: torch.Generator,
    basis_volumes: int = 1,
    shift_px: float = 1.5,
) -> WeightedPoses:
    """Weighted poses in no order; some images have several, some directions are used twice.

    Each has three conformations of random coefficients and probabilities.
    """
    share = torch.rand(count, 3, 1, generator=generator)
    coefficients = torch.randn(count, 3, basis_volumes, generator=generator)
    coefficients[..., 0] = 1.0
    first, second = pairs(basis_volumes)
    return WeightedPoses(
        torch.randint(images, (count,), generator=generator),
        torch.randint(12 * nside**2, (count,), generator=generator),
        2.0 * math.pi * torch.rand(count, generator=generator),
        shift_px * (2.0 * torch.rand(count, 2, generator=generator) - 1.0),
        (share * coefficients).sum(1),
        (share * coefficients[..., first] * coefficients[..., second]).sum(1),
    )


def rotations(poses: WeightedPoses, nside: int) -> Tensor:
    zero = torch.zeros_like(poses.psi)
    turn = euler_to_matrix(torch.stack((zero, zero, torch.rad2deg(poses.psi)), -1))
    return orientation_grid(nside, CPU).frame[poses.direction] @ turn


def smooth_volumes(count: int, generator: torch.Generator) -> Tensor:
    noise = torch.randn(count, BOX, BOX, BOX, generator=generator)
    gain = torch.exp(-(fourier.shell_index(BOX, 3) / 4.0).square())
    return fourier.irfft(fourier.rfft(noise, 3) * gain, BOX, 3) * fourier.soft_disc(BOX, 5, 2, 3)


def convolved(equations: NormalEquations, volumes: Tensor) -> Tensor:
    """(C, D, D, D) sums over l of k_kl * V_l."""
    count, size = len(volumes), volumes.shape[-1]
    padded = fourier.rfft(fourier.crop_or_pad(volumes, 2 * size, 3), 3)
    kernels = dict(zip(zip(*pairs(count), strict=True), equations.kernel, strict=True))
    kernels = {(int(k), int(other)): kernel for (k, other), kernel in kernels.items()}
    total = torch.zeros_like(volumes)
    for k in range(count):
        for other in range(count):
            kernel = kernels[min(k, other), max(k, other)]
            wide = fourier.irfft(padded[other] * fourier.rfft(kernel, 3), 2 * size, 3)
            total[k] += fourier.crop_or_pad(wide, size, 3)
    return total


def by_level(volume: Tensor, direction: Tensor, nside: int) -> Tensor:
    """Slices as the reconstruction reads them."""
    return slices_of_level(MapSpectrum(volume, HARMONICS), HARMONICS, nside)[direction]


def one_by_one(volume: Tensor, direction: Tensor, nside: int) -> Tensor:
    """Slices with a derivative, from a Cartesian grid."""
    return HARMONICS.slices(volume_spectrum(volume), orientation_grid(nside, CPU).frame[direction])


def expected(
    volumes: Tensor,
    seen: Observations,
    poses: WeightedPoses,
    nside: int,
    slices: Callable[[Tensor, Tensor, int], Tensor] = by_level,
) -> tuple[Tensor, ...]:
    """Σ γ φ_k Re⟨P_k, A⟩ and ½ Σ γ φ_k φ_l Re⟨P_k, B P_l⟩, pose by pose, from slices of volumes."""
    every = [slices(volume, poses.direction, nside) for volume in volumes]
    plane = torch.stack([HARMONICS.turned(each, poses.psi) for each in every])
    a = moved(seen.a[poses.image], poses.shift_px[:, None], HARMONICS)[:, 0]
    cross = (poses.coefficient.T[..., None] * (plane.conj() * a).real).sum()
    b = seen.b[poses.image][:, HARMONICS.ring - 1] * torch.where(HARMONICS.order > 0, 2.0, 1.0)
    quadratic = torch.zeros(())
    for pair, (k, other) in enumerate(zip(*pairs(len(volumes)), strict=True)):
        times = 0.5 if k == other else 1.0  # kl and lk
        product = (b * (plane[k].conj() * plane[other]).real).sum(1)
        quadratic = quadratic + times * (poses.product[:, pair] * product).sum()
    return cross, quadratic


# Equations


@pytest.mark.parametrize(("nside", "basis_volumes"), [(2, 1), (16, 1), (4, 3)])
def test_backprojection_is_the_adjoint_of_slices(
    nside: int, basis_volumes: int, generator: torch.Generator
) -> None:
    """Σ ⟨V_k, s_k⟩ = Σ γ φ_k Re⟨slice(V_k), A⟩ for any volumes, to rounding."""
    seen = some_observations(5, generator)
    poses = some_poses(40, 5, nside, generator, basis_volumes)
    equations = normal_equations(seen, poses, orientation_grid(nside, CPU), HARMONICS)
    for only in range(basis_volumes):
        volumes = torch.zeros(basis_volumes, BOX, BOX, BOX)
        volumes[only] = torch.randn(BOX, BOX, BOX, generator=generator)
        wanted = float(expected(volumes, seen, poses, nside)[0])
        found = float((volumes * equations.backprojection).sum())
        scale = float(volumes.norm() * equations.backprojection[only].norm())
        assert found == pytest.approx(wanted, abs=1e-5 * scale)
        assert abs(wanted) > 1e-4 * scale


@pytest.mark.parametrize(("nside", "basis_volumes"), [(2, 1), (16, 1), (32, 1), (4, 3)])
def test_kernel_convolution_stands_for_all_slices(
    nside: int, basis_volumes: int, generator: torch.Generator
) -> None:
    """Σ k_kl * V_l against the derivative of ½ Σ γ φ_k φ_l Re⟨slice(V_k), B slice(V_l)⟩.

    What is left is what interpolation leaves. From nside 16 on weights are put on the directions of
    the level above.
    """
    seen = some_observations(5, generator)
    poses = some_poses(300, 5, nside, generator, basis_volumes)
    volumes = smooth_volumes(basis_volumes, generator).requires_grad_()
    (wanted,) = torch.autograd.grad(expected(volumes, seen, poses, nside, one_by_one)[1], volumes)
    equations = normal_equations(seen, poses, orientation_grid(nside, CPU), HARMONICS)
    inside = fourier.soft_disc(BOX, 5, 2, 3)
    found = convolved(equations, volumes.detach())
    for mine, theirs in zip(found, wanted, strict=True):
        error = float(((mine - theirs) * inside).norm() / (theirs * inside).norm())
        assert error < (0.02 if nside < 16 else 0.05)


def test_kernel_is_symmetric(generator: torch.Generator) -> None:
    equations = normal_equations(
        some_observations(3, generator),
        some_poses(20, 3, 2, generator),
        orientation_grid(2, CPU),
        HARMONICS,
    )
    inner = equations.kernel[0, 1:, 1:, 1:]  # index 0 has no partner
    scale = float(inner.abs().max())
    torch.testing.assert_close(inner, inner.flip((0, 1, 2)), atol=1e-5 * scale, rtol=0)
    assert float(inner.argmax()) == (inner.numel() - 1) / 2  # lag 0


def test_equations_of_parts_add_up(generator: torch.Generator) -> None:
    """Poses in any order, in one call or in two."""
    seen, poses = some_observations(4, generator), some_poses(30, 4, 4, generator, 2)
    whole = normal_equations(seen, poses, orientation_grid(4, CPU), HARMONICS)
    order = torch.randperm(30, generator=generator)
    parts = [
        WeightedPoses(*(getattr(poses, name)[index] for name in poses.__dataclass_fields__))
        for index in (order[:13], order[13:])
    ]
    first, second = (
        normal_equations(seen, part, orientation_grid(4, CPU), HARMONICS) for part in parts
    )
    total = first + second
    for name in ("backprojection", "kernel"):
        wanted = getattr(whole, name)
        scale = float(wanted.abs().max())
        torch.testing.assert_close(getattr(total, name), wanted, atol=1e-5 * scale, rtol=0)


@pytest.mark.parametrize("half_precision", [False, True])
def test_equations_of_held_images(half_precision: bool, generator: torch.Generator) -> None:
    """Images that come in parts; float16 changes the equations by less than 0.05 %."""
    seen, poses = some_observations(5, generator), some_poses(40, 5, 2, generator)
    held = HeldObservations(len(seen), half_precision)
    held.add(seen[:2])
    held.add(seen[2:])
    grid = orientation_grid(2, CPU)
    wanted = normal_equations(seen, poses, grid, HARMONICS)
    found = normal_equations(held, poses, grid, HARMONICS)
    off = (found.backprojection - wanted.backprojection).norm() / wanted.backprojection.norm()
    assert float(off) < (5e-4 if half_precision else 1e-7)
    assert (float(off) > 0.0) == half_precision
    assert torch.equal(found.kernel, wanted.kernel)


def test_held_images_are_rounded_as_little_as_said() -> None:
    """Coefficients from 1e-9 to 1e6 of their unit; the first images have the rms 1."""
    sizes = torch.logspace(-9, 6, 200)
    first = Observations(torch.ones(3, 200, dtype=torch.complex64), torch.ones(3, 1))
    later = Observations(torch.complex(sizes, -sizes)[None], torch.ones(1, 1))
    held = HeldObservations(4, half_precision=True)
    held.add(first)
    held.add(later)
    wanted = torch.view_as_real(later.a)[0].clamp(-65504.0, 65504.0)
    off = (torch.view_as_real(held.of_images(torch.tensor([3])))[0] - wanted).abs()
    bound = (2.0**-11 * wanted.abs()).clamp_min(2.0**-25)
    assert bool((off <= 1.001 * bound).all())
    assert bool((off[sizes < 1e-6] > 0.0005 * sizes[sizes < 1e-6, None]).any())


def test_weighted_poses_are_normalised_without_unlikely_cells() -> None:
    score = torch.tensor([[0.0, -1.0, -20.0], [-5.0, 2.0, -math.inf]])
    shift_px = torch.arange(12.0).view(2, 3, 2)
    cells = Cells(torch.arange(6).view(2, 3), 0.1 * torch.arange(6.0).view(2, 3), shift_px, score)
    coefficient = torch.softmax(score, dim=1)[..., None] * torch.tensor([1.0, -3.0])
    product = torch.softmax(score, dim=1)[..., None] * torch.tensor([1.0, -3.0, 10.0])
    found = weighted_poses(cells, coefficient, product)
    assert found.image.tolist() == [0, 0, 1]
    assert found.direction.tolist() == [0, 1, 4]
    assert found.shift_px.tolist() == [[0.0, 1.0], [2.0, 3.0], [8.0, 9.0]]
    odds = math.exp(-1.0)
    wanted = torch.tensor([1.0 / (1.0 + odds), odds / (1.0 + odds), 1.0])[:, None]
    torch.testing.assert_close(found.coefficient, wanted * torch.tensor([1.0, -3.0]))
    torch.testing.assert_close(found.product, wanted * torch.tensor([1.0, -3.0, 10.0]))
    assert len(weighted_poses(cells, coefficient, product, mass=math.inf).coefficient) == 5


def test_flat_posteriors_keep_their_poses(generator: torch.Generator) -> None:
    """Of 500 cells alike, and of a few among them that are likelier; the weights sum to one."""
    score = 0.1 * torch.rand(3, 500, generator=generator)
    score[1, :4] += 20.0
    score[2, 250:] = -math.inf
    number = torch.arange(500).expand(3, 500)
    cells = Cells(number, number.float(), torch.zeros(3, 500, 2), score)
    weight = torch.softmax(score, dim=1)[..., None]
    found = weighted_poses(cells, weight, weight)
    assert found.image.bincount().tolist() == [500, 4, 250]
    torch.testing.assert_close(
        torch.zeros(3).index_add_(0, found.image, found.coefficient[:, 0]), torch.ones(3)
    )


# Solution


class Dense:
    """The same problem as matrices over all voxels of all basis volumes, float64.

    The least of `½ Σ⟨V_k, k_kl * V_l⟩ - Σ⟨V_k, s_k⟩ + ½ Σ |F_k|² / prior_k` over V_k = mask ·
    (band-limited x_k).
    """

    def __init__(self, equations: NormalEquations, prior: Tensor, mask: Tensor) -> None:
        size, count = mask.shape[-1], len(prior)
        axis = np.arange(size) - size // 2
        voxel = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
        transform = np.exp(-2j * np.pi * voxel @ voxel.T / size)  # symmetric
        shell = np.round(np.linalg.norm(voxel, axis=1)).astype(int)
        lag = voxel[:, None] - voxel[None] + size
        kernels = equations.kernel.double().numpy()[:, lag[..., 0], lag[..., 1], lag[..., 2]]
        blocks = [[np.zeros((size**3, size**3))] * count for _ in range(count)]
        for kernel, k, other in zip(kernels, *pairs(count), strict=True):
            blocks[k][other] = kernel
            blocks[other][k] = kernel
        basis = np.zeros((count, size**3, count, size**3))
        for k in range(count):
            of_shell = prior[k].double().numpy()[np.minimum(shell, size // 2)]
            inside = (shell <= size // 2) & (of_shell > 0)
            inverse = np.where(inside, 1.0 / np.maximum(of_shell, 1e-30), 0.0)
            own = (transform.conj() @ (inverse[:, None] * transform)).real
            blocks[k][k] = blocks[k][k] + own
            limit = (transform.conj() @ (inside[:, None] * transform)).real / size**3
            basis[k, :, k] = mask.double().numpy().reshape(-1, 1) * limit
        self.shape = (count, size, size, size)
        self.system = np.block(blocks)
        self.right = equations.backprojection.double().numpy().reshape(-1)
        self.basis = basis.reshape(count * size**3, -1)

    def objective(self, volumes: Tensor) -> float:
        v = volumes.double().numpy().reshape(-1)
        return float(0.5 * v @ self.system @ v - v @ self.right)

    def solution(self) -> Tensor:
        """Singular values below 1e-7 of the largest are left out."""
        system = self.basis.T @ self.system @ self.basis
        x = np.linalg.lstsq(system, self.basis.T @ self.right, rcond=1e-7)[0]
        return torch.from_numpy(self.basis @ x).float().view(self.shape)


def tiny(basis_volumes: int, generator: torch.Generator) -> NormalEquations:
    """512 voxels, 12 images of noise, 600 poses; kernels that are right in all of the box."""
    harmonics = CircularHarmonics(8, 3, 3.6, CPU)
    images = torch.randn(12, 8, 8, generator=generator)
    filters = ctf(CTFParams.constant(12, defocus_u_A=torch.linspace(1e4, 2e4, 12)), 8, 20.0)
    seen = observations_of(images, filters, torch.ones(5), harmonics)
    poses = some_poses(600, 12, 4, generator, basis_volumes)
    one_by_one = replace(orientation_grid(4, CPU), opposite=None)
    return normal_equations(seen, poses, one_by_one, harmonics)


TINY_PRIOR = torch.tensor([[100.0, 100.0, 60.0, 30.0, 0.0], [20.0, 20.0, 50.0, 10.0, 0.0]])
"""The last shell is not there."""


@pytest.mark.parametrize("basis_volumes", [1, 2])
def test_solution_is_that_of_dense_least_squares(
    basis_volumes: int, generator: torch.Generator
) -> None:
    """Without a mask everything that is solved for counts: the same maps from any start."""
    equations, prior = tiny(basis_volumes, generator), TINY_PRIOR[:basis_volumes]
    everything = torch.ones(8, 8, 8)
    wanted = Dense(equations, prior, everything).solution()
    shape = (basis_volumes, 8, 8, 8)
    for start in (torch.zeros(shape), torch.randn(shape, generator=generator)):
        found = solve(equations, prior, everything, start, iterations=40)
        assert float((found - wanted).norm() / wanted.norm()) < 1e-4
    weaker = Dense(equations, 10.0 * prior, everything).solution()
    assert float((weaker - wanted).norm() / wanted.norm()) > 0.1  # the prior matters


def test_uncoupled_basis_volumes_are_solved_separately(generator: torch.Generator) -> None:
    """Without cross terms; with those, the solution differs."""
    both = tiny(2, generator)
    everything, nothing = torch.ones(8, 8, 8), torch.zeros(2, 8, 8, 8)
    gain = torch.tensor([1.0, 0.0, 1.0])[:, None, None, None]
    apart = NormalEquations(both.backprojection, gain * both.kernel)
    found = solve(apart, TINY_PRIOR, everything, nothing, iterations=60)
    for k, pair in ((0, 0), (1, 2)):
        alone = NormalEquations(both.backprojection[k, None], both.kernel[pair, None])
        wanted = solve(alone, TINY_PRIOR[k, None], everything, nothing[:1], iterations=60)[0]
        assert float((found[k] - wanted).norm() / wanted.norm()) < 1e-4
    coupled = solve(both, TINY_PRIOR, everything, nothing, iterations=60)
    assert float((coupled - found).norm() / found.norm()) > 0.03  # 0.06 measured


def test_solution_inside_a_mask_is_approached(generator: torch.Generator) -> None:
    """Inside a mask the system is ill-conditioned: many directions need more iterations.

    Of what the dense solution gains on images of noise, 71 % after 12 and 95 % after 200.
    """
    mask = fourier.soft_disc(8, 2.5, 1.0, 3)
    equations, prior = tiny(1, generator), TINY_PRIOR[:1]
    problem = Dense(equations, prior, mask)
    gain = []
    for iterations in (3, 12, 50, 200):
        found = solve(equations, prior, mask, torch.zeros(1, 8, 8, 8), iterations)
        assert not found[0, mask == 0].any()
        gain.append(problem.objective(found) / problem.objective(problem.solution()))
    assert 0.3 < gain[0] < gain[1] < gain[2] < gain[3] < 1.0 + 1e-6
    assert gain[1] > 0.6
    assert gain[3] > 0.9


def test_negative_curvature_ends_the_iterations(generator: torch.Generator) -> None:
    """By rounding, the quadratic form of images without signal can be negative: no step then."""
    equations, everything = tiny(1, generator), torch.ones(8, 8, 8)
    turned = NormalEquations(equations.backprojection, -equations.kernel)
    start = torch.randn(1, 8, 8, 8, generator=generator)
    wide = 1e6 * TINY_PRIOR[:1]
    found = solve(turned, wide, everything, start)
    torch.testing.assert_close(found, solve(turned, wide, everything, start, iterations=0))
    assert float((solve(equations, wide, everything, start) - found).norm()) > 0.1


def test_shells_without_a_prior_are_empty(generator: torch.Generator) -> None:
    seen, poses = some_observations(4, generator), some_poses(30, 4, 2, generator)
    equations = normal_equations(seen, poses, orientation_grid(2, CPU), HARMONICS)
    prior = torch.where(torch.arange(BOX // 2 + 1) <= 4, 100.0, 0.0)[None]
    full = torch.ones(BOX, BOX, BOX)
    (found,) = solve(equations, prior, full, torch.randn(1, *full.shape, generator=generator))
    power = fourier.shell_mean(fourier.rfft(found, 3).abs().square(), BOX, 3)
    assert float(power[5:].max()) < 1e-8 * float(power[1:5].min())


def test_weight_of_a_shell_is_the_mean_form_of_its_plane_waves(
    generator: torch.Generator,
) -> None:
    """Positive in every shell, also where the others weigh 10,000 times as much."""
    steep = torch.where(torch.arange(1, RINGS + 1) <= 3, 1e-4, 1.0)
    seen = some_observations(6, generator)
    seen = Observations(seen.a, seen.b * steep)
    equations = normal_equations(
        seen, some_poses(40, 6, 8, generator), orientation_grid(8, CPU), HARMONICS
    )
    found = shell_weight(equations)[0]
    assert bool((found[1 : RINGS + 1] > 0).all())
    transfer = fourier.rfft(equations.kernel, 3)[0]
    x = (torch.arange(BOX) - BOX // 2) * (2.0 * math.pi / BOX)
    forms = []
    for a, b, c in itertools.product((-1, 0, 1), repeat=3):
        if 0 < a * a + b * b + c * c < 3:  # the first shell, to 1.5
            phase = a * x[:, None, None] + b * x[:, None] + c * x
            for wave in (phase.cos(), phase.sin()):
                padded = fourier.rfft(fourier.crop_or_pad(wave, 2 * BOX, 3), 3)
                weighed = fourier.irfft(padded * transfer, 2 * BOX, 3)
                forms.append(float((fourier.crop_or_pad(weighed, BOX, 3) * wave).sum()))
    assert float(found[1]) == pytest.approx(2.0 * sum(forms) / len(forms) / BOX**6, rel=1e-3)


def test_images_of_known_poses_reconstruct_the_map(generator: torch.Generator) -> None:
    """Clean images, one pose each, with shifts: FSC ≥ 0.999 and shells right to 3 % measured."""
    truth = phantom_map(BOX, PIXEL_A)
    n, nside = 400, 16
    count = len(in_plane_angles(nside, CPU))
    poses = WeightedPoses(
        torch.arange(n),
        torch.randint(12 * nside**2, (n,), generator=generator),
        torch.randint(count, (n,), generator=generator) * (2.0 * math.pi / count),
        2.0 * torch.rand(n, 2, generator=generator) - 1.0,
        torch.ones(n, 1),
        torch.ones(n, 1),
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
    seen = observations_of(images, filters, noise, HARMONICS)
    equations = normal_equations(seen, poses, orientation_grid(nside, CPU), HARMONICS)
    assert bool((shell_weight(equations)[0, 1:RINGS] > 0).all())
    power = fourier.shell_mean(fourier.rfft(truth, 3).abs().square(), BOX, 3)
    prior = torch.where(torch.arange(BOX // 2 + 1) <= RINGS, power, 0.0)
    mask = fourier.soft_disc(BOX, 6.0, 1.5, 3)
    nothing = torch.zeros(1, BOX, BOX, BOX)
    (found,) = solve(equations, prior[None], mask, nothing, iterations=30)
    fsc = fourier_shell_correlation(found, truth)
    assert float(fsc[1:RINGS].min()) > 0.99
    product = fourier.rfft(found, 3) * fourier.rfft(truth, 3).conj()
    gain = fourier.shell_mean(product.real, BOX, 3) / power
    torch.testing.assert_close(gain[1:RINGS], torch.ones(RINGS - 1), atol=0.05, rtol=0)
    # with in-plane angles of the wrong sign, the same images give another map
    wrong = replace(poses, psi=-poses.psi)
    (other,) = solve(
        normal_equations(seen, wrong, orientation_grid(nside, CPU), HARMONICS),
        prior[None],
        mask,
        nothing,
    )
    assert float(fourier_shell_correlation(other, truth)[4:RINGS].max()) < 0.8


def test_shells_of_next_to_no_weight_do_not_overflow() -> None:
    """Where power falls by orders of magnitude, weak shells' weights are rounding, or negative."""
    size = 16
    shells = fourier.shell_index(2 * size, 3)
    spectrum = torch.where(shells == 12, 1.0, torch.where(shells < 12, 1e-9, -1e-9))
    kernel = fourier.irfft(torch.complex(spectrum, torch.zeros_like(spectrum)), 2 * size, 3)
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, size, size, size, generator=generator)
    equations = NormalEquations(image, kernel[None])
    weight = shell_weight(equations)
    assert float(weight.min()) >= 0.99e-7 * float(weight.max())
    prior = 0.999 / 0.001 / weight
    found = solve(equations, prior, torch.ones(size, size, size), torch.zeros_like(image))
    assert bool(found.isfinite().all())
