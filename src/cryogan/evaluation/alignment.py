"""Alignment of two maps over rotation, shift and hand.

All rotations of a grid (12° apart) in both hands are correlated with the reference at low
resolution, over a grid of shifts; the best candidates are refined at three growing band limits
by Gauss-Newton steps, and pruned in between. Both maps are whitened shell by shell, so their
amplitude spectra may differ; in the refinement each shell counts as much as its current Fourier
shell correlation says (maximum likelihood for Gaussian spectra), so noise beyond a map's
resolution does no harm. Candidates are ranked by `-½ Σ n_s log(1 - FSC_s²)`, the information
that two Gaussian spectra with these correlations share.
"""

import math
from dataclasses import dataclass

import healpix
import numpy as np
import roma
import torch
from torch import Tensor

from cryogan import fourier
from cryogan.errors import InputError
from cryogan.evaluation.resampling import move_map
from cryogan.physics.projection import volume_spectrum
from cryogan.physics.rotations import euler_to_matrix

_MAX_BOX = 128  # maps are Fourier-cropped to this box for the search
_COARSE_BAND = 8  # Fourier pixels
_GRID_NSIDE = 5  # 300 viewing directions x 30 in-plane angles
_SHIFT_STEPS = 3  # shifts of -3 ... 3 sixteenths of the box along each axis
_CANDIDATES = 40  # of each hand
_MAX_STEP_RAD = math.radians(6.0)
_CHUNK_POINTS = 1 << 21


@dataclass(frozen=True)
class Alignment:
    """How a map is moved onto a reference: invert if mirrored, then rotate, then shift.

    Density at x (from the origin voxel, in x, y, z) moves to `rotation @ (±x) + shift_A`, with
    the minus sign if `mirrored`: inversion through the origin yields the mirror image.

    Attributes:
        rotation: (3, 3).
        shift_A: (3,) as x, y, z in Å.
        mirrored: whether the map had the other hand.
        correlation: Pearson correlation of the aligned map and the reference, over the band
            used.
    """

    rotation: Tensor
    shift_A: Tensor
    mirrored: bool
    correlation: float

    @classmethod
    def identity(cls) -> "Alignment":
        """Nothing is moved."""
        return cls(torch.eye(3), torch.zeros(3), False, 1.0)

    def inverse(self) -> "Alignment":
        """What moves the reference onto the map."""
        sign = -1.0 if self.mirrored else 1.0
        back = self.rotation.T
        return Alignment(back, -sign * (back @ self.shift_A), self.mirrored, self.correlation)


@dataclass(frozen=True)
class _Placement:
    """n trial placements: rotation (n, 3, 3), shift (n, 3) in voxels, mirrored (n,) bool."""

    rotation: Tensor
    shift: Tensor
    mirrored: Tensor

    def __getitem__(self, index: Tensor) -> "_Placement":
        return _Placement(self.rotation[index], self.shift[index], self.mirrored[index])


@dataclass(frozen=True)
class _Band:
    """The coefficients of the search band: half of a ball of `radius` Fourier pixels.

    Attributes:
        k: (m, 3) frequencies, cycles/voxel.
        shell: (m,) shell of each, 1 ... radius.
        weight: (m,) 1 or 2, how often each stands in the full spectrum.
        chosen: half-spectrum mask that picks them.
    """

    radius: int
    k: Tensor
    shell: Tensor
    weight: Tensor
    chosen: Tensor

    def shell_sum(self, values: Tensor) -> Tensor:
        """Weighted sums of (..., m) over shells: (..., radius + 1)."""
        total = values.new_zeros((*values.shape[:-1], self.radius + 1))
        return total.index_add_(-1, self.shell, values * self.weight)


def _band(box_size: int, radius: int, device: torch.device) -> _Band:
    grid = fourier.frequency_grid(box_size, 3, device)
    norm = grid.norm(dim=-1) * box_size
    chosen = (norm > 0.5) & (norm <= radius)
    weight = fourier.half_weights(box_size, device).expand(chosen.shape)[chosen]
    return _Band(radius, grid[chosen], norm[chosen].round().long(), weight, chosen)


def align(
    moving: Tensor,
    reference: Tensor,
    pixel_size_A: float,
    *,
    allow_mirror: bool = True,
    resolution_A: float | None = None,
) -> Alignment:
    """Find the rotation, shift and hand that move `moving` onto `reference`.

    Shifts up to 0.19 of the box along each axis are searched.

    Args:
        moving: (D, D, D).
        reference: (D, D, D), same pixel size.
        pixel_size_A: of both.
        allow_mirror: whether the mirror image of `moving` is tried too.
        resolution_A: only this resolution and lower is used; None for all there is.

    Raises:
        InputError: the maps differ in shape, are smaller than 16 voxels, or one is constant.
    """
    hands = (False, True) if allow_mirror else (False,)
    return alignments(moving, reference, pixel_size_A, hands=hands, resolution_A=resolution_A)[0]


def alignments(
    moving: Tensor,
    reference: Tensor,
    pixel_size_A: float,
    *,
    hands: tuple[bool, ...] = (False, True),
    count: int = 1,
    resolution_A: float | None = None,
    rotations: Tensor | None = None,
) -> list[Alignment]:
    """The `count` best alignments found, best first, no two alike.

    Args:
        moving: (D, D, D).
        reference: (D, D, D), same pixel size.
        pixel_size_A: of both.
        hands: whether `moving` is mirrored: True, False or both.
        count: number asked for; there may be fewer.
        resolution_A: only this resolution and lower is used; None for all there is.
        rotations: (n, 3, 3) to begin with; None for a grid of all.

    Raises:
        InputError: as `align`.
    """
    pair = _pair(moving, reference, pixel_size_A, resolution_A)
    band = _band(pair.size, pair.coarse, reference.device)
    if rotations is None:
        rotations = _grid_rotations(reference.device)
    placements = _grid_search(pair.spectrum, pair.tangent[0], band, hands, rotations)
    return pair.refined(
        placements,
        (
            (pair.coarse, 8, max(16, count)),
            (min(2 * pair.coarse, pair.radius), 6, max(4, count)),
            (pair.radius, 10, count),
        ),
    )


def refine_alignment(
    moving: Tensor, reference: Tensor, pixel_size_A: float, start: Alignment
) -> Alignment:
    """The alignment nearest to `start` that is a (local) optimum; the hand is kept.

    Args:
        moving: (D, D, D).
        reference: (D, D, D), same pixel size.
        pixel_size_A: of both.
        start: an alignment of the two that is off by some degrees and voxels at most.

    Raises:
        InputError: as `align`.
    """
    pair = _pair(moving, reference, pixel_size_A, None)
    placements = _Placement(
        start.rotation[None].to(pair.tangent.real),
        start.shift_A[None].to(pair.tangent.real) / pair.pixel_size_A,
        torch.tensor([start.mirrored], device=reference.device),
    )
    middle = min(2 * pair.coarse, pair.radius)
    return pair.refined(placements, ((middle, 6, 1), (pair.radius, 10, 1)))[0]


@dataclass(frozen=True)
class _Pair:
    """Two maps, windowed and cropped for the search.

    Attributes:
        size: the search's box.
        pixel_size_A: in the search's box.
        radius: its band, Fourier pixels.
        coarse: the first band.
        spectrum: `volume_spectrum` of the map that moves.
        tangent: `_tangent_spectra` of the reference.
    """

    size: int
    pixel_size_A: float
    radius: int
    coarse: int
    spectrum: Tensor
    tangent: Tensor

    def refined(
        self, placements: _Placement, stages: tuple[tuple[int, int, int], ...]
    ) -> list[Alignment]:
        """Refined at one band after the other: (radius, iterations, how many are kept)."""
        for radius, iterations, keep in stages:
            band = _band(self.size, radius, self.tangent.device)
            placements = _refine(self.spectrum, self.tangent, placements, band, iterations, keep)
        target = self.tangent[0][band.chosen]
        target_norm = float((target.abs().square() * band.weight).sum())
        found = []
        for number, moved in enumerate(_placed(self.spectrum, placements, band)):
            cross = float(((moved * target.conj()).real * band.weight).sum())
            norm = float((moved.abs().square() * band.weight).sum()) * target_norm
            alignment = Alignment(
                placements.rotation[number],
                placements.shift[number] * self.pixel_size_A,
                bool(placements.mirrored[number]),
                cross / math.sqrt(norm),
            )
            found.append(alignment)
        return found


def _pair(
    moving: Tensor, reference: Tensor, pixel_size_A: float, resolution_A: float | None
) -> _Pair:
    original_size = reference.shape[-1]
    _check(moving, reference)
    size = min(original_size, _MAX_BOX)
    radius = (size - 1) // 2
    if resolution_A is not None:
        radius = min(radius, int(original_size * pixel_size_A / resolution_A))
    device = reference.device
    window = fourier.soft_disc(original_size, 0.45 * original_size, 0.1 * original_size, 3, device)
    moving = fourier.resample(moving.float() * window, size, 3)
    reference = fourier.resample(reference.float() * window, size, 3)
    return _Pair(
        size,
        pixel_size_A * original_size / size,
        radius,
        min(_COARSE_BAND, radius),
        volume_spectrum(moving),
        _tangent_spectra(reference),
    )


def apply_alignment(volume: Tensor, alignment: Alignment, pixel_size_A: float) -> Tensor:
    """Move a map by an alignment, with one accurate interpolation (`resampling.move_map`).

    Args:
        volume: (D, D, D).
        alignment: from `align`.
        pixel_size_A: of the volume.

    Returns:
        (D, D, D), without coefficients beyond the Nyquist sphere.
    """
    shift_px = alignment.shift_A.to(volume) / pixel_size_A
    return move_map(volume, alignment.rotation.to(volume), shift_px, alignment.mirrored)


def _check(moving: Tensor, reference: Tensor) -> None:
    shape = reference.shape
    if moving.shape != shape or len(shape) != 3 or len(set(shape)) != 1 or shape[0] < 16:
        raise InputError(
            f"Maps of {tuple(moving.shape)} and {tuple(shape)} voxels cannot be aligned; give "
            "two cubes of the same box of at least 16 voxels."
        )
    for name, volume in (("map to align", moving), ("reference map", reference)):
        if not bool(torch.isfinite(volume).all()) or float(volume.std()) == 0.0:
            raise InputError(
                f"The {name} is constant or holds values that are not finite, so there is "
                "nothing to align; give a map with density."
            )


def _sample(spectrum: Tensor, point: Tensor) -> Tensor:
    """Trilinear values of `volume_spectrum`'s (P, P, P // 2 + 1) at points (..., 3), Fourier px."""
    padded_size = spectrum.shape[-3]
    half = padded_size // 2
    mirrored = point[..., 0] < 0  # F(-k) = conj F(k): read the half that is stored
    point = torch.where(mirrored[..., None], -point, point)
    scale = point.new_tensor([2.0 / half, 2.0 / (padded_size - 1), 2.0 / (padded_size - 1)])
    coordinate = (point + point.new_tensor([0.0, half, half])) * scale - 1.0
    stored = torch.view_as_real(spectrum).movedim(-1, 0)[None]
    value = torch.nn.functional.grid_sample(
        stored, coordinate.reshape(1, -1, 1, 1, 3), padding_mode="border", align_corners=True
    )
    real, imaginary = value.reshape(2, *point.shape[:-1])
    return torch.complex(real, torch.where(mirrored, -imaginary, imaginary))


def _turned(spectrum: Tensor, rotation: Tensor, band: _Band) -> Tensor:
    """Coefficients (n, m) of the moving map at each of n rotations."""
    frequency = band.k * spectrum.shape[-3]
    return _sample(spectrum, torch.einsum("nji,mj->nmi", rotation, frequency))


def _placed(spectrum: Tensor, placements: _Placement, band: _Band) -> Tensor:
    """Coefficients (n, m) of the moving map at each placement."""
    value = _turned(spectrum, placements.rotation, band)
    value = torch.where(placements.mirrored[:, None], value.conj(), value)
    phase = -2.0 * torch.pi * placements.shift @ band.k.T
    return value * torch.polar(torch.ones_like(phase), phase)


def _tangent_spectra(reference: Tensor) -> Tensor:
    """Spectrum of the reference and of its change per radian about and voxel along x, y, z.

    Density that turns by ω and moves by τ changes by `-(ω x r + τ) · ∇V`. Returns
    (7, D, D, D // 2 + 1).
    """
    size = reference.shape[-1]
    spectrum = fourier.rfft(reference, 3)
    k = fourier.frequency_grid(size, 3, reference.device).movedim(-1, 0)
    slope = -2j * torch.pi * k * spectrum  # of -∇V
    gradient = fourier.irfft(slope, size, 3)
    axis = torch.arange(size, device=reference.device, dtype=reference.dtype) - size // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    turn = torch.linalg.cross(torch.stack((x, y, z)), gradient, dim=0)
    return torch.cat((spectrum[None], fourier.rfft(turn, 3), slope))


def _whitened(values: Tensor, band: _Band) -> Tensor:
    """(n, m) coefficients scaled to unit mean power in each shell."""
    count = band.shell_sum(torch.ones_like(band.weight))
    power = band.shell_sum(values.abs().square()) / count.clamp_min(1.0)
    return values * power.clamp_min(1e-30).rsqrt()[..., band.shell]


def _grid_rotations(device: torch.device) -> Tensor:
    """About 9,000 rotations, 12° apart: HEALPix viewing directions x in-plane angles."""
    tilt, rot = healpix.pix2ang(_GRID_NSIDE, np.arange(healpix.nside2npix(_GRID_NSIDE)))
    psi = np.arange(6 * _GRID_NSIDE) * (60.0 / _GRID_NSIDE)
    view = np.rad2deg(np.stack((rot, tilt), axis=-1))
    euler = np.concatenate((np.repeat(view, len(psi), 0), np.tile(psi, len(view))[:, None]), -1)
    return euler_to_matrix(torch.from_numpy(euler).float().to(device))


def _grid_search(
    spectrum: Tensor, reference: Tensor, band: _Band, hands: tuple[bool, ...], rotation: Tensor
) -> _Placement:
    """The best placements of these rotations, `_CANDIDATES` of each hand, no two neighbours."""
    step_px = spectrum.shape[-3] / (4 * _COARSE_BAND)  # a sixteenth of the box
    step = torch.arange(-_SHIFT_STEPS, _SHIFT_STEPS + 1, device=band.k.device) * step_px
    shift = torch.cartesian_prod(step, step, step)
    phase = -2.0 * torch.pi * band.k @ shift.T
    wave = torch.cat((phase.cos(), -phase.sin()))
    target = _whitened(reference[band.chosen], band).conj() * (band.weight / band.shell)
    rotation = rotation.to(band.k)
    best: list[Tensor] = []  # per chunk, (2, n, hands): correlation, number of the best shift
    for part in torch.split(rotation, max(1, _CHUNK_POINTS // len(band.k))):
        value = _whitened(_turned(spectrum, part, band), band)
        scores = []
        for mirrored in hands:
            cross = (value.conj() if mirrored else value) * target
            top = (torch.cat((cross.real, cross.imag), -1) @ wave).max(dim=-1)
            scores.append(torch.stack((top.values, top.indices.to(top.values.dtype))))
        best.append(torch.stack(scores, dim=-1))
    correlation, number = torch.cat(best, dim=1)
    found = []
    for column, mirrored in enumerate(hands):
        placements = _Placement(
            rotation,
            shift[number[:, column].long()],
            torch.full((len(rotation),), mirrored, device=rotation.device),
        )
        index = _distinct(placements, correlation[:, column], _CANDIDATES, apart_deg=15.0)
        found.append(placements[index])
    return _Placement(
        torch.cat([p.rotation for p in found]),
        torch.cat([p.shift for p in found]),
        torch.cat([p.mirrored for p in found]),
    )


def _distinct(placements: _Placement, score: Tensor, count: int, apart_deg: float) -> Tensor:
    """Numbers of the `count` best placements, best first, no two alike.

    Two are alike if they have the same hand and rotations within `apart_deg`.
    """
    order = score.argsort(descending=True)
    trace_limit = 1.0 + 2.0 * math.cos(math.radians(apart_deg))
    kept: list[Tensor] = []
    while len(order) and len(kept) < count:
        first = order[0]
        kept.append(first)
        trace = (placements.rotation[order] * placements.rotation[first]).sum(dim=(-2, -1))
        other_hand = placements.mirrored[order] != placements.mirrored[first]
        order = order[(trace < trace_limit) | other_hand]
    return torch.stack(kept)


def _refine(
    spectrum: Tensor,
    tangent: Tensor,
    placements: _Placement,
    band: _Band,
    iterations: int,
    keep: int,
) -> _Placement:
    """Gauss-Newton steps from each placement; the `keep` best distinct results, best first.

    The step is inverse-compositional (Baker & Matthews, IJCV 56, 2004): it is solved for the
    small motion of the *reference* that explains the residual, with derivatives that stay the
    same, and its inverse is composed with the placement.
    """
    spectra = tangent[:, band.chosen]
    count = band.shell_sum(torch.ones_like(band.weight))
    power = band.shell_sum(spectra[0].abs().square()) / count.clamp_min(1.0)
    spectra = spectra * power.clamp_min(1e-30).rsqrt()[band.shell]
    target, slopes = spectra[0], torch.view_as_real(spectra[1:])  # (m,), (6, m, 2)
    products = (slopes[:, None] * slopes[None]).sum(-1)
    shell_hessian = band.shell_sum(products)  # (6, 6, shells)
    damping = 1e-3 * shell_hessian[..., :4].sum(-1)
    damping = damping + 1e-6 * torch.diag(damping.diagonal().mean().expand(6))

    best, best_score = placements, placements.shift.new_full((len(placements.shift),), -math.inf)
    for iteration in range(iterations + 1):
        value = _whitened(_placed(spectrum, placements, band), band)
        fsc = band.shell_sum((value * target.conj()).real) / count.clamp_min(1.0)
        fsc = fsc.clamp(0.0, 0.9999)
        score = -0.5 * (count * torch.log1p(-fsc.square())).sum(-1)
        better = score > best_score
        best_score = torch.where(better, score, best_score)
        best = _Placement(
            torch.where(better[:, None, None], placements.rotation, best.rotation),
            torch.where(better[:, None], placements.shift, best.shift),
            placements.mirrored,
        )
        if iteration == iterations:
            break
        fsc = fsc.clamp_max(0.98)
        gain = fsc / (1.0 - fsc.square())
        residual = value - fsc[:, band.shell] * target
        residual = residual * (gain[:, band.shell] * band.weight)
        gradient = torch.einsum("nmc,imc->ni", torch.view_as_real(residual), slopes)
        hessian = torch.einsum("ijs,ns->nij", shell_hessian, gain * fsc) + damping
        step = torch.linalg.solve(hessian, gradient)
        placements = _stepped(placements, step, band)
    return best[_distinct(best, best_score, keep, apart_deg=3.0)]


def _stepped(placements: _Placement, step: Tensor, band: _Band) -> _Placement:
    """Compose with the inverse of `step` ((n, 6): radians, voxels), its length limited."""
    angle, move = step[:, :3], step[:, 3:]
    longest = 0.25 / band.k.norm(dim=-1).max()  # a quarter of the finest wave, in voxels
    angle = angle * (_MAX_STEP_RAD / angle.norm(dim=-1, keepdim=True)).clamp_max(1.0)
    move = move * (longest / move.norm(dim=-1, keepdim=True)).clamp_max(1.0)
    back = roma.rotvec_to_rotmat(-angle)
    shift = torch.einsum("nij,nj->ni", back, placements.shift - move)
    return _Placement(back @ placements.rotation, shift, placements.mirrored)
