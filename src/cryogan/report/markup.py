"""Pieces of HTML and the formatting of numbers; every text that goes in is escaped."""

import html
import json
import math
from typing import Any


def escape(value: object) -> str:
    """The text of a value, safe inside HTML and inside quoted attributes."""
    return html.escape(str(value))


def section(title: str, body: str) -> str:
    """A titled section; `body` is HTML."""
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>"


def script_json(div_id: str, data: Any) -> str:
    """Data for the page's JavaScript, which no text inside can end."""
    text = json.dumps(data).replace("<", "\\u003c")
    return f'<script type="application/json" id="{div_id}">{text}</script>'


def missing(what: str) -> str:
    """The line that stands where something was left out."""
    return f'<p class="missing">Left out: {escape(what)}.</p>'


def table(rows: list[tuple[str, str]]) -> str:
    """A table of names and values."""
    cells = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows
    )
    return f"<table>{cells}</table>"


def wide_table(heads: list[str], rows: list[list[str]]) -> str:
    """A table with a heading a column; the first column names the rows."""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    lines = [
        [f"<th>{escape(row[0])}</th>", *(f"<td>{escape(x)}</td>" for x in row[1:])] for row in rows
    ]
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in lines)
    return f"<table><tr>{head}</tr>{body}</table>"


def mapping(parent: dict[str, Any], key: str) -> dict[str, Any]:
    """An object inside a JSON object; empty when there is none."""
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def number(parent: dict[str, Any], key: str) -> float | None:
    """A number inside a JSON object, or None."""
    value = parent.get(key)
    return float(value) if isinstance(value, int | float) else None


def duration(seconds: float) -> str:
    """2523.4 → 42 min 03 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def angstrom(value: float, digits: int = 1) -> str:
    """A length in Å; an infinite resolution was not reached."""
    return f"{value:.{digits}f} Å" if math.isfinite(value) else "not reached"
