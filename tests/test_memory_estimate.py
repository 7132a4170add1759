"""Memory estimates: against real runs, refusals before a run starts, what is available."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from cryogan.cli import main
from cryogan.errors import InputError
from cryogan.objectives.adversarial.config import AdversarialConfig, Stage
from cryogan.objectives.adversarial.objective import Adversarial
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.data_parallel import Launch
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.objective import Likelihood
from cryogan.objectives.memory import MemoryPlan, NoiseStack
from cryogan.particles import CTFParams, Particles
from cryogan.phantom import phantom_map
from cryogan.run.memory import PROCESS_GB, available_GB, check_memory, estimate_memory
from cryogan.run.trials import NotMeasured, TooMuch
from cryogan.simulation.in_memory import write_dataset
from simulated_sets import centred_particles

pytestmark = pytest.mark.slow
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="peaks are read as Linux tells them")
TWO_STEPS = AdversarialConfig(stages=(Stage(32, 512),))
LINE = Assumptions(latent="uniform")

REAL_RUN = """
import torch
from cryogan.allocator import keep_freed_memory
from cryogan.objectives.adversarial.config import AdversarialConfig, Stage
from cryogan.objectives.adversarial.objective import Adversarial
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.base import Task
from cryogan.objectives.data_parallel import SINGLE_PROCESS
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.objectives.likelihood.objective import Likelihood
from cryogan.particles import ArrayStack, CTFParams, Particles
from cryogan.phantom import phantom_map

torch.set_num_threads(1)
keep_freed_memory()
objective = {objective!r}
images, ctf = torch.load({file!r})
particles = Particles(ArrayStack(images), CTFParams(*ctf, filter=None), 240.0 / {box})
half = {count} // 2
halves = tuple(particles.subset(torch.arange(start, start + half)) for start in (0, half))
volume = phantom_map({box}, 240.0 / {box})
basis = torch.stack([volume] + [volume.roll(3, n % 3) for n in range(1, {volumes})])
maps = basis.repeat(2, 1, 1, 1, 1) if objective.together else None
task = Task(halves if objective.together else halves[:1], None, 0, torch.device("cpu"), maps)
for _ in objective.iterate(task, None, SINGLE_PROCESS):
    pass
lines = (line.split() for line in open("/proc/self/status"))
kB = {{line[0]: int(line[1]) for line in lines if line[-1] == "kB"}}
print((kB["VmHWM:"] - kB["RssFile:"]) * 1024 / 1e9)
"""


def noise_set(count: int, box_size: int) -> Particles:
    ctf = CTFParams.constant(count, defocus_u_A=torch.linspace(8e3, 25e3, count))
    return Particles(NoiseStack(box_size, count), ctf, 5.0)


@ON_LINUX
@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "box_size", "count"),
    [
        (Adversarial(replace(TWO_STEPS, stages=(Stage(24, 1280),), assumptions=LINE)), 24, 1024),
        (Likelihood(LikelihoodConfig(iterations=1)), 48, 400),
    ],
    ids=["subspace", "one map"],
)
def test_an_estimate_is_what_a_real_run_takes(objective, box_size, count, generator, tmp_path):
    """The most memory of a fresh process, libraries apart, within 25 %.

    Of adversarial training, it works on one half-set; the likelihood starts from maps that agree at
    all resolutions, so that its iteration is in the finest band.
    """
    volumes = objective.config.assumptions.volumes
    pixel_size_A = 240.0 / box_size
    volume = phantom_map(box_size, pixel_size_A)[None]
    particles = centred_particles(volume, pixel_size_A, count, -5.0, generator).particles
    file = str(tmp_path / "particles.pt")
    columns = list(particles.ctf.columns.values())
    torch.save((particles.stack.read(torch.arange(count)), columns), file)
    script = REAL_RUN.format(
        objective=objective, count=count, box=box_size, volumes=volumes, file=file
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = estimate_memory(objective, particles)
    assert found is not None
    assert not found.at_least
    processes = 1 if objective.together else 2
    ratio = found.needed_GB / processes / float(done.stdout)
    assert 0.75 < ratio < 1.25


class Hungry(nn.Module):
    """A critic with a layer of a million numbers an image."""

    def __init__(self, box_size: int) -> None:
        super().__init__()
        self.wide = nn.Linear(box_size**2, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        score = self.wide(images.flatten(1))
        return (score * torch.ones(1_000_000)).exp().mean(dim=1)


def hungry(spec):
    return Hungry(spec.box_size)


def broken(spec):
    raise ValueError("no such critic")


@ON_LINUX
def test_a_critic_of_ones_own_is_measured(monkeypatch):
    """Its layer takes 128 × 4 MB, kept at least once for the way back."""
    config = AdversarialConfig(stages=(Stage(16, 128),), batch_size=64)
    own = Adversarial(replace(config, critic="test_memory_estimate:hungry"))
    particles = noise_set(256, 16)
    found = estimate_memory(own, particles, available_GB=1e6)
    assert found.needed_GB > 2 * 0.5
    assert estimate_memory(Adversarial(config), particles, available_GB=1e6) is None
    monkeypatch.setattr("cryogan.run.memory.available_GB", lambda device: 0.9)
    with pytest.raises(InputError, match=r"memory .*in the stage of 16 px"):
        check_memory(own, particles, "cpu")


@ON_LINUX
def test_a_trial_that_fails_refuses_nothing(monkeypatch, capfd):
    config = AdversarialConfig(stages=(Stage(16, 128),), batch_size=64)
    monkeypatch.setattr("cryogan.run.memory.available_GB", lambda device: 0.9)
    own = Adversarial(replace(config, critic="test_memory_estimate:broken"))
    check_memory(own, noise_set(256, 16), "cpu")
    assert capfd.readouterr().err == ""


@ON_LINUX
def test_a_run_is_refused_only_where_it_does_not_fit(monkeypatch):
    objective, particles = Adversarial(TWO_STEPS), noise_set(512, 32)
    monkeypatch.setattr("cryogan.run.memory.available_GB", lambda device: 0.3)
    with pytest.raises(
        InputError, match=r"GB of memory in the stage of 32 px.*0\.3 GB are"
    ) as told:
        check_memory(objective, particles, "cpu")
    assert "--adversarial.batch_size" in str(told.value)
    assert "\n" not in str(told.value)


@ON_LINUX
def test_a_run_that_cannot_fit_writes_nothing(tmp_path, capsys):
    """A thousand million templates: more than a machine has."""
    generator = torch.Generator().manual_seed(7)
    volume = phantom_map(16, 10.0)
    simulated = centred_particles(volume[None], 10.0, 64, 5.0, generator)
    write_dataset(tmp_path, simulated, volume)
    star, run = str(tmp_path / "particles.star"), tmp_path / "run"
    settings = ["--objective=adversarial", "--adversarial.stages=[{box_size: 16, images: 64}]"]
    settings += ["--adversarial.batch_size=32"]
    command = ["reconstruct", star, "-o", str(run), "--device=cpu", *settings]
    assert main([*command, "--adversarial.templates=1000000000"]) == 2
    told = capsys.readouterr().err
    assert told.endswith("available in the stage of 16 px; lower --adversarial.templates.\n")
    assert told.count("\n") == 1
    assert not run.exists()


class Linear:
    """An objective that takes 0.5 GB and 1 MB an image, 0.7 GB before, and holds 2 GB more."""

    together = False
    plan = MemoryPlan("in a step", 1000, (0, 100, 300), 2.0, 0.0, {"--size": 20.0, "--other": 1.0})

    def memory_plan(self, particles, members):
        return self.plan

    def memory_trial(self, particles, size, members, device):
        raise AssertionError("this is for processes")


class FakeProcess:
    """Answers as `Linear` would make a process answer, with 0.2 GB before all trials."""

    idle_GB = 0.2
    asked: list[int]
    fails: dict[int, Exception]

    def __init__(self, trials):
        self.particles = trials.particles

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def peak_GB(self, size):
        self.asked.append(size)
        if size in self.fails:
            raise self.fails[size]
        return 0.2 + (0.7 if size == 0 else 0.5 + 0.001 * size)


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(FakeProcess, "asked", [], raising=False)
    monkeypatch.setattr(FakeProcess, "fails", {}, raising=False)
    monkeypatch.setattr("cryogan.run.memory.TrialProcess", FakeProcess)
    monkeypatch.setattr("cryogan.run.memory.can_be_measured", lambda device: True)
    return FakeProcess


WHOLE = 0.2 + 2.0 + 0.5 + 1.0  # GB of a process of `Linear`


def test_trials_are_extrapolated_and_what_is_held_is_added(fake):
    found = estimate_memory(Linear(), noise_set(16, 16))
    assert found.needed_GB == pytest.approx(2 * WHOLE)
    assert fake.asked == [0, 100, 300]
    assert (found.where, found.advice, found.at_least) == ("in a step", "--size", False)


def test_what_comes_before_the_steps_may_be_the_most(fake, monkeypatch):
    monkeypatch.setattr(Linear, "plan", replace(Linear.plan, passing_GB=4.0))
    whole = 0.2 + 2.0 + 4.0 + 0.7
    assert estimate_memory(Linear(), noise_set(16, 16)).needed_GB == pytest.approx(2 * whole)


@pytest.mark.parametrize(
    ("launch", "processes", "gpus", "device"),
    [
        (None, 2, 0, "cpu"),
        (Launch(0, 8, 0, 4), 4, 0, "cpu"),
        (None, 2, 1, "cuda"),
        (None, 1, 2, "cuda"),
        (None, 2, 2, "cuda:1"),
        (Launch(0, 4, 0, 4), 1, 4, "cuda"),
    ],
)
def test_processes_that_share_a_device_count_together(
    fake, monkeypatch, launch, processes, gpus, device
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    found = estimate_memory(Linear(), noise_set(16, 16), device, launch)
    assert found.needed_GB == pytest.approx(processes * WHOLE)


def test_nothing_is_tried_where_an_upper_bound_fits(fake):
    bound = 2 * (PROCESS_GB + 21.0)
    particles = noise_set(16, 16)
    assert estimate_memory(Linear(), particles, available_GB=bound) is None
    assert fake.asked == []
    assert estimate_memory(Linear(), particles, available_GB=bound - 0.01) is not None
    assert fake.asked


def test_trials_end_when_it_is_clear_whether_a_run_fits(fake):
    """0.2 + 2 + 0.7 GB are there before the first step, in each of two processes."""
    found = estimate_memory(Linear(), noise_set(16, 16), available_GB=5.0)
    assert found.at_least
    assert found.needed_GB == pytest.approx(2 * 2.9)
    assert fake.asked == [0]
    fake.asked.clear()
    # ten times what a hundred images take, 0.6 GB, would fit
    found = estimate_memory(Linear(), noise_set(16, 16), available_GB=2 * 8.3)
    assert found.needed_GB <= 2 * 8.3
    assert fake.asked == [0, 100]


def test_a_trial_for_which_there_is_too_little_memory_tells_enough(fake, monkeypatch):
    monkeypatch.setattr(FakeProcess, "fails", {100: TooMuch()})
    monkeypatch.setattr("cryogan.run.memory.available_GB", lambda device: 7.0)
    with pytest.raises(
        InputError, match=r"more than the 7\.0 GB of memory that are available in a step"
    ):
        check_memory(Linear(), noise_set(16, 16), "cpu")


@pytest.mark.parametrize("available", [None, 1000.0])
def test_what_cannot_be_known_refuses_nothing(fake, monkeypatch, available):
    monkeypatch.setattr("cryogan.run.memory.available_GB", lambda device: available)
    check_memory(Linear(), noise_set(16, 16), "cpu")
    assert fake.asked == []
    monkeypatch.setattr(FakeProcess, "fails", {0: NotMeasured()})
    monkeypatch.setattr("cryogan.run.memory.available_GB", lambda device: 1.0)
    check_memory(Linear(), noise_set(16, 16), "cpu")


def test_an_objective_that_measures_nothing_is_not_refused(monkeypatch):
    class Silent:
        together = True

    monkeypatch.setattr("cryogan.run.memory.available_GB", lambda device: 0.0)
    check_memory(Silent(), noise_set(16, 16), "cpu")


class Sealed:
    """Images that must not be read."""

    box_size = 64

    def __len__(self):
        return 2000

    def read(self, index):
        raise AssertionError("no image is to be read")


def test_images_are_held_whole_or_by_half_or_not_at_all():
    """1,000 images of 64 px in a half-set, 16.4 MB as float32, of which a trial has a batch."""
    ctf = CTFParams.constant(2000, defocus_u_A=15_000.0)
    particles = Particles(Sealed(), ctf, 3.0)
    config = AdversarialConfig(stages=(Stage(64, 256),))
    held = []
    for memory_GB in (1.0, 0.033, 0.0326, 0.0162):
        plan = Adversarial(replace(config, memory_GB=memory_GB)).memory_plan(particles, 1)
        held.append(plan.held_GB * 1e9 / 64**2)
    assert held == pytest.approx([4 * 744, 4 * 744, 2 * 744, 0])


def test_the_most_expensive_stage_is_tried_at_the_box_that_the_particles_allow():
    config = AdversarialConfig(stages=(Stage(32, 256), Stage(128, 256)))
    plan = Adversarial(config).memory_plan(noise_set(2000, 48), 1)
    assert plan.where == "in the stage of 48 px"
    assert plan.size == 256


def test_slices_are_there_in_both_phases_where_equations_are_made_several_times():
    """Of 75,000 images of a half-set they are made once; 150,000 do not fit 500 MB together."""
    objective = Likelihood(LikelihoodConfig())
    once, twice = (objective.memory_plan(noise_set(n, 48), 1) for n in (150_000, 300_000))
    assert once.passing_GB > 0.1
    assert twice.passing_GB == 0.0
    assert twice.held_GB > once.held_GB + once.passing_GB


def test_conformations_are_among_what_to_lower():
    many = Assumptions(latent="discrete", classes=20)
    for objective in (
        Adversarial(replace(TWO_STEPS, assumptions=many)),
        Likelihood(LikelihoodConfig(assumptions=many)),
    ):
        plan = objective.memory_plan(noise_set(2000, 32), 1)
        assert plan.advice.startswith("--classes")


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
