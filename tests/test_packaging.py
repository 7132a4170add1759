"""Files about the package say the same: versions, requirements, Python versions, sources."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import cryogan

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
YAML = [
    *WORKFLOWS,
    *(ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"),
    *(ROOT / name for name in (".pre-commit-config.yaml", "mkdocs.yml", "CITATION.cff")),
]
OTHER_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
"""Packages that conda-forge calls otherwise."""


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def recipe() -> Any:
    """The conda recipe, with its variables filled in."""
    text = (ROOT / "recipe" / "meta.yaml").read_text()
    values = dict(re.findall(r'{% set (\w+) = "(.*)" %}', text))
    text = re.sub(r"{%.*%}", "", text).replace("{{ name[0] }}", values["name"][0])
    return yaml.safe_load(re.sub(r"{{ (\w+) }}", lambda m: values.get(m[1], m[1]), text))


@pytest.mark.parametrize("path", YAML, ids=lambda path: str(path.relative_to(ROOT)))
def test_yaml_files_can_be_read(path: Path) -> None:
    assert isinstance(load(path), dict)


def test_versions_are_one() -> None:
    version = PROJECT["version"]
    assert cryogan.__version__ == version
    assert load(ROOT / "CITATION.cff")["version"] == version
    assert recipe()["package"] == {"name": PROJECT["name"], "version": version}
    assert f"version = {{{version}}}" in (ROOT / "docs" / "citing.md").read_text()


def test_the_recipe_requires_what_the_package_does() -> None:
    def plain(requirement: str) -> str:
        name, _, least = requirement.replace(" ", "").partition(">=")
        return f"{OTHER_NAMES.get(name, name).replace('docstring-', 'docstring_')}>={least}"

    run = [line.replace(" ", "") for line in recipe()["requirements"]["run"]]
    assert run[0] == f"python{PROJECT['requires-python']}"
    assert sorted(run[1:]) == sorted(map(plain, PROJECT["dependencies"]))
    name, _, function = recipe()["build"]["entry_points"][0].partition(" = ")
    assert PROJECT["scripts"] == {name: function}


def test_the_recipe_has_what_conda_forge_asks_for() -> None:
    about = recipe()["about"]
    assert about["home"].startswith("https://")
    assert about["license"] == PROJECT["license"]
    assert {about["license_file"]} == set(PROJECT["license-files"])
    assert about["summary"]
    assert recipe()["extra"]["recipe-maintainers"]


def test_what_is_published_was_installed_and_has_the_version_of_its_tag() -> None:
    """Before the files are handed on to the job that uploads them."""
    steps = load(ROOT / ".github" / "workflows" / "publish.yml")["jobs"]["build"]["steps"]
    uploads = [str(step.get("uses", "")).startswith("actions/upload-artifact") for step in steps]
    before = "".join(step.get("run", "") for step in steps[: uploads.index(True)])
    for needed in ("-m venv", "GITHUB_REF_NAME", "cryogan.__version__", "cryogan simulate"):
        assert needed in before, needed


def test_groups_of_requirements_hold_no_other_versions() -> None:
    needed = set(PROJECT["dependencies"])
    groups = PROJECT["optional-dependencies"]
    for name in ("physics", "files", "report", "command-line", "evaluation"):
        assert set(groups[name]) <= needed, name


def test_every_python_version_is_tested() -> None:
    least, beyond = re.findall(r"3\.(\d+)", PROJECT["requires-python"])
    tested = load(ROOT / ".github" / "workflows" / "tests.yml")["jobs"]["fast"]["strategy"]
    supported = [f"3.{minor}" for minor in range(int(least), int(beyond))]
    assert tested["matrix"]["python"] == supported
    assert {"ubuntu-latest", "macos-latest"} <= set(tested["matrix"]["os"])
    for file, pattern in (("Dockerfile", r"python:([\d.]+)"), ("cryogan.def", r"python:([\d.]+)")):
        found = re.search(pattern, (ROOT / file).read_text())
        assert found is not None
        assert found[1] in supported, file


def test_workflows_have_few_rights() -> None:
    """Only the jobs that publish may do more than read, and no secret is named."""
    for path in WORKFLOWS:
        assert load(path)["permissions"]["contents"] == "read", path
        assert "secrets." not in path.read_text(), path
    publishing = load(ROOT / ".github" / "workflows" / "publish.yml")["jobs"]["pypi"]
    assert publishing["permissions"] == {"id-token": "write"}


def test_pre_commit_formats_as_the_tests_do() -> None:
    constraints = (ROOT / "constraints.txt").read_text()
    pinned = re.search(r"^ruff==(.*)$", constraints, re.MULTILINE)
    repositories = load(ROOT / ".pre-commit-config.yaml")["repos"]
    assert pinned is not None
    assert repositories[0]["rev"] == f"v{pinned[1]}"


def test_containers_copy_files_that_are_there() -> None:
    copied = re.findall(r"^COPY (.*) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    files = " ".join(copied).split()
    section = (ROOT / "cryogan.def").read_text().split("%files")[1].split("%post")[0]
    files += [line.split()[0] for line in section.splitlines() if line.strip()]
    assert all((ROOT / file).exists() for file in files)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {f"!{file}" for file in " ".join(copied).split()} <= set(ignored)


def test_papers_are_cited_alike() -> None:
    references = load(ROOT / "CITATION.cff")["references"]
    bibtex = (ROOT / "docs" / "citing.md").read_text()
    assert [entry["doi"] for entry in references] == re.findall(r"doi\s*= {(.*)}", bibtex)
    for entry in references:
        assert str(entry["year"]) in bibtex
