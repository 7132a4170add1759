"""Are the numbers of a run still those of a run? Looked at in every record of the log.

What has become NaN or infinite never comes back, and a map that has vanished seldom does. A run
then goes on from its last checkpoint with gentler settings, if its objective has any; a few times
at most.
"""

from typing import Any, Protocol, Self, runtime_checkable

import torch

from cryogan.objectives.base import Objective, Step

MOST_RETRIES = 3


@runtime_checkable
class Watched(Protocol):
    """An objective that knows when its numbers have gone wrong, and what may help."""

    def fault(self, step: Step) -> str | None:
        """What is wrong with the numbers of a step, in words; None if nothing is."""
        ...

    def gentler(self) -> tuple[Self, str] | None:
        """The same with settings under which it goes wrong less easily, and which; or None."""
        ...


def fault_of(objective: Objective, step: Step) -> str | None:
    """What is wrong with the numbers of a step, in words; None if nothing is known to be.

    The map so far (`Step.section`) has to be finite, whatever the objective; the rest it says
    itself, if it is `Watched`.
    """
    if step.section is not None and not bool(torch.isfinite(step.section).all()):
        return "the map is not finite"
    return objective.fault(step) if isinstance(objective, Watched) else None


def gentler(objective: Objective, times: int) -> tuple[Objective, str] | None:
    """An objective with settings made gentler so many times, and which they are; None if not."""
    words = ""
    for _ in range(times):
        found: Any = objective.gentler() if isinstance(objective, Watched) else None
        if found is None:
            return None
        objective, words = found
    return objective, words
