"""`cryogan demo`: simulate a data set of the built-in phantom, reconstruct it, judge the map."""

import json
from pathlib import Path

import torch
from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from cryogan.cli.reconstruct import reconstruct_with_bar
from cryogan.evaluation.comparison import compare_to_truth
from cryogan.io.mrc import read_map
from cryogan.io.relion import read_particles
from cryogan.phantom import phantom_map
from cryogan.physics.distributions import PoseDistribution
from cryogan.report.page import write_report
from cryogan.run_folder import add_truth, open_run_folder
from cryogan.simulation.in_memory import simulate_particles, write_dataset
from cryogan.simulation.microscope import random_ctf
from cryogan.training.config import Stage, TrainingConfig

BOX_SIZE = 32
PIXEL_SIZE_A = 6.0
PARTICLES = 20_000
SNR_DB = -5.2
SNR_BOX_SIZE = 192
CONFIG = TrainingConfig(stages=(Stage(BOX_SIZE, 76_800, padding=4.0),), symmetry="D2")


def make_parser() -> ArgumentParser:
    """The command's parser."""
    parser = ArgumentParser(
        description=f"Simulate {PARTICLES:,} images ({BOX_SIZE} px of {PIXEL_SIZE_A:g} Å, "
        f"{SNR_DB:g} dB as at {SNR_BOX_SIZE} px) of a made-up D2 protein, reconstruct it with its "
        "symmetry but without poses, compare the map with the truth and write a report."
    )
    parser.add_argument("-o", "--output", type=str, default="demo", help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, help="of the data and of the training")
    return parser


def run(options: Namespace) -> int:
    """Run the command: 0, or 130 if it was interrupted."""
    folder = Path(options.output)
    data, run_folder = folder / "data", folder / "run"
    console = Console(highlight=False, soft_wrap=True)
    if not (data / "particles.star").is_file():
        console.print(f"Simulating {PARTICLES:,} particles of a made-up protein ...")
        simulate_demo_data(data, options.seed)
    file = read_particles(data / "particles.star")
    about = {
        "star": str((data / "particles.star").resolve()),
        "summary": file.summary,
        "count": len(file.particles),
        "box_size": file.particles.box_size,
        "pixel_size_A": file.particles.pixel_size_A,
    }
    open_run_folder(run_folder, about, CONFIG, options.seed, "cpu")
    console.print(file.summary)
    result = reconstruct_with_bar(
        console, file, run_folder, CONFIG, seed=options.seed, device="cpu"
    )
    if not result.finished:
        console.print("Interrupted; run the same command again to resume.")
        return 130
    comparison = compare_to_truth(
        read_map(run_folder / "map.mrc"), read_map(data / "truth" / "map.mrc")
    )
    add_truth(run_folder, comparison)
    page = write_report(run_folder)
    resolution = json.loads((run_folder / "summary.json").read_text())["resolution_A"]
    console.print(comparison.table())
    console.print(
        f"truth FSC 0.5:      {resolution['truth_0.5']:.2f} Å\n"
        f"truth FSC 0.143:    {resolution['truth_0.143']:.2f} Å\n"
        f"half-map FSC 0.143: {resolution['half_map_0.143']:.2f} Å\n"
        f"(Nyquist limit of the box: {2 * PIXEL_SIZE_A:.2f} Å)\n"
        f"report: {page.resolve()}"
    )
    return 0


def simulate_demo_data(folder: Path, seed: int) -> None:
    """Write the demo's data set, truth included.

    Raises:
        InputError: the folder cannot be made or written.
    """
    generator = torch.Generator().manual_seed(seed)
    volume = phantom_map(BOX_SIZE, PIXEL_SIZE_A, symmetry="D2")
    simulated = simulate_particles(
        volume,
        pixel_size_A=PIXEL_SIZE_A,
        n=PARTICLES,
        ctf=random_ctf(PARTICLES, generator),
        poses=PoseDistribution(),
        snr_dB=SNR_DB,
        snr_box_size=SNR_BOX_SIZE,
        generator=generator,
    )
    write_dataset(folder, simulated, volume)
