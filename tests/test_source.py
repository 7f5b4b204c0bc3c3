"""Checks that no linter makes: the length of functions, and a reason for every lint exception."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LONGEST = 60
FOLDERS = ("python", "tests", "bench", "docs")
FILES = [str(path.relative_to(ROOT)) for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]

# Assembled, so that this file does not match its own search.
EXCEPTION = re.compile("# (?:no" + r"qa\b[:A-Z0-9, ]*|type: ig" + r"nore(?:\[[\w, -]+\])?)(.*)")


def has_reason(line: str) -> bool:
    """Return whether a line has no lint exception, or one with a reason."""
    found = EXCEPTION.search(line)
    return found is None or re.match(r" *(#|-) *\w", found[1]) is not None


def test_reasons_are_seen() -> None:
    mark = "x = 1  # no" + "qa: S311"
    assert has_reason("x = 1  # a comment")
    assert has_reason(f"{mark} - repeatable")
    assert has_reason(f"{mark}  # repeatable")
    assert not has_reason(mark)
    assert not has_reason("x = 1  # type: ig" + "nore[misc]")


@pytest.mark.parametrize("name", FILES)
def test_exceptions_from_lints_say_why(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()
    assert [number for number, line in enumerate(lines, 1) if not has_reason(line)] == []


@pytest.mark.parametrize("name", FILES)
def test_functions_are_short(name: str) -> None:
    for node in ast.walk(ast.parse((ROOT / name).read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < LONGEST, f"{node.name} in line {node.lineno}"
