"""Real particles from nothing but their star file and their symmetry, seed by seed.

    python benchmarks/real_sets.py DATA/empiar-10017/particles.star -o benchmarks/results \
        --reference DATA/empiar-10017/reference_map.mrc --symmetries D2 C1 --seeds 0 1 2 3 4

Each row is `cryogan reconstruct particles.star --sym SYMMETRY --seed SEED`, further options (after
`--`) as in the column of that name, and the comparison of its map with the reference map, which the
reconstruction never reads. CPU time is that of all processes. Rows are
added to `real_sets.csv` as they come, and what is there is not run again; seeds are the outer loop.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from cryogan.benchmark.cost import cryogan_command, spend
from cryogan.benchmark.rows import append_row, read_rows
from cryogan.cli.exit_codes import ENDED
from cryogan.errors import InputError
from cryogan.evaluation.comparison import compare_to_truth
from cryogan.io.mrc import read_map
from cryogan.run.contents import CROSSINGS

KEY = ("set", "symmetry", "seed", "options")  # of a row that is not made again


def row_of(arguments: argparse.Namespace, symmetry: str, seed: int) -> dict[str, object]:
    """Reconstruct and compare."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        star = arguments.particles.resolve()
        command = cryogan_command("reconstruct", str(star), "-o", str(run))
        command += ["--sym", symmetry, "--seed", str(seed)]
        log = Path(folder) / "log.txt"
        cost, _ = spend(command + arguments.options, Path.cwd(), log, ended=ENDED)
        found = compare_to_truth(read_map(run / "map.mrc"), read_map(arguments.reference))
        summary = json.loads((run / "summary.json").read_text())
    return {
        "set": star.parent.name,
        "symmetry": symmetry,
        "seed": seed,
        "options": " ".join(arguments.options),
        "fsc_0.5_A": round(found.resolution_A(0.5), 2),
        "fsc_0.143_A": round(found.resolution_A(0.143), 2),
        "fsc_0.5_masked_A": round(found.resolution_A(0.5, masked=True), 2),
        "correlation": round(found.correlation, 3),
        "verdict": summary["verdict"]["word"],
        "half_map_0.143_A": (summary.get("resolution_A") or summary[CROSSINGS])["half_map_0.143"],
        "cpu_s": round(cost.cpu_s),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("particles", type=Path)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--symmetries", nargs="+", default=["C1"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("options", nargs="*", help="further options of `cryogan reconstruct`")
    arguments = parser.parse_args()
    path = arguments.output / "real_sets.csv"
    done = {tuple(row[name] for name in KEY) for row in read_rows(path)}
    name, options = arguments.particles.resolve().parent.name, " ".join(arguments.options)
    for seed in arguments.seeds:
        for symmetry in arguments.symmetries:
            if (name, symmetry, str(seed), options) in done:
                continue
            found = row_of(arguments, symmetry, seed)
            append_row(path, found)
            print(found, flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(f"real_sets: {error}")
