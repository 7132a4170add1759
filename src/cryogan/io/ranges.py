"""Which values are possible: one table for star files, headers and the command line.

Outside these ranges no electron microscope works; inside them a value can still be unusual. The
ends are generous: voltages from the lowest of transmission microscopes (20 kV) to the highest ever
built (3 MV); spherical aberration below zero as correctors leave it; overfocus; exaggerated
magnifications as RELION's imports have them.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryogan.errors import InputError

if TYPE_CHECKING:
    import numpy as np

PIXEL_SIZE_TOLERANCE = 0.01  # two pixel sizes that differ by more contradict one another


@dataclass(frozen=True)
class Range:
    """The possible values of a quantity.

    Attributes:
        name: of the quantity.
        low, high: smallest and largest possible value.
        unit: with a space before it, or nothing.
        hints: (from, below, words): what a magnitude outside the range may mean.
    """

    name: str
    low: float
    high: float
    unit: str = ""
    hints: tuple[tuple[float, float, str], ...] = ()

    def words(self, value: float) -> str:
        """What is possible, and what the value may mean: "... lies from 0 to 1 (in percent?)"."""
        found = [words for low, high, words in self.hints if low <= abs(value) < high]
        hint = f" ({found[0]})" if found else ""
        return f"{self.name} lies from {self.low:g} to {self.high:g}{self.unit}{hint}"


RANGES = {
    "defocus_u_A": Range("defocus", -1e5, 1e5, " Å", ((1e5, 1e8, "in pm?"),)),
    "defocus_v_A": Range("defocus", -1e5, 1e5, " Å", ((1e5, 1e8, "in pm?"),)),
    "defocus_angle_deg": Range("the angle of astigmatism", -360.0, 360.0, "°"),
    "voltage_kV": Range(
        "voltage", 20.0, 3000.0, " kV", ((0.02, 3.0, "in MV?"), (3000.0, 3e6, "in V?"))
    ),
    "spherical_aberration_mm": Range(
        "spherical aberration", -1.0, 20.0, " mm", ((100.0, 2e4, "in µm?"), (1e6, 2e8, "in Å?"))
    ),
    "amplitude_contrast": Range(
        "amplitude contrast", 0.0, 1.0, hints=((1.5, 100.5, "in percent?"),)
    ),
    "phase_shift_deg": Range("phase shift", -360.0, 360.0, "°"),
    "b_factor_A2": Range("a B-factor of the CTF", -1e4, 1e4, " Å²"),
    "scale": Range("the scale of a CTF", 1e-3, 1e3),
    "pixel_size_A": Range(
        "a pixel size",
        *(0.1, 100.0, " Å"),
        ((1e-2, 0.1, "in nm?"), (100.0, 1e5, "in pm?"), (1e-11, 1e-8, "in m?")),
    ),
    "magnification": Range("magnification", 1.0, 1e8),
    "detector_pixel_size_um": Range("the pixel size of a detector", 1e-4, 1e4, " µm"),
}
"""Quantity (a field of `CTFParams`, or named here) → its range."""

_DEFOCUS_UNITS = ((1e-8, 1e-4, "m"), (1e-4, 0.01, "mm"), (0.01, 100.0, "µm"))
_SMALL_DEFOCUS_A = 4000.0


def first_impossible(quantity: str, values: "np.ndarray[Any, np.dtype[np.float64]]") -> int | None:
    """Number of the first value that is not possible; None if all are."""
    possible = RANGES[quantity]
    bad = ~((values >= possible.low) & (values <= possible.high))
    return int(bad.argmax()) if bad.any() else None


def require_possible(quantity: str, value: float, what: str, remedy: str = "correct it") -> None:
    """Refuse one value that is not possible.

    Args:
        quantity: a name in `RANGES`.
        value: of it.
        what: the value in words, the subject of the message.
        remedy: what to do.

    Raises:
        InputError: the value is not possible.

    Example:
        >>> from cryogan.io.ranges import require_possible
        >>> require_possible("amplitude_contrast", 10.0, "--amp")
        Traceback (most recent call last):
        ...
        cryogan.errors.InputError: --amp is 10, but amplitude contrast lies from 0 to 1 (in \
percent?); correct it.
    """
    possible = RANGES[quantity]
    if not possible.low <= value <= possible.high:
        raise InputError(f"{what} is {value:g}, but {possible.words(value)}; {remedy}.")


def unit_of_defocus(largest: float) -> str | None:
    """The unit in which a set's defocus must be, whose largest magnitude cannot be in Å.

    A set is never in focus to 100 Å in every image; all of them 0 is another matter.
    """
    return next((unit for low, high, unit in _DEFOCUS_UNITS if low <= largest < high), None)


def is_small_defocus(largest_A: float) -> bool:
    """Whether a set's largest defocus is so small in Å that it may be in nm."""
    return 0.0 < largest_A < _SMALL_DEFOCUS_A


def contradict(first_A: float, second_A: float) -> bool:
    """Whether two pixel sizes differ by more than 1 %."""
    return abs(first_A - second_A) > PIXEL_SIZE_TOLERANCE * max(abs(first_A), abs(second_A))
