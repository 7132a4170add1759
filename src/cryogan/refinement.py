"""Likelihood on disk: refining the maps of a run, or reconstructing from random numbers."""

import json
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryogan.conformation_folder import agreement, numbered_series, write_conformations
from cryogan.errors import InputError
from cryogan.evaluation.fsc import (
    corrected_fsc,
    fourier_shell_correlation,
    resolution_A,
    write_fsc_csv,
)
from cryogan.evaluation.masks import soft_mask
from cryogan.evaluation.series import Series
from cryogan.files import atomic_path, write_text
from cryogan.io.mrc import read_map, write_map
from cryogan.likelihood.ascent import AscentState, ascend
from cryogan.likelihood.config import AscentConfig
from cryogan.likelihood.field import Field
from cryogan.likelihood.half_set import HalfSet
from cryogan.memory import keep_freed_memory
from cryogan.particles import Particles
from cryogan.physics.noise import BackgroundPatches
from cryogan.reconstruction import CONFORMATIONS, split_halves
from cryogan.run_folder import forget_after, read_conformations
from cryogan.symmetry import symmetry_matrices
from cryogan.training.series import conformations


def half_maps(folder: Path, particles: Particles) -> Tensor:
    """(2, D, D, D) half maps of a run, in one frame.

    Raises:
        InputError: they do not have the particles' field of view.
    """
    maps = [read_map(folder / f"half{number}.mrc") for number in (1, 2)]
    wanted_A = particles.box_size * particles.pixel_size_A
    for map_ in maps:
        found_A = map_.volume.shape[-1] * map_.pixel_size_A
        if abs(found_A / wanted_A - 1.0) > 0.02:
            raise InputError(
                f"The half maps of {folder} are {found_A:.1f} Å wide but the particles "
                f"{wanted_A:.1f} Å; give the particles that the run was made from."
            )
    return torch.stack([map_.volume for map_ in maps])


def half_components(
    folder: Path, particles: Particles, config: AscentConfig
) -> tuple[Tensor, Tensor | None]:
    """Components of both halves of a run (2, C, D, D, D), and populations (classes,) if it has any.

    Those that the likelihood has found, as they are; or each half's map, and what the maps of
    `conformations/` are in terms of the latent's functions, the same for both. The half maps alone
    (C = 1) if one structure is wanted or the run has no conformations.

    Raises:
        InputError: maps cannot be read, or do not belong to the particles or to one another.
    """
    maps = half_maps(folder, particles)
    if config.components == 1 or not (folder / "conformations").is_dir():
        return maps[:, None], None
    series = read_conformations(folder / "conformations")
    classes = config.latent == "discrete"
    fits = series.coordinate.shape[1] == config.space.dimension
    if fits and classes:
        fits = series.coordinate[:, 0].tolist() == list(range(config.classes))
    elif fits:  # maps of lines, circles and squares lie strictly inside
        inside = (series.coordinate > 0) & (series.coordinate < 1)
        fits = bool(inside.all()) and len(series) >= config.components
    if not fits:
        raise InputError(
            f"The {len(series)} maps in {folder / 'conformations'} are not of a latent "
            f"'{config.latent}'"
            + (f" with {config.classes} classes" if classes else "")
            + "; leave --ascent.latent and --ascent.classes as the run had them."
        )
    populations = series.weight.float() if classes else None
    state, _ = _read_state(folder / "state.npz")
    if state is not None and state.halves.shape[1] == config.components:
        return Field(particles.box_size, state.width_px, 1.0).leave(state.halves), populations
    if series.volumes.shape[-1] != maps.shape[-1]:
        raise InputError(
            f"The maps in {folder / 'conformations'} have another box than those of {folder}; "
            "run the reconstruction again."
        )
    amounts = config.space.amounts(series.coordinate.float(), config.components).double()
    fitted = torch.linalg.pinv(amounts) @ series.volumes.double().flatten(1)
    components = fitted.float().view(-1, *maps.shape[1:])
    components[0] -= series.mean.to(components)  # which each half's own map takes the place of
    own = torch.nn.functional.pad(maps[:, None], (0,) * 6 + (0, len(components) - 1))
    return components + own, populations


def check_refinable(particles: Particles, config: AscentConfig) -> None:
    """Refuse what `refine` cannot work with, before anything is written.

    Raises:
        InputError: too few particles, or an unknown symmetry.
    """
    symmetry_matrices(config.symmetry)
    if len(particles) < 200:
        raise InputError(f"{len(particles)} particles are too few; give at least 200.")


def refine(
    particles: Particles,
    folder: Path,
    config: AscentConfig,
    *,
    seed: int,
    device: str,
    maps: Tensor | None = None,
    populations: Tensor | None = None,
    background: BackgroundPatches | None = None,
    show: Callable[[dict[str, Any]], None] = lambda record: None,
) -> dict[str, float]:
    """Maximise the likelihood of two half-sets and write maps, FSC, log and summary.

    `check_refinable` and `run_folder.open_run_folder` must have been called. Called again after an
    interruption, it goes on from the last pass.

    Args:
        particles: the whole set.
        folder: where to write.
        config: settings.
        seed: of the split into halves, the same as that of `maps`.
        device: a torch device name.
        maps: (2, C, D, D, D) from `half_components`, or None to start from random numbers.
        populations: (classes,) that come with them.
        background: patches whose spectrum is that of the noise, or None to find it in the images.
        show: called with every log record.

    Returns:
        Resolutions as in `summary.json`.

    Raises:
        InputError: an image cannot be used.
    """
    keep_freed_memory()
    state_path, log_path = folder / "state.npz", folder / "stats.jsonl"
    state, spent = _read_state(state_path)
    forget_after(log_path, 0 if state is None else state.images_seen)
    wall, cpu = time.perf_counter() - spent[0], time.process_time() - spent[1]
    field = Field.of(particles.box_size, config)
    if maps is not None:
        maps = field.enter(maps)
    halves = [
        HalfSet.of(particles.subset(index), background, field)
        for index in split_halves(len(particles), seed)
    ]
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // 2))  # two halves at a time
    try:
        with log_path.open("a", buffering=1) as log:
            for step in ascend(
                (halves[0], halves[1]),
                field.settings(config),
                seed=seed,
                device=torch.device(device),
                maps=maps,
                populations=populations,
                state=state,
            ):
                spent = (time.perf_counter() - wall, time.process_time() - cpu)
                record = step.record | {"wall_s": spent[0], "cpu_s": spent[1]}
                log.write(json.dumps(record) + "\n")
                show(record)
                if step.state is not None:
                    state = step.state
                    _write_state(state_path, state, spent)
    finally:
        torch.set_num_threads(threads)
    assert state is not None
    return _write_results(folder, state, particles, config, seed, spent)


def _write_state(path: Path, state: AscentState, spent: tuple[float, float]) -> None:
    values: dict[str, Any] = {
        field.name: torch.as_tensor(getattr(state, field.name)).cpu().numpy()
        for field in fields(state)
    }
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, spent=np.array(spent), **values)


def _read_state(path: Path) -> tuple[AscentState | None, tuple[float, float]]:
    if not path.is_file():
        return None, (0.0, 0.0)
    try:
        with np.load(path) as archive:
            values: dict[str, Any] = {
                name: torch.from_numpy(archive[name])
                if archive[name].ndim
                else archive[name].item()
                for name in archive.files
            }
        wall_s, cpu_s = values.pop("spent").tolist()
        return AscentState(**values), (wall_s, cpu_s)
    except Exception as error:
        raise InputError(f"{path} cannot be read; delete it to refine from the start.") from error


def _write_results(
    folder: Path,
    state: AscentState,
    particles: Particles,
    config: AscentConfig,
    seed: int,
    spent: tuple[float, float],
) -> dict[str, float]:
    field = Field.of(particles.box_size, config)
    both, halves = field.leave(state.both.cpu()), field.leave(state.halves.cpu())
    pixel_size_A = particles.pixel_size_A * particles.box_size / both.shape[-1]
    landscape = config.landscape(len(both), state.prior)

    def mean(components: Tensor) -> Tensor:
        return torch.einsum("c,czyx->zyx", landscape.average, components)

    first, second = (mean(components) for components in halves)
    mask = soft_mask(mean(both), pixel_size_A)
    fsc = fourier_shell_correlation(first, second)
    masked = corrected_fsc(first, second, mask, torch.Generator().manual_seed(seed))
    write_map(folder / "half1.mrc", first, pixel_size_A)
    write_map(folder / "half2.mrc", second, pixel_size_A)
    write_map(folder / "map.mrc", mean(both), pixel_size_A)
    curves = {"half_map": fsc, "half_map_masked": masked}
    write_fsc_csv(folder / "fsc.csv", pixel_size_A, curves)
    resolution = {
        "half_map_0.143": resolution_A(fsc, 0.143, pixel_size_A),
        "half_map_0.143_masked": resolution_A(masked, 0.143, pixel_size_A),
    }
    summary: dict[str, Any] = {
        "resolution_A": resolution,
        "pixel_size_A": pixel_size_A,
        "nyquist_A": 2 * pixel_size_A,
        "timings_s": {"total_wall": spent[0], "total_cpu": spent[1]},
        "images_seen": state.images_seen,
    }
    if len(both) > 1:
        found = (both, halves[0], halves[1])
        summary["conformations"] = _write_conformations(
            folder, found, state.prior, config, pixel_size_A
        )
    write_text(folder / "summary.json", json.dumps(summary, indent=2))
    return resolution


def _write_conformations(
    folder: Path,
    found: tuple[Tensor, Tensor, Tensor],
    populations: Tensor,
    config: AscentConfig,
    pixel_size_A: float,
) -> dict[str, float | None]:
    """Write those of all particles; how well those of the halves agree."""
    space = config.space
    both, first, second = found

    def series(components: Tensor) -> Series:
        def volumes(latent: Tensor) -> Tensor:
            amounts = space.amounts(latent, len(components)).to(components)
            return torch.einsum("lc,czyx->lzyx", amounts, components)

        made = conformations(space, volumes, CONFORMATIONS, populations)
        return numbered_series(made.volumes, pixel_size_A, made.weights, made.latents)

    is_path = config.latent in ("uniform", "circle")
    write_conformations(folder / "conformations", series(both), path=is_path)
    return agreement(series(first), series(second))
