"""One stream of events, beside bulks of 1,000 on one connection: events a second, and the processor time of the server.

`python bench/stream.py [--events N] [--rounds N]`. The four ways to add alternate, each with events of its own. "Raw"
requests are made before the clock starts, and their answers are only counted; "client" is `qed.Client`, with all its
checks, in this process. The machine should be quiet: server and client share its cores.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import itertools
import os
import socket
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import qed
from run import row, serving

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.process import Server

BULK: Final = 1000
_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")


def processor_s(server: Server) -> float:
    """Return how much processor time the server has used."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND


def encoded(count: int) -> list[bytes]:
    """Return new digests, in base64."""
    return [base64.b64encode(os.urandom(32)) for _ in range(count)]


def raw_stream(server: Server, count: int) -> Callable[[], None]:
    """Return what adds events by one stream."""
    lines = [b'{"EventDigest":"%b"}\n' % digest for digest in encoded(count)]
    parts = [b"".join(lines[start : start + BULK]) for start in range(0, count, BULK)]

    def send(peer: socket.socket) -> None:
        peer.sendall(b"POST /events/stream HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in parts:
            peer.sendall(b"%x\r\n%b\r\n" % (len(part), part))
        peer.sendall(b"0\r\n\r\n")

    def run() -> None:
        with socket.create_connection(server.http_address) as peer:
            sender = threading.Thread(target=send, args=(peer,))
            sender.start()
            end = b""
            while received := peer.recv(1 << 18):
                end = (end + received)[-64:]
            sender.join()
        assert b'{"Done":%d}' % count in end, end  # noqa: S101  # otherwise the number means nothing

    return run


def raw_bulks(server: Server, count: int) -> Callable[[], None]:
    """Return what adds events by one bulk after the other, on one connection."""
    digests = [b'"%b"' % digest for digest in encoded(count)]
    bodies = [b'{"EventDigests":[%b]}' % b",".join(digests[start : start + BULK]) for start in range(0, count, BULK)]

    def run() -> None:
        connection = http.client.HTTPConnection(*server.http_address)
        for body in bodies:
            connection.request("POST", "/events/bulk", body)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 201  # noqa: S101  # otherwise the number means nothing
        connection.close()

    return run


def client_stream(server: Server, count: int) -> Callable[[], None]:
    """Return what adds events by `Client.add_stream`."""
    events = [os.urandom(16) for _ in range(count)]

    def run() -> None:
        with qed.Client(server.url) as client:
            assert sum(map(len, client.add_stream(events))) == count  # noqa: S101  # otherwise the number means nothing

    return run


def client_bulks(server: Server, count: int) -> Callable[[], None]:
    """Return what adds events by `Client.add_bulk`."""
    events = [os.urandom(16) for _ in range(count)]

    def run() -> None:
        with qed.Client(server.url) as client:
            for start in range(0, count, BULK):
                client.add_bulk(events[start : start + BULK])

    return run


WAYS: Final = {
    "raw stream": raw_stream,
    "raw bulks of 1,000, one connection": raw_bulks,
    "client stream": client_stream,
    "client bulks of 1,000": client_bulks,
}


def main() -> None:
    """Measure and print all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    rates: dict[str, list[float]] = {name: [] for name in WAYS}
    costs: dict[str, list[float]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as server:
        for _, (name, way) in itertools.product(range(given.rounds), WAYS.items()):
            run = way(server, given.events)
            begun_s, used_s = time.perf_counter(), processor_s(server)
            run()
            rates[name].append(given.events / (time.perf_counter() - begun_s))
            costs[name].append((processor_s(server) - used_s) / given.events * 1e6)
    for name in WAYS:
        row(name, statistics.median(rates[name]), "/s", f"{min(rates[name]):,.0f} to {max(rates[name]):,.0f}")
        row("  processor time of the server, an event", statistics.median(costs[name]), "us")


if __name__ == "__main__":
    main()
