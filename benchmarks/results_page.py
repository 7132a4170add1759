"""docs/results.md from the tables in benchmarks/results: every measurement, and its command.

    python benchmarks/results_page.py

Long tables are summarised as `results_sections.py` says: the last row of each run, or medians over
seeds. Every table has a section; one without is refused. A test compares the page with the tables.
"""

import argparse
import re
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median

from cryogan.benchmark.rows import read_rows
from cryogan.errors import InputError
from cryogan.files import write_text
from results_sections import SECTIONS, Section

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "results.md"
_HEAD = """# Results

All measurements of the project, from the tables in [benchmarks/results](../benchmarks/results),
each with its command, which for some made a part of the rows. This page is generated (`python
benchmarks/results_page.py`); what the numbers mean is said where the method is described.
Resolutions are in Å; `fsc_0.5_A` and `truth_fsc_0.5_A` are where the FSC with the true map,
unmasked, falls to 0.5. Seconds are CPU seconds of all processes unless a column says wall. Machines
had two CPU cores, shared with other work, and no GPU. Of several runs: median (least to greatest).
"""
_Row = Mapping[str, str]


def page(folder: Path) -> str:
    """The page of all tables in a folder.

    Raises:
        InputError: a table has no section, or lacks a column.
    """
    known = {name for section in SECTIONS for name in section.tables}
    for path in sorted(folder.glob("*.csv")):
        if path.stem not in known:
            raise InputError(f"{path.name} has no section; add one to results_sections.py.")
    parts = [_HEAD]
    for section in SECTIONS:
        tables = {name: read_rows(folder / f"{name}.csv") for name in section.tables}
        there = {name: rows for name, rows in tables.items() if rows}
        if there:
            parts.append(section_text(section, there, folder))
    return "\n".join(parts)


def section_text(section: Section, tables: Mapping[str, Sequence[_Row]], folder: Path) -> str:
    """Heading, command, what the columns mean, and the tables."""
    about = textwrap.fill(section.about, 100, break_long_words=False, break_on_hyphens=False)
    lines = [f"## {section.title}", "", about, "", f"    {section.command}", ""]
    for name, rows in tables.items():
        missing = [c for c in (*section.columns, *section.by) if c not in rows[0]]
        if missing:
            raise InputError(f"{name}.csv has no column {missing[0]}; mend its section.")
        label = section.tables[name]
        link = f"[{name}.csv](../benchmarks/results/{name}.csv)"
        lines += [f"{label}: {link}" if label else link, ""]
        lines += [*table(section, rows), ""]
        if (folder / f"{name}.png").is_file():
            lines += [f"![{section.title}](../benchmarks/results/{name}.png)", ""]
    return "\n".join(lines)


def table(section: Section, rows: Sequence[_Row]) -> list[str]:
    """Markdown: the rows themselves, or one for each group of them."""
    if not section.by:
        columns = list(section.columns or rows[0])
        return markdown(columns, [[row[name] for name in columns] for row in rows])
    columns = list(section.columns)
    groups = grouped(rows, section.by)
    if section.last:
        shown = [[*key, *(some[-1][name] for name in columns)] for key, some in groups.items()]
        return markdown([*section.by, *columns], shown)
    shown = [
        [*key, str(len(some)), *(summary([row[name] for row in some]) for name in columns)]
        for key, some in groups.items()
    ]
    return markdown([*section.by, "runs", *columns], shown)


def grouped(rows: Iterable[_Row], by: Sequence[str]) -> dict[tuple[str, ...], list[_Row]]:
    """Rows by the values of some columns, in the order in which these first occur."""
    found: dict[tuple[str, ...], list[_Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in by), []).append(row)
    return found


def summary(values: Sequence[str]) -> str:
    """Median and range of numbers; how many of each word.

    Example:
        >>> summary(["8.7", "8.8", "8.4"]), summary(["True", "True"]), summary(["C1", "D2", "D2"])
        ('8.7 (8.4 to 8.8)', '2 True', '1 C1, 2 D2')
    """
    given = [value for value in values if value != ""]
    try:
        numbers = sorted((float(value), value) for value in given)
    except ValueError:
        return ", ".join(f"{given.count(word)} {word}" for word in dict.fromkeys(given))
    if not numbers:
        return ""
    low, high = numbers[0][1], numbers[-1][1]
    middle = f"{median(number for number, _ in numbers):.4g}"
    return low if low == high else f"{middle} ({low} to {high})"


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return ["| " + " | ".join(map(_cell, line)) + " |" for line in lines]


def _cell(text: str) -> str:
    """Without signs that end a cell; a number of more than six decimals by four digits."""
    if re.fullmatch(r"-?\d+\.\d{7,}", text):
        return f"{float(text):.4g}"
    return text.replace("|", "/")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=PAGE)
    write_text(parser.parse_args().output, page(RESULTS))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(f"results_page: {error}")
