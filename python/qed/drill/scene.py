"""The honest log that is attacked: a server that signs, two witnesses, and what a client and a monitor keep of it."""

from __future__ import annotations

import hashlib
import http.client
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from qed._files import PRIVATE, create_file
from qed.drill.damage import copied
from qed.drill.processes import DrillFailed, wait_until
from qed.log_keys import content_of_log_keys, new_log_keys, new_witness_keys

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qed.drill.processes import Processes, Server
    from qed.log_keys import SigningKey

__all__ = ["LOG", "PORTS", "TWIN", "WITNESSES", "Scene", "Witness", "exchange", "page_of"]

LOG: Final = "drill.example.com/log"
TWIN: Final = "drill.example.com/twin"
"""Another log that the witnesses know. Its operator is dishonest from the first entry on."""
WITNESSES: Final = ("one.example.org/w", "two.example.net/w")
PORTS: Final = ("--http-addr", "127.0.0.1:0", "--mgmt-addr", "127.0.0.1:0", "--raft-addr", "127.0.0.1:0")
"""Options of a server that listens on any free ports of this machine."""
_LINES: Final = 300
"""More entries than one tile has."""
_LATER: Final = ("event a", "event b", "event c")
_TIMEOUT_S: Final = 30.0
_OK: Final = 200


def exchange(url: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Return status and body of the answer to a GET, or to a POST if there is a body.

    Raises:
        DrillFailed: There is no answer.
    """
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_TIMEOUT_S)
    try:
        connection.request("GET" if body is None else "POST", path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as exc:
        raise DrillFailed(f"{url}{path} did not answer: {exc}") from exc
    finally:
        connection.close()


def page_of(origin: str) -> str:
    """Return the path below which a witness publishes what it has cosigned of a log."""
    return f"/{hashlib.sha256(origin.encode()).hexdigest()}"


@dataclass(frozen=True)
class Witness:
    """A witness that is running.

    Attributes:
        name: Its name.
        key: The file with its private keys.
        database: What it has cosigned.
        vkey: Its public Ed25519 key.
        server: Its process.
    """

    name: str
    key: Path
    database: Path
    vkey: str
    server: Server


class Scene:
    """An honest log and what surrounds it, in one folder.

    A client has added a bulk of lines and one event, and the attacker has a copy of all that there was then: `old`.
    Later it added a bulk of three. All others have seen the later state.

    Attributes:
        folder: The folder.
        run: Runs the product.
        events: All events, in order.
        size: How many there are.
        old_size: How many there were.
        keys: The keys of the log.
        twin_keys: The keys of the other log.
        witnesses: The witnesses.
        server: The server of the log.
    """

    server: Server

    def __init__(self, run: Processes, folder: Path) -> None:
        self.run: Final = run
        self.folder: Final = folder
        self.events: Final = [*(f"line {number}" for number in range(_LINES)), "event 0", *_LATER]
        self.size: Final = len(self.events)
        self.old_size: Final = self.size - len(_LATER)
        self.keys: Final = new_log_keys(LOG)
        self.twin_keys: Final = new_log_keys(TWIN)
        self.witnesses: Final[list[Witness]] = []
        self.policy: Final = folder / "policy"
        """Trusts the log, and demands both witnesses."""
        self.word: Final = folder / "policy-of-the-log"
        """Trusts the log without witnesses."""
        self.twin_policy: Final = folder / "policy-of-the-twin"
        """Trusts the other log, and demands both witnesses."""
        self.key: Final = folder / "log.key"
        self.data: Final = folder / "data"
        self.sign_memory: Final = folder / "sign-memory"
        self.high_water: Final = folder / "high-water"
        self.receipts: Final = folder / "receipts"
        """The receipts of the client."""
        self.client_memory: Final = folder / "client-memory"
        self.published: Final = folder / "published"
        self.state: Final = folder / "state"
        """The state of the monitor."""
        self.backup: Final = folder / "backups" / "1"
        self.cosigned: Final = folder / "cosigned" / "witness1.db"
        """A copy of the database of the first witness, after it has cosigned everything."""
        self.old: Final = folder / "old"
        """What there was before the last three events."""
        self.old_data: Final = self.old / self.data.name
        self.old_memory: Final = self.old / self.sign_memory.name
        self.old_receipt: Final = self.old / "receipt"
        """The receipt of the last event that there was, with both cosignatures."""
        self.absence: Final = self.old / "absence"
        """Proof that an event was not in the log, which was added later."""

    def build(self) -> None:
        """Make all of it.

        Raises:
            DrillFailed: A part does not work, or a guard raises a false alarm: nothing was attacked yet.
        """
        create_file(self.key, content_of_log_keys(self.keys), mode=PRIVATE)
        self._start_witnesses()
        self.policy.write_text(self.policy_of(self.keys, has_witnesses=True))
        self.twin_policy.write_text(self.policy_of(self.twin_keys, has_witnesses=True))
        self.word.write_text(self.policy_of(self.keys, has_witnesses=False))
        self.old.mkdir()
        self.server = self._served()
        self._add_old()
        # Only at a stop all events are in the stored log. Before that, they are in the Raft log.
        self.server.ended().require()
        copied(self.data, self.old)
        copied(self.sign_memory, self.old)
        self.server = self._served()
        self._add_later()

    def _served(self) -> Server:
        extra = ("--policy", self.policy, "--high-water", self.high_water)
        return self.serve(self.data, self.sign_memory, *extra)

    def options(self, data: Path, sign_memory: Path) -> tuple[str | Path, ...]:
        """Return the options of a server that signs for the log."""
        return (
            *("--data-dir", data, *PORTS, "--node-id", "drill"),
            *("--origin", LOG, "--signing-key", self.key, "--sign-memory", sign_memory),
        )

    def serve(self, data: Path, sign_memory: Path, *extra: str | Path) -> Server:
        """Start a server that signs for the log.

        Args:
            data: Its data folder.
            sign_memory: Its sign memory.
            *extra: Further options.

        Raises:
            DrillFailed: It does not listen.
        """
        return self.run.listening("qed-server", *self.options(data, sign_memory), *extra)

    def add(self, server: Server, events: Sequence[str], receipts: Path) -> None:
        """Add a bulk of events.

        Raises:
            DrillFailed: They are not acknowledged.
        """
        lines = receipts.with_name(f"{receipts.name}.lines")
        lines.write_text("".join(f"{event}\n" for event in events))
        self.run.qed("add", "--endpoints", server.url, "--lines", lines, "--receipts", receipts).require()

    def await_checkpoint(self, server: Server, size: int) -> None:
        """Return once a server has published the checkpoint that has `size` entries.

        Raises:
            DrillFailed: It does not in time.
        """

        def is_there() -> bool:
            status, note = exchange(server.url, "/log/checkpoint")
            return status == _OK and note.split(b"\n")[1] == b"%d" % size

        wait_until(is_there, f"the checkpoint of {size} entries")

    def bulks(self, events: list[str]) -> list[list[str]]:
        """Return events in the bulks in which those of this log were added."""
        return [events[:_LINES], events[_LINES : self.old_size], events[self.old_size :]]

    def policy_of(self, keys: list[SigningKey], *, has_witnesses: bool) -> str:
        """Return a policy that trusts these keys of a log, and demands both witnesses or none."""
        lines = [f"log {key.vkey}" for key in keys]
        if not has_witnesses:
            return "\n".join([*lines, "quorum none", ""])
        lines += [f"witness w{i} {each.vkey} {each.server.url}" for i, each in enumerate(self.witnesses)]
        return "\n".join([*lines, "group both all w0 w1", "quorum both", ""])

    def _start_witnesses(self) -> None:
        vkeys = [option for key in (*self.keys, *self.twin_keys) for option in ("--vkey", key.vkey)]
        for number, name in enumerate(WITNESSES, 1):
            path, database = self.folder / f"witness{number}.key", self.folder / f"witness{number}.db"
            keys = new_witness_keys(name)
            create_file(path, content_of_log_keys(keys), mode=PRIVATE)
            files = ("--key", path, "--database", database, "--listen", "127.0.0.1:0")
            server = self.run.listening("qed", "witness", "run", *files, "--new-database", *vkeys)
            self.witnesses.append(Witness(name, path, database, keys[0].vkey, server))

    def _add_old(self) -> None:
        self.add(self.server, self.events[:_LINES], self.receipts)
        ask = ("--endpoints", self.server.url, "--receipts", self.old_receipt)
        self.run.qed("add", *ask, "--event", self.events[_LINES], "--receipt-level", "witnessed").require()
        self.run.qed("membership", *ask, "--event", _LATER[0], "--out", self.absence).require()

    def _add_later(self) -> None:
        self.add(self.server, _LATER, self.receipts)
        self.await_checkpoint(self.server, self.size)
        self.cosigned.parent.mkdir()
        copied(self.witnesses[0].database, self.cosigned.parent)
        trust = ("--policy", self.policy)
        for command in (
            ("publish", self.server.url, self.published, *trust, "--once"),
            ("monitor", self.server.url, *trust, "--state", self.state, "--once"),
            ("audit", self.server.url, *trust, "--receipts", self.receipts),
            ("verify", self.old_receipt, *trust, "--memory", self.client_memory),
            ("verify", self.receipts, "--policy", self.word, "--memory", self.client_memory),
            ("backup", "create", "--endpoints", self.server.url, "--to", self.backup.parent),
            ("backup", "verify", self.backup),
        ):
            self.run.qed(*command).require()
