"""How often the verdict is wrong: tiny reconstructions of noise and of a known molecule.

    python benchmarks/verdict_calibration.py -o benchmarks/results --noise-runs 200

Noise alone (white; coloured; like measured background, with ramps and a spectrum of its own) should
never give "structure found"; a molecule at ten SNRs should, where its map agrees with the truth
(FSC 0.5) to better than four times Nyquist. Runs go through `cryogan.reconstruct`: by default the
likelihood, which takes 190 to 300 CPU seconds a run of noise of 16 px; with `--short`, of fewer
initialisations, attempts and iterations and without shifts, about 25 (of 32 px: 40); with
`--adversarial`, by short adversarial training without shifts. Rows are added to
`verdict_calibration.csv`, `verdict_calibration_short.csv` or `verdict_calibration_adversarial.csv`
one by one (with `_32px` in boxes of `--box-size 32`); runs that are in it are not made again;
`--limit` makes no more than so many. The false and missed verdicts are counted last.

Boxes are 192 Å wide. In the smallest, of 16 px, four times Nyquist is the second shell; in one of
32 px the SNRs are 6 dB lower, so that low shells have as much noise.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import cryogan as cg
from cryogan import fourier
from cryogan.benchmark.cost import Clock
from cryogan.benchmark.rows import append_row, read_rows
from cryogan.objectives.adversarial.config import Stage
from cryogan.particles import ArrayStack, Particles
from cryogan.run.contents import read_run_contents
from cryogan.simulation.microscope import random_ctf
from phantom_sets import phantom_set

BOX, WIDTH_A, IMAGES = 16, 192.0, 300
NOISES = ("white", "coloured", "background")
SNRS_DB = (-26.0, -23.0, -20.0, -17.0, -14.0, -11.0, -8.0, -5.0, -2.0, 1.0)
FOUND, NOTHING = "structure found", "no structure"
DEFAULT: dict[str, Any] = {"objective": "likelihood"}
SHORT: dict[str, Any] = {
    "objective": "likelihood",
    "max_shift": "0",
    "settings": {
        "initialisations": 1,
        "initial_attempts": 2,
        "initial_batches": 4,
        "initial_batch_size": 150,
        "initial_rings": (5, 7),
        "iterations": 3,
    },
}
ADVERSARIAL: dict[str, Any] = {
    "objective": "adversarial",
    "max_shift": "0",
    "settings": {"stages": (Stage(BOX, 25_600, 4.0),), "batch_size": 64},
}
Row = dict[str, str]


@dataclass(frozen=True)
class Case:
    """One run: noise alone has no SNR."""

    kind: str
    snr_dB: float | None
    seed: int
    box_size: int = BOX

    @property
    def pixel_size_A(self) -> float:
        return WIDTH_A / self.box_size

    @property
    def key(self) -> tuple[str, str, str]:
        return self.kind, "" if self.snr_dB is None else f"{self.snr_dB:g}", str(self.seed)


def cases(noise_runs: int, seeds: int, first_seed: int, box_size: int) -> list[Case]:
    """Noise of all kinds in turn, and the molecule at every SNR with every seed."""
    noise = [
        Case(NOISES[k % len(NOISES)], None, first_seed + k, box_size) for k in range(noise_runs)
    ]
    lower_dB = round(20.0 * math.log10(box_size / BOX))
    chosen = range(first_seed, first_seed + seeds)
    return noise + [
        Case("phantom", snr_dB - lower_dB, seed, box_size) for seed in chosen for snr_dB in SNRS_DB
    ]


def noise_images(kind: str, box_size: int, generator: torch.Generator) -> Tensor:
    """(n, D, D) images without particles."""
    images = torch.randn(IMAGES, box_size, box_size, generator=generator)
    if kind == "white":
        return images
    frequency = fourier.frequency_grid(box_size, 2).norm(dim=-1)
    power = 1.0 / (1.0 + (frequency / 0.1).square())
    if kind == "background":  # ice and carbon: a few rings, and a ramp of each image
        power = 0.2 + power + 0.5 * torch.exp(-((frequency - 0.28) / 0.05).square())
    images = fourier.irfft(fourier.rfft(images) * power.sqrt(), box_size)
    if kind == "background":
        line = torch.linspace(-1.0, 1.0, box_size)
        ramp = torch.randn(IMAGES, 2, 1, 1, generator=generator)
        images = images + 0.3 * (ramp[:, 0] * line + ramp[:, 1] * line[:, None])
        images = images * (1.0 + 0.1 * torch.randn(IMAGES, 1, 1, generator=generator))
    return images


def particles_of(case: Case) -> tuple[Particles, cg.Map | None]:
    """The images, and the truth if there is one."""
    if case.snr_dB is not None:
        size, pixel_size_A = case.box_size, case.pixel_size_A
        return phantom_set(size, pixel_size_A, IMAGES, case.snr_dB, 1000 + case.seed)
    generator = torch.Generator().manual_seed(1000 + case.seed)
    ctf = random_ctf(IMAGES, generator)
    stack = ArrayStack(noise_images(case.kind, case.box_size, generator))
    return Particles(stack, ctf, case.pixel_size_A), None


def measured(case: Case, options: dict[str, Any]) -> Row:
    """Reconstruct with the options, defaults otherwise; the row of the table."""
    clock = Clock()
    particles, truth = particles_of(case)
    found = cg.reconstruct(particles, seed=case.seed, device="cpu", **options)
    contents = read_run_contents(found.folder)
    evidence = contents.summary["verdict"]
    row = dict(zip(("kind", "snr_dB", "seed"), case.key, strict=True))
    row["verdict"] = evidence["word"]
    for name in ("gain", "z_of_images", "z_of_maps"):
        row |= {f"{name}_{half}": f"{evidence[name][half - 1]:.3f}" for half in (1, 2)}
    row |= {f"{name}_A": f"{value:.2f}" for name, value in found.half_map_crossings_A.items()}
    held_out_A = contents.held_out_resolution_A
    row["held_out_A"] = f"{held_out_A:.2f}" if held_out_A else ""
    row["truth_fsc_0.5_A"] = ""
    if truth is not None:
        row["truth_fsc_0.5_A"] = f"{cg.evaluate(found, truth=truth).resolution_A(0.5):.2f}"
    return row | {"cpu_s": f"{clock.cpu_s:.1f}"}


def table(rows: list[Row], good_A: float) -> str:
    """Verdicts counted, false and missed ones named; maps finer than `good_A` are good."""
    words = (FOUND, "doubtful", NOTHING)
    lines = [f"{'':<22}" + "".join(f"{word:>18}" for word in words)]
    labels = dict.fromkeys((row["kind"], row["snr_dB"]) for row in rows)
    for kind, snr_dB in labels:
        mine = [row["verdict"] for row in rows if (row["kind"], row["snr_dB"]) == (kind, snr_dB)]
        label = f"{kind} {snr_dB} dB" if snr_dB else f"noise, {kind}"
        lines.append(f"{label:<22}" + "".join(f"{mine.count(word):>18}" for word in words))
    noise = [row for row in rows if not row["snr_dB"]]
    good = [row for row in rows if row["snr_dB"] and float(row["truth_fsc_0.5_A"]) < good_A]
    poor = [row for row in rows if row["snr_dB"] and row not in good]
    for label, some, wrong in (
        ("noise: structure found", noise, FOUND),
        (f"truth FSC 0.5 finer than {good_A:g} Å: no structure", good, NOTHING),
        ("or coarser: structure found", poor, FOUND),
    ):
        count = sum(row["verdict"] == wrong for row in some)
        lines.append(f"{label}: {count} of {len(some)}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the table")
    parser.add_argument("--noise-runs", type=int, default=200, help="runs of noise (default: 200)")
    parser.add_argument("--seeds", type=int, default=10, help="of each SNR (default: 10)")
    parser.add_argument("--first-seed", type=int, default=0, help="default: 0")
    parser.add_argument("--limit", type=int, help="runs made now, at most")
    parser.add_argument("--box-size", type=int, choices=(16, 32), default=BOX, help="in pixels")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--short", action="store_true", help="short runs without shifts")
    way.add_argument("--adversarial", action="store_true", help="short adversarial training")
    options = parser.parse_args()
    if options.adversarial and options.box_size != BOX:
        parser.error(f"--adversarial has boxes of {BOX} px")
    torch.set_num_threads(1)
    name, runs = "", DEFAULT
    if options.short:
        name, runs = "_short", SHORT
    elif options.adversarial:
        name, runs = "_adversarial", ADVERSARIAL
    if options.box_size != BOX:
        name += f"_{options.box_size}px"
    path = options.output / f"verdict_calibration{name}.csv"
    rows: list[Row] = read_rows(path)
    done = {(row["kind"], row["snr_dB"], row["seed"]) for row in rows}
    wanted = cases(options.noise_runs, options.seeds, options.first_seed, options.box_size)
    todo = [case for case in wanted if case.key not in done]
    for case in todo[: options.limit]:
        row = measured(case, runs)
        rows.append(row)
        append_row(path, row)
        print(", ".join(f"{name} {value}" for name, value in row.items() if value), flush=True)
    print(table(rows, 8.0 * WIDTH_A / options.box_size))


if __name__ == "__main__":
    main()
