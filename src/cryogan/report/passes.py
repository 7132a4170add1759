"""The passes of a likelihood run: what each saw, what it believed, and what it cost."""

import math
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from cryogan.report import figures
from cryogan.report.figures import COLOURS, style
from cryogan.report.markup import duration, missing, wide_table
from cryogan.report.run_folder import RunFolder

Record = dict[str, Any]

# Phases of the log: what they are called, and their colours.
_PHASES = {
    "climb": ("climb", COLOURS[1]),
    "wake": ("conformations come out of random numbers", COLOURS[2]),
    "refine": ("refine", COLOURS[0]),
}

_PANELS = (
    ("half_map_0.143_A", "FSC 0.143 (Å)"),
    ("evidence", "log-likelihood"),
    ("rings", "rings"),
    ("images", "images"),
)


def passes(run: RunFolder) -> str:
    """The body of the section: curves over CPU time, and the passes as a table."""
    records = _complete(run.passes)
    if not records:
        return missing("the run folder's stats.jsonl tells of no pass")
    return (
        '<p class="note">Log-likelihoods are means over images, relative to noise alone, in nats; '
        "those of different numbers of rings are not to be compared: more rings explain more. "
        "Poses are judged in the given number of Fourier rings; images are those of both halves. "
        "Steps of the climb come before the halves are compared, so they have no "
        f"resolution.{_climb(run.passes)}</p>\n"
        f"{figures.to_html(_figure(records), 'passes')}\n{_table(records)}"
    )


def _climb(records: list[Record]) -> str:
    """What was chosen from, if there was a choice, and how well the halves' climbs agree."""
    text = ""
    for record in records:
        starts, agreed_A = record.get("starts"), record.get("half_map_0.5_A")
        if isinstance(starts, list):
            halves = [", ".join(f"{each:.2f}" for each in sorted(half)[::-1]) for half in starts]
            text += (
                f" Starts from random numbers were compared in {record.get('rings')} rings: of "
                f"half 1 they explain {halves[0]}, of half 2 {halves[1]}; the best went on, and "
                "the curve is that of the best."
            )
        if record.get("phase") == "meet" and _is_number(agreed_A):
            text += f" After the climb the halves agree to {agreed_A:.1f} Å (FSC 0.5)."
    return text


def _complete(records: list[Record]) -> list[Record]:
    """The records with a known phase, each with the number of images that it has seen itself."""
    complete, seen = [], 0
    for record in records:
        if record.get("phase") not in _PHASES or not _is_number(record.get("cpu_s")):
            continue
        total = record.get("images_seen")
        if isinstance(total, int):
            record = {"images": total - seen} | record
            seen = total
        complete.append(record)
    return complete


def _figure(records: list[Record]) -> go.Figure:
    panels = [
        (key, title)
        for key, title in _PANELS
        if any(_is_number(record.get(key)) for record in records)
    ]
    figure = make_subplots(rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.04)
    named = set()
    for row, (key, title) in enumerate(panels, start=1):
        for phase, (name, colour) in _PHASES.items():
            chosen = [r for r in records if r["phase"] == phase and _is_number(r.get(key))]
            if not chosen:
                continue
            figure.add_scatter(
                x=[record["cpu_s"] for record in chosen],
                y=[record[key] for record in chosen],
                name=name,
                legendgroup=phase,
                showlegend=phase not in named,
                mode="lines+markers",
                line={"color": colour, "width": 1.6},
                marker={"size": 8 if phase == "refine" else 5},
                hovertemplate="%{y:.4g}",
                row=row,
                col=1,
            )
            named.add(phase)
        figure.update_yaxes(title_text=title, row=row, col=1)
    style(
        figure,
        90 + 150 * len(panels),
        hovermode="x unified",
        showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom"},
    )
    figure.update_layout(margin={"l": 84})
    figure.update_xaxes(rangemode="tozero")
    figure.update_xaxes(title_text="CPU seconds of all threads", row=len(panels), col=1)
    return figure


def _table(records: list[Record]) -> str:
    """One row a pass of the refinement; steps of one band before it are one row."""
    rows: list[list[Record]] = []
    for record in records:
        band = (record["phase"], record.get("rings"))
        same = rows and band == (rows[-1][-1]["phase"], rows[-1][-1].get("rings"))
        if record["phase"] != "refine" and same:
            rows[-1].append(record)
        else:
            rows.append([record])
    before, cells = 0.0, []
    for group in rows:
        last = group[-1]
        name = f"pass {last.get('pass', '')}" if last["phase"] == "refine" else last["phase"]
        steps = f" ({len(group)} steps)" if len(group) > 1 else ""
        images = sum(record.get("images", 0) for record in group)
        resolution = last.get("half_map_0.143_A")
        cells.append(
            [
                name + steps,
                f"{images:,.0f}",
                _text(last.get("rings"), "{:.0f}"),
                _text(last.get("evidence"), "{:.1f}"),
                _text(resolution, "{:.2f} Å"),
                duration(last["cpu_s"] - before),
                duration(last["cpu_s"]),
            ]
        )
        before = last["cpu_s"]
    heads = ["", "images", "rings", "log-likelihood", "half maps, FSC 0.143", "CPU time", "so far"]
    return wide_table(heads, cells)


def _text(value: object, form: str) -> str:
    return form.format(value) if _is_number(value) else "–"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
