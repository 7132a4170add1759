"""Pictures of benchmarks: resolution against CPU seconds, and writing any picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from cryogan.files import atomic_path

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe & Ito's, which the colour-blind can tell apart."""
_TICKS_A = (8, 10, 15, 20, 30, 50, 100, 200)


def save_figure(path: Path, figure: Figure, **options: Any) -> None:
    """Write a picture atomically, in the format of its suffix."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix.removeprefix("."), **options)


def plot_convergence(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    by: str,
    *,
    label: str = "{}",
    title: str | None = None,
    marker: str | None = None,
) -> None:
    """Resolution against the truth over CPU seconds: a colour for every value of a column.

    Args:
        path: PNG file, written atomically.
        rows: with columns `cpu_s`, `truth_fsc_0.5_A`, `truth_fsc_0.143_A` and `by`.
        by: the column.
        label: of a value, for the legend.
        title: of the picture.
        marker: of every row.
    """
    figure = Figure(figsize=(6.4, 4.0), dpi=200, layout="constrained")
    axes = figure.add_subplot()
    for number, value in enumerate(dict.fromkeys(str(row[by]) for row in rows)):
        chosen = [row for row in rows if str(row[by]) == value]
        for threshold, style in (("0.5", "-"), ("0.143", "--")):
            axes.plot(
                [float(row["cpu_s"]) for row in chosen],
                [float(row[f"truth_fsc_{threshold}_A"]) for row in chosen],
                style,
                color=COLOURS[number % len(COLOURS)],
                marker=marker,
                label=f"{label.format(value)}, FSC {threshold}",
            )
    axes.set(
        xlabel="CPU seconds", ylabel="resolution against the truth (Å)", xscale="log", yscale="log"
    )
    axes.set_yticks(_TICKS_A, labels=[str(tick) for tick in _TICKS_A])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    if title is not None:
        axes.set_title(title)
    save_figure(path, figure)
