"""What all benchmarks share: costs, rows, and the bound by true poses."""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import cryogan as cg
from cryogan.benchmark.cost import CommandInterrupted, Cost, run_command, spend
from cryogan.benchmark.rows import append_row, read_rows, replaced, write_rows
from cryogan.benchmark.true_poses import map_of_true_poses, posed_particles
from cryogan.errors import InputError, Interrupted
from cryogan.symmetry import symmetry_matrices

_SMALL = {"box_size": 24, "pixel_size_A": 8.0, "seed": 3}


def costs(commands: Sequence[str], folder: Path) -> list[Cost]:
    """Of Python commands, one after the other, from a small process: a child begins as large."""
    program = f"""
import json, pathlib, sys
from dataclasses import asdict
from cryogan.benchmark.cost import run_command
log = pathlib.Path({str(folder / "log.txt")!r})
for command in {list(commands)!r}:
    print(json.dumps(asdict(run_command([sys.executable, "-c", command], log).cost)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return [Cost(**json.loads(line)) for line in done.stdout.splitlines()]


def test_the_cost_of_a_command_counts_its_own_processes(tmp_path: Path) -> None:
    work = "sum(i for i in range(10**6))"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{work};' * 10])"
    alone, both = costs(["pass", child], tmp_path)
    assert both.cpu_s > alone.cpu_s + 0.1
    assert 0.005 < alone.memory_GB < 1.0


def test_memory_is_that_of_the_command_and_not_of_an_earlier_one(tmp_path: Path) -> None:
    large, small = costs(["x = bytes(1) * 10**9", "pass"], tmp_path)
    assert large.memory_GB > 1.0 > small.memory_GB


def test_what_a_failing_command_said_is_in_the_error(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; print('no such star'); sys.exit(2)"]
    with pytest.raises(InputError, match="no such star"):
        spend(command, tmp_path, tmp_path / "log.txt")
    _, finished = spend(command, tmp_path, tmp_path / "log.txt", ended=(0, 2))
    assert finished


def test_a_command_is_stopped_when_its_time_is_over(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    _, finished = spend(command, tmp_path, tmp_path / "log.txt", 0.01)
    assert not finished


def test_a_killed_command_is_known_by_its_signal(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    assert run_command(command, tmp_path / "log.txt").code == -9


def test_an_interruption_reaches_the_command_once_and_waits_for_it(tmp_path: Path) -> None:
    """The command notes the signal and ends in its own time; what it has cost is known."""
    note = tmp_path / "note.txt"
    command = f"""
import pathlib, signal, sys, time
received = []
signal.signal(signal.SIGINT, lambda number, _: received.append(number))
pathlib.Path({str(note)!r}).touch()
while not received:
    time.sleep(0.01)
time.sleep(0.3)
pathlib.Path({str(note)!r}).write_text(str(received))
sys.exit(130)
"""

    def watch() -> None:
        if note.exists():
            raise Interrupted(signal.SIGTERM)

    with pytest.raises(CommandInterrupted) as caught:
        run_command([sys.executable, "-c", command], tmp_path / "log.txt", watch=watch)
    assert note.read_text() == "[2]"
    assert caught.value.signal == signal.SIGTERM
    assert caught.value.cost.cpu_s > 0.0


def test_costs_add_up_but_memory_does_not() -> None:
    assert Cost(1.0, 2.0, 3.0) + Cost(4.0, 5.0, 1.0) == Cost(5.0, 7.0, 3.0)


def test_rows_come_back_as_they_were_added(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    append_row(path, {"set": "a, b", "cpu_s": 1.5})
    append_row(path, {"set": "c", "cpu_s": 2})
    rows = read_rows(path)
    assert rows == [{"set": "a, b", "cpu_s": "1.5"}, {"set": "c", "cpu_s": "2"}]
    write_rows(path, replaced(rows, {"set": "a, b", "cpu_s": "9"}, ["set"]))
    assert [row["cpu_s"] for row in read_rows(path)] == ["2", "9"]
    with pytest.raises(InputError, match="columns"):
        append_row(path, {"other": 1})
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.parametrize("symmetry", ["C1", "D2"])
def test_noise_free_images_at_their_true_poses_give_the_true_map(
    tmp_path: Path, symmetry: str
) -> None:
    source = "phantom" if symmetry == "C1" else f"phantom:{symmetry}"
    shifts = {"kind": "triangular", "percent": 8.0}
    noise = {"kind": "white", "snr_dB": 20.0}
    cg.simulate(source, tmp_path, images=150, shifts=shifts, noise=noise, **_SMALL)
    particles, poses = posed_particles(tmp_path / "particles.star")
    found = map_of_true_poses(particles, poses, symmetry_matrices(symmetry))
    truth = cg.read_map(tmp_path / "truth" / "map.mrc")
    fsc = cg.fourier_shell_correlation(found.volume, truth.volume)
    assert float(fsc[1:11].min()) > 0.95


def test_images_in_several_batches_give_the_same_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cg.simulate("phantom", tmp_path, images=60, **_SMALL)
    given = *posed_particles(tmp_path / "particles.star"), symmetry_matrices("C1")
    whole = map_of_true_poses(*given).volume
    monkeypatch.setattr("cryogan.benchmark.true_poses._AT_ONCE", 10_000)
    found = map_of_true_poses(*given).volume
    # few images and next to no prior: the equations amplify rounding
    assert float((found - whole).norm()) < 0.02 * float(whole.norm())
