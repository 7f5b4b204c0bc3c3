"""The Markdown files of the repository, taken apart for tests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

__all__ = ["DOCUMENTS", "ROOT", "anchors_in", "blocks_in", "links_in", "prose_of", "section_of", "snippets_in"]

ROOT: Final = Path(__file__).parent.parent
DOCUMENTS: Final = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "bench/**/*.md", "tests/**/*.md", "compose/*.md")
    for path in ROOT.glob(pattern)
    if "target" not in path.parts
)

_FENCED: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks_in(text: str, language: str = "") -> list[str]:
    """Return the fenced blocks of one language, by default those without a language."""
    return [block for found, block in _FENCED.findall(text) if found == language]


def snippets_in(text: str) -> list[str]:
    """Return the code: the spans between backticks, and the lines of all blocks, without their prompts."""
    lines = [line.removeprefix("$ ") for _, block in _FENCED.findall(text) for line in block.splitlines()]
    return lines + re.findall(r"`([^`\n]+)`", _FENCED.sub("", text))


def section_of(text: str, heading: str) -> str:
    """Return the text under a second-level heading, which must exist."""
    before, found, after = text.partition(f"\n## {heading}\n")
    assert found, f"no section {heading!r} after {before[-80:]!r}"
    return after.partition("\n## ")[0]


def anchors_in(text: str) -> set[str]:
    """Return the anchors of the headings, as GitHub forms them."""
    headings = re.findall(r"^#+ (.+)$", _FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links_in(text: str) -> list[str]:
    """Return the targets of the links."""
    return re.findall(r"\]\(([^)\s]+)\)", _FENCED.sub("", text))


def prose_of(text: str) -> str:
    """Return the text without blocks of code, and with nothing between backticks."""
    return re.sub(r"`[^`\n]*`", "``", _FENCED.sub("", text))
