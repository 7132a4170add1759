"""What the site needs beyond the pages in docs/: called by mkdocs (mkdocs.yml, `hooks`).

Pages link to files outside docs/, as they are read in the repository too: tables and pictures in
benchmarks/results. Those that pages link to are copied into the site.
"""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
LINK = re.compile(r"(?P<before>\]\()(?P<target>\.\.?/[^)#\s]+)(?P<after>[)#\s])")


def on_config(config: Any) -> Any:
    """Anchors as the repository's host makes them, which keeps letters such as β."""
    from pymdownx.slugs import slugify

    config.mdx_configs.setdefault("toc", {})["slugify"] = slugify(case="lower")
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the files outside docs/ that pages link to."""
    from mkdocs.structure.files import File

    found = {
        path
        for page in DOCS.rglob("*.md")
        for link in LINK.finditer(page.read_text())
        if (path := outside(page, link["target"])) is not None and path.is_file()
    }
    for path in sorted(found):
        name = str(path.relative_to(ROOT))
        files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links that leave docs/ lead into the site; those to folders become plain text."""
    source = DOCS / page.file.src_uri
    markdown = re.sub(
        r"\[([^\]]+)\]\((\.\.?/[^)#\s]+)\)",
        lambda link: link[1] if is_folder(source, link[2]) else link[0],
        markdown,
    )
    return LINK.sub(lambda link: link["before"] + inside(source, link) + link["after"], markdown)


def outside(page: Path, target: str) -> Path | None:
    """The file of the repository that a link of a page leads to, if it is not in docs/."""
    path = (page.parent / target).resolve()
    if path.is_relative_to(DOCS) or not path.is_relative_to(ROOT):
        return None
    return path


def is_folder(page: Path, target: str) -> bool:
    """Whether the link leads to a folder outside docs/."""
    path = outside(page, target)
    return path is not None and path.is_dir()


def inside(page: Path, link: re.Match[str]) -> str:
    """The link's target as it is in the site."""
    path = outside(page, link["target"])
    if path is None:
        return link["target"]
    up = "../" * (len(page.relative_to(DOCS).parts) - 1)
    return f"{up}{path.relative_to(ROOT)}"
