"""What `refine` and `assign` know of the particles of a run: how they were read."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import cryogan as cg
from cryogan.cli import main
from cryogan.cli.exit_codes import ENDED
from cryogan.io.mrc import MrcStack, StackWriter, write_map, write_stack
from cryogan.io.relion_poses import read_poses
from cryogan.io.relion_writing import write_particles
from cryogan.io.star import read_star
from cryogan.particles import CTFParams
from cryogan.physics.imaging import rescale_volume
from cryogan.physics.rotations import angle_between
from cryogan.simulation.in_memory import write_dataset
from simulated_sets import centred_particles

BOX, PIXEL_SIZE_A, N = 16, 12.0, 220
CTF_COLUMNS = (
    *("defocus_u_A", "defocus_v_A", "defocus_angle_deg", "voltage_kV"),
    *("spherical_aberration_mm", "amplitude_contrast"),
)
QUICK = {"iterations": 2, "initial_batches": 1, "initial_batch_size": 50, "subset_size": 100}
Rows = dict[str, dict[str, str]]
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
    assert main(["reconstruct", "list.txt", "-o", run, *OBJECTIVE, *reading]) in ENDED
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
    assert main(["refine", run, "--device", "cpu", *settings]) in ENDED
    assert "pixel size 11.5 Å" in capsys.readouterr().out
    refined = json.loads((tmp_path / "run" / "refine" / "config.json").read_text())
    assert refined["particles"]["reading"] == about["reading"]
    assert cg.refine(run, diameter_A=147.0, settings=QUICK, device="cpu").finished  # resumes that

    again = ["reconstruct", str(listed), "-o", run, *OBJECTIVE]
    others = ["--datadir", str(folder / "images"), "--apix", "11.5", "--sign", "bright", "--no-ctf"]
    assert main([*again, *others]) == 2
    assert "another run (no_ctf differs)" in capsys.readouterr().err


def rows_of(star: Path) -> Rows:
    """Image number -> columns of the particles' table."""
    table = next(table for table in read_star(star) if "rlnImageName" in table)
    rows = zip(*table.columns.values(), strict=True)
    named = [dict(zip(table.columns, row, strict=True)) for row in rows]
    return {row["rlnImageName"].partition("@")[0]: row for row in named}


def difference(found: Rows, expected: Rows) -> float:
    """Median difference of log-likelihoods of the particles in both, relative to their median."""
    label = "rlnLogLikeliContribution"
    pairs = [
        (float(row[label]), float(expected[name][label]))
        for name, row in found.items()
        if name in expected
    ]
    one, other = np.array(pairs).T
    return float(np.median(np.abs(one - other)) / np.median(np.abs(other)))


@pytest.fixture(scope="module")
def assigned(listed: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run made from all but 20 particles of a star file, and the poses of all of them."""
    folder = tmp_path_factory.mktemp("assigned")
    star, table, run = folder / "set.star", listed.parent / "ctf.csv", folder / "run"
    images = str(listed.parent / "images")
    particles = cg.read_particles(listed, ctf_table=table, datadir=images)
    write_particles(
        star,
        image_names=str(listed.parent / "images" / "a.mrcs"),
        ctf=particles.ctf,
        pixel_size_A=PIXEL_SIZE_A,
        box_size=BOX,
    )
    np.savetxt(folder / "most.txt", np.arange(20, N), fmt="%d")
    chosen = ["--ind", str(folder / "most.txt")]
    assert main(["reconstruct", str(star), "-o", str(run), *OBJECTIVE, *chosen]) in ENDED
    assigning = ["assign", str(star), str(run), "--device", "cpu", *chosen]
    assert main([*assigning, "-o", str(folder / "poses.star")]) == 0
    return run, folder / "poses.star"


def test_a_part_of_a_run_keeps_its_half_sets(
    assigned: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Chosen by half-set and sorted anew, particles get the map of their own half-set."""
    run, poses = assigned
    expected = rows_of(poses)
    assert len(expected) == N - 20
    one = tmp_path / "one.star"
    assert main(["select", str(poses), "-o", str(one), "--half", "1"]) == 0
    np.savetxt(tmp_path / "some.txt", [70, 3, 51, 50, 8, 9], fmt="%d")
    for ind in ([], ["--ind", str(tmp_path / "some.txt")]):
        capsys.readouterr()
        arguments = ["assign", str(one), str(run), "--device", "cpu", *ind]
        assert main([*arguments, "-o", str(tmp_path / "again.star")]) == 0
        assert "each particle against the map of its own half-set" in capsys.readouterr().out
        found = rows_of(tmp_path / "again.star")
        assert {row["rlnRandomSubset"] for row in found.values()} == {"1"}
        if not ind:  # else scales and noise are measured on few images
            assert difference(found, expected) < 0.05


def test_particles_in_no_half_set_get_the_map_of_all(
    assigned: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, poses = assigned
    everything = str(poses.parent / "set.star")
    arguments = ["assign", everything, str(run), "--device", "cpu", "-o", str(tmp_path / "a.star")]
    assert main(arguments) in ENDED
    assert "200 particles against the map of their own half-set; 20" in capsys.readouterr().out
    found, expected = rows_of(tmp_path / "a.star"), rows_of(poses)
    assert len(found) == N
    for name, row in expected.items():
        assert found[name]["rlnRandomSubset"] == row["rlnRandomSubset"]
    assert difference(found, expected) < 0.1
    new = {name: row for name, row in found.items() if name not in expected}
    assert {row["rlnRandomSubset"] for row in new.values()} == {"1", "2"}
    capsys.readouterr()
    assert main([*arguments[:-1], str(tmp_path / "a.txt")]) == 2
    assert "a.txt has to end in .star" in capsys.readouterr().err

    np.savetxt(tmp_path / "new.txt", np.arange(20), fmt="%d")  # alone, they get the same
    others = ["--ind", str(tmp_path / "new.txt"), "-o", str(tmp_path / "b.star")]
    assert main([*arguments[:-2], *others]) in ENDED
    assert "not the particles of the run: all against map.mrc" in capsys.readouterr().out
    assert difference(rows_of(tmp_path / "b.star"), found) < 0.1


def test_a_run_remembers_its_rows(
    assigned: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, poses = assigned
    refine = ["refine", str(run), "-o", str(tmp_path / "refined"), "--device", "cpu"]
    settings = [f"--likelihood.{name}={value}" for name, value in QUICK.items()]
    assert main([*refine, "--diameter=153.6", *settings]) in ENDED
    about = json.loads((tmp_path / "refined" / "config.json").read_text())["particles"]
    assert about["count"] == N - 20
    assert main([*refine[:2], "--first", "200", "--device", "cpu"]) == 2  # others than then
    shutil.copytree(run, tmp_path / "moved")
    about = json.loads((run / "config.json").read_text())
    about["particles"]["star"] = "/no/set.star"
    (tmp_path / "moved" / "config.json").write_text(json.dumps(about))
    assert main(["refine", str(tmp_path / "moved")]) == 2
    assert "/no/set.star, is not there any more; say where" in capsys.readouterr().err
    again = ["-o", str(tmp_path / "refined"), "--device", "cpu", "--diameter=153.6", *settings]
    for other in (poses.parent / "set.star", poses):  # all rows, and those of the run alone
        particles = ["--particles", str(other)]
        code = main([*refine[:2], *particles, *again])
        assert code in (ENDED if other.name == "set.star" else {2})
        said = capsys.readouterr()
        assert "200 particles in" in said.out or "(star differs)" in said.err


@pytest.mark.parametrize("what", ["nothing", "defocus", "order", "images"])
def test_a_run_is_resumed_with_the_particles_that_it_began_with(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The names of file and stack being the same."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(20, BOX, BOX, generator=generator)
    defocus_A = torch.linspace(10_000, 20_000, 20)

    def write(images: torch.Tensor, defocus_A: torch.Tensor, names: list[str]) -> None:
        write_stack(tmp_path / "a.mrcs", images, PIXEL_SIZE_A)
        ctf = CTFParams.constant(20, defocus_u_A=defocus_A)
        star, sizes = tmp_path / "a.star", {"pixel_size_A": PIXEL_SIZE_A, "box_size": BOX}
        write_particles(star, image_names=names, ctf=ctf, **sizes)

    names = [f"{number}@a.mrcs" for number in range(1, 21)]
    write(images, defocus_A, names)
    run = ["reconstruct", str(tmp_path / "a.star"), "-o", str(tmp_path / "run"), *OBJECTIVE]
    assert main(run) in ENDED
    if what == "defocus":
        defocus_A = defocus_A + torch.where(torch.arange(20) == 7, 1.0, 0.0)
    if what == "order":
        names[3], names[8] = names[8], names[3]
    write(images * 2.0 if what == "images" else images, defocus_A, names)
    assert main(run) == (0 if what == "nothing" else 2)
    said = capsys.readouterr().err
    assert what == "nothing" or "(what the particle file or its stacks hold differs)" in said


def test_few_dark_particles_are_as_dark_as_in_the_run(
    assigned: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One image does not tell its contrast; all 220 did."""
    stack = MrcStack.open(read_image_file(assigned[1].parent / "set.star"))
    write_stack(tmp_path / "dark.mrcs", -stack.read(torch.arange(N)), PIXEL_SIZE_A)
    star = tmp_path / "dark.star"
    star.write_text(
        (assigned[1].parent / "set.star").read_text().replace(str(stack.files[0].path), "dark.mrcs")
    )
    run = tmp_path / "run"
    assert main(["reconstruct", str(star), "-o", str(run), *OBJECTIVE]) in ENDED
    assigning = ["assign", str(star), str(run), "--device", "cpu", "--first", "1"]
    found = []
    for name, more in (
        ("auto", []),
        ("dark", ["--sign", "dark"]),
        ("bright", ["--sign", "bright"]),
    ):
        capsys.readouterr()
        assert main([*assigning, "-o", str(tmp_path / f"{name}_poses.star"), *more]) == 0
        said = capsys.readouterr().out
        assert "too weak to tell" in said
        assert ("contrast as in the run" in said) == (not more)
        (row,) = rows_of(tmp_path / f"{name}_poses.star").values()
        found.append(row["rlnLogLikeliContribution"])
    assert found[0] == found[1] != found[2]
    signs = [np.load(tmp_path / f"{name}_poses.cs")["blob/sign"][0] for name in ("auto", "bright")]
    assert signs == [-1.0, 1.0]


def read_image_file(star: Path) -> Path:
    """The stack of the first image."""
    table = next(table for table in read_star(star) if "rlnImageName" in table)
    return Path(table.columns["rlnImageName"][0].partition("@")[2])


def test_other_particles_may_have_another_box_of_the_same_width(tmp_path: Path) -> None:
    """Their poses are found all the same."""
    run, truth = tmp_path / "run", cg.phantom_map(32, 6.0)
    for box in (16, 24, 32):
        generator = torch.Generator().manual_seed(box)
        volume, pixel_size_A = rescale_volume(truth, box), 192.0 / box
        made = centred_particles(volume, pixel_size_A, 60, 0.0, generator)
        write_dataset(tmp_path / f"{box}", made, volume)
    star = str(tmp_path / "16" / "particles.star")
    assert main(["reconstruct", star, "-o", str(run), *OBJECTIVE]) in ENDED
    for name in ("half1", "half2", "map"):
        write_map(run / f"{name}.mrc", rescale_volume(truth, 16), 192.0 / 16)
    for box in (16, 24, 32):
        particles = cg.read_particles(tmp_path / f"{box}" / "particles.star", sign="bright")
        found = cg.assign(particles, run, device="cpu")
        expected = read_poses(tmp_path / f"{box}" / "truth" / "poses.star").rotation
        assert float(angle_between(found.pose.rotation, expected).median()) < 8.0
