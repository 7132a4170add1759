"""Output whose reader has gone: `cryogan report --help | head -1` ends without a word."""

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import TextIO

import pytest

from cryogan.cli import COMMANDS, main

HELP = [["--help"], *([command, "--help-all"] for command in COMMANDS)]


@pytest.fixture
def without_reader() -> Iterator[TextIO]:
    """A stream into a pipe that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream:
        yield stream


@pytest.mark.parametrize("arguments", HELP, ids=" ".join)
def test_help(
    arguments: list[str], without_reader: TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", without_reader)
    assert main(arguments) == 141


@pytest.mark.parametrize("buffered", [True, False])
def test_a_program_says_nothing(buffered: bool, without_reader: TextIO) -> None:
    """Whether the pipe breaks as it prints or as it ends."""
    program = [sys.executable, *([] if buffered else ["-u"]), "-m", "cryogan", "report", "--help"]
    done = subprocess.run(
        program, stdout=without_reader, stderr=subprocess.PIPE, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (141, "")


def test_a_refusal_that_nobody_reads(
    without_reader: TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in `cryogan ... 2>&1 | head -0`."""
    monkeypatch.setattr(sys, "stdout", without_reader)
    monkeypatch.setattr(sys, "stderr", without_reader)
    assert main(["no-such-command"]) == 141


def test_another_broken_pipe_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost worker process must not pass for a reader that has left."""

    def lost(arguments: list[str]) -> int:
        raise BrokenPipeError

    monkeypatch.setattr("cryogan.cli.report.run", lost)
    read, write = os.pipe()
    with os.fdopen(read), os.fdopen(write, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(BrokenPipeError):
            main(["report", "run"])
