"""`cryogan relion`, as RELION's pipeline runs it, and what RELION goes on with."""

import errno
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from cryogan.cli import main
from cryogan.io.mrc import read_map, write_map
from cryogan.io.star import read_star
from cryogan.phantom import phantom_map
from cryogan.simulation.in_memory import write_dataset
from relion_programs import relion
from simulated_sets import centred_particles

BOX, PIXEL_SIZE_A, COUNT = 16, 12.0, 300
SHORT = (
    "--max-shift 0 --likelihood.initialisations 1 --likelihood.initial_attempts 1 "
    "--likelihood.initial_rings [5,5] --likelihood.initial_batches 1 "
    "--likelihood.initial_batch_size 60 --likelihood.iterations 2 --device cpu"
)
EMPTY_PIPELINE = """
# version 30001

data_pipeline_general

_rlnPipeLineJobCounter                       1
"""
OF_RELION_5 = {
    "run_data.star": "ParticleGroupMetadata.star.relion",
    "run_class001.mrc": "DensityMap.mrc",
    "run_half1_class001_unfil.mrc": "DensityMap.mrc.halfmap",
    "mask.mrc": "Mask3D.mrc",
    "run_locres.mrc": "Image3D.mrc.localresmap",
}
"""As src/pipeline_jobs.h of RELION 5 has them."""

OF_RELION_3 = {
    "run_data.star": "3",
    "run_class001.mrc": "6",
    "run_half1_class001_unfil.mrc": "10",
    "mask.mrc": "7",
    "run_locres.mrc": "12",
}
"""As src/pipeline_jobs.h of RELION 3.1 has them."""

JOB = Path("External/job001")


def markers(folder: Path) -> set[str]:
    return {path.name.removeprefix("RELION_JOB_") for path in folder.glob("RELION_JOB_*")}


def columns(star: Path, block: str) -> dict[str, tuple[str, ...]]:
    return dict(next(table.columns for table in read_star(star) if table.name == block))


# In a project of RELION 3.1


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, one_thread_everywhere: None) -> Path:
    """A project whose External job relion_pipeliner has run."""
    folder = tmp_path_factory.mktemp("project")
    generator = torch.Generator().manual_seed(7)
    volume = phantom_map(BOX, PIXEL_SIZE_A)
    simulated = centred_particles(volume, PIXEL_SIZE_A, COUNT, 3.0, generator)
    write_dataset(folder, simulated, volume)
    (folder / "default_pipeline.star").write_text(EMPTY_PIPELINE)
    program = folder / "cryogan"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m cryogan "$@"\n')
    program.chmod(0o755)
    options = (
        f"fn_exe == {program} relion;in_part == particles.star;do_queue == No;nr_threads == 1;"
        f"param1_label == seed;param1_value == 3;other_args == {SHORT}"
    )
    relion(*("relion_pipeliner", "--addJob", "External", "--addJobOptions", options), folder=folder)
    arguments = ("--RunJobs", f"{JOB}/", "--sec_wait_after", 0)
    relion("relion_pipeliner", *arguments, folder=folder)
    return folder


@pytest.mark.slow
def test_the_pipeline_has_the_outputs(project: Path) -> None:
    folder = project / JOB
    assert markers(folder) == {"EXIT_SUCCESS"}
    pipeline = project / "default_pipeline.star"
    assert columns(pipeline, "pipeline_processes")["rlnPipeLineProcessStatus"] == ("2",)
    nodes = columns(pipeline, "pipeline_nodes")
    found = dict(zip(nodes["rlnPipeLineNodeName"], nodes["rlnPipeLineNodeType"], strict=True))
    assert found == {"particles.star": "3"} | {f"{JOB}/{n}": k for n, k in OF_RELION_3.items()}
    written = columns(folder / "RELION_OUTPUT_NODES.star", "output_nodes")
    assert written["rlnPipeLineNodeTypeLabel"] == tuple(OF_RELION_5.values())
    assert "success: " in (folder / "note.txt").read_text()
    assert (folder / "run.err").read_text() == ""
    for ours, theirs in (("map", "class001"), ("half2", "half2_class001_unfil")):
        first, second = (folder / name for name in (f"cryogan/{ours}.mrc", f"run_{theirs}.mrc"))
        assert first.read_bytes() == second.read_bytes()
    settings = json.loads((folder / "cryogan" / "config.json").read_text())
    assert settings["objective"] == "likelihood"
    assert settings["seed"] == 3


@pytest.mark.slow
def test_the_particles_keep_their_optics(project: Path) -> None:
    source, poses = project / "particles.star", project / JOB / "run_data.star"
    assert columns(poses, "optics") == columns(source, "optics")
    before, after = (columns(star, "particles") for star in (source, poses))
    for label in ("rlnImageName", "rlnOpticsGroup", "rlnDefocusU"):
        assert after[label] == before[label]
    assert set(after["rlnRandomSubset"]) == {"1", "2"}


@pytest.mark.slow
def test_relion_goes_on_from_the_job(project: Path) -> None:
    """The jobs that follow, with the files as they are."""
    (project / "PostProcess").mkdir()
    (project / "Refine3D").mkdir()
    half_map, mask = f"{JOB}/run_half1_class001_unfil.mrc", f"{JOB}/mask.mrc"
    said = relion(
        *("relion_postprocess", "--i", half_map, "--mask", mask, "--o", "PostProcess/post"),
        folder=project,
    )
    assert 2 * PIXEL_SIZE_A <= float(said.split("FINAL RESOLUTION:")[1].split()[0]) < 60.0
    relion(
        *("relion_refine", "--i", f"{JOB}/run_data.star", "--ref", f"{JOB}/run_class001.mrc"),
        *("--o", "Refine3D/run", "--solvent_mask", mask, "--iter", 1, "--tau2_fudge", 1),
        *("--ctf", "--ctf_corrected_ref", "--firstiter_cc", "--sym", "C1", "--flatten_solvent"),
        *("--particle_diameter", 160, "--zero_mask", "--norm", "--scale", "--healpix_order", 2),
        *("--sigma_ang", 5, "--offset_range", 0, "--offset_step", 1, "--oversampling", 0),
        *("--pad", 1, "--ini_high", 30, "--dont_check_norm"),
        folder=project,
    )
    volume = read_map(project / "Refine3D/run_it001_class001.mrc").volume
    assert bool(volume.isfinite().all())
    assert float(volume.std()) > 0
    assert len(columns(project / "Refine3D/run_it001_data.star", "particles")) > 10


# Markers, arguments and refusals


Calls = dict[str, list[str]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Calls:
    """What `reconstruct` and `assign`, which are replaced, are given; "code" is that of the first.

    In a project's folder with a job's folder and a particle file.
    """
    monkeypatch.chdir(tmp_path)
    JOB.mkdir(parents=True)
    Path("particles.star").write_text("data_\n")
    given: Calls = {"code": ["0"], "sign": ["1"]}

    def reconstruct(arguments: list[str]) -> int:
        given["reconstruct"] = arguments
        run = Path(arguments[2])
        run.mkdir(exist_ok=True)
        (run / "config.json").write_text("{}")
        for name in ("map", "half1", "half2", "mask"):
            write_map(run / f"{name}.mrc", torch.rand(8, 8, 8), 2.0)
        one = np.array([0])
        np.savez(
            run / "half_sets.npz",
            stacks=np.array(["a"]),
            stack=one,
            number=one,
            half=one + 1,
            sign=one + float(given["sign"][0]),
        )
        return int(given["code"][0])

    def assign(arguments: list[str]) -> int:
        given["assign"] = arguments
        Path(arguments[arguments.index("-o") + 1]).write_text("data_\n_cryogan\n")
        return 0

    monkeypatch.setattr("cryogan.cli.reconstruct.run", reconstruct)
    monkeypatch.setattr("cryogan.cli.assign.run", assign)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return given


def relion_job(*more: str) -> int:
    return main(["relion", "--o", f"{JOB}/", "--in_parts", "particles.star", *more])


def test_arguments_are_passed_on(calls: Calls) -> None:
    Path("mask.mrc").touch()
    Path("chosen.txt").touch()
    words = [
        "--in_mask",
        "mask.mrc",
        "--sym",
        "D2",
        "--keep-halves",
        "--ind",
        "chosen.txt",
        "--first",
        "50",
        "--j",
        "3",
    ]
    assert relion_job(*words, "--pipeline_control", "External/job001/") == 0
    assert calls["reconstruct"] == [
        *("particles.star", "-o", "External/job001/cryogan", "--mask", "mask.mrc", "--sym", "D2"),
        *("--keep-halves", "--ind", "chosen.txt", "--first", "50"),
    ]
    assert calls["assign"] == [
        *("particles.star", "External/job001/cryogan", "-o", "External/job001/run_data.star"),
        *("--ind", "chosen.txt", "--first", "50"),
    ]
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert markers(JOB) == {"EXIT_SUCCESS"}


def test_the_objective_can_be_chosen(calls: Calls) -> None:
    assert relion_job("--objective", "adversarial") == 0
    assert calls["reconstruct"][-2:] == ["--objective", "adversarial"]
    assert "likelihood" not in calls["reconstruct"]


def test_poses_alone_with_a_reference(calls: Calls) -> None:
    Path("ref.mrc").touch()
    assert relion_job("--in_3dref", "ref.mrc", "--sym", "C4") == 0
    assert "reconstruct" not in calls
    assert calls["assign"] == [
        *("particles.star", "--reference", "ref.mrc", "-o", "External/job001/run_data.star"),
        *("--sym", "C4"),
    ]
    nodes = columns(JOB / "RELION_OUTPUT_NODES.star", "output_nodes")
    assert nodes["rlnPipeLineNodeName"] == ("External/job001/run_data.star",)


@pytest.mark.parametrize(
    ("code", "marker", "exit_code", "words"),
    [
        (0, "SUCCESS", 0, "too few particles for a verdict"),
        (3, "SUCCESS", 0, "doubtful"),
        (4, "FAILURE", 4, "no structure"),
        (143, "ABORTED", 143, "continue the job"),
    ],
)
def test_the_verdict_decides(
    code: int,
    marker: str,
    exit_code: int,
    words: str,
    calls: Calls,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What there is of no structure is written, without poses and without nodes."""
    for stale in ("SUCCESS", "FAILURE", "ABORTED"):
        (JOB / f"RELION_JOB_EXIT_{stale}").touch()
    (JOB / "RELION_OUTPUT_NODES.star").touch()
    (JOB / "note.txt").write_text("before\n")
    calls["code"] = [str(code)]
    assert relion_job() == exit_code
    assert markers(JOB) == {f"EXIT_{marker}"}
    assert (JOB / "RELION_OUTPUT_NODES.star").exists() == (marker == "SUCCESS")
    assert (JOB / "run_class001.mrc").exists() == (code != 143)
    assert ("assign" in calls) == (marker == "SUCCESS")
    note = (JOB / "note.txt").read_text()
    assert note.startswith("before\n")
    assert words in note
    assert words in capsys.readouterr().out


def test_dark_images_are_told(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    calls["sign"] = ["-1"]
    assert relion_job() == 0
    assert "RELION takes bright ones" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--in_parts", "none.star"), "There is no file none.star"),
        (("--in_mics", "m.star"), "particles, not --in_mics"),
        (("--sim", "D2"), "no option --sim"),
        (("-o", "elsewhere"), "leave it out"),
        (("--j", "0"), "1 or more threads"),
        (("--j", "many"), "1 or more threads"),
        (("--in_mask", "none.mrc"), "There is no file none.mrc"),
        (("--in_3dref", "particles.star", "--in_mask", "particles.star"), "need no mask"),
    ],
)
def test_wrong_input_is_a_failure(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str], calls: Calls
) -> None:
    """One sentence in run.err, and the marker without which RELION would wait for ever."""
    assert relion_job(*words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert markers(JOB) == {"EXIT_FAILURE"}
    assert "failure: " in (JOB / "note.txt").read_text()


def test_any_error_is_a_failure(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(arguments: list[str]) -> int:
        raise RuntimeError("a bug")

    monkeypatch.setattr("cryogan.cli.reconstruct.run", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        relion_job()
    assert markers(JOB) == {"EXIT_FAILURE"}


def test_a_full_disk_at_the_end_is_a_failure(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the job's nodes or its warnings cannot be written."""

    def full(folder: Path, nodes: object) -> None:
        (folder / "RELION_OUTPUT_NODES.star").write_text("half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("cryogan.io.relion_jobs.write_nodes", full)
    assert relion_job() == 5
    assert "No space left" in capsys.readouterr().err
    assert markers(JOB) == {"EXIT_FAILURE"}
    assert not (JOB / "RELION_OUTPUT_NODES.star").exists()
    assert not (JOB / "run_data.star").exists()


def test_the_marker_does_not_hang_on_the_note(calls: Calls) -> None:
    (JOB / "note.txt").mkdir()
    assert relion_job() == 0
    assert markers(JOB) == {"EXIT_SUCCESS"}


@pytest.mark.parametrize("ending", ["no structure", "an error"])
def test_poses_of_an_earlier_success_go_with_a_failure(
    ending: str, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(arguments: list[str]) -> int:
        if ending == "an error":
            raise OSError(errno.EIO, "Input/output error")
        return 4

    def assign(arguments: list[str]) -> int:
        star = Path(arguments[arguments.index("-o") + 1])
        star.write_text("data_\n_cryogan\n")
        star.with_suffix(".cs").write_bytes(b"records")
        star.with_suffix(".csg").write_text("created by cryogan")
        return 0

    monkeypatch.setattr("cryogan.cli.assign.run", assign)
    assert relion_job() == 0
    poses = sorted(JOB.glob("run_data.*"))
    assert [path.suffix for path in poses] == [".cs", ".csg", ".star"]
    assert relion_job("--sim", "D2") == 2  # refused before anything is done
    assert sorted(JOB.glob("run_data.*")) == poses
    monkeypatch.setattr("cryogan.cli.reconstruct.run", ended)
    assert relion_job() == (4 if ending == "no structure" else 5)
    assert markers(JOB) == {"EXIT_FAILURE"}
    assert list(JOB.glob("run_data.*")) == []


def test_poses_of_other_programs_stay(calls: Calls) -> None:
    (JOB / "run_data.star").write_text("data_particles\n")
    calls["code"] = ["4"]
    assert relion_job("--overwrite") == 4
    assert (JOB / "run_data.star").read_text() == "data_particles\n"


@pytest.mark.parametrize("name", ["job.star", "run.job"])
def test_refusals_are_marked_in_jobs_that_relion_waits_for(name: str, calls: Calls) -> None:
    assert main(["relion", "--o", f"{JOB}/"]) == 2
    assert markers(JOB) == set()
    (JOB / name).touch()
    (JOB / "run_data.star").write_text("data_particles\n")
    for arguments in (["--o", f"{JOB}/"], [f"--o={JOB}", "--in_parts", "particles.star"]):
        assert main(["relion", *arguments]) == 2
        assert markers(JOB) == {"EXIT_FAILURE"}
        assert "failure: " in (JOB / "note.txt").read_text()
        (JOB / "RELION_JOB_EXIT_FAILURE").unlink()
    (JOB / "RELION_JOB_EXIT_SUCCESS").touch()  # of another program: left alone
    assert relion_job() == 2
    assert markers(JOB) == {"EXIT_SUCCESS"}


def test_a_request_to_abort_is_answered(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """RELION_JOB_ABORT_NOW stops the run as SIGTERM does, and goes."""

    def endless(arguments: list[str]) -> int:
        (JOB / "RELION_JOB_ABORT_NOW").touch()
        time.sleep(60)
        return 0

    monkeypatch.setattr("cryogan.cli.reconstruct.run", endless)
    monkeypatch.setattr("cryogan.cli.relion.ABORT_EVERY_S", 0.02)
    assert relion_job() == 143
    assert markers(JOB) == {"EXIT_ABORTED"}
    assert "aborted" in (JOB / "note.txt").read_text()


def test_an_interrupted_job_of_poses_promises_no_run(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("ref.mrc").touch()
    monkeypatch.setattr("cryogan.cli.assign.run", lambda arguments: 143)
    assert relion_job("--in_3dref", "ref.mrc") == 143
    assert "all poses are assigned anew" in (JOB / "note.txt").read_text()


def test_jobs_of_other_programs_are_left_alone(
    calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    (JOB / "run_data.star").write_text("data_particles\n")
    (JOB / "RELION_JOB_EXIT_SUCCESS").touch()
    before = {path.name: path.read_bytes() for path in JOB.iterdir()}
    assert relion_job() == 2
    assert "run_data.star is there already" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in JOB.iterdir()} == before
    assert relion_job("--overwrite") == 0
    assert "--overwrite" in calls["assign"]


def test_the_input_may_not_be_the_output(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    star = JOB / "run_data.star"
    star.write_text("data_\n_cryogan\n")
    assert main(["relion", "--o", str(JOB), "--in_parts", str(star)]) == 2
    assert "which is read" in capsys.readouterr().err
    assert star.read_text() == "data_\n_cryogan\n"


def test_without_a_folder_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["relion", "--o", "External/job009/", "--in_parts", "none.star"]) == 2
    assert main(["relion", "--in_parts", "none.star"]) == 2
    assert list(tmp_path.iterdir()) == []
