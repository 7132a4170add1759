"""`cryogan simulate` as it is typed: what it says, what it leaves alone, what it refuses."""

import gzip
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

import cryogan
from cryogan.cli import display, main
from cryogan.errors import InputError
from cryogan.files import left_overs
from cryogan.io.mrc import MrcStack, write_map, write_stack
from cryogan.io.relion_metadata import read_metadata
from cryogan.phantom import phantom_map
from cryogan.simulation import dataset
from cryogan.simulation.settings import NoiseSettings, SimulationSettings

pytestmark = pytest.mark.slow

SMALL = ["phantom", "--box_size=16", "--pixel_size_A=10", "--images=50", "--padding=2"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """Every test runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CRYOGAN_DATA", raising=False)
    return tmp_path


def simulate(*arguments) -> int:
    return main(["simulate", *map(str, arguments)])


def bytes_of(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def times_of(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def refused(capsys, *arguments, parts=()) -> None:
    """Status 2, one sentence on stderr, and nothing in the folder is made or changed."""
    before = times_of(Path())
    capsys.readouterr()
    assert simulate(*arguments, "-o", "new/set") == 2
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert len(lines) == 1, said.err
    assert lines[0].startswith("cryogan: ")
    assert lines[0].endswith(".")
    assert said.out == ""
    for part in parts:
        assert part in lines[0]
    assert times_of(Path()) == before


# What it makes and says


def test_a_set_in_one_command(folder, capsys):
    assert simulate(*SMALL, "-o", "deep/set", "--seed=7") == 0
    said = capsys.readouterr().out
    assert "50 images of 16 px, 10 Å/px" in said
    assert "1 conformation, uniform orientations, shifts none, CTF range" in said
    assert "white noise, -10 dB at 16 px" in said
    record = yaml.safe_load(Path("deep/set/simulation.yaml").read_text())
    assert f"measured: {record['measured']['snr_dB']:.3f} dB" in said
    assert record["title"] == "phantom"
    assert record["settings"]["seed"] == 7
    assert sorted(bytes_of(folder / "deep/set")) == [
        *("particles.mrcs", "particles.star", "simulation.yaml"),
        *("truth/map.mrc", "truth/poses.star", "truth/states.csv"),
    ]
    assert len(read_metadata("deep/set/particles.star").ctf) == 50
    assert len(MrcStack.open("deep/set/particles.mrcs")) == 50


def test_it_runs_as_a_program(folder):
    """From a shell, where the output is no terminal, and with options before sources."""
    words = ["-m", "cryogan", "simulate", "-oset", "--noise.snr_dB", "-3", *SMALL]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "white noise, -3 dB" in done.stdout
    assert "Traceback" not in done.stderr
    assert Path("set/particles.star").is_file()


def test_a_recipe_sets_the_defaults_that_help_shows(capsys):
    for words, images, snr_dB in (
        (["hsp90-discrete"], "100000", "-10.0"),
        (["betagal-64px", "--condition", "-20dB"], "20000", "-20.0"),
        ([], "10000", "-10.0"),
    ):
        with pytest.raises(SystemExit) as left:
            simulate(*words, "--help-all")
        assert left.value.code == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert f"type: int, default: {images})" in shown
        assert f"type: float, default: {snr_dB})" in shown
        assert "betagal-table1" in shown


def test_the_short_help_has_ten_options_and_an_example(capsys):
    with pytest.raises(SystemExit) as left:
        simulate("--help")
    assert left.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(("  -", "  --")) for line in lines) == 10
    assert lines[-1].startswith("Example: cryogan simulate ")


REFUSED = """
import sys
from cryogan.cli import main
codes = [main(["simulate", *words]) for words in (
    ["phantom"],
    ["phantom", "-o", "x", "--imges=3"],
    ["phantom", "-o", "x", "--images=many"],
    ["phantom", "-o", "x", "--images=0"],
    ["phantom", "-o", "x", "--noise.kind=pink"],
    ["phantom", "-o", "x", "--shifts.kind=gaussian", "--shifts.sigma_A=1000"],
    ["phantom", "-o", "x", "--molecule.resolution_A=5"],
    ["hsp90-discrete", "-o", "x", "--condition=3-states"],
    ["none.pdb", "-o", "x"],
    ["bad.yaml", "-o", "x"],
    ["phantom", "-o", "taken"],
)]
print(codes, "torch" in sys.modules)
"""


def test_what_needs_no_numbers_is_refused_before_torch_is_imported(folder):
    (folder / "bad.yaml").write_text("settings: {images: few}")
    (folder / "taken").mkdir()
    (folder / "taken/particles.star").write_text("precious")
    done = subprocess.run([sys.executable, "-c", REFUSED], capture_output=True, text=True)
    assert done.stdout == f"{[2] * 11} False\n", done.stderr
    assert len(done.stderr.splitlines()) == 11


def test_workers_do_not_change_the_set(folder):
    assert simulate(*SMALL, "-o", "one", "--workers=1") == 0
    assert simulate(*SMALL, "-o", "two", "--workers=2") == 0
    assert bytes_of(folder / "one") == bytes_of(folder / "two")


# What is there already


def test_a_finished_set_is_left_alone(folder, capsys):
    assert simulate(*SMALL, "-o", "set") == 0
    before, times = bytes_of(folder), times_of(folder)
    capsys.readouterr()
    for words in (SMALL, ["set/simulation.yaml"]):
        assert simulate(*words, "-o", "set") == 0
        assert capsys.readouterr().out == "set holds this data set already.\n"
    assert times_of(folder) == times
    assert bytes_of(folder) == before


@pytest.mark.parametrize("gone", ["particles.star", "particles.mrcs"])
def test_an_unfinished_set_is_made_again(folder, gone):
    assert simulate(*SMALL, "-o", "set") == 0
    before = bytes_of(folder)
    Path("set", gone).unlink()
    assert simulate(*SMALL, "-o", "set") == 0
    assert bytes_of(folder) == before


@pytest.mark.parametrize("change", ["--seed=1", "--noise.kind=none", "--images=51"])
def test_another_sets_folder_is_refused(folder, capsys, change):
    assert simulate(*SMALL, "-o", "set") == 0
    before, times = bytes_of(folder), times_of(folder)
    for unfinished in (False, True):
        if unfinished:
            Path("set/particles.star").unlink()
            del before["set/particles.star"]
            times = times_of(folder)
        capsys.readouterr()
        assert simulate(*SMALL, change, "-o", "set") == 2
        said = capsys.readouterr().err
        assert said == (
            "cryogan: set holds another simulated set, or a part of one; choose another folder or "
            "remove it.\n"
        )
        assert bytes_of(folder) == before
        assert times_of(folder) == times


@pytest.mark.parametrize(
    "name", ["particles.star", "particles.mrcs", "background.mrcs", "truth/notes.txt"]
)
def test_a_folder_with_somebodys_files_is_refused(folder, capsys, name):
    (folder / "set" / name).parent.mkdir(parents=True)
    (folder / "set" / name).write_text("precious")
    before, times = bytes_of(folder), times_of(folder)
    assert simulate(*SMALL, "-o", "set") == 2
    said = capsys.readouterr().err
    assert said.startswith("cryogan: set holds ")
    assert said.endswith("choose another folder.\n")
    assert said.count("\n") == 1
    assert bytes_of(folder) == before
    assert times_of(folder) == times


def test_a_folder_with_other_things_may_be_used(folder):
    """Inputs may lie where the set is made, if it has no file of their names."""
    write_map(folder / "mine.mrc", phantom_map(16, 10.0), 10.0)
    before = (folder / "mine.mrc").read_bytes()
    assert simulate("mine.mrc", *SMALL[1:], "-o", ".") == 0
    assert (folder / "mine.mrc").read_bytes() == before
    assert (folder / "particles.star").is_file()


# Interruption


def test_ctrl_c_says_so_and_the_same_command_goes_on(folder, capsys, monkeypatch):
    whole = folder / "whole"
    assert simulate(*SMALL, "-o", whole) == 0

    def show(self, numbers, fraction):
        if numbers == "noise":
            raise KeyboardInterrupt

    capsys.readouterr()
    with monkeypatch.context() as patched:
        patched.setattr(display.ProgressLines, "show", show)
        assert simulate(*SMALL, "-o", "set") == 130
    assert (
        capsys.readouterr().err
        == "cryogan: interrupted (SIGINT); the same command can be run again\n"
    )
    assert set(bytes_of(folder / "set")) == {"simulation.yaml", "truth/map.mrc"}
    assert simulate(*SMALL, "-o", "set") == 0
    assert bytes_of(folder / "set") == bytes_of(whole)


KILLED = """
import os, signal, sys
from cryogan.cli import display, main
from cryogan.simulation import dataset

dataset.CHUNK_PIXELS = 16 * 16**2

def show(self, numbers, fraction):
    if numbers == "noise" and fraction > 0.8:
        os.kill(os.getpid(), signal.SIGKILL)

display.ProgressLines.show = show
main(["simulate", *sys.argv[1:]])
"""


def test_kill_9_leaves_nothing_that_looks_whole(folder, monkeypatch):
    monkeypatch.setattr(dataset, "CHUNK_PIXELS", 16 * 16**2)
    done = subprocess.run([sys.executable, "-c", KILLED, *SMALL, "-o", "set"], check=False)
    assert done.returncode == -signal.SIGKILL
    left = set(bytes_of(folder / "set")) - {"simulation.yaml", "truth/map.mrc"}
    assert left == {path.name for path in left_overs(folder / "set")}
    assert len(left) == 1
    (folder / "set/truth/.cryogan-0123abcd.tmp.mrc").write_text("of another kill")
    mine = folder / "set" / ".particles.swp"
    mine.write_text("an editor's")
    assert simulate(*SMALL, "-o", "set") == 0
    assert simulate(*SMALL, "-o", "whole") == 0
    assert mine.read_text() == "an editor's"
    mine.unlink()
    assert bytes_of(folder / "set") == bytes_of(folder / "whole")


# Bad input


def atom(number: int, x: float, y: float, z: float, chain: str = "A") -> str:
    return (
        f"ATOM  {number:5d}  CA  GLY {chain}{number:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00 30.00"
        "           C"
    )


@pytest.fixture
def pdb(folder) -> str:
    """Two chains: A, residues 1 to 3 on the x axis, and B, residue 9, 40 Å away."""
    lines = [atom(1, 0, 0, 0), atom(2, 10, 0, 0), atom(3, 20, 0, 0), atom(9, 60, 0, 0, "B"), "END"]
    (folder / "m.pdb").write_text("\n".join([*lines, ""]))
    return "m.pdb"


def of_model(*options) -> list[str]:
    return ["m.pdb", *SMALL[1:], *options]


def motion(**values) -> str:
    settings = {"atoms": "B", "axis": "z", "pivot": "A/2", "last_deg": 90.0, "states": 3, **values}
    inside = ", ".join(f'"{k}": {v!r}'.replace("'", '"') for k, v in settings.items())
    return f"--molecule.motions=[{{{inside}}}]"


def test_the_model_is_good_before_it_is_spoilt(pdb):
    assert simulate(*of_model(motion(), "--molecule.resolution_A=20"), "-o", "set") == 0
    assert len(list(Path("set/truth").glob("map_*.mrc"))) == 3


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"atoms": "C"}, ["names chain C, which m.pdb does not have; its chains are A, B."]),
        ({"atoms": "A/17"}, ["names residue 17 of chain A", "lie between 1 and 3."]),
        ({"atoms": "A/4-8"}, ["names residues 4 to 8 of chain A", "lie between 1 and 3."]),
        ({"pivot": "A/1/CB"}, ["names atom CB", "the atoms there are CA."]),
        ({"atoms": ""}, ["The selection '' cannot be understood", "write all, B"]),
        ({"atoms": "A 1"}, ["The selection 'A 1' cannot be understood"]),
        ({"axis": "0,0,0"}, ["The axis '0,0,0'", "not all zero"]),
        ({"states": 0}, ["has 0 states; give 1 or more"]),
        ({"last_deg": 0.0}, ["all lie at 0 degrees"]),
        ({"pivot": "500,0,0"}, ["m.pdb (state ", "reaches", "room for 70.0 Å; use a larger box"]),
    ],
)
def test_bad_motions(capsys, pdb, changes, parts):
    refused(capsys, *of_model(motion(**changes)), parts=parts)


def test_molecule_larger_than_the_box(capsys, pdb):
    words = of_model("--pixel_size_A=3")
    refused(capsys, *words, parts=["m.pdb reaches", "16 px of 3 Å", "use a larger box or pixel"])
    write_map(Path("m.mrc"), phantom_map(48, 5.0), 5.0)
    words = ["m.mrc", "--box_size=16", "--pixel_size_A=4"]
    refused(capsys, *words, parts=["of the power of m.mrc lies outside a box of 64 Å; use"])
    words = ["phantom", "--box_size=16", "--pixel_size_A=4"]
    refused(capsys, *words, parts=["The phantom is", "does not fit in a box of 16"])


def test_no_signal(capsys):
    write_map(Path("m.mrc"), torch.zeros(16, 16, 16), 10.0)
    refused(capsys, "m.mrc", *SMALL[1:], parts=["m.mrc is empty", "give a map with density"])


def test_disk_too_full(capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=3 * 10**9))
    words = [*SMALL, "--images=5000000"]
    parts = ["needs 15.2 GB in new/set", "3.0 GB are free; choose another disk, fewer images or"]
    refused(capsys, *words, parts=parts)


def test_more_images_than_any_disk_holds(capsys):
    refused(capsys, *SMALL, "--images=1000000000000", parts=["The data set needs 3048000.0 GB"])


def test_missing_files(capsys):
    for name in ("none.pdb", "none.mrc", "a.pdb+b.pdb", "/none/folder/x.cif"):
        first = name.partition("+")[0]
        parts = [f"The file '{first}' is not here; say in which folder it is with --datadir."]
        refused(capsys, name, *SMALL[1:], parts=parts)
    Path("data").mkdir()
    words = ["none.pdb", *SMALL[1:], "--datadir", "data"]
    refused(capsys, *words, parts=["'none.pdb' is not here nor in data; say"])
    words = ["--ctf.kind=table", "--ctf.table=none.csv"]
    refused(capsys, *SMALL, *words, parts=["The file 'none.csv' is not here"])
    words = ["--noise.kind=background", "--noise.file="]
    refused(capsys, *SMALL, *words, parts=["The file '' is not here"])
    words = ["--noise.kind=background", "--noise.file=data"]
    refused(capsys, *SMALL, *words, parts=["data is a folder; name a file"])
    words = ["--orientations.kind=file", "--orientations.file=data"]
    refused(capsys, *SMALL, *words, parts=["data, whose name ends neither in .star nor in .cs"])
    refused(capsys, "data", *SMALL[1:], parts=["The folder data holds no map (.mrc)"])


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("m.pdb", "m.pdb holds no atoms; give a PDB or mmCIF file"),
        ("m.pdb.gz", "m.pdb.gz holds no atoms; give a PDB or mmCIF file"),
        ("m.cif", "m.cif cannot be read as an atomic model ("),
        ("m.txt", "m.txt cannot be read as an atomic model ("),
        ("m.mrc", "m.mrc is not an MRC file; give a .mrc"),
    ],
)
def test_files_of_another_kind(capsys, name, part):
    Path(name).write_bytes(b"\x00\xffnothing of use\n" * 200)
    refused(capsys, name, *SMALL[1:], parts=[part])


def test_a_compressed_map(capsys):
    Path("m.mrc.gz").write_bytes(gzip.compress(bytes(5000)))
    refused(capsys, "m.mrc.gz", *SMALL[1:], parts=["m.mrc.gz is compressed; decompress it first"])


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--box_size=8"], "box_size is 8, but the least is 16; choose more."),
        (["--box_size=100000000"], "box_size is 100000000, but the most is 2048; choose fewer"),
        (["--images=0"], "images is 0, but the least is 1"),
        (["--images=-5"], "images is -5, but the least is 1"),
        (["--seed=-1"], "seed is -1, but the least is 0"),
        (["--padding=0.5"], "padding is 0.5; give a number from 1 to 8"),
        (["--padding=1000"], "padding is 1000; give a number from 1 to 8"),
        (["--pixel_size_A=0"], "pixel_size_A is 0; give a positive number of Å."),
        (["--pixel_size_A=-2"], "pixel_size_A is -2; give a positive number of Å."),
        (["--workers=0"], "--workers is 0; give 1 or more."),
        (["--orientations.sigma=2"], "orientations.sigma has no meaning while"),
        (["--orientations.kind=angular-gaussian", "--orientations.sigma=0"], "above 0"),
        (["--orientations.kind=cylinder", "--orientations.spread_deg=91"], "from 0 to 90 degrees"),
        (["--orientations.kind=file"], "orientations.file is not given; name a .star"),
        (["--shifts.kind=triangular", "--shifts.percent=60"], "shifts.percent is 60; give"),
        (["--shifts.percent=3"], "shifts.percent has no meaning while shifts.kind is none"),
        (["--shifts.kind=gaussian", "--shifts.sigma_A=-1"], "shifts.sigma_A is -1; give"),
        (["--ctf.voltage_kV=0"], "ctf.voltage_kV is 0, but voltage lies from 20 to 3000 kV"),
        (["--ctf.amplitude_contrast=1"], "ctf.amplitude_contrast is 1; give a fraction"),
        (["--ctf.defocus_A=[2e4,1e4]"], "ctf.defocus_A is 20000 to 10000; give two numbers"),
        (["--ctf.b_factor_A2=-1"], "ctf.b_factor_A2 is -1; give a number from 0."),
        (["--ctf.kind=table"], "no ctf.table is given; name a file."),
        (["--noise.snr_dB=1e9"], "noise.snr_dB is 1e+09; give a number from -200 to 200"),
        (["--noise.snr_dB=-1e9"], "noise.snr_dB is -1e+09; give a number from -200 to 200"),
        (["--noise.snr_box_size=12"], "noise.snr_box_size is 12, smaller than the images' box"),
        (["--noise.kind=coloured"], "no noise.file is given; name a file."),
        (
            ["--noise.spread=-0.1"],
            "noise.spread is -0.1; give a relative standard deviation from 0",
        ),
        (["--contrast.spread=3"], "contrast.spread is 3; give a relative standard deviation from"),
        (["--junk.share=20"], "junk.share is 20; give a share from 0 to 1, such as 0.2."),
        (["--junk.broken=-1"], "junk.broken is -1; give a weight from 0."),
        (
            [f"--junk.{kind}=0" for kind in ("empty", "two", "edge", "broken", "aggregate")],
            "The weights of all kinds of junk are 0; give one kind a weight.",
        ),
        (["--particles_per_micrograph=0"], "particles_per_micrograph is 0, but the least is 1"),
        (["--shifts.picking_share=2", "--shifts.picking_error_A=9"], "shifts.picking_share is 2"),
        (["--shifts.picking_share=0.1"], "shifts.picking_error_A is 0; give both, or neither."),
        (["--shifts.picking_share=0.1", "--shifts.picking_error_A=900"], "picking_error_A is 900"),
        (["--ctf.wrong_by_A=1000"], "ctf.wrong_by_A is given but ctf.wrong_share is 0; give both"),
        (["--ctf.wrong_share=-1", "--ctf.wrong_by_A=1000"], "ctf.wrong_share is -1; give a share"),
        (["--ctf.wrong_share=1", "--ctf.wrong_by_A=1e6"], "ctf.wrong_by_A is 1e+06; give a number"),
        (
            ["--ctf.kind=none", "--ctf.wrong_share=0.1", "--ctf.wrong_by_A=1000"],
            "ctf.wrong_share is given but ctf.kind is none",
        ),
        (["--molecule.hinge_deg=[0,30]"], "molecule.hinge_states is 1; give two angles and two"),
        (["--molecule.hinge_states=0"], "molecule.hinge_states is 0"),
        (["--molecule.populations=[1,2]"], "molecule.populations has 2 numbers for 1"),
        (["--molecule.resolution_A=10"], "molecule.resolution_A does not apply to the phantom"),
        (["--molecule.path=true"], "molecule.path needs two sources or more"),
    ],
)
def test_bad_numbers(capsys, options, part):
    refused(capsys, *SMALL, *options, parts=[part])


@pytest.mark.parametrize(
    "option",
    [
        *("--box_size=large", "--images=1.5", "--padding=two", "--seed=x", "--noise.snr_dB=nan"),
        *("--pixel_size_A=inf", "--ctf.kind=perfect", "--shifts=3", "--molecule.path=maybe"),
        *("--box_size=null", "--molecule.hinge_deg=[1]", '--molecule.motions=[{"atom": "A"}]'),
        *("--nois.kind=none", "--noise.snr=3", "--workers=many"),
    ],
)
def test_wrong_types_and_unknown_options(capsys, option):
    name = option.partition("=")[0].partition(".")[0]
    refused(capsys, *SMALL, option, parts=[name.lstrip("-")])


def test_a_misspelt_option_is_told_the_nearest_right_one(capsys):
    refused(capsys, *SMALL, "--nois.snr_dB=3", parts=["--nois.snr_dB", "--noise.snr_dB"])


def test_no_folder_to_write_to(capsys):
    assert simulate(*SMALL) == 2
    said = capsys.readouterr().err
    assert said == "cryogan: cryogan simulate needs an output folder; give it with -o.\n"
    Path("file").write_text("x")
    assert simulate(*SMALL, "-o", "file/set") == 2
    said = capsys.readouterr().err
    assert said.startswith("cryogan: Cannot make the folder file/set/truth: Not a directory; ")
    assert bytes_of(Path()) == {"file": b"x"}


def test_recipes_with_other_things(capsys):
    Path("r.yaml").write_text("settings: {images: 3}\n")
    for words in (["phantom", "hsp90-discrete"], ["r.yaml", "phantom"], ["r.yaml", "r.yaml"]):
        parts = [f"A recipe stands alone, but the sources are {' '.join(words)}; give one"]
        refused(capsys, *words, parts=parts)
    parts = ["--condition and --scale are for recipes; give one, or leave them out."]
    refused(capsys, *SMALL, "--scale=0.5", parts=parts)
    refused(capsys, *SMALL, "--condition=a", parts=parts)
    words = ["hsp90-discrete", "--condition=3-states"]
    refused(capsys, *words, parts=["no condition 3-states; choose one of 2-states, 2-states-80"])
    words = ["hsp90-discrete", "--scale=big"]
    refused(capsys, *words, parts=["scale", "big", "a number"])
    for scale, part in (("0.4", "makes a box of 12 px out of 32, but"), ("2", "--scale is 2; ")):
        refused(capsys, "hsp90-discrete", "--scale", scale, parts=[part])
    words = ["hsp90-discrete"]
    refused(capsys, *words, parts=["The file 'monoA_snip.pdb' is not here; get it (folder 1_Gen"])
    refused(capsys, "none.yaml", parts=["Cannot read none.yaml: No such file"])
    Path("bad.yaml").write_text("settings: [\n")
    refused(capsys, "bad.yaml", parts=["bad.yaml is not valid YAML"])


def test_patches_too_few_or_too_small(capsys):
    write_stack(Path("p.mrcs"), torch.randn(4, 16, 16), 5.0)
    words = [*SMALL, "--noise.kind=background", "--noise.file=p.mrcs"]
    refused(capsys, *words, parts=["p.mrcs are 80 Å wide, less than the images' 160 Å"])


def test_cryogan_data_names_a_folder_of_files(monkeypatch, folder):
    (folder / "elsewhere").mkdir()
    write_map(folder / "elsewhere/m.mrc", phantom_map(16, 10.0), 10.0)
    monkeypatch.setenv("CRYOGAN_DATA", os.fspath(folder / "elsewhere"))
    assert simulate("m.mrc", *SMALL[1:], "-o", "set") == 0
    record = yaml.safe_load(Path("set/simulation.yaml").read_text())
    assert record["inputs"]["m.mrc"]["path"] == str(folder / "elsewhere/m.mrc")


@pytest.mark.parametrize("words", [["--condition", "-20dB"], ["--condition=-20dB"]])
def test_a_condition_may_look_like_an_option(words):
    settings = "{box_size: 16, pixel_size_A: 10, images: 20, padding: 2}"
    conditions = "{a: {}, -20dB: {noise: {snr_dB: -20}}}"
    Path("r.yaml").write_text(f"settings: {settings}\nconditions: {conditions}\n")
    assert simulate("r.yaml", *words, "-o", "set") == 0
    record = yaml.safe_load(Path("set/simulation.yaml").read_text())
    assert record["condition"] == "-20dB"
    assert record["settings"]["noise"]["snr_dB"] == -20.0
    assert record["measured"]["snr_dB"] == pytest.approx(-20.0, abs=0.5)


OWN_NOISE = """
import torch
from cryogan.physics.noise import NoiseModel

class Steps(NoiseModel):
    def __init__(self, size):
        self.size = size

    @property
    def box_size(self):
        return self.size

    def sample(self, n, generator):
        return 2.0 * torch.randint(2, (n, self.size, self.size), generator=generator) - 1.0
"""


def test_a_noise_model_of_ones_own(folder, monkeypatch, capsys):
    """Pixels of ± one value; scaled to the ratio."""
    (folder / "steps_noise.py").write_text(OWN_NOISE)
    monkeypatch.syspath_prepend(folder)
    assert simulate(*SMALL, "--noise.kind=steps_noise:Steps", "-o", "set", "--workers=2") == 0
    assert "steps_noise:Steps noise, -10 dB at 16 px" in capsys.readouterr().out
    assert simulate("set/simulation.yaml", "-o", "again") == 0
    assert bytes_of(folder / "set") == bytes_of(folder / "again")
    assert simulate(*SMALL, "--noise.kind=none", "-o", "clean") == 0
    noisy, clean = (
        MrcStack.open(f"{name}/particles.mrcs").read(torch.arange(50)) for name in ("set", "clean")
    )
    added = (noisy - clean).abs()
    torch.testing.assert_close(added, added.mean().expand_as(added), rtol=1e-3, atol=0.0)
    ratio_dB = 20.0 * torch.log10(clean.norm() / (noisy - clean).norm())
    assert ratio_dB.item() == pytest.approx(-10.0, abs=1e-3)
    words = ["--noise.kind=steps_noise:Stairs"]
    refused(capsys, *SMALL, *words, parts=["steps_noise:Stairs' cannot be imported"])


def test_from_a_notebook(folder):
    """The public function makes what the command makes."""
    assert simulate(*SMALL, "--noise.snr_dB=-3", "-o", "set") == 0
    small = {"box_size": 16, "pixel_size_A": 10, "images": 50, "padding": 2}
    particles = cryogan.simulate("phantom", folder / "a", **small, noise={"snr_dB": -3})
    assert (len(particles), particles.box_size) == (50, 16)
    noise = NoiseSettings(snr_dB=-3.0)
    settings = SimulationSettings(
        box_size=16, pixel_size_A=10.0, images=50, padding=2.0, noise=noise
    )
    cryogan.simulate(settings, folder / "b", workers=2)
    assert bytes_of(folder / "a") == bytes_of(folder / "b") == bytes_of(folder / "set")
    told = []
    cryogan.simulate("phantom", folder / "a", **small, noise=noise, finished=told.append)
    assert told == [None]  # it was there
    with pytest.raises(InputError, match="holds another simulated set"):
        cryogan.simulate("phantom", folder / "a", **small)
    with pytest.raises(InputError, match="workers is 0"):
        cryogan.simulate("phantom", folder / "c", workers=0)
    with pytest.raises(InputError, match="'snr'"):
        cryogan.simulate("phantom", folder / "c", noise={"snr": 3})
    assert not (folder / "c").exists()
