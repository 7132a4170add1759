"""What `refine` and `assign` know of the particles of a run: how they were read."""

import json
from pathlib import Path

import pytest
import torch

import cryogan as cg
from cryogan.cli import main
from cryogan.io.mrc import StackWriter
from simulated_sets import centred_particles

BOX, PIXEL_SIZE_A, N = 16, 12.0, 220
CTF_COLUMNS = (
    *("defocus_u_A", "defocus_v_A", "defocus_angle_deg", "voltage_kV"),
    *("spherical_aberration_mm", "amplitude_contrast"),
)
QUICK = {"iterations": 2, "initial_batches": 1, "initial_batch_size": 50, "subset_size": 100}
OBJECTIVE = ["--objective", "simple_objective:Together", "--device", "cpu"]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread_everywhere", "one_thread")]


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of a stack that lies in another folder, without pixel size, and its CTFs."""
    folder = tmp_path_factory.mktemp("set")
    generator = torch.Generator().manual_seed(3)
    volume = cg.phantom_map(BOX, PIXEL_SIZE_A)
    made = centred_particles(volume, PIXEL_SIZE_A, N, 5.0, generator).particles
    (folder / "images").mkdir()
    with StackWriter(folder / "images" / "a.mrcs", N, BOX, PIXEL_SIZE_A) as writer:
        writer.append(made.stack.read(torch.arange(N)))
    columns = [getattr(made.ctf, name).tolist() for name in CTF_COLUMNS]
    rows = [",".join(map(str, row)) for row in zip(*columns, strict=True)]
    (folder / "ctf.csv").write_text("\n".join([",".join(CTF_COLUMNS), *rows]))
    (folder / "list.txt").write_text("a.mrcs\n")
    return folder / "list.txt"


def test_a_run_remembers_how_its_particles_were_read(
    listed: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, run = listed.parent, str(tmp_path / "run")
    monkeypatch.chdir(folder)
    reading = [
        "--datadir",
        "images",
        "--ctf-table",
        "ctf.csv",
        "--apix",
        "11.5",
        "--sign",
        "bright",
    ]
    assert main(["reconstruct", "list.txt", "-o", run, *OBJECTIVE, *reading]) == 0
    about = json.loads((tmp_path / "run" / "config.json").read_text())["particles"]
    assert about["reading"] == {
        "datadir": str(folder / "images"),
        "ctf_table": str(folder / "ctf.csv"),
        "pixel_size_A": 11.5,
        "sign": "bright",
    }

    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assigning = ["assign", str(listed), run, "--device", "cpu"]
    assert main([*assigning, "-o", "poses.star"]) == 0
    printed = capsys.readouterr().out
    assert "pixel size 11.5 Å" in printed
    assert "sign bright" in printed
    assert "own half-set" in printed
    assert main([*assigning, "-o", "other.star", "--sign", "dark", "--no-ctf"]) == 0
    printed = capsys.readouterr().out  # what is given wins
    assert "sign dark" in printed
    assert "no CTF" in printed
    settings = [
        "--diameter=147",
        *(f"--likelihood.{name}={value}" for name, value in QUICK.items()),
    ]
    assert main(["refine", run, "--device", "cpu", *settings]) == 0
    assert "pixel size 11.5 Å" in capsys.readouterr().out
    refined = json.loads((tmp_path / "run" / "refine" / "config.json").read_text())
    assert refined["particles"]["reading"] == about["reading"]
    assert cg.refine(run, diameter_A=147.0, settings=QUICK, device="cpu").finished  # resumes that

    again = ["reconstruct", str(listed), "-o", run, *OBJECTIVE]
    others = ["--datadir", str(folder / "images"), "--apix", "11.5", "--sign", "bright", "--no-ctf"]
    assert main([*again, *others]) == 2
    assert "another run (no_ctf differs)" in capsys.readouterr().err
