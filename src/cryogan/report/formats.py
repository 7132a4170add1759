"""Numbers as text."""

import math


def duration(seconds: float) -> str:
    """2523.4 → 42 min 03 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def angstrom(value: float, digits: int = 1) -> str:
    """A length in Å; an infinite resolution was not reached."""
    return f"{value:.{digits}f} Å" if math.isfinite(value) else "not reached"


def significant(value: float) -> str:
    """Two digits or all before the point: 0.05, 3.4, 128."""
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.2g}"
