"""Pictures of FSC curves."""

from collections.abc import Mapping
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cryogan.evaluation.fsc import resolution_A
from cryogan.files import atomic_path

# Okabe & Ito's colour-blind safe palette
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_THRESHOLDS = (0.5, 0.143)


def plot_fsc(
    path: Path | str,
    pixel_size_A: float,
    curves: Mapping[str, Tensor],
    box_size: int | None = None,
) -> None:
    """Write a picture of FSC curves; the legend gives each one's resolutions.

    Args:
        path: PNG (or PDF, SVG) file, written atomically.
        pixel_size_A: of the maps.
        curves: name of each curve and its (D // 2 + 1,) values.
        box_size: D; needed for odd boxes only, as in `fsc.resolution_A`.

    Raises:
        InputError: the folder cannot be written.
    """
    figure = Figure(figsize=(5.6, 3.8), dpi=200, layout="constrained")
    axes = figure.add_subplot()
    nyquist = 0.5 / pixel_size_A
    for threshold in _THRESHOLDS:
        axes.axhline(threshold, color="0.55", linewidth=0.8, linestyle=(0, (4, 3)))
        axes.annotate(
            f"{threshold}",
            (0.0, threshold),
            xytext=(4, 2),
            textcoords="offset points",
            fontsize=8,
            color="0.35",
        )
    axes.axhline(0.0, color="0.8", linewidth=0.8)
    for number, (name, curve) in enumerate(curves.items()):
        size = 2 * (len(curve) - 1) if box_size is None else box_size
        frequency = torch.arange(1, len(curve)) / (size * pixel_size_A)
        at = " / ".join(f"{resolution_A(curve, t, pixel_size_A, size):.1f}" for t in _THRESHOLDS)
        axes.plot(
            frequency.tolist(),
            curve[1:].tolist(),
            color=_COLOURS[number % len(_COLOURS)],
            linewidth=1.6,
            label=f"{name.replace('_', ' ')}  ({at} Å)",
        )
    axes.set_xlim(0.0, nyquist)
    axes.set_ylim(-0.1, 1.03)
    axes.set_xlabel("spatial frequency (1/Å)")
    axes.set_ylabel("Fourier shell correlation")
    ticks = [nyquist * part / 5 for part in range(1, 6)]
    top = axes.secondary_xaxis("top")
    top.set_xticks(ticks, [f"{1 / tick:.1f}" for tick in ticks])
    top.set_xlabel("resolution (Å)")
    for side in (axes, top):
        side.tick_params(labelsize=8, direction="in")
    axes.legend(frameon=False, fontsize=8, title="at 0.5 / 0.143", title_fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, metadata={"Software": "cryogan"})
