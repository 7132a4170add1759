"""Runs that are killed at random, again and again, end as those that nobody kills.

Every sequence starts a command, kills it (SIGKILL) a few times, at a random time or while a file is
being written, the whole group of processes, the parent alone or one worker, and then lets it end.
What it leaves is compared, to the last bit, with what an undisturbed command left; processes that
outlive the command by a minute, temporary files and folders that cannot be used again are counted.
A row a kill, and one at the end of each sequence. Seeds are kept: what is stopped goes on where it
was with the same command, and a sequence can be repeated.

    python benchmarks/kill_campaign.py -o benchmarks/results --work SCRATCH --sequences 10

`--signals` sends SIGINT, SIGTERM, SIGHUP and SIGUSR1 instead, once a sequence, to each of the
three, and looks at the exit code. One thread each, so that bits can be compared. `kill_tasks.py` is
cheap enough for a test.
"""

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from cryogan.benchmark.rows import append_row, read_rows
from cryogan.files import left_overs
from cryogan.phantom import phantom_map
from cryogan.physics.distributions import PoseDistribution
from cryogan.run.lock import LOCKS
from cryogan.simulation.in_memory import SimulatedSet, simulate_particles, write_dataset
from cryogan.simulation.microscope import random_ctf

BOX, PIXEL_A, IMAGES = 16, 12.0, 300
KILLS = 3  # in a sequence, at most
ORPHANS_S = 60.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
TARGETS = ("group", "parent", "worker")
_ADVERSARIAL = (
    *("--adversarial.stages=[{box_size: 16, images: 4000}]", "--adversarial.batch_size=8"),
    *("--adversarial.templates=4", "--device=cpu", "--max-shift=0", "--diameter=140"),
)
_LIKELIHOOD = (
    *("--objective=likelihood", "--device=cpu", "--max-shift=0", "--likelihood.iterations=4"),
    *("--likelihood.initialisations=1", "--likelihood.initial_attempts=1", "--diameter=140"),
    *("--likelihood.initial_batches=4", "--likelihood.initial_batch_size=80"),
    "--likelihood.initial_rings=[5, 6]",
)
_CONFORMATIONS = (
    *("--latent=discrete", "--classes=2", "--likelihood.conformation_batches=4"),
    *("--likelihood.conformation_batch_size=80", "--likelihood.conformation_iterations=2"),
)
CASES: dict[str, tuple[str, ...]] = {
    "adversarial": ("reconstruct", "{star}", "-o", "{out}", *_ADVERSARIAL),
    "adversarial, streamed": (
        *("reconstruct", "{star}", "-o", "{out}", *_ADVERSARIAL),
        "--adversarial.memory_GB=0.0001",
    ),
    "likelihood": ("reconstruct", "{star}", "-o", "{out}", *_LIKELIHOOD),
    "likelihood, classes": (
        *("reconstruct", "{star}", "-o", "{out}", *_LIKELIHOOD, *_CONFORMATIONS),
    ),
    "refine": ("refine", "{run}", "-o", "{out}", "--device=cpu", "--likelihood.iterations=3"),
    "assign": ("assign", "{star}", "{run}", "-o", "{out}/poses.star", "--device=cpu"),
    "simulate": (
        *("simulate", "phantom", "-o", "{out}", "--box_size", "24", "--pixel_size_A", "8"),
        *("--images", "20000", "--workers", "1"),
    ),
    "downsample": ("downsample", "{star}", "-o", "{out}", "--box", "12"),
}
"""Name → command; those of runs write into a folder that is new."""
_COMPARED = (".mrc", ".mrcs", ".csv", ".star", ".cs")
_PLACES = ("{out}", "{star}", "{run}")


@dataclass(frozen=True)
class Place:
    """Where a campaign works: a scratch folder with particles, a finished run and references."""

    work: Path

    @property
    def star(self) -> Path:
        return self.work / "set" / "particles.star"

    @property
    def run(self) -> Path:
        return self.work / "run"

    def command(self, case: str, out: Path) -> list[str]:
        words = []
        for word in CASES[case]:
            for place, path in zip(_PLACES, (out, self.star, self.run), strict=True):
                word = word.replace(place, str(path))
            words.append(word)
        if case == "assign":
            out.mkdir(exist_ok=True)
        return [sys.executable, "-m", "cryogan", *words]

    def prepare(self, cases: Sequence[str]) -> None:
        """Particles, a finished run and an undisturbed result of every case; kept if there."""
        if not self.star.is_file():
            made = particles()
            self.star.parent.mkdir(parents=True, exist_ok=True)
            write_dataset(self.star.parent, made, phantom_map(BOX, PIXEL_A))
        if not (self.run / "report.html").is_file():
            finish(self.command("adversarial", self.run))
        for case in cases:
            reference = self.reference(case)
            if not (reference / "seconds.json").is_file():
                shutil.rmtree(reference, ignore_errors=True)
                reference.mkdir(parents=True)
                began = time.monotonic()
                finish(self.command(case, reference / "out"))
                (reference / "seconds.json").write_text(json.dumps(time.monotonic() - began))

    def reference(self, case: str) -> Path:
        return self.work / "references" / case.replace(", ", "_")


def particles() -> SimulatedSet:
    """300 images of the phantom."""
    generator = torch.Generator().manual_seed(11)
    volume = phantom_map(BOX, PIXEL_A)
    return simulate_particles(
        volume,
        pixel_size_A=PIXEL_A,
        n=IMAGES,
        ctf=random_ctf(IMAGES, generator),
        poses=PoseDistribution(),
        snr_dB=3.0,
        generator=generator,
    )


def finish(command: Sequence[str]) -> str:
    """Run a command to its end; its output.

    Raises:
        RuntimeError: it did not end well.
    """
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    if done.returncode not in (0, 3, 4):
        raise RuntimeError(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def environment() -> dict[str, str]:
    """One thread, and checkpoints at every record."""
    return os.environ | {"OMP_NUM_THREADS": "1", "CRYOGAN_CHECKPOINT_S": "0"}


def processes() -> list[tuple[int, int, int, str]]:
    """(pid, parent's pid, process group, state) of all."""
    table = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,pgid=,stat="], capture_output=True, text=True, check=True
    ).stdout
    rows = (line.split() for line in table.splitlines())
    return [(int(pid), int(ppid), int(pgid), state) for pid, ppid, pgid, state in rows]


def living(group: int) -> int:
    """Processes of a group that have not ended."""
    return sum(pgid == group and state[0] != "Z" for _, _, pgid, state in processes())


def hit(process: subprocess.Popen[str], target: str, number: int, rng: random.Random) -> str:
    """Send a signal to a command; what was hit: a command without workers is hit itself."""
    if target == "group":
        os.killpg(process.pid, number)
        return target
    children = [pid for pid, ppid, _, _ in processes() if ppid == process.pid]
    if target == "worker" and len(children) > 1:  # the first child is Python's resource tracker
        os.kill(rng.choice(sorted(children)[1:]), number)
        return target
    os.kill(process.pid, number)
    return "parent"


def begun(command: Sequence[str]) -> subprocess.Popen[str]:
    """The command in a session of its own."""
    return subprocess.Popen(
        command,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def writing(folder: Path) -> bool:
    """Whether a file in a folder is being written."""
    return any(True for _ in folder.rglob(".cryogan-*"))


def differing(found: Path, wanted: Path) -> list[str]:
    """Names of results that are not equal to the last bit, or are missing."""
    names = [path.relative_to(wanted) for path in sorted(wanted.rglob("*"))]
    return [
        str(name)
        for name in names
        if name.suffix in _COMPARED
        and (
            not (found / name).is_file()
            or (found / name).read_bytes() != (wanted / name).read_bytes()
        )
    ]


def left(folder: Path) -> list[Path]:
    """Temporary files and locks that are in a folder."""
    found = [path for path in folder.rglob(".*") if path.name in LOCKS]
    for place in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        found += left_overs(place)
    return found


def sequence(
    place: Place, case: str, seed: int, number: int | None = None, target: str | None = None
) -> Iterator[dict[str, object]]:
    """Kill a command up to three times, or send it one signal, and let it end; a row each.

    Args:
        place: of the campaign, prepared.
        case: a name in `CASES`.
        seed: of everything random.
        number: of a signal that is sent once; SIGKILL by default.
        target: of that signal.
    """
    rng = random.Random(f"{case} {seed}")
    seconds = json.loads((place.reference(case) / "seconds.json").read_text())
    out = place.work / "sequences" / f"{place.reference(case).name}_{seed}_{number}_{target}"
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(exist_ok=True)
    about: dict[str, object] = {"case": case, "seed": seed}
    blocked = ""
    for kill in range(1 if number else rng.randint(1, KILLS)):
        at_s, in_write = rng.uniform(0.2, 1.0) * seconds, rng.random() < 0.4
        which = target or rng.choice(TARGETS)
        process = begun(place.command(case, out))
        began = time.monotonic()
        while process.poll() is None:
            passed = time.monotonic() - began
            if passed > at_s or (in_write and passed > 0.3 * at_s and writing(out)):
                break
            time.sleep(0.002)
        ended = process.poll() is not None
        was_writing = writing(out)
        hit_at_s = time.monotonic() - began
        hit_what = "none" if ended else hit(process, which, number or signal.SIGKILL, rng)
        output, _ = process.communicate(timeout=600)
        deadline = time.monotonic() + ORPHANS_S
        while living(process.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        orphans = living(process.pid)
        expected = {0, 3, 4} if ended else {-9, 5} if number is None else {128 + number}
        if process.returncode not in expected:
            blocked = f"{process.returncode}: {output.strip().splitlines()[-1:]}"
        yield about | {
            "kill": kill + 1,
            "signal": "SIGKILL" if number is None else signal.Signals(number).name,
            "target": hit_what,
            "in_write": was_writing,
            "at_s": round(hit_at_s, 2),
            "exit_code": process.returncode,
            "seconds_to_end": round(time.monotonic() - began - hit_at_s, 2),
            "orphans": orphans,
            "traceback": "Traceback" in output,
            "problem": blocked,
        }
    try:
        finish(place.command(case, out))
    except RuntimeError as error:
        blocked = str(error).splitlines()[-1]
    wrong = [str(path) for path in left(out)] + differing(out, place.reference(case) / "out")
    yield about | {
        "kill": "end",
        "signal": "",
        "target": "",
        "in_write": "",
        "at_s": "",
        "exit_code": "",
        "seconds_to_end": "",
        "orphans": 0,
        "traceback": False,
        "problem": blocked or " ".join(wrong),
    }
    if not blocked and not wrong:
        shutil.rmtree(out)


def campaign(options: argparse.Namespace) -> int:
    """All sequences that are not in the table yet; the number of problems in it."""
    name = "kill_campaign_signals.csv" if options.signals else "kill_campaign.csv"
    table = options.output / name
    place = Place(options.work.resolve())
    place.work.mkdir(parents=True, exist_ok=True)
    cases = options.cases or list(CASES)
    place.prepare(cases)
    done = {(row["case"], row["seed"]) for row in read_rows(table) if row["kill"] == "end"}
    shots: list[tuple[int | None, str | None]] = [(None, None)] * options.sequences
    if options.signals:
        shots = list(itertools.product(map(int, SIGNALS), TARGETS))
    for (seed, (number, target)), case in itertools.product(enumerate(shots), cases):
        if (case, str(seed)) in done:
            continue
        for row in list(sequence(place, case, seed, number, target)):  # a sequence is whole
            append_row(table, row)
            print(", ".join(f"{key} {value}" for key, value in row.items() if value != ""))
    rows = read_rows(table)
    kills = [row for row in rows if row["kill"] != "end" and row["target"] != "none"]
    problems = [row for row in rows if row["problem"] or row["orphans"] != "0"]
    print(f"{len(kills)} kills, {len(rows)} rows, {len(problems)} problems")
    return len(problems)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the table")
    parser.add_argument("--work", type=Path, required=True, help="scratch folder")
    parser.add_argument("--sequences", type=int, default=10, help="of each case")
    parser.add_argument("--cases", nargs="+", choices=list(CASES))
    parser.add_argument("--signals", action="store_true", help="signals instead of kills")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    return min(1, campaign(options))


if __name__ == "__main__":
    sys.exit(main())
