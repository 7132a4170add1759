"""Exit codes of the commands that end with a verdict (docs/verdict.md)."""

BY_VERDICT = {"structure found": 0, "doubtful": 3, "no structure": 4}

HELP = (
    "Exit code: 0 structure found (or too few particles for a verdict), 3 doubtful, 4 no "
    "structure; 2 wrong input, 130 interrupted."
)

ENDED = frozenset(BY_VERDICT.values())
"""Those of runs that have come to their end."""
