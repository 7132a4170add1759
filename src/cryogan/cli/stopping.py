"""Stopping a command when something else than a signal asks for it."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stopped_when(asked: Callable[[], bool], every_s: float) -> Iterator[None]:
    """Send this process SIGTERM, on which runs save their work, as soon as `asked` says so.

    Args:
        asked: called again and again, from a thread of its own; must not raise.
        every_s: seconds between calls.
    """
    over = threading.Event()

    def watch() -> None:
        while not asked():
            if over.wait(every_s):
                return
        os.kill(os.getpid(), signal.SIGTERM)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()
