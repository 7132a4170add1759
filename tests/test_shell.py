"""Shell habits: completion, --quiet, --json, colours."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cryogan
from cryogan.cli import COMMANDS, main
from cryogan.cli.completion import completion
from cryogan.cli.display import console
from cryogan.io.mrc import write_map
from cryogan.json_text import to_json
from cryogan.phantom import phantom_map


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """Shell → file with its completion."""
    folder = tmp_path_factory.mktemp("completion")
    for shell in ("bash", "zsh"):
        (folder / shell).write_text(completion(shell))
    return {shell: folder / shell for shell in ("bash", "zsh")}


def completed(script: Path, *words: str) -> set[str]:
    """What bash offers for the last of the words of a command line."""
    program = (
        f"source {script}; COMP_WORDS=({' '.join(repr(w) for w in words)}); "
        f"COMP_CWORD={len(words) - 1}; _cryogan; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_commands_options_and_choices(scripts):
    bash = scripts["bash"]
    assert completed(bash, "cryogan", "") >= {*COMMANDS, "--help"}
    assert completed(bash, "cryogan", "re") == {"reconstruct", "refine", "relion", "report"}
    assert completed(bash, "cryogan", "watch", "--p") == {"--poses", "--port"}
    assert "--sym" in completed(bash, "cryogan", "reconstruct", "particles.star", "--")
    assert completed(bash, "cryogan", "reconstruct", "--likelihood.iter") == {
        "--likelihood.iterations"
    }
    assert "--likelihood" not in completed(bash, "cryogan", "reconstruct", "--likelihood")
    assert completed(bash, "cryogan", "reconstruct", "a.star", "--preset", "") == {
        "default",
        "paper",
    }
    assert completed(bash, "cryogan", "check", "part") == set()  # files, which bash itself finds


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_reads_its_script(scripts):
    program = (
        f"autoload -Uz compinit; compinit -u -D; source {scripts['zsh']}; print $_comps[cryogan]"
    )
    done = subprocess.run(["zsh", "-f", "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("_cryogan", "")


def test_completion_is_refused_for_other_shells(capsys):
    assert main(["completion", "fish"]) == 2
    assert "give one of" in capsys.readouterr().err


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    for name in ("map", "truth"):
        write_map(folder / f"{name}.mrc", phantom_map(16, 12.0), 12.0)
    return folder


def test_evaluate_prints_json_and_its_words_elsewhere(maps, capsys):
    command = ["evaluate", str(maps / "map.mrc"), "--truth", str(maps / "truth.mrc")]
    assert main([*command, "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["correlation"] == pytest.approx(1.0, abs=0.01)
    assert found["resolution_A"]["truth_0.5"] == pytest.approx(24.0)
    assert "FSC with truth" in said.err
    assert main([*command, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_json_has_no_numbers_that_json_does_not_have():
    value = {"a": math.nan, "b": [math.inf, 1.5], "c": (True, None, Path("x"))}
    assert to_json(value) == '{"a": null, "b": [null, 1.5], "c": [true, null, "x"]}'


def test_no_colours_without_a_terminal_or_where_they_are_not_wanted(monkeypatch):
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    assert console().color_system is None or sys.stdout.isatty()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert console().color_system is not None
    monkeypatch.setenv("NO_COLOR", "1")
    assert console().no_color


def test_version_is_in_the_scripts(scripts):
    for path in scripts.values():
        assert cryogan.__version__ in path.read_text()
