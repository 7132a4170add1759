"""Progress of a run on the terminal: a bar, and lines for what is worth keeping."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def console(quiet: bool = False) -> Console:
    """Where the commands print."""
    return Console(highlight=False, soft_wrap=True, quiet=quiet)


@contextmanager
def bar(out: Console, what: str) -> Iterator[Callable[[str, float | None], None]]:
    """A progress bar; the function yielded sets its text and the fraction done, if known.

    The bar appears when that function is first called: not before a refusal.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[numbers]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
    )
    progress = Progress(*columns, console=out)
    task = progress.add_task(what, total=None, numbers="")

    def show(numbers: str, fraction: float | None) -> None:
        progress.start()
        total = None if fraction is None else 1.0
        progress.update(task, numbers=numbers, completed=fraction or 0.0, total=total)

    try:
        yield show
    finally:
        if progress.live.is_started:
            progress.stop()


class RunDisplay(NamedTuple):
    """Arguments for `api.reconstruct` and `api.refine`."""

    show: Callable[[list[list[dict[str, Any]]]], None]
    started: Callable[[Mapping[str, Any]], None]


@contextmanager
def run_display(out: Console) -> Iterator[RunDisplay]:
    """A bar, the particles and assumptions above it, and a line for every EM iteration."""
    describe: list[Callable[[Mapping[str, Any]], str]] = []
    with bar(out, "half-sets") as update:
        latest: dict[int, Mapping[str, Any]] = {}

        def started(about: Mapping[str, Any]) -> None:
            describe.append(about["objective"].describe)
            if about["particles"].get("summary"):
                out.print(about["particles"]["summary"])
            out.print(assumptions_line(about))
            update("reading images", None)

        def show(records: list[list[dict[str, Any]]]) -> None:
            for job, new in enumerate(records):
                for record in new:
                    latest[job] = record
                    if "fraction" not in record:  # every iteration is worth a line
                        out.print(describe[0](record))
            if not latest:
                return
            newest = [latest[job] for job in sorted(latest)]
            fractions = [record.get("fraction") for record in newest]
            known = [fraction for fraction in fractions if fraction is not None]
            told = [describe[0](record) for record in newest if "fraction" in record]
            numbers = "; ".join(text.splitlines()[0] for text in told)
            update(numbers, sum(known) / len(records) if known else None)

        yield RunDisplay(show, started)


def assumptions_line(about: Mapping[str, Any]) -> str:
    """What is assumed of the sample, and where each assumption was taken from."""
    assumptions = about["objective"].config.assumptions
    width_A = about["particles"]["box_size"] * about["particles"]["pixel_size_A"]
    sources = about["sources"]
    mask = (
        f"mask {assumptions.mask_file} ({sources['mask_file']})"
        if assumptions.mask_file
        else f"diameter {assumptions.mask_radius * width_A:.0f} Å ({sources['mask_radius']})"
    )
    shift_A = assumptions.max_shift_percent / 100.0 * width_A
    parts = [
        f"symmetry {assumptions.symmetry} ({sources['symmetry']})",
        mask,
        f"shifts up to {shift_A:.1f} Å ({sources['max_shift_percent']})",
    ]
    if assumptions.latent is not None:
        parts.append(f"latent {assumptions.latent} ({sources['latent']})")
    return f"assumed: {', '.join(parts)}"
