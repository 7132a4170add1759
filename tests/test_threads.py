"""Threads: what the environment asks for, else the cores of this process, shared by its parts."""

import os

import pytest

from cryogan.run.threads import threads_of_each


@pytest.mark.parametrize(("asked", "expected"), [("6", 3), ("4,2", 2), (" 1 ", 1)])
def test_half_of_what_the_environment_asks_for_is_each_half_sets(
    asked: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert threads_of_each() == expected


@pytest.mark.parametrize("asked", ["", "0", "many"])
def test_otherwise_the_cores_that_this_process_may_use_are_shared(
    asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(3, 15)))
    assert threads_of_each() == 6
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {7})
    assert threads_of_each() == 1


def test_processes_of_torchrun_share_the_cores_whatever_it_sets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)))
    assert threads_of_each(4) == 3
    assert threads_of_each(24) == 1
