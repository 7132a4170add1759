"""Goodness of fit: do map, poses, CTFs and noise explain the images? (docs/goodness_of_fit.md)

If the model is right, an image and a pose drawn from its posterior are distributed as the image and
its true pose. The residual at such a pose, in units of the noise, is therefore distributed as noise
is, however broad the posterior: nothing needs to be corrected for the pose having been found on the
image itself. What does need it is the error of the map and the width of the grid's cells.
"""

import math
from dataclasses import dataclass
from typing import Any

import roma
import torch
from torch import Tensor

from cryogan import fourier
from cryogan.evaluation.statistics import kolmogorov_smirnov
from cryogan.objectives.likelihood.bands import box_for, harmonics_for, search_for
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.image_model import ImageModel
from cryogan.objectives.likelihood.orientation_grid import orientation_grid
from cryogan.objectives.likelihood.posterior import (
    SINGLE_STRUCTURE,
    Posterior,
    posterior_of,
    references_of,
)
from cryogan.objectives.likelihood.search_levels import Level
from cryogan.particles import Pose
from cryogan.physics.ctf import ctf
from cryogan.physics.imaging import form_images, rescale_volume
from cryogan.physics.projection import volume_spectrum
from cryogan.physics.rotations import about_z, random_rotations

_CHUNK = 64
_PADDING = 2.0
_CELLS = 64
_SIGNIFICANT = 4.0  # standard deviations
_BY_CHANCE = 1e-4
_FEW = 0.02  # of the images
_CONTRAST, _NOISE, _SPREAD = 0.1, 0.05, 0.3  # misfits that are worth naming
_CALIBRATED = 0.1  # of the noise: errors of map and grid that leave p-values calibrated


@dataclass(frozen=True)
class Residuals:
    """Residuals of n images on rings 1 ... R, each at one pose drawn from its posterior.

    Attributes:
        residual: (n, R) Σ |Y - α C P|² / N, its mean over the posterior of the contrast α.
        linear: (n, R) Re Σ conj(C P) Y / N.
        quadratic: (n, R) Σ |C P|² / N.
        response: (n, R) Σ C² / N: what an error of the map adds to the residual, if its
            coefficients have a mean |F|² of 1.
        noise: (R,) expected residual of noise alone.
        noise_variance: variance of its sum over the rings.
        grid_error: (R,) mean |F|² by which projections differ within a cell of the pose grid.
        contrast_sd: of the image model.
    """

    residual: Tensor
    linear: Tensor
    quadratic: Tensor
    response: Tensor
    noise: Tensor
    noise_variance: float
    grid_error: Tensor
    contrast_sd: float


def residuals(
    half: HalfSet,
    index: Tensor,
    posterior: Posterior,
    basis: Tensor,
    level: Level,
    generator: torch.Generator,
    image_model: ImageModel,
) -> Residuals:
    """Residuals of the images of `index`.

    Args:
        half: where the images come from.
        index: (n,) images.
        posterior: of these images, not annealed.
        basis: (C, D, D, D) basis volumes that it is of, of the working box.
        level: the finest of the pose search; its rings are the band.
        generator: CPU generator, for the choice of poses.
        image_model: contrast of one structure.
    """
    device, size = basis.device, basis.shape[-1]
    stack = half.stack(size)
    window, noise = half.window(size).to(device), half.noise(size).to(device)
    rings = slice(1, level.rings + 1)
    pose, coefficient = _drawn(posterior, level, stack.pixel_size_A, generator)
    spectrum = volume_spectrum(basis, _PADDING)
    found = []
    for part in torch.split(torch.arange(len(index)), _CHUNK):
        transfer = ctf(half.particles.ctf[index[part]].to(device), size, stack.pixel_size_A)
        expected = form_images(
            spectrum[0] if len(basis) == 1 else spectrum,
            pose[part],
            transfer,
            box_size=size,
            pixel_size_A=stack.pixel_size_A,
            coefficients=None if len(basis) == 1 else coefficient[part],
        )
        seen = fourier.rfft(stack.read(index[part]).to(device)) / size
        mine = fourier.rfft(expected * window) / size

        def by_ring(values: Tensor) -> Tensor:
            return fourier.shell_sum(values, size)[:, rings] / noise[rings].clamp_min(1e-20)

        linear = by_ring((mine.conj() * seen).real)
        quadratic = by_ring(mine.abs().square())
        mean, square = _contrast(linear.sum(1), quadratic.sum(1), image_model, len(basis))
        power = by_ring(seen.abs().square())
        residual = power - 2.0 * mean[:, None] * linear + square[:, None] * quadratic
        response = by_ring(transfer.square()) / size**2
        found.append([values.cpu() for values in (residual, linear, quadratic, response)])
    count = fourier.shell_sum(torch.ones(size, size // 2 + 1), size)[rings]
    residual, linear, quadratic, response = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Residuals(
        residual,
        linear,
        quadratic,
        response,
        count * float(window.square().mean()),
        _noise_variance(window.cpu(), level.rings),
        _grid_error(spectrum[0], level, size, generator)[rings].cpu(),
        image_model.contrast_sd if len(basis) == 1 else 0.0,
    )


def _drawn(
    posterior: Posterior, level: Level, pixel_size_A: float, generator: torch.Generator
) -> tuple[Pose, Tensor]:
    """A pose of every image, and the mean coefficients (n, C) there."""
    cells = posterior.cells
    probability = torch.softmax(cells.score.double(), dim=1).cpu()
    chosen = torch.multinomial(probability, 1, generator=generator).to(cells.score.device)
    direction, psi = cells.direction.gather(1, chosen)[:, 0], cells.psi.gather(1, chosen)[:, 0]
    shift_px = cells.shift_px.gather(1, chosen[..., None].expand(-1, -1, 2))[:, 0]
    frame = orientation_grid(level.nside, psi.device).frame[direction]
    here = posterior.coefficient.gather(
        1, chosen[..., None].expand(-1, -1, posterior.coefficient.shape[2])
    )[:, 0]
    coefficient = here / here[:, :1].clamp_min(1e-30)
    return Pose(frame @ about_z(psi), shift_px * pixel_size_A), coefficient


def _contrast(
    linear: Tensor, power: Tensor, image_model: ImageModel, basis_volumes: int
) -> tuple[Tensor, Tensor]:
    """Posterior mean of the contrast at a pose, and of its square; 1 for conformations."""
    if basis_volumes > 1 or image_model.contrast_sd == 0.0:
        return torch.ones_like(linear), torch.ones_like(linear)
    precision = image_model.contrast_sd**-2
    mean = (linear + precision) / (power + precision)
    return mean, mean.square() + 1.0 / (power + precision)


def _noise_variance(window: Tensor, rings: int) -> float:
    """Variance of Σ |Y|² over rings 1 ... R of windowed white noise of unit variance.

    Coefficients k and l have the covariance W(k - l), the spectrum of the window's square, so that
    the variance is twice the sum of |W|² over all pairs of the band.
    """
    size = window.shape[-1]
    spectrum = torch.fft.fft2(window.double().square()).abs().square() / size**4
    radius = torch.fft.fftfreq(size, dtype=torch.float64) * size
    shell = (radius[:, None].square() + radius.square()).sqrt().round()
    band = ((shell >= 1) & (shell <= rings)).double()
    wide = torch.fft.rfft2(band).abs().square()
    pairs = torch.fft.irfft2(wide, s=(size, size))
    return float(2.0 * (pairs * spectrum).sum())


def _grid_error(spectrum: Tensor, level: Level, size: int, generator: torch.Generator) -> Tensor:
    """(size // 2 + 1,) mean |F|² by which projections differ from those at a random place of
    their cell: turned by up to half the grid's step about each axis, shifted by half a step.
    """
    device = spectrum.device
    step = orientation_grid(level.nside, device).spacing
    centre = random_rotations(_CELLS, generator).to(device)
    turn = step * (torch.rand(_CELLS, 3, generator=generator) - 0.5)
    other = centre @ roma.rotvec_to_rotmat(turn.to(device))
    still = torch.zeros(_CELLS, 2, device=device)
    first, second = (
        fourier.rfft(
            form_images(spectrum, Pose(each, still), None, box_size=size, pixel_size_A=1.0)
        )
        for each in (centre, other)
    )
    error = fourier.shell_mean((first - second).abs().square(), size).mean(0)
    if level.shift_steps == 0:
        return error
    power = fourier.shell_mean(first.abs().square(), size).mean(0)
    shell = torch.arange(size // 2 + 1, device=device)
    return error + power * (2.0 * math.pi / size * shell * level.shift_step_px).square() / 12.0


@dataclass(frozen=True)
class GoodnessOfFit:
    """What the residuals of n images say; images that do not show the map count in the first two
    attributes only.

    Attributes:
        p_value: (n,) probability of a residual as large or larger; uniform if the model is right.
        signal: (n,) how much of the map each image shows, less what half of the images do, in
            standard deviations.
        variance: (R,) mean residual of each ring, in units of the noise.
        expected: (R,) what it should be at most: 1, and what errors of map and grid add.
        error: (R,) standard error of `variance`.
        contrast: mean contrast of the images in units of the map's.
        contrast_error: its standard error.
    """

    p_value: Tensor
    signal: Tensor
    variance: Tensor
    expected: Tensor
    error: Tensor
    contrast: float
    contrast_error: float

    @classmethod
    def joined(cls, first: "GoodnessOfFit", second: "GoodnessOfFit") -> "GoodnessOfFit":
        """Of two sets of images on the same rings."""

        def mean(name: str) -> Any:
            return 0.5 * (getattr(first, name) + getattr(second, name))

        return cls(
            torch.cat((first.p_value, second.p_value)),
            torch.cat((first.signal, second.signal)),
            mean("variance"),
            mean("expected"),
            0.5 * (first.error.square() + second.error.square()).sqrt(),
            mean("contrast"),
            0.5 * math.hypot(first.contrast_error, second.contrast_error),
        )

    @property
    def ks_distance(self) -> float:
        """Kolmogorov-Smirnov distance of the p-values from the uniform distribution."""
        return kolmogorov_smirnov(self.p_value)[0]

    @property
    def ks_significance(self) -> float:
        """Probability of such a distance, or a larger one, by chance."""
        return kolmogorov_smirnov(self.p_value)[1]

    @property
    def is_calibrated(self) -> bool:
        """Whether errors of map and grid are a small part of the residuals.

        They are upper bounds: poses adapt to the map, and cells are chosen to fit.
        """
        return float(self.expected.mean()) < 1.0 + _CALIBRATED

    @property
    def shows(self) -> Tensor:
        """(n,) bool: images that do not show less of the map than others and noise allow."""
        return self.signal > -_SIGNIFICANT

    def misfits(self, width_A: float) -> list[str]:
        """What does not fit, a phrase each; nothing if the model explains the images.

        Args:
            width_A: of the box that the rings are of.
        """
        found, n = [], len(self.p_value)
        without = 1.0 - float(self.shows.double().mean())
        if without > max(_FEW, _SIGNIFICANT / n):
            found.append(
                f"{100 * without:.0f} % of the images show less of the map than noise allows "
                "(no particle, another structure, or a wrong CTF)"
            )
        off = abs(self.contrast - 1.0)
        if off > max(_CONTRAST, _SIGNIFICANT * self.contrast_error):
            found.append(f"the images show the map at {self.contrast:.2f} times its contrast")
        else:
            found += self._noise_misfits(width_A)
        signal = self.signal[self.shows]
        if float(signal.var()) - 1.0 > max(_SPREAD, _SIGNIFICANT * math.sqrt(2.0 / len(signal))):
            found.append(
                "what images show of the map varies more than the model's contrast "
                f"(standard deviation {float(signal.std()):.2f} times)"
            )
        if not found and self.is_calibrated and self.ks_significance < _BY_CHANCE:
            found.append(
                "residuals are not distributed as the noise (Kolmogorov-Smirnov distance "
                f"{self.ks_distance:.2f})"
            )
        return found

    def _noise_misfits(self, width_A: float) -> list[str]:
        """Runs of rings whose residuals are larger than expected, or smaller.

        Where errors may be large, no residual between noise alone and their bound is wrong.
        """
        low = high = self.expected
        if not self.is_calibrated:
            low, high = low.clamp_max(1.0), high.clamp_min(1.0)
        bound = self.variance.clamp(low, high)
        ratio = self.variance / bound - 1.0
        clear = (ratio.abs() > _NOISE) & (ratio.abs() > _SIGNIFICANT * self.error / bound)
        sign = torch.where(clear, ratio.sign(), 0.0).int().tolist()
        found, first = [], 0
        for ring in range(1, len(sign) + 1):
            if ring < len(sign) and sign[ring] == sign[first]:
                continue
            if sign[first] != 0:
                more = float(ratio[first:ring].mean())
                found.append(
                    f"residuals are {100 * abs(more):.0f} % {'above' if more > 0 else 'below'} the "
                    f"noise from {width_A / (first + 1):.1f} to {width_A / ring:.1f} Å"
                )
            first = ring
        return found


def goodness_of_fit(
    found: Residuals, map_error: Tensor | None = None, *, held_out: bool = True
) -> GoodnessOfFit:
    """Compare residuals with their expectation.

    Args:
        found: of n images.
        map_error: (R,) mean |F|² of the map's error in each ring; none by default.
        held_out: False if the map was made from these images: it then follows their noise, and
            the residual is less by as much as it would be more.
    """
    error = torch.zeros_like(found.noise) if map_error is None else map_error
    of_map, of_grid = found.response * error, found.response * found.grid_error
    excess = of_grid + (of_map if held_out else -of_map)
    expected = (found.noise + excess).clamp_min(0.1 * found.noise)
    quadratic = found.quadratic.sum(1).clamp_min(1e-6)
    linear = found.linear.sum(1) + 0.5 * of_grid.sum(1)
    if not held_out:
        linear = linear - of_map.sum(1)
    spread = (quadratic + (found.contrast_sd * quadratic).square()).sqrt()
    signal = (linear - (linear / quadratic).median() * quadratic) / spread
    p_value = _p_value(found.residual.sum(1), expected.sum(1), excess.sum(1), found)
    shows = signal > -_SIGNIFICANT
    if int(shows.sum()) < 2:
        shows = torch.ones_like(shows)
    linear, quadratic, ratio = (
        linear[shows],
        quadratic[shows],
        (found.residual / found.noise)[shows],
    )
    contrast = float(linear.sum() / quadratic.sum())
    apart = (linear - contrast * quadratic).square().sum().sqrt()
    return GoodnessOfFit(
        p_value,
        signal,
        ratio.mean(0),
        (expected / found.noise)[shows].mean(0),
        ratio.std(0, correction=min(1, len(ratio) - 1)) / math.sqrt(len(ratio)),
        contrast,
        float(apart / quadratic.sum()),
    )


def _p_value(total: Tensor, mean: Tensor, excess: Tensor, found: Residuals) -> Tensor:
    """Upper tail of a gamma distribution of the residual's mean and variance."""
    variance = found.noise_variance + 4.0 * excess.clamp_min(0.0)
    shape = mean.square() / variance
    tail: Tensor = torch.special.gammaincc(shape.double(), (total * mean / variance).double())
    return tail


def fit_held_out(
    half: HalfSet,
    volume: Tensor,
    error_map: Tensor,
    rings: int,
    config: LikelihoodConfig,
    generator: torch.Generator,
    device: torch.device,
    image_model: ImageModel,
    *,
    images: int = 300,
) -> GoodnessOfFit:
    """Of images that have no part in a map.

    Args:
        half: the images, of the padded box.
        volume: (D, D, D) map of the other half-set, filtered, of their field of view.
        error_map: (D, D, D) from `error_of_maps`.
        rings: the band.
        config: assumptions about the sample.
        generator: for the choice of images and poses.
        device: where it is computed.
        image_model: contrast of the images.
        images: how many are used.
    """
    size = box_for(rings, half.particles.box_size)
    harmonics = harmonics_for(size, min(rings, size // 2 - 1), config, device)
    levels = search_for(harmonics, config)
    known, error = (rescale_volume(each.to(device), size) for each in (volume, error_map))
    scaled = half.scaled_to_images(known)
    error = error * (scaled.norm() / known.norm().clamp_min(1e-30))
    power = fourier.shell_mean(fourier.rfft(error, 3).abs().square(), size, 3)
    references = references_of(scaled[None], SINGLE_STRUCTURE, harmonics, levels)
    index = torch.randperm(len(half), generator=generator)[:images].sort().values
    posterior = posterior_of(
        half.observed(index, harmonics, device), references, image_model=image_model
    )
    found = residuals(half, index, posterior, scaled[None], levels[-1], generator, image_model)
    return goodness_of_fit(found, power[1 : levels[-1].rings + 1].cpu())


def error_of_maps(first: Tensor, second: Tensor) -> Tensor:
    """A map (D, D, D) whose mean |F|² by shell is the expected error of either of two half-maps.

    Both are filtered by their FSC, w, as the likelihood's are. Their mean squared difference is
    then 2 w² E, with E the error of an unfiltered half-map, and the expected squared error after
    the filter is w E: the variance of the map's posterior.
    """
    size = first.shape[-1]
    a, b = fourier.rfft(first, 3), fourier.rfft(second, 3)
    power = fourier.shell_sum(a.abs().square(), size, 3) * fourier.shell_sum(
        b.abs().square(), size, 3
    )
    fsc = fourier.shell_sum((a * b.conj()).real, size, 3) / power.sqrt().clamp_min(1e-30)
    shells = fourier.shell_index(size, 3, first.device).clamp_max(size // 2)
    gain = (0.5 / fsc.clamp(0.1, 1.0)).sqrt()[shells]
    return fourier.irfft((a - b) * gain, size, 3)
