"""Run folders as they are while a run goes on, made without one."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from cryogan.io.mrc import write_map
from cryogan.objectives.adversarial.config import AdversarialConfig
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.phantom import phantom_map
from cryogan.run.checkpoint import save_arrays
from cryogan.run.lock import RUN_LOCK, locked

BOX, PIXEL_SIZE_A = 24, 8.0


def begun(folder: Path, objective: str) -> None:
    """A run folder with nothing but its `config.json`."""
    config = {"likelihood": LikelihoodConfig, "adversarial": AdversarialConfig}[objective]
    about = {
        "format": 1,
        "objective": objective,
        "particles": {"count": 5000, "box_size": BOX, "pixel_size_A": PIXEL_SIZE_A},
        "seed": 0,
        "started": "2026-11-01T12:00:00+00:00",
        "config": asdict(config()),
    }
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(about))


def add_records(folder: Path, *records: dict[str, Any]) -> None:
    """Lines at the end of a log."""
    folder.mkdir(exist_ok=True)
    with (folder / "stats.jsonl").open("a") as log:
        log.writelines(json.dumps(record) + "\n" for record in records)


def em_iteration(number: int) -> dict[str, Any]:
    """What the likelihood logs of an EM iteration."""
    return {
        "phase": "refinement",
        "images_seen": 1000 + 500 * number,
        "rings": 3 + number,
        "log_likelihood": 40.0 + 2.0 * number,
        "iteration": number,
        "half_map_0.143_A": 60.0 / number,
        "effective_poses": 300.0 / 2**number,
        "wall_s": 20.0 + 10.0 * number,
        "cpu_s": 20.0 + 10.0 * number,
    }


def likelihood_in_progress(folder: Path, iterations: int = 4) -> None:
    """After an initial model and some iterations."""
    begun(folder, "likelihood")
    first = [
        {
            "phase": "initial model",
            "images_seen": 100 * n,
            "rings": 2 + n // 3,
            "log_likelihood": 20.0 + n,
            "wall_s": 2.0 * n,
            "cpu_s": 2.0 * n,
        }
        for n in range(1, 10)
    ]
    add_records(folder, *first, *(em_iteration(n) for n in range(1, iterations + 1)))
    write_map(folder / "map_so_far.mrc", phantom_map(BOX, PIXEL_SIZE_A), PIXEL_SIZE_A)


def adversarial_in_progress(folder: Path) -> None:
    """Both half-sets at work, the second a stage behind."""
    begun(folder, "adversarial")
    generator = torch.Generator().manual_seed(0)
    for half, (steps, box) in {"half1": (60, BOX), "half2": (40, BOX // 2)}.items():
        records = [
            {
                "step": 20 * n,
                "images_seen": 640 * n,
                "stage": 1 if half == "half1" else 0,
                "box_size": box,
                "distance": 3.0 / n,
                "critic_loss": -1.0 / n,
                "volume_loss": 0.5 / n,
                "wall_s": 5.0 * n,
                "cpu_s": 5.0 * n,
                "fraction": n / 100,
            }
            for n in range(1, steps + 1)
        ]
        add_records(folder / half, *records)
        volume = phantom_map(box, PIXEL_SIZE_A * BOX / box)
        write_map(folder / half / "map_so_far.mrc", volume, PIXEL_SIZE_A * BOX / box)
    images = torch.randn(8, BOX, BOX, generator=generator)
    clean = phantom_map(BOX, PIXEL_SIZE_A).sum(0).repeat(8, 1, 1)
    power = torch.ones(BOX // 2 + 1)
    save_arrays(
        folder / "half1" / "examples.npz",
        **{"real": images, "clean": clean, "ctf": clean, "noisy": images.flip(0)},
        **{"real_power": power, "noisy_power": power, "power_images": torch.tensor([200])},
    )


def finish(folder: Path, word: str = "structure found") -> None:
    """What a run writes at its end."""
    volume = phantom_map(BOX, PIXEL_SIZE_A)
    for name in ("map", "half1", "half2"):
        write_map(folder / f"{name}.mrc", volume, PIXEL_SIZE_A)
    (folder / "map_so_far.mrc").unlink(missing_ok=True)
    lines = ["shell,spatial_frequency_per_A,resolution_A,half_map,half_map_masked"]
    for shell in range(BOX // 2 + 1):
        frequency = shell / (BOX * PIXEL_SIZE_A)
        resolution_A = 1 / frequency if shell else float("inf")
        lines.append(f"{shell},{frequency},{resolution_A},{1 - 0.06 * shell},{1 - 0.05 * shell}")
    (folder / "fsc.csv").write_text("\n".join(lines) + "\n")
    crossings = {"half_map_0.143": 16.25, "half_map_0.143_masked": 16.0}
    key = "half_map_crossings_A" if word == "no structure" else "resolution_A"
    summary = {"verdict": {"word": word, "reason": "as it was made"}, key: crossings}
    (folder / "summary.json").write_text(json.dumps(summary))
    save_arrays(folder / "result.npz", nothing=torch.zeros(1))


def write_poses(path: Path, latents: torch.Tensor) -> None:
    """A star file with what `cryogan assign` writes of particles at latents (n, 2)."""
    labels = (
        "rlnImageName",
        "cryoganLatent0",
        "cryoganLatent1",
        "cryoganAngleSpread",
        "cryoganPoseInformation",
    )
    lines = ["# cryogan", "data_particles", "", "loop_"]
    lines += [f"_{label} #{i}" for i, label in enumerate(labels, 1)]
    lines += [
        f"{n:06d}@p.mrcs {a:.6f} {b:.6f} {1 + a:.6f} {20 - b:.6f}"
        for n, (a, b) in enumerate(latents.tolist(), 1)
    ]
    path.write_text("\n".join(lines) + "\n")


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """As if a process worked in the folder."""
    with locked(folder / RUN_LOCK):
        yield
