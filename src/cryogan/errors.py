"""The one exception that carries a sentence meant for the user."""


class InputError(ValueError):
    """Something the user gave is wrong.

    The message is one sentence that says what is wrong, where (file, row, column) and what to
    do about it. The command line prints it and exits with status 2, without a traceback.
    """
