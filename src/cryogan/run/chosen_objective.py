"""Which objective a run has where none is named, and what it would make no use of."""

import json
from pathlib import Path

from cryogan.errors import InputError
from cryogan.registry import DEFAULT_OBJECTIVE


def objective_of_folder(folder: Path | str | None) -> str | None:
    """Name of the objective of the run in a folder, which is resumed; None if it holds none.

    Example:
        >>> objective_of_folder("no/such/folder") is None
        True
    """
    if folder is None:
        return None
    try:
        found = json.loads((Path(folder) / "config.json").read_bytes())["objective"]
    except (OSError, ValueError, KeyError, TypeError):  # a damaged one is refused when it is opened
        return None
    return found if isinstance(found, str) else None


def objective_or_default(objective: str | None, folder: Path | str | None) -> str:
    """The objective that is named, or that of the run in the folder, or the default.

    Example:
        >>> objective_or_default(None, None)
        'likelihood'
    """
    return objective or objective_of_folder(folder) or DEFAULT_OBJECTIVE


def require_use(objective: str, preset: str, view_sigma: float | None) -> None:
    """Refuse what is for adversarial training only, where the likelihood would ignore it.

    Args:
        objective: its name.
        preset: of settings; "default" is of any objective.
        view_sigma: of assumed viewing directions, or None.

    Raises:
        InputError: one of them is given.
    """
    if objective != "likelihood":
        return
    unused = [f"the preset {preset}"] if preset != "default" else []
    unused += [] if view_sigma is None else ["an assumed distribution of views (--view-sigma)"]
    if unused:
        raise InputError(
            f"The likelihood makes no use of {unused[0]}; leave it out, or choose adversarial "
            "training (--objective adversarial)."
        )
