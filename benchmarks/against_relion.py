"""`cryogan` against RELION's initial model: the same images, evaluation and CPU time.

RELION 3.1's `relion_refine` makes an initial model by stochastic gradient descent, told what its
window "3D initial model" tells it, but for three things: particles are known to be centred, the
mask has the diameter of cryogan's, and maps are written more often. `cryogan` makes one volume
from all images with the settings of `cryogan reconstruct`. Each has one thread, starts without a
reference, ends after its own number of iterations or after `--minutes` of CPU time, and pays for
its own start and reading. Maps are kept along the way and compared with the truth afterwards, at
the cost of neither; each in its own box, which is 32 px in cryogan's first stage: a correlation
there says nothing about finer detail.

An initial model is not the end in RELION: its descent stops at 15 Å, and a refinement follows.

    cryogan simulate betagal-64px --condition=-5.2dB --datadir ../shared/data -o DIR
    python benchmarks/against_relion.py DIR -o benchmarks/results --minutes 30
"""

import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from cryogan.allocator import keep_freed_memory
from cryogan.benchmark.cost import Clock
from cryogan.benchmark.curves import plot_convergence
from cryogan.benchmark.rows import write_rows
from cryogan.benchmark.snapshots import Snapshot, training_snapshots, truth_numbers
from cryogan.errors import InputError
from cryogan.io.mrc import Map, read_map
from cryogan.io.relion import read_particles
from cryogan.objectives.adversarial.config import AdversarialConfig
from cryogan.objectives.assumptions import Assumptions

COLUMNS = ("program", "cpu_s", "wall_s", "truth_fsc_0.5_A", "truth_fsc_0.143_A", "correlation")
GRADIENT_DESCENT = (
    "--sgd --denovo_3dref --sgd_ini_iter 50 --sgd_inbetween_iter 200 --sgd_fin_iter 50 "
    "--sgd_ini_resol 35 --sgd_fin_resol 15 --sgd_ini_subset 100 --sgd_fin_subset 500 "
    "--ctf --K 1 --sym C1 --flatten_solvent --zero_mask --dont_combine_weights_via_disc "
    "--preread_images --pool 30 --pad 1 --oversampling 1 --healpix_order 1 --j 1"
)
CENTRED = "--offset_range 0 --offset_step 0.01 --fix_sigma_offset"
"""No search for shifts. Oversampling tries ± a quarter of the step even at range 0, and a quarter
of the usual step is a whole pixel; this one does not move an image."""
WRITE_EVERY = 5  # iterations


def run_cryogan(star: Path, minutes: float, seed: int, asked_for: float) -> list[Snapshot]:
    """Train on the whole set in this process, which was asked for then (`time.monotonic()`)."""
    clock = Clock(asked_for)
    torch.set_num_threads(1)
    keep_freed_memory()
    particles = read_particles(star)
    return training_snapshots(
        particles, AdversarialConfig(), seed=seed, clock=clock, minutes=minutes
    )


def run_relion(star: Path, minutes: float, seed: int, folder: Path) -> list[Snapshot]:
    """Watch `relion_refine` write its maps into `folder`.

    Raises:
        InputError: RELION stopped with an error.
    """
    particles = read_particles(star)
    diameter_A = Assumptions().mask_radius * particles.box_size * particles.pixel_size_A
    command = ["relion_refine", "--i", star.name, "--o", str(folder / "run")]
    command += [*GRADIENT_DESCENT.split(), *CENTRED.split(), "--dont_check_norm"]
    command += ["--particle_diameter", f"{diameter_A:.1f}", "--random_seed", str(seed)]
    command += ["--sgd_write_iter", str(WRITE_EVERY)]
    log_path = folder / "log.txt"
    spent: dict[str, tuple[float, float]] = {}
    started = time.time()
    with log_path.open("w") as log:
        process = subprocess.Popen(  # image names in a .star file are relative to its folder
            command,
            cwd=star.parent,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        running, cpu_s = True, 0.0
        try:
            while running and cpu_s < 60 * minutes:
                time.sleep(0.1)
                running = process.poll() is None
                if running:
                    cpu_s = cpu_seconds(process.pid)
                for path in folder.glob("run_it*_data.star"):  # written after the map
                    spent.setdefault(path.name.split("_")[1], (cpu_s, time.time() - started))
        finally:
            process.kill()
            process.wait()
    if not running and process.returncode != 0:
        errors = [line for line in log_path.read_text().splitlines() if line.startswith("ERROR")]
        reason = max(errors, key=len, default=f"exit status {process.returncode}")
        raise InputError(f"relion_refine stopped ({reason}); try it by hand: {' '.join(command)}")
    return [
        Snapshot(*cost, read_map(folder / f"run_{iteration}_class001.mrc"), {})
        for iteration, cost in sorted(spent.items())
    ]


def cpu_seconds(process_id: int) -> float:
    """CPU time, user and system, of a running process (Linux, proc(5))."""
    after_name = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def require_relion() -> None:
    """Raise InputError unless `relion_refine` is there and is one that knows these options."""
    if shutil.which("relion_refine") is None:
        raise InputError(
            "relion_refine is not on the PATH; install RELION 3.1 (Debian: apt install relion)."
        )
    version = subprocess.run(["relion_refine", "--version"], capture_output=True, text=True).stdout
    if "version: 3." not in version:
        raise InputError(
            f"relion_refine says {version.strip() or 'nothing of its version'!r}; put version 3.1 "
            "first on the PATH, as others name the options of an initial model differently."
        )


def evaluated(program: str, snapshot: Snapshot, truth: Map) -> dict[str, str | float]:
    """A row of the table."""
    numbers = {"cpu_s": snapshot.cpu_s, "wall_s": snapshot.wall_s}
    numbers |= truth_numbers(snapshot.map_, truth)
    return {"program": program} | {name: round(numbers[name], 3) for name in COLUMNS[1:]}


def compare(options: argparse.Namespace) -> None:
    """Run both, evaluate both, write `against_relion.csv` and `.png`.

    Raises:
        InputError: RELION is missing or stopped, or `options.data` is not a simulated set.
    """
    require_relion()
    star = (options.data / "particles.star").resolve()
    read_particles(star)
    truth = read_map(options.data / "truth" / "map.mrc")
    options.output.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool, tempfile.TemporaryDirectory() as folder:
        ours = pool.apply_async(
            run_cryogan, (star, options.minutes, options.seed, time.monotonic())
        )
        if options.in_turn:
            ours.wait()
        theirs = run_relion(star, options.minutes, options.seed, Path(folder))
        found = {"cryogan": ours.get(), "RELION": theirs}
    torch.set_num_threads(1)
    rows = [evaluated(program, one, truth) for program, several in found.items() for one in several]
    write_rows(options.output / "against_relion.csv", rows, COLUMNS)
    plot_convergence(options.output / "against_relion.png", rows, "program", marker=".")
    for program in found:
        print([row for row in rows if row["program"] == program][-1])


def main() -> None:
    """Read the command line; wrong input is one sentence."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "data", type=Path, metavar="DIR", help="folder that `cryogan simulate` made"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="where against_relion.csv and .png go"
    )
    parser.add_argument(
        "--minutes", type=float, default=30.0, help="CPU minutes of each at most (default: 30)"
    )
    parser.add_argument(
        "--in-turn", action="store_true", help="one after the other; default: side by side"
    )
    parser.add_argument("--seed", type=int, default=0, help="of both (default: 0)")
    try:
        compare(parser.parse_args())
    except InputError as error:
        sys.exit(f"against_relion: {error}")


if __name__ == "__main__":
    main()
