"""Initial models of both half-sets, each of its own images alone, until two of them agree."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from cryogan.evaluation.alignment import align, apply_alignment
from cryogan.evaluation.fsc import fourier_shell_correlation, resolution_A
from cryogan.objectives.base import Step
from cryogan.objectives.likelihood.bands import fsc_cutoff_shell, fsc_of_basis
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.initial_model import InitialStep, initial_model
from cryogan.objectives.likelihood.side_by_side import SideBySide
from cryogan.physics.imaging import rescale_volume
from cryogan.randomness import generator_for

_AGREEMENT = 0.5  # mean FSC of models that are good enough


def agreeing_initial_models(
    halves: tuple[HalfSet, HalfSet],
    given: Tensor | None,
    config: LikelihoodConfig,
    seed: int,
    device: torch.device,
    sides: SideBySide,
    seen: int = 0,
) -> Generator[Step, None, tuple[Tensor, int]]:
    """Coarse maps (2, 1, D, D, D), and how many images have been seen; from `given` ones, if any.

    A model may be wrong, but two wrong ones hardly agree. Where the half-sets' models do not, both
    get another one from other random numbers. The two, one of each half-set, that agree best are
    chosen; each is made of its own images alone.
    """
    rings = 0 if given is None else fsc_cutoff_shell(fsc_of_basis(given)[0], 0.5)

    def model_of(number: int, attempt: int) -> Iterator[InitialStep]:
        start = None if given is None else given[number, 0]
        names = ("initial model", number) if attempt == 0 else ("initial model", number, attempt)
        return initial_model(
            halves[number], config, generator_for(seed, *names), device, start, rings
        )

    best = _Agreement(-1.0)
    models: tuple[list[Tensor], list[Tensor]] = ([], [])
    for attempt in range(1 if given is not None else config.initial_attempts):
        for steps in _side_by_side(sides, model_of(0, attempt), model_of(1, attempt)):
            seen += sum(step.tried * step.images for step in steps)
            log_likelihood = 0.5 * sum(step.log_likelihood for step in steps)
            record = record_of_batch("initial model", seen, steps[0].rings, log_likelihood)
            if steps[0].compared:
                record["initialisations"] = [list(step.compared) for step in steps]
            # the models of the half-sets have no common frame
            yield Step(record, map_so_far=partial(torch.clone, steps[0].maps))
        for mine, step in zip(models, steps, strict=True):
            mine.append(step.maps)
        pixel_size_A = halves[0].stack(models[0][0].shape[-1]).pixel_size_A
        best = sides.once(partial(_best_agreement, best, models, attempt, pixel_size_A))
        agreed_A = resolution_A(best.fsc, 0.5, pixel_size_A)
        record = {"phase": "half-map comparison", "images_seen": seen, "half_map_0.5_A": agreed_A}
        yield Step(record)
        if best.area >= _AGREEMENT:
            break
    pair = best.pair
    if given is not None:  # whose frame they are to have
        reference = rescale_volume(given[0, 0].to(device), pair.shape[-1])
        alignment = sides.once(partial(align, pair[0], reference, pixel_size_A))
        pair = torch.stack([apply_alignment(each, alignment, pixel_size_A) for each in pair])
    both = zip(halves, pair, strict=True)
    return torch.stack([half.basis_scaled_to_images(own[None]) for half, own in both]), seen


@dataclass(frozen=True)
class _Agreement:
    """How far the initial models of the half-sets agree.

    Attributes:
        area: mean FSC of their shells, 0 from the first below 0.5 on.
        fsc: (D // 2 + 1,).
        pair: (2, D, D, D) the models, the second aligned to the first.
    """

    area: float
    fsc: Tensor = field(default_factory=lambda: torch.zeros(1))
    pair: Tensor = field(default_factory=lambda: torch.zeros(2, 1, 1, 1))

    @classmethod
    def of(cls, first: Tensor, second: Tensor, pixel_size_A: float) -> "_Agreement":
        second = apply_alignment(second, align(second, first, pixel_size_A), pixel_size_A)
        fsc = fourier_shell_correlation(first, second)
        within = fsc[1 : len(fsc) - 2].nan_to_num()
        above = (within >= 0.5).int().cumprod(0)
        return cls(float((within * above).mean()), fsc, torch.stack((first, second)))


def _best_agreement(
    best: _Agreement,
    models: tuple[list[Tensor], list[Tensor]],
    last: int,
    pixel_size_A: float,
) -> _Agreement:
    """The best so far, or of the last model of a half-set and any of the other."""
    for first, second in product(range(last + 1), repeat=2):
        if last in (first, second):
            found = _Agreement.of(models[0][first], models[1][second], pixel_size_A)
            best = max(best, found, key=lambda agreement: agreement.area)
    return best


def _side_by_side(
    sides: SideBySide, first: Iterator[InitialStep], second: Iterator[InitialStep]
) -> Iterator[tuple[InitialStep, InitialStep]]:
    """Both, a step at a time."""
    while True:
        one, other = sides.both(lambda number: next((first, second)[number], None))
        if one is None or other is None:
            return
        yield one, other


def record_of_batch(phase: str, seen: int, rings: int, log_likelihood: float) -> dict[str, Any]:
    """What the log says of a batch or an iteration."""
    return {
        "phase": phase,
        "images_seen": seen,
        "rings": rings,
        "log_likelihood": log_likelihood,
    }
