"""Whole routes from particles to a refined map: the same star file, evaluation and CPU time.

- `adversarial`: a short adversarial run (32-px stage), then `cryogan refine`;
- `likelihood`: `cryogan reconstruct`, one random initialisation;
- `relion`: RELION 3.1's initial model, then its auto-refinement of two half-sets, once of the first
  5,000 particles and once of all;
- `oracle`: `relion_reconstruct --ctf` with the true poses, an upper bound.

No symmetry is imposed and particles are known to be centred. Every command pays for its own start
and reading; CPU time is that of all its processes, but for the leader of RELION's refinement, which
waits busily for its two workers (`OMPI_MCA_mpi_yield_when_idle=1` lets them have its core). Rows
are added to `routes_NAME.csv`, one when a part of a route ends, with what it and those before took.

    cryogan simulate betagal-64px --condition=-20dB --datadir ../shared/data -o DIR
    python benchmarks/routes.py DIR -o benchmarks/results --name betagal-20dB --seeds 0 1 2 3 4
"""

import argparse
import re
import shlex
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from cryogan.benchmark.cost import Cost, cryogan_command, spend
from cryogan.benchmark.rows import Row, read_rows, replaced, write_rows
from cryogan.cli.exit_codes import ENDED
from cryogan.errors import InputError
from cryogan.evaluation.comparison import compare_to_truth
from cryogan.io.mrc import Map, read_map
from cryogan.io.relion import read_particles
from cryogan.io.star import read_star, write_star

COLUMNS = (
    "route",
    "seed",
    "part",
    "cpu_s",
    "wall_s",
    "truth_fsc_0.5_A",
    "truth_fsc_0.143_A",
    "fsc_at_nyquist",
    "correlation",
)
SOME = 5000  # particles
SHORT = "[{box_size: 32, images: 51200, padding: 4.0}]"
CENTRED = "--offset_range 0 --offset_step 0.01 --fix_sigma_offset --dont_check_norm"
"""No search for shifts (see `against_relion.py`)."""
DESCENT = (
    "--sgd --denovo_3dref --sgd_ini_iter 50 --sgd_inbetween_iter 200 --sgd_fin_iter 50 "
    "--sgd_ini_resol 35 --sgd_fin_resol 15 --sgd_ini_subset 100 --sgd_fin_subset 500 "
    "--ctf --K 1 --sym C1 --flatten_solvent --zero_mask --dont_combine_weights_via_disc "
    f"--preread_images --pool 30 --pad 1 --oversampling 1 --healpix_order 1 --j 1 {CENTRED}"
)
REFINEMENT = (
    "--auto_refine --split_random_halves --low_resol_join_halves 40 --ini_high 20 --ctf --sym C1 "
    "--ctf_corrected_ref --flatten_solvent --zero_mask --dont_combine_weights_via_disc "
    "--preread_images --pool 30 --pad 1 --oversampling 1 --healpix_order 2 "
    f"--auto_local_healpix_order 4 --j 1 --norm --scale {CENTRED}"
)


class Table:
    """Rows of results, evaluated and written as they come."""

    def __init__(self, path: Path, truth: Map) -> None:
        self.path, self.truth = path, truth
        self.rows: list[Row] = [*read_rows(path)]

    def add(self, route: str, seed: int, part: str, cost: Cost, map_path: Path) -> None:
        found = compare_to_truth(read_map(map_path), self.truth)
        values = (
            route,
            seed,
            part,
            f"{cost.cpu_s:.1f}",
            f"{cost.wall_s:.1f}",
            f"{found.resolution_A(0.5):.2f}",
            f"{found.resolution_A(0.143):.2f}",
            f"{float(found.fsc[-2]):.3f}",
            f"{found.correlation:.3f}",
        )
        row = dict(zip(COLUMNS, map(str, values), strict=True))
        self.rows = replaced(self.rows, row, ("route", "seed", "part"))
        print(row, flush=True)
        write_rows(self.path, self.rows, COLUMNS)


def adversarial(star: Path, seed: int, work: Path, minutes: float, table: Table) -> None:
    """A short adversarial run, and its refinement."""
    run, log = work / "run", work / "log.txt"
    command = cryogan_command("reconstruct", str(star), "-o", str(run))
    command += ["--objective", "adversarial", "--adversarial.stages", SHORT, "--seed", str(seed)]
    first, _ = spend(command, work, log, minutes, ended=ENDED)
    table.add("adversarial", seed, "reconstruct", first, run / "map.mrc")
    second, _ = spend(cryogan_command("refine", str(run)), work, log, minutes, ended=ENDED)
    table.add("adversarial", seed, "and refine", first + second, run / "refine" / "map.mrc")


def likelihood(star: Path, seed: int, work: Path, minutes: float, table: Table) -> None:
    """Maximum likelihood from one random initialisation, so that success rates are of one."""
    run = work / "run"
    command = cryogan_command("reconstruct", str(star), "-o", str(run))
    command += ["--likelihood.initialisations", "1", "--seed", str(seed)]
    cost, _ = spend(command, work, work / "log.txt", minutes, ended=ENDED)
    table.add("likelihood", seed, "reconstruct", cost, run / "map.mrc")


def relion(star: Path, seed: int, work: Path, minutes: float, table: Table) -> None:
    """RELION's initial model; its refinement of the first 5,000 particles, and of all.

    What there is when the time is over counts.
    """
    particles = read_particles(star)
    diameter = f"{0.85 * particles.box_size * particles.pixel_size_A:.1f}"
    common = ["--particle_diameter", diameter, "--random_seed", str(seed)]
    command = ["relion_refine", "--i", star.name, "--o", str(work / "ini"), *common]
    command += [*DESCENT.split(), "--sgd_write_iter", "10"]
    first, done = spend(command, star.parent, work / "log.txt", minutes)
    model = max(work.glob("ini_it*_class001.mrc"))
    part = "initial model" + ("" if done else f" (stopped; {model.name})")
    table.add("relion", seed, part, first, model)
    for count in (SOME, len(particles)):
        cost, found, done = relion_refinement(star, count, model, common, work, minutes)
        part = f"and refinement of {count}" + ("" if done else f" (stopped; {found.name})")
        table.add("relion", seed, part, first + cost, found)


def relion_refinement(
    star: Path, count: int, model: Path, common: list[str], work: Path, minutes: float
) -> tuple[Cost, Path, bool]:
    """The cost (CPU seconds of both workers), the map, and whether it came to its end."""
    name = f"refine{count}"
    some = work / f"{name}.star"
    _write_first(star, count, some)
    worker = ["relion_refine_mpi", "--i", str(some), "--o", str(work / name)]
    worker += ["--ref", str(model), *common, *REFINEMENT.split()]
    times = f"code=$?; times > {work / name}_rank$OMPI_COMM_WORLD_RANK.txt; sleep 2; exit $code"
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "3"]
    command += ["bash", "-c", f"trap : TERM; {shlex.join(worker)}; {times}"]
    all_ranks, done = spend(command, star.parent, work / "log.txt", minutes)
    cpu_s = sum(_seconds((work / f"{name}_rank{rank}.txt").read_text()) for rank in (1, 2))
    cost = replace(all_ranks, cpu_s=cpu_s)
    if done:
        return cost, work / f"{name}_class001.mrc", True
    return cost, max(work.glob(f"{name}_it*_half1_class001.mrc")), False


def _write_first(star: Path, count: int, path: Path) -> None:
    """The first particles of a star file; their images stay named from that file's folder."""
    write_star(
        path,
        [
            (table.name, {label: c[:count] for label, c in table.columns.items()})
            if table.name == "particles"
            else (table.name, table.columns)
            for table in read_star(star)
        ],
    )


def _seconds(times: str) -> float:
    """CPU seconds of a shell and its children, of what bash's `times` says (`0m1.23s`)."""
    return sum(60 * float(m) + float(s) for m, s in re.findall(r"(\d+)m([\d.]+)s", times))


def oracle(star: Path, seed: int, work: Path, minutes: float, table: Table) -> None:
    """A reconstruction with the true poses, which no route is given."""
    output = work / "oracle.mrc"
    poses = star.parent / "truth" / "poses.star"
    command = ["relion_reconstruct", "--i", str(poses), "--o", str(output), "--ctf"]
    cost, _ = spend(command, star.parent, work / "log.txt", minutes)
    table.add("oracle", seed, "true poses", cost, output)


ROUTES = {
    "adversarial": adversarial,
    "likelihood": likelihood,
    "relion": relion,
    "oracle": oracle,
}


def main() -> None:
    """Read the command line; wrong input is one sentence."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DIR", help="folder of `cryogan simulate`")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--name", required=True, help="of the set, for routes_NAME.csv")
    parser.add_argument("--routes", nargs="+", choices=list(ROUTES), default=list(ROUTES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="wall minutes of any command at most"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="copy folders of the runs there")
    options = parser.parse_args()
    try:
        table = Table(
            options.output / f"routes_{options.name}.csv",
            read_map(options.data / "truth" / "map.mrc"),
        )
        if {"relion", "oracle"} & set(options.routes) and shutil.which("relion_refine") is None:
            raise InputError("relion_refine is not on the PATH; leave those --routes out.")
        for route in options.routes:
            for seed in options.seeds:
                with tempfile.TemporaryDirectory() as work:
                    star = (options.data / "particles.star").resolve()
                    ROUTES[route](star, seed, Path(work), options.minutes, table)
                    if options.keep is not None:
                        kept = options.keep / f"{options.name}_{route}_{seed}"
                        shutil.copytree(work, kept, dirs_exist_ok=True)
    except InputError as error:
        sys.exit(f"routes: {error}")


if __name__ == "__main__":
    main()
