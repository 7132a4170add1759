"""CryoBench's scores of sets made by its recipe, poses unknown: how good, how long, memory.

Each set is reconstructed (`cryogan reconstruct` with the latent given here), its particles are
assigned to the maps of the run (`cryogan assign`), and both are compared with the truth (`cryogan
evaluate RUN --truth-dir TRUTH --particles POSES`). Only the last step reads it. CPU time and peak
memory are those of the reconstruction with all its processes; the particles' assignment is given
apart. Rows are added to `cryobench.csv`, one when a run has been scored. Run folders go to --work
and are kept there.

    cryogan simulate cryobench-igg-1d --condition centred --scale 0.25 --images 8000 \
        --datadir ../shared/data -o SETS/igg-1d-32px
    python benchmarks/cryobench.py SETS -o benchmarks/results --work RUNS --sets igg-1d-32px \
        --options "--latent circle --basis-volumes 8 --max-shift 0" --seeds 0 1 2
"""

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from cryogan.benchmark.cost import cryogan_command, spend
from cryogan.benchmark.rows import read_rows, replaced, write_rows
from cryogan.cli.exit_codes import ENDED
from cryogan.errors import InputError
from cryogan.io.particle_files import read_particles

COLUMNS = (
    "set",
    "images",
    "box_px",
    "options",
    "seed",
    "cpu_s",
    "wall_s",
    "memory_GB",
    "assign_cpu_s",
    "motion_fsc_0.5_A",
    "coverage",
    "per_image_area",
    "per_conformation_area",
    "true_mean_map_area",
    "circular_correlation",
    "class_accuracy",
    "pose_error_deg",
)


def scores_of(run: Path) -> list[str]:
    """What `cryogan evaluate` has found of a run: the columns from motion_fsc_0.5_A on."""
    folder = run / "conformations"
    series: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
    found: dict[str, Any] = json.loads((folder / "particles.json").read_text())
    circular = found.get("latents", {}).get("circular_correlation")
    accuracy = found.get("classes", {}).get("accuracy")
    return [
        f"{series['motion_resolution_A']:.2f}",
        f"{series['coverage']:.2f}",
        *(f"{found[name]['mean']:.4f}" for name in ("per_image", "per_conformation", "mean_map")),
        "" if circular is None else f"{circular:.3f}",
        "" if accuracy is None else f"{accuracy:.3f}",
        f"{found['pose_error_deg']['median']:.2f}",
    ]


def main() -> None:
    """Read the command line; wrong input is one sentence."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="SETS")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where run folders are kept")
    parser.add_argument("--sets", nargs="+", required=True, help="folders of SETS")
    parser.add_argument("--options", default="--latent circle", help="of `cryogan reconstruct`")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    options = parser.parse_args()
    table = options.output / "cryobench.csv"
    rows = read_rows(table)
    for folder in (options.output, options.work):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        for seed in options.seeds:
            for name in options.sets:
                star, truth = options.data / name / "particles.star", options.data / name / "truth"
                particles = read_particles(star)
                run, poses = options.work / f"{name}_{seed}", options.work / f"{name}_{seed}.star"
                log = run.with_suffix(".log")
                more = [*shlex.split(options.options), "--seed", str(seed)]
                command = cryogan_command("reconstruct", str(star), "-o", str(run), *more)
                cost, _ = spend(command, Path.cwd(), log, ended=ENDED)
                command = cryogan_command("assign", str(star), str(run), "-o", str(poses))
                assigning, _ = spend(command, Path.cwd(), log)
                judged = ("--truth-dir", str(truth), "--particles", str(poses))
                spend(cryogan_command("evaluate", str(run), *judged), Path.cwd(), log)
                values = [name, str(len(particles)), str(particles.box_size), options.options]
                values += [str(seed), f"{cost.cpu_s:.0f}", f"{cost.wall_s:.0f}"]
                values += [f"{cost.memory_GB:.2f}", f"{assigning.cpu_s:.0f}", *scores_of(run)]
                row = dict(zip(COLUMNS, values, strict=True))
                print(row, flush=True)
                rows = replaced(rows, row, ("set", "options", "seed"))
                write_rows(table, rows, COLUMNS)
    except InputError as error:
        sys.exit(f"cryobench: {error}")


if __name__ == "__main__":
    main()
