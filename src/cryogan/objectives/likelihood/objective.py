"""The likelihood as an objective: both half-sets together, which share their FSC."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from cryogan.conformations.path import sample_conformations
from cryogan.conformations.series import Series, numbered_series
from cryogan.data.padding import PaddedBox
from cryogan.errors import InputError
from cryogan.evaluation.fsc import corrected_fsc, ended, fourier_shell_correlation
from cryogan.evaluation.masks import soft_mask
from cryogan.objectives.base import CONFORMATIONS, Arrays, Maps, Step, Task
from cryogan.objectives.data_parallel import ProcessGroup
from cryogan.objectives.likelihood import memory
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.em import expectation_maximisation
from cryogan.objectives.likelihood.em_state import EMState
from cryogan.objectives.likelihood.found_symmetry import describe_search
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.latent_grid import latent_grid_of
from cryogan.objectives.likelihood.symmetric_initial_models import PHASE, describe_symmetry
from cryogan.objectives.memory import MemoryPlan
from cryogan.particles import Particles
from cryogan.randomness import generator_for

_FEWEST_PARTICLES = 200
_SMALLEST_BOX = 16


@dataclass(frozen=True)
class Likelihood:
    """Maximise the likelihood of the images over all poses (`Objective`)."""

    together: ClassVar[bool] = True
    config: LikelihoodConfig = field(default_factory=LikelihoodConfig)

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "Likelihood":
        return cls(LikelihoodConfig.read(config))

    def check(self, particles: Particles) -> None:
        if len(particles) < _FEWEST_PARTICLES:
            raise InputError(
                f"{len(particles)} particles are too few; give at least {_FEWEST_PARTICLES}."
            )
        if particles.box_size < _SMALLEST_BOX:
            raise InputError(
                f"The particles have a box of {particles.box_size} px; give particles of at least "
                f"{_SMALLEST_BOX} px."
            )
        latent_grid_of(self.config, self.config.assumptions.volumes)

    def memory_plan(self, particles: Particles, members: int) -> MemoryPlan:
        return memory.memory_plan(self.config.imposing("C1"), particles, members)

    def memory_trial(
        self, particles: Particles, size: int, members: int, device: torch.device
    ) -> None:
        memory.memory_trial(self.config.imposing("C1"), particles, size, members, device)

    def iterate(
        self, task: Task, checkpoint: Mapping[str, Any] | None, group: ProcessGroup
    ) -> Iterator[Step]:
        first, second = task.half_sets
        padded = self._padded(first)
        for step in expectation_maximisation(
            (
                HalfSet.of(first, task.noise, padded),
                HalfSet.of(second, task.noise, padded),
            ),
            self.config.padded(padded.share),
            seed=task.seed,
            device=task.device,
            maps=None if task.maps is None else padded.pad(task.maps),
            populations=task.populations,
            state=None if checkpoint is None else EMState.read(checkpoint),
            group=group,
        ):
            if step.map_so_far is None:
                yield step
            else:
                yield replace(step, map_so_far=partial(_cropped, padded, step.map_so_far))

    def fault(self, step: Step) -> str | None:
        if not math.isfinite(step.record.get("log_likelihood", 0.0)):
            return "the log-likelihood is not finite"
        state = step.live
        if state is None:
            return None
        if not bool(torch.isfinite(state.halves).all()):
            return "the maps are not finite"
        means = state.halves[:, 0].flatten(1)
        return None if bool(means.any(dim=1).all()) else "a map is empty"

    def with_learning_rates(self, scale: float) -> None:
        return None  # EM has none

    def outcome(self, step: Step, task: Task) -> dict[str, Arrays]:
        state: EMState = step.live
        particles = task.half_sets[0]
        padded = self._padded(particles)
        average, halves = padded.crop(state.average.cpu()), padded.crop(state.halves.cpu())
        assert state.unfiltered is not None
        assert state.splits is not None
        unfiltered = padded.crop(state.unfiltered.cpu())
        grid = latent_grid_of(self.config, len(average), state.prior)
        pixel_size_A = particles.pixel_size_A * particles.box_size / average.shape[-1]
        width_A = padded.width_px * particles.pixel_size_A
        result = {
            "basis": halves,
            "filtered": torch.einsum("c,hczyx->hzyx", grid.average, halves),
            "populations": state.prior,
            "image_model": torch.tensor([state.contrast_sd, state.junk_share]),
            "power_splits": state.splits,
            "power_splits_width_A": torch.tensor(width_A, dtype=torch.float64),
            "band_A": torch.tensor(width_A / state.band),
            "pixel_size_A": torch.tensor(pixel_size_A, dtype=torch.float64),
        }
        if self.config.view_density:
            result["view_density"] = state.views
        if self.config.assumptions.finds_symmetry:
            result["symmetry"] = _as_bytes(state.symmetry_search)
        plain = {"average": average, "half1": unfiltered[0], "half2": unfiltered[1]}
        for name, basis in plain.items():
            result[name] = torch.einsum("c,czyx->zyx", grid.average, basis)
        for name, basis in (("average", average), ("half1", halves[0]), ("half2", halves[1])):
            if len(basis) > 1:
                result |= self._conformations(name, basis, state.prior)
        return {"result.npz": result}

    def _conformations(self, name: str, basis: Tensor, populations: Tensor) -> Arrays:
        space = self.config.assumptions.latent_space

        def volumes(latent: Tensor) -> Tensor:
            coefficients = space.coefficients(latent, len(basis)).to(basis)
            return torch.einsum("lc,czyx->lzyx", coefficients, basis)

        found = sample_conformations(space, volumes, CONFORMATIONS, populations)
        return {
            f"{name}_volumes": found.volumes,
            f"{name}_latents": found.latents,
            f"{name}_weights": found.weights,
        }

    def maps(self, outcomes: Sequence[Arrays], particles: Particles, seed: int) -> Maps:
        (found,) = outcomes
        pixel_size_A = float(found["pixel_size_A"])
        first, second, average = found["half1"], found["half2"], found["average"]
        mask = soft_mask(average, pixel_size_A)
        generator = generator_for(seed, "phase randomisation")

        def series(name: str) -> Series:
            volumes, latents, weights = (
                found[f"{name}_{what}"] for what in ("volumes", "latents", "weights")
            )
            return numbered_series(volumes, pixel_size_A, weights, latents)

        many = "average_volumes" in found
        last = int(first.shape[-1] * pixel_size_A / float(found["band_A"]) + 1e-6)
        return Maps(
            first,
            second,
            average,
            mask,
            ended(fourier_shell_correlation(first, second), last),
            ended(corrected_fsc(first, second, mask, generator), last),
            pixel_size_A,
            conformations=series("average") if many else None,
            halves=(series("half1"), series("half2")) if many else None,
            symmetry=_read_bytes(found["symmetry"]) if "symmetry" in found else None,
        )

    def _padded(self, particles: Particles) -> PaddedBox:
        return PaddedBox.of(particles.box_size, self.config.assumptions.reach)

    @staticmethod
    def describe(record: Mapping[str, Any]) -> str:
        if record["phase"] == "half-map comparison":
            agreed_A = record["half_map_0.5_A"]
            return f"half-maps agree to {agreed_A:.1f} Å (FSC 0.5) after the initial model"
        if record["phase"] == "hand comparison":
            mean, hand = record["log_likelihoods"]
            chosen = "mean map" if mean >= hand else "map of one hand"
            found = f"mean map {mean:.1f}, map of one hand {hand:.1f}"
            return f"log-likelihoods: {found}; the {chosen} continues"
        if record["phase"] == PHASE:
            return describe_symmetry(record)
        text = f"{record['rings']} rings, log-likelihood {record['log_likelihood']:.1f}"
        if record["phase"] == "refinement":
            symmetry = f", {record['symmetry']}" if "symmetry" in record else ""
            lines = [
                f"iteration {record['iteration']}: {record['images']} images{symmetry}, {text}, "
                f"half-map FSC 0.143 at {record['half_map_0.143_A']:.2f} Å"
            ]
            if "symmetry_search" in record:
                lines.append(describe_search(record["symmetry_search"]))
            return "\n".join(lines)
        lines = [f"{record['phase']}: {text}"]
        for number, compared in enumerate(record.get("initialisations", []), start=1):
            found = ", ".join(f"{each:.2f}" for each in sorted(compared, reverse=True))
            lines.append(
                f"half-set {number}: log-likelihoods of its random initialisations {found}; the "
                "first continues"
            )
        return "\n".join(lines)


def _cropped(padded: PaddedBox, map_so_far: Callable[[], Tensor]) -> Tensor:
    return padded.crop(map_so_far().cpu())


def _as_bytes(value: Any) -> Tensor:
    """(n,) uint8 of its JSON: arrays have no words."""
    return torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8)


def _read_bytes(array: Tensor) -> Any:
    return json.loads(bytes(array.tolist()))
