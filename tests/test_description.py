"""Recipes and `simulation.yaml`: a set in words is the set, bit for bit."""

import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import yaml

from cryogan import fourier
from cryogan.cli import main
from cryogan.errors import InputError
from cryogan.io.mrc import MrcStack, write_map, write_stack
from cryogan.phantom import phantom_map
from cryogan.simulation.dataset import prepare
from cryogan.simulation.description import (
    Description,
    is_description,
    is_same,
    locate,
    read_description,
    recipe_names,
    settings_of,
)
from cryogan.simulation.settings import Motion, SimulationSettings

pytestmark = pytest.mark.slow

BOX, PIXEL_A = 16, 10.0
SMALL = ("--box_size=16", "--pixel_size_A=10", "--images=40", "--padding=2", "--workers=1")


def complaint(action, *parts) -> None:
    """`action` raises one sentence, with every part in it."""
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    for part in parts:
        assert part in message


def simulate(*arguments) -> int:
    return main(["simulate", *map(str, arguments)])


def bytes_of(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def record_of(folder: Path) -> dict:
    return yaml.safe_load((folder / "simulation.yaml").read_text())


def assert_same_set(first: Path, second: Path) -> None:
    """All bytes, and what simulation.yaml says but for the places of files."""
    one, two = bytes_of(first), bytes_of(second)
    a, b = (yaml.safe_load(files.pop("simulation.yaml")) for files in (one, two))
    for record in (a, b):
        for item in record["inputs"].values():
            del item["path"]
    assert one == two
    assert a == b


@pytest.fixture
def inputs(tmp_path, generator, monkeypatch) -> Path:
    """A folder of maps, CTFs and patches; the test runs beside it."""
    folder = tmp_path / "inputs"
    (folder / "maps").mkdir(parents=True)
    for number, angle in enumerate((0.0, 40.0)):
        volume = phantom_map(BOX, PIXEL_A, hinge_angle_deg=angle)
        write_map(folder / f"maps/{number}.mrc", volume, PIXEL_A)
    (folder / "maps/notes.txt").write_text("not a map")
    patches = torch.randn(10, 20, 20, generator=generator)
    write_stack(folder / "patches.mrcs", patches, BOX * PIXEL_A / 20)
    columns = "defocus_u_A,defocus_v_A,defocus_angle_deg,phase_shift_deg,particles"
    (folder / "ctf.csv").write_text(f"{columns}\n9000,8800,10,0,3\n15000,15000,0,0,5\n")
    monkeypatch.chdir(tmp_path)
    return folder


def from_files(folder, *more) -> list:
    return [
        f"{folder}maps",
        *SMALL,
        *("--ctf.kind=table", f"--ctf.table={folder}ctf.csv"),
        *("--noise.kind=background", f"--noise.file={folder}patches.mrcs", "--noise.snr_dB=-3"),
        *("--orientations.kind=angular-gaussian", "--orientations.sigma=2", "--molecule.path=true"),
        *more,
    ]


# simulation.yaml


def test_the_record_makes_the_set_again(inputs, tmp_path):
    assert simulate(*from_files("inputs/", "--seed=3", "-o", "a")) == 0
    record = record_of(tmp_path / "a")
    assert set(record["inputs"]) == {
        *("inputs/maps/0.mrc", "inputs/maps/1.mrc", "inputs/ctf.csv", "inputs/patches.mrcs")
    }
    assert record["settings"]["seed"] == 3
    assert record["made_with"]["torch"] == torch.__version__
    assert record["measured"]["snr_dB"] == pytest.approx(-3.0, abs=0.5)
    assert simulate("a/simulation.yaml", "-o", "b") == 0
    assert_same_set(tmp_path / "a", tmp_path / "b")
    assert simulate("a/simulation.yaml", "--seed=4", "-o", "c") == 0
    assert bytes_of(tmp_path / "c")["particles.mrcs"] != bytes_of(tmp_path / "a")["particles.mrcs"]


def test_the_record_finds_its_files_from_anywhere(inputs, tmp_path, monkeypatch):
    """Where they were, under names relative to another working folder."""
    assert simulate(*from_files("inputs/", "-o", "a")) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert simulate("../a/simulation.yaml", "-o", "b") == 0
    assert_same_set(tmp_path / "a", tmp_path / "elsewhere/b")


@pytest.mark.parametrize("datadir", ["moved", ".."])
def test_the_record_finds_files_that_moved_with_datadir(inputs, tmp_path, monkeypatch, datadir):
    """In the folder named, and in a folder of it; also named by CRYOGAN_DATA."""
    monkeypatch.chdir(inputs)
    assert simulate(*from_files("", "-o", tmp_path / "work/a")) == 0
    inputs.rename(tmp_path / "work/moved")
    monkeypatch.chdir(tmp_path / "work/a")
    again = ["simulation.yaml", "-o", "../b"]
    folder = tmp_path / "work" / datadir if datadir == "moved" else tmp_path / "work"
    assert simulate(*again) == 2
    assert simulate(*again, "--datadir", folder) == 0
    assert_same_set(tmp_path / "work/a", tmp_path / "work/b")
    monkeypatch.setenv("CRYOGAN_DATA", str(folder))
    assert simulate("simulation.yaml", "-o", "../c") == 0
    assert_same_set(tmp_path / "work/a", tmp_path / "work/c")


def test_a_map_of_the_set_itself_is_not_taken_for_its_input(tmp_path, monkeypatch):
    """truth/map.mrc lies below the record; the input of that name lies elsewhere."""
    (tmp_path / "data/sub").mkdir(parents=True)
    write_map(tmp_path / "data/sub/map.mrc", phantom_map(20, 8.0), 8.0)
    arguments = ["map.mrc", *SMALL, "--datadir", tmp_path / "data"]
    monkeypatch.chdir(tmp_path)
    assert simulate(*arguments, "-o", "a") == 0
    (tmp_path / "data/sub").rename(tmp_path / "data/other")
    assert simulate("a/simulation.yaml", "--datadir", tmp_path / "data", "-o", "b") == 0
    assert_same_set(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("name", ["ctf.csv", "maps/1.mrc", "patches.mrcs"])
def test_a_changed_file_is_refused(inputs, tmp_path, capsys, name):
    assert simulate(*from_files("inputs/", "-o", "a")) == 0
    content = (inputs / name).read_bytes()
    (inputs / name).write_bytes(content[:-2] + b"9" + content[-1:])
    capsys.readouterr()
    assert simulate("a/simulation.yaml", "-o", "b") == 2
    said = capsys.readouterr().err
    assert f"{name} is not the file that the set was made of (its SHA-256 begins with" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "b").exists()


def test_maps_that_came_or_went_are_refused(inputs, tmp_path, capsys):
    assert simulate(*from_files("inputs/", "-o", "a")) == 0
    write_map(inputs / "maps/2.mrc", phantom_map(BOX, PIXEL_A), PIXEL_A)
    assert simulate("a/simulation.yaml", "-o", "b") == 2
    assert "maps holds 3 maps, but not those 2 that the set" in capsys.readouterr().err
    (inputs / "maps/2.mrc").unlink()
    (inputs / "maps/notes.txt").write_text("no map either")
    assert simulate("a/simulation.yaml", "-o", "b") == 0
    (inputs / "maps/1.mrc").unlink()
    assert simulate("a/simulation.yaml", "-o", "c") == 2
    assert not (tmp_path / "c").exists()


def test_files_of_other_settings_are_not_compared(inputs, tmp_path):
    """A record is a starting point: other patches may be named on the command line."""
    assert simulate(*from_files("inputs/", "-o", "a")) == 0
    write_stack(inputs / "other.mrcs", torch.randn(6, BOX, BOX), PIXEL_A)
    changed = ["a/simulation.yaml", "--noise.file=inputs/other.mrcs", "-o", "b"]
    assert simulate(*changed) == 0
    assert "inputs/other.mrcs" in record_of(tmp_path / "b")["inputs"]
    assert "inputs/patches.mrcs" not in record_of(tmp_path / "b")["inputs"]


def test_models_joined_by_plus_are_found_apart(tmp_path):
    """Also in folders whose names hold a plus."""
    (tmp_path / "c++").mkdir()
    for name in ("a.pdb", "b.pdb"):
        (tmp_path / "c++" / name).write_text(name)
    molecule = replace(SimulationSettings().molecule, sources=("a.pdb+b.pdb", "phantom"))
    settings = replace(SimulationSettings(), molecule=molecule)
    located, inputs = locate(settings, Description(), [tmp_path / "c++"])
    folder = str(tmp_path / "c++")
    assert located.molecule.sources == (f"{folder}/a.pdb+{folder}/b.pdb", "phantom")
    assert list(inputs) == ["a.pdb", "b.pdb"]
    again, _ = locate(located, Description(), [])
    assert again == located


def test_nameless_and_missing_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def located(name):
        molecule = replace(SimulationSettings().molecule, sources=(name,))
        settings = replace(SimulationSettings(), molecule=molecule)
        return lambda: locate(settings, Description(), [tmp_path / "data"])

    complaint(located(""), "The file '' is not here", "--datadir")
    complaint(located("a.pdb"), "The file 'a.pdb' is not here nor in", "/data; say", "--datadir")
    complaint(located("/none/[a]**.pdb"), "'/none/[a]**.pdb' is not here")
    (tmp_path / "maps").mkdir()
    complaint(located("maps"), "maps holds no map")
    unreadable = Path("/proc/self/mem")  # to any user: nothing is at address 0
    if unreadable.exists():
        complaint(located(str(unreadable)), "Cannot read /proc/self/mem", "name a file")
    noise = replace(SimulationSettings().noise, kind="background", file="maps")
    settings = replace(SimulationSettings(), noise=noise)
    complaint(lambda: locate(settings, Description(), []), "maps is a folder; name a file")


# Recipes

PUBLISHED = {
    "betagal-table1": 4,
    "betagal-table2": 9,
    "betagal-64px": 3,
    "cryobench-igg-1d": 2,
    "cryobench-igg-rl": 2,
    "cryobench-mixture-8": 2,
    "cryobench-ribosembly-like": 2,
    "hsp90-continuous": 6,
    "hsp90-discrete": 3,
    "realistic": 8,
    "ribosome-10028-like": 0,
}


def recipe_file(name: str) -> Path:
    import cryogan.simulation

    return Path(cryogan.simulation.__file__).parent / "recipes" / f"{name}.yaml"


def conditions_of(name: str) -> list[str]:
    return list(yaml.safe_load(recipe_file(name).read_text()).get("conditions", {}))


def settings_in(name, condition=None) -> SimulationSettings:
    return settings_of(read_description(name, condition))


def test_the_recipes_are_those_of_the_papers():
    assert {name: len(conditions_of(name)) for name in recipe_names()} == PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_condition_has_settings_and_says_where_its_files_come_from(name):
    conditions = conditions_of(name)
    used = set()
    for condition in conditions or [None]:
        description = read_description(name, condition)
        settings_of(description).check()
        assert description.condition == condition
        assert description.title
        settings = settings_of(description)
        files = [part for source in settings.molecule.sources for part in source.split("+")]
        files += [settings.ctf.table, settings.noise.file, settings.orientations.file]
        files += [settings.molecule.linker.dihedrals] if settings.molecule.linker else []
        used |= {file for file in files if file is not None}
        for factor in (1.0, 0.5):
            settings_of(description).scaled(factor).check()
    assert used == set(description.needs)
    first = conditions[0] if conditions else None
    assert read_description(name) == read_description(name, first)


def test_table_1():
    for condition, snr_dB, percent in (
        ("-20dB", -20.0, 0.0),
        ("-5.2dB", -5.2, 0.0),
        ("-20dB-shift3", -20.0, 3.0),
        ("-20dB-shift20", -20.0, 20.0),
    ):
        found = settings_in("betagal-table1", condition)
        assert (found.images, found.box_size, found.pixel_size_A) == (41_123, 192, 1.274)
        assert (found.noise.kind, found.noise.snr_dB) == ("background", snr_dB)
        assert found.noise.snr_box_size in (None, 192)
        assert found.shifts.percent == percent
        assert found.shifts.kind == ("triangular" if percent else "none")
        assert (found.molecule.convention, found.molecule.resolution_A) == ("molmap", 2.5)
        assert found.orientations.kind == "uniform"
        assert found.ctf.kind == "table"


def test_table_2():
    conditions = conditions_of("betagal-table2")
    for true, sigma in (("uniform", None), ("sigma2", 2.0), ("sigma3", 3.0)):
        for assumed in ("uniform", "sigma2", "sigma3"):
            condition = f"true-{true}-assumed-{assumed}"
            conditions.remove(condition)
            found = settings_in("betagal-table2", condition)
            kind = "uniform" if sigma is None else "angular-gaussian"
            assert found.orientations.kind == kind
            assert sigma is None or found.orientations.sigma == sigma
            assert replace(found, orientations=SimulationSettings().orientations) == settings_in(
                "betagal-table1", "-20dB"
            )
    assert conditions == []


def flaws_of(settings: SimulationSettings) -> set[str]:
    present = {
        "shifts": settings.shifts.sigma_A,
        "contrast": settings.contrast.spread,
        "noise": settings.noise.spread,
        "junk": settings.junk.share,
        "uneven-views": settings.orientations.file,
    }
    return {name for name, value in present.items() if value}


def test_realistic():
    """All flaws, one at a time, or none; the rest of the set stays the same."""
    everything = {"shifts", "contrast", "noise", "junk"}
    ideal = settings_in("realistic", "ideal")
    assert (ideal.images, ideal.box_size, ideal.noise.snr_box_size) == (10_000, 64, 192)
    for condition in conditions_of("realistic"):
        found = settings_in("realistic", condition)
        expected = {
            "all": everything,
            "all-uneven-views": everything | {"uneven-views"},
            "ideal": set(),
        }.get(condition, {condition.removesuffix("-only")})
        assert flaws_of(found) == expected
        groups = ("shifts", "contrast", "noise", "junk", "orientations")
        assert replace(found, **{name: getattr(ideal, name) for name in groups}) == ideal
    full = settings_in("realistic")
    assert full.shifts.sigma_A == pytest.approx(0.06 * 64 * 3.822, abs=0.01)
    assert (full.contrast.spread, full.noise.spread, full.junk.share) == (0.25, 0.3, 0.2)


@pytest.mark.parametrize("name", ["hsp90-continuous", "hsp90-discrete"])
def test_hsp90(name):
    for condition in conditions_of(name):
        found = settings_in(name, condition)
        assert (found.images, found.box_size, found.pixel_size_A) == (100_000, 32, 5.0)
        assert (found.noise.kind, found.noise.snr_dB) == ("white", -10.0)
        assert found.ctf.kind == "range"


@pytest.mark.parametrize("name", ["hsp90-continuous", "hsp90-discrete"])
def test_hsp90_fits_its_box_in_every_state(name, shared_data):
    for condition in conditions_of(name):
        description = read_description(name, condition)
        settings, inputs = locate(settings_of(description), description, [shared_data])
        assert list(inputs) == ["monoA_snip.pdb", "monoB_snip.pdb"]
        made = prepare(settings).conformations
        states = [motion.states for motion in settings.molecule.motions]
        assert len(made) == math.prod(states)
        assert made.latent.shape == (len(made), len(states))


def test_hsp90_motions():
    """Seitz et al. 2019: 20 states in steps of 1° or ½° about y, of 2° or 1.44° about z."""
    hinge = Motion("B", "y", "A/677/CA", 0.0, 19.0, 20)
    slide = Motion("B/12-442", "z", "all", 0.0, 38.0, 20)
    for condition, motions in (
        ("motion1", [hinge]),
        ("motion1-fine", [replace(hinge, last_deg=19 * 0.5)]),
        ("motion2", [slide]),
        ("motion2-fine", [replace(slide, last_deg=19 * 1.44)]),
        ("both", [hinge, slide]),
        ("homogeneous", [replace(hinge, first_deg=9.5, last_deg=9.5, states=1)]),
    ):
        assert list(settings_in("hsp90-continuous", condition).molecule.motions) == motions
    discrete = settings_in("hsp90-discrete", "2-states-80-20").molecule
    assert discrete.motions == (replace(hinge, states=2),)
    assert discrete.populations == (0.8, 0.2)


@pytest.mark.parametrize("name", [name for name in PUBLISHED if "igg" not in name])
def test_every_recipe_runs_scaled(name, tmp_path, shared_data):
    """Small, with the files from the reference data found in folders of one --datadir.

    The 100 maps of each IgG set take long; tests/test_cryobench_sets.py makes a few.
    """
    full = settings_in(name)
    scale = {192: 0.125, 128: 0.25, 76: 0.5, 64: 0.25, 32: 0.75}[full.box_size]
    assert simulate(
        *(name, "--scale", scale, "--images=30", "--padding=2", "--datadir", shared_data),
        *("-o", tmp_path, "--workers=1"),
    ) == (0)
    record = record_of(tmp_path)
    made = record["settings"]
    assert record["scale"] == scale
    assert made["box_size"] == full.box_size * scale
    assert made["images"] == 30
    width_A = made["box_size"] * made["pixel_size_A"]
    assert width_A == pytest.approx(full.box_size * full.pixel_size_A)
    assert made["noise"]["snr_box_size"] == (full.noise.snr_box_size or full.box_size)
    assert record["measured"]["snr_dB"] == pytest.approx(full.noise.snr_dB, abs=0.5)
    stack = MrcStack.open(tmp_path / "particles.mrcs")
    assert (len(stack), stack.box_size) == (30, made["box_size"])
    assert (tmp_path / "background.mrcs").exists() == (full.noise.kind == "background")


# Scaling and overriding


def test_scaled_settings_keep_field_of_view_and_noise():
    full = SimulationSettings(box_size=48, pixel_size_A=10 / 3, images=400)
    third = full.scaled(1 / 3)
    assert (third.box_size, third.images, third.pixel_size_A) == (16, 133, pytest.approx(10.0))
    assert third.noise == replace(full.noise, snr_box_size=48)
    twice = full.scaled(2 / 3).scaled(1 / 2)
    assert (twice.box_size, twice.noise.snr_box_size) == (16, 48)
    assert twice.pixel_size_A == pytest.approx(10.0)


def test_scaled_images_are_the_cropped_images_of_the_full_box(tmp_path):
    """Signal and noise alike, for a molecule without details finer than the crop keeps.

    A pixel is a sum of voxels along its ray, so all grey values are divided by the factor.
    """
    write_map(tmp_path / "m.mrc", phantom_map(48, 10 / 3), 10 / 3)
    molecule = {"sources": ["m.mrc"], "resolution_A": 50.0}
    recipe = tmp_path / "r.yaml"
    settings = {"molecule": molecule, "box_size": 48, "pixel_size_A": 10 / 3, "seed": 2}
    recipe.write_text(yaml.dump({"settings": settings}))

    def images(kind, scale):
        out = tmp_path / f"{kind}-{scale}"
        options = (f"--noise.kind={kind}", "--images=80", "--padding=3", "--workers=1")
        assert simulate(recipe, "--scale", scale, *options, "-o", out) == 0
        found = MrcStack.open(out / "particles.mrcs").read(torch.arange(80))
        return fourier.resample(found, 14)  # drops the Nyquist lines that a crop has not

    full, third = images("none", 1), images("none", 1 / 3)
    assert float((full / 3 - third).norm() / third.norm()) < 0.02
    noise, noise_of_third = images("white", 1) - full, images("white", 1 / 3) - third
    assert float(noise.std() / noise_of_third.std()) == pytest.approx(3.0, rel=0.03)


@pytest.mark.parametrize("scale", [0.0, -0.5, 1.5, float("nan"), float("inf")])
def test_bad_scales(scale):
    complaint(lambda: SimulationSettings().scaled(scale), f"--scale is {scale:g}; give a number")


def test_options_go_before_the_recipes_values_also_when_scaled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = {
        "title": "mine",
        "settings": {
            "box_size": 40,
            "pixel_size_A": 5.0,
            "images": 90,
            "padding": 2.0,
            "noise": {"snr_dB": 1.0},
            "shifts": {"kind": "triangular", "percent": 2.0},
        },
        "conditions": {"one": {}, "two": {"noise": {"snr_dB": 2.0}, "seed": 9}},
    }
    Path("r.yaml").write_text(yaml.dump(recipe, sort_keys=False))
    assert simulate("r.yaml", "--condition=two", "--noise.kind=none", "-o", "a") == 0
    made = record_of(Path("a"))
    assert made["condition"] == "two"
    assert made["settings"]["noise"] == {
        **{"kind": "none", "snr_dB": 2.0, "snr_box_size": None, "file": None, "spread": 0.0}
    }
    assert made["settings"]["images"] == 90
    assert "scale" not in made
    options = ["--scale=0.5", "--images=7", "--seed", "4", "--shifts.percent=1.5", "--workers=1"]
    assert simulate("-o", "b", *options, "r.yaml") == 0
    made = record_of(Path("b"))
    settings = made["settings"]
    assert (made["condition"], made["scale"]) == ("one", 0.5)
    assert (settings["box_size"], settings["pixel_size_A"], settings["images"]) == (20, 10.0, 7)
    assert (settings["seed"], settings["shifts"]["percent"]) == (4, 1.5)
    assert settings["noise"]["snr_box_size"] == 40
    assert simulate("b/simulation.yaml", "--scale=0.8", "-oc") == 0
    made = record_of(Path("c"))
    assert made["scale"] == pytest.approx(0.4)
    assert made["settings"]["box_size"] == 16
    assert made["settings"]["noise"]["snr_box_size"] == 40


# What is wrong with a description


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "d.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("settings: {box_size: 32", ["d.yaml is not valid YAML (", "line 1", "correct"]),
        ("", ["d.yaml has no settings; give"]),
        ("- 1", ["d.yaml has no settings; give"]),
        ("title: x", ["d.yaml has no settings; give"]),
        ("settings:", ["The entry settings of", "is no group of settings"]),
        ("settings: 3", ["The entry settings of", "is no group of settings"]),
        ("settings: {}\nsetings: 3", ["unknown entry setings; known are title, about"]),
        ("settings: {}\n3: 3", ["unknown entry 3; known are title, about"]),
        ("settings: {}\nconditions: [a]", ["The entry conditions of", "is no group of groups"]),
        ("settings: {}\nconditions: {a: 1}", ["The entry conditions of", "is no group of groups"]),
        ("settings: {}\nscale: half", ["The entry scale of", "is no number"]),
        ("settings: {}\ninputs: {a: {path: b}}", ["The entry inputs of", "path and sha256"]),
        ("settings: {}\ntitle: [a]", ["The entry title of", "is no text"]),
    ],
)
def test_descriptions_that_are_none(tmp_path, text, parts):
    complaint(lambda: read_description(written(tmp_path, text)), *parts)


def test_missing_descriptions_and_conditions(tmp_path):
    complaint(lambda: read_description("no.yaml"), "Cannot read no.yaml: No such file", "check")
    path = written(tmp_path, "settings: {}\nconditions: {a: {}, b: {}}")
    complaint(lambda: read_description(path, "c"), "d.yaml has no condition c; choose one of a, b")
    path = written(tmp_path, "settings: {}")
    complaint(lambda: read_description(path, "c"), "has no condition c; choose one of none")
    (tmp_path / "d.yaml").write_bytes(b"\xff\xfe\x00")
    complaint(lambda: read_description(path), "d.yaml is not valid YAML")


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"box": 32}, ["The settings of T are wrong (", "'box'", "--help"]),
        ({"noise": {"snr_db": 3}}, ["The settings of T", "'noise'", "'snr_db'"]),
        ({"box_size": "large"}, ["The setting box_size of T is large, which it cannot be"]),
        ({"box_size": None}, ["The setting box_size of T is None"]),
        ({"noise": {"snr_dB": None}}, ["The setting snr_dB of T is None"]),
        ({"noise": None}, ["The setting noise of T is None"]),
        ({"molecule": "phantom"}, ["The setting molecule of T is phantom"]),
        ({"molecule": {"sources": "phantom"}}, ["The setting molecule.sources of T is phantom"]),
        ({"ctf": {"kind": "perfect"}}, ["The setting ctf.kind of T is perfect"]),
        ({"shifts": {"percent": [1]}}, ["The setting shifts.percent of T is [1]"]),
        ({"orientations": {"file": 5}}, ["The setting orientations.file of T is 5"]),
        ({"molecule": {"motions": [{"atoms": "B", "about": "y"}]}}, ["motions", "'about'"]),
        ({"molecule": {"motions": [{"axis": "y"}]}}, ["motions", "atoms"]),
        ({"molecule": {"hinge_deg": [0, 1, 2]}}, ["The setting molecule.hinge_deg of T is [0, 1"]),
        ({"ctf": {"voltage_kV": -300}}, ["ctf.voltage_kV is -300, but voltage lies from 20"]),
        ({"noise": {"snr_dB": float("nan")}}, ["noise.snr_dB is nan; give"]),
    ],
)
def test_wrong_settings(settings, parts):
    complaint(lambda: settings_of(Description(title="T", settings=settings)), *parts)


def test_a_record_from_before_a_setting_existed_is_the_same_set(tmp_path):
    settings = replace(SimulationSettings(), images=7)
    old = {
        name: value
        for name, value in asdict(settings).items()
        if name not in ("contrast", "junk", "particles_per_micrograph")
    }
    record = written(tmp_path, yaml.dump({"settings": old}, Dumper=_Lists))
    assert is_same(Path(record), settings, {})
    assert not is_same(Path(record), replace(settings, seed=1), {})


def test_settings_survive_the_way_through_yaml(tmp_path):
    """Also numbers that YAML would rather take for text."""
    settings = settings_in("hsp90-continuous", "both")
    settings = replace(settings, pixel_size_A=1e-05, seed=2**70, padding=3.3333333333333335)
    record = written(tmp_path, yaml.dump({"settings": asdict(settings)}, Dumper=_Lists))
    assert settings_of(read_description(record)) == settings


class _Lists(yaml.SafeDumper):
    pass


_Lists.add_representer(tuple, lambda dumper, data: dumper.represent_list(data))


def test_what_a_description_is():
    assert is_description("hsp90-discrete")
    assert is_description("a/b.yml")
    assert not is_description("phantom")
    assert not is_description("hsp90")
