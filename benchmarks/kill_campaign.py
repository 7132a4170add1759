"""Runs that are killed at random, again and again, end as those that nobody kills.

Every sequence starts a command, kills it (SIGKILL) a few times, after a random CPU time or before
the end of a random one of its writes, the whole group of processes, the parent alone or one worker,
and then lets it end. What it leaves is compared, to the last bit, with what an undisturbed command
left; processes that outlive the command by a minute, temporary files and folders that cannot be
used again are counted. A row a kill, and one at the end of each sequence. Seeds are kept: what is
stopped goes on where it was with the same command, and a sequence can be repeated.

    python benchmarks/kill_campaign.py -o benchmarks/results --work SCRATCH --sequences 8

Commands run in forks of this process (`started_commands.py`), which saves loading; `--spawned`
starts them as a user does and writes tables of their own. Other campaigns, which differ in what is
sent: `--signals`, SIGINT, SIGTERM, SIGHUP and SIGUSR1, once a sequence, to each of the three;
`--workers N`, SIGKILL to one of the workers, where the other half-set must have saved its work.
One thread each, so that bits can be compared. `kill_tasks.py` is cheap enough for a test.
"""

import argparse
import itertools
import json
import math
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from cryogan.benchmark.rows import append_row, read_rows
from cryogan.cli.exit_codes import ENDED, FAILED, of_signal
from cryogan.files import left_overs
from cryogan.phantom import phantom_map
from cryogan.physics.distributions import PoseDistribution
from cryogan.run.checkpoint import CHECKPOINT, RESULT, load_checkpoint
from cryogan.run.lock import LOCKS
from cryogan.run.log import LOG
from cryogan.simulation.in_memory import SimulatedSet, simulate_particles, write_dataset
from cryogan.simulation.microscope import random_ctf
from process_groups import end, hit, members, workers
from started_commands import TARGETS, Command, Fork, Started, load, wait

BOX, PIXEL_A, IMAGES = 16, 12.0, 200
FEW = 120  # for which there is no verdict, which takes long
KILLS = 5  # in a sequence, at most
ATTEMPTS = 5  # of a signal, which may come when a command has ended
ORPHANS_S = 60.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
_LONGER = "likelihood, four iterations"  # without, the first checkpoint is the last
WITH_WORKERS = ("adversarial", "adversarial, streamed", _LONGER)
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CRYOGAN_CHECKPOINT_S": "0"}
"""One thread, and checkpoints at every record."""
_ADVERSARIAL = (
    *("--objective=adversarial", "--adversarial.stages=[{box_size: 16, images: 1600}]"),
    "--adversarial.batch_size=8",
    *("--adversarial.templates=4", "--device=cpu", "--max-shift=0", "--diameter=140"),
)
_LIKELIHOOD = (
    *("--device=cpu", "--max-shift=0", "--likelihood.iterations=4"),
    *("--likelihood.initialisations=1", "--likelihood.initial_attempts=1", "--diameter=140"),
    *("--likelihood.initial_batches=2", "--likelihood.initial_batch_size=40"),
    *("--likelihood.initial_rings=[4, 5]", "--likelihood.pose_resolution_A=60"),
    "--likelihood.view_density=false",
)
_CONFORMATIONS = (
    *("--likelihood.conformation_batches=2", "--likelihood.conformation_batch_size=40"),
    *("--likelihood.conformation_iterations=2", "--likelihood.latent_grid_points=4"),
)
_RECONSTRUCT = ("reconstruct", "{star}", "-o", "{out}")
_FEW = ("reconstruct", "{few}", "-o", "{out}")
_RUN = (*_RECONSTRUCT, *_ADVERSARIAL)  # which refine and assign go on from
CASES: dict[str, tuple[str, ...]] = {
    "adversarial": (*_FEW, *_ADVERSARIAL),
    "adversarial, streamed": (*_FEW, *_ADVERSARIAL, "--adversarial.memory_GB=0.00001"),
    "likelihood": (*_RECONSTRUCT, *_LIKELIHOOD),
    _LONGER: (*_RECONSTRUCT, *_LIKELIHOOD, "--likelihood.full_iterations=4"),
    "likelihood, classes": (
        *(*_RECONSTRUCT, *_LIKELIHOOD, *_CONFORMATIONS, "--latent=discrete", "--classes=2"),
    ),
    "likelihood, motion": (*_RECONSTRUCT, *_LIKELIHOOD, *_CONFORMATIONS, "--latent=uniform"),
    "refine": (
        *("refine", "{run}", "-o", "{out}", "--device=cpu", "--likelihood.iterations=3"),
        "--likelihood.pose_resolution_A=60",
    ),
    "assign": ("assign", "{star}", "{run}", "-o", "{out}/poses.star", "--device=cpu"),
    "simulate": (
        *("simulate", "phantom", "-o", "{out}", "--box_size", "24", "--pixel_size_A", "8"),
        *("--images", "3000", "--workers", "1"),
    ),
    "downsample": ("downsample", "{large}", "-o", "{out}", "--box", "16"),
}
"""Name → command; those of runs write into a folder that is new."""
OF_KILLS = tuple(case for case in CASES if case != _LONGER)
OF_SIGNALS = ("adversarial", "likelihood", "refine", "assign", "simulate")
_COMPARED = (".mrc", ".mrcs", ".csv", ".star", ".cs")
_SUMMARY = "summary.json"
_PLACES = ("{out}", "{star}", "{few}", "{large}", "{run}")


@dataclass(frozen=True)
class Place:
    """Where a campaign works: a scratch folder with particles, a finished run and references.

    Attributes:
        work: the folder.
        spawned: whether commands are started as a user does.
    """

    work: Path
    spawned: bool = False

    @property
    def star(self) -> Path:
        return self.work / "set" / "particles.star"

    @property
    def few(self) -> Path:
        return self.work / "few" / "particles.star"

    @property
    def large(self) -> Path:
        return self.work / "large" / "particles.star"

    @property
    def run(self) -> Path:
        return self.work / "run"

    def arguments(self, case: str, out: Path) -> list[str]:
        """Of `cryogan`."""
        words = []
        for word in CASES.get(case, _RUN):
            for place, path in zip(
                _PLACES, (out, self.star, self.few, self.large, self.run), strict=True
            ):
                word = word.replace(place, str(path))
            words.append(word)
        if case == "assign":
            out.mkdir(exist_ok=True)
        return words

    def begin(self, case: str, out: Path, inside: int | None = None, target: str = "") -> Started:
        """A command, begun; see `Fork`."""
        arguments, said = self.arguments(case, out), out.parent / f"{out.name}.txt"
        if self.spawned:
            return Command(arguments, said, ENVIRONMENT)
        return Fork(arguments, said, ENVIRONMENT, inside, target)

    def finish(self, case: str, out: Path) -> tuple[float, int]:
        """A command that nobody kills; its CPU seconds as far as seen, and its writes.

        Raises:
            RuntimeError: it did not end well.
        """
        command = self.begin(case, out)
        cpu_s: dict[int, float] = {}
        while command.poll() is None:
            cpu_s |= {pid: spent for pid, (_, spent) in members(command.pid).items()}
            time.sleep(0.05)
        code = wait(command)
        if code not in ENDED:
            raise RuntimeError(f"{case}: {code}: {command.output()}")
        return sum(cpu_s.values()), command.writes if isinstance(command, Fork) else 0

    def prepare(self, cases: Sequence[str]) -> None:
        """Particles, a finished run and an undisturbed result of every case; kept if there."""
        sets = ((self.star, IMAGES, BOX), (self.few, FEW, BOX), (self.large, 5 * IMAGES, 2 * BOX))
        for star, count, box in sets:
            if not star.is_file():
                star.parent.mkdir(parents=True, exist_ok=True)
                made = particles(count, box)
                write_dataset(star.parent, made, phantom_map(box, PIXEL_A * BOX / box))
        needed = any("{run}" in CASES[case] for case in cases)
        if needed and not (self.run / "report.html").is_file():
            self.finish("run", self.run)
        for case in cases:
            folder = self.reference(case)
            if not (folder / "cost.json").is_file():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                cost = self.finish(case, folder / "out")
                (folder / "cost.json").write_text(json.dumps(cost))
                print(f"{case}: {cost[0]:.1f} CPU s, {cost[1]} writes", flush=True)

    def reference(self, case: str) -> Path:
        return self.work / "references" / case.replace(", ", "_")

    def cost(self, case: str) -> tuple[float, int]:
        """CPU seconds and writes of a case that nobody kills."""
        cpu_s, writes = json.loads((self.reference(case) / "cost.json").read_text())
        return cpu_s, writes


def particles(count: int, box: int = BOX) -> SimulatedSet:
    """Images of the phantom."""
    generator = torch.Generator().manual_seed(11)
    pixel_size_A = PIXEL_A * BOX / box
    return simulate_particles(
        phantom_map(box, pixel_size_A),
        pixel_size_A=pixel_size_A,
        n=count,
        ctf=random_ctf(count, generator),
        poses=PoseDistribution(),
        snr_dB=3.0,
        generator=generator,
    )


def writing(folder: Path) -> bool:
    """Whether a file in a folder is being written."""
    return any(True for _ in folder.rglob(".cryogan-*"))


def differing(found: Path, wanted: Path) -> list[str]:
    """Names of results that only one folder has, or that are not equal to the last bit.

    Summaries are compared without their times.
    """
    names = _results(found) | _results(wanted)
    return [str(name) for name in sorted(names) if _held(found / name) != _held(wanted / name)]


def _results(folder: Path) -> set[Path]:
    """Names of the results in a folder, whatever their depth."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder)
        for path in files
        if path.suffix in _COMPARED or path.name == _SUMMARY
    }


def _held(path: Path) -> object:
    """What a result holds: its bytes, or all of a summary but its times; None if missing."""
    if not path.is_file():
        return None
    if path.name == _SUMMARY:
        return json.dumps(_without_times(json.loads(path.read_text())))
    return path.read_bytes()


def _without_times(value: object) -> object:
    """Entries of JSON whose names do not end in `_s`."""
    if isinstance(value, dict):
        kept = {key: each for key, each in value.items() if not key.endswith("_s")}
        return {key: _without_times(each) for key, each in kept.items()}
    return [_without_times(each) for each in value] if isinstance(value, list) else value


def left(folder: Path) -> list[Path]:
    """Temporary files and locks that are in a folder."""
    found = [path for path in folder.rglob(".*") if path.name in LOCKS]
    for place in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        found += left_overs(place)
    return found


def outliving(group: int) -> int:
    """Processes of a group a minute after its command has ended; they are ended then."""
    deadline = time.monotonic() + ORPHANS_S
    while members(group) and time.monotonic() < deadline:
        time.sleep(0.1)
    count = len(members(group))
    end(group)
    return count


def _shot(
    command: Started, out: Path, number: int, target: str, after_cpu_s: float, rng: random.Random
) -> tuple[str, bool]:
    """Wait until a command has used so much CPU time, and send it a signal.

    Returns:
        What was hit, "none" if the command had ended; and whether a write was going on.
    """
    while command.poll() is None:
        if isinstance(command, Fork) and command.hit:
            wait(command)
            return command.hit, True
        if sum(cpu_s for _, cpu_s in members(command.pid).values()) >= after_cpu_s:
            what = hit(command.pid, target, number, rng)
            return what, writing(out)
        time.sleep(0.02)
    if isinstance(command, Fork) and command.hit:
        return command.hit, True
    return "none", False


def sequence(
    place: Place,
    case: str,
    seed: int,
    number: int | None = None,
    target: str | None = None,
    attempt: int = 0,
) -> Iterator[dict[str, object]]:
    """Kill a command a few times, or send it one signal, and let it end; a row each.

    Args:
        place: of the campaign, prepared.
        case: a name in `CASES`.
        seed: of everything random.
        number: of a signal that is sent once; SIGKILL by default, at most five times.
        target: of that signal.
        attempt: to send it earlier, after it came too late.
    """
    rng = random.Random(f"{case} {seed}")
    latest = 0.9 / (1 + attempt)
    cpu_s, writes = place.cost(case)
    out = place.work / "sequences" / f"{place.reference(case).name}_{seed}_{number}_{target}"
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(exist_ok=True)
    about: dict[str, object] = {"case": case, "seed": seed}
    earlier = False  # whether a kill was followed by a problem
    groups = []
    for kill in range(1 if number else rng.randint(2, KILLS)):
        which = target or rng.choice(TARGETS)
        rest = 1.0 / (kill + 1)  # about what is left to do
        inside = None
        if writes and not number and rng.random() < 0.6:
            inside = rng.randrange(math.ceil(rest * writes))
        after_cpu_s = rng.uniform(0.1 if number else 0.0, latest) * rest * cpu_s
        command = place.begin(case, out, inside, which)
        began = time.monotonic()
        after_cpu_s = float("inf") if inside is not None else after_cpu_s
        what, was_writing = _shot(command, out, number or signal.SIGKILL, which, after_cpu_s, rng)
        hit_at = time.monotonic()
        code = wait(command)
        ended_s = time.monotonic() - hit_at
        if number is None and what in ("group", "parent") and code in ENDED:
            what = "none"  # it had ended when the signal came
        ended = what == "none"
        problems = []
        if code not in _expected(what, number):
            problems.append(f"exit code {code}: {command.output().strip().splitlines()[-1:]}")
        if "Traceback" in command.output():
            problems.append("traceback")
        earlier = earlier or bool(problems)
        groups.append(command.pid)
        yield about | {
            "kill": kill + 1,
            "signal": signal.Signals(number or signal.SIGKILL).name,
            "target": what,
            "in_write": was_writing,
            "at_s": round(hit_at - began, 2),
            "ended_with": _ended_with(code),
            "seconds_to_end": round(ended_s, 2),
            "orphans": "",
            "problem": "; ".join(problems),
        }
        if ended:
            break
        if rng.random() < 0.5:  # otherwise the next begins while workers may still be there
            outliving(command.pid)
    problems = []
    try:
        if not ended:
            place.finish(case, out)
    except (RuntimeError, TimeoutError) as error:
        problems.append(str(error).splitlines()[-1])
    orphans = sum(outliving(group) for group in groups)
    problems += [f"left: {path.name}" for path in left(out)]
    problems += [f"differs: {name}" for name in differing(out, place.reference(case) / "out")]
    if orphans:
        problems.append(f"{orphans} orphans")
    yield about | {
        "kill": "end",
        **dict.fromkeys(("signal", "target", "in_write", "at_s", "ended_with"), ""),
        "seconds_to_end": "",
        "orphans": orphans,
        "problem": "; ".join(problems),
    }
    if not problems and not earlier:
        shutil.rmtree(out)
        out.with_name(f"{out.name}.txt").unlink()


def _ended_with(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def _expected(what: str, number: int | None) -> frozenset[int]:
    """Exit codes that a command may have after it, or one of its workers, was hit."""
    if what == "none":
        return ENDED
    late = ENDED if what == "worker" else frozenset()  # a worker that had done its last record
    if number is not None:
        return late | {of_signal(number)}
    return late | {FAILED if what == "worker" else -signal.SIGKILL}


def lost_worker(place: Place, case: str, seed: int) -> dict[str, object]:
    """Kill one of two workers when both have begun to save; how soon and how well it ends."""
    rng = random.Random(f"worker {case} {seed}")
    out = place.work / "workers" / f"{place.reference(case).name}_{seed}"
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(exist_ok=True)
    command = place.begin(case, out)
    halves = [out / "half1", out / "half2"]
    if case.startswith("likelihood"):
        halves = [out]
    while command.poll() is None and not all((half / CHECKPOINT).is_file() for half in halves):
        time.sleep(0.01)
    time.sleep(rng.uniform(0.0, 0.3 if len(halves) == 2 else 0.02))  # an iteration takes 0.3 s
    finished = [half for half in halves if (half / RESULT).is_file()]
    there = workers(command.pid)
    victim = rng.choice(there) if there else None
    if victim is not None:
        _kill(victim)
    hit_at = time.monotonic()
    code = wait(command)
    seconds = time.monotonic() - hit_at
    said = command.output().strip().splitlines()
    saved = [_is_saved(half) for half in halves if half not in finished]
    orphans = outliving(command.pid)
    problems = []
    try:
        place.finish(case, out)
    except (RuntimeError, TimeoutError) as error:
        problems.append(str(error).splitlines()[-1])
    problems += [f"left: {path.name}" for path in left(out)]
    problems += [f"differs: {name}" for name in differing(out, place.reference(case) / "out")]
    shutil.rmtree(out)
    return {
        "case": case,
        "seed": seed,
        "workers": len(there),
        "ended_with": _ended_with(code),
        "seconds_to_end": round(seconds, 2),
        "sentence": "A worker process was lost (SIGKILL" in (said or [""])[-1],
        "survivor_saved": any(saved) if len(there) > 1 else "",
        "orphans": orphans,
        "problem": "; ".join(problems),
    }


def _kill(pid: int) -> None:
    """SIGKILL, to a process that may have ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _is_saved(folder: Path) -> bool:
    """Whether a task's checkpoint is that of its last record."""
    last = json.loads((folder / LOG).read_text().splitlines()[-1])
    return load_checkpoint(folder / CHECKPOINT).images_seen == last["images_seen"]


def kills(options: argparse.Namespace, place: Place, table: Path) -> None:
    """All sequences of kills, or of signals, that are not in the table yet."""
    cases = options.cases or list(OF_SIGNALS if options.signals else OF_KILLS)
    place.prepare(cases)
    shots: list[tuple[int | None, str | None]] = [(None, None)] * options.sequences
    if options.signals:
        shots = list(itertools.product(map(int, SIGNALS), TARGETS))
    done = {(row["case"], row["seed"]) for row in read_rows(table) if row["kill"] == "end"}
    for (seed, (number, target)), case in itertools.product(enumerate(shots), cases):
        if (case, str(seed)) not in done:
            for attempt in range(ATTEMPTS if number else 1):
                rows = list(sequence(place, case, seed, number, target, attempt))  # it is whole
                if rows[0]["problem"] or rows[0]["ended_with"] != "exit code 0":
                    break
            for row in rows:
                _add(table, row)


def lost_workers(options: argparse.Namespace, place: Place, table: Path) -> None:
    """All kills of workers that are not in the table yet, of the cases in turn."""
    place.prepare(WITH_WORKERS)
    done = {(row["case"], row["seed"]) for row in read_rows(table)}
    for seed in range(options.workers):
        case = WITH_WORKERS[seed % len(WITH_WORKERS)]
        if (case, str(seed)) not in done:
            _add(table, lost_worker(place, case, seed))


def _add(table: Path, row: dict[str, object]) -> None:
    append_row(table, row)
    print(", ".join(f"{key} {value}" for key, value in row.items() if value != ""), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the table")
    parser.add_argument("--work", type=Path, required=True, help="scratch folder")
    parser.add_argument("--sequences", type=int, default=8, help="of each case (default: 8)")
    parser.add_argument("--cases", nargs="+", choices=list(CASES))
    parser.add_argument("--signals", action="store_true", help="signals instead of kills")
    parser.add_argument("--workers", type=int, default=0, help="kill so many workers instead")
    parser.add_argument("--spawned", action="store_true", help="start commands as a user does")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    kind = "_workers" if options.workers else "_signals" if options.signals else ""
    table = options.output / f"kill_campaign{kind}{'_spawned' if options.spawned else ''}.csv"
    place = Place(options.work.resolve(), options.spawned)
    place.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if not options.spawned:
        load()
    (lost_workers if options.workers else kills)(options, place, table)
    rows = read_rows(table)
    hits = [row for row in rows if row.get("kill") != "end" and row.get("target") != "none"]
    problems = [row for row in rows if row["problem"]]
    print(f"{len(hits)} kills or signals, {len(problems)} rows with problems")
    return min(1, len(problems))


if __name__ == "__main__":
    sys.exit(main())
