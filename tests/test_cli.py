"""The command line as it is typed: help, wrong and old options, refusals that take no time."""

import errno
import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import cryogan
from cryogan.cli import COMMANDS, TASKS, main
from cryogan.cli.parser import OLD_GROUPS, RENAMED
from cryogan.objectives.adversarial.config import AdversarialConfig
from cryogan.objectives.likelihood.config import LikelihoodConfig
from cryogan.simulation.settings import SimulationSettings

HEAVY = (
    *("torch", "numpy", "plotly", "matplotlib", "roma", "skimage", "scipy", "pandas"),
    *("mrcfile", "gemmi", "healpix", "PIL", "jinja2"),
)
POSITIONALS = {
    "check": ["particles.star"],
    "select": ["particles.star"],
    "downsample": ["particles.star"],
    "reconstruct": ["particles.star"],
    "refine": ["run"],
    "assign": ["particles.star", "run"],
    "simulate": ["phantom"],
    "evaluate": ["map.mrc"],
    "symmetry": ["map.mrc"],
    "report": ["run"],
    "status": ["run"],
    "clean": ["run"],
    "benchmark": ["table1"],
    "demo": [],
    "volumes": ["run"],
    "flip": ["map.mrc"],
    "relion": [],
    "cryosparc": [],
    "watch": ["run"],
    "completion": ["bash"],
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one sentence with which a command is refused, nothing being written."""
    before = sorted(Path().rglob("*"))
    assert main(list(arguments)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("cryogan: ")
    assert said.err.count("\n") == 1
    assert "usage" not in said.err
    assert "Traceback" not in said.err
    assert "Parser key" not in said.err  # the parser's own words
    assert sorted(Path().rglob("*")) == before
    return said.err


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command prints that leaves with 0 and does nothing else."""
    try:
        code = main(list(arguments))
    except SystemExit as stopped:
        code = stopped.code
    assert code == 0
    said = capsys.readouterr()
    assert said.err == ""
    return said.out


def options_in(text: str) -> set[str]:
    """Names of the options that a help describes."""
    lines = [line for line in text.splitlines() if line.startswith("  -")]
    return {name for line in lines for name in re.findall(r"--?[a-z][\w.-]*", line[:60])}


def in_new_process(*commands: list[str], cwd: Path) -> list[tuple[int, str, list[str]]]:
    """Exit code, standard error and heavy modules imported by then, of commands run in turn."""
    program = f"""
import contextlib, io, json, sys
from cryogan.cli import main
found = []
for arguments in json.loads(sys.argv[1]):
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            code = main(arguments)
        except SystemExit as stopped:
            code = stopped.code
    found.append((code, error.getvalue(), [name for name in {HEAVY!r} if name in sys.modules]))
print(json.dumps(found))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(commands)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    return [tuple(each) for each in json.loads(done.stdout)]


# Help


def test_overview_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    overview = shown(capsys)
    for request in ("--help", "-h", "--help-all"):
        assert shown(capsys, request) == overview
    for name, what in COMMANDS.items():
        assert f"{name} " in overview
        assert what in overview
    for task, command in TASKS.items():
        assert f"{task} " in overview
        assert command in overview
        assert command.split()[1] in COMMANDS
    assert max(len(line) for line in overview.splitlines()) <= 110
    assert shown(capsys, "--version").strip() == cryogan.__version__


@pytest.mark.parametrize("command", COMMANDS)
def test_short_help_fits_on_a_screen(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    short = shown(capsys, command, "--help")
    assert shown(capsys, command, "-h") == short
    options = [line for line in short.splitlines() if line.startswith("  -")]
    assert bool(options) == (command != "completion")
    assert len(options) <= 14
    assert f"Example: cryogan {command} " in short
    assert f"cryogan {command} --help-all" in short
    assert "%%" not in short
    assert max(len(line) for line in short.splitlines()[1:]) <= 100


@pytest.mark.parametrize("command", COMMANDS)
def test_whole_help_lists_every_option(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown_whole = shown(capsys, command, "--help-all")
    assert "%%" not in shown_whole
    whole = options_in(shown_whole)
    assert options_in(shown(capsys, command, "--help")) <= whole
    settings: tuple[tuple[str, type], ...] = {
        "reconstruct": (("adversarial.", AdversarialConfig), ("likelihood.", LikelihoodConfig)),
        "refine": (("likelihood.", LikelihoodConfig),),
        "simulate": (("", SimulationSettings),),
    }.get(command, ())
    for group, config in settings:
        for field in fields(config):
            if field.name == "assumptions":  # they are options of their own
                continue
            nested = f"--{group}{field.name}."
            assert f"--{group}{field.name}" in whole or any(n.startswith(nested) for n in whole)


def test_the_example_of_every_command_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    """Refused for a missing file, if at all, and not for how it is written."""
    for command in COMMANDS:
        if command in ("demo", "completion"):
            continue  # they would run
        line = shown(capsys, command, "--help").split("Example: cryogan ")[1].splitlines()[0]
        sentence = refusal(capsys, *line.split())
        assert any(words in sentence for words in ("There is no", "no run folder", "is not here"))


# Wrong options


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["reconstruct", "--simm", "D2"], "reconstruct has no option --simm; the nearest is --sym"),
        (["reconstruct", "--simm=D2"], "the nearest is --sym"),
        (["refine", "--diametre", "90"], "refine has no option --diametre; the nearest is --diam"),
        (["assign", "--max_shift", "9"], "the nearest is --max-shift"),
        (["evaluate", "--truthh", "x"], "the nearest is --truth"),
        (["simulate", "--box-size", "64"], "the nearest is --box_size"),
        (["demo", "--sed", "1"], "the nearest is --seed"),
        (["report", "--hlep"], "report has no option --hlep"),
        (["reconstruct", "--adversarial.bach_size", "8"], "nearest is --adversarial.batch_size"),
        (["reconstruct", "--likelihod.iterations", "8"], "nearest is --likelihood.iterations"),
        (["refine", "--adversarial.batch_size", "8"], "has no option --adversarial.batch_size"),
        (["reconstruct", "--qqqqqqqq"], "has no option --qqqqqqqq (cryogan reconstruct --help-all"),
    ],
)
def test_a_wrong_option_is_told_the_nearest_right_one(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = arguments[0]
    sentence = refusal(capsys, command, *POSITIONALS[command], *arguments[1:])
    assert words in sentence
    assert sentence.strip().endswith(".") or sentence.strip().endswith(").")


def test_options_are_not_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nearest is --diameter" in refusal(capsys, "reconstruct", "a.star", "--diam", "90")


@pytest.mark.parametrize(
    "words",
    [
        ["check", "{}.star"],
        ["evaluate", "{}.mrc", "--truth", "y.mrc"],
        ["symmetry", "{}.mrc"],
        ["simulate", "phantom", "-o", "{}"],
        ["report", "{}"],
    ],
)
def test_names_that_file_systems_do_not_have(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.format(300 * "x") for word in words]) == 2
    told = capsys.readouterr().err.strip()
    assert told.endswith("give a shorter name.")
    assert len(told) < 130
    assert "\n" not in told


def test_a_full_disk_is_told_in_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(arguments: list[str]) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", "run/map.mrc")

    monkeypatch.setattr("cryogan.cli.check.run", run)
    assert main(["check", "a.star"]) == 5
    told = capsys.readouterr().err
    assert "No space left on device (run/map.mrc); free some space" in told


def test_an_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    sentence = refusal(capsys, "reconstrct", "a.star")
    assert "There is no command 'reconstrct'; the nearest is reconstruct" in sentence
    for name in COMMANDS:
        assert name in sentence
    assert "There is no command 'qqqqqq' (commands:" in refusal(capsys, "qqqqqq")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["reconstruct"], "particles is missing"),
        (["refine"], "run is missing"),
        (["assign", "a.star"], "needs a star file to write; give it with -o"),
        (["simulate", "-o", "set"], "source is missing"),
        (["evaluate"], "map is missing"),
        (["report"], "run is missing"),
        (["reconstruct", "a.star"], "needs an output folder; give it with -o"),
        (["assign", "a.star", "run"], "needs a star file to write; give it with -o"),
        (["simulate", "phantom"], "needs an output folder; give it with -o"),
        (["reconstruct", "a.star", "b.star", "-o", "run"], "'b.star' cannot be understood"),
        (["reconstruct", "a.star", "-z", "1"], "-z"),
        (["reconstruct", "a.star", "-o"], "--output needs a value"),
    ],
)
def test_what_must_be_given(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = refusal(capsys, *arguments)
    assert words in sentence
    assert arguments[0] in sentence


# Old spellings


def test_every_old_spelling_is_told_the_new_one(capsys: pytest.CaptureFixture[str]) -> None:
    """And what it is told is an option that there is."""
    names = options_in(shown(capsys, "reconstruct", "--help-all"))
    assert len(RENAMED) > 20
    for old, new in RENAMED.items():
        assert old not in names
        for arguments in ([old, "1"], [f"{old}=1"]):
            sentence = refusal(capsys, "reconstruct", "a.star", "-o", "run", *arguments)
            assert f"The option {old} is now {new}." in sentence
        told = [word.strip(",(") for word in new.split() if word.startswith("--")]
        assert told
        assert set(told) <= names


@pytest.mark.parametrize("command", ["reconstruct", "refine"])
def test_old_groups_are_told_the_new_ones(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = [command, *POSITIONALS[command]]
    assert OLD_GROUPS == {"training": "adversarial", "ascent": "likelihood"}
    for old, new in OLD_GROUPS.items():
        sentence = refusal(capsys, *given, f"--{old}.batch_size", "8")
        assert f"The option --{old}.batch_size is now --{new}.batch_size." in sentence


def test_settings_that_kept_their_names_have_the_new_group(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Those that no entry of the table renames are there under the new group."""
    names = options_in(shown(capsys, "reconstruct", "--help-all"))
    for old in ("--training.volume_lr", "--training.stages", "--ascent.iterations"):
        group, _, name = old.removeprefix("--").partition(".")
        new = f"--{OLD_GROUPS[group]}.{name}"
        assert new in names
        assert f"{old} is now {new}." in refusal(capsys, "reconstruct", "a", "-o", "run", old, "1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training:\n  symmetry: C2\n", "--training.symmetry is now --sym"),
        ("training:\n  batch_size: 8\n", "--training.batch_size is now --adversarial.batch_size"),
        ("invert: 'yes'\n", "--invert is now --sign"),
        ("sim: C2\n", "has no option --sim; the nearest is --sym"),
        ("adversarial:\n  bach_size: 8\n", "the nearest is --adversarial.batch_size"),
        ("seed: one\n", "--seed is 'one'; give a whole number"),
        ("seed: [1\n", "run.yaml"),
    ],
)
def test_a_configuration_file_is_held_to_the_same(
    text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("run.yaml").write_text(text)
    assert words in refusal(capsys, "reconstruct", "a.star", "-o", "run", "--config", "run.yaml")


def test_a_configuration_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no.yaml" in refusal(capsys, "reconstruct", "a.star", "-o", "r", "--config", "no.yaml")


# Types and values


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--seed", "one"], "--seed is 'one'; give a whole number"),
        (["--seed=1.5"], "--seed is '1.5'; give a whole number"),
        (["--seed"], "--seed needs a value"),
        (["--diameter", "wide"], "--diameter is 'wide'; give a number"),
        (["--diameter", "-90"], "--diameter is -90; give a length in Å above 0"),
        (["--diameter", "nan"], "--diameter is 'nan'; give a number"),
        (["--max-shift", "far"], "--max-shift is 'far'; give a length in Å (12) or a percentage"),
        (["--max-shift", "-3"], "--max-shift is '-3'"),
        (["--max-shift", "60%"], "largest shift is 60 % of the box"),
        (["--mask-edge", "2"], "mask_edge is 2"),
        (["--view-sigma", "0"], "view_sigma is 0"),
        (["--sign", "white"], "--sign is 'white'; give one of"),
        (["--model", "both"], "--model is 'both'; give one of"),
        (["--preset", "papr"], "--preset is 'papr'; give one of"),
        (["--sym", "Q9"], "symmetry 'Q9' is unknown"),
        (["--latent", "unifrm"], "latent 'unifrm' is unknown; did you mean 'uniform'?"),
        (["--objective", "likelyhood"], "'likelyhood' is unknown; did you mean 'likelihood'?"),
        (["--classes", "3"], "latent is not discrete"),
        (["--latent", "discrete", "--classes", "1"], "classes is 1; give at least 2"),
        (["--latent", "discrete", "--basis-volumes", "6"], "basis_volumes is 6"),
        (["--model", "homogeneous", "--latent", "circle"], "leave out --latent circle"),
        (["--model", "heterogeneous", "--latent", "none"], "leave out --latent none"),
        (["--mask", "no.mrc"], "There is no file no.mrc"),
        (["--mask", "here.txt", "--diameter", "90"], "Give --diameter or --mask, not both"),
        (["--mask", "here.txt", "--mask-edge", "0.1"], "Give --mask-edge or --mask, not both"),
        (["--noise-patches", "no.mrcs"], "There is no file no.mrcs"),
        (["--adversarial.batch_size", "0"], "batch_size is 0; give at least 1"),
        (["--adversarial.batch_size", "many"], "--adversarial.batch_size is 'many'; give a whole"),
        (["--adversarial.loss", "hinge"], "loss is 'hinge'; give one of 'relativistic'"),
        (["--adversarial.critic", "blind"], "critic 'blind' is unknown"),
        (["--adversarial.power_limit", "much"], "power_limit is 'much'; give a number or null"),
        (["--adversarial.phase_flip", "perhaps"], "is 'perhaps'; give true or false"),
        (["--adversarial.betas", "[0.5]"], "betas is '[0.5]'; give"),
        (["--adversarial.stages", "[{box_size: 16}]"], "stages: images is missing"),
        (["--adversarial.stages", "[{box: 16, images: 9999}]"], "stages: there is no 'box'"),
        (["--adversarial.stages", "[{box_size: 15, images: 9999}]"], "has box size 15"),
        (["--adversarial.stages", "[]"], "no training stage"),
        (
            ["--objective", "likelihood", "--likelihood.annealing", "[3, 1]"],
            "annealing is 3 to 1; give two positive numbers",
        ),
    ],
)
def test_wrong_values_are_refused(
    option: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("here.txt").write_text("no mask")
    Path("a.star").write_text("no star file")
    objective = ["--objective=adversarial"] if option[0].startswith("--adversarial.") else []
    assert words in refusal(capsys, "reconstruct", "a.star", "-o", "run", *objective, *option)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--adversarial.batch_size", "8"], "--adversarial.batch_size is for the adversarial"),
        (["--adversarial.batch_size=8"], "and this run's is likelihood; add --objective adv"),
        (["--objective=likelihood", "--adversarial.critic=compact"], "adversarial.critic is for"),
        (["--objective=adversarial", "--likelihood.iterations=3"], "this run's is adversarial"),
        (["--objective=a:b", "--likelihood.iterations=3"], "--likelihood.iterations is for the"),
        (["--config", "old.yaml"], "'adversarial' in the configuration file is for the adv"),
        (["--preset", "paper"], "The likelihood makes no use of the preset paper"),
        (["--view-sigma", "2"], "views (--view-sigma); leave it out, or choose adversarial"),
        (["-o", "run", "--likelihood.iterations=3"], "and this run's is adversarial"),
    ],
)
def test_what_is_for_another_objective_is_refused(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would change nothing; not so where it is the objective of the run in the folder."""
    Path("old.yaml").write_text("adversarial: {batch_size: 8}\n")
    Path("run").mkdir()
    Path("run/config.json").write_text('{"objective": "adversarial"}')
    given = ["reconstruct", "no.star", "-o", "new"]
    assert words in refusal(capsys, *given, *options)


@pytest.mark.parametrize(
    "options",
    [
        ["--objective=adversarial", "--adversarial.batch_size=8", "--view-sigma=2"],
        ["-o", "run", "--adversarial.batch_size=8", "--preset=paper"],
        ["-o", "run", "--config=old.yaml"],
        ["--config=both.yaml"],
        ["--config=both.yaml", "--objective=adversarial"],
        ["--config=printed.yaml", "-o", "new"],
    ],
)
def test_settings_of_the_objective_are_taken(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A file may have those of both beside the objective that it names, as a printed one does."""
    groups = "adversarial: {batch_size: 8}\nlikelihood: {iterations: 3}\n"
    Path("old.yaml").write_text("adversarial: {batch_size: 8}\n")
    Path("both.yaml").write_text(f"objective: likelihood\n{groups}")
    with pytest.raises(SystemExit):
        main(["reconstruct", "no.star", "--print_config"])
    Path("printed.yaml").write_text(capsys.readouterr().out)
    Path("run").mkdir()
    Path("run/config.json").write_text('{"objective": "adversarial"}')
    assert "no.star" in refusal(capsys, "reconstruct", "no.star", "-o", "new", *options)


def test_the_last_of_two_values_counts(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["reconstruct", "no.star", "-o", "run", "--sym", "Q9", "--sym", "D2"]
    assert "no.star" in refusal(capsys, *given)


# Before torch


def test_importing_the_package_imports_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import cryogan; cryogan.__version__"],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "cryogan" in imported
    assert not imported & set(HEAVY)


def test_names_of_the_package_are_found_when_they_are_used() -> None:
    for name in cryogan.__all__:
        assert getattr(cryogan, name).__module__.startswith("cryogan.")
        assert name in dir(cryogan)
    with pytest.raises(AttributeError, match="no attribute 'reconstrukt'"):
        cryogan.reconstrukt  # noqa: B018


def test_what_needs_no_numbers_is_answered_without_torch(folder: Path) -> None:
    """Version, help, wrong options, files that are not there, values out of range: no torch."""
    (folder / "a.star").write_text("data_\n")
    (folder / "run").mkdir()
    star = ["reconstruct", "a.star", "-o", "new"]
    run = ["--config", "c.yaml"]
    (folder / "c.yaml").write_text("sym: Q9\n")
    commands = [
        ["--version"],
        ["--help"],
        *([command, "--help"] for command in COMMANDS),
        *([command, "--help-all"] for command in COMMANDS),
        ["recontruct"],
        *([command, *POSITIONALS[command], "--simm", "D2"] for command in COMMANDS),
        ["reconstruct", "missing.star", "-o", "new"],
        ["refine", "missing"],
        ["refine", "run"],
        ["assign", "missing.star", "run", "-o", "poses.star"],
        ["assign", "a.star", "run", "-o", "poses.star"],
        ["assign", "a.star", "run", "-o", "nowhere/poses.star"],
        ["report", "run"],
        ["report", "run", "other"],
        ["report", "run", "-o", "nowhere/page.html"],
        ["check", "missing.star"],
        ["check", "a.star", "-o", "nowhere/check.html"],
        ["select", "missing.star", "-o", "new.star"],
        ["select", "a.star", "-o", "nowhere/new.star"],
        ["downsample", "missing.star", "-o", "new", "--box", "64"],
        ["downsample", "a.star", "-o", "new"],
        ["evaluate", "missing.mrc", "--truth", "a.star"],
        ["evaluate", "a.star", "--truth", "missing.mrc"],
        ["evaluate", "a.star", "--truth", "a.star", "--truth-dir", "run"],
        ["evaluate", "a.star", "--truth", "a.star", "-o", "nowhere/fsc.csv"],
        ["volumes", "run", "--latents", "missing.csv", "-o", "new"],
        ["volumes", "run", "-o", "new"],
        ["simulate", "missing.cif", "-o", "new"],
        ["simulate", "phantom", "-o", "new", "--images", "0"],
        ["simulate", "phantom", "-o", "new", "--noise.kind", "pink"],
        ["simulate", "phantom", "-o", "new", "--workers", "0"],
        ["benchmark", "table7", "-o", "new"],
        ["benchmark", "table1", "-o", "new", "--condition", "-30dB"],
        ["benchmark", "table1", "-o", "new", "--datadir", "missing"],
        ["benchmark", "table1", "-o", "new", "--likelihood.iterations", "0"],
        *([*star, "--sym", "Q9"], ["refine", "run", "--sym", "Q9"], [*star, *run]),
        *([*star, "--diameter", "0"], [*star, "--max-shift", "far"], [*star, "--latent", "no"]),
        [*star, "--adversarial.batch_size", "8"],
        ["refine", "run", "--likelihood.iterations", "0"],
        [*star, "--likelihood.iterations", "0"],
        [*star, "--objective", "adversarial", "--adversarial.batch_size", "0"],
        [*star, "--objective", "adversarial", "--adversarial.critic", "blind"],
        [*star, "--preset", "paper"],
        *([*star, "--objective", "guess"], [*star, "--mask", "no.mrc"], [*star, "--ind", "no.txt"]),
        *([*star, "--training.symmetry", "C2"], [*star, "--seed", "one"]),
    ]
    found = in_new_process(*commands, cwd=folder)
    helps = 2 + 2 * len(COMMANDS)
    for number, (arguments, (code, error, heavy)) in enumerate(zip(commands, found, strict=True)):
        assert code == (0 if number < helps else 2), (arguments, error)
        assert error.count("\n") == (0 if number < helps else 1), (arguments, error)
        assert heavy == [], arguments
    assert sorted(path.name for path in folder.iterdir()) == ["a.star", "c.yaml", "run"]


def test_the_module_is_a_program_too(folder: Path) -> None:
    """`python -m cryogan`, with the exit code of the command, and nothing on the wrong stream."""
    environment = os.environ | {"PYTHONWARNINGS": "error"}
    for arguments, code in ((["--version"], 0), (["reconstruct", "no.star", "-o", "run"], 2)):
        done = subprocess.run(
            [sys.executable, "-m", "cryogan", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code
        assert bool(done.stdout) == (code == 0)
        assert bool(done.stderr) == (code == 2)
    assert done.stderr == "cryogan: There is no file no.star; give a particle file.\n"
