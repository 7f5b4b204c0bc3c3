"""`make audit`: an advisory is a failure; a database that does not answer is reported, and is none."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, Protocol

import pytest

from documents import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(600)

TOOLS: Final = ROOT / ".venv" / "audit"
ADVISORY: Final = {
    "id": "PYSEC-2026-1",
    "summary": "bad",
    "affected": [
        {
            "package": {"name": "idna", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.1"}]}],
        }
    ],
}


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    """Install the tools, as `make audit` does."""
    make = str(shutil.which("make"))
    subprocess.run([make, "--silent", ".venv/audit/.tools"], cwd=ROOT, check=True, timeout=500)


def audit(*names: str, **changes: str) -> tuple[int, str]:
    """Run the audit of some files; return its exit code and what it printed."""
    command = [str(TOOLS / "bin" / "python"), str(ROOT / ".ci" / "audit.py"), *names]
    done = subprocess.run(command, env=os.environ | changes, capture_output=True, text=True, timeout=500, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


class Ask(Protocol):
    """Audits with a database that gives this answer about one package."""

    def __call__(self, status: int, answer: dict[str, Any]) -> tuple[int, str]: ...


@pytest.fixture
def ask() -> Iterator[Ask]:
    """Give a function that audits the image's requirements with a database that answers as told."""
    running: list[HTTPServer] = []

    def ask(status: int, answer: dict[str, Any]) -> tuple[int, str]:
        class Database(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                body = json.dumps(answer if asked["package"]["name"] == "idna" else {}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Database)
        running.append(server)
        Thread(target=server.serve_forever).start()
        return audit("requirements.txt", AUDIT_SERVICE=f"-s osv --osv-url http://127.0.0.1:{server.server_port}/query")

    yield ask
    for server in running:
        server.shutdown()
        server.server_close()


def test_advisory_is_a_failure(ask: Ask) -> None:
    code, said = ask(200, {"vulns": [ADVISORY]})
    assert code == 1
    assert "PYSEC-2026-1, fixed in 99.1" in said
    assert "NOT AUDITED" not in said


def test_nothing_known_is_a_success(ask: Ask) -> None:
    code, said = ask(200, {})
    assert code == 0
    assert "audit: requirements.txt: no known vulnerabilities in " in said


def test_database_that_fails_is_reported(ask: Ask) -> None:
    code, said = ask(503, {})
    assert code == 0
    assert "audit: requirements.txt: NOT AUDITED" in said


def test_database_that_cannot_be_reached_is_reported() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/query"
        code, said = audit("requirements.txt", AUDIT_SERVICE=f"-s osv --osv-url {url}")
    assert code == 0
    assert "audit: requirements.txt: NOT AUDITED" in said


def test_tool_that_fails_is_a_failure() -> None:
    code, said = audit("requirements.txt", AUDIT_SERVICE="--no-such-option")
    assert code == 1
    assert "pip-audit failed" in said


def test_packages_that_the_database_does_not_know_are_reported() -> None:
    found = {
        "dependencies": [{"name": "idna", "skip_reason": "not found"}, {"name": "rich", "version": "1", "vulns": []}]
    }
    code = f"import runpy; m = runpy.run_path('.ci/audit.py'); print(m['is_sound']('x', {json.dumps(found)!r}))"
    done = subprocess.run([TOOLS / "bin" / "python", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "NOT AUDITED: the database does not know 1 of 2 packages, such as idna" in done.stdout
    assert done.stdout.endswith("True\n")


URL: Final = "https://advisories.example.com/database"
needs_deny = pytest.mark.skipif(
    subprocess.run(["cargo", "deny", "--version"], capture_output=True, check=False).returncode != 0,  # noqa: S607 - cargo is found by PATH
    reason="cargo-deny is not installed; make check installs it",
)
RUST_ADVISORY: Final = """```toml
[advisory]
id = "RUSTSEC-2026-9999"
package = "crc32c"
date = "2026-11-01"
[versions]
patched = []
```

# Invented
"""


def deny_config(folder: Path) -> str:
    """Give a configuration of cargo-deny with our exceptions, and a database of its own in `folder`."""
    config = folder / "deny.toml"
    own = f'[advisories]\ndb-path = "{folder}/db"\ndb-urls = ["{URL}"]\nunused-ignored-advisory = "allow"\n'
    config.write_text((ROOT / "deny.toml").read_text().replace("[advisories]\n", own))
    return str(config)


def audit_crates(folder: Path, database: Path) -> tuple[int, str]:
    """Audit Cargo.lock with the database in a local git repository, which git takes for that on the network."""
    redirect = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{database}.insteadOf", "GIT_CONFIG_VALUE_0": URL}
    return audit("Cargo.lock", AUDIT_DENY_CONFIG=deny_config(folder), **redirect)


@needs_deny
@pytest.mark.parametrize("is_affected", [True, False])
def test_advisory_on_a_crate_is_a_failure(tmp_path: Path, is_affected: bool) -> None:
    database = tmp_path / "source"
    folder = database / "crates" / "crc32c"
    folder.mkdir(parents=True)
    package = "crc32c" if is_affected else "crc32c-not-ours"
    (folder / "RUSTSEC-2026-9999.md").write_text(RUST_ADVISORY.replace('"crc32c"', f'"{package}"'))
    git = (str(shutil.which("git")), "-C", str(database), "-c", "user.name=x", "-c", "user.email=x@example.com")
    for words in (("init", "--quiet", "--initial-branch", "main"), ("add", "."), ("commit", "--quiet", "-m", "x")):
        subprocess.run([*git, *words], check=True, timeout=60)
    code, said = audit_crates(tmp_path, database)
    assert (code, "RUSTSEC-2026-9999" in said) == ((1, True) if is_affected else (0, False)), said
    assert "NOT AUDITED" not in said


@needs_deny
def test_crates_without_a_database_are_reported(tmp_path: Path) -> None:
    code, said = audit_crates(tmp_path, tmp_path / "missing")
    assert (code, "audit: Cargo.lock: NOT AUDITED" in said) == (0, True), said


@needs_deny
def test_wrong_configuration_of_cargo_deny_is_a_failure(tmp_path: Path) -> None:
    config = tmp_path / "deny.toml"
    config.write_text("[advisories\n")
    code, said = audit("Cargo.lock", AUDIT_DENY_CONFIG=str(config))
    assert (code, "cargo-deny failed" in said) == (1, True), said
