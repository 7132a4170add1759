"""The notebooks in docs/notebooks run from the first cell to the last, and show what they say."""

import os
import runpy
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.py"))

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def run(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """The names that the notebook leaves; temporary folders are inside tmp_path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    return runpy.run_path(str(FOLDER / f"{name}.py"), run_name="notebook")


def test_all_are_tested_and_listed() -> None:
    names = ["conformations", "own_critic", "particles_to_map", "simulator"]
    assert [path.stem for path in NOTEBOOKS] == names
    page = (FOLDER.parent / "notebooks.md").read_text()
    for path in NOTEBOOKS:
        assert f"`{path.name}`" in page
        assert path.read_text().startswith("# %% [markdown]\n# # ")


def test_shifts_and_defocus_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = run("simulator", monkeypatch, tmp_path)
    assert found["shift_error_A"] < 0.5
    assert found["defocus_error_A"] < 400
    assert found["correlation"] > 0.3


def test_a_critic_tells_a_wrong_map(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = run("own_critic", monkeypatch, tmp_path)
    assert abs(found["share_right"] - 0.5) < 0.08
    assert found["share_wrong"] > 0.6


def test_particles_become_a_map(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = run("particles_to_map", monkeypatch, tmp_path)
    assert found["resolution_A"] < 40.0
    assert (found["folder"] / "poses.star").is_file()
    assert (found["folder"] / "run" / "map.mrc").is_file()
    assert found["page"].is_file()


def test_a_motion_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = run("conformations", monkeypatch, tmp_path)
    assert found["rho"] > 0.6
    assert found["change"] > 0.1
