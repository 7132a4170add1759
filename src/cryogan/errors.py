"""The exceptions that carry a sentence meant for the user, and the one of a signal."""

import signal


class InputError(ValueError):
    """Something the user gave is wrong.

    The message is one sentence that says what is wrong, where (file, row, column) and what to
    do about it. The command line prints it and exits with status 2, without a traceback.
    """


class RunError(InputError):
    """A run that was in order has failed; what it had saved is kept, and the run can be resumed.

    The message is such a sentence. The command line exits with status 5.
    """


class Interrupted(KeyboardInterrupt):
    """A signal asked the program to stop; treated as Ctrl-C.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)
