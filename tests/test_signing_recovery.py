"""A signed log after a disaster, as docs/recovery.md describes it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import qed
from commands import qed as run_qed
from harness.process import Server
from test_signing import Signed, add_refused, ask, receipt_in, running

if TYPE_CHECKING:
    from pathlib import Path


def backed_up(server: Server, folder: Path) -> Path:
    """Return a backup of the log."""
    done = run_qed("backup", "create", "--to", str(folder), "--json", QED_ENDPOINTS=server.url)
    assert done.returncode == 0, done.stderr
    return folder / str(json.loads(done.stdout)["Id"])


def restored(backup: Path, folder: Path) -> None:
    done = run_qed("restore", str(backup), "--data-dir", str(folder))
    assert done.returncode == 0, done.stderr


def test_a_backup_that_has_all_goes_on_under_its_name(tmp_path: Path) -> None:
    signed = Signed(tmp_path)
    server = Server("lone", tmp_path / "data", extra=signed.options())
    with running(server):
        memory = qed.Memory(tmp_path / "seen")
        signed.policy.verify(receipt_in(ask(server, b"one")), b"one", memory=memory)
        backup = backed_up(server, tmp_path / "backups")
        assert server.stop() == 0
        server.wipe()
        restored(backup, server.folder)
        server.start()
        signed.policy.verify(receipt_in(ask(server, b"two")), b"two", memory=memory)


def test_a_backup_that_lacks_signed_entries_needs_a_new_name(tmp_path: Path) -> None:
    signed = Signed(tmp_path)
    server = Server("lone", tmp_path / "data", extra=signed.options())
    with running(server):
        ask(server, b"one")
        backup = backed_up(server, tmp_path / "backups")
        ask(server, b"two")
        assert server.stop() == 0
        server.wipe()
        restored(backup, server.folder)
        server.start()
        assert "1 entries, but 2 were signed" in add_refused(server)
        assert server.stop() == 0
    (tmp_path / "again").mkdir()
    again = Signed(tmp_path / "again", "log.example.com/test/2")
    renamed = Server("lone", server.folder, extra=(*again.options(), "--trust-new-memory"))
    with running(renamed):
        again.policy.verify(receipt_in(ask(renamed, b"other two")), b"other two")
        with qed.Client(renamed.url) as client:
            assert client.signers().log == "log.example.com/test/2"
            assert [row.vkey for row in client.signers().signers] == again.vkeys
        # From now on it has this name.
        assert renamed.stop() == 0
    old = Server("lone", server.folder, extra=(*signed.options("third"), "--trust-new-memory"))
    with running(old):
        assert "the log signs as log.example.com/test/2" in add_refused(old)
