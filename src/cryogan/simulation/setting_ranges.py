"""Ranges of the settings of a simulated set, refused in one sentence that names the setting."""

from cryogan.errors import InputError

LARGEST_SPREAD = 2.0


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


def require_range(name: str, value: float, highest: float, unit: str) -> None:
    """Refuse a number that is not from 0 to `highest`.

    Raises:
        InputError: it is not.
    """
    if not 0.0 <= value <= highest:
        raise InputError(f"{name} is {value:g}; give a number from 0 to {highest:g} {unit}.")
