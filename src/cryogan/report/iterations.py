"""The iterations of a likelihood run: images, resolution, log-likelihood, and what they cost."""

import plotly.graph_objects as go
from markupsafe import Markup
from plotly.subplots import make_subplots

from cryogan.report import figures
from cryogan.report.figures import COLOURS, is_number, style, varies
from cryogan.report.formats import duration
from cryogan.report.template import missing, render
from cryogan.run.contents import Record

# Phases of the log, and their colours.
_REFINEMENT = "refinement"
_PHASES = {
    "initial model": COLOURS[1],
    "mean map": COLOURS[3],
    "both hands": COLOURS[4],
    "map of one hand": COLOURS[5],
    "conformations": COLOURS[2],
    _REFINEMENT: COLOURS[0],
}

_PANELS = (
    ("half_map_0.143_A", "FSC 0.143 (Å)"),
    ("log_likelihood", "log-likelihood"),
    ("rings", "rings"),
    ("images", "images"),
)


def iterations(records: list[Record]) -> Markup:
    """The body of the section: curves over CPU time, and the iterations as a table."""
    complete = with_images(records)
    if not complete:
        return missing("stats.jsonl holds no iteration")
    heads = ["", "images", "rings", "log-likelihood", "half-maps, FSC 0.143", "CPU time", "so far"]
    return render(
        "iterations",
        compared=_compared(records),
        agreement=_agreement(records),
        searches=_searches(records),
        figure=figures.to_html(iteration_figure(complete), "iterations"),
        heads=heads,
        rows=_rows(complete),
    )


def _compared(records: list[Record]) -> tuple[str, list[str]] | None:
    """The rings in which initialisations were compared last, and their log-likelihoods."""
    for record in reversed(records):
        found = record.get("initialisations")
        if isinstance(found, list):
            halves = [", ".join(f"{each:.2f}" for each in sorted(half)[::-1]) for half in found]
            return str(record.get("rings")), halves
    return None


def _agreement(records: list[Record]) -> str | None:
    """FSC 0.5 of the half-sets' initial models, after the last attempt."""
    for record in reversed(records):
        agreed_A = record.get("half_map_0.5_A")
        if record.get("phase") == "half-map comparison" and is_number(agreed_A):
            return f"{agreed_A:.1f} Å"
    return None


def _searches(records: list[Record]) -> list[tuple[int, str]]:
    """After which iteration a symmetry was looked for in the half-maps, and what was found."""
    found = []
    for record in records:
        search = record.get("symmetry_search")
        if isinstance(search, dict) and "group" in search:
            group, reason = search["group"], search.get("reason", "")
            words = "no symmetry found" if group == "C1" else f"{group} found and imposed"
            found.append((int(record.get("iteration", 0)), f"{words} ({reason})"))
    return found


def with_images(records: list[Record]) -> list[Record]:
    """The records with a known phase, each with the number of images that it has used itself."""
    complete, seen = [], 0
    for record in records:
        if record.get("phase") not in _PHASES or not is_number(record.get("cpu_s")):
            continue
        total = record.get("images_seen")
        if isinstance(total, int):
            record = {"images": total - seen} | record
            seen = total
        complete.append(record)
    return complete


def iteration_figure(records: list[Record]) -> go.Figure:
    """Resolution, log-likelihood, rings and images over CPU seconds, a curve a phase.

    What never changes is left out.

    Args:
        records: from `with_images`.
    """
    panels = [(key, title) for key, title in _PANELS if varies(records, key)]
    figure = make_subplots(rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.04)
    named = set()
    for row, (key, title) in enumerate(panels, start=1):
        for phase, colour in _PHASES.items():
            chosen = [r for r in records if r["phase"] == phase and is_number(r.get(key))]
            if not chosen:
                continue
            figure.add_scatter(
                x=[record["cpu_s"] for record in chosen],
                y=[record[key] for record in chosen],
                name=phase,
                legendgroup=phase,
                showlegend=phase not in named,
                mode="lines+markers",
                line={"color": colour, "width": 1.6},
                marker={"size": 8 if phase == _REFINEMENT else 5},
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


def _rows(records: list[Record]) -> list[list[str]]:
    """One row an iteration of the refinement; steps of one band before it are one row."""
    groups: list[list[Record]] = []
    for record in records:
        band = (record["phase"], record.get("rings"))
        same = groups and band == (groups[-1][-1]["phase"], groups[-1][-1].get("rings"))
        if record["phase"] != _REFINEMENT and same:
            groups[-1].append(record)
        else:
            groups.append([record])
    before, rows = 0.0, []
    for group in groups:
        last = group[-1]
        refinement = last["phase"] == _REFINEMENT
        name = f"iteration {last.get('iteration', '')}" if refinement else last["phase"]
        steps = f" ({len(group)} steps)" if len(group) > 1 else ""
        images = sum(record.get("images", 0) for record in group)
        rows.append(
            [
                name + steps,
                f"{images:,.0f}",
                _text(last.get("rings"), "{:.0f}"),
                _text(last.get("log_likelihood"), "{:.1f}"),
                _text(last.get("half_map_0.143_A"), "{:.2f} Å"),
                duration(last["cpu_s"] - before),
                duration(last["cpu_s"]),
            ]
        )
        before = last["cpu_s"]
    return rows


def _text(value: object, form: str) -> str:
    return form.format(value) if is_number(value) else "–"
