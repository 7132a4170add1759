"""A picture of a recovered series of conformations beside the true one."""

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from cryogan.evaluation.series_comparison import SeriesComparison
from cryogan.files import atomic_path

_TRUE, _RECOVERED, _MATCH = "0.45", "#0072B2", "#D55E00"  # colour-blind safe


def plot_series(path: Path | str, comparison: SeriesComparison) -> None:
    """Write a picture: shares of the true states, the matrix of FSCs, resolution per state.

    Args:
        path: PNG (or PDF, SVG) file, written atomically.
        comparison: from `compare_series`.

    Raises:
        InputError: the folder cannot be written.
    """
    figure = Figure(figsize=(6.4, 7.2), dpi=200, layout="constrained")
    shares, matrix, resolution = figure.subplots(
        3, 1, sharex=True, gridspec_kw={"height_ratios": (1.0, 3.4, 1.0)}
    )
    _draw_shares(shares, comparison)
    image = _draw_matrix(matrix, comparison)
    _draw_resolution(resolution, comparison)
    _label_states(resolution, comparison)
    figure.colorbar(image, ax=matrix, label="area under the FSC (at most 0.5)", pad=0.02)
    figure.suptitle(_headline(comparison), fontsize=10)
    for axes in (shares, matrix, resolution):
        axes.tick_params(labelsize=8, direction="in")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, metadata={"Software": "cryogan"})


def _headline(comparison: SeriesComparison) -> str:
    first = [f"{comparison.coverage:.0%} of {len(comparison.truth)} true states found"]
    rho = [value for row in comparison.monotonicity for value in row if value is not None]
    if len(rho) == 1:
        first.append(f"|Spearman ρ| = {rho[0]:.2f}")
    first += [f"Wasserstein distance {distance:.3f}" for distance in comparison.wasserstein]
    second = [
        f"mean FSC 0.5 at {comparison.mean_resolution_A():.1f} Å",
        f"area under the FSC {comparison.mean_auc:.3f} "
        f"(the true mean map: {comparison.mean_map_auc:.3f})",
    ]
    return ", ".join(first) + "\n" + ", ".join(second)


def _draw_shares(axes: Axes, comparison: SeriesComparison) -> None:
    states = torch.arange(len(comparison.truth)).tolist()
    recovered = (100.0 * comparison.recovered_share).tolist()
    true = (100.0 * comparison.truth.weight).tolist()
    axes.bar(states, recovered, width=0.8, color=_RECOVERED, label="recovered")
    axes.stairs(
        true,
        [state - 0.5 for state in range(len(states) + 1)],
        color=_TRUE,
        linewidth=1.4,
        label="true",
    )
    axes.set_ylabel("images (%)")
    axes.set_ylim(0.0, 1.35 * max(recovered + true))
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper right")


def _draw_matrix(axes: Axes, comparison: SeriesComparison) -> AxesImage:
    image = axes.imshow(comparison.auc.tolist(), aspect="auto", cmap="viridis", origin="lower")
    count = len(comparison.generated)
    axes.plot(
        comparison.best_state.tolist(),
        range(count),
        "o",
        markersize=5,
        color=_MATCH,
        markeredgecolor="white",
        markeredgewidth=0.6,
        label="best state of each map",
    )
    axes.plot(
        range(len(comparison.truth)),
        comparison.best_volume.tolist(),
        "s",
        markersize=9,
        fillstyle="none",
        color="white",
        label="best map of each state",
    )
    axes.set_ylim(-0.5, count - 0.5)
    coordinate = comparison.generated.coordinate
    step = max(1, count // 8)
    ticks = range(0, count, step)
    if coordinate.shape[1] == 1:
        axes.set_yticks(ticks, [f"{float(coordinate[tick, 0]):.2f}" for tick in ticks])
        axes.set_ylabel("recovered maps, by latent")
    else:
        axes.set_yticks(ticks, [comparison.generated.names[tick] for tick in ticks])
        axes.set_ylabel("recovered maps")
    legend = axes.legend(fontsize=8, loc="best", facecolor="0.3", edgecolor="none")
    for text in legend.get_texts():
        text.set_color("white")
    return image


def _draw_resolution(axes: Axes, comparison: SeriesComparison) -> None:
    states = range(len(comparison.truth))
    pixel_size_A = comparison.truth.pixel_size_A
    for masked, style, name in ((False, "o-", "unmasked"), (True, "^:", "masked")):
        values = comparison.state_resolution_A(masked=masked).tolist()
        axes.plot(states, values, style, color=_RECOVERED, markersize=4, linewidth=1, label=name)
    axes.axhline(2.0 * pixel_size_A, color=_TRUE, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.annotate(
        "Nyquist",
        (0.0, 2.0 * pixel_size_A),
        xycoords=("axes fraction", "data"),
        xytext=(4, -2),
        textcoords="offset points",
        fontsize=8,
        color=_TRUE,
        verticalalignment="top",
    )
    axes.set_ylim(0.0, 1.12 * axes.get_ylim()[1])
    axes.set_ylabel("FSC 0.5 (Å)")
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower right")


def _label_states(axes: Axes, comparison: SeriesComparison) -> None:
    truth = comparison.truth
    step = max(1, len(truth) // 10)
    ticks = range(0, len(truth), step)
    if truth.coordinate.shape[1] == 1:
        axes.set_xticks(ticks, [f"{float(truth.coordinate[tick, 0]):.2f}" for tick in ticks])
        axes.set_xlabel("true states, by their coordinate on the path")
    else:
        axes.set_xticks(ticks, [truth.names[tick] for tick in ticks])
        axes.set_xlabel("true states")
