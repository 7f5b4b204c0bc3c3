"""The locked requirements: exact versions with hashes, within the ranges of pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from itertools import chain
from typing import TYPE_CHECKING, Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from documents import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable

PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: Final[dict[str, list[str]]] = PROJECT["project"]["optional-dependencies"]
RUNTIME: Final[list[str]] = [*PROJECT["project"]["dependencies"], *chain.from_iterable(EXTRAS.values())]
GROUPS: Final[dict[str, list[str]]] = PROJECT["dependency-groups"]
FILES: Final = {
    "requirements.txt": RUNTIME,
    "requirements-dev.txt": [*RUNTIME, *GROUPS["dev"]],
    "requirements-audit.txt": GROUPS["audit"],
}
ENTRY: Final = re.compile(
    r"^(?P<name>[a-z0-9-]+)==(?P<version>[\w.]+)(?: ; [^\\\n]+)?(?P<hashes>(?: \\\n    --hash=sha256:[0-9a-f]{64})+)$",
    re.MULTILINE,
)


def locked(name: str) -> dict[str, str]:
    """Return the version of each package in a file of requirements."""
    return {found["name"]: found["version"] for found in ENTRY.finditer((ROOT / name).read_text())}


def wanted(ranges: Iterable[str]) -> dict[str, Requirement]:
    found = map(Requirement, ranges)
    return {canonicalize_name(requirement.name): requirement for requirement in found}


@pytest.mark.parametrize("name", FILES)
def test_every_line_is_an_exact_version_with_hashes(name: str) -> None:
    rest = re.sub(r"^#.*\n", "", ENTRY.sub("", (ROOT / name).read_text()), flags=re.MULTILINE)
    assert rest.strip() == ""
    assert locked(name)


@pytest.mark.parametrize("name", FILES)
def test_locked_versions_are_within_the_ranges(name: str) -> None:
    versions = locked(name)
    for package, requirement in wanted(FILES[name]).items():
        assert requirement.specifier.contains(versions[package]), f"{requirement}: run make lock"


def test_tests_run_with_the_versions_of_the_image() -> None:
    assert locked("requirements.txt").items() <= locked("requirements-dev.txt").items()
