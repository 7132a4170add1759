"""Several processes on one half-set do what one process does, and stop and resume alike."""

import json
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from adversarial_runs import CPU, load_state, save_state
from cryogan.cli import main
from cryogan.cli.exit_codes import ENDED
from cryogan.errors import InputError
from cryogan.objectives.adversarial.config import PAPER, AdversarialConfig, Stage
from cryogan.objectives.adversarial.loop import train
from cryogan.objectives.adversarial.objective import Adversarial
from cryogan.objectives.assumptions import Assumptions
from cryogan.objectives.data_parallel import SINGLE_PROCESS, Launch, ProcessGroup
from cryogan.particles import ArrayStack
from cryogan.phantom import phantom_map
from cryogan.physics.noise import BackgroundPatches, white
from cryogan.run.halves import make_jobs
from cryogan.simulation.in_memory import write_dataset
from simulated_sets import centred_particles

pytestmark = pytest.mark.slow

BOX, PIXEL_SIZE_A, COUNT = 16, 12.0, 120

DEFAULT = AdversarialConfig(
    stages=(Stage(16, 3 * 8), Stage(20, 3 * 8)),
    batch_size=8,
    templates=4,
    penalty_every=2,
    precision="float32",
)
VARIANTS = {
    "default": DEFAULT,
    "published": replace(
        PAPER,
        stages=(Stage(16, 3 * 16), Stage(20, 3 * 16)),
        batch_size=8,
        critic_steps=2,
        critic_channels=4,
    ),
    "measured noise": replace(
        DEFAULT,
        assumptions=Assumptions(max_shift_percent=10.0, view_sigma=2.0),
        learn_scales=True,
        memory_GB=0.0,
    ),
}
"""Two stages of three steps."""

STEPS = 120
OPTIONS = [
    "--objective=adversarial",
    "--adversarial.batch_size=8",
    "--adversarial.templates=4",
    "--adversarial.precision=float32",
    "--device=cpu",
]


def simulated(box_size):
    generator = torch.Generator().manual_seed(7)
    volume = phantom_map(box_size, PIXEL_SIZE_A)
    return volume, centred_particles(volume, PIXEL_SIZE_A, COUNT, 5.0, generator)


@contextmanager
def smooth_adam():
    """Adam with steps that are small where gradients are.

    With an epsilon of 1e-8 it moves a parameter whose gradient is nothing but rounding as far as
    any other, this way or that.
    """
    with patch("torch.optim.Adam", partial(torch.optim.Adam, eps=1e-4)):
        yield


@smooth_adam()
def trained(variant, group, folder=None, checkpoint=None):
    """Averaged volume, critic and records of a run; its second record's checkpoint in `folder`."""
    noise = None
    if variant == "measured noise":
        patches = white(50, 20, torch.Generator().manual_seed(2))
        noise = BackgroundPatches(ArrayStack(patches))
    records = []
    for progress in train(
        simulated(20)[1].particles,
        VARIANTS[variant],
        seed=3,
        device=CPU,
        noise=noise,
        group=group,
        checkpoint=checkpoint,
        log_every=2,
    ):
        records.append(progress.record)
        if folder is not None and len(records) == 2:
            save_state(folder / f"{variant}.{group.rank}", progress.state)
    state = progress.state
    return {
        "records": records,
        "volume": state.average,
        "critic": state.critic.state_dict(),
        "scales": state.log_scales.detach(),
        "generator": state.generator.get_state(),
    }


def member(rank, folder):
    """One of two processes: train every variant, and exchange values of each kind."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    group = ProcessGroup(rank, 2, dist.group.WORLD)
    results = {variant: trained(variant, group, folder) for variant in VARIANTS}
    parameters = [torch.zeros(2, 3, requires_grad=True), torch.zeros(4, requires_grad=True)]
    for number, parameter in enumerate(parameters):
        parameter.grad = torch.arange(parameter.numel()).view_as(parameter) + 10.0 * number + rank
    without = torch.zeros(5, requires_grad=True)
    group.mean_gradients([parameters[0], without, parameters[1]])
    results["exchange"] = {
        "gradients": [parameter.grad for parameter in (*parameters, without)],
        "mean": group.mean(torch.tensor([1.0 + rank, 4.0])),
        "any": [group.any(flag) for flag in (False, True, rank == 1)],
        "first": group.from_first(lambda: {"rank": rank, "tensor": torch.arange(3)}),
        "mine": group.mine(torch.arange(6)),
    }
    torch.save(results, folder / f"results.{rank}")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The folder of checkpoints, and what both members of a group of two came to."""
    folder = tmp_path_factory.mktemp("group")
    torch.multiprocessing.spawn(member, (folder,), nprocs=2)
    return folder, [torch.load(folder / f"results.{rank}") for rank in (0, 1)]


def test_exchanges_within_a_group(together):
    first, second = (results["exchange"] for results in together[1])
    expected = [torch.arange(6.0).view(2, 3) + 0.5, torch.arange(4.0) + 10.5]
    for result in (first, second):
        assert torch.equal(result["gradients"][0], expected[0])
        assert torch.equal(result["gradients"][1], expected[1])
        assert result["gradients"][2] is None
        assert result["mean"].tolist() == [1.5, 4.0]
        assert result["any"] == [False, True, True]
        assert result["first"]["rank"] == 0
        assert result["first"]["tensor"].tolist() == [0, 1, 2]
    assert torch.cat((first["mine"], second["mine"])).tolist() == list(range(6))


def assert_same_run(result, expected):
    """Within the rounding of float32 (found: 1e-6)."""
    scale = float(expected["volume"].abs().max())
    assert scale > 0
    torch.testing.assert_close(result["volume"], expected["volume"], rtol=0, atol=1e-5 * scale)
    assert result["critic"].keys() == expected["critic"].keys()
    for name, value in expected["critic"].items():
        torch.testing.assert_close(result["critic"][name], value, rtol=0, atol=1e-5, msg=name)
    torch.testing.assert_close(result["scales"], expected["scales"], rtol=0, atol=1e-5)
    assert torch.equal(result["generator"], expected["generator"])
    for record, wanted in zip(result["records"], expected["records"], strict=True):
        assert record.keys() == wanted.keys()
        for name in record:
            assert record[name] == pytest.approx(wanted[name], rel=1e-5, abs=1e-5), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_processes_do_what_one_does_with_the_same_batch(variant, together):
    """Volume, critic and records; to the last bit the same in both, so that they stay together."""
    first, second = (results[variant] for results in together[1])
    assert [(r["stage"], r["step"]) for r in first["records"]] == [(0, 2), (0, 3), (1, 2), (1, 3)]
    for name in ("volume", "scales", "generator"):
        assert torch.equal(first[name], second[name]), name
    for name, value in first["critic"].items():
        assert torch.equal(value, second["critic"][name]), name
    assert_same_run(first, trained(variant, SINGLE_PROCESS))


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_process_goes_on_from_the_checkpoint_of_two(variant, together):
    folder, results = together
    whole = results[0][variant]
    for rank in (0, 1):
        checkpoint = load_state(folder / f"{variant}.{rank}")
        rest = trained(variant, SINGLE_PROCESS, checkpoint=checkpoint)
        assert_same_run(rest, whole | {"records": whole["records"][2:]})


def test_a_batch_that_cannot_be_shared_is_refused_before_anything_is_read():
    class Unreadable:
        box_size = 16

        def __len__(self):
            return 100

        def read(self, index):
            pytest.fail("read")

    particles = replace(simulated(16)[1].particles, stack=Unreadable())
    with pytest.raises(InputError, match=r"batch of 8 images .* by 3 processes"):
        next(train(particles, DEFAULT, seed=0, device=CPU, group=ProcessGroup(0, 3)))


# The command.


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    volume, images = simulated(BOX)
    write_dataset(folder, images, volume)
    return folder


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """In the processes that are started here."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def command(dataset, output, steps=20):
    stages = f"--adversarial.stages=[{{box_size: {BOX}, images: {steps * 8}}}]"
    return ["reconstruct", str(dataset / "particles.star"), "-o", str(output), stages, *OPTIONS]


def torchrun(count, arguments):
    """The command in `count` processes."""
    run = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    return subprocess.Popen(
        [sys.executable, "-m", *run, "-m", "cryogan", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def records(folder):
    lines = (folder / "stats.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_torchrun_gives_the_files_of_a_run_without_it(dataset, tmp_path):
    """Two processes, one a half-set, as without torchrun: not a bit differs."""
    process = torchrun(2, command(dataset, tmp_path / "run"))
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert output.count("half-map FSC 0.143") == 1
    assert "Traceback" not in output
    assert main(command(dataset, tmp_path / "alone")) in ENDED
    for name in ("half1.mrc", "half2.mrc", "map.mrc", "fsc.csv"):
        files = [tmp_path / run / name for run in ("run", "alone")]
        assert files[0].read_bytes() == files[1].read_bytes(), name
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_group_that_is_interrupted_leaves_a_run_that_one_process_completes(dataset, tmp_path):
    """Two processes a half-set; SIGTERM to torchrun, which passes it on to all."""
    folder = tmp_path / "run"
    process = torchrun(4, command(dataset, folder, STEPS))
    deadline = time.monotonic() + 600.0
    while not (folder / "half1" / "stats.jsonl").is_file() or not records(folder / "half1"):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "nothing was logged"
        time.sleep(0.02)
    process.terminate()
    output, _ = process.communicate(timeout=600)
    assert process.returncode != 0
    assert output.count("run the same command again to resume") == 1
    assert not (folder / "map.mrc").exists()
    for half in ("half1", "half2"):
        state = load_state(folder / half / "checkpoint.pt")
        begun = records(folder / half)
        assert 0 < state["step"] == begun[-1]["step"] < STEPS
    assert main(command(dataset, folder, STEPS)) in ENDED
    for half in ("half1", "half2"):
        assert [r["step"] for r in records(folder / half)] == list(range(20, STEPS + 1, 20))
    assert records(folder / "half2")[: len(begun)] == begun
    assert (folder / "map.mrc").is_file()


def test_a_wrong_number_of_processes_is_refused_once(dataset, tmp_path, monkeypatch, capsys):
    """By one sentence and exit code 2, with nothing written."""
    for size, words in ((3, "is 3"), (1, "is 1"), (6, "batch of 8 images")):
        monkeypatch.setenv("RANK", "0")
        monkeypatch.setenv("WORLD_SIZE", str(size))
        assert main(command(dataset, tmp_path / "run")) == 2
        error = capsys.readouterr().err
        assert error.startswith("cryogan: ")
        assert error.count("\n") == 1
        assert words in error
    monkeypatch.undo()
    process = torchrun(3, command(dataset, tmp_path / "run"))
    output, _ = process.communicate(timeout=600)
    assert process.returncode != 0
    assert output.count("cryogan: The number of processes is 3") == 1
    assert re.search(r"rank +: 0 .*\n +exitcode +: 2 ", output)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("count", "size", "together"), [(500, 4, 16), (61, 2, 16), (40, 3, 16)])
def test_every_image_is_in_one_share_and_none_is_empty(count, size, together):
    """Shares are of whole runs, but for the last, where there is a run for each process."""
    shares = [ProcessGroup(rank, size).share(torch.arange(count), together) for rank in range(size)]
    assert torch.cat(shares).tolist() == list(range(count))
    lengths = [len(share) for share in shares]
    assert min(lengths) > 0
    assert max(lengths) == ProcessGroup(0, size).largest_share(count, together)
    if count >= size * together:
        assert all(length % together == 0 for length in lengths[:-1])
    else:
        assert max(lengths) - min(lengths) <= 1


def test_every_process_needs_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    Launch(0, 4, 0, 2).check(8, "cuda")
    Launch(0, 4, 0, 4).check(8, "cpu")
    with pytest.raises(InputError, match=r"4 processes .* 2 GPUs"):
        Launch(0, 4, 0, 4).check(8, "cuda")
    with pytest.raises(InputError, match="'cuda:1'"):
        Launch(0, 2, 0, 2).check(8, "cuda:1")


@pytest.mark.parametrize(
    ("device", "count", "expected"),
    [
        ("cuda", 2, ["cuda:0", "cuda:1"]),
        ("cuda", 1, ["cuda", "cuda"]),
        ("cuda:1", 2, ["cuda:1", "cuda:1"]),
        ("cpu", 2, ["cpu", "cpu"]),
    ],
)
def test_two_gpus_take_one_half_set_each(device, count, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    particles = simulated(16)[1].particles
    jobs = make_jobs(particles, tmp_path, Adversarial(DEFAULT), seed=0, device=device)
    assert [str(job.task.device) for job in jobs] == expected
