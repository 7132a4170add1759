"""Settings of what real particle sets have and ideal ones lack: uneven contrast, and junk.

Nothing here needs torch, so that settings that cannot work are refused at once.
"""

import math
from dataclasses import dataclass

from cryogan.errors import InputError
from cryogan.simulation.setting_ranges import require_share, require_spread

JUNK_KINDS = ("empty", "two", "edge", "broken", "aggregate")


@dataclass(frozen=True)
class ContrastSettings:
    """Contrast of the particles: what the signal of an image is multiplied by.

    Attributes:
        spread: relative standard deviation of a log-normal distribution of mean 1; 0 for equal
            contrast.

    Raises:
        InputError: the spread is out of range.
    """

    spread: float = 0.0

    def __post_init__(self) -> None:
        require_spread("contrast.spread", self.spread)


@dataclass(frozen=True)
class JunkSettings:
    """Images that do not show the one whole molecule; kinds are weighted, 1 each by default.

    Attributes:
        share: share of the images that are junk, from 0 to 1.
        empty: weight of images of noise alone.
        two: weight of images with a second molecule, about a diameter away.
        edge: weight of images of the edge of a carbon film, without a molecule.
        broken: weight of images of half a molecule.
        aggregate: weight of images of three to five molecules close together.

    Raises:
        InputError: share or a weight is out of range, or all weights are 0.
    """

    share: float = 0.0
    empty: float = 1.0
    two: float = 1.0
    edge: float = 1.0
    broken: float = 1.0
    aggregate: float = 1.0

    def __post_init__(self) -> None:
        require_share("junk.share", self.share)
        for kind, weight in zip(JUNK_KINDS, self.weights, strict=True):
            if not 0.0 <= weight < math.inf:
                raise InputError(f"junk.{kind} is {weight:g}; give a weight from 0.")
        if not any(self.weights):
            raise InputError("The weights of all kinds of junk are 0; give one kind a weight.")

    @property
    def weights(self) -> tuple[float, ...]:
        """In the order of `JUNK_KINDS`."""
        return tuple(getattr(self, kind) for kind in JUNK_KINDS)
