"""Progress of a run: a bar on a terminal, time-stamped lines in a file; lines of what stays."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def console(quiet: bool = False, stderr: bool = False) -> Console:
    """Where the commands print; colours only on a terminal, and not if NO_COLOR is set."""
    return Console(highlight=False, soft_wrap=True, quiet=quiet, stderr=stderr)


@contextmanager
def bar(out: Console, what: str) -> Iterator[Callable[[str, float | None], None]]:
    """A progress bar; the function yielded sets its text and the fraction done, if known.

    The bar appears when that function is first called: not before a refusal. Where there is no
    terminal, a line a minute says the same (`ProgressLines`).
    """
    if not out.is_terminal:
        lines = ProgressLines(out, what)
        try:
            yield lines.show
        finally:
            lines.close()
        return
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


class ProgressLines:
    """Lines of progress, with date, time and the time left: one in `every_s` at most, and the last.

    Args:
        out: where they are printed.
        what: name of the work.
        every_s: seconds between lines.
        clock: seconds.

    Example:
        >>> from cryogan.cli.display import ProgressLines, console
        >>> times = iter([0.0, 0.0, 90.0])
        >>> lines = ProgressLines(console(), "half-sets", clock=lambda: next(times))
        >>> lines.show("step 0", 0.0)  # too early
        >>> lines.show("step 300", 0.75)  # doctest: +ELLIPSIS
        20... half-sets: step 300, 75 %, 0:01:30 elapsed, 0:00:30 left
    """

    def __init__(
        self,
        out: Console,
        what: str,
        *,
        every_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._out, self._what, self._every_s, self._clock = out, what, every_s, clock
        self._began = self._said = clock()
        self._first: tuple[float, float] | None = None  # a resumed run begins with what was done
        self._waiting: tuple[str, float | None] | None = None

    def show(self, numbers: str, fraction: float | None) -> None:
        """Text, and the fraction done, if known: printed if it is time."""
        now = self._clock()
        if self._first is None and fraction is not None:
            self._first = now, fraction
        self._waiting = numbers, fraction
        if now - self._said >= self._every_s:
            self._print(now)

    def close(self) -> None:
        """Print what was shown last, if it was not printed."""
        if self._waiting is not None:
            self._print(self._clock())

    def _print(self, now: float) -> None:
        assert self._waiting is not None
        (numbers, fraction), self._waiting, self._said = self._waiting, None, now
        parts = [numbers] if numbers else []
        if fraction is not None:
            parts.append(f"{100.0 * fraction:.0f} %")
        parts.append(f"{_duration(now - self._began)} elapsed")
        if self._first is not None and fraction is not None and fraction > self._first[1]:
            rate = (fraction - self._first[1]) / max(now - self._first[0], 1e-9)
            parts.append(f"{_duration((1.0 - fraction) / rate)} left")
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        self._out.print(f"{stamp} {self._what}: {', '.join(parts)}")


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


class RunDisplay(NamedTuple):
    """Arguments for `api.reconstruct` and `api.refine`."""

    show: Callable[[list[list[dict[str, Any]]]], None]
    started: Callable[[Mapping[str, Any]], None]
    phase: Callable[[str], None]


class Phases:
    """Says that a phase has begun which takes longer than a few seconds.

    Args:
        out: where it is printed.
        after_s: seconds.
    """

    def __init__(self, out: Console, after_s: float = 5.0) -> None:
        self._out, self._after_s = out, after_s
        self._timer: threading.Timer | None = None

    def begin(self, what: str) -> None:
        """A phase begins, and the one before ends; "" for none."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if what:
            self._timer = threading.Timer(self._after_s, self._out.print, [f"{what} …"])
            self._timer.daemon = True
            self._timer.start()

    def close(self) -> None:
        """Say no more."""
        self.begin("")


@contextmanager
def run_display(out: Console) -> Iterator[RunDisplay]:
    """A bar, the particles and assumptions above it, and a line for every EM iteration."""
    describe: list[Callable[[Mapping[str, Any]], str]] = []
    phases = Phases(out)
    with closing(phases), bar(out, "half-sets") as update:
        latest: dict[int, Mapping[str, Any]] = {}
        retries: dict[int, int] = {}

        def line_of(record: Mapping[str, Any]) -> str:
            try:
                return describe[0](record)
            except (KeyError, TypeError, ValueError):  # a line in the log that is not ours
                return f"{record['images_seen']} images"

        def started(about: Mapping[str, Any]) -> None:
            describe.append(about["objective"].describe)
            if about["particles"].get("summary"):
                out.print(about["particles"]["summary"])
            out.print(assumptions_line(about))
            if about.get("resumes") == "finished":
                out.print(f"{about['folder']} is finished; its results are written again")
            elif about.get("resumes") is not None:
                out.print(f"resuming {about['folder']} ({about['resumes']})")
            update("reading images", None)

        def show(records: list[list[dict[str, Any]]]) -> None:
            for job, new in enumerate(records):
                for record in new:
                    latest[job] = record
                    if record.get("retries", 0) > retries.get(job, 0):
                        retries[job] = record["retries"]
                        out.print(
                            f"half-set {job + 1}: its numbers had gone wrong; it goes on from its "
                            "last checkpoint with learning rates × "
                            f"{record.get('learning_rate_scale')}"
                        )
                    if "fraction" not in record:  # every iteration is worth a line
                        out.print(line_of(record))
            if not latest:
                return
            newest = [latest[job] for job in sorted(latest)]
            fractions = [record.get("fraction") for record in newest]
            known = [fraction for fraction in fractions if fraction is not None]
            told = [line_of(record) for record in newest if "fraction" in record]
            numbers = "; ".join(text.splitlines()[0] for text in told)
            update(numbers, sum(known) / len(records) if known else None)

        yield RunDisplay(show, started, phases.begin)


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
