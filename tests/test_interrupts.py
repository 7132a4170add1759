"""Signals, lost workers and errors of the parent: what is done is saved, said and resumed."""

import multiprocessing
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch

import cryogan as cg
from cryogan.cli import main
from cryogan.phantom import phantom_map
from cryogan.run.checkpoint import load_checkpoint
from cryogan.run.signals import STOPPING, StopRequests, ending_at_once, handled, held_back
from cryogan.simulation.in_memory import write_dataset
from simple_objective import Slow
from simulated_sets import centred_particles

HALVES = ("half1", "half2")
RESULTS = ("map.mrc", "half1.mrc", "half2.mrc", "fsc.csv")


@pytest.fixture(scope="module")
def star(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 images: too few for a verdict, which takes long."""
    folder = tmp_path_factory.mktemp("set")
    generator, volume = torch.Generator().manual_seed(3), phantom_map(16, 12.0)
    write_dataset(folder, centred_particles(volume, 12.0, 60, 5.0, generator), volume)
    return folder / "particles.star"


def command(star: Path, run: Path) -> list[str]:
    return ["reconstruct", str(star), "-o", str(run), "--objective=simple_objective:Slow"]


def records(folder: Path) -> int:
    log = folder / "stats.jsonl"
    return log.read_text().count("\n") if log.is_file() else 0


@pytest.mark.slow
def test_workers_in_a_long_step_end_soon_after_a_killed_command(star: Path, tmp_path: Path) -> None:
    """No record comes at which they would ask: of a large box it may take half an hour."""
    folders = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(
        [sys.executable, "-m", "cryogan", *command(star, tmp_path)],
        env=os.environ | {"SECONDS_A_STEP": "600", "PYTHONPATH": os.pathsep.join(folders)},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def living() -> int:
        table = subprocess.run(["ps", "-A", "-o", "pgid=,stat="], capture_output=True, text=True)
        rows = [line.split() for line in table.stdout.splitlines()]
        return sum(int(group) == process.pid and state[0] != "Z" for group, state in rows)

    try:
        deadline = time.monotonic() + 60.0
        while not all((tmp_path / half / ".worker.lock").is_file() for half in HALVES):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.1)
        time.sleep(2.0)
        process.kill()
        process.wait()
        assert living() >= 2
        deadline = time.monotonic() + 30.0
        while living():
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def meanwhile(run: Path, do: Callable[[], None], more: int = 3) -> Iterator[None]:
    """Do something in another thread as soon as both half-sets have made some steps more."""
    before = {half: records(run / half) for half in HALVES}

    def wait() -> None:
        while any(records(run / half) < before[half] + more for half in HALVES):
            time.sleep(0.02)
        do()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    yield
    thread.join(60.0)
    assert not thread.is_alive()


def to_worker(number: int) -> None:
    worker = multiprocessing.active_children()[0]
    assert worker.pid is not None
    os.kill(worker.pid, number)


def saved(folder: Path) -> bool:
    """Whether the checkpoint is that of the last record."""
    return load_checkpoint(folder / "checkpoint.pt").images_seen == records(folder)


@pytest.mark.slow
def test_a_run_that_is_stopped_in_every_way_gives_the_map_of_one_never_stopped(
    star: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """SIGUSR1 to the command; SIGHUP, then SIGKILL to one of its two workers."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    monkeypatch.setenv("SECONDS_A_STEP", "0.1")
    for number, code, send in (
        (signal.SIGUSR1, 138, lambda: os.kill(os.getpid(), signal.SIGUSR1)),
        (signal.SIGHUP, 129, lambda: to_worker(signal.SIGHUP)),
    ):
        with meanwhile(run, send):
            assert main(command(star, run)) == code
        out = capsys.readouterr().out
        assert f"Interrupted ({number.name}); run the same command again to resume {run}." in out
        assert all(saved(run / half) for half in HALVES)
        assert not multiprocessing.active_children()
    with meanwhile(run, lambda: to_worker(signal.SIGKILL)):
        assert main(command(star, run)) == 5
    error = capsys.readouterr().err
    assert error.startswith("cryogan: A worker process was lost (SIGKILL, as the system ends what")
    assert error.count("\n") == 1
    assert any(saved(run / half) for half in HALVES)  # of the other
    assert not multiprocessing.active_children()

    monkeypatch.delenv("SECONDS_A_STEP")
    assert main(command(star, run)) == 0
    assert main(command(star, whole)) == 0
    for name in RESULTS:
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    for half in HALVES:
        assert records(run / half) == records(whole / half) == 200


@pytest.mark.slow
def test_an_error_in_the_parent_stops_the_workers(
    star: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECONDS_A_STEP", "0.1")

    def show(new: list[list[dict[str, object]]]) -> None:
        if all(records(tmp_path / half) for half in HALVES):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cg.reconstruct(
            cg.read_particles(star), objective=Slow(), folder=tmp_path, device="cpu", show=show
        )
    assert not multiprocessing.active_children()
    assert all(saved(tmp_path / half) for half in HALVES)
    assert all(records(tmp_path / half) < 200 for half in HALVES)


def test_a_second_signal_ends_a_command_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Work that would go on saving is interrupted, too; the same request once more is not."""
    reached: list[str] = []

    def run(arguments: list[str]) -> int:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            reached.append("saving")
        signal.raise_signal(signal.SIGTERM)
        reached.append("saved")
        return 7

    monkeypatch.setattr("cryogan.cli.report.run", run)
    before = [signal.getsignal(number) for number in STOPPING]
    assert main(["report", "run"]) == 7
    monkeypatch.setattr("cryogan.cli.REPEATED_S", -1.0)
    assert main(["report", "run"]) == 143
    assert reached == ["saving", "saved", "saving"]
    assert "interrupted (SIGTERM); the same command can be run" in capsys.readouterr().err
    assert [signal.getsignal(number) for number in STOPPING] == before


@pytest.mark.parametrize("later", [False, True])
def test_a_second_signal_ends_a_worker_at_once(
    later: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cryogan.run.signals.REPEATED_S", -1.0 if later else 60.0)
    pid = os.fork()
    if pid == 0:
        with StopRequests() as requests:
            signal.raise_signal(signal.SIGUSR1)
            noted = requests.received == signal.SIGUSR1
            signal.raise_signal(signal.SIGTERM)
        os._exit(3 if noted else 1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == (-signal.SIGTERM if later else 3)


def test_what_is_ignored_stays_ignored() -> None:
    """As with nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequests() as requests:
            signal.raise_signal(signal.SIGHUP)
            assert requests.received is None
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signals_wait_until_a_block_is_over() -> None:
    done: list[str] = []
    with handled(lambda number: done.append("handled")):
        with held_back():
            signal.raise_signal(signal.SIGTERM)
            done.append("block")
        assert done == ["block", "handled"]
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(STOPPING) == set()


def test_a_terminal_that_is_closed_asks_to_stop() -> None:
    """As SIGHUP, which the system sends."""
    pid, terminal = pty.fork()
    if pid == 0:
        with StopRequests() as requests:
            os.write(1, b"ready")
            deadline = time.monotonic() + 60.0
            while requests.received is None and time.monotonic() < deadline:
                time.sleep(0.01)
        os._exit(3 if requests.received == signal.SIGHUP else 1)
    assert os.read(terminal, 5) == b"ready"
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 3


def test_signals_end_at_once_what_waits_in_a_library() -> None:
    """`StopRequests` would only note them, until the library comes back."""
    pid = os.fork()
    if pid == 0:
        with StopRequests(), ending_at_once():
            signal.raise_signal(signal.SIGTERM)
        os._exit(3)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
