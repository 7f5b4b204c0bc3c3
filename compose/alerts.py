"""Receives the alerts of `qed monitor`, as a webhook: alerts.py PORT FILE, where FILE has the secret that both know.

An alert that is signed with the secret (Standard Webhooks) is printed and kept, and `GET /` shows all of them as JSON.
It is for trying things out: alerts are in memory only, and anyone who reaches the port may read them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LONGEST_BYTES = 1 << 20
OLDEST_S = 300
"""How far the time of an alert may be from now: an old one could be sent again by anyone who has seen it."""


class Receiver(BaseHTTPRequestHandler):
    """Accepts alerts by POST, and shows them by GET."""

    secret = b""
    alerts: dict[str, object] = {}  # noqa: RUF012  # of all requests: the same alert may come again
    timeout = 10

    def do_POST(self) -> None:
        """Keep an alert, if it comes from the monitor."""
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or not 0 < int(length) <= LONGEST_BYTES:
            self.send_error(413)
            return
        body = self.rfile.read(int(length))
        if not self.is_signed(body):
            self.send_error(401)
            return
        alert = json.loads(body)
        self.alerts[self.headers["webhook-id"]] = alert
        print(f"{alert['Severity']} {alert['Kind']}: {alert['Text']}", flush=True)  # noqa: T201
        self.answer(204, b"")

    def do_GET(self) -> None:
        """Show all alerts, the oldest first."""
        self.answer(200, json.dumps([*self.alerts.values()], indent=1).encode() + b"\n")

    def is_signed(self, body: bytes) -> bool:
        """Return whether the sender knows the secret, and has signed this lately."""
        name, moment = self.headers.get("webhook-id", ""), self.headers.get("webhook-timestamp", "")
        if not moment.isdecimal() or abs(time.time() - int(moment)) > OLDEST_S:
            return False
        code = hmac.digest(self.secret, f"{name}.{moment}.".encode() + body, hashlib.sha256)
        expected = f"v1,{base64.b64encode(code).decode()}"
        # There may be several, while a secret is being replaced.
        given = self.headers.get("webhook-signature", "").split(" ")
        return any(hmac.compare_digest(one.encode(), expected.encode()) for one in given)

    def answer(self, status: int, body: bytes) -> None:
        """Answer with JSON."""
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log no requests: what is printed are the alerts."""


def main() -> None:
    """Serve until SIGTERM."""
    port, path = sys.argv[1:]
    Receiver.secret = base64.b64decode(Path(path).read_text().strip().removeprefix("whsec_"), validate=True)
    # The first process of a container ignores a signal that it does not handle.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ThreadingHTTPServer(("", int(port)), Receiver).serve_forever()


if __name__ == "__main__":
    main()
