"""Particles with the flaws of real ones, no option but the file: does the molecule come back?

    python benchmarks/realistic.py -o benchmarks/results --datadir ../shared/data \
        --conditions shifts-only junk-only --molecules 5a1a.cif 1hzh.pdb --seeds 0

Sets of the recipe `realistic` (10,000 images of 64 px, -20 dB at 192 px; docs/simulate.md) are
reconstructed by `cryogan reconstruct particles.star --objective likelihood`. Beside each map stands
the one that the same images, junk included, give at their true poses: the bound. A run succeeds
if its FSC with the truth falls to 0.5 within 1.25 times the bound's resolution. CPU time is that of
all processes of the reconstruction. Rows are added to `realistic.csv` as they come, and what is
there is not run again; seeds are the outer loop. The successes are counted last.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch

import cryogan as cg
from cryogan import fourier
from cryogan.data.normalisation import normalised
from cryogan.errors import InputError
from cryogan.evaluation.comparison import compare_to_truth
from cryogan.io.relion_poses import read_poses
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.objectives.likelihood.normal_equations import (
    WeightedPoses,
    normal_equations,
    shell_weight,
    solve,
)
from cryogan.objectives.likelihood.observations import Observations
from cryogan.objectives.likelihood.orientation_grid import OrientationGrid
from cryogan.physics.circular_harmonics import CircularHarmonics
from cryogan.run.contents import CROSSINGS
from routes import spend
from row_files import append_row, read_rows

KEY = ("condition", "molecule", "seed", "images")  # of a row that is not made again
WITHIN = 1.25
SIGNAL_TO_NOISE = 50.0  # of the prior: next to none
CPU = torch.device("cpu")


def map_of_true_poses(star: Path) -> cg.Map:
    """Least squares with next to no prior, one pose an image."""
    particles, _ = normalised(cg.read_particles(star))
    half = HalfSet.of(particles)
    size = particles.box_size
    harmonics = CircularHarmonics(size, size // 2 - 1, size / 2, CPU)
    poses = read_poses(star.parent / "truth" / "poses.star")
    frames, n = poses.rotation.float(), len(particles)
    index = torch.arange(n)
    seen = [half.observed(part, harmonics, CPU) for part in torch.split(index, 1000)]
    grid = OrientationGrid(1, frames, torch.zeros(n))  # one direction an image
    one = torch.ones(n, 1)
    shift_px = poses.shift_A.float() / particles.pixel_size_A
    weighted = WeightedPoses(index, index, torch.zeros(n), shift_px, one, one)
    equations = normal_equations(Observations.joined(seen), weighted, grid, harmonics)
    prior = SIGNAL_TO_NOISE / shell_weight(equations)
    prior[:, 0] = prior[:, 1]  # images hold no information on the mean
    ball = fourier.soft_disc(size, 0.46 * size, 0.04 * size, 3, CPU)
    start = torch.zeros(1, size, size, size)
    volume = solve(equations, prior, ball, start, iterations=24)
    return cg.Map(volume[0], particles.pixel_size_A)


def row_of(
    condition: str, molecule: str, seed: int, arguments: argparse.Namespace
) -> dict[str, object]:
    """Simulate, reconstruct, compare."""
    with tempfile.TemporaryDirectory() as folder:
        data, run = Path(folder) / "set", Path(folder) / "run"
        star = data / "particles.star"
        log = Path(folder) / "log.txt"
        command = [sys.executable, "-m", "cryogan"]
        simulate = ["simulate", "realistic", "--condition", condition, "--seed", str(seed)]
        source = (arguments.datadir / "models" / molecule).resolve()
        simulate += [f"--molecule.sources=[{source}]", "--images", str(arguments.images)]
        simulate += ["--datadir", str(arguments.datadir.resolve()), "-o", str(data)]
        spend(command + simulate, Path.cwd(), log, 1e6)
        if not star.is_file():
            raise InputError(log.read_text()[-500:])
        reconstruct = ["reconstruct", str(star), "-o", str(run), "--objective", "likelihood"]
        cpu_s, _, _ = spend([*command, *reconstruct, "--seed", str(seed)], Path.cwd(), log, 1e6)
        truth = cg.read_map(data / "truth" / "map.mrc")
        found = compare_to_truth(cg.read_map(run / "map.mrc"), truth)
        bound = compare_to_truth(map_of_true_poses(star), truth)
        summary = json.loads((run / "summary.json").read_text())
        config = json.loads((run / "config.json").read_text())
    percent = config["assumptions"]["shift_sd_percent"]
    mine_A, bound_A = found.resolution_A(0.5), bound.resolution_A(0.5)
    crossings = summary.get("resolution_A") or summary[CROSSINGS]
    return {
        "condition": condition,
        "molecule": molecule,
        "seed": seed,
        "images": arguments.images,
        "fsc_0.5_A": round(mine_A, 2),
        "bound_0.5_A": round(bound_A, 2),
        "success": mine_A <= WITHIN * bound_A,
        "correlation": round(found.correlation, 3),
        "verdict": summary["verdict"]["word"],
        "half_map_0.143_A": round(crossings["half_map_0.143"], 2),
        "shift_sd_A": round(percent / 100.0 * truth.pixel_size_A * truth.volume.shape[-1], 1),
        "cpu_s": round(cpu_s),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--datadir", type=Path, required=True)
    parser.add_argument("--conditions", nargs="+", default=["all"])
    parser.add_argument("--molecules", nargs="+", default=["5a1a.cif"], help="in DATADIR/models")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--images", type=int, default=10_000)
    arguments = parser.parse_args()
    path = arguments.output / "realistic.csv"
    rows: list[dict[str, object]] = [dict(row) for row in read_rows(path)]
    done = {tuple(str(row[name]) for name in KEY) for row in rows}
    for seed in arguments.seeds:
        for molecule in arguments.molecules:
            for condition in arguments.conditions:
                if (condition, molecule, str(seed), str(arguments.images)) in done:
                    continue
                found = row_of(condition, molecule, seed, arguments)
                append_row(path, found)
                rows.append(found)
                print(found, flush=True)
    for condition in dict.fromkeys(str(row["condition"]) for row in rows):
        mine = [str(row["success"]) == "True" for row in rows if row["condition"] == condition]
        print(f"{condition}: {sum(mine)} of {len(mine)} within {WITHIN} x the bound")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(f"realistic: {error}")
