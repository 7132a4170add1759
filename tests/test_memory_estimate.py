"""Memory estimates: against real runs, refusals before a run starts, what is available."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cryogan.cli import main
from cryogan.errors import InputError
from cryogan.objectives.adversarial.config import AdversarialConfig, Stage
from cryogan.objectives.adversarial.objective import Adversarial
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.objective import Likelihood
from cryogan.particles import ArrayStack, CTFParams, Particles
from cryogan.phantom import phantom_map
from cryogan.run.memory import available_GB, check_memory, estimate_memory
from cryogan.simulation.in_memory import write_dataset
from simulated_sets import centred_particles

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="peaks are read as Linux tells them")

REAL_RUN = """
import resource, sys
import torch
from cryogan.objectives.adversarial.config import AdversarialConfig, Stage
from cryogan.objectives.adversarial.objective import Adversarial
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.base import Task
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.objective import Likelihood
from cryogan.particles import ArrayStack, CTFParams, Particles
from cryogan.run.worker import Job, optimise
from pathlib import Path

objective = {objective!r}
images = torch.randn({count}, {box}, {box}, generator=torch.Generator().manual_seed(0))
ctf = CTFParams.constant({count}, defocus_u_A=torch.linspace(8e3, 25e3, {count}))
particles = Particles(ArrayStack(images), ctf, 5.0)
half = {count} // 2
halves = tuple(particles.subset(torch.arange(start, start + half)) for start in (0, half))
task = Task(halves if objective.together else halves[:1], None, 0, torch.device("cpu"))
optimise(Job(Path({folder!r}), objective, task, 1))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)
"""


def noise_set(count: int, box_size: int) -> Particles:
    ctf = CTFParams.constant(count, defocus_u_A=torch.linspace(8e3, 25e3, count))
    return Particles(ArrayStack(torch.zeros(count, box_size, box_size)), ctf, 5.0)


@ON_LINUX
@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "box_size", "processes"),
    [
        (
            Adversarial(
                AdversarialConfig(
                    stages=(Stage(32, 512),),
                    assumptions=Assumptions(latent="uniform"),
                )
            ),
            32,
            2,
        ),
        (
            Likelihood(
                LikelihoodConfig(
                    iterations=1, initialisations=1, initial_batches=1, initial_rings=(5, 6)
                )
            ),
            32,
            1,
        ),
    ],
    ids=["subspace", "likelihood"],
)
def test_an_estimate_is_what_a_real_run_takes(objective, box_size, processes, tmp_path):
    """Peak resident memory of a fresh process, within a third; each half-set has a process."""
    script = REAL_RUN.format(objective=objective, count=1024, box=box_size, folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = estimate_memory(objective, noise_set(1024, box_size))
    assert found is not None
    assert found.needed_GB / processes == pytest.approx(float(done.stdout), rel=1 / 3)


@ON_LINUX
def test_a_larger_batch_needs_more():
    particles = noise_set(2048, 32)
    small, large = (
        estimate_memory(
            Adversarial(AdversarialConfig(stages=(Stage(32, 1024),), batch_size=batch)), particles
        )
        for batch in (64, 512)
    )
    assert large.needed_GB > 1.2 * small.needed_GB


@ON_LINUX
def test_a_run_is_refused_only_where_it_does_not_fit(monkeypatch):
    objective = Adversarial(AdversarialConfig(stages=(Stage(32, 256),)))
    particles = noise_set(512, 32)
    monkeypatch.setattr("cryogan.run.memory.available_GB", lambda device: 1000.0)
    check_memory(objective, particles, "cpu")
    monkeypatch.setattr("cryogan.run.memory.available_GB", lambda device: None)
    check_memory(objective, particles, "cpu")
    monkeypatch.setattr("cryogan.run.memory.available_GB", lambda device: 0.1)
    with pytest.raises(
        InputError, match=r"GB of memory in the stage of 32 px.*0\.1 GB are"
    ) as told:
        check_memory(objective, particles, "cpu")
    assert "--adversarial." in str(told.value)


@ON_LINUX
def test_a_run_that_cannot_fit_writes_nothing(tmp_path, capsys):
    """Ten million templates, by far the most of what this would need."""
    generator = torch.Generator().manual_seed(7)
    volume = phantom_map(16, 10.0)
    simulated = centred_particles(volume[None], 10.0, 64, 5.0, generator)
    write_dataset(tmp_path, simulated, volume)
    star, run = str(tmp_path / "particles.star"), tmp_path / "run"
    settings = ["--adversarial.stages=[{box_size: 16, images: 64}]", "--adversarial.batch_size=32"]
    command = ["reconstruct", star, "-o", str(run), "--device=cpu", *settings]
    assert main([*command, "--adversarial.templates=10000000"]) == 2
    told = capsys.readouterr().err
    assert told.endswith("are available; lower --adversarial.templates.\n")
    assert told.count("\n") == 1
    assert not run.exists()


def test_an_objective_that_measures_nothing_is_not_refused(monkeypatch):
    class Silent:
        together = True

    monkeypatch.setattr("cryogan.run.memory.available_GB", lambda device: 0.0)
    check_memory(Silent(), noise_set(16, 16), "cpu")


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable: 4000 kB\nSwapFree: 1000 kB\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        (MEMINFO, 5000 * 1024),
        (MEMINFO | {"sys/fs/cgroup/memory.max": "max\n"}, 5000 * 1024),
        (
            MEMINFO
            | {
                "sys/fs/cgroup/memory.max": "3000000\n",
                "sys/fs/cgroup/memory.current": "2500000\n",
                "sys/fs/cgroup/memory.stat": "anon 7\ninactive_file 400000\n",
            },
            900_000,
        ),
        (
            MEMINFO
            | {
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "2000000\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "1500000\n",
                "sys/fs/cgroup/memory/memory.stat": "inactive_file 9\ntotal_inactive_file 5\n",
            },
            500_005,
        ),
        (
            MEMINFO
            | {
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "1500000\n",
            },
            5000 * 1024,
        ),
    ],
)
def test_what_is_available_is_what_system_and_control_groups_leave(files, expected, tmp_path):
    found = available_GB("cpu", machine(tmp_path, files))
    assert found == (None if expected is None else pytest.approx(expected / 1e9))


def test_nothing_is_said_of_other_devices(tmp_path):
    assert available_GB("mps", machine(tmp_path, MEMINFO)) is None
