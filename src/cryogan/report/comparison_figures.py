"""The figures of a comparison of runs: FSC curves of several runs in one picture (plotly)."""

import html
from collections.abc import Collection, Mapping

import numpy as np
import plotly.graph_objects as go

from cryogan.evaluation.comparison import Comparison
from cryogan.report.figures import COLOURS, fsc_curve, fsc_layout
from cryogan.report.resolution import quoted_resolutions
from cryogan.run.contents import FSCTable, RunContents

_HALF_MAPS = {"half_map": "no mask", "half_map_masked": "soft mask"}
_THRESHOLDS = (0.5, 0.143)


def half_maps_figure(runs: Mapping[str, RunContents]) -> go.Figure:
    """Half-map FSC curves, a colour a run; rings where a run quotes a resolution.

    Args:
        runs: label → run; one without `fsc.csv` has no curve.
    """
    figure = go.Figure()
    tables = []
    for number, (label, run) in enumerate(runs.items()):
        if run.fsc is None:
            continue
        names = [name for name in _HALF_MAPS if name in run.fsc.curves]
        table = FSCTable(
            run.fsc.spatial_frequency_per_A, {name: run.fsc.curves[name] for name in names}
        )
        tables.append(table)
        for name in names:
            rings = [(q.threshold, q.value_A) for q in quoted_resolutions(run) if q.curve == name]
            text = html.escape(f"{label}, {_HALF_MAPS[name]}")
            fsc_curve(figure, table, name, text, _colour(number), rings)
    return fsc_layout(figure, *tables)


def maps_figure(
    first: str, compared: Mapping[str, Comparison], without_structure: Collection[str] = ()
) -> go.Figure:
    """FSC of every other map with the first one, in the colour that its run has above.

    Args:
        first: label of the run whose map the others are compared with.
        compared: label of each other run → its map beside the first one.
        without_structure: labels of those whose curve has no rings, since no crossing is a
            resolution.
    """
    figure = go.Figure()
    tables = []
    for number, (label, found) in enumerate(compared.items(), start=1):
        width_A = found.truth.shape[-1] * found.pixel_size_A
        curves = {"maps": found.fsc, "maps_masked": found.fsc_masked}
        table = FSCTable(
            np.arange(len(found.fsc)) / width_A,
            {name: curve.double().numpy() for name, curve in curves.items()},
        )
        tables.append(table)
        for name, where in (("maps", "no mask"), ("maps_masked", "soft mask")):
            masked = name == "maps_masked"
            shown = () if label in without_structure else _THRESHOLDS
            rings = [(t, found.resolution_A(t, masked=masked)) for t in shown]
            text = html.escape(f"{label} and {first}, {where}")
            fsc_curve(figure, table, name, text, _colour(number), rings)
    return fsc_layout(figure, *tables)


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
