"""Particles with the flaws of real ones, no option but the file: does the molecule come back?

    python benchmarks/realistic.py -o benchmarks/results --datadir ../shared/data \
        --conditions shifts-only junk-only --molecules 5a1a.cif 1ruz.pdb --symmetries C1 C3

Sets of the recipe `realistic` (10,000 images of 64 px, -20 dB at 192 px; docs/simulate.md), and of
the variants in `VARIANTS`, are reconstructed by `cryogan reconstruct particles.star`, with `--sym`
of the molecule if one is given. Beside each map stands the one that the same images, junk included,
give at their true poses: the bound. A run succeeds if its FSC with the truth falls to 0.5 within
1.25 times the bound's resolution. CPU time is that of all processes of the reconstruction. Rows are
added to `realistic.csv` as they come, and what is there is not run again; seeds are the outer loop.
The successes are counted last.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import cryogan as cg
from cryogan.benchmark.cost import cryogan_command, run_command, spend
from cryogan.benchmark.rows import append_row, read_rows
from cryogan.benchmark.true_poses import map_of_true_poses, posed_particles, symmetry_about_its_axes
from cryogan.cli.exit_codes import ENDED
from cryogan.errors import InputError
from cryogan.evaluation.comparison import compare_to_truth
from cryogan.run.contents import CROSSINGS

KEY = ("condition", "molecule", "symmetry", "seed", "images")  # of a row that is not made again
RYR1 = "ryr1_refined_particles.star"
_GAUSSIAN = ["--orientations.kind", "angular-gaussian", "--orientations.sigma"]
VARIANTS = {  # of the condition without flaws
    "shifts-2%-only": ["--shifts.sigma_A", "4.89"],
    "shifts-triangular-20%-only": ["--shifts.kind", "triangular", "--shifts.percent", "20"],
    "junk-40%-only": ["--junk.share", "0.4"],
    "views-ryr1-only": ["--orientations.kind", "file", "--orientations.file", RYR1],
    "views-0.4-only": [*_GAUSSIAN, "0.4"],
    "views-2-only": [*_GAUSSIAN, "2"],
    "views-3-only": [*_GAUSSIAN, "3"],
}
WITHIN = 1.25


def row_of(
    condition: str, molecule: str, symmetry: str, seed: int, arguments: argparse.Namespace
) -> dict[str, object]:
    """Simulate, reconstruct, compare."""
    with tempfile.TemporaryDirectory() as folder:
        data, run = Path(folder) / "set", Path(folder) / "run"
        star = data / "particles.star"
        log = Path(folder) / "log.txt"
        flaw = "ideal" if condition in VARIANTS else condition
        simulate = ["simulate", "realistic", "--condition", flaw, *VARIANTS.get(condition, [])]
        simulate += [f"--molecule.sources=[{molecule}]", "--images", str(arguments.images)]
        datadir = arguments.datadir.resolve()
        simulate += ["--seed", str(seed), "--datadir", str(datadir)]
        simulate += ["--datadir", str(datadir / "formats" / "poses")]  # for uneven views
        run_command(cryogan_command(*simulate, "-o", str(data)), log)
        if not star.is_file():
            raise InputError(log.read_text()[-500:])
        reconstruct = ["reconstruct", str(star), "-o", str(run)]
        reconstruct += [] if symmetry == "C1" else ["--sym", symmetry]
        command = cryogan_command(*reconstruct, "--seed", str(seed))
        cost, _ = spend(command, Path.cwd(), log, ended=ENDED)
        truth = cg.read_map(data / "truth" / "map.mrc")
        found = compare_to_truth(cg.read_map(run / "map.mrc"), truth)
        operators = symmetry_about_its_axes(truth, symmetry)
        bound = compare_to_truth(map_of_true_poses(*posed_particles(star), operators), truth)
        summary = json.loads((run / "summary.json").read_text())
        log_lines = (run / "stats.jsonl").read_text().splitlines()
    logged = [json.loads(line).get("shift_sd_A") for line in log_lines]
    shift_sd_A = next((each for each in reversed(logged) if each is not None), 0.0)
    mine_A, bound_A = found.resolution_A(0.5), bound.resolution_A(0.5)
    crossings = summary.get("resolution_A") or summary[CROSSINGS]
    return {
        "condition": condition,
        "molecule": molecule,
        "symmetry": symmetry,
        "seed": seed,
        "images": arguments.images,
        "fsc_0.5_A": round(mine_A, 2),
        "bound_0.5_A": round(bound_A, 2),
        "success": mine_A <= WITHIN * bound_A,
        "correlation": round(found.correlation, 3),
        "verdict": summary["verdict"]["word"],
        "half_map_0.143_A": round(crossings["half_map_0.143"], 2),
        "shift_sd_A": round(shift_sd_A, 1),
        "cpu_s": round(cost.cpu_s),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--datadir", type=Path, required=True)
    parser.add_argument("--conditions", nargs="+", default=["all"])
    parser.add_argument("--molecules", nargs="+", default=["5a1a.cif"], help="sources")
    parser.add_argument("--symmetries", nargs="+", help="one a molecule; C1 by default")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--images", type=int, default=10_000)
    arguments = parser.parse_args()
    symmetries = arguments.symmetries or ["C1"] * len(arguments.molecules)
    if len(symmetries) != len(arguments.molecules):
        parser.error("give one symmetry a molecule.")
    path = arguments.output / "realistic.csv"
    rows: list[dict[str, object]] = [dict(row) for row in read_rows(path)]
    done = {tuple(str(row[name]) for name in KEY) for row in rows}
    for seed in arguments.seeds:
        for molecule, symmetry in zip(arguments.molecules, symmetries, strict=True):
            for condition in arguments.conditions:
                if (condition, molecule, symmetry, str(seed), str(arguments.images)) in done:
                    continue
                found = row_of(condition, molecule, symmetry, seed, arguments)
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
