"""Memory and waiting time of a stage whose images are streamed: 41,123 images of 192 px, 6 GB.

The images are noise (what a step costs does not depend on them), written to DIR once and used
again; the system is asked to forget the file before each run, so that the disk is measured too.
Training runs in a fresh process as a half-set's does, on the whole set, with the default memory
for images, at a batch of 64 and padding 2; on 1,024 of the images, which fit into that memory, for
comparison; and on all with the default's own stages and batches, shortened, whose boxes are
smaller. Rows of `streaming_memory.csv`: peak resident memory, wall and CPU seconds a step
(the reading thread's included), and the share of a step spent waiting for real images; the first
step (allocation) is left out.

    python benchmarks/streaming_memory.py DIR -o benchmarks/results
"""

import argparse
import multiprocessing
import os
import resource
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from cryogan.allocator import keep_freed_memory
from cryogan.benchmark.rows import write_rows
from cryogan.data.images import HeldImages, StreamedImages
from cryogan.io.mrc import StackWriter
from cryogan.io.relion import read_particles
from cryogan.io.relion_writing import write_particles
from cryogan.objectives.adversarial.config import AdversarialConfig, Stage
from cryogan.objectives.adversarial.loop import train
from cryogan.simulation.microscope import random_ctf

COUNT, BOX, PIXEL_SIZE_A, BATCH = 41_123, 192, 1.274, 64
HELD = 1024


def write_set(folder: Path) -> Path:
    """White noise, in one stack; its star file."""
    star = folder / "particles.star"
    if star.is_file():
        return star
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    with StackWriter(folder / "particles.mrcs", COUNT, BOX, PIXEL_SIZE_A) as writer:
        for part in torch.arange(COUNT).split(512):
            writer.append(torch.randn(len(part), BOX, BOX, generator=generator))
    write_particles(
        star,
        image_names="particles.mrcs",
        ctf=random_ctf(COUNT, generator),
        pixel_size_A=PIXEL_SIZE_A,
        box_size=BOX,
    )
    return star


def forget(path: Path) -> None:
    """Drop a file from the system's cache (Linux)."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Waiting:
    """Batches as they come, and how long each was waited for."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def watch(self, kind: type[HeldImages] | type[StreamedImages]) -> None:
        """Time all batches of a kind of source."""
        batches = kind.batches

        def timed(images, indices: Iterator[Tensor]) -> Generator[Tensor, None, None]:
            source = batches(images, indices)
            try:
                while True:
                    started = time.perf_counter()
                    batch = next(source, None)
                    self.seconds.append(time.perf_counter() - started)
                    if batch is None:
                        return
                    yield batch
            finally:
                source.close()

        kind.batches = timed


def run(star: Path, count: int, steps: int, threads: int, default: bool) -> dict[str, str | float]:
    """A row of the table; steps are those of the last stage."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    waiting = Waiting()
    for kind in (HeldImages, StreamedImages):
        waiting.watch(kind)
    particles = read_particles(star, index=torch.arange(count), sign="bright")
    config = AdversarialConfig(
        stages=(Stage(BOX, (steps + 1) * BATCH, padding=2.0),), critic="template", batch_size=BATCH
    )
    if default:
        config = AdversarialConfig()
        short = (steps + 1) * config.batch_size
        config = replace(config, stages=tuple(replace(s, images=short) for s in config.stages))
    device = torch.device("cpu")
    for progress in train(particles, config, seed=0, device=device, log_every=1):
        if progress.state.step == 1:
            begun, begun_cpu = time.perf_counter(), time.process_time()
            waiting.seconds.clear()
    seconds = (time.perf_counter() - begun) / steps
    cpu_seconds = (time.process_time() - begun_cpu) / steps
    kind = type(progress.data.images).__name__.removesuffix("Images").lower()
    return {
        "images": count,
        "kind": kind,
        "box_size": progress.data.box_size,
        "batch_size": config.batch_size,
        "steps": steps,
        "images_GB": round(4 * count * BOX**2 / 1e9, 3),
        "memory_GB": config.memory_GB,
        "peak_rss_GB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2),
        "wall_s_per_step": round(seconds, 2),
        "cpu_s_per_step": round(cpu_seconds, 2),
        "waiting_share": round(sum(waiting.seconds[:steps]) / steps / seconds, 4),
    }


def main() -> None:
    """Write the set, train on all of it and on a part, write `streaming_memory.csv`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="folder for 6 GB of images")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    star = write_set(options.data)
    rows = []
    for count, default in ((HELD, False), (COUNT, False), (COUNT, True)):
        forget(options.data / "particles.mrcs")
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            row = pool.submit(run, star, count, options.steps, options.threads, default).result()
        print(row, flush=True)
        rows.append(row)
    write_rows(options.output / "streaming_memory.csv", rows)


if __name__ == "__main__":
    main()
