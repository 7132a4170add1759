"""Data sets on disk: clean images, then noise, streamed; memory does not grow with the images."""

import math
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
import torch
from torch import Tensor

from cryogan.errors import InputError
from cryogan.files import remove_left_overs
from cryogan.io.mrc import StackWriter, write_map, write_stack
from cryogan.physics.ctf import ctf as ctf_of
from cryogan.physics.imaging import form_images
from cryogan.physics.projection import volume_spectrum
from cryogan.randomness import generator_for
from cryogan.simulation.junk import BROKEN, HALVES, half_map, spoil
from cryogan.simulation.junk import diameter_A as diameter_A_of
from cryogan.simulation.noise import gain
from cryogan.simulation.prepared import NOISE, Prepared, draw_truth, one_thread, prepare
from cryogan.simulation.truth import (
    Truth,
    map_name,
    micrograph_names,
    truth_columns,
    write_stars,
    write_states,
)

__all__ = [
    "Measured",
    "Prepared",
    "check_folder",
    "draw_truth",
    "make_folders",
    "needed_bytes",
    "prepare",
    "write_dataset",
]

BATCH_PIXELS = 1 << 20  # of noise-free images formed at a time
CHUNK_PIXELS = 1 << 20  # of noise from one generator: changing it changes every data set
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

Show = Callable[[str, float], None]
"""Told what is being done and which fraction of the whole is done."""


@dataclass(frozen=True)
class Measured:
    """What the finished images hold.

    Attributes:
        clean_rms: root mean square of the noise-free images over all pixels of the set, before
            contrast and junk.
        noise_rms: of the noise that was added.
        snr_dB: 20 log10 of their ratio, in the box for which the settings state it; None
            without noise.
    """

    clean_rms: float
    noise_rms: float
    snr_dB: float | None


def needed_bytes(prepared: Prepared) -> int:
    """Free disk that making the set takes: the stack, a clean copy of it meanwhile, the maps."""
    settings = prepared.settings
    images = 2 * settings.images * settings.box_size**2
    maps = len(prepared.conformations) * settings.box_size**3
    return 4 * (images + maps) + 1000 * settings.images


def make_folders(folder: Path) -> None:
    """Make a data set's folder and `truth/` in it.

    Raises:
        InputError: it cannot be made.
    """
    try:
        (folder / "truth").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"Cannot make the folder {folder / 'truth'}: {error.strerror}; choose another place."
        ) from error


def check_folder(prepared: Prepared, folder: Path) -> None:
    """See that the set fits on the folder's disk, then make the folder.

    Raises:
        InputError: too little is free, or the folder cannot be made.
    """
    there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    needed, free = needed_bytes(prepared), shutil.disk_usage(there).free
    if needed > free:
        raise InputError(
            f"The data set needs {needed / 1e9:.1f} GB in {folder} (half of it only while it is "
            f"made) but {free / 1e9:.1f} GB are free; choose another disk, fewer images or a "
            "smaller box."
        )
    make_folders(folder)


def write_dataset(
    prepared: Prepared,
    folder: Path,
    *,
    workers: int = 1,
    show: Show = lambda what, fraction: None,
) -> Measured:
    """Make a data set: `particles.mrcs`, `particles.star` and the truth in `truth/`.

    Where the noise is measured background, `background.mrcs` holds the patches that no image
    was made of, for the reconstruction. The bits depend on the settings only, not on
    `workers`. Every file is whole or absent, and `particles.star` comes last.

    Args:
        prepared: from `prepare`.
        folder: where to; made if it does not exist.
        workers: threads.
        show: called with the progress.

    Raises:
        InputError: the folder cannot be written, the disk is too full, or the images hold no
            signal that the noise could be measured against.
    """
    check_folder(prepared, folder)
    for place in (folder, folder / "truth"):
        remove_left_overs(place)  # of an earlier try that was killed
    truth = draw_truth(prepared)
    with (
        one_thread(),
        ThreadPoolExecutor(workers) as pool,
        tempfile.TemporaryFile(dir=folder) as clean,  # nameless: gone whatever happens
    ):
        power = _write_clean(prepared, truth, folder, clean, pool, show)
        if not 0.0 < power < math.inf:
            raise InputError(
                f"The mean square of the noise-free images is {power:g}, so that no "
                "signal-to-noise ratio can be reached; correct the map's grey values or the CTF."
            )
        measured = _write_noisy(prepared, truth, folder, clean, math.sqrt(power), pool, show)
    write_states(folder, prepared.conformations, truth)
    write_stars(
        folder,
        truth.pose,
        truth.ctf,
        box_size=prepared.settings.box_size,
        pixel_size_A=prepared.settings.pixel_size_A,
        recorded_ctf=truth.recorded_ctf,
        common=micrograph_names(prepared.settings),
        extra=truth_columns(prepared.conformations, prepared.settings, truth),
    )
    return measured


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[_Item], _Result], items: Iterable[_Item]
) -> Iterator[_Result]:
    """As `map`, in threads, with only a few results waiting at any time."""
    waiting: deque[Future[_Result]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > 4:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _write_clean(
    prepared: Prepared,
    truth: Truth,
    folder: Path,
    clean: IO[bytes],
    pool: ThreadPoolExecutor,
    show: Show,
) -> float:
    """Noise-free images into a scratch file, conformation by conformation; their mean square."""
    settings = prepared.settings
    total, done = 0.0, 0
    made = prepared.conformations
    for number in range(len(made)):
        volume = made.volume(number)
        write_map(folder / "truth" / map_name(made, number), volume, settings.pixel_size_A)
        shown = truth.state == number
        for count, power in _write_images(prepared, truth, volume, shown, clean, pool):
            total += power
            done += count
            show("images", 0.7 * done / settings.images)
        for half in range(HALVES):
            broken = shown & (truth.junk.kind == BROKEN) & (truth.junk.half == half)
            if not bool(broken.any()):
                continue
            cut = half_map(volume, truth.junk.normal[half])
            for _ in _write_images(prepared, truth, cut, broken, clean, pool):
                pass  # in the place of the whole molecules, whose power counts
    return total / (settings.images * settings.box_size**2)


def _write_images(
    prepared: Prepared,
    truth: Truth,
    volume: Tensor,
    shown: Tensor,
    clean: IO[bytes],
    pool: ThreadPoolExecutor,
) -> Iterator[tuple[int, float]]:
    """Noise-free images of one map into a scratch file.

    Args:
        prepared: the set.
        truth: of it.
        volume: (D, D, D).
        shown: (n,) bool, in which images.
        clean: the scratch file.
        pool: threads.

    Yields:
        Number of images written, and the sum of the squares of their pixels before contrast and
        junk.
    """
    settings = prepared.settings
    box_size, pixel_size_A = settings.box_size, settings.pixel_size_A
    image_bytes = 4 * box_size**2
    batch = max(1, BATCH_PIXELS // round(box_size * settings.resolved_padding) ** 2)
    chosen = shown.nonzero()[:, 0]
    if len(chosen) == 0:
        return
    spectrum = volume_spectrum(volume, settings.resolved_padding)
    diameter_A = diameter_A_of(volume, pixel_size_A)

    def form(index: Tensor) -> tuple[Tensor, Tensor, float]:
        images = form_images(
            spectrum,
            truth.pose[index],
            ctf_of(truth.ctf[index], box_size, pixel_size_A),
            box_size=box_size,
            pixel_size_A=pixel_size_A,
        )
        power = float(images.square().sum(dtype=torch.float64))
        spoilt = spoil(
            images,
            index,
            truth.junk,
            spectrum,
            truth.pose,
            truth.ctf,
            diameter_A=diameter_A,
            pixel_size_A=pixel_size_A,
        )
        return index, truth.contrast[index, None, None] * spoilt, power

    for index, images, power in _in_order(pool, form, torch.split(chosen, batch)):
        for place, image in zip(index.tolist(), images.numpy(), strict=True):
            clean.seek(place * image_bytes)
            clean.write(image.tobytes())
        yield len(index), power


def _write_noisy(
    prepared: Prepared,
    truth: Truth,
    folder: Path,
    clean: IO[bytes],
    clean_rms: float,
    pool: ThreadPoolExecutor,
    show: Show,
) -> Measured:
    """Noise onto the scratch file's images, in order, into the stack."""
    settings = prepared.settings
    n, box_size = settings.images, settings.box_size
    chunk = max(1, CHUNK_PIXELS // box_size**2)
    factor = gain(prepared.noise, clean_rms, settings.noise.snr_dB)

    held_out = prepared.noise.held_out
    if held_out is not None:
        write_stack(folder / "background.mrcs", factor * held_out, settings.pixel_size_A)

    def noise(start: int) -> Tensor:
        generator = generator_for(settings.seed, NOISE, start // chunk)
        drawn = factor * prepared.noise.model.sample(min(chunk, n - start), generator)
        return drawn * truth.noise_level[start : start + chunk, None, None]

    total, done = 0.0, 0
    clean.seek(0)
    with StackWriter(folder / "particles.mrcs", n, box_size, settings.pixel_size_A) as writer:
        for added in _in_order(pool, noise, range(0, n, chunk)):
            raw = clean.read(4 * added.numel())
            images = torch.from_numpy(np.frombuffer(raw, "<f4").reshape(added.shape).copy())
            writer.append(images + added)
            total += float(added.square().sum(dtype=torch.float64))
            done += len(added)
            show("noise", 0.7 + 0.3 * done / n)
    noise_rms = math.sqrt(total / (n * box_size**2))
    if noise_rms == 0:
        return Measured(clean_rms, 0.0, None)
    reference_rms = noise_rms * prepared.noise.reference_rms / prepared.noise.rms
    return Measured(clean_rms, noise_rms, 20.0 * math.log10(clean_rms / reference_rms))
