"""A recovered series of conformations against the true one."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from cryogan.conformations.series import Series
from cryogan.evaluation.alignment import Alignment
from cryogan.evaluation.embeddings import circular_correlation
from cryogan.evaluation.fsc import resolution_A
from cryogan.evaluation.masks import soft_mask
from cryogan.evaluation.per_image import fsc_auc
from cryogan.evaluation.resampling import resample_map
from cryogan.evaluation.series import Diversity, Spectra, align_series, diversity, moved, spectra
from cryogan.evaluation.statistics import spearman, wasserstein

_MIN_SHARE = 0.1  # of its population that a state must get to count as reached


@dataclass(frozen=True)
class SeriesComparison:
    """A series in the frame of the truth, and what it has recovered.

    n maps are compared with K true states over S = D // 2 + 1 shells.

    Attributes:
        alignment: what moved the whole series onto the truth.
        generated: the series, moved.
        truth: at the series' pixel size and in its box.
        fsc: (n, K, S); shell 0 is 1.
        fsc_masked: (n, K, S), inside a soft mask of what any true state covers.
        correlation: (n, K), Pearson, of all shells to Nyquist but shell 0.
        information: (n, K), nats (see `series`).
        motion_fsc: (S,), FSC of difference maps: of each true state minus their mean with the
            best maps minus theirs, summed over states. 0 where nothing moves or wrongly.
        mean_map_fsc: (K, S), of the truth's mean map: what a series without motion can reach.
        diversity: of the series, in the band up to `mean_resolution_A()`.
        true_diversity: of the truth, in the same band.
    """

    alignment: Alignment
    generated: Series
    truth: Series
    fsc: Tensor
    fsc_masked: Tensor
    correlation: Tensor
    information: Tensor
    motion_fsc: Tensor
    mean_map_fsc: Tensor
    diversity: Diversity
    true_diversity: Diversity

    @cached_property
    def best_state(self) -> Tensor:
        """(n,) number of each map's best true state."""
        return self.information.argmax(dim=1)

    @cached_property
    def best_volume(self) -> Tensor:
        """(K,) number of each true state's best map."""
        return self.information.argmax(dim=0)

    def resolution_A(self, threshold: float = 0.5, *, masked: bool = False) -> Tensor:
        """(n, K) resolutions in Å at which the FSC falls below the threshold."""
        curves = self.fsc_masked if masked else self.fsc
        values = [[self._resolution_A(curve, threshold) for curve in row] for row in curves]
        return torch.tensor(values, dtype=torch.float64)

    @cached_property
    def auc(self) -> Tensor:
        """(n, K) areas under the FSC (`per_image.fsc_auc`)."""
        return fsc_auc(self.fsc, self._box_size)

    def state_resolution_A(self, threshold: float = 0.5, *, masked: bool = False) -> Tensor:
        """(K,) resolution of each true state in its best map."""
        table = self.resolution_A(threshold, masked=masked)
        return table[self.best_volume, torch.arange(len(self.truth))]

    def mean_resolution_A(self, threshold: float = 0.5, *, masked: bool = False) -> float:
        """Mean over the true states that occur of their resolution in their best map."""
        return float(self.state_resolution_A(threshold, masked=masked)[self._occurs].mean())

    @property
    def mean_auc(self) -> float:
        """Mean over the true states that occur of the area under the FSC of their best map."""
        states = torch.arange(len(self.truth))
        return float(self.auc[self.best_volume, states][self._occurs].mean())

    @property
    def mean_map_resolution_A(self) -> float:
        """`mean_resolution_A()` of the truth's mean map."""
        values = [self._resolution_A(curve, 0.5) for curve in self.mean_map_fsc]
        return float(torch.tensor(values, dtype=torch.float64)[self._occurs].mean())

    @property
    def mean_map_auc(self) -> float:
        """`mean_auc` of the truth's mean map."""
        return float(fsc_auc(self.mean_map_fsc, self._box_size)[self._occurs].mean())

    @property
    def motion_resolution_A(self) -> float:
        """Resolution at which `motion_fsc` falls below 0.5; the box length if it never exceeds."""
        return self._resolution_A(self.motion_fsc, 0.5)

    @property
    def recovered_share(self) -> Tensor:
        """(K,) weight of the maps whose best match each true state is."""
        share = torch.zeros(len(self.truth), dtype=torch.float64)
        return share.index_add_(0, self.best_state, self.generated.weight)

    @property
    def reached(self) -> Tensor:
        """(K,) bool: the state is the best match of maps of a tenth of its population or more."""
        return self._occurs & (self.recovered_share >= _MIN_SHARE * self.truth.weight)

    @property
    def coverage(self) -> float:
        """Fraction of the true states that occur which are reached; at most n / K."""
        return float(self.reached[self._occurs].double().mean())

    @property
    def near_coverage(self) -> float | None:
        """`coverage`, a state counting also if a neighbour on the path is reached; else None."""
        if not self._is_path:
            return None
        order = self.truth.coordinate[:, 0].argsort()
        reached = self.reached[order].double()[None, None]
        mode = "circular" if self._is_circle else "constant"
        padded = torch.nn.functional.pad(reached, (1, 1), mode=mode)
        near = torch.nn.functional.max_pool1d(padded, 3, 1)[0, 0] > 0
        return float(near[self._occurs[order]].double().mean())

    @property
    def span(self) -> float | None:
        """States from the first to the last reached one on the path, over K; None: no such path."""
        if not self._is_path or self._is_circle:
            return None
        order = self.truth.coordinate[:, 0].argsort()
        reached = self.reached[order].nonzero()
        return float(reached.max() - reached.min() + 1) / len(self.truth) if len(reached) else 0.0

    @property
    def matched_coordinate(self) -> Tensor:
        """(n, m) true coordinates of each map's best state."""
        return self.truth.coordinate[self.best_state]

    @property
    def monotonicity(self) -> list[list[float | None]]:
        """|Spearman's rho| of each latent axis (rows) with each true axis of the matches.

        Maps of weight 0 do not count; None where a side does not vary (a collapsed series).
        """
        counts = self.generated.weight > 0
        rows = []
        for latent in self.generated.coordinate[counts].T:
            rho = [spearman(latent, matched) for matched in self.matched_coordinate[counts].T]
            rows.append([None if value is None else abs(value) for value in rho])
        return rows

    @property
    def circular_correlation(self) -> float | None:
        """|Circular correlation| of the maps' latents and true angles; None unless of a circle."""
        if not self._is_circle or self.generated.coordinate.shape[1] != 1:
            return None
        counts = self.generated.weight > 0
        latent, angle = self.generated.coordinate[counts, 0], self.matched_coordinate[counts, 0]
        return abs(circular_correlation(latent, angle))

    @property
    def wasserstein(self) -> list[float]:
        """Distance of recovered and true distribution along each true axis, over its length."""
        return [
            wasserstein(matched, self.generated.weight, true, self.truth.weight) / _length(true)
            for matched, true in zip(
                self.matched_coordinate.T, self.truth.coordinate.T, strict=True
            )
        ]

    @property
    def wasserstein_of_one_state(self) -> list[float]:
        """What `wasserstein` would be if all maps were the one best state."""
        one = torch.ones(1, dtype=torch.float64)
        return [
            min(wasserstein(x[None], one, true, self.truth.weight) for x in true) / _length(true)
            for true in self.truth.coordinate.T
        ]

    @property
    def population_error(self) -> Tensor:
        """(K,) recovered minus true share of each state, in percentage points."""
        return 100.0 * (self.recovered_share - self.truth.weight)

    def _resolution_A(self, curve: Tensor, threshold: float) -> float:
        return resolution_A(curve, threshold, self.truth.pixel_size_A, self._box_size)

    @property
    def _box_size(self) -> int:
        return self.truth.volumes.shape[-1]

    @property
    def _occurs(self) -> Tensor:
        return self.truth.weight > 0

    @property
    def _is_path(self) -> bool:
        return self.truth.coordinate.shape[1] == 1

    @property
    def _is_circle(self) -> bool:
        return self._is_path and self.truth.circular == (True,)

    def table(self) -> str:
        """The comparison as a plain-text table."""
        n, states = len(self.generated), len(self.truth)
        size, pixel_size_A = self._box_size, self.truth.pixel_size_A
        plain, masked = (self.mean_resolution_A(masked=m) for m in (False, True))
        per_state = self.state_resolution_A()[self._occurs]
        at_most = f" (at most {n / states:.0%} with {n} maps)" if n < states else ""
        rows = [
            (
                "FSC with truth = 0.5",
                f"{plain:.2f} Å (masked {masked:.2f} Å), mean over true states; the true mean "
                f"map gives {self.mean_map_resolution_A:.2f} Å",
            ),
            ("", f"best state {per_state.min():.2f} Å, worst {per_state.max():.2f} Å"),
            (
                "area under the FSC",
                f"{self.mean_auc:.3f}, mean over true states; the true mean map gives "
                f"{self.mean_map_auc:.3f}",
            ),
            (
                "FSC of the motion = 0.5",
                "never reached"
                if self.motion_resolution_A >= size * pixel_size_A
                else f"{self.motion_resolution_A:.2f} Å (difference maps of all states)",
            ),
            (
                "coverage",
                f"{self.coverage:.0%} of {states} true states are the best match of a map"
                + at_most,
            ),
        ]
        if self.near_coverage is not None:
            text = f"{self.near_coverage:.0%} within one state"
            span = (
                "" if self.span is None else f"; the reached ones span {self.span:.0%} of the path"
            )
            rows.append(("", text + span))
        if self.circular_correlation is not None:
            rows.append(("circular correlation", f"{self.circular_correlation:.3f} of the maps"))
        for axis, row in enumerate(self.monotonicity):
            rho = ", ".join("undefined" if value is None else f"{value:.3f}" for value in row)
            if rho:
                rows.append((f"|Spearman rho| of z{axis}", f"{rho} with the true coordinate"))
        for axis, (distance, one) in enumerate(
            zip(self.wasserstein, self.wasserstein_of_one_state, strict=True), start=1
        ):
            rows.append(
                (
                    f"Wasserstein, axis {axis}",
                    f"{distance:.3f} of its length ({one:.3f} if all maps were one state)",
                )
            )
        error = self.population_error.abs()
        rows.append(
            (
                "population error",
                f"{error.mean():.1f} percentage points a state, {error.max():.1f} the largest",
            )
        )
        ratio = self.diversity.amplitude / max(self.true_diversity.amplitude, 1e-30)
        rows += [
            (
                "amplitude of motion",
                f"{self.diversity.amplitude:.3f} of the mean map, truth "
                f"{self.true_diversity.amplitude:.3f} (ratio {ratio:.2f})",
            ),
            (
                "largest difference",
                f"{self.diversity.largest:.3f}, truth {self.true_diversity.largest:.3f}",
            ),
            (
                "hand of the series",
                "mirror image of the truth's" if self.alignment.mirrored else "as the truth's",
            ),
            (
                "compared in",
                f"a box of {size} px of {pixel_size_A:.4g} Å (Nyquist {2 * pixel_size_A:.4g} Å), "
                "one alignment for all maps",
            ),
        ]
        return "\n".join(f"{name:<24}{text}" for name, text in rows)


def compare_series(generated: Series, truth: Series) -> SeriesComparison:
    """Align a series to the truth as a whole, match maps and states, and compare them.

    The truth is brought to the series' pixel size and box first.

    Args:
        generated: n ≥ 1 maps in one frame, any hand.
        truth: K ≥ 1 states; any box and pixel size.

    Raises:
        InputError: the mean of a series is constant, or the box is smaller than 16 voxels.
    """
    pixel_size_A, size = generated.pixel_size_A, generated.volumes.shape[-1]
    resampled = [
        resample_map(volume.to(generated.volumes), truth.pixel_size_A, pixel_size_A, size)
        for volume in truth.volumes
    ]
    truth = replace(truth, volumes=torch.stack(resampled), pixel_size_A=pixel_size_A)
    alignment = align_series(generated, truth)
    generated = moved(generated, alignment)
    ours, theirs = spectra(generated.volumes), spectra(truth.volumes)
    fsc = ours.fsc(theirs)
    information = ours.information(fsc)
    norm = ours.power.sum(-1)[:, None] * theirs.power.sum(-1)
    mask = soft_mask(truth.volumes[truth.weight > 0].amax(dim=0), pixel_size_A)
    comparison = SeriesComparison(
        alignment=alignment,
        generated=generated,
        truth=truth,
        fsc=fsc,
        fsc_masked=spectra(generated.volumes * mask).fsc(spectra(truth.volumes * mask)),
        correlation=ours.products(theirs).sum(-1) / norm.sqrt().clamp_min(1e-30),
        information=information,
        motion_fsc=_motion_fsc(
            generated.volumes[information.argmax(dim=0)], truth.volumes, truth.weight
        ),
        mean_map_fsc=spectra(truth.mean[None]).fsc(theirs)[0],
        diversity=diversity(generated),
        true_diversity=diversity(truth),
    )
    band_A = comparison.mean_resolution_A()
    return replace(
        comparison,
        diversity=diversity(generated, band_A),
        true_diversity=diversity(truth, band_A),
    )


def _motion_fsc(volumes: Tensor, states: Tensor, weight: Tensor) -> Tensor:
    """FSC (S,) of the departures of K maps and K states from their weighted means."""

    def departures(maps: Tensor) -> Spectra:
        return spectra(maps - torch.tensordot(weight.to(maps), maps, dims=1))

    ours, theirs = departures(volumes), departures(states)
    cross = ours.products(theirs).diagonal() @ weight
    norm = ((weight @ ours.power) * (weight @ theirs.power)).sqrt()
    fsc = torch.where(norm > 0, cross / norm.clamp_min(1e-30), 0.0)
    return torch.nn.functional.pad(fsc, (1, 0), value=1.0)


def _length(coordinate: Tensor) -> float:
    return max(float(coordinate.max() - coordinate.min()), 1e-30)
