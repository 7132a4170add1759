"""`cryogan demo`: its two sets, the error of poses, and all of it on sets that take seconds."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import roma
import torch

import cryogan as cg
from cryogan.api import demonstration
from cryogan.api.demonstration import errors_of_poses_deg, simulate_demo
from cryogan.cli import demo, main
from cryogan.evaluation.alignment import Alignment
from cryogan.io.relion_poses import read_poses
from cryogan.objectives.adversarial.config import Stage
from cryogan.particles import Pose
from cryogan.symmetry import symmetry_matrices

COUNT = 220


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sets with few images of 16 px."""
    box = {"box_size": 16, "pixel_size_A": 12.0, "images": COUNT, "noise": {"snr_dB": 3.0}}
    monkeypatch.setattr(demonstration, "STILL", box)
    monkeypatch.setattr(demonstration, "MOVING", demonstration.MOVING | box)


@pytest.mark.usefixtures("small")
def test_sets_are_made_once_and_the_truth_lies_beside_them(tmp_path: Path) -> None:
    still, moving = simulate_demo(tmp_path, 3)
    assert (len(still), len(moving)) == (COUNT, COUNT)
    assert len(list((tmp_path / "moving" / "truth").glob("map_*.mrc"))) == 5
    stamp = (tmp_path / "still" / "particles.mrcs").stat().st_mtime_ns
    simulate_demo(tmp_path, 3)
    assert (tmp_path / "still" / "particles.mrcs").stat().st_mtime_ns == stamp
    with pytest.raises(cg.InputError):
        simulate_demo(tmp_path, 4)


@pytest.mark.usefixtures("small")
def test_errors_of_poses_are_what_they_were_turned_by(tmp_path: Path) -> None:
    """Modulo D2, in the frame of a map that is turned, for the particles that were kept."""
    simulate_demo(tmp_path, 0)
    truth = tmp_path / "still" / "truth"
    kept = torch.arange(5, COUNT)
    true = read_poses(truth / "poses.star").rotation[kept].double()
    copies = symmetry_matrices("D2").double()[torch.arange(len(true)) % 4] @ true
    frame, off = (
        roma.rotvec_to_rotmat(torch.deg2rad(torch.tensor(v, dtype=torch.float64)))
        for v in ([20.0, -30.0, 40.0], [0.0, 7.0, 0.0])
    )
    poses: Any = SimpleNamespace(
        pose=Pose((frame.T @ copies @ off).float(), torch.zeros(len(true), 2)),
        kept=kept,
        symmetry="D2",
    )
    moved = Alignment(frame.float(), torch.zeros(3), False, 1.0)
    error = errors_of_poses_deg(poses, moved, truth)
    torch.testing.assert_close(error, torch.full_like(error, 7.0), atol=0.01, rtol=0)
    wrong = errors_of_poses_deg(poses, Alignment.identity(), truth)
    assert float(wrong.median()) > 20.0


@pytest.mark.slow
@pytest.mark.usefixtures("small", "one_thread_everywhere")
def test_the_demo_shows_map_poses_motion_and_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = {"initialisations": 1, "initial_attempts": 1, "initial_rings": (4, 5)}
    quick |= {"initial_batches": 2, "initial_batch_size": 100, "iterations": 1}
    quick |= {"conformation_batches": 2, "conformation_batch_size": 60}
    monkeypatch.setattr(demo, "LIKELIHOOD", quick)
    monkeypatch.setattr(
        demo, "ADVERSARIAL", {"stages": (Stage(16, 640),), "batch_size": 16, "templates": 4}
    )
    assert main(["demo", "-o", str(tmp_path / "demo"), "--seed", "1"]) == 0
    written = capsys.readouterr().out
    table = written[written.rindex("\nsimulation ") :]
    rows = dict(re.findall(r"^(\w[\w ]*?) +(\d+) s", table, re.MULTILINE))
    assert list(rows) == [
        "simulation",
        "likelihood",
        "poses",
        "conformations",
        "adversarial training",
        "total",
    ]
    assert re.search(r"poses .*error: median [\d.]+°, 90 % below [\d.]+°", written)
    assert re.search(r"conformations .*path of \d+ maps", written)
    reports = [Path(line) for line in re.findall(r"^report: (.+)$", written, re.MULTILINE)]
    assert [page.parent.name for page in reports] == ["run", "path", "adversarial"]
    assert all(page.is_file() for page in reports)
    assert (tmp_path / "demo" / "poses.star").is_file()
    objectives = [cg.read_run(page.parent).objective for page in reports]
    assert objectives == ["likelihood", "likelihood", "adversarial"]
