"""Initial models of a molecule whose symmetry is given: without it first, about its axes then.

From random numbers that have the symmetry, an initial model may be copies of the molecule about an
axis that it does not have: every image shows one of them, the half-sets agree, and only the
contrast is too low. Initial models of both half-sets are therefore made without symmetry first. If
axes of the group are found in these, they are moved there and made symmetric. If not, the symmetry
is imposed from the first batch on, which coarse images may need.
"""

from collections.abc import Generator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cryogan.evaluation.alignment import apply_alignment
from cryogan.evaluation.symmetry_search import find_axes
from cryogan.objectives.base import Step
from cryogan.objectives.likelihood.agreeing_initial_models import agreeing_initial_models
from cryogan.objectives.likelihood.bands import symmetrised
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.side_by_side import SideBySide
from cryogan.symmetry import symmetry_matrices

PHASE = "symmetry of the initial models"
"""Of the record that says what was found."""

_BETTER, _LEAST = 0.1, 1.0  # share, log-likelihood: what models without a symmetry should not gain


def initial_models(
    halves: tuple[HalfSet, HalfSet],
    given: Tensor | None,
    config: LikelihoodConfig,
    seed: int,
    device: torch.device,
    sides: SideBySide,
) -> Generator[Step, None, tuple[Tensor, int]]:
    """As `agreeing_initial_models`, of the symmetry that is imposed."""
    assumptions = config.assumptions
    symmetric = len(symmetry_matrices(assumptions.symmetry)) > 1
    if given is not None or not symmetric or assumptions.mask_file is not None:
        found = yield from agreeing_initial_models(halves, given, config, seed, device, sides)
        return found
    without = replace(config, initial_attempts=1, assumptions=replace(assumptions, symmetry="C1"))
    models = agreeing_initial_models(halves, None, without, seed, device, sides)
    (maps, seen), plain = yield from _with_last_log_likelihood(models)
    pixel_size_A = halves[0].stack(maps.shape[-1]).pixel_size_A
    moved, record = sides.once(partial(_about_its_axes, maps, pixel_size_A, config))
    yield Step({"phase": PHASE, "images_seen": seen, **record})
    if moved is not None:
        return moved, seen
    models = agreeing_initial_models(halves, None, config, seed, device, sides, seen)
    (maps, seen), imposed = yield from _with_last_log_likelihood(models)
    yield Step({**record, "phase": PHASE, "images_seen": seen, "log_likelihoods": [imposed, plain]})
    return maps, seen


def _with_last_log_likelihood(
    models: Generator[Step, None, tuple[Tensor, int]],
) -> Generator[Step, None, tuple[tuple[Tensor, int], float]]:
    """What `agreeing_initial_models` does, and the log-likelihood of its last batch."""
    last = 0.0
    while True:
        try:
            step = next(models)
        except StopIteration as end:
            return end.value, last
        last = float(step.record.get("log_likelihood", last))
        yield step


def _about_its_axes(
    maps: Tensor, pixel_size_A: float, config: LikelihoodConfig
) -> tuple[Tensor | None, dict[str, Any]]:
    """Maps (2, 1, D, D, D) in the standard orientation of the group, each about axes of its own."""
    group = config.assumptions.symmetry
    spread = maps.flatten(1).std(dim=1)  # infinite or not a number where a map is
    found = None
    if bool((spread.isfinite() & (spread > 0.0)).all()):
        found = find_axes(maps[:, 0].cpu(), pixel_size_A, group)
    if found is None:
        return None, {"group": group, "holds": False, "reason": "no axes of it were found"}
    record = {"group": group, "holds": found.places_known_group, "reason": found.describe()}
    if not found.places_known_group:
        return None, record
    both = zip(maps[:, 0], found.frames, strict=True)
    moved = torch.stack([apply_alignment(each, frame, pixel_size_A) for each, frame in both])
    return symmetrised(moved[:, None], config), record


def describe_symmetry(record: Mapping[str, Any]) -> str:
    """What was found, in a line."""
    group, reason = record["group"], record["reason"]
    if "log_likelihoods" in record:
        imposed, plain = record["log_likelihoods"]
        text = f"log-likelihood of initial models with {group} {imposed:.1f}, without {plain:.1f}"
        if plain - imposed > max(_BETTER * abs(imposed), _LEAST):
            text += f": the molecule may not have {group}; compare with --sym C1"
        return text
    if record["holds"]:
        return f"{group} found in initial models made without it: {reason}"
    return f"{group} not found in initial models made without it: {reason}; now imposed"
