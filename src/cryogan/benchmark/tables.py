"""The table of a benchmark as Markdown, CSV and JSON, ours beside what was published."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from cryogan.benchmark.experiments import (
    ADVERSARIAL,
    COMBINED,
    LIKELIHOOD,
    TRUE_POSES,
    Cell,
    Experiment,
)
from cryogan.benchmark.machine import hardware, versions
from cryogan.benchmark.order import ORDER, ROW, Order
from cryogan.benchmark.published import Resolutions
from cryogan.benchmark.rows import write_rows
from cryogan.files import write_text

Row = dict[str, Any]
METHODS = {
    TRUE_POSES: "true poses (bound)",
    ADVERSARIAL: "adversarial",
    LIKELIHOOD: "likelihood",
    COMBINED: "adversarial, then likelihood",
}
VIEWS = {"uniform": "uniform", "sigma2": "σ = 2", "sigma3": "σ = 3", "estimated": "*estimated*"}
_RESOLUTIONS = (
    ("half_map_0.143_A", "half-map FSC 0.143", "half_map"),
    ("half_map_0.143_published_way_A", "published way", None),
    ("truth_0.5_A", "truth FSC 0.5", "truth_half"),
    ("truth_0.143_A", "truth FSC 0.143", "truth"),
)
_SERIES = (
    ("states_0.5_A", "states, FSC 0.5", "Å"),
    ("motion_0.5_A", "motion, FSC 0.5", "Å"),
    ("halves_motion_0.5_A", "motion, half-sets", "Å"),
    ("coverage", "states reached", ""),
    ("rank_correlation", "rank correlation", ""),
    ("population_error_points", "population error", "points"),
    ("amplitude", "amplitude", ""),
    ("true_amplitude", "true amplitude", ""),
)
_COSTS = (("cpu_s", "CPU s", "{:,.0f}"), ("memory_GB", "memory", "{:.1f} GB"))


def write_tables(
    folder: Path,
    experiment: Experiment,
    about: Mapping[str, Any],
    errors: Mapping[Cell, str] | None = None,
) -> None:
    """Write EXPERIMENT.md, .csv and .json of all cells that the folder has."""
    rows = [row for order in orders_in(folder) if (row := row_in(order)) is not None]
    failed = {cell.name: error for cell, error in (errors or {}).items()}
    path = folder / experiment.name
    flat = [row | _published(experiment, row) for row in rows]
    if flat:
        write_rows(path.with_suffix(".csv"), flat)
    record = {
        "title": experiment.title,
        "citation": experiment.citation,
        "command": _command(experiment, about),
        "versions": versions(),
        "hardware": hardware(),
        "seeds": sorted({row["seed"] for row in rows}),
        **about,
        "rows": flat,
        "errors": failed,
    }
    write_text(path.with_suffix(".json"), json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    write_text(path.with_suffix(".md"), markdown(experiment, about, rows, failed))


def orders_in(folder: Path) -> list[Order]:
    """All cells of a folder, sets in the order of their table."""
    found = [Order.read(path.parent) for path in sorted(folder.glob(f"cells/*/{ORDER}"))]

    def place(order: Order) -> tuple[int, str, int, int, int]:
        cell = order.cell
        of_set = list(order.experiment.sets).index(cell.set_name)
        of_method, of_views = list(METHODS).index(cell.method), list(VIEWS).index(cell.assumed)
        return of_set, cell.symmetry, of_method, of_views, cell.seed

    return sorted(found, key=place)


def row_in(order: Order) -> Row | None:
    """The row of a cell, if it is done."""
    path = order.folder / ROW
    return dict(json.loads(path.read_text())) if path.is_file() else None


def _published(experiment: Experiment, row: Row) -> dict[str, float | str]:
    """Columns of what was published of a row's set and assumed views."""
    if experiment.has_conformations:
        return {}
    values = _published_of(experiment, row)
    return {
        f"published_{column}": "" if values is None else getattr(values, name)
        for column, _, name in _RESOLUTIONS
        if name is not None
    }


def _published_of(experiment: Experiment, row: Row) -> Resolutions | None:
    """The bound and the estimated density have no counterpart; nor has another symmetry than D2."""
    if row["method"] == TRUE_POSES or row["symmetry"] != "D2":
        return None
    views = row["assumed_views"]
    return experiment.published.get((row["set"], views))


def markdown(
    experiment: Experiment,
    about: Mapping[str, Any],
    rows: Sequence[Row],
    failed: Mapping[str, str],
) -> str:
    """The page: what was run, the table, notes, failures."""
    machine = hardware()
    size = ""
    if rows:
        size = (
            f"{rows[0]['images']:,} images of {rows[0]['box_size']} px of "
            f"{rows[0]['pixel_size_A']:g} Å (Nyquist {2 * rows[0]['pixel_size_A']:.2f} Å). "
        )
    lines = [
        f"# {experiment.title}",
        "",
        f"{experiment.citation}.",
        "",
        f"    {_command(experiment, about)}",
        "",
        f"{size}cryogan {versions()['cryogan']}, torch {versions()['torch']}; "
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_GB']} GB. CPU seconds "
        "are those of all processes, start, reading and half-map comparison included; memory is "
        "that of the largest process. Several seeds: median (range).",
        "",
        *(_series_table if experiment.has_conformations else _map_table)(experiment, rows),
        "",
        *(f"- {note}" for note in experiment.notes),
    ]
    if failed:
        lines += ["", "Not done:", "", *(f"- {name}: {error}" for name, error in failed.items())]
    return "\n".join(lines) + "\n"


def _map_table(experiment: Experiment, rows: Sequence[Row]) -> list[str]:
    views = ["assumed views"] if experiment.compares_views else []
    header = ["set", "sym.", "method", *views]
    header += [
        f"{label} (Å; published)" if name else f"{label} (Å)" for _, label, name in _RESOLUTIONS
    ]
    header += ["verdict", "seeds", *(label for _, label, _ in _COSTS)]
    lines = [_line(header), _line(["---"] * len(header))]
    for some in _cells_of(rows):
        row = some[0]
        entries = _first(experiment, row)
        if views:
            entries.append(VIEWS.get(row["assumed_views"], "–"))
        values = _published_of(experiment, row)
        for column, _, name in _RESOLUTIONS:
            ours = _spread([each[column] for each in some])
            theirs = "" if name is None or values is None else f" ({getattr(values, name):.1f})"
            entries.append(f"{ours}{theirs}")
        lines.append(_line([*entries, _verdicts(some), *_spent(some)]))
    return lines


def _series_table(experiment: Experiment, rows: Sequence[Row]) -> list[str]:
    header = ["set", "sym.", "method"]
    header += [f"{label} ({unit})" if unit else label for _, label, unit in _SERIES]
    header += ["verdict", "seeds", *(label for _, label, _ in _COSTS)]
    lines = [_line(header), _line(["---"] * len(header))]
    for some in _cells_of(rows):
        entries = _first(experiment, some[0])
        entries += [_spread([each[column] for each in some]) for column, _, _ in _SERIES]
        lines.append(_line([*entries, _verdicts(some), *_spent(some)]))
    return lines


def _first(experiment: Experiment, row: Row) -> list[str]:
    return [experiment.sets[row["set"]].label, row["symmetry"], METHODS[row["method"]]]


def _spent(rows: Sequence[Row]) -> list[str]:
    costs = [form.format(median(row[column] for row in rows)) for column, _, form in _COSTS]
    return [str(len(rows)), *costs]


def _cells_of(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows that differ by their seed alone, together."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        key = (row["set"], row["symmetry"], row["method"], row["assumed_views"])
        found.setdefault(key, []).append(row)
    return list(found.values())


def _spread(values: Sequence[Any]) -> str:
    """Median and range of numbers; what is no number as it is.

    Example:
        >>> _spread([8.61, 8.4, 9.0]), _spread([8.4]), _spread([""])
        ('8.6 (8.4–9.0)', '8.4', '–')
    """
    numbers = sorted(value for value in values if isinstance(value, int | float))
    if not numbers:
        return "; ".join(dict.fromkeys(str(value) for value in values if value != "")) or "–"
    form = "{:.1f}" if numbers[-1] >= 2.0 else "{:.2f}"
    low, middle, high = (form.format(n) for n in (numbers[0], median(numbers), numbers[-1]))
    missing = len(values) - len(numbers)
    more = f", {missing} without" if missing else ""
    return f"{middle}{more}" if low == high else f"{middle} ({low}–{high}{more})"


def _verdicts(rows: Sequence[Row]) -> str:
    words = dict.fromkeys(row["verdict"] for row in rows if row["verdict"])
    return ", ".join(words) or "–"


def _line(entries: Sequence[str]) -> str:
    return "| " + " | ".join(entries) + " |"


def _command(experiment: Experiment, about: Mapping[str, Any]) -> str:
    words = ["cryogan", "benchmark", experiment.name, "-o", "DIR"]
    for name in ("scale", "images"):
        if about.get(name) is not None:
            words += [f"--{name}", str(about[name])]
    for objective, settings in (about.get("settings") or {}).items():
        for name, value in settings.items():
            words += [f"--{objective}.{name}", _shell_word(value)]
    return " ".join(words)


def _shell_word(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"'{text}'" if set(text) & set(' []{}"') else text
