"""Are the numbers of a run still those of a run? Looked at in every record of the log.

What has become NaN or infinite never comes back, and a map that has vanished seldom does. A run
then goes on from its last checkpoint with lower learning rates, if its objective has any: half, a
quarter and an eighth of the settings, for the rest of the run.
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

    def with_learning_rates(self, scale: float) -> Self | None:
        """The same with learning rates `scale` times those of the settings; None without any."""
        ...


def fault_of(objective: Objective, step: Step) -> str | None:
    """What is wrong with the numbers of a step, in words; None if nothing is known to be.

    The map so far (`Step.section`) has to be finite, whatever the objective; the rest it says
    itself, if it is `Watched`.
    """
    if step.section is not None and not bool(torch.isfinite(step.section).all()):
        return "the map is not finite"
    return objective.fault(step) if isinstance(objective, Watched) else None


def learning_rate_scale(retries: int) -> float:
    """Of a run whose numbers have gone wrong so often.

    Example:
        >>> [learning_rate_scale(retries) for retries in range(MOST_RETRIES + 1)]
        [1.0, 0.5, 0.25, 0.125]
    """
    return 0.5**retries


def after_retries(objective: Objective, retries: int) -> Objective | None:
    """The objective to go on with; None if it has no learning rates."""
    if retries == 0:
        return objective
    if not isinstance(objective, Watched):
        return None
    scaled: Any = objective.with_learning_rates(learning_rate_scale(retries))
    return scaled  # type: ignore[no-any-return]
