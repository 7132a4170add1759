"""Progress where there is no terminal: a line a minute."""

import io
import re
from collections.abc import Iterator

from rich.console import Console

from cryogan.cli.display import ProgressLines, bar


def clock_of(*times: float) -> Iterator[float]:
    yield from times


def test_a_line_a_minute_says_how_far_it_is_and_what_is_left() -> None:
    out = Console(file=io.StringIO(), width=200)
    times = clock_of(0.0, 20.0, 60.0, 61.0, 119.0, 7220.0)
    lines_of = ProgressLines(out, "half-sets", clock=lambda: next(times))
    for numbers, fraction in (
        ("a", 0.5),  # of a run that is resumed
        ("b", None),
        ("c", 0.51),
        ("d", 0.52),
        ("e, f", 0.9),
    ):
        lines_of.show(numbers, fraction)
    lines_of.close()  # the last was printed
    assert isinstance(out.file, io.StringIO)
    lines = out.file.getvalue().splitlines()
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d half-sets: "
    assert len(lines) == 2
    assert re.fullmatch(stamp + "b, 0:01:00 elapsed", lines[0])
    assert re.fullmatch(stamp + "e, f, 90 %, 2:00:20 elapsed, 0:30:00 left", lines[1])


def test_short_work_writes_one_line_into_a_file_and_a_bar_on_a_terminal() -> None:
    for terminal in (False, True):
        file = io.StringIO()
        out = Console(file=file, force_terminal=terminal, width=100)
        with bar(out, "simulation"):
            pass
        assert file.getvalue() == ""
        with bar(out, "simulation") as show:
            show("images", 0.5)
            show("noise", 1.0)
        found = file.getvalue()
        assert "noise" in found
        assert ("100 %, 0:00:00 elapsed" in found) is not terminal
        assert (found.count("\n") == 1) or terminal
