"""Everything that the documentation names exists."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from commands import environment
from documents import DOCUMENTS, ROOT, anchors_in, blocks_in, links_in, section_of, snippets_in
from harness.process import COMMAND

OPTION = re.compile(r"(?<![\w-])--[a-z*][a-z*-]*")
"""An option, or several by a pattern."""
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
FOREIGN = {
    "--volumes",
    "--events",
    "--require-hashes",
    "--client-cert-auth",
    "--peer-client-cert-auth",
    "--peer-cert-allowed-cn",
    "--host-whitelist",
    "--force-new-cluster",
}
"""Options of other tools that the text names without the tool."""
UNMAPPED = {"__init__", "lib"}
"""Files that the map of ARCHITECTURE.md omits, because they hold no part of their own."""


HELPS = r"""
import contextlib, io, json, re
from qed.cli.main import main
found, names = {}, [()]
for name in names:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        main([*name, "--help"])
    found[" ".join(["qed", *name])] = shown.getvalue()
    listed = shown.getvalue().partition("Commands:\n")[2].partition("\n\n")[0]
    names += [(*name, command) for command in re.findall(r"^  ([a-z-]+)", listed, re.MULTILINE)]
print(json.dumps(found))
"""
"""Prints the help of every command. One process: some fifty take a minute on a busy machine."""


@cache
def helps() -> dict[tuple[str, ...], str]:
    """Return the help of every command, and of every command of a command."""

    def output(*command: str) -> str:
        shown = environment(COLUMNS="200")
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=shown).stdout

    found = json.loads(output(sys.executable, "-c", HELPS)).items()
    return {tuple(name.split()): text for name, text in found} | {("qed-server",): output(COMMAND, "--help")}


@cache
def options_of(*command: str) -> frozenset[str]:
    """Return the options of a command, with the global ones."""
    shown = helps()[command] + (helps()["qed",] if command[0] == "qed" else "")
    return frozenset(OPTION.findall(shown))


def commands_in(snippet: str) -> list[tuple[tuple[str, ...], set[str]]]:
    """Return the commands of this project that a snippet runs, each with its options."""
    found = []
    for part in re.split(r"[|;&]+", snippet):
        words = [word for word in part.split() if not re.match(r"[A-Z_]+=", word)]
        if words[:1] not in (["qed"], ["qed-server"]):
            continue
        command: tuple[str, ...] = (words[0],)
        for word in words[1:]:
            command = (*command, word) if (*command, word) in helps() else command
        found.append((command, set(OPTION.findall(part))))
    return found


def is_known(option: str, known: frozenset[str]) -> bool:
    return bool(fnmatch.filter(known, option))


def test_every_command_is_known_to_this_test() -> None:
    assert {("qed", "add"), ("qed", "cluster", "status"), ("qed-server",)} <= set(helps())
    assert "--receipts" in options_of("qed", "add")
    assert "--endpoints" in options_of("qed", "add")
    assert "--receipts" not in options_of("qed-server")
    assert commands_in("A=b qed --json cluster status | qed add --lines -") == [
        (("qed", "cluster", "status"), {"--json"}),
        (("qed", "add"), {"--lines"}),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_options_in_documents_exist(name: str) -> None:
    anywhere = frozenset[str]().union(*(options_of(*command) for command in helps()))
    for snippet in snippets_in((ROOT / name).read_text()):
        for command, options in commands_in(snippet):
            assert all(is_known(option, options_of(*command)) for option in options), snippet
        if snippet.startswith("--"):
            assert all(is_known(option, anywhere) for option in set(OPTION.findall(snippet)) - FOREIGN), snippet


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    document = ROOT / name
    for link in links_in(document.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors_in(target.read_text()), link


REFERENCE = re.compile(r'\b([A-Z]+\.md),[\s/!#*]+"([^"]+)"')
"""A heading of a document, as code and prose refer to it, possibly across a line break."""


def references_in(text: str) -> list[tuple[str, str]]:
    return [(document, re.sub(r"[\s/!#*]+", " ", heading)) for document, heading in REFERENCE.findall(text)]


def headings_of(document: str) -> set[str]:
    found = re.findall(r"^#+ (.+)$", (ROOT / document).read_text(), re.MULTILINE)
    return {name for heading in found for name in (heading, heading.partition(", ")[0])}


def test_references_are_seen_in_every_form() -> None:
    text = 'x (FORMATS.md, "JSON"). /// FORMATS.md,\n//! "Data\n//! folder" # FORMATS.md,\n    # "Pages"'
    assert references_in(text) == [("FORMATS.md", "JSON"), ("FORMATS.md", "Data folder"), ("FORMATS.md", "Pages")]


def test_headings_that_code_refers_to_exist() -> None:
    patterns = ("python/**/*.py", "python/**/*.pyi", "rust/*/src/**/*.rs", "rust/*/tests/**/*.rs", "tests/**/*.py")
    sources = [path for pattern in patterns for path in ROOT.glob(pattern) if path != Path(__file__)]
    found = [(path, *reference) for path in [*sources, *DOCUMENTS] for reference in references_in(path.read_text())]
    assert len(found) > 10
    for path, document, heading in found:
        assert heading in headings_of(document), f"{path} refers to {heading!r} in {document}"


def modules() -> list[Path]:
    folders = ("rust/core/src", "rust/node/src", "python/qed", "python/qed/server", "python/qed/cli")
    return [path for folder in folders for path in (ROOT / folder).iterdir() if path.suffix in {".rs", ".py"}]


def test_map_of_the_architecture_has_every_module() -> None:
    (drawn,) = blocks_in(section_of((ROOT / "ARCHITECTURE.md").read_text(), "The pieces"))
    named = {name for line in drawn.splitlines() for name in re.findall(r"\w+", line.strip().partition("  ")[0])}
    assert {path.stem for path in modules()} - named - UNMAPPED == set()
