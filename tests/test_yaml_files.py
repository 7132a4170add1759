"""Settings files that would exhaust the machine, contradict themselves or hold no numbers."""

import tracemalloc
from pathlib import Path

import pytest

from cryogan.cli import main
from cryogan.errors import InputError
from cryogan.io.yaml_files import read_yaml
from cryogan.simulation.description import read_description

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefg", "bcdefgh", strict=True)
)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "line 2: the alias *a is not supported"),
        ("a: &a [*a]", "line 1: the alias *a"),
        ("a: " + "[" * 100_000, "more than 20 levels are nested"),
        ("a: " + "{b: " * 100_000, "more than 20 levels are nested"),
        ("- " * 100_000, "more than 20 levels are nested"),
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' stands twice"),
        ("a: {b: 1, 'b': 2}", "line 1: the key 'b' stands twice"),
        ("a: .nan", "line 1: the number .nan is not finite"),
        ("a: -.INF", "the number -.INF is not finite"),
        ("a: 1e999", "the number 1e999 is not finite"),
        ("a: !!float .nan", "the number .nan is not finite"),
        ("a: " + "9" * 5000, "a value cannot be understood"),
        ("a: " + "9" * 400, "line 1: the number 99999999999999999999... is too large"),
        ("a: !!timestamp 2020-13-40", "a value cannot be understood"),
        ("a: !!python/name:os.system x", "could not determine a constructor"),
        ("a: b\x00", "control characters are not allowed"),
        ("a: 'b", "line 1: while scanning a quoted scalar"),
        ("#" * 2_000_000, "it has more than 1,048,576 characters"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str, words: str) -> None:
    tracemalloc.start()
    with pytest.raises(InputError) as caught:
        read_yaml(written(tmp_path, text))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    message = str(caught.value)
    assert words in message
    assert "settings.yaml is not valid YAML (" in message
    assert message.endswith("; correct it.")
    assert "\n" not in message
    assert peak_bytes < 30e6


def test_what_is_read(tmp_path: Path) -> None:
    text = "\ufeffa: 1e-3\nb: -2.5E+4\nc: 2020-01-02\nd: [1, -2, .5, 3., 1e5]\ne: &anchor x\n"
    assert read_yaml(written(tmp_path, text)) == {
        "a": 0.001,
        "b": -25000.0,
        "c": "2020-01-02",
        "d": [1, -2, 0.5, 3.0, 100000.0],
        "e": "x",
    }


def test_one_reader_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Recipes, configuration files, values on the command line, and texts in a file."""
    monkeypatch.chdir(tmp_path)
    alias = "[&a [1], *a]"
    path = str(written(tmp_path, f"settings: {{box_size: {alias}}}"))
    with pytest.raises(InputError, match="alias"):
        read_description(path)
    in_text = str(tmp_path / "text.yaml")
    Path(in_text).write_text(f"settings: {{shifts: '{{percent: {alias}}}'}}")
    for arguments in (
        ["simulate", path],
        ["simulate", in_text],
        ["reconstruct", "p.star", "--config", path],
        ["reconstruct", "p.star", "--objective=adversarial", "--adversarial.batch_size", alias],
        ["reconstruct", "p.star", "--objective", "a:b", "--settings", f"{{b: {alias}}}"],
    ):
        assert main([*arguments, "-o", "new"]) == 2
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1, said
        assert said[0].startswith("cryogan: ")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["settings.yaml", "text.yaml"]
