"""What a training step costs, and what part of it: over the box, the critic, the number of images.

Real training steps (`objectives.adversarial.loop.train`) on random noise, as the cost does not
depend on the images. Settings are the default ones but for the batch, threefold padding of the
projector's spectrum at every box, and a penalty every second step. The same training state is also
taken through the parts of a step:

- spectrum: from the volume's parameters to its padded 3D spectrum, and back: once a step;
- images: slices, CTF, noise and preprocessing of a batch, and back to the spectrum;
- critic: scores of real and simulated images for critic and volume, and back;
- penalty: the gradient penalty and its way back, times the share of steps that have one by default;
- rest: what is left of a step without penalty (optimisers, averaging, real images).

Parts are CPU seconds on a CPU and wall seconds on a GPU. All cases take turns in one process, round
after round, so that a busy machine is as busy for all of them; medians are written, and the range
for whole steps. Peak memory is that of a fresh process that reads the images and makes two steps:
of the process on a CPU, of PyTorch's tensors on a GPU.

The paper's critic is left out of boxes where a step would take long; a note says so.

    python benchmarks/cost_per_step.py -o benchmarks/results
    python benchmarks/cost_per_step.py -o benchmarks/results --device cuda --longest 60
"""

import argparse
import math
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from matplotlib.figure import Figure

from cryogan.allocator import keep_freed_memory
from cryogan.benchmark.curves import save_figure
from cryogan.benchmark.rows import write_rows
from cryogan.errors import InputError
from cryogan.objectives.adversarial import losses
from cryogan.objectives.adversarial.config import AdversarialConfig, Stage
from cryogan.objectives.adversarial.loop import Progress, train
from cryogan.objectives.adversarial.simulated_images import simulate_batch
from cryogan.objectives.adversarial.step import scores_of
from cryogan.particles import ArrayStack, CTFParams, Particles
from cryogan.physics.projection import volume_spectrum

DEFAULT = AdversarialConfig()
PADDING = 3.0
PAPER_CHANNELS = 96
IMAGES = (1_000, 4_000, 16_000)  # the first for all boxes, all for the smallest
GROUPS = {
    "spectrum": ("spectrum_forward_s", "spectrum_backward_s"),
    "images": ("images_forward_s", "images_backward_s"),
    "critic": ("critic_forward_s", "critic_backward_s", "penalty_s"),
}
CURVES = (
    ("spectrum", "template", "spectrum"),
    ("images", "template", "images"),
    ("template critic", "template", "critic"),
    ("paper critic", "paper", "critic"),
)
COLUMNS = (
    *("critic", "box_size", "images", "batch_size", "device", "threads", "rounds"),
    *("wall_s", "wall_min_s", "wall_max_s", "cpu_s", "steps_per_s"),
    *(part for parts in GROUPS.values() for part in parts),
    *("rest_s", "peak_memory_MB"),
)
Row = dict[str, str | int | float]


@dataclass(frozen=True)
class Case:
    """One thing to measure, and where."""

    critic: Literal["template", "paper"]
    box_size: int
    images: int
    batch_size: int
    device: str
    threads: int

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    def config(self) -> AdversarialConfig:
        """Default settings without an end, a penalty in every other step, from the first on."""
        return replace(
            DEFAULT,
            stages=(Stage(self.box_size, 10**9, PADDING),),
            critic=self.critic,
            critic_channels=PAPER_CHANNELS,
            batch_size=self.batch_size,
            penalty_every=2,
        )

    def steps(self) -> Iterator[Progress]:
        """Training on noise."""
        torch.set_num_threads(self.threads)
        keep_freed_memory()
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(self.images, self.box_size, self.box_size, generator=generator)
        defocus_u_A = torch.linspace(8_000.0, 20_000.0, self.images)
        ctf = CTFParams.constant(self.images, defocus_u_A=defocus_u_A)
        particles = Particles(ArrayStack(noise), ctf, pixel_size_A=240.0 / self.box_size)
        device = torch.device(self.device)
        return train(particles, self.config(), seed=0, device=device, log_every=1)

    def now(self) -> tuple[float, float]:
        """(wall, CPU) seconds, once the device has done all it was told."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)
        return time.perf_counter(), time.process_time()

    def since(self, started: tuple[float, float]) -> float:
        """Seconds since `started`, of CPU time on a CPU and of wall time on a GPU."""
        wall, cpu = self.now()
        return wall - started[0] if self.on_gpu else cpu - started[1]


def first_two_steps(case: Case) -> tuple[float, float]:
    """Peak memory (MB) of reading and two steps, and seconds of the second; in a fresh process."""
    steps = case.steps()
    next(steps)
    started = case.now()
    next(steps)
    seconds = case.since(started)
    if case.on_gpu:
        return torch.cuda.max_memory_allocated(case.device) / 1e6, seconds
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, seconds


def measure(case: Case, steps: Iterator[Progress]) -> dict[str, float]:
    """Two training steps, with and without penalty, and the parts of a step."""
    times = [case.now()]
    for _ in range(2):
        progress = next(steps)
        times.append(case.now())
    (wall_with, cpu_with), (wall_without, cpu_without) = (
        (after[0] - before[0], after[1] - before[1]) for before, after in pairwise(times)
    )
    share = 1 / DEFAULT.penalty_every
    found = parts(case, progress)
    rest_s = (wall_without if case.on_gpu else cpu_without) - sum(found.values())
    found["penalty_s"] = share * penalty(case, progress)
    return found | {
        "rest_s": rest_s,
        "wall_s": share * wall_with + (1 - share) * wall_without,
        "cpu_s": share * cpu_with + (1 - share) * cpu_without,
    }


def parts(case: Case, progress: Progress) -> dict[str, float]:
    """Seconds of the parts of a step without penalty; the state stays as it is."""
    state, config = progress.state, case.config()
    found = {}

    started = case.now()
    spectrum = volume_spectrum(state.volume(), PADDING)
    found["spectrum_forward_s"] = case.since(started)
    read = spectrum.detach().requires_grad_()
    started = case.now()
    fake = simulate_batch(state, config, progress.data, progress.settings, read)
    found["images_forward_s"] = case.since(started)
    started = case.now()
    (gradient,) = torch.autograd.grad(fake, read, torch.ones_like(fake))
    found["images_backward_s"] = case.since(started)
    started = case.now()
    torch.autograd.grad(spectrum, state.volume.parameter, gradient)
    found["spectrum_backward_s"] = case.since(started)

    real = torch.randn_like(fake)
    fake = fake.detach().requires_grad_()
    started = case.now()
    both = torch.cat((real, fake.detach()))
    real_scores, fake_scores = scores_of(state, config, both).chunk(2)
    with torch.no_grad():
        real_scores_now = scores_of(state, config, real)
    fake_scores_now = scores_of(state, config, fake)
    found["critic_forward_s"] = case.since(started)
    started = case.now()
    critic_loss = losses.critic_relativistic(real_scores, fake_scores)
    torch.autograd.grad(critic_loss, tuple(state.critic.parameters()))
    torch.autograd.grad(losses.volume_relativistic(real_scores_now, fake_scores_now), fake)
    found["critic_backward_s"] = case.since(started)
    return found


def penalty(case: Case, progress: Progress) -> float:
    """Seconds of one gradient penalty, given the scores, and of its way back to the weights."""
    critic = progress.state.critic
    shape = (2 * case.batch_size, case.box_size, case.box_size)
    images = torch.randn(shape, device=case.device).requires_grad_()
    scores = scores_of(progress.state, case.config(), images)
    started = case.now()
    torch.autograd.grad(
        losses.zero_centred_penalty(scores, images), tuple(critic.parameters()), allow_unused=True
    )
    return case.since(started)


def summary(case: Case, rounds: list[dict[str, float]], memory_MB: float) -> Row:
    """A row of the table: medians over the rounds."""
    middle = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    numbers = middle | {
        "wall_min_s": min(one["wall_s"] for one in rounds),
        "wall_max_s": max(one["wall_s"] for one in rounds),
        "steps_per_s": 1.0 / middle["wall_s"],
        "peak_memory_MB": memory_MB,
    }
    row: Row = {
        "critic": case.critic,
        "box_size": case.box_size,
        "images": case.images,
        "batch_size": case.batch_size,
        "device": torch.cuda.get_device_name(case.device) if case.on_gpu else "CPU",
        "threads": case.threads,
        "rounds": len(rounds),
    }
    return row | {name: float(f"{value:.4g}") for name, value in numbers.items()}


def total(row: Row, group: str) -> float:
    """Seconds of a group of parts."""
    return sum(float(row[part]) for part in GROUPS[group])


def exponents(rows: list[Row]) -> dict[str, float]:
    """Exponent p of cost = const · D^p for every group of parts, by least squares over logarithms.

    Spectrum and images do not depend on the critic: theirs are those of the template critic's runs.
    """
    found = {}
    for name, critic, group in CURVES:
        chosen = over_boxes(rows, critic)
        if len(chosen) > 1:
            boxes = [math.log(int(row["box_size"])) for row in chosen]
            costs = [math.log(total(row, group)) for row in chosen]
            found[name] = statistics.linear_regression(boxes, costs).slope
    return found


def over_boxes(rows: list[Row], critic: str) -> list[Row]:
    """The rows of one critic with the number of images that all boxes have."""
    return [row for row in rows if row["critic"] == critic and row["images"] == IMAGES[0]]


def plot(path: Path, rows: list[Row]) -> None:
    """Parts of a step over the box; whole steps over the number of images."""
    figure = Figure(figsize=(9.0, 4.2), dpi=200, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    slopes = exponents(rows)
    for (name, critic, group), colour in zip(
        CURVES, ("#009E73", "#CC79A7", "#0072B2", "#D55E00"), strict=True
    ):
        chosen = over_boxes(rows, critic)
        boxes = [int(row["box_size"]) for row in chosen]
        label = f"{name} ∝ D^{slopes[name]:.1f}" if name in slopes else name
        left.plot(boxes, [total(row, group) for row in chosen], "o-", color=colour, label=label)
    chosen = over_boxes(rows, "template")
    boxes = [int(row["box_size"]) for row in chosen]
    largest = total(chosen[-1], "images")
    squares = [largest * (box / boxes[-1]) ** 2 for box in boxes]
    logs = [math.log(box) / math.log(boxes[-1]) for box in boxes]
    left.plot(boxes, squares, "--", color="0.5", label="D²")
    left.plot(
        boxes,
        [square * log for square, log in zip(squares, logs, strict=True)],
        ":",
        color="0.5",
        label="D² log D",
    )
    left.set(xscale="log", yscale="log", xlabel="box D (px)")
    left.set(ylabel=f"seconds a step of {chosen[0]['batch_size']} images")
    left.set_xticks(boxes, labels=[str(box) for box in boxes])
    left.minorticks_off()
    small = [row for row in rows if row["critic"] == "template" and row["box_size"] == boxes[0]]
    right.errorbar(
        [int(row["images"]) for row in small],
        [float(row["wall_s"]) for row in small],
        yerr=[
            [float(row["wall_s"]) - float(row["wall_min_s"]) for row in small],
            [float(row["wall_max_s"]) - float(row["wall_s"]) for row in small],
        ],
        fmt="o-",
        capsize=3,
        color="#0072B2",
        label="wall, with range",
    )
    right.plot(
        [int(row["images"]) for row in small],
        [float(row["cpu_s"]) for row in small],
        "s--",
        color="0.3",
        label="CPU",
    )
    right.set(xscale="log", xlabel=f"particle images ({boxes[0]} px)", ylabel="seconds a step")
    right.set_ylim(bottom=0.0)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.suptitle(f"{chosen[0]['device']}, {chosen[0]['threads']} thread(s)")
    save_figure(path, figure)


def peak_memory(cases: list[Case], longest_s: float) -> dict[Case, float]:
    """Peak memory (MB) of the cases that are not left out, each in a fresh process.

    Left out is a case whose step would take more than `longest_s`, extrapolated by D² from the same
    critic's in the box before.
    """
    memory_MB: dict[Case, float] = {}
    before: dict[str, tuple[int, float]] = {}
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:
        for case in cases:
            box_size, seconds = before.get(case.critic, (case.box_size, 0.0))
            expected_s = seconds * (case.box_size / box_size) ** 2
            if expected_s > longest_s:
                print(
                    f"{case.critic} critic, {case.box_size} px: left out, as a step would take "
                    f"{expected_s:.0f} s or more (see --longest)"
                )
            else:
                memory_MB[case], seconds = pool.apply(first_two_steps, (case,))
                before[case.critic] = case.box_size, seconds
    return memory_MB


def run(options: argparse.Namespace) -> None:
    """Measure everything, write `cost_per_step.csv` and `.png`, print what was found.

    Raises:
        InputError: a box is odd or too small, or there is no such device.
    """
    if options.device != "cpu" and not torch.cuda.is_available():
        raise InputError(f"There is no device {options.device} here; use --device cpu.")
    boxes = sorted(set(options.boxes))
    where = (options.batch_size, options.device, options.threads)
    cases = [Case("template", boxes[0], images, *where) for images in IMAGES]
    cases += [Case("template", box, IMAGES[0], *where) for box in boxes[1:]]
    cases += [Case("paper", box, IMAGES[0], *where) for box in boxes]
    for case in cases:
        case.config()  # raises
    options.output.mkdir(parents=True, exist_ok=True)

    memory_MB = peak_memory(cases, options.longest)
    running = {case: case.steps() for case in memory_MB}
    rounds: dict[Case, list[dict[str, float]]] = {case: [] for case in running}
    for number in range(1 + options.rounds):
        for case, steps in running.items():
            found = measure(case, steps)
            if number > 0:  # the first one warms up
                rounds[case].append(found)
    rows = [summary(case, rounds[case], memory_MB[case]) for case in running]

    write_rows(options.output / "cost_per_step.csv", rows, COLUMNS)
    plot(options.output / "cost_per_step.png", rows)
    for row in rows:
        print(
            f"{row['critic']:>8} critic {row['box_size']:>4} px {row['images']:>6} images:"
            f" {row['wall_s']:8.3f} s wall ({row['wall_min_s']:.3f} to {row['wall_max_s']:.3f}),"
            f" {row['cpu_s']:8.3f} s CPU;"
            + "".join(f" {group} {total(row, group):.3f}" for group in GROUPS)
            + f" rest {row['rest_s']:.3f}; {row['peak_memory_MB']:.0f} MB"
        )
    for name, exponent in exponents(rows).items():
        print(f"{name}: cost grows as D^{exponent:.2f}")


def main() -> None:
    """Read the command line; wrong input is one sentence."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="where cost_per_step.csv and .png go"
    )
    parser.add_argument(
        "--boxes",
        type=int,
        nargs="+",
        default=[32, 48, 64, 96, 128, 192],
        metavar="D",
        help="box sizes in px (default: 32 48 64 96 128 192)",
    )
    parser.add_argument(
        "--batch-size", type=int, default=64, help="images of a step, at all boxes (default: 64)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="after one to warm up (default: 3)")
    parser.add_argument(
        "--longest",
        type=float,
        default=8.0,
        metavar="S",
        help="leave out cases where a step would take more seconds than this (default: 8)",
    )
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    try:
        run(parser.parse_args())
    except InputError as error:
        sys.exit(f"cost_per_step: {error}")


if __name__ == "__main__":
    main()
