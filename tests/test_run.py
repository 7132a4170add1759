"""Adversarial runs, end to end, on a data set that takes seconds: run folder, resume, refusals."""

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

import cryogan as cg
from cryogan.cli import main
from cryogan.cli.exit_codes import ENDED
from cryogan.data.halves import split_halves
from cryogan.evaluation.comparison import compare_to_truth
from cryogan.io.mrc import read_map, write_stack
from cryogan.io.relion import read_particles
from cryogan.objectives.adversarial.config import PAPER, PRESETS
from cryogan.objectives.adversarial.objective import Adversarial
from cryogan.phantom import phantom_map
from cryogan.run.checkpoint import load_checkpoint
from cryogan.run.halves import make_jobs
from cryogan.simulation.in_memory import write_dataset
from simulated_sets import centred_particles

COUNT, BOX, PIXEL_SIZE_A = 190, 16, 12.0  # too few for a verdict, which takes long
STEPS, BATCH = 240, 8
STAGES = f"--adversarial.stages=[{{box_size: {BOX}, images: {STEPS * BATCH}}}]"
TINY = [
    *("--objective=adversarial", STAGES, f"--adversarial.batch_size={BATCH}"),
    *("--adversarial.templates=4", "--device=cpu"),
]


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread_everywhere")]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """190 images of the phantom in 16 px of 12 Å, and the truth."""
    folder = tmp_path_factory.mktemp("data")
    generator = torch.Generator().manual_seed(7)
    volume = phantom_map(BOX, PIXEL_SIZE_A)
    simulated = centred_particles(volume, PIXEL_SIZE_A, COUNT, 5.0, generator)
    write_dataset(folder, simulated, volume)
    return folder


def command(dataset, output):
    return ["reconstruct", str(dataset / "particles.star"), "-o", str(output), *TINY]


@pytest.fixture(scope="module")
def finished(dataset, tmp_path_factory):
    """A run folder that nobody interrupted; not to be written to."""
    folder = tmp_path_factory.mktemp("run") / "run"
    assert main(command(dataset, folder)) in ENDED
    return folder


def contents(folder):
    """Every file and when it was written."""
    return {
        path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def records(folder):
    """The log without times."""
    lines = (folder / "stats.jsonl").read_text().splitlines()
    timed = ("wall_s", "cpu_s", "images_per_s")
    return [{k: v for k, v in json.loads(line).items() if k not in timed} for line in lines]


def refusal(capsys, arguments):
    """The sentence with which a command is refused."""
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("cryogan: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error
    return error


def test_the_run_folder_holds_everything(finished):
    names = {path.name for path in finished.iterdir()}
    assert names >= {
        "config.json",
        "summary.json",
        "map.mrc",
        "half1.mrc",
        "half2.mrc",
        "fsc.csv",
        "mask.mrc",
        "uncertainty.mrc",
        "report.html",
        "view.cxc",
    }
    for name in ("map.mrc", "half1.mrc", "half2.mrc"):
        with mrcfile.open(finished / name) as file:
            assert file.data.shape == (BOX, BOX, BOX)
            assert float(file.voxel_size.x) == pytest.approx(PIXEL_SIZE_A)
    half1, half2, whole = (
        read_map(finished / f"{name}.mrc").volume for name in ("half1", "half2", "map")
    )
    torch.testing.assert_close(whole, 0.5 * (half1 + half2))
    assert not torch.allclose(half1, half2, atol=0.01 * float(half1.std()))
    rows = list(csv.DictReader((finished / "fsc.csv").open()))
    assert len(rows) == BOX // 2 + 1
    assert {"half_map", "half_map_masked"} <= rows[0].keys()
    summary = json.loads((finished / "summary.json").read_text())
    assert 2 * PIXEL_SIZE_A <= summary["resolution_A"]["half_map_0.143"] <= BOX * PIXEL_SIZE_A
    found = summary.get("verdict", {}).get("word") != "no structure"
    claims = {"local_resolution.mrc", "directional_fsc.csv", "guinier.csv"}
    assert (claims <= names) is found
    assert ("directions" in summary) is found
    assert ("held_out_resolution_A" in summary) is (found and "verdict" in summary)
    assert summary.get("retries", 0) == 0  # the watchdog leaves what is in order alone
    contents = cg.read_run(finished)
    assert (contents.quoted_resolution_A is not None) is found
    assert contents.resolution_note in (finished / "report.html").read_text()
    config = json.loads((finished / "config.json").read_text())
    assert config["seed"] == 0
    assert config["config"]["stages"][0]["images"] == STEPS * BATCH
    assert config["particles"]["count"] == COUNT
    assert [record["step"] for record in records(finished / "half1")] == list(
        range(20, STEPS + 1, 20)
    )
    assert records(finished / "half1")[-1]["fraction"] == 1.0
    assert records(finished / "half1") != records(finished / "half2")
    assert (finished / "report.html").stat().st_size > 10_000


def test_the_map_looks_like_the_molecule(finished, dataset):
    """More than the blob it began with, whose correlation with the truth is 0.49."""
    comparison = compare_to_truth(
        read_map(finished / "map.mrc"), read_map(dataset / "truth" / "map.mrc")
    )
    assert comparison.correlation > 0.6


@pytest.mark.parametrize("count", [300, 301])
def test_halves_are_disjoint_and_cover_all(count):
    first, second = split_halves(count, 3)
    assert sorted((*first.tolist(), *second.tolist())) == list(range(count))
    assert abs(len(first) - len(second)) <= 1
    other, _ = split_halves(count, 4)
    assert first.tolist() != other.tolist()


def test_the_two_jobs_share_neither_images_nor_seed(dataset, tmp_path):
    """Whatever the user's seed is: seeds of different users' runs differ too."""
    particles = read_particles(dataset / "particles.star")
    images = particles.stack.read(torch.arange(COUNT)).flatten(1)
    seeds = []
    for seed in range(3):
        folder = tmp_path / str(seed)
        folder.mkdir()
        jobs = make_jobs(particles, folder, Adversarial(), seed=seed, device="cpu")
        parts = []
        for job in jobs:
            (half,) = job.task.half_sets
            parts.append(half.stack.read(torch.arange(len(half))).flatten(1))
            seeds.append(job.task.seed)
        together = torch.cat(parts)
        assert len(parts) == 2
        assert len(together) == COUNT
        assert torch.equal(together.unique(dim=0), images.unique(dim=0))
    assert len(set(seeds)) == 6


def test_the_same_command_again_trains_nothing_and_gives_the_same_files(
    finished, dataset, tmp_path, capsys
):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    before = contents(folder)
    assert main(command(dataset, folder)) in ENDED
    after = contents(folder)
    assert before.keys() == after.keys()
    for path in before:
        if path.parts[0] in ("half1", "half2"):  # neither read nor written by a job
            assert after[path] == before[path], path
        if path.name not in ("report.html", "summary.json"):
            assert after[path][0] == before[path][0], path
    resolutions = [
        json.loads(files[Path("summary.json")][0])["resolution_A"] for files in (before, after)
    ]
    assert resolutions[0] == resolutions[1]
    assert "half-map FSC 0.143" in capsys.readouterr().out


def start(dataset, folder):
    """The command in a session of its own, with the default reaction to Ctrl-C."""
    return subprocess.Popen(
        [sys.executable, "-m", "cryogan", *command(dataset, folder)],
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(condition, what):
    """Poll; give up after two minutes, which no healthy machine needs."""
    deadline = time.monotonic() + 120.0
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def steps_logged(folder):
    log = folder / "half1" / "stats.jsonl"
    return log.read_text().count("\n") if log.is_file() else 0


def living(group):
    """Processes of a group, without those that have ended and wait to be reaped."""
    table = subprocess.run(
        ["ps", "-A", "-o", "pgid=,stat="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split() for line in table.splitlines()]
    return sum(int(pgid) == group and not state.startswith("Z") for pgid, state in rows)


def test_a_run_stopped_three_times_gives_the_map_of_one_never_stopped(
    finished, dataset, tmp_path, capsys
):
    """Ctrl-C while the workers start; SIGTERM in training; kill -9 in training; then to the end."""
    folder = tmp_path / "run"

    process = start(dataset, folder)
    wait_for((folder / "half2").is_dir, "the workers were not started")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert not (folder / "map.mrc").exists()

    process = start(dataset, folder)
    wait_for(lambda: steps_logged(folder) >= 2, "nothing was logged")
    os.killpg(process.pid, signal.SIGTERM)  # as a batch system does
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 143, output
    assert "run the same command again" in output
    assert "Traceback" not in output
    saved = load_checkpoint(folder / "half1" / "checkpoint.pt")
    logged = steps_logged(folder)
    assert saved.images_seen == 20 * BATCH * logged
    assert logged < STEPS / 20

    process = start(dataset, folder)
    wait_for(lambda: steps_logged(folder) > logged, "the run did not go on")
    process.kill()
    process.communicate(timeout=120)
    wait_for(lambda: living(process.pid) == 0, "workers outlive their parent")
    assert not (folder / "map.mrc").exists()

    assert main(command(dataset, folder)) in ENDED
    for name in ("map.mrc", "half1.mrc", "half2.mrc", "fsc.csv"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes(), name
    for half in ("half1", "half2"):
        assert records(folder / half) == records(finished / half)


@pytest.mark.parametrize(
    ("extra", "name"),
    [
        (["--seed", "1"], "seed"),
        (["--adversarial.volume_lr", "0.5"], "volume_lr"),
        (["--sym", "C2"], "symmetry"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(extra, name, finished, dataset, capsys):
    before = contents(finished)
    sentence = refusal(capsys, [*command(dataset, finished), *extra])
    assert "already holds another run" in sentence
    assert name in sentence
    assert contents(finished) == before


def test_another_star_file_in_the_same_folder_is_refused(finished, dataset, tmp_path, capsys):
    other = tmp_path / "other.star"
    text = (dataset / "particles.star").read_text()
    other.write_text(text.replace("particles.mrcs", str(dataset / "particles.mrcs")))
    before = contents(finished)
    arguments = command(dataset, finished)
    arguments[1] = str(other)
    assert "already holds another run (star" in refusal(capsys, arguments)
    assert contents(finished) == before


def test_a_folder_of_something_else_is_refused(dataset, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    before = contents(tmp_path)
    assert "is not empty" in refusal(capsys, command(dataset, tmp_path))
    assert contents(tmp_path) == before


def test_a_folder_that_cannot_be_made_is_refused(dataset, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("not a folder")
    for output in (file / "run", file):
        assert str(output) in refusal(capsys, command(dataset, output))
    assert file.read_text() == "not a folder"


def write_lines(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def test_wrong_options_are_refused_before_anything_is_written(dataset, tmp_path, capsys):
    patches = tmp_path / "patches.mrcs"
    write_stack(patches, torch.randn(5, 20, 20), PIXEL_SIZE_A)
    table = np.array(["a", "b"])
    np.save(tmp_path / "names.npy", table)
    output = tmp_path / "run"
    for extra, words in (
        (["--sym", "Q9"], "'Q9'"),
        (["--noise-patches", str(patches)], "box 20"),
        (["--noise-patches", str(tmp_path / "none.mrcs")], "none.mrcs"),
        (["--ind", str(tmp_path / "none.txt")], "none.txt"),
        (["--ind", write_lines(tmp_path / "far.txt", [1, 2, 300])], "row 300"),
        (["--ind", write_lines(tmp_path / "twice.txt", [1, 2, 1])], "row 1 more than once"),
        (["--ind", write_lines(tmp_path / "half.txt", [1, 2.5])], "whole row numbers"),
        (["--ind", str(tmp_path / "names.npy")], "whole row numbers"),
        (["--ind", write_lines(tmp_path / "few.txt", range(10))], "10 particles are fewer"),
        (["--adversarial.batch_size", "0"], "batch_size is 0"),
        (["--adversarial.batch_size", "151"], "fewer than two batches of 151"),
        (["--device", "abacus"], "'abacus'"),
        (["--device", "cuda:99"], "'cuda:99' cannot be used"),
        (["--seed", "-1"], "--seed is -1; give"),
        (["--seed", str(2**64)], f"--seed is {2**64}; give"),
        (["--adversarial.critic_lr", "1e9"], "critic_lr is 1000000000.0; give a learning rate"),
        (["--apix", "-6"], "--apix is -6, but a pixel size lies from 0.1 to 100 Å"),
        (["--apix", "nan"], "--apix is 'nan'; give a number"),
        (["--keep-halves"], "rlnRandomSubset must be 1 or 2 in every row"),
    ):
        assert words in refusal(capsys, [*command(dataset, output), *extra])
        assert not output.exists(), extra


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--adversarial.no_such_setting", "1"], "no option --adversarial.no_such_setting"),
        (["--adversarial.loss", "hinge"], "--adversarial.loss is 'hinge'; give"),
        (["--presett", "a"], "the nearest is --preset"),
    ],
)
def test_settings_that_do_not_exist_are_refused(extra, words, dataset, tmp_path, capsys):
    assert words in refusal(capsys, [*command(dataset, tmp_path / "run"), *extra])
    assert not (tmp_path / "run").exists()


def spoilt(dataset, folder, number):
    """A copy of the data set with one pixel of one image (from 0) not a number."""
    shutil.copytree(dataset, folder)
    with mrcfile.mmap(folder / "particles.mrcs", mode="r+") as file:
        file.data[number, 3, 4] = math.nan
    return folder


def test_an_image_with_a_nan_is_named(dataset, tmp_path, capsys):
    folder = spoilt(dataset, tmp_path / "data", 42)
    sentence = refusal(capsys, command(folder, tmp_path / "run"))
    assert "Image 43 of" in sentence
    assert not (tmp_path / "run").exists()


def test_a_nan_that_only_a_worker_meets_is_named_too(dataset, tmp_path, capsys):
    """Measured noise is read where the training is, in the worker processes."""
    patches = torch.randn(9, BOX, BOX)
    patches[3, 4, 5] = math.inf
    write_stack(tmp_path / "patches.mrcs", patches, PIXEL_SIZE_A)
    extra = ["--noise-patches", str(tmp_path / "patches.mrcs")]
    sentence = refusal(capsys, [*command(dataset, tmp_path / "run"), *extra])
    assert "Image 4 of" in sentence
    assert "patches.mrcs" in sentence
    assert not (tmp_path / "run" / "map.mrc").exists()
    assert not list((tmp_path / "run").glob("half*/result.npz"))


def test_a_yaml_file_an_index_and_measured_noise(dataset, tmp_path):
    """The other ways of saying what is wanted, on 40 of the images."""
    write_stack(tmp_path / "patches.mrcs", torch.randn(30, BOX, BOX), PIXEL_SIZE_A)
    rows = list(range(0, 120, 3))
    index = write_lines(tmp_path / "rows.txt", rows)
    (tmp_path / "run.yaml").write_text(
        f"ind: {index}\n"
        f"noise_patches: {tmp_path / 'patches.mrcs'}\n"
        "seed: 5\n"
        "sym: C2\n"
        "objective: adversarial\n"
        "adversarial:\n"
        "  stages:\n"
        f"    - {{box_size: {BOX}, images: 160}}\n"
        "  batch_size: 4\n"
        "  critic_channels: 2\n"
    )
    folder = tmp_path / "run"
    star = str(dataset / "particles.star")
    options = ["--config", str(tmp_path / "run.yaml"), "--adversarial.batch_size", "8"]
    assert main(["reconstruct", star, "-o", str(folder), *options, "--device", "cpu"]) in ENDED
    config = json.loads((folder / "config.json").read_text())
    assert config["seed"] == 5
    assert config["particles"]["count"] == len(rows)
    assert config["config"]["batch_size"] == 8  # the command line over the file
    assert config["config"]["critic_channels"] == 2
    assert config["config"]["assumptions"]["symmetry"] == "C2"
    assert config["sources"]["symmetry"] == "given"
    with np.load(folder / "half1" / "result.npz") as archive:
        volume = archive["volume"][:, 1:, 1:]  # index 0 has no partner
    np.testing.assert_allclose(volume[:, ::-1, ::-1], volume, atol=1e-4 * np.abs(volume).max())
    assert (folder / "report.html").is_file()


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_printed_settings_can_be_read_again(preset, dataset, tmp_path, capsys):
    star = str(dataset / "particles.star")
    request = ["reconstruct", star, "-o", "run", "--preset", preset, "--print_config"]
    with pytest.raises(SystemExit) as stopped:
        main(request)
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    (tmp_path / "printed.yaml").write_text(printed)
    with pytest.raises(SystemExit):
        main(["reconstruct", "--config", str(tmp_path / "printed.yaml"), "--print_config"])
    assert capsys.readouterr().out == printed
    assert f"penalty_weight: {PRESETS[preset].penalty_weight}\n" in printed
    assert (f"images: {PAPER.stages[0].images}\n" in printed) == (preset == "paper")


def test_evaluating_a_run_adds_the_truth(finished, dataset, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    truth = dataset / "truth" / "map.mrc"
    old_rows = list(csv.DictReader((folder / "fsc.csv").open()))
    for _ in range(2):  # the second time changes nothing
        assert main(["evaluate", str(folder), "--truth", str(truth)]) == 0
        rows = list(csv.DictReader((folder / "fsc.csv").open()))
        assert [r["half_map"] for r in rows] == [r["half_map"] for r in old_rows]
        comparison = compare_to_truth(read_map(folder / "map.mrc"), read_map(truth))
        for name, curve in (("truth", comparison.fsc), ("truth_masked", comparison.fsc_masked)):
            found = [float(row[name]) for row in rows]
            assert found == pytest.approx(curve.tolist(), abs=1e-5)
        resolution = json.loads((folder / "summary.json").read_text())["resolution_A"]
        assert resolution["truth_0.5"] == pytest.approx(comparison.resolution_A(0.5))
        assert resolution["truth_0.143_masked"] == pytest.approx(
            comparison.resolution_A(0.143, masked=True)
        )
        assert "half_map_0.143" in resolution
    aligned = read_map(folder / "truth_aligned.mrc")
    both = torch.stack((aligned.volume.flatten(), read_map(folder / "map.mrc").volume.flatten()))
    assert float(torch.corrcoef(both)[0, 1]) == pytest.approx(comparison.correlation, abs=0.02)
    assert "FSC with truth = 0.5" in capsys.readouterr().out


def test_evaluating_a_map_writes_a_table_and_a_picture(finished, dataset, tmp_path):
    table = tmp_path / "curve.csv"
    before = contents(finished)
    truth = str(dataset / "truth" / "map.mrc")
    assert main(["evaluate", str(finished / "map.mrc"), "--truth", truth, "-o", str(table)]) == 0
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == BOX // 2 + 1
    assert {"truth", "truth_masked"} <= rows[0].keys()
    assert table.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert contents(finished) == before


def test_what_cannot_be_evaluated_is_refused(finished, dataset, tmp_path, capsys):
    truth = str(dataset / "truth" / "map.mrc")
    map_ = str(finished / "map.mrc")
    (tmp_path / "begun").mkdir()
    shutil.copy(map_, tmp_path / "begun" / "map.mrc")
    for arguments, words in (
        ([map_, "--truth", str(tmp_path / "none.mrc")], "none.mrc"),
        ([str(tmp_path / "none.mrc"), "--truth", truth], "none.mrc"),
        ([str(tmp_path / "begun"), "--truth", truth], "no finished run"),
        ([map_, "--truth", truth, "-o", str(tmp_path / "none" / "fsc.csv")], "does not exist"),
    ):
        assert words in refusal(capsys, ["evaluate", *arguments])
        assert capsys.readouterr().out == ""  # before any long work
