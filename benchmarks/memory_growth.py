"""Does a run grow while it lasts? Resident memory of workers over many minutes, and its slope.

Adversarial training and the likelihood run side by side on the phantom, with settings
that never end, and are stopped by SIGTERM when the time is over. Every ten seconds the resident set
of every process and its CPU time are read (/proc, Linux), into SCRATCH/growth/samples.csv. A row of
`memory_growth.csv` a process: a line is fitted to the samples after the first quarter of the time.
Growth in MB per hour and per 1,000 records of the log, with the standard error of the fit, which
takes neighbouring samples for independent and is therefore too small.

    python benchmarks/memory_growth.py -o benchmarks/results --work SCRATCH --minutes 25

A table that is there is replaced; `--fit` only fits again what has been sampled.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from cryogan.benchmark.rows import append_row, read_rows, write_rows
from kill_campaign import Place

EVERY_S = 10.0
SETTLED = 0.25  # share of the time after which the line begins
_CASES = {
    "adversarial": ("--adversarial.stages=[{box_size: 16, images: 1000000000}]",),
    "likelihood": ("--likelihood.iterations=1000000", "--likelihood.full_iterations=1000000"),
}
"""Case of `kill_campaign` → settings that go before its own."""


def command(place: Place, case: str, out: Path) -> list[str]:
    """A run of a case that does not end."""
    names = {word.split("=")[0] for word in _CASES[case]}
    kept = [word for word in place.arguments(case, out) if word.split("=")[0] not in names]
    return [sys.executable, "-m", "cryogan", *kept, *_CASES[case]]


def family(pid: int) -> dict[str, int]:
    """Role → process id, of a command and its workers."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    ).stdout
    found = {"command": pid}
    for line in listed.splitlines():
        child, parent, words = line.split(None, 2)
        if int(parent) == pid and "spawn_main" in words:
            found[f"worker {len(found)}"] = int(child)
    return found


def sample(pid: int) -> tuple[float, float]:
    """Resident set in MB and CPU seconds of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    ticks = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    rss_MB = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    return rss_MB, sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def records(out: Path) -> int:
    """Records of the log of a run, both half-sets together."""
    return sum(path.read_bytes().count(b"\n") for path in out.rglob("stats.jsonl"))


def watch(place: Place, table: Path, minutes: float) -> None:
    """Run all cases side by side and write their samples."""
    table.unlink(missing_ok=True)
    env = os.environ | {"OMP_NUM_THREADS": "1", "CRYOGAN_CHECKPOINT_S": "5"}
    runs = {}
    for case in _CASES:
        out = place.work / "growth" / case.replace(", ", "_")
        shutil.rmtree(out, ignore_errors=True)
        log = (place.work / "growth" / f"{out.name}.log").open("w")
        runs[case] = (
            out,
            subprocess.Popen(
                command(place, case, out), stdout=log, stderr=log, env=env, process_group=0
            ),
        )
    began = time.monotonic()
    try:
        while time.monotonic() - began < 60 * minutes:
            time.sleep(EVERY_S)
            for case, (out, process) in runs.items():
                if process.poll() is not None:
                    raise RuntimeError(f"{case} ended with {process.returncode}")
                if not records(out):
                    continue  # it measures the memory that it will need, in a process of its own
                for role, pid in family(process.pid).items():
                    rss_MB, cpu_s = sample(pid)
                    row = {"case": case, "process": role}
                    row |= {"wall_s": f"{time.monotonic() - began:.0f}", "cpu_s": f"{cpu_s:.2f}"}
                    append_row(table, row | {"rss_MB": f"{rss_MB:.2f}", "records": records(out)})
    finally:
        for _, process in runs.values():
            process.send_signal(signal.SIGTERM)
        for _, process in runs.values():
            process.wait()


def slopes(rows: Iterable[Mapping[str, str]]) -> list[dict[str, object]]:
    """A row a process, by a straight line through its later samples.

    Example:
        >>> rows = [dict(case="a", process="command", wall_s=n, cpu_s=n, rss_MB=100 + n / 3600,
        ...              records=n) for n in range(0, 101, 10)]
        >>> found = slopes(rows)[0]
        >>> found["samples"], found["growth_MB_per_h"]
        (8, 1.0)
    """
    grouped: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    for row in rows:
        grouped.setdefault((row["case"], row["process"]), []).append(row)
    return [_slope(case, process, some) for (case, process), some in grouped.items()]


def _slope(case: str, process: str, rows: Sequence[Mapping[str, str]]) -> dict[str, object]:
    cpu_s, rss_MB, wall_s, records_ = (
        np.array([float(row[name]) for row in rows])
        for name in ("cpu_s", "rss_MB", "wall_s", "records")
    )
    late = wall_s >= SETTLED * wall_s[-1]
    hours, memory = wall_s[late] / 3600, rss_MB[late]
    offset = hours - hours.mean()
    spread = max(float((offset**2).sum()), 1e-12)
    growth = float((offset * memory).sum()) / spread
    hours_per_record = (hours[-1] - hours[0]) / max(records_[late][-1] - records_[late][0], 1.0)
    residual = memory - memory.mean() - growth * offset
    error = float(np.sqrt((residual**2).sum() / max(len(hours) - 2, 1) / spread))
    return {
        "case": case,
        "process": process,
        "minutes": round(float(wall_s[-1]) / 60, 1),
        "cpu_s": round(float(cpu_s[-1]), 1),
        "records": int(records_[-1]),
        "samples": len(hours),
        "first_MB": round(float(memory[0]), 1),
        "last_MB": round(float(memory[-1]), 1),
        "peak_MB": round(float(rss_MB.max()), 1),
        "growth_MB_per_h": round(growth, 2),
        "standard_error": round(error, 2),
        "growth_MB_per_1000_records": round(growth * hours_per_record * 1000, 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the table")
    parser.add_argument("--work", type=Path, required=True, help="scratch folder")
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--fit", action="store_true", help="only fit what has been sampled")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    place = Place(options.work.resolve())
    table = place.work / "growth" / "samples.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    if not options.fit:
        place.prepare(())
        watch(place, table, options.minutes)
    write_rows(options.output / "memory_growth.csv", slopes(read_rows(table)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
