"""The package as a whole: its examples, its imports, its words."""

import doctest
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

import cryogan as cg
from cryogan.phantom import phantom_map
from cryogan.simulation.in_memory import write_dataset
from simulated_sets import centred_particles

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
FILES = sorted(SOURCE.rglob("*.py"))


def name_of(file: Path) -> str:
    parts = file.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = [name_of(file) for file in FILES if file.name != "__main__.py"]
WITH_EXAMPLES = [name_of(file) for file in FILES if ">>>" in file.read_text()]
PAGE = "docs/python.md"
SHOWN = re.findall(r"```python\n(.*?)```", (ROOT / PAGE).read_text(), re.DOTALL)


# Examples


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings(name: str) -> None:
    result = doctest.testmod(import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0


def test_examples_of_the_python_page() -> None:
    found = [block for block in SHOWN if ">>>" in block]
    assert found
    for block in found:
        example = doctest.DocTestParser().get_doctest(block, {}, PAGE, PAGE, 0)
        assert doctest.DocTestRunner().run(example).failed == 0


@pytest.mark.slow
def test_the_python_page_reconstructs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it shows of reconstructing runs as it stands, where a particles.star is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    generator = torch.Generator().manual_seed(7)
    volume = phantom_map(16, 12.0, symmetry="D2")
    write_dataset(tmp_path, centred_particles(volume, 12.0, 240, 0.0, generator), volume)
    shown = [block for block in SHOWN if "cg.reconstruct(" in block and ">>>" not in block]
    assert shown
    names: dict[str, object] = {}
    exec("".join(shown), names)
    assert isinstance(names["result"], cg.Reconstruction)
    assert Path("poses.star").is_file()


def test_public_names_are_documented() -> None:
    for name in cg.__all__:
        assert (getattr(cg, name).__doc__ or "").strip(), name


# Imports


@pytest.mark.slow
def test_any_module_can_be_imported_first_and_changes_nothing() -> None:
    """No circle of imports holds only by luck; none sets threads, signals or random numbers."""
    program = f"""
import importlib, signal, sys
import numpy, torch
def state():
    return (
        torch.get_num_threads(),
        torch.get_num_interop_threads(),
        torch.get_default_dtype(),
        signal.getsignal(signal.SIGINT),
        torch.get_rng_state().sum().item(),
        numpy.random.get_state()[1].sum(),
    )
before = state()
for name in {MODULES!r}:
    for loaded in [n for n in sys.modules if n == "cryogan" or n.startswith("cryogan.")]:
        del sys.modules[loaded]
    importlib.import_module(name)
    assert state() == before, name
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_pictures_need_no_screen() -> None:
    """matplotlib is used without a backend of its own being chosen for the user."""
    for file in FILES:
        text = file.read_text()
        assert "matplotlib.use(" not in text, file
        assert "pyplot" not in text, file


# Words


OLD_WORDS = re.compile(
    r"\b(ascents?|ascend(s|ing)? by|climb(s|ed|ing)?|wakes?|wakened|asleep|landscapes?|judge[ds]?|"
    r"judgements?|handovers?|hand(ed|s)? over|forecasts?|by heart|the game|believ(e[ds]?|able)|"
    r"trust(s|ed)?|generator network|invert(ed)? auto)\b",
    re.IGNORECASE,
)


def test_words_are_the_fields() -> None:
    """One term per concept, the field's own; old names live in the table that refuses them."""
    files = [*FILES, *SOURCE.rglob("*.j2"), *SOURCE.rglob("*.yaml"), *ROOT.glob("*.md")]
    files += [*(ROOT / "docs").rglob("*.md"), *(ROOT / "docs" / "notebooks").glob("*.py")]
    found = [
        f"{file.relative_to(ROOT)}:{number}: {match[0]}"
        for file in files
        if file.name not in ("parser.py", "CHANGELOG.md")
        for number, line in enumerate(file.read_text().splitlines(), start=1)
        for match in OLD_WORDS.finditer(line)
    ]
    assert found == []
