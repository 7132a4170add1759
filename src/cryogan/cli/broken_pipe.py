"""A command whose output nobody reads any more, as in `cryogan report --help | head -1`."""

import errno
import os
import select
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from typing import ParamSpec, TextIO

_P = ParamSpec("_P")
_EXIT_CODE = 141  # as a shell reports a program that SIGPIPE ended


def quiet_on_broken_pipe(main: Callable[_P, int]) -> Callable[_P, int]:
    """`main`, ending with 141 and without a word once the reader of its output has closed it."""

    @wraps(main)
    def quiet(*args: _P.args, **kwargs: _P.kwargs) -> int:
        try:
            try:
                return main(*args, **kwargs)
            finally:
                _flush()
        except BrokenPipeError:
            closed = [stream for stream in (sys.stdout, sys.stderr) if _is_closed(stream.fileno())]
            if not closed:  # the pipe was another, such as that to a worker process
                raise
            _silence(closed)
            return _EXIT_CODE

    return quiet


def _flush() -> None:
    """Standard output; the exit code of a command does not change because its terminal is gone."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        _silence([sys.stdout, sys.stderr])


def _silence(streams: Iterable[TextIO]) -> None:
    """Send streams nowhere: Python flushes them once more as it ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(null, stream.fileno())
    os.close(null)


def _is_closed(descriptor: int) -> bool:
    """Whether a pipe has no reader."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
