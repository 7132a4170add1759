"""The density of viewing directions that a run is given."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from cryogan.errors import InputError
from cryogan.objectives.adversarial.config import AdversarialConfig
from cryogan.objectives.adversarial.views import views_digest
from cryogan.objectives.base import Objective
from cryogan.run.folder import read_run
from cryogan.symmetry import point_group


def opened_views(objective: Objective) -> tuple[Objective, str | None]:
    """The objective, with an absolute path to its density of views, and a name for that density.

    None without one. A run is resumed with the density that it began with (`config.json`).

    Raises:
        InputError: the density cannot be read, or is that of a run of another symmetry.
    """
    config = objective.config
    if not isinstance(config, AdversarialConfig) or config.view_density is None:
        return objective, None
    path = Path(config.view_density).resolve()
    if path.is_dir():
        _require_symmetry(path, config.assumptions.symmetry)
    config = replace(config, view_density=str(path))
    make: Any = type(objective)
    made: Objective = make(config)
    return made, views_digest(config)


def _require_symmetry(folder: Path, wanted: str) -> None:
    found = read_run(folder).objective.config.assumptions.symmetry
    if point_group(found) != point_group(wanted):
        raise InputError(
            f"The viewing directions of {folder} go with the symmetry {found}, which that run has "
            f"imposed, not with {wanted}; give --sym {found}, or a run with {wanted}."
        )
