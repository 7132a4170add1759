"""Measured peaks of memory beside their forecasts (`training.forecast`), on a CPU.

Every row of `memory_forecast.csv` is a short training of one half-set, on noise, in a fresh
process: peak resident memory (libraries included), the forecast, and their ratio, which should be
below 1 and not far below.

    python benchmarks/memory_forecast.py -o benchmarks/results
"""

import argparse
import csv
import json
import multiprocessing
import resource
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cryogan.files import atomic_path
from cryogan.memory import keep_freed_memory
from cryogan.particles import ArrayStack, Particles
from cryogan.simulation.microscope import random_ctf
from cryogan.training.config import PAPER, PAPER_HETEROGENEOUS, Stage, TrainingConfig
from cryogan.training.forecast import PROCESS_GB, forecast
from cryogan.training.loop import train

_UNET = {
    "critic": "template",
    "loss": "relativistic",
    "estimate_spectra": True,
    "critic_steps": 1,
    "batch_size": 64,
}

# Preset, box, padding, and what differs from the preset.
CASES: tuple[tuple[str, int, float, dict[str, Any]], ...] = (
    ("default", 48, 3.0, {}),
    ("default", 64, 3.0, {}),
    ("default", 96, 3.0, {}),
    ("default", 64, 3.0, {"batch_size": 1024}),
    ("default", 64, 3.0, {"batch_size": 64}),
    ("default", 64, 4.0, {"batch_size": 64}),
    ("default", 96, 2.0, {}),
    ("default", 128, 3.0, {"batch_size": 16}),
    ("default", 128, 2.0, {"batch_size": 64}),
    ("default", 192, 2.0, {"batch_size": 64}),
    ("default", 64, 3.0, {"templates": 512}),
    ("default", 64, 3.0, {"templates": 512, "batch_size": 64}),
    ("default", 20, 3.0, {"generator": "subspace"}),
    ("default", 32, 3.0, {"generator": "subspace"}),
    ("default", 48, 3.0, {"generator": "subspace", "basis": 2}),
    ("default", 48, 3.0, {"generator": "subspace", "latent": "discrete", "classes": 10}),
    ("default", 64, 3.0, {"generator": "subspace"}),
    ("default", 64, 3.0, {"generator": "subspace", "basis": 12, "batch_size": 64}),
    ("default", 96, 3.0, {"generator": "subspace", "batch_size": 64}),
    ("default", 32, 3.0, {"critic": "paper", "critic_channels": 96, "batch_size": 64}),
    ("default", 32, 3.0, {"critic": "paper", "critic_channels": 96}),
    ("default", 64, 3.0, {"critic": "compact"}),
    ("default", 64, 2.0, {"critic": "compact", "loss": "wasserstein"}),
    ("default", 96, 3.0, {"critic": "compact", "batch_size": 128}),
    ("default", 128, 3.0, {"critic": "compact", "batch_size": 64}),
    ("paper", 64, 2.0, {"critic_steps": 1}),
    ("paper", 192, 2.0, {"critic_steps": 1}),
    ("unet", 32, 2.0, {"critic_steps": 1}),
    ("unet", 32, 2.0, _UNET),
    ("unet", 32, 3.0, _UNET | {"volumes_per_step": 32}),
    ("unet", 48, 3.0, _UNET | {"volumes_per_step": 4}),
    ("unet", 64, 3.0, _UNET | {"volumes_per_step": 4}),
)

PRESETS = {"default": TrainingConfig(), "paper": PAPER, "unet": PAPER_HETEROGENEOUS}


def settings(preset: str, box_size: int, padding: float, changes: dict[str, Any]) -> TrainingConfig:
    """Two steps in one box."""
    images = 2 * changes.get("batch_size", PRESETS[preset].batch_size)
    stages = (Stage(box_size, images * changes.get("critic_steps", 1), padding),)
    return replace(PRESETS[preset], stages=stages, **changes)


def measure(config: TrainingConfig) -> float:
    """Peak resident memory (1e9 bytes) of this process after training on noise."""
    torch.set_num_threads(1)
    keep_freed_memory()
    generator = torch.Generator().manual_seed(0)
    box_size = config.stages[0].box_size
    count = max(2 * config.batch_size, 512)
    images = torch.randn(count, box_size, box_size, generator=generator)
    particles = Particles(ArrayStack(images), random_ctf(count, generator), 3.0)
    for _ in train(particles, config, seed=0, device=torch.device("cpu")):
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9  # kB on Linux


def main() -> None:
    """Measure every case and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    rows = []
    for preset, box_size, padding, changes in CASES:
        config = settings(preset, box_size, padding, changes)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            measured_GB = pool.submit(measure, config).result()
        count = max(2 * config.batch_size, 512)
        forecast_GB = PROCESS_GB + forecast(config, count, box_size).total_GB
        row = {
            "preset": preset,
            "box_size": box_size,
            "padding": padding,
            "changes": json.dumps(changes),
            "measured_GB": round(measured_GB, 3),
            "forecast_GB": round(forecast_GB, 3),
            "ratio": round(forecast_GB / measured_GB, 2),
        }
        print(row, flush=True)
        rows.append(row)
    with (
        atomic_path(options.output / "memory_forecast.csv") as temporary,
        temporary.open("w", newline="") as file,
    ):
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
