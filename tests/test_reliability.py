"""docs/reliability.md: every fault names what shows it, and exit codes are those of the code."""

import re
import signal
from pathlib import Path

import pytest

from cryogan.cli import exit_codes
from cryogan.run.signals import STOPPING

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
NOT_READY = 1  # of `cryogan check`, and of a process that torchrun ends


def table(heading: str) -> list[list[str]]:
    """The cells of the rows of the first table below a heading, without its head."""
    below = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in below.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def numbers(text: str) -> set[int]:
    return {int(number) for number in re.findall(r"\b\d+\b", re.sub(r"\(.*?\)|`.*?`", "", text))}


def test_every_fault_names_a_test_or_benchmark_that_is_there() -> None:
    rows = table("What can happen")
    assert len(rows) > 15
    for what, _, _, _, shown_by in rows:
        names = re.findall(r"`([^`]+)`", shown_by)
        assert names, what
        for name in names:
            folder = "tests" if name.startswith("test_") else "benchmarks"
            path, _, function = name.partition("::")
            assert (ROOT / folder / path).is_file(), (what, name)
            if function:
                assert f"def {function}(" in (ROOT / folder / path).read_text(), (what, name)


@pytest.mark.parametrize("heading", ["Measured"])
def test_every_benchmark_that_is_named_is_there(heading: str) -> None:
    below = PAGE.split(f"\n## {heading}\n", 1)[1]
    names = re.findall(r"benchmarks/(\w+\.py|results/\w+\.csv)", below)
    assert names
    for name in names:
        assert (ROOT / "benchmarks" / name).is_file(), name


def test_the_exit_codes_are_those_of_the_commands() -> None:
    rows = table("Exit codes")
    documented = [numbers(code) for code, _, _ in rows]
    stopping = {exit_codes.of_signal(number) for number in STOPPING}
    assert documented == [
        set(exit_codes.BY_VERDICT.values()),
        {NOT_READY},
        {exit_codes.WRONG_INPUT},
        {exit_codes.FAILED},
        stopping,
        {exit_codes.of_signal(signal.SIGKILL)},
    ]
    words = rows[0][1]
    for word, code in exit_codes.BY_VERDICT.items():
        assert word in words, code
    codes = [number for number in re.findall(r"\d+", rows[4][0])]
    names = re.findall(r"SIG[A-Z0-9]+", rows[4][1])
    for code, name in zip(codes, names, strict=True):
        assert int(code) == exit_codes.of_signal(signal.Signals[name])
    told = numbers(exit_codes.HELP)
    assert told == set().union(*documented) - {NOT_READY, exit_codes.of_signal(signal.SIGKILL)}


def test_the_faults_end_with_exit_codes_of_the_table() -> None:
    known = set().union(*(numbers(code) for code, _, _ in table("Exit codes")))
    for what, _, _, code, _ in table("What can happen"):
        assert numbers(code) <= known, what
