"""What people read on a narrow terminal: ids stay whole, so that they can be copied, and nothing is cut."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

import pytest

from commands import qed, qed_on_terminal, read_lines

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from conftest import StartServer

NAME: Final = "the operators of the night"
WIDTHS: Final = (80, 60)
STYLE: Final = re.compile(r"\x1b\[[0-9;]*m")


class Busy:
    """A server with keys, acts and backups, asked on a terminal."""

    def __init__(self, start_server: StartServer, folder: Path) -> None:
        self.at: tuple[str, ...] = ("--endpoints", start_server(folder).url)
        roles = [part for role in ("operate", "append", "prove", "observe") for part in ("--role", role)]
        self.admin = self.key(*roles, "--name", NAME)
        self.at = (*self.at, "--api-key", str(self.admin["Key"]))
        self.short_lived = self.key("--role", "append", "--name", "billing", "--expires", "90d")
        assert qed(*self.at, "add", "--event", "e").returncode == 0
        self.backups = [
            read_lines(qed(*self.at, "backup", "create", "--json", *since).stdout)[0]
            for since in ((), ("--since", "1"))
        ]

    def key(self, *options: str) -> dict[str, object]:
        done = qed(*self.at, "keys", "create", *options, "--json")
        assert done.returncode == 0, done.stderr
        return read_lines(done.stdout)[0]

    def shown(self, width: int, *command: str) -> list[str]:
        """Return what a terminal of that width shows."""
        code, screen = qed_on_terminal(*self.at, *command, COLUMNS=str(width))
        assert code == 0, screen
        return STYLE.sub("", screen).splitlines()


@pytest.fixture(scope="module")
def busy(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Busy:
    return Busy(start_server, tmp_path_factory.mktemp("busy"))


def has_words(lines: Sequence[str], *words: object) -> bool:
    """Return whether one line has these words, in this order."""
    return any(
        re.search(r"\b" + r"\b.*\b".join(re.escape(str(word)) for word in words) + r"\b", line) for line in lines
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_keys_are_listed_whole(busy: Busy, width: int) -> None:
    lines = busy.shown(width, "keys", "list")
    assert max(map(len, lines)) <= width
    assert has_words(lines, busy.admin["Id"], "operate", "never", "ago") or has_words(
        lines, busy.admin["Id"], "operate", "never", "just now"
    )
    expires = str(busy.short_lived["Expires"])
    assert has_words(lines, busy.short_lived["Id"], "append", expires[:10], "not known")
    assert has_words(lines, "the operators of the")
    assert has_words(lines, "billing", f"{expires[11:16]} UTC")


@pytest.mark.parametrize("width", WIDTHS)
def test_addresses_are_listed_whole(busy: Busy, width: int) -> None:
    lines = busy.shown(width, "cluster", "status")
    (member,) = read_lines(qed(*busy.at, "cluster", "status", "--json").stdout)[0]["members"]
    assert max(len(line) for line in lines if not line.startswith(" ClusterId:")) <= width
    for name in ("http_addr", "mgmt_addr", "raft_addr"):
        assert any(line.split()[-1:] == [member[name]] for line in lines), name


@pytest.mark.parametrize("width", WIDTHS)
def test_the_history_is_listed_whole(busy: Busy, width: int) -> None:
    lines = busy.shown(width, "cluster", "history")
    acts = [json.loads(line) for line in qed(*busy.at, "cluster", "history", "--json").stdout.splitlines()]
    for act in acts:
        when = act["act"]["when"].replace("T", " ")[:19]
        assert f"{act['index']} {act['act']['deed']}, {when} UTC" in lines
    founded, created = acts[0]["act"], acts[1]["act"]
    assert f"  cluster: {founded['cluster']}" in lines
    assert f"  id: {busy.admin['Id']}" in lines
    assert f"  name: {NAME}" in lines
    assert f"  by key {busy.admin['Id']} ({NAME}) from {acts[2]['act']['from']}" in lines
    # They say nothing to people; programs get them.
    assert created["public_key"]
    assert not any("public_key" in line or "None" in line for line in lines)


@pytest.mark.parametrize("width", WIDTHS)
def test_backups_are_listed_whole(busy: Busy, width: int) -> None:
    lines = busy.shown(width, "backup", "list")
    assert max(map(len, lines)) <= width
    first, second = busy.backups
    assert has_words(lines, first["Id"], "UTC", first["Events"], first["Bytes"])
    assert has_words(lines, second["Id"], "UTC", second["Events"], first["Id"], second["Bytes"])
    assert f"Of log {first['Log']}: 1, 2." in lines
    records = read_lines(qed(*busy.at, "backup", "list", "--json").stdout)
    assert records == busy.backups


def test_an_id_is_whole_on_any_terminal(busy: Busy) -> None:
    assert has_words(busy.shown(30, "keys", "list"), busy.admin["Id"])
