"""Settings of what real particle sets have and ideal ones lack: uneven contrast, and junk.

Nothing here needs torch, so that settings that cannot work are refused at once.
"""

import math
from dataclasses import dataclass

from cryogan.errors import InputError

LARGEST_SPREAD = 2.0
JUNK_KINDS = ("empty", "two", "edge", "broken", "aggregate")


def require_spread(name: str, value: float) -> None:
    """Refuse a relative standard deviation out of range.

    Raises:
        InputError: it is.
    """
    if not 0.0 <= value <= LARGEST_SPREAD:
        raise InputError(
            f"{name} is {value:g}; give a relative standard deviation from 0 to "
            f"{LARGEST_SPREAD:g}, such as 0.3."
        )


def require_share(name: str, value: float) -> None:
    """Refuse a share out of range.

    Raises:
        InputError: it is.
    """
    if not 0.0 <= value <= 1.0:
        raise InputError(f"{name} is {value:g}; give a share from 0 to 1, such as 0.2.")


def require_both(share_name: str, share: float, size_name: str, size: float) -> None:
    """Refuse a share of particles to which nothing happens, and what happens to none.

    Raises:
        InputError: one of the two is 0 and the other is not.
    """
    if (share > 0) != (size > 0):
        missing, given = (size_name, share_name) if share > 0 else (share_name, size_name)
        raise InputError(f"{given} is given but {missing} is 0; give both, or neither.")


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
