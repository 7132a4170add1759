"""Memory forecasts: against measured runs, against the sizes of arrays, and before a run starts."""

import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from cryogan.cli import main
from cryogan.errors import InputError
from cryogan.run.memory import available_GB
from cryogan.particles import ArrayStack, CTFParams, Particles
from cryogan.phantom import phantom_map
from cryogan.simulation.in_memory import write_dataset
from cryogan.objectives.adversarial.config import PAPER_HETEROGENEOUS, Stage, AdversarialConfig
from cryogan.run.memory import PROCESS_GB, check_memory, estimate_memory
from simulated_sets import centred_particles

SMALL = AdversarialConfig(stages=(Stage(64, 256),))

MEASURE = """
import resource, torch
from cryogan.allocator import keep_freed_memory
from cryogan.particles import ArrayStack, CTFParams, Particles
from cryogan.objectives.adversarial.config import Stage, AdversarialConfig
from cryogan.objectives.adversarial.loop import train
torch.set_num_threads(1)
keep_freed_memory()
settings = {settings!r}
settings["stages"] = tuple(Stage(**stage) for stage in settings["stages"])
config = AdversarialConfig(**settings)
images = torch.randn({count}, *(config.stages[0].box_size,) * 2)
ctf = CTFParams.constant({count}, defocus_u_A=15000.0)
particles = Particles(ArrayStack(images), ctf, 3.0)
for _ in train(particles, config, seed=0, device=torch.device("cpu")):
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
@pytest.mark.parametrize(
    "config",
    [
        replace(SMALL, generator="subspace", batch_size=128),
        replace(
            PAPER_HETEROGENEOUS,
            stages=(Stage(32, 32, 2.0),),
            batch_size=32,
            critic="template",
            loss="relativistic",
            critic_steps=1,
        ),
    ],
    ids=["subspace", "unet"],
)
def test_a_run_takes_what_was_forecast_or_up_to_twice_that(config):
    """Peak resident memory of a fresh process that trains for two steps or one."""
    count = 256
    script = MEASURE.format(settings=asdict(config), count=count)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = PROCESS_GB + estimate_memory(config, count, config.stages[0].box_size).total_GB
    assert expected <= float(done.stdout) <= 2.0 * expected


def test_images_are_held_whole_or_by_half_or_not_at_all():
    """1,000 images of 64 px: 16.4 MB as float32."""
    held = [
        estimate_memory(replace(SMALL, memory_GB=memory), 1000, 64).parts_GB["--training.memory_GB"]
        for memory in (1.0, 0.0165, 0.0163, 0.0081)
    ]
    assert held == pytest.approx([0.016384, 0.016384, 0.008192, 0.0])


def test_the_spectrum_of_every_volume_counts():
    """Complex spectra of 192 × 192 × 97 at padding 3, kept 6.5 times."""
    one = 6.5 * 192 * 192 * 97 * 8 / 1e9
    name = "--training.stages (box_size or padding{})"
    lone = estimate_memory(SMALL, 512, 64).parts_GB
    assert lone[name.format("")] == pytest.approx(one)
    extra = ", --training.basis or classes"
    path = estimate_memory(replace(SMALL, generator="subspace", basis=4), 512, 64).parts_GB
    assert path[name.format(extra)] == pytest.approx(5 * one)
    classes = replace(SMALL, generator="subspace", latent="discrete", classes=3)
    assert estimate_memory(classes, 512, 64).parts_GB[name.format(extra)] == pytest.approx(3 * one)


def test_the_largest_stage_counts_at_the_box_that_the_particles_allow():
    config = replace(SMALL, stages=(Stage(32, 256), Stage(128, 256)))
    found = estimate_memory(config, 512, 48)
    assert found.box_size == 48
    assert found == estimate_memory(replace(SMALL, stages=(Stage(48, 256),)), 512, 48)


def test_members_of_a_team_share_a_batch():
    alone, shared = (estimate_memory(SMALL, 512, 64, members).parts_GB for members in (1, 2))
    assert shared["--training.batch_size"] == pytest.approx(alone["--training.batch_size"] / 2)
    assert shared["--training.templates"] == pytest.approx(alone["--training.templates"] / 2)


@pytest.fixture
def particles() -> Particles:
    ctf = CTFParams.constant(512, defocus_u_A=15_000.0)
    return Particles(ArrayStack(torch.zeros(512, 64, 64)), ctf, 3.0)


def test_two_processes_are_refused_only_where_both_do_not_fit(particles, monkeypatch):
    each = estimate_memory(replace(SMALL, memory_GB=1.0), 256, 64).total_GB
    need = PROCESS_GB + 2 * each
    monkeypatch.setattr("cryogan.run.memory.available_GB", lambda device: need + 1e-6)
    check_memory(particles, SMALL, "cpu")
    monkeypatch.setattr("cryogan.run.memory.available_GB", lambda device: need - 1e-6)
    with pytest.raises(InputError, match="in the stage of 64 px") as caught:
        check_memory(particles, SMALL, "cpu")
    assert f"at least {need:.1f} GB" in str(caught.value)
    assert "--training.batch_size" in str(caught.value)
    monkeypatch.setattr("cryogan.run.memory.available_GB", lambda device: None)
    check_memory(particles, SMALL, "cpu")


def test_a_run_that_cannot_fit_writes_nothing(tmp_path, capsys):
    """Ten million templates, by far the most of what this would need."""
    generator = torch.Generator().manual_seed(7)
    volume = phantom_map(16, 10.0)
    simulated = centred_particles(volume[None], 10.0, 64, 5.0, generator)
    write_dataset(tmp_path, simulated, volume)
    star, run = str(tmp_path / "particles.star"), tmp_path / "run"
    settings = ["--training.stages=[{box_size: 16, images: 64}]", "--training.batch_size=32"]
    command = ["reconstruct", star, "-o", str(run), "--device=cpu", *settings]
    assert main([*command, "--training.templates=10000000"]) == 2
    said = capsys.readouterr().err
    assert said.endswith("are available; lower --training.templates.\n")
    assert said.count("\n") == 1
    assert not run.exists()


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


def test_other_devices_are_not_judged(tmp_path):
    assert available_GB("mps", machine(tmp_path, MEMINFO)) is None
