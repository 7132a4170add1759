"""Histograms of numbers of particles (plotly)."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from cryogan.report.figures import COLOURS, style

_ACROSS = 3


@dataclass(frozen=True)
class Panel:
    """A histogram.

    Attributes:
        title: of the number.
        edges: (m + 1,) of the bins.
        count: (m,) particles in each.
        level: whether it should be level: a line says where.
    """

    title: str
    edges: NDArray[np.float64]
    count: NDArray[Any]
    level: bool = False


def histogram_figure(panels: Sequence[Panel]) -> go.Figure:
    """Histograms side by side, three a row."""
    rows = math.ceil(len(panels) / _ACROSS)
    across = min(len(panels), _ACROSS)
    height = 60 + 210 * rows
    figure = make_subplots(
        rows=rows,
        cols=across,
        horizontal_spacing=0.07,
        vertical_spacing=0.0 if rows == 1 else 80 / height,
    )
    for number, panel in enumerate(panels):
        row, column = number // _ACROSS + 1, number % _ACROSS + 1
        low, high = panel.edges[:-1], panel.edges[1:]
        figure.add_bar(
            x=0.5 * (low + high),
            y=panel.count,
            width=high - low,
            name=html.escape(panel.title),
            marker={"color": COLOURS[0], "line": {"color": "white", "width": 0.5}},
            customdata=np.stack((low, high), axis=-1),
            hovertemplate="%{customdata[0]:.3g} to %{customdata[1]:.3g}: %{y}<extra></extra>",
            row=row,
            col=column,
        )
        if panel.level:
            mean = float(panel.count.mean())
            figure.add_hline(y=mean, line={"color": COLOURS[1], "width": 2}, row=row, col=column)
        title = {"text": html.escape(panel.title)}
        figure.update_xaxes(title=title, range=panel.edges[[0, -1]].tolist(), row=row, col=column)
        if column == 1:
            figure.update_yaxes(title_text="particles", row=row, col=column)
    style(figure, height, showlegend=False, bargap=0)
    figure.update_yaxes(rangemode="tozero")
    return figure
