"""What is measured of shifts and size, and what searching the shifts that remain costs.

    python benchmarks/shifts.py -o benchmarks/results --datadir ../shared/data

Sets of 2,000 images of 64 px and 3.822 Å, -20 dB at 192 px, of molecules that no setting was chosen
on. Columns: true and measured standard deviation of the shifts along an axis; the root mean square
error of the centres beside its prediction (`remaining_sd_A`); true diameter (twice the largest
distance of voxels above 5 % of the maximum from the centre of mass) and measured one; and the ratio
of CPU seconds, with that prior of shifts to without any shift, of the posteriors of 512 images in 8
rings (medians of three turns). The search has the true map; its cost hardly depends on it.
"""

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

import cryogan as cg
from cryogan.benchmark.rows import write_rows
from cryogan.data.centring import centred
from cryogan.data.normalisation import normalised
from cryogan.data.padding import PaddedBox
from cryogan.errors import InputError
from cryogan.io.relion_poses import read_poses
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.likelihood.bands import box_for, harmonics_for, search_for
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.latent_grid import latent_grid_of
from cryogan.objectives.likelihood.posterior import posterior_of, references_of
from cryogan.particles import Particles
from cryogan.physics.imaging import rescale_volume

WIDTH_A = 64 * 3.822
CASES = {
    "centred": {"kind": "none"},
    "sigma 2 %": {"kind": "gaussian", "sigma_A": 0.02 * WIDTH_A},
    "sigma 6 %": {"kind": "gaussian", "sigma_A": 0.06 * WIDTH_A},
    "triangular 20 %": {"kind": "triangular", "percent": 20.0},
}
RINGS, IMAGES, ROUNDS = 8, 512, 3
CPU = torch.device("cpu")


def true_diameter_A(path: Path) -> float:
    volume = cg.read_map(path)
    size = volume.volume.shape[-1]
    axis = torch.arange(size) - size // 2
    grid = torch.cartesian_prod(axis, axis, axis).float()  # of z, y, x
    density = volume.volume.clamp_min(0.0).reshape(-1)
    centre = (grid * density[:, None]).sum(0) / density.sum()
    inside = density > 0.05 * density.max()
    return 2.0 * float((grid[inside] - centre).norm(dim=-1).max()) * volume.pixel_size_A


def search_seconds(particles: Particles, volume: torch.Tensor, assumptions: Assumptions) -> float:
    """CPU seconds of the posteriors of the first images."""
    config = LikelihoodConfig(assumptions=assumptions)
    padded = PaddedBox.of(particles.box_size, assumptions.reach)
    half = HalfSet.of(particles, None, padded)
    size = box_for(RINGS, half.particles.box_size)
    harmonics = harmonics_for(size, RINGS, config, CPU)
    levels = search_for(harmonics, config, RINGS)
    grid = latent_grid_of(config, 1)
    maps = rescale_volume(half.scaled_to_images(padded.pad(volume)), size)[None]
    references = references_of(maps, grid, harmonics, levels)
    seen = half.observed(torch.arange(IMAGES), harmonics, CPU)
    started = time.process_time()
    posterior_of(seen, references)
    return time.process_time() - started


def row_of(source: Path, case: str, seed: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        whole = cg.simulate(
            source,
            folder,
            box_size=64,
            pixel_size_A=3.822,
            images=2000,
            molecule={"resolution_A": 8.0},
            shifts=CASES[case],
            noise={"kind": "white", "snr_dB": -20.0, "snr_box_size": 192},
            seed=seed,
        )
        truth = Path(folder) / "truth"
        shift_A = read_poses(truth / "poses.star").shift_A
        volume, diameter_A = (
            cg.read_map(truth / "map.mrc").volume,
            true_diameter_A(truth / "map.mrc"),
        )
        particles, _ = normalised(whole)
        moved, found = centred(particles)
        error_A = found.centre_px * particles.pixel_size_A - shift_A
        error_A = error_A - error_A.mean(0)  # of the origin nothing is known
        sd_percent = round(100.0 * found.remaining_sd_A / WIDTH_A, 2)
        assumed = Assumptions().with_shifts(sd_percent).with_diameter(diameter_A, WIDTH_A)
        without = replace(assumed.with_shifts(0.0), centred=False)
        seconds: dict[str, list[float]] = {"with": [], "without": []}
        for _ in range(ROUNDS):
            seconds["with"].append(search_seconds(moved, volume, assumed))
            seconds["without"].append(search_seconds(moved, volume, without))
    cost = statistics.median(seconds["with"]) / statistics.median(seconds["without"])
    return {
        "molecule": source.stem,
        "shifts": case,
        "seed": seed,
        "true_sd_A": round(float(shift_A.std()), 1),
        "sd_A": round(found.sd_A, 1),
        "error_sd_A": round(float(error_A.square().mean().sqrt()), 1),
        "remaining_sd_A": round(found.remaining_sd_A, 1),
        "true_diameter_A": round(diameter_A),
        "diameter_A": None if found.diameter_A is None else round(found.diameter_A),
        "cost_ratio": round(cost, 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--datadir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=11)
    arguments = parser.parse_args()
    rows = []
    for name in ("5a1a.cif", "1hzh.pdb", "1aoi.pdb"):
        for case in CASES:
            rows.append(row_of(arguments.datadir / "models" / name, case, arguments.seed))
            print(rows[-1], flush=True)
    write_rows(arguments.output / "shifts.csv", rows)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(f"shifts: {error}")
