"""Half-map FSC against the truth: is the resolution that a run quotes ever too fine?

    python benchmarks/half_map_against_truth.py -o benchmarks/results

Reads the tables of other benchmarks that hold both numbers of one run: where the half-maps' FSC
falls to 0.143, and where that of the map with the truth falls to 0.5, neither masked. Where a table
also says how far held-out images support the maps, the coarser of both counts, which is what a run
quotes. A half-map
FSC of 0.143 means 0.5 with the truth for the mean of both half-maps, if the half-sets are
independent. Counted are runs by the present code, of a molecule that is known, whose verdict lets
them quote a resolution: of how many is that of the half-maps finer by more than one Fourier shell
(one over the width of the box), and how many leave room for that below the Nyquist limit? The other
rows are in table and picture too, marked: those of a verdict "no structure", those of an earlier
code (whose half-maps of the likelihood were filtered by their own FSC, and which had no verdict),
and real particles against a published map. A table that is not there is left out, and said. Writes
`half_map_against_truth.csv` and a picture of the same name.
"""

import argparse
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

from matplotlib.figure import Figure

from cryogan.benchmark.curves import save_figure
from cryogan.benchmark.rows import read_rows
from cryogan.errors import InputError
from cryogan.files import write_text

ALLOWED = 1.0  # shells
COUNTED, UNQUOTED, EARLIER, PUBLISHED = (
    "counted",
    "no structure",
    "earlier code",
    "against a published map",
)


@dataclass(frozen=True)
class Source:
    """A table of runs.

    Attributes:
        name: of the file, without suffix.
        set_name: what the runs are of.
        box_size: of the maps.
        pixel_size_A: of the maps, or the column that has it.
        half, truth: columns of the two resolutions in Å.
        run: columns that tell a run from the others.
        kind: of runs that quote a resolution.
        only: values of a column that belong here; all rows if empty.
    """

    name: str
    set_name: str
    box_size: int
    pixel_size_A: float | str
    half: str
    truth: str
    run: tuple[str, ...]
    kind: str = COUNTED
    only: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


HALF, TRUTH, HELD_OUT = "half_map_0.143_A", "truth_fsc_0.5_A", "held_out_A"
_CELL = ("snr_dB", "images", "seed", "method")
SOURCES = (
    Source(
        "realistic",
        "β-galactosidase, likelihood",
        64,
        3.822,
        HALF,
        "fsc_0.5_A",
        ("condition", "molecule", "symmetry", "seed", "images"),
    ),
    Source(
        "nuisances",
        "phantom with nuisances, likelihood",
        32,
        6.0,
        HALF,
        "truth_0.5_A",
        ("variant", "seed"),
        only={"objective": ("likelihood",)},
    ),
    Source(
        "nuisances",
        "phantom with nuisances, adversarial",
        32,
        6.0,
        HALF,
        "truth_0.5_A",
        ("variant", "seed"),
        only={"objective": ("adversarial",)},
    ),
    Source(
        "verdict_calibration_short",
        "phantom at ten SNRs, likelihood",
        16,
        12.0,
        HALF,
        TRUTH,
        ("kind", "snr_dB", "seed"),
    ),
    Source(
        "verdict_calibration_short_32px",
        "phantom at eight SNRs, 32 px, likelihood",
        32,
        6.0,
        HALF,
        TRUTH,
        ("kind", "snr_dB", "seed"),
    ),
    *(
        Source(
            "half_map_runs",
            f"four molecules, {objective}",
            32,
            "pixel_size_A",
            HALF,
            TRUTH,
            ("molecule", "snr_dB", "seed"),
            only={"objective": (objective,)},
        )
        for objective in ("likelihood", "adversarial")
    ),
    Source(
        "implicit_explicit",
        "β-galactosidase, likelihood",
        32,
        7.643,
        HALF,
        TRUTH,
        _CELL,
        EARLIER,
        {"method": ("likelihood", "wgan + refine")},
    ),
    Source(
        "implicit_explicit",
        "β-galactosidase, adversarial",
        32,
        7.643,
        HALF,
        TRUTH,
        _CELL,
        EARLIER,
        {"method": ("wgan", "relativistic")},
    ),
    Source(
        "real_sets",
        "EMPIAR-10017, likelihood",
        50,
        7.08,
        HALF,
        "fsc_0.5_A",
        ("set", "symmetry", "seed", "options"),
        PUBLISHED,
    ),
)


@dataclass(frozen=True)
class Run:
    """Both resolutions of a run.

    Attributes:
        set_name: what it is of.
        label: which run.
        box_size, pixel_size_A: of its maps.
        half_A, truth_A: where the FSC of the half-maps, and with the truth, falls to its threshold.
        kind: whether it is counted, and if not, why.
        held_out_A: to what held-out images support the maps; 0 if it was not measured.
    """

    set_name: str
    label: str
    box_size: int
    pixel_size_A: float
    half_A: float
    truth_A: float
    kind: str
    held_out_A: float = 0.0

    @property
    def quoted_A(self) -> float:
        """The resolution that the run quotes."""
        return max(self.half_A, self.held_out_A)

    @property
    def shells_finer(self) -> float:
        """By how many shells the quoted resolution is finer than that with the truth."""
        width_A = self.box_size * self.pixel_size_A
        return width_A / self.quoted_A - width_A / self.truth_A

    @property
    def leaves_room(self) -> bool:
        """Whether half-maps could be finer by more than one shell: not near the Nyquist limit."""
        shell = self.box_size * self.pixel_size_A / self.truth_A
        return shell + ALLOWED < self.box_size / 2


def too_fine(runs: Iterable[Run], kind: str = COUNTED) -> list[Run]:
    """Those of a kind whose half-maps are finer than the truth by more than one shell."""
    return [run for run in runs if run.kind == kind and run.shells_finer > ALLOWED + 1e-6]


def runs_of(source: Source, rows: Iterable[Mapping[str, str]]) -> list[Run]:
    """The rows of a table that have both numbers; noise has no truth.

    Raises:
        InputError: a column is not there, or a resolution is no positive number.
    """
    found = []
    for line, row in enumerate(rows, start=2):
        needed = (source.half, source.truth, *source.run, *source.only)
        missing = [name for name in needed if name not in row]
        if missing:
            raise InputError(f"{source.name}.csv has no column {missing[0]}; make the table again.")
        others = any(row[name] not in values for name, values in source.only.items())
        if others or not row[source.half] or not row[source.truth]:
            continue
        half_A, truth_A = (_length(row[name], source, line) for name in (source.half, source.truth))
        unquoted = row.get("verdict") == UNQUOTED and source.kind == COUNTED
        label = " ".join(row[name] for name in source.run if row[name])
        kind = UNQUOTED if unquoted else source.kind
        size, pixel_size_A = source.box_size, _pixel_size_A(source, row, line)
        held_out_A = _length(row[HELD_OUT], source, line) if row.get(HELD_OUT) else 0.0
        found.append(
            Run(source.set_name, label, size, pixel_size_A, half_A, truth_A, kind, held_out_A)
        )
    return found


def _pixel_size_A(source: Source, row: Mapping[str, str], line: int) -> float:
    if isinstance(source.pixel_size_A, float):
        return source.pixel_size_A
    return _length(row[source.pixel_size_A], source, line)


def _length(text: str, source: Source, line: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value > 0.0:
        raise InputError(
            f"{source.name}.csv line {line} has '{text}' in place of a resolution in Å; make the "
            "table again."
        )
    return value


def table(runs: Sequence[Run]) -> str:
    """CSV, a row a run."""
    lines = [
        "set,run,kind,box_size,pixel_size_A,half_map_0.143_A,held_out_A,truth_fsc_0.5_A,"
        "shells_finer,leaves_room"
    ]
    for run in runs:
        held_out = f"{run.held_out_A:.2f}" if run.held_out_A else ""
        values = f"{run.half_A:.2f},{held_out},{run.truth_A:.2f},{run.shells_finer:.2f}"
        name = run.set_name.replace(",", ":")
        box = f"{run.box_size},{run.pixel_size_A:g}"
        lines.append(f"{name},{run.label},{run.kind},{box},{values},{run.leaves_room}")
    return "\n".join(lines) + "\n"


def plot(path: Path, runs: Sequence[Run]) -> None:
    """Shells by which quoted resolutions are finer than the truth, over the truth's resolution."""
    figure = Figure(figsize=(9.4, 5.4), dpi=160, layout="constrained")
    axis = figure.subplots()
    names = dict.fromkeys(run.set_name for run in runs)
    palette = ("#0072B2", "#009E73", "#CC79A7", "#D55E00", "0.4", "#E69F00", "#56B4E9", "0.0")
    colours = dict(zip(names, cycle(palette), strict=False))
    markers = {COUNTED: "o", UNQUOTED: "x", EARLIER: "+", PUBLISHED: "^"}
    for (name, kind), some in _grouped(runs).items():
        axis.scatter(
            [run.truth_A for run in some],
            [run.shells_finer for run in some],
            marker=markers[kind],
            s=34,
            color=colours[name],
            facecolors="none" if kind in (COUNTED, PUBLISHED) else colours[name],
            linewidths=1.2,
            label=f"{name} ({len(some)}{'' if kind == COUNTED else f'; {kind}'})",
        )
    axis.axhline(0.0, color="0.6", lw=0.8)
    axis.axhline(ALLOWED, color="0.2", lw=1.0, ls="--")
    axis.text(
        0.0,
        ALLOWED,
        " above: too fine",
        transform=axis.get_yaxis_transform(),
        ha="left",
        va="bottom",
    )
    axis.set_xscale("log")
    ends = min(run.truth_A for run in runs), max(run.truth_A for run in runs)
    ticks = [t for t in (7, 10, 15, 20, 30, 50, 100, 200) if 0.8 * ends[0] < t < 1.2 * ends[1]]
    axis.set_xticks(ticks, labels=[str(tick) for tick in ticks])
    axis.minorticks_off()
    axis.set_xlabel("resolution with the truth, FSC 0.5 (Å)")
    axis.set_ylabel("resolution that the run quotes:\nfiner than that by … Fourier shells")
    axis.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    save_figure(path, figure)


def _grouped(runs: Sequence[Run]) -> dict[tuple[str, str], list[Run]]:
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.set_name, run.kind), []).append(run)
    return groups


def _count(runs: Sequence[Run], kind: str) -> str:
    """How many are too fine, and how many could be."""
    wrong = len(too_fine(runs, kind))
    room = sum(run.leaves_room for run in runs)
    return (
        f"{wrong} of {len(runs)} too fine by more than {ALLOWED:g} shell; {room} leave room for it"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the tables")
    folder = parser.parse_args().output
    runs: list[Run] = []
    absent: list[str] = []
    for source in SOURCES:
        rows = read_rows(folder / f"{source.name}.csv")
        if not rows and source.name not in absent:
            absent.append(source.name)
            print(f"{source.name}.csv is not there: left out")
        runs += runs_of(source, rows)
    if not runs:
        raise InputError(f"{folder} has none of the tables; give benchmarks/results.")
    write_text(folder / "half_map_against_truth.csv", table(runs))
    plot(folder / "half_map_against_truth.png", runs)
    for (name, kind), some in _grouped(runs).items():
        print(f"{name} ({kind}): {_count(some, kind)}")
    print(f"all counted: {_count([run for run in runs if run.kind == COUNTED], COUNTED)}")
    for run in too_fine(runs):
        print(f"  {run.set_name}, {run.label}: by {run.shells_finer:.2f} shells")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(f"half_map_against_truth: {error}")
