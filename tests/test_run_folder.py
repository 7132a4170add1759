"""Run folders: damaged files, left-overs, locks, permissions, changed images; status and clean."""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from cryogan.cli import main
from cryogan.errors import InputError
from cryogan.files import atomic_path, left_overs, write_text
from cryogan.io.mrc import MrcStack, write_stack
from cryogan.json_text import to_json
from cryogan.objectives.adversarial.config import AdversarialConfig, Stage
from cryogan.objectives.adversarial.objective import Adversarial
from cryogan.objectives.base import Task
from cryogan.objectives.likelihood.em_state import EMState
from cryogan.particles import ArrayStack, CTFParams, Particles
from cryogan.phantom import phantom_map
from cryogan.run.checkpoint import load_checkpoint, save_checkpoint
from cryogan.run.lock import RUN_LOCK, WORKER_LOCK, holder_of, locked
from cryogan.run.worker import Job, optimise
from cryogan.simulation.in_memory import write_dataset
from simulated_sets import centred_particles

pytestmark = pytest.mark.usefixtures("one_thread", "one_thread_everywhere")

LEFT = (".cryogan-0123abcd.tmp.json", ".cryogan-fedc9876.tmp")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    generator, volume = torch.Generator().manual_seed(3), phantom_map(16, 12.0)
    write_dataset(folder, centred_particles(volume, 12.0, 60, 5.0, generator), volume)
    return folder


def command(data: Path, run: Path) -> list[str]:
    star = str(data / "particles.star")
    return ["reconstruct", star, "-o", str(run), "--objective=simple_objective:Together"]


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    run.mkdir()
    for name in LEFT:  # of a run that was killed while it wrote its first file
        (run / name).write_text("half a fi")
    assert main(command(data, run)) == 0
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def refusal(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    capsys.readouterr()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("cryogan: ")
    assert error.count("\n") == 1
    return error


def test_what_a_killed_process_has_left_blocks_nothing_and_is_removed(finished: Path) -> None:
    names = {path.name for path in finished.rglob(".*")}
    assert names == set()
    assert left_overs(finished) == []


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda old: b"",
    "cut short": lambda old: old[: len(old) // 2],
    "zeros": lambda old: bytes(len(old)),
    "another kind": lambda old: b'["a list"]\n',
    "another version": lambda old: old.replace(b'"format": 1', b'"format": 99'),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_config_is_refused(
    damage: str, data: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "config.json"
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    sentence = refusal(capsys, command(data, run))
    words = "another version of cryogan" if damage == "another version" else "is damaged"
    assert words in sentence
    assert "give another output folder, or delete this one" in sentence
    assert (run / "map.mrc").is_file()


def test_a_config_without_a_number_is_of_the_first_format(data: Path, run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    assert config.pop("format") == 1
    (run / "config.json").write_text(json.dumps(config))
    assert main(command(data, run)) == 0


@pytest.mark.parametrize("damage", ["empty", "cut short", "zeros", "another kind"])
@pytest.mark.parametrize("name", ["result.npz", "half_sets.npz"])
def test_damaged_arrays_are_refused(
    name: str, damage: str, data: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / name
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    assert str(path) in refusal(capsys, command(data, run))


def test_arrays_that_lack_one_or_are_of_another_version_are_refused(
    data: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "result.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    assert arrays["format"] == 1
    for changed in ({"format": np.array(99)}, {"volumes": None}):
        kept = {name: value for name, value in (arrays | changed).items() if value is not None}
        np.savez(path, **kept)
        assert str(path) in refusal(capsys, command(data, run))


def adversarial_job(folder: Path, images: int = 160) -> Job:
    generator = torch.Generator().manual_seed(3)
    stack = ArrayStack(torch.randn(40, 16, 16, generator=generator))
    particles = Particles(stack, CTFParams.constant(40, defocus_u_A=15_000.0), 10.0)
    folder.mkdir(exist_ok=True)
    config = AdversarialConfig(stages=(Stage(16, images),), batch_size=4, templates=4)
    task = Task((particles,), None, 0, torch.device("cpu"))
    return Job(folder, Adversarial(config), task, 1)


@pytest.mark.parametrize("part", ["critic", "volume", "average", "generator", "stage", None])
def test_a_state_is_taken_over_whole_or_refused(part: str | None, tmp_path: Path) -> None:
    job = adversarial_job(tmp_path)
    asked = iter([True])
    assert not optimise(job, should_stop=lambda: next(asked))
    path = tmp_path / "checkpoint.pt"
    saved = load_checkpoint(path)
    if part is None:
        path.write_bytes(path.read_bytes()[:-1000])
    else:
        saved.state[part] = {"average": torch.ones(3), "stage": 7}.get(part, {"no": torch.ones(1)})
        save_checkpoint(path, saved)
    with pytest.raises(InputError, match="delete it to compute that part again") as caught:
        optimise(job)
    assert str(path) in str(caught.value)
    path.unlink()
    (tmp_path / "progress.npz").write_bytes(b"no pictures")  # dispensable
    with (tmp_path / "stats.jsonl").open("a") as log:
        log.write('3\n{"foreign": 1}\nno JSON\n')
    (tmp_path / LEFT[0]).write_text("half a file")
    assert optimise(job)
    assert not list(tmp_path.glob(".*"))
    lines = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [20, 40]


def test_a_task_that_a_worker_has_finished_meanwhile_is_left_alone(tmp_path: Path) -> None:
    """The worker of a killed run may end its task while the next run waits for the folder."""
    job = adversarial_job(tmp_path)
    assert optimise(job)
    names = ("result.npz", "checkpoint.pt", "stats.jsonl")
    before = [(tmp_path / name).stat().st_mtime_ns for name in names]
    assert optimise(job)
    assert [(tmp_path / name).stat().st_mtime_ns for name in names] == before


@pytest.mark.parametrize(
    "changes",
    [{"halves": torch.ones(2, 1, 4, 4, 5)}, {"fsc": torch.ones(3)}, {"done": "3"}, {"new": 1}],
)
def test_a_state_of_the_likelihood_too(changes: dict[str, object]) -> None:
    state = EMState(
        0, 0, True, torch.ones(2, 1, 4, 4, 4), 4, torch.ones(1, 3), torch.ones(1), 9, False
    )
    assert EMState.read(state.record()).record().keys() == state.record().keys()
    with pytest.raises(InputError):
        EMState.read(state.record() | changes)


@pytest.mark.parametrize("full", ["checkpoint.pt", "result.npz"])
def test_a_full_disk_costs_what_was_not_saved_and_no_more(
    full: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there stays whole; with space, the run ends as any other."""
    assert optimise(adversarial_job(tmp_path / "whole"))
    job = adversarial_job(tmp_path / "run")
    asked = iter([True])
    assert not optimise(job, should_stop=lambda: next(asked))
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()

    def flushed(descriptor: int) -> None:
        name = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if name.endswith(Path(full).suffix):
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", flushed)
        with pytest.raises(OSError, match="No space left") as caught:
            optimise(job, should_stop=lambda: True)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename.endswith(("progress.npz", full))
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before
    assert not list((tmp_path / "run").glob(".*"))
    assert optimise(job)
    results = [np.load(tmp_path / run / "result.npz")["volume"] for run in ("run", "whole")]
    np.testing.assert_array_equal(*results)


def test_one_process_at_a_time_works_in_a_folder(
    data: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "summary.json").stat().st_mtime_ns
    with locked(run / RUN_LOCK):
        for arguments in (command(data, run), ["clean", str(run)]):
            sentence = refusal(capsys, arguments)
            assert f"in use by another process (process {os.getpid()} on " in sentence
        assert main(["status", str(run)]) == 0
        assert f"in use by process {os.getpid()}" in capsys.readouterr().out
    assert (run / "summary.json").stat().st_mtime_ns == before
    assert not (run / RUN_LOCK).exists()
    (run / RUN_LOCK).write_text("of a killed process")
    assert holder_of(run / RUN_LOCK) is None
    second = locked(run / WORKER_LOCK, wait_s=0.1)
    with locked(run / WORKER_LOCK), pytest.raises(InputError, match="in use"), second:
        pass


def test_files_have_the_permissions_that_the_user_gives(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_text(tmp_path / "mine", "a")
        os.umask(0o022)
        write_text(tmp_path / "ours", "a")
    finally:
        os.umask(before)
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "ours").stat().st_mode & 0o777 == 0o644


def test_a_temporary_file_in_use_is_no_left_over(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "map.mrc") as temporary:
        temporary.write_text("half")
        assert left_overs(tmp_path) == []
    (tmp_path / LEFT[0]).write_text("half")
    (tmp_path / ".map.mrc.swp").write_text("an editor's")
    assert [path.name for path in left_overs(tmp_path)] == [LEFT[0]]


def test_status_and_clean(
    data: Path, run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (run / LEFT[0]).write_text("half a file")
    capsys.readouterr()
    assert main(["status", str(run)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"Together, finished\n", said)
    assert "resolution to quote: " in said
    assert re.search(r"last written \d+ \w+ ago", said)
    assert f"1 left-overs of killed processes; cryogan clean {run}" in said
    assert main(["status", str(run), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["progress"] == "finished"
    assert found["left_overs"] == [str(run / LEFT[0])]
    assert main(["clean", str(run)]) == 0
    assert "1 files removed" in capsys.readouterr().out
    assert (run / "checkpoint.pt").is_file()
    assert main(["clean", str(run), "--checkpoints"]) == 0
    assert not (run / "checkpoint.pt").exists()
    assert "no run folder" in refusal(capsys, ["status", str(data)])
    assert "no run folder" in refusal(capsys, ["clean", str(data)])
    assert not (data / RUN_LOCK).exists()


def test_a_run_says_that_it_was_there_already(
    data: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main([*command(data, run), "--json"]) == 0
    said = capsys.readouterr()
    assert f"{run} is finished; its results are written again" in said.err
    found = json.loads(said.out)
    assert (found["folder"], found["finished"], found["exit_code"]) == (str(run), True, 0)
    assert found["summary"] == json.loads(to_json(json.loads((run / "summary.json").read_text())))
    assert str(run / "map.mrc") in found["files"]
    (run / "result.npz").unlink()
    (run / "summary.json").unlink()
    assert main(["status", str(run)]) == 0
    assert "not finished: 3 images, 100 % done" in capsys.readouterr().out


def test_one_image_of_sixty_that_has_changed_is_named(
    data: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """None of those that the digest in config.json reads; then back, with another time."""
    stack = data / "particles.mrcs"
    whole = stack.read_bytes()
    try:
        with mrcfile.mmap(stack, mode="r+") as file:
            file.data[31] = file.data[32]
        sentence = refusal(capsys, command(data, run))
        assert f"Image 32 of {stack} is not what it was when the run in {run} began" in sentence
    finally:
        stack.write_bytes(whole)
    assert main(command(data, run)) == 0


def test_a_stack_that_is_written_to_while_it_is_read_is_refused(tmp_path: Path) -> None:
    write_stack(tmp_path / "a.mrcs", torch.randn(5, 8, 8), 4.0)
    stack = MrcStack.open(tmp_path / "a.mrcs")
    stack.read(torch.arange(5))
    with mrcfile.mmap(tmp_path / "a.mrcs", mode="r+") as file:
        file.data[2] = 0.0
    os.utime(tmp_path / "a.mrcs", (0, 0))  # also where clocks are coarse
    with pytest.raises(InputError, match="has been written to since it was opened"):
        stack.read(torch.arange(5))
