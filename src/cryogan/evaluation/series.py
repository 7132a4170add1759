"""Series of maps in one frame: inner products by shell, diversity, alignment as a whole.

One rigid alignment and hand serves a whole series: aligning each map on its own would hide wrong
motions. Mean is aligned to mean for a few candidates of each hand, and maps are matched to true
states. For the candidate of each hand whose maps match best, the mean of the matched states
becomes the next reference, and so on; the hand whose maps match best wins.

A map's match is the state with which it shares most information, `-½ Σ n_s log(1 - FSC_s²)` over
shells s of n_s coefficients: what two Gaussian signals of these correlations say of one another,
so that neither a map's amplitude spectrum nor its noise matters.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryogan import fourier
from cryogan.conformations.series import Series, weighted_mean
from cryogan.evaluation.alignment import (
    Alignment,
    alignments,
    apply_alignment,
    refine_alignment,
)

_SEARCH_BOX = 48  # candidates are compared in this box
_CANDIDATES = 3  # of each hand
_ROUNDS = 4  # of matching and alignment to the matches, at most


@dataclass(frozen=True)
class Diversity:
    """How much the maps of a series differ; needs no truth.

    The constant part of the maps (shell 0) is left out.

    Attributes:
        difference: (n, n), ‖V_i - V_j‖ / ‖mean map‖.
        amplitude: of the motion, `sqrt(Σ_i w_i ‖V_i - mean‖²) / ‖mean‖`. 0: all maps are one.
    """

    difference: Tensor
    amplitude: float

    @property
    def largest(self) -> float:
        """Difference of the two maps that differ most."""
        return float(self.difference.max())


@dataclass(frozen=True)
class Spectra:
    """Spectra of n maps, shells 1 ... D // 2 within the Nyquist sphere.

    Attributes:
        shells: of each shell s the (n, 2 m_s) real and imaginary parts of its stored
            coefficients, times the root of how often each stands in the full spectrum.
        number: (D // 2,) coefficients of each shell of the full spectrum.
    """

    shells: list[Tensor]
    number: Tensor

    def products(self, other: "Spectra") -> Tensor:
        """(n, k, D // 2) inner products with k other maps in each shell, float64."""
        pairs = zip(self.shells, other.shells, strict=True)
        return torch.stack([(a @ b.T).double() for a, b in pairs], dim=-1)

    @property
    def power(self) -> Tensor:
        """(n, D // 2), float64."""
        return torch.stack([shell.square().sum(1).double() for shell in self.shells], dim=-1)

    def fsc(self, other: "Spectra") -> Tensor:
        """(n, k, D // 2 + 1) Fourier shell correlations; shell 0 is 1, powerless shells are 0."""
        norm = (self.power[:, None] * other.power).sqrt()
        fsc = torch.where(norm > 0, self.products(other) / norm.clamp_min(1e-30), 0.0)
        return torch.nn.functional.pad(fsc, (1, 0), value=1.0)

    def information(self, fsc: Tensor) -> Tensor:
        """(n, k) nats that maps of these FSCs share (see the module)."""
        shared = fsc[..., 1:].clamp(0.0, 0.9999).square()
        return -0.5 * (self.number * torch.log1p(-shared)).sum(-1)


def spectra(volumes: Tensor) -> Spectra:
    """Spectra of maps (n, D, D, D), sorted by shell."""
    box_size, device = volumes.shape[-1], volumes.device
    count = box_size // 2
    shell = fourier.shell_index(box_size, 3, device).flatten()
    inside = fourier.frequency_grid(box_size, 3, device).norm(dim=-1).flatten() <= 0.5
    chosen = (inside & (shell >= 1) & (shell <= count)).nonzero()[:, 0]
    chosen = chosen[shell[chosen].argsort(stable=True)]
    weight = fourier.half_weights(box_size, device).expand(box_size, box_size, -1)
    weight = weight.flatten()[chosen]
    values = torch.stack([fourier.rfft(v, 3).flatten()[chosen] for v in volumes])
    parts = torch.view_as_real(values * weight.sqrt()).flatten(1)
    sizes = torch.bincount(shell[chosen] - 1, minlength=count)
    number = torch.zeros(count, dtype=torch.float64, device=device)
    number.index_add_(0, shell[chosen] - 1, weight.double())
    return Spectra(list(torch.split(parts, (2 * sizes).tolist(), dim=1)), number)


def diversity(series: Series, resolution_A: float | None = None) -> Diversity:
    """How much the maps of a series differ from one another.

    Args:
        series: n maps in one frame.
        resolution_A: only this resolution and lower counts; None for all to Nyquist.
    """
    size, mean = series.volumes.shape[-1], series.mean
    band = size // 2
    if resolution_A is not None:
        band = min(band, max(1, int(size * series.pixel_size_A / resolution_A)))
    deviation = spectra(series.volumes - mean)
    gram = deviation.products(deviation)[..., :band].sum(-1)
    mean_power = spectra(mean[None]).power[0, :band].sum().clamp_min(1e-30)
    own = gram.diagonal()
    squared = (own[:, None] + own - gram - gram.T).clamp_min(0.0) / mean_power
    amplitude = ((own * series.weight).sum() / mean_power).sqrt()
    return Diversity(squared.sqrt().fill_diagonal_(0.0), float(amplitude))


def align_series(generated: Series, truth: Series) -> Alignment:
    """The rotation, shift and hand that move a whole series onto the truth.

    Args:
        generated: n maps.
        truth: K states on the same grid.

    Raises:
        InputError: the mean of a series is constant, or the box is smaller than 16 voxels.
    """
    small, small_truth = _cropped(generated), _cropped(truth)
    small_spectra = spectra(small_truth.volumes)
    settled = []
    for hand in (False, True):
        starts = [
            _match(small, small_spectra, start)
            for start in alignments(
                small.mean, small_truth.mean, small.pixel_size_A, hands=(hand,), count=_CANDIDATES
            )
        ]
        start = max(starts, key=lambda match: match.score)
        settled.append(_settled(small, small_truth, small_spectra, start))
    best = max(settled, key=lambda match: match.score)
    if small is not generated:
        truth_spectra = spectra(truth.volumes)
        best = _match(generated, truth_spectra, best.alignment)
        best = _settled(generated, truth, truth_spectra, best)
    return best.alignment


@dataclass(frozen=True)
class _Match:
    """An alignment, each map's best state (n,), and the weighted information of all matches."""

    alignment: Alignment
    state: Tensor
    score: float


def _match(generated: Series, truth_spectra: Spectra, alignment: Alignment) -> _Match:
    ours = spectra(moved(generated, alignment).volumes)
    best = ours.information(ours.fsc(truth_spectra)).max(dim=1)
    return _Match(alignment, best.indices, float((best.values * generated.weight).sum()))


def _settled(generated: Series, truth: Series, truth_spectra: Spectra, match: _Match) -> _Match:
    """Align to the mean of the matches and match again, as long as maps match better."""
    mean = generated.mean
    for _ in range(_ROUNDS):
        reference = weighted_mean(truth.volumes[match.state], generated.weight)
        closer = refine_alignment(mean, reference, generated.pixel_size_A, match.alignment)
        new = _match(generated, truth_spectra, closer)
        if new.score <= match.score:
            break
        match, before = new, match
        if torch.equal(match.state, before.state):
            break
    return match


def moved(series: Series, alignment: Alignment) -> Series:
    """The series, each map moved alike."""
    volumes = [apply_alignment(v, alignment, series.pixel_size_A) for v in series.volumes]
    return replace(series, volumes=torch.stack(volumes))


def _cropped(series: Series) -> Series:
    """Fourier-cropped to the search's box, same field of view, if that is smaller."""
    size = series.volumes.shape[-1]
    if size <= _SEARCH_BOX:
        return series
    volumes = torch.stack([fourier.resample(v, _SEARCH_BOX, 3) for v in series.volumes])
    return replace(series, volumes=volumes, pixel_size_A=series.pixel_size_A * size / _SEARCH_BOX)
