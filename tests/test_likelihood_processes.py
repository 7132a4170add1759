"""The likelihood in several processes: what one does, and one goes on from what several did."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from cryogan.cli import main
from cryogan.cli.exit_codes import ENDED
from cryogan.data.halves import split_halves
from cryogan.io.mrc import read_map
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.base import Step
from cryogan.objectives.data_parallel import SINGLE_PROCESS, ProcessGroup
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.em import expectation_maximisation
from cryogan.objectives.likelihood.em_state import EMState
from cryogan.objectives.likelihood.half_set import HalfSet
from cryogan.phantom import phantom_map
from cryogan.simulation.in_memory import SimulatedSet, write_dataset
from simulated_sets import centred_particles

pytestmark = pytest.mark.slow

BOX, PIXEL_SIZE_A, COUNT = 16, 12.0, 240
CPU = torch.device("cpu")

ONE = LikelihoodConfig(
    iterations=2,
    full_iterations=3,
    initialisations=2,
    initial_attempts=1,
    initial_rings=(5, 6),
    initial_batches=1,
    initial_batch_size=61,
    conformation_batches=2,
    conformation_batch_size=41,
    assumptions=Assumptions(max_shift_percent=0.0),
)
VARIANTS = {
    "shifts": replace(ONE, assumptions=Assumptions().with_shifts(4.0)),
    "conformations": replace(
        ONE, assumptions=Assumptions(max_shift_percent=0.0, latent="uniform", basis_volumes=3)
    ),
}
"""Batches that no number of processes divides."""


def simulated() -> SimulatedSet:
    generator = torch.Generator().manual_seed(7)
    return centred_particles(phantom_map(BOX, PIXEL_SIZE_A), PIXEL_SIZE_A, COUNT, 3.0, generator)


def run(
    variant: str, group: ProcessGroup = SINGLE_PROCESS, state: EMState | None = None
) -> list[Step]:
    particles = simulated().particles
    first, second = split_halves(COUNT, 0)
    halves = HalfSet.of(particles.subset(first)), HalfSet.of(particles.subset(second))
    return list(
        expectation_maximisation(
            halves, VARIANTS[variant], seed=5, device=CPU, state=state, group=group
        )
    )


def member(rank: int, folder: Path, size: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=size)
    each = size // 2
    groups = [dist.new_group(list(range(first, first + each))) for first in (0, each)]
    mine = ProcessGroup(rank % each, each, groups[rank // each])
    group = ProcessGroup(rank, size, dist.group.WORLD, mine)
    found = {variant: run(variant, group) for variant in VARIANTS}
    states = {
        variant: [step.state.record() for step in steps if step.state is not None]
        for variant, steps in found.items()
    }
    records = {variant: [step.record for step in steps] for variant, steps in found.items()}
    torch.save((states, records), folder / f"results.{rank}")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """States and records of four processes, two for each half-set."""
    folder = tmp_path_factory.mktemp("group")
    torch.multiprocessing.spawn(member, (folder, 4), nprocs=4)
    return [torch.load(folder / f"results.{rank}", weights_only=False) for rank in range(4)]


def assert_close(found: dict[str, Any], expected: dict[str, Any], within: float = 1e-3) -> None:
    """Within rounding, which iterations amplify: one more pose of an image is kept, or one less."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            scale = float(value.nan_to_num().abs().max())
            torch.testing.assert_close(
                found[name], value, rtol=0, atol=within * scale, equal_nan=True, msg=name
            )
        elif name == "log_likelihoods" or isinstance(value, float):
            assert found[name] == pytest.approx(value, rel=within, abs=within), name
        else:
            assert found[name] == value, name


def test_four_processes_find_conformations_as_one_does(four: list[Any]) -> None:
    """In the first batches: with so few images, rounding decides how the later ones go."""
    steps = run("conformations")
    alone = [step.record["log_likelihood"] for step in steps[:2]]
    records = four[0][1]["conformations"]
    assert alone == pytest.approx([each["log_likelihood"] for each in records[:2]], rel=1e-5)
    later = [step.record for step in steps[3:10]]
    for mine, theirs in zip(later, records[3:10], strict=True):
        assert mine["phase"] == theirs["phase"]
        assert mine["log_likelihood"] == pytest.approx(theirs["log_likelihood"], rel=2e-3)


def test_four_processes_do_what_one_does(four: list[Any]) -> None:
    variant = "shifts"
    alone = run(variant)
    states, records = four[0]
    expected = [step.state.record() for step in alone if step.state is not None]
    assert len(states[variant]) == len(expected) == 2
    one_s_records = [step.record for step in alone]
    for found, wanted in zip(states[variant], expected, strict=True):
        assert_close(found, wanted, 2e-2)
    # the first batch, before anything has amplified rounding: one image of 61 is 1.6 %
    first, second = (each[0]["log_likelihood"] for each in (records[variant], one_s_records))
    assert first == pytest.approx(second, rel=1e-5)
    for found, step in zip(records[variant], alone, strict=True):
        found, wanted = dict(found), dict(step.record)
        compared = found.pop("initialisations", None), wanted.pop("initialisations", None)
        assert_close(found, wanted, 2e-2)
        if compared[1] is not None:
            torch.testing.assert_close(
                torch.tensor(compared[0]), torch.tensor(compared[1]), rtol=1e-3, atol=1e-3
            )


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_processes_have_the_same_state_bit_for_bit(variant: str, four: list[Any]) -> None:
    for states, records in four[1:]:
        assert records[variant] == four[0][1][variant]
        for found, first in zip(states[variant], four[0][0][variant], strict=True):
            for name, value in first.items():
                if isinstance(value, torch.Tensor):
                    assert torch.equal(found[name].nan_to_num(), value.nan_to_num()), name


def test_one_process_goes_on_from_the_state_of_four(four: list[Any]) -> None:
    first, last = four[0][0]["shifts"]
    rest = run("shifts", state=EMState(**first))
    assert_close(rest[-1].state.record(), last, 2e-2)


# The command.


@pytest.fixture(scope="module")
def star(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_dataset(folder, simulated(), phantom_map(BOX, PIXEL_SIZE_A))
    return folder / "particles.star"


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the processes that are started here."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def command(star: Path, output: Path, iterations: int = 2) -> list[str]:
    settings = ["initialisations=1", "initial_attempts=1", "initial_rings=[5,6]"]
    settings += ["initial_batches=1", "initial_batch_size=60", f"iterations={iterations}"]
    options = [f"--likelihood.{setting}" for setting in settings]
    options += ["--objective=likelihood", "--max-shift=0", "--device=cpu"]
    return ["reconstruct", str(star), "-o", str(output), *options]


def torchrun(count: int, arguments: list[str]) -> subprocess.Popen[str]:
    start = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    return subprocess.Popen(
        [sys.executable, "-m", *start, "-m", "cryogan", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_torchrun_gives_the_map_of_one_process(star: Path, tmp_path: Path) -> None:
    process = torchrun(2, command(star, tmp_path / "two"))
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert output.count("report: ") == 1
    assert main(command(star, tmp_path / "alone")) in ENDED
    for name in ("map.mrc", "half1.mrc", "half2.mrc"):
        found, wanted = (read_map(tmp_path / run / name).volume for run in ("two", "alone"))
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3 * float(wanted.abs().max()))
    assert (tmp_path / "two" / "report.html").is_file()


def test_a_killed_process_ends_the_others_and_one_process_completes(
    star: Path, tmp_path: Path
) -> None:
    """SIGKILL to one worker after the first iteration; the rest end within half a minute."""
    folder = tmp_path / "run"
    arguments = [*command(star, folder, iterations=5), "--likelihood.full_iterations=5"]
    process = torchrun(2, arguments)
    deadline = time.monotonic() + 600.0
    while not (folder / "checkpoint.pt").is_file():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no iteration was completed"
        time.sleep(0.02)
    workers = subprocess.run(
        ["ps", "--ppid", str(process.pid), "-o", "pid="], capture_output=True, text=True
    )
    os.kill(int(workers.stdout.split()[-1]), signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0, output
    done = json.loads((folder / "stats.jsonl").read_text().splitlines()[-1])["iteration"]
    assert main(arguments) in ENDED
    lines = [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]
    iterations = [line["iteration"] for line in lines if "iteration" in line]
    assert iterations == list(range(1, len(iterations) + 1))
    assert len(iterations) >= done
    assert (folder / "map.mrc").is_file()
