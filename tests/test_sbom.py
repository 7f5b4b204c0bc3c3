"""`make sbom`: the list of what the wheel contains and requires is complete."""

from __future__ import annotations

import json
import shutil
import subprocess
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from documents import ROOT
from test_locks import locked

if TYPE_CHECKING:
    from pathlib import Path

# The first build compiles the extension.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder with the wheel and both lists."""
    folder = tmp_path_factory.mktemp("dist")
    make = str(shutil.which("make"))
    subprocess.run([make, "--silent", "sbom", f"DIST={folder}"], cwd=ROOT, check=True, timeout=900)
    return folder


def components(path: Path) -> dict[str, str]:
    """Return the version of each component in a list."""
    document: dict[str, Any] = json.loads(path.read_text())
    assert document["bomFormat"] == "CycloneDX"
    return {component["name"]: component["version"] for component in document["components"]}


def test_python_list_has_every_locked_requirement(folder: Path) -> None:
    assert components(folder / "qed-log-python.cyclonedx.json") == locked("requirements.txt")


def test_rust_list_has_the_crates_that_are_linked(folder: Path) -> None:
    found = components(folder / "qed-log-rust.cyclonedx.json")
    packages = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    known = {(package["name"], package["version"]) for package in packages}
    assert found.items() <= known
    assert {"qed-core", "qed-node", "raft", "protobuf", "fjall", "sha2", "pyo3"} <= set(found)
    assert "proptest" not in found, "tests are not linked"
