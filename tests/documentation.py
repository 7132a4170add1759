"""The Markdown pages of the repository: their links, anchors and commands."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / ".github").rglob("*.md")])

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^ *(```+|~~~+)(.*)$")
_PLACEHOLDER = re.compile(r"\.\.\.|…|\b(NAME|VALUE|COMMAND|OPTIONS)\b|[$<{]\w*[>}]")


def split(text: str) -> tuple[str, list[tuple[str, str]]]:
    """The text without its fenced blocks, and these as (language, text)."""
    lines: list[str] = []
    blocks: list[tuple[str, list[str]]] = []
    fence = None
    for line in text.splitlines():
        found = _FENCE.match(line)
        if fence is None and found:
            fence = found[1]
            blocks.append((found[2].strip(), []))
        elif fence is not None and line.strip() == fence:
            fence = None
        elif fence is not None:
            blocks[-1][1].append(line)
        else:
            lines.append(line)
    return "\n".join(lines), [(language, "\n".join(block)) for language, block in blocks]


def links(page: Path) -> list[str]:
    """Targets of links and pictures, those in code left out."""
    prose = re.sub(r"`[^`\n]*`", "`code`", split(page.read_text())[0])
    return _LINK.findall(prose)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the repository's host and the site make them."""
    found: set[str] = set()
    for title in re.findall(r"^#+ (.*)$", split(page.read_text())[0], re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "").replace("*", "")
        name = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        numbered = (name if n == 0 else f"{name}-{n}" for n in range(len(found) + 1))
        found.add(next(one for one in numbered if one not in found))
    return found


def commands(page: Path) -> Iterator[list[str]]:
    """The words after `cryogan` of every command line in blocks that are shell or indented.

    A line with `...`, <name>, $NAME, NAME, VALUE, OPTIONS or COMMAND is a pattern, no command.
    """
    prose, blocks = split(page.read_text())
    indented = re.findall(r"(?:^ {4}.*\n?)+", prose, re.MULTILINE)
    texts = [block for language, block in blocks if language in ("sh", "bash", "")]
    for text in [*texts, *indented]:
        for line in re.sub(r"\\\n\s*", " ", text).splitlines():
            yield from _of_line(line)


def inline_commands(page: Path) -> Iterator[list[str]]:
    """The same of code inside sentences."""
    for code in re.findall(r"`([^`]+)`", split(page.read_text())[0]):
        yield from _of_line(" ".join(code.split()))


def _of_line(line: str) -> Iterator[list[str]]:
    if not re.search(r"\bcryogan\b", line) or _PLACEHOLDER.search(re.sub(r"\$DATA/", "", line)):
        return
    lexer = shlex.shlex(line.strip(), posix=True, punctuation_chars="|&;")
    lexer.whitespace_split, lexer.commenters = True, "#"
    words: list[str] = []
    try:
        tokens = list(lexer)
    except ValueError:  # a sentence with an apostrophe
        return
    for word in [*tokens, ";"]:
        if set(word) <= set("|&;"):
            yield from _command(words)
            words = []
        else:
            words.append(word)


def _command(words: list[str]) -> Iterator[list[str]]:
    while words and (re.fullmatch(r"\w+=.*", words[0]) or words[0] in ("nice", "exec", "time")):
        words = words[1:]
    if words[:1] == ["cryogan"]:
        yield words[1:]
    elif words[:1] == ["torchrun"] and "cryogan" in words:
        yield words[words.index("cryogan") + 1 :]
    elif words[:3] == ["python", "-m", "cryogan"]:
        yield words[3:]
