"""Choosing particles: row numbers, masks and pickles; `cryogan select`."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import cryogan
from cryogan.cli import main
from cryogan.errors import InputError
from cryogan.io.mrc import write_stack
from cryogan.io.relion_writing import write_particles
from cryogan.io.row_numbers import read_row_numbers
from cryogan.io.star import read_star
from cryogan.particles import CTFParams
from cryogan.preparation.selection import FIT, PARTICLE, expected_losses

N = 6


@pytest.fixture
def star(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Image i is i everywhere; two optics groups, classes, halves, scores, a further table."""
    monkeypatch.chdir(tmp_path)
    write_stack(tmp_path / "a.mrcs", torch.arange(N).float()[:, None, None].expand(N, 8, 8), 1.5)
    ctf = CTFParams.constant(N, defocus_u_A=10000.0, voltage_kV=torch.tensor([200.0, 300.0] * 3))
    write_particles(
        tmp_path / "p.star",
        image_names="a.mrcs",
        ctf=ctf,
        pixel_size_A=1.5,
        box_size=8,
        extra={
            "rlnClassNumber": ["1", "2", "3", "1", "2", "3"],
            "rlnRandomSubset": ["1", "1", "1", "2", "2", "2"],
            "rlnLogLikeliContribution": ["5", "-3", "2.5", "1e3", "0", "4"],
            "rlnMicrographName": ["m 1.mrc", *["m2.mrc"] * 5],
        },
    )
    with (tmp_path / "p.star").open("a") as file:
        file.write("\ndata_own\n\n_key value\n")
    return tmp_path / "p.star"


def numbers_in(path: Path) -> list[int]:
    """Which of the images a star file names."""
    particles = cryogan.read_particles(path, sign="bright")
    return [int(image[0, 0]) for image in particles.stack.read(torch.arange(len(particles)))]


# Row numbers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a.npy", np.array([4, 0, 2])),
        ("a.npy", np.array([4.0, 0.0, 2.0])),
        ("a.pkl", np.array([4, 0, 2])),
        ("a.pkl", np.array([4, 0, 2], dtype=">i4")),
        ("a.pkl", [4, 0, 2]),
        ("a.pkl", [np.int64(4), np.int64(0), np.int64(2)]),
        ("a.txt", "4\n0\n2\n"),
    ],
)
def test_row_numbers(name: str, value: object, tmp_path: Path) -> None:
    path = tmp_path / name
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1 if name == "a.pkl" else 1):
        if name == "a.npy":
            np.save(path, value)
        elif name == "a.pkl":
            path.write_bytes(pickle.dumps(value, protocol=protocol))
        else:
            path.write_text(str(value))
        assert read_row_numbers(path).tolist() == [4, 0, 2]


@pytest.mark.parametrize("name", ["a.npy", "a.txt", "a.pkl", "bool.npy", "bool.pkl"])
def test_masks_choose_rows(name: str, star: Path) -> None:
    mask = np.array([0, 1, 1, 0, 0, 1], dtype=bool if "bool" in name else int)
    for length in (N, N - 1):
        if name.endswith("npy"):
            np.save(name, mask[:length])
        elif name.endswith("pkl"):
            Path(name).write_bytes(pickle.dumps(mask[:length]))
        else:
            np.savetxt(name, mask[:length], fmt="%d")
        if length == N:
            assert main(["select", "p.star", "-o", "o.star", "--ind", name]) == 0
            assert numbers_in(Path("o.star")) == [1, 2, 5]
        else:
            with pytest.raises(InputError, match=r"has 5 values but p.star has 6 particles"):
                cryogan.select("p.star", "new.star", index=read_row_numbers(name))


class _Bomb:
    """What a hostile pickle does: it would make a file."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (Path("made"),))


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(_Bomb()),
        pickle.dumps([_Bomb()]),
        pickle.dumps(np.array([_Bomb()], dtype=object)),
        pickle.dumps({"rows": [1]}),
        pickle.dumps(np.array(["1"])),
        pickle.dumps([1.5]),
        pickle.dumps([[1], [2]]),
        pickle.dumps(np.arange(4))[:-20],
        b"cnumpy\nndarray\n((I1000000000000\nltR.",
        b"",
        b"text",
    ],
)
def test_a_pickle_of_anything_else_is_refused_and_not_run(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.pkl").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_row_numbers("a.pkl")
    assert "a.pkl" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path("made").exists()


@pytest.mark.parametrize("text", ["1\n1\n2\n", "1.5\n", "-1\n3\n", "nan\n", "1e300\n", "", "x\n"])
def test_bad_row_numbers_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(InputError, match=r"a\.txt"):
        read_row_numbers(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty: it holds no row number"),
        ("# nothing\n", "is empty: it holds no row number"),
        ("1\n2 3\n", "line 2 holds 2 values"),
        ("1\n\nx\n", "line 3 holds 'x', which is no number"),
    ],
)
def test_what_is_wrong_with_a_text_file_is_said(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read_row_numbers(tmp_path / "a.txt")
    assert "usecols" not in str(caught.value)
    (tmp_path / "a.txt").write_text("4 0 2 # in one line\n")
    assert read_row_numbers(tmp_path / "a.txt").tolist() == [4, 0, 2]


def test_first_holds_wherever_particles_are_read(star: Path) -> None:
    from cryogan.cli.downsample import make_parser
    from cryogan.cli.options import read_particles

    def read(*arguments: str) -> cryogan.Particles:
        return read_particles(star, make_parser().given(["p.star", *arguments]))

    assert len(read("--first", "4")) == 4
    assert len(read("--first", "99")) == N
    Path("i.txt").write_text("5\n3\n1\n")
    assert read("--ind", "i.txt", "--first", "2").source.rows.tolist() == [5, 3]
    with pytest.raises(InputError, match="--first is 0"):
        read("--first", "0")


# Select


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--where", "rlnLogLikeliContribution>=2.5"], [0, 2, 3, 5]),
        (["--where", "_rlnLogLikeliContribution < 0"], [1]),
        (["--where", "rlnLogLikeliContribution>0", "--where", "rlnClassNumber!=1"], [2, 5]),
        (["--where", "rlnMicrographName==m 1.mrc"], [0]),
        (["--where", "rlnVoltage==300"], [1, 3, 5]),
        (["--class", "1,3"], [0, 2, 3, 5]),
        (["--half", "2"], [3, 4, 5]),
        (["--class", "2", "--half", "1"], [1]),
        (["--first", "2", "--half", "2"], [3, 4]),
    ],
)
def test_conditions(arguments: list[str], expected: list[int], star: Path) -> None:
    assert main(["select", "p.star", "-o", "o.star", *arguments]) == 0
    assert numbers_in(Path("o.star")) == expected


@pytest.mark.parametrize(
    ("name", "words"), [("p.csg", "names its .cs files"), ("p.mrcs", "neither")]
)
def test_files_without_columns_to_choose_by(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("whatever")
    with pytest.raises(InputError, match=words):
        cryogan.select(tmp_path / name, tmp_path / "o.cs", half=1)


@pytest.fixture
def assigned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten particles with the columns of `cryogan assign`."""
    monkeypatch.chdir(tmp_path)
    write_stack(tmp_path / "a.mrcs", torch.zeros(10, 8, 8), 1.5)
    write_particles(
        tmp_path / "p.star",
        image_names="a.mrcs",
        ctf=CTFParams.constant(10, defocus_u_A=10000.0),
        pixel_size_A=1.5,
        box_size=8,
        extra={
            PARTICLE: ["0.4", "0.4", "0.4", "0.9", "0.9", "0.7", "0.7", "0.7", "0.2", "0.2"],
            FIT: ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1.0"],
            "rlnRandomSubset": ["1", "2", "1", "2", "1", "2", "1", "2", "1", "2"],
            "rlnClassNumber": ["1", "1", "1", "1", "1", "1", "1", "2", "2", "2"],
        },
    )
    return tmp_path / "p.star"


LEFT_OUT = re.compile(
    r"expected by cryoganParticleProbability: (\d+) of the (\d+) that this leaves out show "
    r"(?:a|no) particle, (\d+) of the (\d+) others do(?: not)?"
)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # 3 · 0.4 + 2 · 0.2 of 5; 2 · 0.1 + 3 · 0.3 of 5
        ([], (2, 5, 1, 5)),
        # rows 0, 2, 8: 0.4 + 0.4 + 0.2; rows 4, 6: 0.1 + 0.3
        (["--half", "1"], (1, 3, 0, 2)),
        # rows 0, 1, 2: 1.2; rows 3 to 6: 0.8
        (["--class", "1"], (1, 3, 1, 4)),
        # rows 8, 9: 0.4; row 7: 0.3
        (["--class", "2"], (0, 2, 0, 1)),
        # rows 8, 9: 0.4; rows 5 to 7: 0.9
        (["--where", "cryoganFitPValue>=0.6"], (0, 2, 1, 3)),
        # rows 0 to 2 before the first two that pass, 3 and 4: 1.2; 0.2
        (["--first", "2"], (1, 3, 0, 2)),
        # in the order of the rows: 9, 0, 5, 1, 6: 0.2 + 0.4 + 0.4; 0.3 + 0.3
        (["--ind", "rows.txt"], (1, 3, 1, 2)),
        # 9, 0, 5 only
        (["--ind", "rows.txt", "--first", "1"], (1, 2, 0, 1)),
        # fewer than 8 pass: all count
        (["--first", "8"], (2, 5, 1, 5)),
    ],
)
def test_what_a_threshold_is_expected_to_lose_is_counted_among_what_passes_all_else(
    arguments: list[str],
    expected: tuple[int, ...],
    assigned: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("rows.txt").write_text("9\n0\n5\n1\n6\n")
    command = ["select", "p.star", "-o", "o.star", "--where", f"{PARTICLE}>0.5", *arguments]
    assert main(command) == 0
    written, *lines = capsys.readouterr().out.splitlines()
    found = LEFT_OUT.fullmatch(next(line for line in lines if PARTICLE in line))
    assert found is not None
    assert tuple(map(int, found.groups())) == expected
    assert written.startswith(f"{expected[3]} of 10 particles written")


def test_what_a_threshold_from_above_is_expected_to_lose(assigned: Path) -> None:
    """Junk is chosen: 2 · 0.1 + 3 · 0.3 of it are left out; 3 · 0.4 + 2 · 0.2 chosen are none."""
    for comparison in ("<", "<="):
        assert expected_losses(assigned, [f"{PARTICLE}{comparison}0.5"]) == [
            "expected by cryoganParticleProbability: 1 of the 5 that this leaves out show no "
            "particle, 2 of the 5 others do"
        ]
    p_values = [f"{FIT}>=0.02", f"{FIT}<0.7"]
    least, most = expected_losses(assigned, p_values)
    assert least.startswith(f"{FIT} >= 0.02 leaves out 2 % of the images that fit, if")
    assert most.startswith(f"{FIT} < 0.7 leaves out 30 % of the images that fit, if")
    assert expected_losses(assigned, [f"{PARTICLE}==0.4", f"{FIT}!=0.5", f"{FIT}>=0"]) == []
    found = expected_losses(assigned, [f"{PARTICLE}>0.3", f"{PARTICLE}<0.8"])
    # of the other two thresholds: rows 8, 9 of 0 to 2 and 5 to 9; rows 3, 4 of 0 to 7
    assert [tuple(map(int, LEFT_OUT.fullmatch(line).groups())) for line in found] == [  # type: ignore[union-attr]
        (0, 2, 3, 6),
        (0, 2, 3, 6),
    ]


def test_all_tables_and_columns_stay(star: Path) -> None:
    Path("sub").mkdir()
    cryogan.select(star, "sub/o.star", classes=[2])
    before, after = read_star(star), read_star("sub/o.star")
    assert [table.name for table in after] == [table.name for table in before]
    for old, new in zip(before, after, strict=True):
        keep = [1, 4] if old.name == "particles" else range(len(old))
        for label, values in old.columns.items():
            assert list(new.columns[label]) == [values[row] for row in keep]
    Path("elsewhere").mkdir()
    Path("elsewhere/a.mrcs").write_bytes(b"another stack")
    cryogan.select(star, "elsewhere/o.star", half=1)
    assert numbers_in(Path("elsewhere/o.star")) == [0, 1, 2]


def test_optics_groups_are_numbers_and_must_be_listed(star: Path) -> None:
    """As where they are read: 2.0 is group 2, and a group that is not there no other one."""
    text = star.read_text()
    star.write_text(text.replace("a.mrcs 2 ", "a.mrcs 2.0 "))
    assert cryogan.read_particles(star).ctf.voltage_kV[1] == 300.0
    cryogan.select(star, "o.star", ["rlnVoltage==300"])
    assert numbers_in(Path("o.star")) == [1, 3, 5]
    star.write_text(text.replace("000003@a.mrcs 1 ", "000003@a.mrcs 9 "))
    with pytest.raises(InputError, match=r"rlnOpticsGroup is 9 in row 3 .* does not list"):
        cryogan.select(star, "q.star", ["rlnVoltage==300"])


def test_two_tables_of_particles_are_refused(star: Path) -> None:
    """As where they are read: the second would be written as a whole."""
    text = star.read_text()
    particles = text[text.index("data_particles") : text.index("data_own")]
    star.write_text(text + particles)
    with pytest.raises(InputError, match=r"p\.star has two tables of particles"):
        cryogan.select(star, "o.star", first=2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "p.star", "--half", "1"], "p.star exists"),
        (["-o", "o.cs", "--half", "1"], "another kind"),
        (["-o", "no/o.star"], "folder does not exist"),
        (["-o", "o.star", "--half", "3"], "--half is 3"),
        (["-o", "o.star", "--class", "one"], "--class is 'one'"),
        (["-o", "o.star", "--class", "9"], "No particle of p.star passes"),
        (["-o", "o.star", "--where", "rlnClassNumber"], "'rlnClassNumber' cannot be understood"),
        (["-o", "o.star", "--where", "rlnClassNumber>x"], "no finite number"),
        (["-o", "o.star", "--where", "rlnNone>1"], "no column rlnNone"),
        (["-o", "o.star", "--where", "rlnMicrographName>1"], "rlnMicrographName is 'm 1.mrc'"),
        (["-o", "o.star", "--where", "rlnClassNumber=<2"], "cannot be understood"),
        (["-o", "o.star", "--where", "rlnClassNumber=>2"], "cannot be understood"),
        (["-o", "o.star", "--first", "0"], "--first is 0"),
        ([], "give it with -o"),
    ],
)
def test_refusals(
    arguments: list[str], words: str, star: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(Path().rglob("*"))
    assert main(["select", "p.star", *arguments]) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert said.err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before


def test_cryosparc_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    records = np.zeros(
        4,
        dtype=[
            ("uid", "<u8"),
            ("blob/path", "S8"),
            ("alignments3D/split", "<u4"),
            ("alignments3D/class", "<u4"),
            ("alignments3D/pose", "3<f4"),
        ],
    )
    records["uid"], records["blob/path"] = range(4), [b"a.mrc", b"b.mrc"] * 2
    records["alignments3D/split"], records["alignments3D/class"] = [0, 0, 1, 1], [0, 1, 0, 1]
    with Path("p.cs").open("wb") as file:
        np.save(file, records)
    for number, (arguments, expected) in enumerate(
        (
            (["--half", "2"], [2, 3]),
            (["--class", "0"], [0, 2]),
            (["--where", "blob/path==b.mrc"], [1, 3]),
            (["--where", "uid>0", "--first", "1"], [1]),
        )
    ):
        assert main(["select", "p.cs", "-o", f"{number}.cs", *arguments]) == 0
        found = np.load(f"{number}.cs")
        assert found.tobytes() == records[expected].tobytes()
        group = yaml.safe_load(Path(f"{number}.csg").read_text())
        assert {
            slot: (each["metafile"], each["num_items"]) for slot, each in group["results"].items()
        } == {slot: (f">{number}.cs", len(expected)) for slot in ("alignments3D", "blob")}
    Path("5.csg").write_text("mine")
    with pytest.raises(InputError, match=r"5\.csg exists"):
        cryogan.select("p.cs", "5.cs", half=1)
    assert not Path("5.cs").exists()
    with pytest.raises(InputError, match="is not one value"):
        cryogan.select("p.cs", "o.cs", ["alignments3D/pose>0"])
    with pytest.raises(InputError, match="no field alignments2D/class"):
        cryogan.select("p.cs", "o.cs", ["alignments2D/class>0"])
    Path("p.cs").write_bytes(Path("p.cs").read_bytes()[:-5])
    with pytest.raises(InputError, match="no whole cryoSPARC"):
        cryogan.select("p.cs", "o.cs", half=1)


@pytest.mark.parametrize("name", ["a.mrcs", ">a.mrcs", "J1/a.mrcs", ">J1/a.mrcs", "J9/a.mrcs"])
@pytest.mark.parametrize("target", ["J9", "J9/deep", "other/place"])
def test_chosen_records_lead_to_their_stacks_from_any_folder(
    name: str, target: str, tmp_path: Path, generator: torch.Generator
) -> None:
    """Beside the file, below it, or below the project; with the fields of a passthrough file."""
    project, out = tmp_path / "project", tmp_path / target
    if target.startswith("J9"):
        out = project / target
    job = project / "J9"
    for folder in (out, job / "J1"):
        folder.mkdir(parents=True, exist_ok=True)
    images = torch.randn(N, 8, 8, generator=generator)
    bare = name.removeprefix(">")
    write_stack(project / bare if bare.startswith("J9") else job / bare, images, 1.5)
    blob = [("uid", "<u8"), ("blob/path", "S12"), ("blob/idx", "<u4"), ("blob/psize_A", "<f4")]
    numbers = ("accel_kv", "cs_mm", "amp_contrast", "df1_A", "df2_A", "df_angle_rad")
    ctf = [("uid", "<u8"), *((f"ctf/{each}", "<f4") for each in numbers)]
    main_records, passthrough = np.zeros(N, dtype=blob), np.zeros(N, dtype=ctf)
    for records in (main_records, passthrough):
        records["uid"] = np.arange(N)
    main_records["blob/path"], main_records["blob/psize_A"] = name.encode(), 1.5
    main_records["blob/idx"] = np.arange(N)
    values = (300.0, 2.7, 0.1, 10_000.0 + np.arange(N), 10_000.0, 0.0)
    for each, value in zip(numbers, values, strict=True):
        passthrough[f"ctf/{each}"] = value
    for file, records in (("J9_p.cs", main_records), ("J9_passthrough.cs", passthrough)):
        with (job / file).open("wb") as stream:
            np.save(stream, records)
    chosen = ["--where", "ctf/df1_A>10003"]
    assert main(["select", str(job / "J9_p.cs"), "-o", str(out / "good.cs"), *chosen]) == 0
    particles = cryogan.read_particles(out / "good.cs", sign="bright")
    assert torch.equal(particles.stack.read(torch.arange(2)), images[4:])
    assert particles.ctf.defocus_u_A.tolist() == [10_004.0, 10_005.0]
