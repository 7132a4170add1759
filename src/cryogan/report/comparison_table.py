"""The runs of a comparison in numbers, and what their settings and assumptions do not share."""

from collections.abc import Iterator, Mapping

from markupsafe import Markup

from cryogan.report.details import VERSIONS, assumption_rows, setting_rows
from cryogan.report.formats import angstrom, duration
from cryogan.report.header import total_wall_s
from cryogan.report.resolution import half_map_crossings, quoted_resolutions
from cryogan.report.template import render
from cryogan.run.contents import RunContents, mapping, number

_NONE = "–"

# What `config.json` tells of where the particles come from: how it is called.
_ORIGIN = {
    "star": "particle file",
    "index": "only the images listed in",
    "noise": "noise",
    "from": "starting from the maps of",
}


def runs_table(runs: Mapping[str, RunContents]) -> Markup:
    """The body of the section.

    Args:
        runs: label → run.
    """
    alike = len({run.objective for run in runs.values()}) == 1
    return render(
        "comparison_table",
        heads=["", *runs],
        facts=_rows([dict(_facts(run)) for run in runs.values()]),
        differences=[
            *_differing([dict(_origin_and_assumptions(run)) for run in runs.values()]),
            *_differing([dict(setting_rows(run)) for run in runs.values()], shared_only=not alike),
        ],
        alike=alike,
        latent=any(run.assumptions.get("latent") is not None for run in runs.values()),
    )


def _facts(run: RunContents) -> Iterator[tuple[str, str]]:
    """What each fact of a run is called, and its value."""
    count, wall_s = number(run.particles, "count"), total_wall_s(run)
    cpu_s = number(mapping(run.summary, "timings_s"), "total_cpu")
    box_size, pixel_size_A = (number(run.particles, key) for key in ("box_size", "pixel_size_A"))
    map_ = run.maps["map"]
    yield "objective", run.objective or _NONE
    yield "particles", _NONE if count is None else f"{count:,.0f}"
    if box_size is not None and pixel_size_A is not None:
        yield "particle images", _box(box_size, pixel_size_A)
    yield "map", _box(map_.volume.shape[-1], map_.pixel_size_A)
    symmetry, found = str(run.assumptions.get("symmetry", _NONE)), run.symmetry_found
    yield "symmetry", symmetry if found is None else f"{found[0]}, found"
    yield "verdict", _NONE if run.verdict is None else run.verdict[0]
    if run.without_structure:
        for crossing in half_map_crossings(run):
            value = f"crossing at {angstrom(crossing.value_A, 2)}, which is no resolution"
            yield f"{crossing.compared}, {crossing.criterion}", value
    for quoted in quoted_resolutions(run):
        yield f"{quoted.compared}, {quoted.criterion}", angstrom(quoted.value_A, 2)
    yield "CPU time", _NONE if cpu_s is None else duration(cpu_s)
    yield "wall time", _NONE if wall_s is None else duration(wall_s)


def _box(size: float, pixel_size_A: float) -> str:
    return f"{size:.0f} px of {pixel_size_A:.4g} Å ({size * pixel_size_A:.1f} Å wide)"


def _origin_and_assumptions(run: RunContents) -> Iterator[tuple[str, str]]:
    for key, label in _ORIGIN.items():
        if run.particles.get(key) is not None:
            yield label, str(run.particles[key])
    for key, label in VERSIONS.items():
        if key in run.config and key != "started":
            yield label, str(run.config[key])
    for name, value, _ in assumption_rows(run):
        yield name, value


def _rows(columns: list[dict[str, str]]) -> list[list[str]]:
    """A row for each name that any column has: the name, and what each column says."""
    names = dict.fromkeys(name for column in columns for name in column)
    return [[name, *(column.get(name, _NONE) for column in columns)] for name in names]


def _differing(columns: list[dict[str, str]], *, shared_only: bool = False) -> list[list[str]]:
    """The rows whose values differ; with `shared_only` of those names that all columns have."""
    shared = set.intersection(*(set(column) for column in columns))
    return [
        row
        for row in _rows(columns)
        if len(set(row[1:])) > 1 and (row[0] in shared or not shared_only)
    ]
