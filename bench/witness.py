"""A witness over HTTP: cosignatures a second, each synced before it is answered.

`python bench/witness.py [--seconds N] [--logs N]`. Each log sends one checkpoint after the other, as a log does: one
more leaf each time, with its proof, on one connection. The checkpoints are signed before the clock starts. Witness and
logs share the cores of this machine.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import http.client
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from run import row

QED: Final = str(Path(sys.executable).with_name("qed"))
TARGET: Final = 300
MOST_PER_S: Final = 2_500
"""Checkpoints that are made for each second."""


def sha256(*parts: bytes) -> bytes:
    """Return the hash of the parts, one after the other."""
    return hashlib.sha256(b"".join(parts)).digest()


class Tree:
    """The tree of RFC 6962 over leaves that are appended one by one, with the proof from each size to the next."""

    def __init__(self) -> None:
        self.size = 0
        self._complete: list[tuple[int, bytes]] = []

    def append(self, leaf: bytes) -> list[bytes]:
        """Append a leaf hash, and return the proof that the new tree extends the old one."""
        before = [hashed for _, hashed in self._complete]
        # The proof names the last complete subtree of the old tree, the leaf, and the complete subtrees before it.
        whole = len(before) == 1
        proof = [] if not before else [*([] if whole else [before[-1]]), leaf, *reversed(before[:-1])]
        size, hashed = 1, leaf
        while self._complete and self._complete[-1][0] == size:
            hashed = sha256(b"\x01", self._complete.pop()[1], hashed)
            size *= 2
        self._complete.append((size, hashed))
        self.size += 1
        return proof

    def root(self) -> bytes:
        """Return the root."""
        root = self._complete[-1][1]
        for _, hashed in reversed(self._complete[:-1]):
            root = sha256(b"\x01", hashed, root)
        return root


class Log:
    """A log, and the requests that it will send."""

    def __init__(self, name: str, leaves: int) -> None:
        key = Ed25519PrivateKey.generate()
        public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        key_id = sha256(name.encode(), b"\n\x01", public)[:4]
        self.vkey = f"{name}+{key_id.hex()}+{base64.b64encode(bytes([1]) + public).decode()}"
        self.requests = []
        tree = Tree()
        for number in range(leaves):
            proof = tree.append(sha256(b"\x00%d" % number))
            text = f"{name}\n{tree.size}\n{base64.b64encode(tree.root()).decode()}\n"
            line = base64.b64encode(key_id + key.sign(text.encode())).decode()
            hashes = "".join(base64.b64encode(part).decode() + "\n" for part in proof)
            self.requests.append(f"old {number}\n{hashes}\n{text}\n\u2014 {name} {line}\n".encode())
        self.latencies_s: list[float] = []

    def send(self, address: str, seconds: float) -> None:
        """Send one request after the other."""
        connection = http.client.HTTPConnection(address)
        end = time.perf_counter() + seconds
        for request in self.requests:
            start = time.perf_counter()
            if start > end:
                break
            connection.request("POST", "/add-checkpoint", request)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"expected 200, found {answer.status}: {body!r}")
            self.latencies_s.append(time.perf_counter() - start)


def measure(folder: Path, logs: list[Log], seconds: float, keys: int) -> None:
    """Run a witness with that many keys, let all logs send, and print the rate."""
    for path in folder.iterdir():
        path.unlink()
    key = folder / "witness.key"
    subprocess.run(
        [QED, "log-key", "generate", "--witness", "witness.example.com", "--out", key],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    key.write_text("".join(key.read_text().splitlines(keepends=True)[:keys]))
    vkeys = [argument for log in logs for argument in ("--vkey", log.vkey)]
    command = [QED, "witness", "run", "--key", key, "--database", folder / "witness.db", "--new-database"]
    witness = subprocess.Popen([*command, *vkeys, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
    if witness.stdout is None:
        raise RuntimeError("expected the output of the witness")
    try:
        address = witness.stdout.readline().split(" listens on http://")[1].split()[0]
        threads = [threading.Thread(target=log.send, args=(address, seconds)) for log in logs]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took_s = time.perf_counter() - start
    finally:
        witness.terminate()
        witness.wait()
    latencies = sorted(latency for log in logs for latency in log.latencies_s)
    what = f"{len(logs)} log{'s' if len(logs) > 1 else ''}, {'Ed25519' if keys == 1 else 'Ed25519 and ML-DSA-44'}"
    row(what, len(latencies) / took_s, "signed/s", f"target {TARGET}" if len(logs) == 1 else "")
    for name, part in (("median", 0.5), ("p99", 0.99)):
        row(f"{what}: {name}", 1000 * latencies[int(len(latencies) * part)], "ms")


def sync_ms(folder: Path) -> float:
    """Return how long an append of 4 KiB and its sync take, in the median."""
    times = []
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(100):
            start = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - start)
    return 1000 * sorted(times)[50]


def main() -> None:
    """Measure one log, then several, with one key and with two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--logs", type=int, default=8)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        row("sync of 4 KiB", 1000 * sync_ms(Path(name)), "us")
        row("load of the machine", os.getloadavg()[0], "")
        for count in (1, args.logs):
            for keys in (1, 2):
                leaves = int(args.seconds * MOST_PER_S) // count
                logs = [Log(f"log.example.com/{i}", leaves) for i in range(count)]
                measure(Path(name), logs, args.seconds, keys)


if __name__ == "__main__":
    main()
