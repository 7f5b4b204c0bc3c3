"""A server whose proofs are valid, but for a different log with each kind of call."""

from __future__ import annotations

import base64
import json
import threading
from collections import defaultdict
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias, cast

from qed import Log
from qed.errors import AddedLater, UnknownVersion
from qed.proofs import Digest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Json: TypeAlias = dict[str, Any]
Reply: TypeAlias = tuple[int, Any]

JOIN_LIMIT_S: Final = 10.0


class Faces:
    """Answers each kind of call correctly from the log for that kind; a lie may then change the answer.

    Kinds are `add`, `bulk`, `membership`, `many`, `incremental`, `snapshot` and `info`. For calls with `Consistency:
    linearizable`, the kind with an exclamation mark is used if it is given, such as `membership!`.

    Attributes:
        faces: The log for a kind of call, if it is not the first one.
        lies: Functions that change an answer before it is sent, by kind. They may be replaced while the server runs.
        name: The server's name for its log.
        asked: The kinds of the calls received, in their order.
        published: A folder with the files that the server signs as its log; none by default.
    """

    def __init__(self, log: Log, *, name: str = "", **faces: Log) -> None:
        self.faces: defaultdict[str, Log] = defaultdict(lambda: log, faces)
        self.lies: dict[str, Callable[[Reply], Reply]] = {}
        self.name = name
        self.asked: list[str] = []
        self.published: Path | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def reply(self, method: str, path: str, body: bytes, *, is_linearizable: bool) -> Reply:
        kind = _KINDS.get((method, path), "snapshot" if path.startswith("/snapshots/") else "other")
        self.asked.append(kind)
        names = [f"{kind}!", kind] if is_linearizable else [kind]
        log = next((self.faces[name] for name in names if name in self.faces), self.faces[kind])
        try:
            status, value = self._truth(kind, log, path, json.loads(body) if body else {})
        except AddedLater as exc:
            status, value = 412, {"error": "added_later", "message": "later", "FirstVersion": exc.first_version}
        except UnknownVersion as exc:
            status, value = 412, {"error": "unknown_version", "message": str(exc)}
        for name in names:
            if name in self.lies:
                return self.lies[name]((status, value))
        return status, value

    def _truth(self, kind: str, log: Log, path: str, asked: Json) -> Reply:
        match kind:
            case "info":
                reply: Reply = 200, _info(log, self.name)
            case "snapshot":
                reply = 200, json.loads(log.snapshot(int(path.rpartition("/")[2])).to_json())
            case "membership":
                digest = Digest(base64.b64decode(asked["KeyDigest"]))
                reply = 200, json.loads(log.membership(digest, version=asked.get("Version")).to_json())
            case "many":
                digests = [Digest(base64.b64decode(digest)) for digest in asked["KeyDigests"]]
                reply = 200, json.loads(log.membership_many(digests).to_json())
            case "incremental":
                reply = 200, json.loads(log.incremental(asked["Start"], asked["End"]).to_json())
            case "add" | "bulk":
                added = log.add_bulk(_events(asked))
                snapshots = [json.loads(snapshot.to_json()) for snapshot in added]
                reply = 201, snapshots if kind == "bulk" else snapshots[0]
            case _:
                reply = 404, {"error": "not_found", "message": "no such path"}
        return reply

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(JOIN_LIMIT_S)
        self._server.server_close()


_KINDS: Final = {
    ("POST", "/events"): "add",
    ("POST", "/events/bulk"): "bulk",
    ("POST", "/proofs/digest-membership"): "membership",
    ("POST", "/proofs/membership/bulk"): "many",
    ("POST", "/proofs/incremental"): "incremental",
    ("GET", "/info"): "info",
}


def _events(asked: Json) -> list[bytes | Digest]:
    """Return the events of a request, which may name them by their digests."""
    if "EventDigest" in asked or "EventDigests" in asked:
        digests = asked.get("EventDigests") or [asked["EventDigest"]]
        return [Digest(base64.b64decode(digest)) for digest in digests]
    return [base64.b64decode(event) for event in asked.get("Events") or [asked["Event"]]]


def _info(log: Log, name: str) -> Json:
    address = "127.0.0.1:1"
    fields: Json = dict.fromkeys(("raft_addr", "mgmt_addr", "http_addr", "metrics_addr"), address)
    fields |= {
        "node_id": "liar",
        "version": "0.1.0",
        "current_version": len(log) - 1 if len(log) else None,
        "events": len(log),
    }
    return fields | {"log": name, "accepts": []}


def _handler(faces: Faces) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path.startswith("/log/") and faces.published is not None:
                file = faces.published / self.path.removeprefix("/log/")
                self._send(*((200, file.read_bytes()) if file.is_file() else (404, b"no such file")))
                return
            is_linearizable = self.headers.get("Consistency") == "linearizable"
            status, value = faces.reply(self.command, self.path, body, is_linearizable=is_linearizable)
            self._send(status, json.dumps(value).encode())

        def _send(self, status: int, text: bytes) -> None:
            with suppress(OSError):
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        do_GET = do_POST = _answer  # noqa: N815 - the names that http.server requires

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    return Handler


def log_of(*events: bytes) -> Log:
    """Return a log in memory with these events, each added alone."""
    log = Log()
    for event in events:
        log.add(event)
    return log


def changed(**fields: object) -> Callable[[Reply], Reply]:
    """Return the lie that replaces fields of an answer, or of the last of several snapshots."""

    def lie(reply: Reply) -> Reply:
        status, value = reply
        target = cast("Json", value[-1] if isinstance(value, list) else value)
        target.update(fields)
        return status, value

    return lie
