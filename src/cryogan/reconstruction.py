"""The main job: two independent half-set runs, their comparison, and the run folder."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryogan import fourier
from cryogan.conformation_folder import agreement, numbered_series, write_conformations
from cryogan.errors import InputError
from cryogan.evaluation.comparison import half_map_comparison
from cryogan.evaluation.fsc import resolution_A, write_fsc_csv
from cryogan.files import atomic_path, write_text
from cryogan.io.mrc import write_map
from cryogan.memory import keep_freed_memory
from cryogan.models.conformations import Subspace
from cryogan.models.unet import UNet
from cryogan.particles import Particles
from cryogan.physics.noise import BackgroundPatches
from cryogan.run_folder import forget_after, last_record
from cryogan.training.config import TrainingConfig
from cryogan.training.examples import example_images
from cryogan.training.loop import Progress, train
from cryogan.training.series import conformations
from cryogan.training.state import load_checkpoint, save_checkpoint
from cryogan.training.team import ALONE, Place, Team

_CHECKPOINT_EVERY_S = 60.0
_PROGRESS_PICTURES = 40
CONFORMATIONS = 20


@dataclass(frozen=True)
class HalfRun:
    """One independent run on one half of the particles: all a worker process needs."""

    folder: Path
    particles: Particles
    background: BackgroundPatches | None
    config: TrainingConfig
    seed: int
    device: str
    threads: int


@dataclass(frozen=True)
class Reconstruction:
    """What `reconstruct` found.

    Attributes:
        folder: the run folder.
        resolution_A: as in `summary.json`.
        finished: False if the run was interrupted; the same call resumes it.
    """

    folder: Path
    resolution_A: dict[str, float]
    finished: bool


def split_halves(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two random disjoint halves of `count` particles, each in ascending order."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[: count // 2].sort().values, order[count // 2 :].sort().values


def check_count(particles: Particles, config: TrainingConfig) -> None:
    """Raise InputError if there are too few particles for two half-sets."""
    if len(particles) < 2 * config.batch_size:
        raise InputError(
            f"{len(particles)} particles are fewer than two batches of {config.batch_size}; "
            "give more particles or a smaller --training.batch_size."
        )


def reconstruct(
    particles: Particles,
    folder: Path,
    config: TrainingConfig,
    *,
    seed: int,
    device: str,
    background: BackgroundPatches | None = None,
    place: Place | None = None,
    show: Callable[[list[dict[str, Any]]], None] = lambda records: None,
) -> Reconstruction:
    """Reconstruct both half-sets at the same time, compare them and write the run folder.

    `run_folder.open_run_folder` must have been called. Called again after an interruption, it
    resumes.

    Args:
        particles: the whole set.
        folder: the run folder.
        config: settings of both runs.
        seed: of the split and of both runs, which share nothing.
        device: a torch device name; with "cuda", the half-sets use two GPUs if there are two.
        background: measured noise, or None to use the set's noise spectrum.
        place: in one of several processes that all call this (`training.team.Launch`): its part.
            Only the leading one compares and writes; the others return without resolutions.
        show: called about twice a second with the newest log record of each run.

    Raises:
        InputError: too few particles, or an image that cannot be used.
    """
    check_count(particles, config)
    threads = max(1, (os.cpu_count() or 2) // (2 if place is None else place.local_size))
    runs = []
    for number, index in enumerate(split_halves(len(particles), seed), start=1):
        sub = folder / f"half{number}"
        sub.mkdir(exist_ok=True)
        runs.append(
            HalfRun(
                sub,
                particles.subset(index),
                background,
                replace(config, memory_GB=config.memory_GB / 2),
                2 * seed + number,
                _device_of_half(device, number) if place is None else place.device,
                threads,
            )
        )
    finished = _train_all(runs, show) if place is None else _train_here(place, runs, show)
    if not finished or (place is not None and not place.leads):
        return Reconstruction(folder, {}, finished)
    volumes, pixel_size_A, images_seen, spent = _collect(runs)
    halves = half_map_comparison(
        volumes[0], volumes[1], pixel_size_A, generator=torch.Generator().manual_seed(seed)
    )
    write_map(folder / "half1.mrc", halves.half1, pixel_size_A)
    write_map(folder / "half2.mrc", halves.aligned_half2, pixel_size_A)
    write_map(folder / "map.mrc", halves.average, pixel_size_A)
    curves = {"half_map": halves.fsc, "half_map_masked": halves.fsc_masked}
    write_fsc_csv(folder / "fsc.csv", pixel_size_A, curves)
    resolution = {
        "half_map_0.143": resolution_A(halves.fsc, 0.143, pixel_size_A),
        "half_map_0.143_masked": resolution_A(halves.fsc_masked, 0.143, pixel_size_A),
    }
    summary: dict[str, Any] = {
        "resolution_A": resolution,
        "pixel_size_A": pixel_size_A,
        "nyquist_A": 2 * pixel_size_A,
        "timings_s": {"total_wall": max(spent["half1_wall"], spent["half2_wall"])} | spent,
        "images_seen": images_seen,
    }
    if config.generator != "volume":
        summary["conformations"] = _write_conformations(folder, runs, pixel_size_A)
    write_text(folder / "summary.json", json.dumps(summary, indent=2))
    return Reconstruction(folder, resolution, finished=True)


def _device_of_half(device: str, number: int) -> str:
    if device == "cuda" and torch.cuda.device_count() >= 2:
        return f"cuda:{number - 1}"
    return device


def _limited(volume: torch.Tensor, band: float) -> torch.Tensor:
    """Without the coefficients beyond the band that training saw: nothing there is measured."""
    size = volume.shape[-1]
    inside = fourier.band_mask(size, band * size / 2, 3)
    return fourier.irfft(fourier.rfft(volume, 3) * inside, size, 3)


def _write_conformations(
    folder: Path, runs: list[HalfRun], pixel_size_A: float
) -> dict[str, float | None]:
    """Write those of half 1, in the frame of `half1.mrc`; how well those of half 2 agree."""
    both = []
    for run in runs:
        with np.load(run.folder / "conformations.npz") as archive:
            volumes, latents, weights = (
                torch.from_numpy(archive[name]) for name in ("volumes", "latents", "weights")
            )
        volumes = torch.stack([_limited(volume, run.config.band) for volume in volumes])
        both.append(numbered_series(volumes, pixel_size_A, weights, latents))
    is_path = runs[0].config.latent in ("uniform", "circle")
    write_conformations(folder / "conformations", both[0], path=is_path)
    return agreement(both[0], both[1])


def _collect(runs: list[HalfRun]) -> tuple[list[torch.Tensor], float, int, dict[str, float]]:
    volumes, images_seen, spent = [], 0, {}
    for run in runs:
        with np.load(run.folder / "volume.npz") as archive:
            volume = torch.from_numpy(archive["volume"])
            volumes.append(_limited(volume, run.config.band))
            pixel_size_A = float(archive["pixel_size_A"])
            images_seen += int(archive["images_seen"])
            spent[f"{run.folder.name}_wall"] = float(archive["wall_s"])
            spent[f"{run.folder.name}_cpu"] = float(archive["cpu_s"])
    return volumes, pixel_size_A, images_seen, spent


def _train_all(runs: list[HalfRun], show: Callable[[list[dict[str, Any]]], None]) -> bool:
    """Train in one process a run; False if interrupted."""
    context = multiprocessing.get_context("spawn")
    with _interrupt_held_back():  # half made, its semaphores would leak
        stop = context.Event()
    waiting = [run for run in runs if not (run.folder / "volume.npz").is_file()]
    if not waiting:
        return True
    with ProcessPoolExecutor(len(waiting), context, _begin_worker, (stop,)) as pool:
        interrupted = False
        futures: list[Future[None]] = []
        try:
            with _interrupt_held_back():
                futures += [pool.submit(_work, run) for run in waiting]
            while not all(future.done() for future in futures):
                if any(future.done() and future.exception() for future in futures):
                    stop.set()
                show([record for run in runs if (record := last_record(run.folder))])
                time.sleep(0.5)
        except KeyboardInterrupt:
            interrupted = True
        stop.set()
        for future in futures:
            future.result()
    show([record for run in runs if (record := last_record(run.folder))])
    return not interrupted and all((run.folder / "volume.npz").is_file() for run in runs)


def _train_here(
    place: Place, runs: list[HalfRun], show: Callable[[list[dict[str, Any]]], None]
) -> bool:
    """Train this process's half with its team; the leader waits for both. False if interrupted."""

    def show_all() -> None:
        if place.leads:
            show([record for run in runs if (record := last_record(run.folder))])

    def waiting() -> bool:
        return place.leads and not all((run.folder / "volume.npz").is_file() for run in runs)

    volume_path = runs[place.half].folder / "volume.npz"
    with _signals_noted() as should_stop:
        finished = place.team.from_first(volume_path.is_file)
        if not finished:
            finished = train_half(runs[place.half], place.team, should_stop, show_all)
        while finished and waiting():
            if should_stop():
                return False
            show_all()
            time.sleep(0.5)
    show_all()
    return finished


@contextmanager
def _signals_noted() -> Iterator[Callable[[], bool]]:
    """Ctrl-C, SIGTERM and the end of the parent are only noted: a team stops all at one step."""
    received: list[int] = []
    parent = os.getppid()
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, lambda s, _: received.append(s)) for number in signals]
    try:
        yield lambda: bool(received) or os.getppid() != parent
    finally:
        for number, handler in zip(signals, previous, strict=True):
            signal.signal(number, handler)


@contextmanager
def _interrupt_held_back() -> Iterator[None]:
    """Ctrl-C takes effect when the block is over; processes started inside are deaf to it.

    The mask, which they inherit, is this thread's alone: a signal that reaches another thread
    would still interrupt the block, half a worker started, if the handler did not wait too.
    """
    held: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, previous)
    if held:
        raise KeyboardInterrupt


_stop: Event


def _begin_worker(stop: Event) -> None:
    global _stop
    _stop = stop


def _work(run: HalfRun) -> None:
    """`train_half` in a worker process, which ends if its parent was killed meanwhile."""
    try:
        train_half(run)
    finally:
        if _orphaned():
            os._exit(1)  # an idle worker would wait for its next task for ever


def _orphaned() -> bool:
    parent = multiprocessing.parent_process()
    return parent is not None and not parent.is_alive()


def _should_stop() -> bool:
    return _stop.is_set() or _orphaned()


def train_half(
    run: HalfRun,
    team: Team = ALONE,
    should_stop: Callable[[], bool] = _should_stop,
    show: Callable[[], None] = lambda: None,
) -> bool:
    """Train one half in this process, logging and saving as it goes; resumes if it can.

    The first of a team writes `stats.jsonl`, `checkpoint.pt`, `progress.npz`, and at the end
    `examples.npz`, `conformations.npz` if it learns conformations, and `volume.npz`, which says
    that the run is finished.

    Args:
        run: what to train.
        team: the processes that train it together; all call this.
        should_stop: asked at every record; if one member is told to stop, all do.
        show: called after every record.

    Returns:
        False if it was stopped.
    """
    torch.set_num_threads(run.threads)
    keep_freed_memory()
    writes = team.rank == 0
    checkpoint_path = run.folder / "checkpoint.pt"
    checkpoint = team.from_first(
        lambda: load_checkpoint(checkpoint_path) if checkpoint_path.is_file() else None
    )
    pictures = _Pictures(run.folder / "progress.npz")
    log_path = run.folder / "stats.jsonl" if writes else Path(os.devnull)
    forget_after(log_path, 0 if checkpoint is None else int(checkpoint["images_seen"]))
    saved = time.perf_counter()
    progress = None
    with log_path.open("a", buffering=1) as log:
        for progress in train(
            run.particles,
            run.config,
            seed=run.seed,
            device=torch.device(run.device),
            background=run.background,
            checkpoint=checkpoint,
            team=team,
        ):
            log.write(json.dumps(progress.record | {"fraction": progress.fraction}) + "\n")
            mean = progress.state.volume.mean_volume(progress.state.average)
            pictures.add(progress.state.images_seen, progress.fraction, mean)
            show()
            if progress.fraction == 1.0:
                break  # no checkpoint of a finished run before its volume is written
            stopping = team.any(should_stop())
            if writes and (stopping or time.perf_counter() - saved > _CHECKPOINT_EVERY_S):
                save_checkpoint(checkpoint_path, progress.state)
                pictures.save()
                saved = time.perf_counter()
            if stopping:
                return False
    if progress is None:
        raise InputError(f"{checkpoint_path} is complete but its volume is missing; delete it.")
    if not writes:
        return True
    pictures.save()
    _save_arrays(run.folder / "examples.npz", **example_images(progress, run.config))
    _save_conformations(run.folder / "conformations.npz", progress)
    _save_arrays(
        run.folder / "volume.npz",
        volume=progress.state.volume.mean_volume(progress.state.average).cpu().numpy(),
        pixel_size_A=progress.data.pixel_size_A,
        images_seen=progress.state.images_seen,
        wall_s=progress.state.wall_s,
        cpu_s=progress.state.cpu_s,
    )
    save_checkpoint(checkpoint_path, progress.state)
    return True


def _save_conformations(path: Path, progress: Progress) -> None:
    volume, snapshot = progress.state.volume, progress.state.average
    if isinstance(volume, Subspace | UNet):
        shares = volume.populations().detach() if isinstance(volume, Subspace) else None
        found = conformations(
            volume.latent, partial(volume.volumes, snapshot), CONFORMATIONS, shares
        )
        _save_arrays(path, volumes=found.volumes, latents=found.latents, weights=found.weights)


class _Pictures:
    """Central sections of the volume along the run, for the report."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images_seen: list[int] = []
        self.slices: list[torch.Tensor] = []
        if path.is_file():
            with np.load(path) as archive:
                self.images_seen = archive["images_seen"].tolist()
                self.slices = list(torch.from_numpy(archive["slices"]))

    def add(self, images_seen: int, fraction: float, volume: torch.Tensor) -> None:
        while self.images_seen and self.images_seen[-1] >= images_seen:  # after a resumption
            self.images_seen.pop()
            self.slices.pop()
        if fraction * _PROGRESS_PICTURES < len(self.slices):
            return
        size = volume.shape[-1]
        middle = size // 2
        sections = torch.stack((volume[middle], volume[:, middle], volume[:, :, middle])).cpu()
        self.images_seen.append(images_seen)
        self.slices.append(sections)

    def save(self) -> None:
        if not self.slices:
            return
        size = max(section.shape[-1] for section in self.slices)
        same = [
            torch.nn.functional.interpolate(section[None], size=(size, size), mode="bilinear")[0]
            for section in self.slices
        ]
        _save_arrays(
            self.path,
            images_seen=np.array(self.images_seen),
            slices=torch.stack(same).numpy(),
        )


def _save_arrays(path: Path, **arrays: Any) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
