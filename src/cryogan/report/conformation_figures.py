"""The figures of a series of conformations (plotly)."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from cryogan.conformations.folder import ConformationFolder
from cryogan.conformations.series import Series
from cryogan.report.figures import COLOURS, style
from cryogan.run.contents import FloatArray

_COMPONENTS = 3  # shown
_HEIGHT = 380


def difference_figure(found: ConformationFolder) -> go.Figure:
    """The matrix of relative differences as a picture; the folder must have it."""
    assert found.differences is not None
    series = found.series
    numbers = np.arange(len(series))
    figure = go.Figure()
    figure.add_heatmap(
        x=numbers,
        y=numbers,
        z=found.differences.numpy(),
        colorscale="Viridis",
        zmin=0.0,
        colorbar=_colour_bar("‖ΔV‖ / ‖mean‖"),
        hovertemplate="maps %{x} and %{y}: %{z:.3f}<extra></extra>",
    )
    style(figure, _HEIGHT)
    what, ticks = "class" if series.kind == "classes" else "map", _ticks(series)
    figure.update_xaxes(title_text=what, constrain="domain", **ticks)
    figure.update_yaxes(
        title_text=what, scaleanchor="x", constrain="domain", autorange="reversed", **ticks
    )
    return figure


def amplitudes_figure(found: ConformationFolder) -> go.Figure:
    """Amplitudes along the first principal components over the latent (a grid: one another)."""
    assert found.amplitudes is not None
    series, amplitudes, latents = found.series, found.amplitudes.numpy(), _latents(found.series)
    figure = go.Figure()
    titles = [
        f"component {k} ({100 * share:.0f} %)"
        for k, share in enumerate(found.shares.tolist(), start=1)
    ]
    plane = series.kind == "grid" and amplitudes.shape[1] >= 2
    if plane:
        figure.add_scatter(
            x=amplitudes[:, 0],
            y=amplitudes[:, 1],
            mode="markers",
            marker={
                "color": latents[:, 0],
                "colorscale": "Viridis",
                "size": 10,
                "colorbar": _colour_bar("z0"),
            },
            customdata=np.column_stack((np.arange(len(series)), latents)),
            hovertemplate="map %{customdata[0]}: z0 %{customdata[1]:.3f}, "
            "z1 %{customdata[2]:.3f}<extra></extra>",
        )
    else:
        x, label = _abscissa(series)
        mode = "markers" if series.kind == "classes" else "lines+markers"
        for number, title in enumerate(titles[:_COMPONENTS]):
            figure.add_scatter(
                x=x,
                y=amplitudes[:, number],
                name=title,
                mode=mode,
                line={"color": COLOURS[number], "width": 2},
                marker={"size": 10 if series.kind == "classes" else 5},
                hovertemplate="%{y:.3f}",
            )
    style(
        figure,
        _HEIGHT,
        hovermode="closest" if plane else "x unified",
        showlegend=not plane,
        legend={"orientation": "h", "x": 0.5, "xanchor": "center", "y": -0.22, "yanchor": "top"},
    )
    figure.update_layout(margin={"b": 56 if plane else 84})
    if plane:
        figure.update_xaxes(title_text=titles[0])
        figure.update_yaxes(title_text=titles[1])
    else:
        figure.update_xaxes(title_text=label, **_ticks(series))
        figure.update_yaxes(title_text="amplitude / ‖mean‖")
    return figure


def density_figure(found: ConformationFolder) -> go.Figure:
    """Shares of the particles: over latent and path, of the classes, or on the grid."""
    series = found.series
    percent = 100 * series.weight.numpy()
    if series.kind == "grid":
        figure = go.Figure()
        z0, z1 = (np.unique(column) for column in _latents(series).T)
        figure.add_heatmap(
            x=z0,
            y=z1,
            z=percent.reshape(len(z0), len(z1)).T,
            colorscale="Viridis",
            zmin=0.0,
            zmax=float(percent.max()),
            colorbar=_colour_bar("%"),
            hovertemplate="z0 %{x:.3f}, z1 %{y:.3f}: %{z:.2f} %<extra></extra>",
        )
        style(figure, _HEIGHT)
        figure.update_xaxes(title_text="latent z0", constrain="domain")
        figure.update_yaxes(title_text="latent z1", scaleanchor="x", constrain="domain")
        return figure
    panels = [_abscissa(series)]
    if series.kind == "path" and found.differences is not None and len(series) > 1:
        panels.append(
            (path_length(found.differences.numpy()), "change along the path, ‖ΔV‖ / ‖mean‖")
        )
    figure = make_subplots(rows=1, cols=len(panels), horizontal_spacing=0.1)
    for number, (x, label) in enumerate(panels, start=1):
        figure.add_bar(
            x=x,
            y=percent,
            width=_widths(x),
            row=1,
            col=number,
            marker={"color": COLOURS[0], "line": {"color": "white", "width": 1}},
            customdata=np.arange(len(series)),
            hovertemplate="map %{customdata}: %{y:.2f} %<extra></extra>",
        )
        figure.update_xaxes(title_text=label, row=1, col=number, **_ticks(series))
    style(figure, 320, showlegend=False, bargap=0)
    figure.update_yaxes(title_text="share of the particles (%)", rangemode="tozero", col=1)
    return figure


def path_length(differences: FloatArray) -> FloatArray:
    """(n,) relative change from each map to the next, summed from the first map on."""
    steps = np.diagonal(differences, offset=1)
    return np.concatenate(([0.0], np.cumsum(steps)))


def _colour_bar(title: str) -> dict[str, Any]:
    font = {"size": 12}
    return {"thickness": 12, "outlinewidth": 0, "title": {"text": title, "font": font}}


def _latents(series: Series) -> FloatArray:
    """(n, m) of the maps."""
    return np.asarray(series.coordinate.numpy(), dtype=np.float64)


def _abscissa(series: Series) -> tuple[FloatArray, str]:
    latents = _latents(series)
    if series.kind == "path" and latents.shape[1] == 1:
        return latents[:, 0], "latent z"
    return np.arange(len(series), dtype=float), "class" if series.kind == "classes" else "map"


def _ticks(series: Series) -> dict[str, Any]:
    return {"dtick": 1} if series.kind == "classes" and len(series) <= 20 else {}


def _widths(x: FloatArray) -> FloatArray:
    """Widths of bars at x that reach half way to their neighbours on both sides, at most."""
    if len(x) < 2:
        return np.ones(1)
    gaps = np.abs(np.diff(x))
    padded = np.concatenate((gaps[:1], gaps, gaps[-1:]))
    width: FloatArray = np.minimum(padded[:-1], padded[1:])
    return np.where(width > 0, width, gaps.max() if gaps.max() > 0 else 1.0)
