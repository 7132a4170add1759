"""The interactive figures of the page (plotly)."""

import html
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup

from cryogan.report.figure_data import csv_address, figure_csv
from cryogan.run.contents import FloatArray, FSCTable, Record

INK = "#1c2733"
FAINT = "#d9dfe5"
COLOURS = ("#1f6aa5", "#d1672b", "#3d8f5f", "#8a5aa8", "#7a6a55", "#b23a5c")

FONT = {"family": "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"}

LEGEND_ABOVE = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
"""Place of a legend that no curve runs through."""

# Longer logs are averaged in blocks to about this many points a curve.
MAX_POINTS = 400

# Resolutions that may be written on an FSC axis, in Å.
RESOLUTION_TICKS_A = (200, 100, 50, 30, 20, 15, 12, 10, 8, 7, 6, 5, 4.5, 4, 3.5, 3, 2.5, 2, 1.5, 1)


def to_html(figure: go.Figure, div_id: str) -> Markup:
    """The figure as a fragment of HTML that expects plotly's JavaScript in the page.

    Plotly's button that uploads a figure to its makers is taken out: data may be unpublished.
    Below curves and bars is a link to their numbers (`figure_data`).
    """
    fragment = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=div_id,
        default_height=f"{figure.layout.height}px",
        config={
            "displaylogo": False,
            "showSendToCloud": False,
            "responsive": True,
            "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d", "tableRotation"],
        },
    )
    table = figure_csv(figure)
    if table is None:
        return Markup(fragment)
    link = Markup('<p class="data"><a download="{}.csv" href="{}">these numbers (CSV)</a></p>')
    return Markup(fragment) + link.format(div_id, csv_address(table))


def curve_label(name: str) -> str:
    """`half_map_masked` → "half-map, masked"; escaped, for plotly reads some HTML in names."""
    words = name.replace("_", " ").replace("half map", "half-map").strip()
    if words.endswith(" masked"):
        words = words.removesuffix(" masked") + ", masked"
    return html.escape(words)


def style(figure: go.Figure, height: int, **layout: Any) -> go.Figure:
    figure.update_layout(
        template="none",
        height=height,
        font={**FONT, "size": 13, "color": INK},
        paper_bgcolor="white",
        plot_bgcolor="white",
        margin={"l": 64, "r": 24, "t": 32, "b": 56},
        hoverlabel={"font": FONT},
        **layout,
    )
    axis = {
        "gridcolor": "#eef1f4",
        "linecolor": FAINT,
        "ticks": "outside",
        "tickcolor": FAINT,
        "zeroline": False,
        "title": {"standoff": 10, "font": {"size": 13}},
    }
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure


def fsc_figure(table: FSCTable, crossings: list[tuple[str, float, float]]) -> go.Figure:
    """FSC curves over spatial frequency, with the thresholds and the quoted crossings.

    Shell 0, the sign of the maps' means, is left out.

    Args:
        crossings: (curve name, threshold, resolution in Å) of every quoted resolution.
    """
    figure = go.Figure()
    families = {name: name.removesuffix("_masked") for name in table.curves}
    colours = dict(zip(dict.fromkeys(families.values()), COLOURS, strict=False))
    for name in table.curves:
        marks = [(t, r) for n, t, r in crossings if n == name]
        fsc_curve(figure, table, name, curve_label(name), colours.get(families[name], INK), marks)
    return fsc_layout(figure, table)


def fsc_curve(
    figure: go.Figure,
    table: FSCTable,
    name: str,
    label: str,
    colour: str,
    crossings: Iterable[tuple[float, float]],
) -> None:
    """Add one curve of a table and rings at its crossings; dashed if its name ends in `_masked`.

    Args:
        label: in the legend, escaped.
        crossings: (threshold, resolution in Å) of every ring.
    """
    figure.add_scatter(
        x=table.spatial_frequency_per_A[1:],
        y=table.curves[name][1:],
        mode="lines",
        name=label,
        customdata=table.resolution_A[1:],
        line={
            "color": colour,
            "width": 2,
            "dash": "dash" if name.endswith("_masked") else "solid",
        },
        hovertemplate="%{customdata:.2f} Å: FSC %{y:.3f}",
    )
    marks = [(1.0 / r, t) for t, r in crossings if math.isfinite(r) and r > 0]
    figure.add_scatter(
        x=[f for f, _ in marks],
        y=[t for _, t in marks],
        mode="markers",
        showlegend=False,
        hoverinfo="skip",
        marker={"color": "white", "size": 8, "line": {"color": colour, "width": 2}},
    )


def fsc_layout(figure: go.Figure, *tables: FSCTable) -> go.Figure:
    """Thresholds, legend above the curves and axes of a figure of FSC curves."""
    for threshold in (0.5, 0.143):
        threshold_line(figure, threshold)
    style(figure, 420, hovermode="x unified", legend=LEGEND_ABOVE)
    fsc_axes(figure, *tables)
    return figure


def threshold_line(figure: go.Figure, threshold: float) -> None:
    """A dotted line across an FSC figure, with its value."""
    figure.add_hline(
        y=threshold,
        line={"color": "#98a4b0", "width": 1, "dash": "dot"},
        annotation={"text": f"{threshold:g}", "font": {"size": 11, "color": "#6b7885"}},
        annotation_position="top right",
    )


def fsc_axes(figure: go.Figure, *tables: FSCTable) -> None:
    """Axes of an FSC figure that hold all tables: linear in spatial frequency, ticks in Å."""
    end = max(float(table.spatial_frequency_per_A.max(initial=1e-3)) for table in tables)
    ticks: list[float] = []
    for candidate in RESOLUTION_TICKS_A:
        if 1 / candidate <= end and (not ticks or 1 / candidate - 1 / ticks[-1] > 0.055 * end):
            ticks.append(candidate)
    figure.update_xaxes(
        title_text="resolution (Å), on an axis linear in spatial frequency",
        range=[0, end],
        tickvals=[1 / tick for tick in ticks],
        ticktext=[f"{t:g}" for t in ticks],
        unifiedhovertitle={"text": ""},
    )
    figure.update_layout(meta={"x": "spatial frequency (1/Å)"})  # for `figure_csv`
    figure.update_yaxes(
        title_text="Fourier shell correlation",
        range=[max(-0.3, min(-0.05, *map(_lowest, tables))), 1.03],
    )


def _lowest(table: FSCTable) -> float:
    values = np.concatenate([curve[1:] for curve in table.curves.values()] or [np.zeros(1)])
    return float(np.nanmin(values, initial=0.0)) - 0.03


def power_figure(examples: dict[str, FloatArray]) -> go.Figure:
    """Rotationally averaged power spectra of the real and the simulated (noisy) images.

    The mean and the Nyquist shell, which preprocessing may remove, are left out.

    Args:
        examples: `real_power` and `noisy_power` of `RunContents.examples`, (d // 2 + 1,) each.
    """
    figure = go.Figure()
    for (name, label), colour in zip(
        (("real_power", "real"), ("noisy_power", "simulated")), COLOURS, strict=False
    ):
        box_size = 2 * (len(examples[name]) - 1)
        spectrum = examples[name][1:-1]
        figure.add_scatter(
            x=np.arange(1, len(spectrum) + 1) / box_size,
            y=np.where(spectrum > 1e-8, spectrum, np.nan),
            name=label,
            mode="lines",
            line={"color": colour, "width": 2},
            hovertemplate="%{y:.3g}",
        )
    style(figure, 300, hovermode="x unified", legend=LEGEND_ABOVE)
    figure.update_xaxes(title_text="spatial frequency (cycles per pixel of the critic's images)")
    figure.update_yaxes(title_text="mean power", type="log", dtick="D2")
    return figure


_PANELS = (
    ("distance", ("distance",)),
    ("loss", ("critic_loss", "volume_loss")),
    ("penalty", ("penalty",)),
    ("scale", ("contrast", "noise_scale")),
)

# Numbers of a log that are not curves.
_NO_CURVES = frozenset(("step", "images_seen", "box_size", "wall_s", "cpu_s", "stage"))


def training_figure(logs: dict[str, list[Record]]) -> go.Figure | None:
    """Curves of every log over the images seen: distance, losses, penalty and learnt scales.

    Where there are none of these, whatever numbers the records hold. What never changes is left
    out.

    Args:
        logs: name of a task ("" if there is only one) → its records.
    """
    recorded = {
        key: None
        for records in logs.values()
        for record in records
        if is_number(record.get("images_seen"))
        for key, value in record.items()
        if is_number(value)
    }
    changing = [key for key in recorded if any(varies(log, key) for log in logs.values())]
    present = [(title, keys) for title, keys in _PANELS if any(key in changing for key in keys)]
    if not any(key in recorded for _, keys in _PANELS for key in keys):
        present = [(key.replace("_", " "), (key,)) for key in changing if key not in _NO_CURVES]
    if not present:
        return None
    figure = go.Figure()
    for row, (title, keys) in enumerate(present):
        axis = "y" if row == 0 else f"y{row + 1}"
        for run, (name, records) in enumerate(logs.items()):
            for dash, key in zip(("solid", "dot"), keys, strict=False):
                x, y = _column(records, key)
                if len(x) == 0 or key not in changing:
                    continue
                parts = [name] if len(keys) == 1 else [name, key.replace("_", " ")]
                label = html.escape(", ".join(filter(None, parts)))
                figure.add_scatter(
                    x=x,
                    y=y,
                    yaxis=axis,
                    name=label or html.escape(title),
                    mode="lines",
                    legend="legend" if row == 0 else f"legend{row + 1}",
                    line={"color": COLOURS[run % len(COLOURS)], "width": 1.6, "dash": dash},
                    hovertemplate="%{y:.4g}",
                )
        top = 1 - row / len(present)
        bottom = 1 - (row + 1) / len(present) + 0.2 / max(4, len(present))
        number = "" if row == 0 else str(row + 1)
        figure.update_layout(
            {
                f"yaxis{number}": {
                    "title": {"text": html.escape(title)},
                    "domain": [bottom, top],
                },
                f"legend{number}": {"y": top, "yanchor": "top", "x": 1.01, "xanchor": "left"},
            }
        )
    for images_seen, label in _stages(next(iter(logs.values()))):
        figure.add_vline(
            x=images_seen,
            line={"color": "#98a4b0", "width": 1, "dash": "dot"},
            annotation={"text": html.escape(label), "font": {"size": 11, "color": "#6b7885"}},
            annotation_position="top right",
        )
    style(figure, 60 + 190 * len(present), hovermode="x unified")
    figure.update_xaxes(title_text="images seen", anchor="free", position=0.0, rangemode="tozero")
    return figure


def varies(records: Iterable[Record], key: str) -> bool:
    """Whether a number of a log changes, or stands there once."""
    values = [record[key] for record in records if is_number(record.get(key))]
    return len(set(values)) > 1 or len(values) == 1


def is_number(value: object) -> bool:
    """Whether a value of a log is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def _column(records: list[Record], key: str) -> tuple[FloatArray, FloatArray]:
    """A quantity over images seen, averaged in blocks to at most about `MAX_POINTS` points."""
    pairs = np.array(
        [
            (record["images_seen"], record[key])
            for record in records
            if is_number(record.get("images_seen")) and is_number(record.get(key))
        ],
        dtype=np.float64,
    ).reshape(-1, 2)
    if len(pairs) > MAX_POINTS:
        blocks = np.array_split(pairs, MAX_POINTS)
        pairs = np.stack([block.mean(0) for block in blocks])
    return pairs[:, 0], pairs[:, 1]


def _stages(records: list[Record]) -> list[tuple[float, str]]:
    """(images seen, label) of the first record of every stage, when there are several."""
    firsts: dict[str, tuple[float, str]] = {}
    for record in records:
        if "stage" in record and is_number(record.get("images_seen")):
            box = f", {record['box_size']} px" if "box_size" in record else ""
            firsts.setdefault(
                str(record["stage"]),
                (float(record["images_seen"]), f"stage {record['stage']}{box}"),
            )
    return list(firsts.values()) if len(firsts) > 1 else []
