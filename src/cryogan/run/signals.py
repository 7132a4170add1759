"""Signals that ask a run to stop: Ctrl-C, and what batch systems and closed terminals send."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""All that ask to stop; any of them may be ignored by the process that starts us (`nohup`)."""

REPEATED_S = 2.0
"""Signals within this time of the first are the same request: torchrun passes on what SLURM has
sent to all processes already."""

Handler = Callable[[int], None]


@contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Call `handler` with the number of a signal that asks to stop, unless it is ignored.

    Only a main thread can do this; elsewhere signals do not arrive.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        handler(number)

    previous = {}
    for number in STOPPING:
        found = signal.getsignal(number)
        if found is not signal.SIG_IGN and found is not None:  # None: not set from Python
            previous[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, found in previous.items():
            signal.signal(number, found)


@contextmanager
def held_back() -> Iterator[None]:
    """Signals take effect when the block is over; processes started inside have them blocked.

    The mask, which they inherit, is this thread's alone: a signal that reaches another thread
    would still interrupt the block, half a worker started, if the handlers did not wait too.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    with handled(held.append):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if held:
        signal.raise_signal(held[0])


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Signals that ask to stop end the process, with nothing saved, while the block lasts.

    For calls into libraries that wait for others and come back to Python only then: handlers would
    not be called until that.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {}
    for number in STOPPING:
        found = signal.getsignal(number)
        if found is not signal.SIG_IGN and found is not None:
            previous[number] = signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, found in previous.items():
            signal.signal(number, found)


class StopRequests:
    """Signals only noted, so that work stops where it can be saved; a second one ends it at once.

    A context manager, for the main thread of a process of ours: it also lets signals through that
    the process has inherited as blocked.

    Attributes:
        received: number of the first signal, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._at = 0.0
        self._handled = handled(self._note)

    def _note(self, number: int) -> None:
        now = time.monotonic()
        if self.received is None:
            self.received, self._at = number, now
        elif now - self._at > REPEATED_S:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def __enter__(self) -> Self:
        self._handled.__enter__()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        return self

    def __exit__(self, *error: object) -> None:
        self._handled.__exit__(None, None, None)
