"""The numbers that a figure draws, as CSV inside the page."""

import base64
import csv
import html
import io
from collections.abc import Iterator
from typing import Any

import plotly.graph_objects as go

_HEAD = ("x_axis", "y_axis", "curve", "x", "y", "error")


def figure_csv(figure: go.Figure) -> str | None:
    """One row a point of every curve and bar: axes, name, x, y and error bar.

    Returns:
        The table, or None of figures without curves: surfaces and heat maps. Rings at crossings
        are left out.

    Example:
        >>> import plotly.graph_objects as go
        >>> figure = go.Figure(go.Scatter(x=[1, 2], y=[0.5, 0.25], name="half-map"))
        >>> print(figure_csv(figure.update_layout(xaxis_title="shell", yaxis_title="FSC")))
        x_axis,y_axis,curve,x,y,error
        shell,FSC,half-map,1,0.5,
        shell,FSC,half-map,2,0.25,
        <BLANKLINE>
    """
    curves = [
        trace
        for trace in figure.data
        if trace.type in ("scatter", "bar") and trace.hoverinfo != "skip" and trace.x is not None
    ]
    if not curves:
        return None
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(_HEAD)
    for trace in curves:
        axes = [_title(figure, trace, letter) for letter in "xy"]
        for point in _points(trace):
            table.writerow([*axes, html.unescape(trace.name or ""), *point])
    return file.getvalue()


def csv_address(table: str) -> str:
    """A table as a `data:text/csv` address."""
    return "data:text/csv;base64," + base64.b64encode(table.encode()).decode()


def _points(trace: Any) -> Iterator[tuple[str, str, str]]:
    """x, y and error of each point, to seven digits."""
    errors = trace.error_y.array
    blank = [None] * len(trace.x)
    for values in zip(trace.x, trace.y, blank if errors is None else errors, strict=True):
        x, y, error = ("" if value is None else f"{value:.7g}" for value in values)
        yield x, y, error


def _title(figure: go.Figure, trace: Any, letter: str) -> str:
    """The title of the axis that a trace is drawn on, or what the figure's `meta` calls it.

    Of axes one above the other, that of the last.
    """
    known = figure.layout.meta or {}
    if letter in known:
        return str(known[letter])
    name = str(trace[f"{letter}axis"] or letter)
    title = figure.layout[f"{letter}axis{name[1:]}"].title.text
    if title is None and letter == "x":
        titles = [axis.title.text for axis in figure.select_xaxes()]
        title = next((text for text in reversed(titles) if text), "")
    return html.unescape(title or "")
