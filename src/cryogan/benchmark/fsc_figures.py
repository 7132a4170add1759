"""FSC curves of a set: half-maps and truth, the published numbers beside them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cryogan.benchmark.curves import COLOURS, save_figure
from cryogan.benchmark.evaluating import FSC
from cryogan.benchmark.experiments import ESTIMATED, TRUE_POSES
from cryogan.benchmark.order import Order
from cryogan.benchmark.rows import read_rows
from cryogan.benchmark.tables import METHODS, VIEWS

_GREY = "0.45"


def plot_fsc_of_set(path: Path, orders: Sequence[Order]) -> None:
    """The half-map FSC and that with the truth, of all cells of one set.

    Published resolutions are crosses on the thresholds. Seeds have the same colour.

    Args:
        path: PNG file.
        orders: finished cells of one set, with FSC curves.
    """
    figure = Figure(figsize=(9.6, 4.2), dpi=160, layout="constrained")
    half, truth = figure.subplots(1, 2, sharey=True)
    own = [order for order in orders if order.cell.method != TRUE_POSES]
    labels = list(dict.fromkeys(label_of(order) for order in own))
    finest = 0.0
    for order in orders:
        rows = read_rows(order.folder / FSC)[1:]
        frequency = [float(row["spatial_frequency_per_A"]) for row in rows]
        finest = max(finest, frequency[-1])
        label = label_of(order)
        first = order is next(each for each in orders if label_of(each) == label)
        is_bound = order.cell.method == TRUE_POSES
        colour = _GREY if is_bound else COLOURS[labels.index(label) % len(COLOURS)]
        for axes, column in ((half, "half_map"), (truth, "truth")):
            axes.plot(
                frequency,
                [float(row[column]) for row in rows],
                "--" if is_bound else "-",
                color=colour,
                lw=1.6,
                label=label if first and axes is truth else None,
            )
    _mark_published(half, truth, orders, finest)
    for axes, title in ((half, "between half-maps"), (truth, "with the truth")):
        for threshold in (0.5, 0.143):
            axes.axhline(threshold, color="0.7", lw=0.8, ls=(0, (4, 3)), zorder=0)
        axes.set(xlim=(0.0, finest), ylim=(-0.1, 1.03), title=title)
        axes.set_xlabel("resolution (Å)")
        ticks = [finest * part / 6 for part in range(1, 7)]
        axes.set_xticks(ticks, [f"{1 / tick:.1f}" for tick in ticks])
    half.set_ylabel("Fourier shell correlation")
    figure.suptitle(orders[0].set_.label)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    save_figure(path, figure)


def label_of(order: Order) -> str:
    """A cell in words: method, views and symmetry."""
    cell = order.cell
    words = [METHODS[cell.method].removesuffix(" (bound)")]
    if order.experiment.compares_views and cell.method != TRUE_POSES:
        how = "views" if cell.assumed == ESTIMATED else "assumed"
        words.append(f"{how} {VIEWS[cell.assumed].strip('*')}")
    return ", ".join([*words, cell.symmetry])


def _mark_published(half: Axes, truth: Axes, orders: Iterable[Order], finest: float) -> None:
    published = {
        order.experiment.published.get((order.cell.set_name, order.cell.assumed))
        for order in orders
        if order.cell.method != TRUE_POSES and order.cell.symmetry == "D2"
    } - {None}
    shown = False
    for values in published:
        assert values is not None
        for axes, resolution_A, threshold in (
            (half, values.half_map, 0.143),
            (truth, values.truth_half, 0.5),
            (truth, values.truth, 0.143),
        ):
            if 1.0 / resolution_A <= finest:
                axes.plot([1.0 / resolution_A], [threshold], "kx", ms=7, mew=1.6, clip_on=False)
                shown = True
    if shown:
        half.plot([], [], "kx", ms=7, mew=1.6, label="published")
