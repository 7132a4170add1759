"""The figures of validation: conical FSC, local resolution, Guinier plot (plotly)."""

import healpix
import numpy as np
import plotly.graph_objects as go

from cryogan.report.figures import COLOURS, LEGEND_ABOVE, fsc_axes, style, threshold_line
from cryogan.run.contents import FloatArray, FSCTable


def directional_figure(table: FSCTable) -> go.Figure:
    """Mean conical FSC of each shell, within the range over the directions."""
    figure = go.Figure()
    curves = (("highest", 1.0, "dot"), ("lowest", 1.0, "dot"), ("mean", 2.2, "solid"))
    for name, width, dash in curves:
        figure.add_scatter(
            x=table.spatial_frequency_per_A[1:],
            y=table.curves[name][1:],
            name=f"{name} over all directions",
            mode="lines",
            line={"color": COLOURS[0], "width": width, "dash": dash},
            fill="tonexty" if name == "lowest" else None,
            fillcolor="rgba(31,106,165,0.14)",
            customdata=table.resolution_A[1:],
            hovertemplate="%{customdata:.2f} Å: FSC %{y:.3f}",
        )
    threshold_line(figure, 0.143)
    style(figure, 380, hovermode="x unified", legend=LEGEND_ABOVE)
    fsc_axes(figure, table)
    return figure


def view_density_figure(columns: dict[str, FloatArray]) -> go.Figure:
    """Mean density of viewing directions of both half-sets, on a Mollweide projection."""
    density = 0.5 * (columns["half1"] + columns["half2"])
    x, y = np.linspace(-2.0, 2.0, 161), np.linspace(-1.0, 1.0, 81)
    across, up = np.meshgrid(x, y)
    inside = across**2 / 4.0 + up**2 <= 1.0
    theta = np.arcsin(up)
    latitude = np.arcsin(np.clip((2.0 * theta + np.sin(2.0 * theta)) / np.pi, -1.0, 1.0))
    longitude = np.pi * across / (2.0 * np.cos(theta).clip(1e-9))
    tilt, rot = np.pi / 2.0 - latitude, np.where(inside, longitude, 0.0)
    nside = healpix.npix2nside(len(density))
    cell = healpix.ang2pix(nside, tilt, rot % (2.0 * np.pi), nest=True)
    figure = go.Figure()
    figure.add_heatmap(
        x=x,
        y=y,
        z=np.where(inside, density[cell], np.nan).astype(np.float32),
        zmin=0.0,
        zmax=max(2.0, float(density.max())),  # uniform views are all of one colour
        colorscale="Viridis",
        colorbar={"title": "× uniform"},
        customdata=np.stack((np.rad2deg(rot), np.rad2deg(tilt)), axis=-1).astype(np.int16),
        hovertemplate="rot %{customdata[0]}°, tilt %{customdata[1]}°: %{z:.2f}<extra></extra>",
        hoverongaps=False,
    )
    style(figure, 340, showlegend=False)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, scaleanchor="x")
    return figure


def local_resolution_figure(columns: dict[str, FloatArray]) -> go.Figure:
    """Volume of the mask at each local resolution."""
    figure = go.Figure()
    low, high = columns["from_A"], columns["to_A"]
    figure.add_bar(
        x=0.5 * (low + high),
        y=columns["volume_A3"] / 1000,
        width=high - low,
        marker={"color": COLOURS[0], "line": {"color": "white", "width": 1}},
        customdata=np.stack((low, high), axis=-1),
        hovertemplate="%{customdata[0]:.2f} to %{customdata[1]:.2f} Å: %{y:.3g}<extra></extra>",
    )
    style(figure, 340, showlegend=False, bargap=0)
    figure.update_xaxes(title_text="local resolution (Å)")
    figure.update_yaxes(title_text="volume in the mask (1,000 Å³)", rangemode="tozero")
    return figure


def guinier_figure(columns: dict[str, FloatArray]) -> go.Figure:
    """Logarithm of the amplitude over 1 / d², as it is and weighted, with the fitted line."""
    figure = go.Figure()
    x = columns["inverse_d2_per_A2"]
    curves = (
        ("ln_amplitude", "mean of the half-maps", COLOURS[0], 1.4, "dot"),
        ("ln_signal", "weighted by √(2 FSC / (1 + FSC))", COLOURS[0], 2.0, "solid"),
        ("fit", "fit", COLOURS[1], 2.4, "solid"),
    )
    for name, label, colour, width, dash in curves:
        if not np.isfinite(columns[name]).any():
            continue
        figure.add_scatter(
            x=x,
            y=columns[name],
            name=label,
            mode="lines",
            line={"color": colour, "width": width, "dash": dash},
            customdata=1 / np.sqrt(x),
            hovertemplate="%{customdata:.2f} Å: %{y:.2f}",
        )
    style(figure, 360, hovermode="x unified", legend=LEGEND_ABOVE)
    figure.update_xaxes(title_text="1 / d² (1/Å²)", rangemode="tozero")
    figure.update_xaxes(unifiedhovertitle={"text": ""})
    figure.update_yaxes(title_text="ln amplitude")
    return figure


def residual_figure(columns: dict[str, FloatArray]) -> go.Figure:
    """Residuals of held-out images by ring, in units of the noise, and their expectation."""
    figure = go.Figure()
    x = 1.0 / columns["resolution_A"]
    figure.add_scatter(
        x=x,
        y=columns["variance"],
        name="found, ± 2 standard errors",
        mode="markers",
        marker={"color": COLOURS[0], "size": 7},
        error_y={"type": "data", "array": 2.0 * columns["error"]},
        customdata=columns["resolution_A"],
        hovertemplate="%{customdata:.2f} Å: %{y:.3f}",
    )
    figure.add_scatter(
        x=x,
        y=columns["expected"],
        name="expected",
        mode="lines",
        line={"color": COLOURS[1], "width": 2},
        hovertemplate="%{y:.3f}",
    )
    style(figure, 340, hovermode="x unified", legend=LEGEND_ABOVE)
    figure.update_xaxes(title_text="spatial frequency (1/Å)", rangemode="tozero")
    figure.update_yaxes(title_text="residual / noise")
    return figure


def p_value_figure(columns: dict[str, FloatArray]) -> go.Figure:
    """Histogram of the p-values of images; level if the model is right."""
    figure = go.Figure()
    low, high, images = columns["from"], columns["to"], columns["images"]
    figure.add_bar(
        x=0.5 * (low + high),
        y=images,
        width=high - low,
        marker={"color": COLOURS[0], "line": {"color": "white", "width": 1}},
        hovertemplate="%{y:.0f} images<extra></extra>",
    )
    figure.add_hline(y=float(images.mean()), line={"color": COLOURS[1], "width": 2})
    style(figure, 300, showlegend=False, bargap=0)
    figure.update_xaxes(title_text="p-value of the image", range=[0, 1])
    figure.update_yaxes(title_text="images", rangemode="tozero")
    return figure
