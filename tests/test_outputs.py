"""No output is an input, and nothing that somebody else has written is replaced unasked."""

import os
from pathlib import Path

import pytest
import torch

import cryogan as cg
from cryogan.cli import main
from cryogan.files import atomic_path
from cryogan.io.mrc import write_map, write_stack
from cryogan.phantom import phantom_map
from cryogan.simulation.in_memory import write_dataset
from simulated_sets import centred_particles

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A map, its truth, particles, a link to their stack, a run of sorts, and a user's files."""
    monkeypatch.chdir(tmp_path)
    volume = phantom_map(16, 12.0)
    generator = torch.Generator().manual_seed(1)
    write_dataset(tmp_path, centred_particles(volume, 12.0, 20, 5.0, generator), volume)
    for name in ("map.mrc", "truth.mrc"):
        write_map(tmp_path / name, volume, 12.0)
    write_stack(tmp_path / "patches.mrcs", torch.randn(9, 16, 16), 12.0)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    for name in ("half1.mrc", "half2.mrc", "map.mrc"):
        write_map(tmp_path / "run" / name, volume, 12.0)
    (tmp_path / "run" / "conformations").mkdir()
    write_map(tmp_path / "run" / "conformations" / "vol_000.mrc", volume, 12.0)
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "latents.csv").write_text("z0\n0.5\n")
    others = (tmp_path / "particles.star").read_text().replace("particles.mrcs", "cryogan/p.mrcs")
    (tmp_path / "others.star").write_text(others)
    (tmp_path / "linked.csv").symlink_to(tmp_path / "truth.mrc")
    for suffix in ("csv", "png", "html", "json", "star", "cs", "mrc"):
        (tmp_path / f"mine.{suffix}").write_text("years of work")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("assign particles.star run -o particles.mrcs", "has to end in .star"),
        ("assign particles.star run -o particles.star", "written over particles.star"),
        ("assign particles.star run -o particles.cs", "written over particles.star"),
        ("assign particles.star run -o mine.star", "mine.star is there already"),
        ("evaluate map.mrc --truth truth.mrc -o truth.mrc", "has to end in .csv"),
        ("evaluate map.mrc --truth truth.mrc -o linked.csv", "written over truth.mrc"),
        ("evaluate map.mrc --truth truth.mrc -o mine.csv", "mine.csv is there already"),
        ("evaluate run --truth truth.mrc -o run/fsc.csv", "written over run/fsc.csv"),
        ("symmetry map.mrc -o map.mrc", "written over map.mrc"),
        ("symmetry run -o run/half1.mrc", "written over run/half1.mrc"),
        ("symmetry run -o run/conformations/vol_000.mrc", "written over run/conformations"),
        ("assign particles.star run -o others.star", "others.star is there already"),
        ("volumes run --latents maps/latents.csv -o maps", "maps holds files already"),
        ("symmetry map.mrc -o mine.mrc", "mine.mrc is there already"),
        ("symmetry map.mrc -o mine.csv --overwrite", "has to end in .mrc"),
        ("check particles.star -o particles.mrcs", "has to end in .html"),
        ("check particles.star --json mine.json", "mine.json is there already"),
        ("check particles.star -o mine.html", "mine.html is there already"),
        ("report run run -o mine.html", "mine.html is there already"),
        ("select particles.star -o mine.star", "exists and is not overwritten"),
    ],
)
def test_what_is_not_written_over(
    command: str, words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "run" / "fsc.csv").write_text("shell,spatial_frequency_per_A,resolution_A\n")
    before = contents(folder)
    assert main(command.split()) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert contents(folder) == before


def test_what_cryogan_has_written_is_replaced_and_else_by_overwrite(folder: Path) -> None:
    os.chdir(folder)
    evaluate = "evaluate map.mrc --truth truth.mrc -o"
    for _ in range(2):
        assert main([*evaluate.split(), "curve.csv"]) == 0
    (folder / "curve.png").write_text("a picture of the user's")
    assert main([*evaluate.split(), "curve.csv"]) == 2
    assert main([*evaluate.split(), "curve.csv", "--overwrite"]) == 0
    for _ in range(2):
        assert main(["symmetry", "map.mrc", "-o", "turned.mrc"]) == 0
    assert main(["symmetry", "map.mrc", "-o", "mine.mrc", "--overwrite"]) == 0
    assert cg.read_map(folder / "mine.mrc").volume.shape == (16, 16, 16)


@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("evaluate map.mrc --truth truth.mrc -o fsc.csv", "."),
        ("symmetry map.mrc -o symmetry.mrc", "."),
        ("downsample particles.star -o smaller --box 16", "smaller"),
    ],
)
def test_what_a_killed_command_has_left_is_removed(folder: Path, command: str, place: str) -> None:
    """A file that another process still writes is not: it is locked."""
    (folder / place).mkdir(exist_ok=True)
    left = folder / place / ".cryogan-0badcafe.tmp.mrcs"
    left.write_bytes(b"half a file")
    with atomic_path(folder / place / "written.csv") as in_use:
        assert main(command.split()) == 0
        assert not left.exists()
        assert in_use.exists()
