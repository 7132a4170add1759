"""How long the command line takes to answer where no numbers are needed, beside importing torch.

Version, help and refusals are timed in turn with `python -c "import torch"`, round after round, so
that a busy machine is as busy for all of them; the best of all rounds counts. The goal is a quarter
of the time that importing torch takes. CPU seconds are written too: user and system time of the
process.

    python benchmarks/startup.py -o benchmarks/results
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryogan.benchmark.rows import write_rows

GOAL = 0.25
ROUNDS = 5
TORCH = "import torch"
CASES = (
    "cryogan --version",
    "cryogan --help",
    "cryogan reconstruct --help",
    "cryogan reconstruct --help-all",
    "cryogan simulate --help",
    "cryogan reconstruct missing.star -o x",
    "cryogan reconstruct x --simm D2",
    "cryogan reconstruct x -o x --sym Q9",
    "cryogan reconstruct x -o x --adversarial.batch_size 0",
    "cryogan refine missing",
)


@dataclass(frozen=True)
class Timing:
    """Seconds of a process."""

    wall_s: float
    cpu_s: float


def timed(command: Sequence[str], folder: Path) -> Timing:
    """Run a command in a folder, its output thrown away."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, _, used = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - begun
    process.returncode = 0  # it has been waited for
    return Timing(wall_s, used.ru_utime + used.ru_stime)


def measure(rounds: int) -> dict[str, Timing]:
    """Least wall and CPU time of every case, and of importing torch."""
    found: dict[str, list[Timing]] = {case: [] for case in (TORCH, *CASES)}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds + 1):  # the first fills the caches and does not count
            for case, timings in found.items():
                words = ["-c", TORCH] if case == TORCH else ["-m", *case.split()]
                timings.append(timed([sys.executable, *words], Path(folder)))
    return {
        case: Timing(
            min(timing.wall_s for timing in timings[1:]),
            min(timing.cpu_s for timing in timings[1:]),
        )
        for case, timings in found.items()
    }


def main() -> int:
    """Print the table and write it: 0, or 1 if a case misses the goal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, help="folder of startup.csv")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    found = measure(options.rounds)
    torch = found[TORCH]
    rows = [
        {
            "command": case,
            "wall_s": f"{timing.wall_s:.3f}",
            "cpu_s": f"{timing.cpu_s:.3f}",
            "wall_ratio": f"{timing.wall_s / torch.wall_s:.3f}",
            "cpu_ratio": f"{timing.cpu_s / torch.cpu_s:.3f}",
        }
        for case, timing in found.items()
    ]
    for row in rows:
        print(f"{row['command']:<56}{row['wall_s']:>8} s{row['wall_ratio']:>8} of torch")
    if options.output is not None:
        write_rows(options.output / "startup.csv", rows)
    slow = [case for case in CASES if found[case].wall_s > GOAL * torch.wall_s]
    print(f"more than {GOAL} of torch: {', '.join(slow) or 'none'}")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
