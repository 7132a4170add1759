"""docs/results.md says what the tables in benchmarks/results hold."""

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

from cryogan.errors import InputError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("results_page")


def test_the_page_is_up_to_date(generator: ModuleType) -> None:
    """If not: `python benchmarks/results_page.py`."""
    assert (ROOT / "docs" / "results.md").read_text() == generator.page(generator.RESULTS)


def test_links_and_scripts_of_the_page_are_there() -> None:
    text = (ROOT / "docs" / "results.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / "docs" / target).exists(), target
    for script in re.findall(r"python (benchmarks/\w+\.py)", text):
        assert (ROOT / script).is_file(), script


def test_a_table_without_a_section_is_refused(generator: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("a\n1\n")
    with pytest.raises(InputError, match="new"):
        generator.page(tmp_path)


def test_groups_are_summarised_by_median_range_and_count(generator: ModuleType) -> None:
    section = generator.Section("t", {"t": ""}, "c", "a", ("fsc_A", "verdict"), ("set",))
    rows = [
        {"set": "a", "fsc_A": value, "verdict": word}
        for value, word in (("8.0", "found"), ("9.5", "doubtful"), ("8.4", "found"))
    ]
    *_, line = generator.table(section, rows)
    assert line == "| a | 3 | 8.4 (8.0 to 9.5) | 2 found, 1 doubtful |"
    last = generator.Section("t", {"t": ""}, "c", "a", ("fsc_A",), ("set",), True)
    assert generator.table(last, rows)[-1] == "| a | 8.4 |"


def test_claims_point_to_sections_that_there_are() -> None:
    """That the anchors are there is tests/test_documentation.py; no table is linked by itself."""
    for name in ("README.md", "docs/findings.md"):
        text = (ROOT / name).read_text()
        assert re.findall(r"results\.md#([^)]+)\)", text), name
        assert not re.findall(r"\]\([^)]*benchmarks/results/[^)]*\.csv\)", text), name
