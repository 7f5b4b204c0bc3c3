"""`qed audit` of a log that is published in a folder: time and memory.

`python bench/audit.py [--events N] [--batch N]`. The log is made in memory, and its files are written before the clock
starts. The time is that of the whole command.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import qed
from run import row

QED: Final = str(Path(sys.executable).with_name("qed"))
WIDTH: Final = 256
TARGET_S: Final = {1_000_000: 10, 10_000_000: 90}


def made(events: int, batch: int) -> qed.Log:
    """Return a log in memory with batches of this size."""
    log = qed.Log()
    for start in range(0, events, batch):
        digests = [
            qed.Digest(hashlib.sha256(b"%d" % number).digest()) for number in range(start, min(start + batch, events))
        ]
        log.add_bulk(digests)
    return log


def path_of(level: int | str, index: int, width: int) -> str:
    """Return the path of a tile or a bundle."""
    digits = str(index)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
    name = "/".join(["x" + group for group in groups[:-1]] + groups[-1:])
    return f"tile/{level}/{name}" + (f".p/{width}" if width < WIDTH else "")


def publish(folder: Path, log: qed.Log) -> str:
    """Write the files of a log, and return a policy that trusts its new key."""
    size, root = log.tree_head()
    key, name = Ed25519PrivateKey.generate(), "log.example.com/bench"
    public = b"\x01" + key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    key_id = hashlib.sha256(name.encode() + b"\n" + public).digest()[:4]
    text = f"{name}\n{size}\n{base64(bytes(root))}\n"
    line = f"\u2014 {name} {base64(key_id + key.sign(text.encode()))}\n"
    (folder / "checkpoint").write_text(f"{text}\n{line}")
    hashes, level = size, 0
    while hashes:
        write(folder, log, level, hashes)
        hashes, level = hashes // WIDTH, level + 1
    write(folder, log, "entries", size)
    return f"log {name}+{key_id.hex()}+{base64(public)}\nquorum none\n"


def write(folder: Path, log: qed.Log, level: int | str, hashes: int) -> None:
    """Write the tiles of a level, or the bundles."""
    for index in range(-(-hashes // WIDTH)):
        path = path_of(level, index, min(WIDTH, hashes - WIDTH * index))
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(log.tile(path))


def base64(value: bytes) -> str:
    """Return bytes in base64."""
    import base64 as standard  # noqa: PLC0415  # the name is this function's

    return standard.b64encode(value).decode()


def audited(source: str, policy: Path) -> tuple[float, float]:
    """Run an audit; return how long it took, in seconds, and its memory in MiB."""
    start = time.monotonic()
    process = subprocess.Popen([QED, "audit", source, "--policy", str(policy)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the audit of {source} ended with {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - start, usage.ru_maxrss / 1024


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        folder, policy = Path(name) / "log", Path(name) / "policy"
        folder.mkdir()
        log = made(options.events, options.batch)
        policy.write_text(publish(folder, log))
        log.close()
        target = TARGET_S.get(options.events)
        goal = "none" if target is None else f"{target} s"
        what = f"{options.events:,} events in batches of {options.batch:,}"
        took_s, memory = audited(str(folder), policy)
        row(f"audit of {what}", took_s, "s", f"target {goal}")
        row("  its memory", memory, "MiB")


if __name__ == "__main__":
    main()
