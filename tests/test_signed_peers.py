"""Our `.tlog-proof` files, verified by code of others: the Go library of notes and tiles, and one in Rust."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import metamorphic_log  # type: ignore[import-untyped]  # it has no types
import pytest

from commands import qed
from signing import LOG, World, honest_entry, leaf

GO_PATH = "/usr/share/gocode"
"""Where Debian's golang-golang-x-mod-dev installs its source."""


def proofs() -> list[tuple[int, World]]:
    """Return versions of logs of different sizes."""
    return [(version, World([honest_entry(i) for i in range(size)])) for size in (3, 9, 30) for version in range(size)]


def proof_of(version: int, world: World, path: Path) -> str:
    """Return the proof that `qed export` makes of a receipt."""
    path.write_text(json.dumps(world.receipt(version, version + 1)))
    done = qed("export", "--tlog-proof", str(path))
    assert done.returncode == 0
    return done.stdout


def test_metamorphic_log_verifies_our_proofs(tmp_path: Path) -> None:
    for version, world in proofs()[::5]:
        head, _, note = proof_of(version, world, tmp_path / "receipt").partition("\n\n")
        header, extra, index, *path = head.split("\n")
        assert header == "c2sp.org/tlog-proof@v1"
        entry = base64.b64decode(extra.removeprefix("extra "))
        number, hashes = int(index.removeprefix("index ")), [base64.b64decode(line) for line in path]
        assert (number, entry) == (version, world.entries[version])
        metamorphic_log.checkpoint_verify_inclusion(note, [LOG.vkey], number, leaf(entry), hashes)
        with pytest.raises(metamorphic_log.VerifyError):
            metamorphic_log.checkpoint_verify_inclusion(note, [LOG.vkey], number, leaf(entry[:-1]), hashes)


@pytest.fixture(scope="module")
def go_verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the verifier in Go, compiled, or skip the test."""
    source = Path(__file__).parent / "peers_go" / "proof.go"
    go = shutil.which("go")
    if go is None or not Path(GO_PATH, "src/golang.org/x/mod/sumdb/tlog").is_dir():
        pytest.skip("needs Debian's golang-go and golang-golang-x-mod-dev")
    program = tmp_path_factory.mktemp("go") / "proof"
    settings = {"GO111MODULE": "off", "GOPATH": GO_PATH, "GOCACHE": str(program.with_name("cache")), "GOFLAGS": ""}
    subprocess.run([go, "build", "-o", program, source], check=True, timeout=300, env=os.environ | settings)
    return program


def test_the_go_library_verifies_our_proofs(go_verifier: Path, tmp_path: Path) -> None:
    for version, world in proofs()[::5]:
        path = tmp_path / "proof"
        proof = proof_of(version, world, tmp_path / "receipt")
        path.write_text(proof)
        done = subprocess.run([go_verifier, path, LOG.vkey], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (0, f"{version}\n"), done.stderr
        path.write_text(proof.replace(f"index {version}\n", f"index {version + 1}\n"))
        done = subprocess.run([go_verifier, path, LOG.vkey], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (1, "")
