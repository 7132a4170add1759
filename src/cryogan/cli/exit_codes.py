"""Exit codes of the commands (docs/reliability.md)."""

BY_VERDICT = {"structure found": 0, "doubtful": 3, "no structure": 4}

WRONG_INPUT = 2
FAILED = 5

HELP = (
    "Exit code: 0 structure found (or too few particles for a verdict), 3 doubtful, 4 no "
    "structure; 2 wrong input, 5 failed on the way; interrupted by a signal and to be resumed: "
    "130 Ctrl-C, 143 SIGTERM, 129 SIGHUP, 138 SIGUSR1."
)

ENDED = frozenset(BY_VERDICT.values())
"""Those of runs that have come to their end."""


def of_signal(number: int) -> int:
    """Of a command that a signal has stopped: as shells tell it.

    Example:
        >>> of_signal(2)
        130
    """
    return 128 + int(number)
