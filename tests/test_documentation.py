"""Links, anchors and command lines of README and docs hold; pages that it needs are there."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cryogan.cli import COMMANDS, cryosparc, reconstruct, relion
from documentation import DOCS, PAGES, ROOT, anchors, commands, inline_commands, links, split

PASSING_ON = (relion, cryosparc)
"""Commands that pass on to `reconstruct` what is not theirs."""


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def parse(words: list[str]) -> Any:
    """Options as the command's own parser reads them; nothing is run and no file opened."""
    if words[0] in ("--help", "--version"):
        return None
    module = importlib.import_module(f"cryogan.cli.{words[0]}")
    arguments = words[1:]
    if {"--help", "--help-all"} & set(arguments):
        return None
    if hasattr(module, "_joined"):
        arguments = module._joined(arguments)
    if module is reconstruct:
        arguments = [word for word in arguments if word != "--print_config"]
        known = reconstruct._preset_and_model([w for w in arguments if not w.endswith(".yaml")])
        found = module.make_parser(*known).given(arguments)
        reconstruct.chosen_objective(arguments, found)
        return found
    parser = module.make_parser()
    if module in PASSING_ON:
        arguments, passed_on = parser.told_apart(arguments)
        given = reconstruct.options_of(["particles.star", *passed_on])
        reconstruct.chosen_objective(passed_on, given)
    return parser.given(arguments)


# Links


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in links(page):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert there.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(there), target


def test_the_checker_sees_what_is_broken(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b` – c\n\n[x](other.md#y) `[not](code)`\n\n```sh\n[n](n)\n```\n\n## A\n## A\n"
    )
    assert links(page) == ["other.md#y"]
    assert anchors(page) == {"a-b--c", "a", "a-1"}


def test_every_page_can_be_reached() -> None:
    """From README or the site's home page, by links."""
    start = [ROOT / "README.md", DOCS / "index.md"]
    reached: set[Path] = set()
    while start:
        page = start.pop()
        if page in reached:
            continue
        reached.add(page)
        targets = {(page.parent / link.partition("#")[0]).resolve() for link in links(page)}
        start += [target for target in targets if target.suffix == ".md" and target.is_file()]
    assert {page for page in PAGES if page.is_relative_to(DOCS)} <= reached


# Commands


@pytest.mark.parametrize("page", [page for page in PAGES if list(commands(page))], ids=name)
def test_command_lines_parse(page: Path) -> None:
    for words in commands(page):
        assert words, page
        parse(words)


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "CHANGELOG.md"], ids=name)
def test_commands_in_sentences_are_there(page: Path) -> None:
    """With an option they parse as well, unless they lack what a sentence leaves out."""
    for words in inline_commands(page):
        if not words or words[0].startswith("-"):
            continue
        assert words[0] in COMMANDS, words
        module = importlib.import_module(f"cryogan.cli.{words[0]}")
        parser = module.make_parser()
        if module in PASSING_ON:
            parse(words)
            continue
        for word in words[1:]:
            if word.startswith("--") and word not in ("--help", "--help-all"):
                parser._refuse_unknown(word.partition("=")[0])


def test_wrong_commands_are_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```sh\nA=1 cryogan check x.star | less  # why\ncryogan assign ...\n"
        "cryogan refine a \\\n   --sym D2 && cryogan report a\n```\n\n    cryogan status run\n"
    )
    found = list(commands(page))
    assert found == [
        ["check", "x.star"],
        ["refine", "a", "--sym", "D2"],
        ["report", "a"],
        ["status", "run"],
    ]
    with pytest.raises(Exception, match="no option"):
        parse(["check", "x.star", "--simm", "D2"])


# Pages


def test_readme_is_short_and_begins_with_the_best_route() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    first = next(words for words in commands(ROOT / "README.md") if words[0] == "reconstruct")
    assert first == ["reconstruct", "particles.star", "-o", "run"]
    assert all(word in text for word in ("RELION 5", "cryoSPARC", "cryoDRGN", "RECOVAR"))


def test_twenty_questions_have_answers() -> None:
    text = (DOCS / "questions.md").read_text()
    rows = re.findall(r"^\| (\d+)\. .*\]\(([^)]+)\) \|$", text, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 21))


def test_reference_has_every_public_name() -> None:
    import cryogan as cg

    found = re.findall(r"^::: (\S+)$", (DOCS / "reference.md").read_text(), re.MULTILINE)
    for target in found:
        module, _, last = target.rpartition(".")
        assert hasattr(importlib.import_module(module), last), target
    assert set(cg.__all__) <= {target.rpartition(".")[2] for target in found}


def test_navigation_names_pages_that_are_there() -> None:
    def pages(node: Any) -> list[str]:
        if isinstance(node, str):
            return [node]
        return [
            page
            for part in (node.values() if isinstance(node, dict) else node)
            for page in pages(part)
        ]

    listed = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert len(listed) == len(set(listed))
    assert all((DOCS / page).is_file() for page in listed)


def test_python_examples_of_pages_compile() -> None:
    for page in PAGES:
        for language, block in split(page.read_text())[1]:
            if language in ("python", "py") and ">>>" not in block:
                compile(block, name(page), "exec")
