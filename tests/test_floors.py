"""The layers of the project: arrows only point down."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import qed

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "python" / "qed"

PYTHON_FLOORS = [
    {"_qed"},
    {"errors", "_fields", "_printable", "_files", "_limits", "_deeds", "_hosts"},
    {"proofs", "signed"},
    {"evidence"},
    {
        "acknowledgement",
        "log",
        "memory",
        "history",
        "_wire",
        "questions",
        "trust",
        "backups",
        "_receipt_index",
        "_receipt_lines",
        "certificates",
        "log_keys",
    },
    {"verification", "_receipts_file", "authority"},
    {"receipts", "policy", "bulk_verification"},
    {"bundle"},
]
CLIENT_FLOORS = [
    {"sockets", "defaults", "exposure", "doubts", "dialogue"},
    {"deadline"},
    {"transports"},
    {"calls", "topology"},
    {"failures", "steps", "duplex"},
    {"attempts", "fresh_answers", "forks"},
    {"growth"},
    {"administration", "adding", "exchange", "connections", "linking", "signed_answers"},
    {"examination", "backing_up", "ledger"},
    {"feeder"},
    {"streaming"},
    {"async_streaming"},
    {"async_connections", "bulk_examination"},
    {"client", "async_client"},
]
CLI_FLOORS = [
    {"terminal", "signals"},
    {"durations", "options", "inputs", "pem"},
    {"client", "answers", "trust", "lines", "signed", "security", "policies", "s3"},
    {"verdicts", "levels", "signers", "receipts_given", "places"},
    {"published", "line_proofs"},
    {
        "events",
        "export",
        "proofs",
        "verify",
        "evidence",
        "publish",
        "audit",
        "monitor",
        "info",
        "cluster",
        "keys",
        "check",
        "backup",
        "restore",
        "certs",
        "log_key",
        "witness",
        "completion",
        "drill",
    },
    {"signer"},
    {"main"},
]
SERVER_FLOORS = [
    {"addresses", "logs", "signals", "pins", "cluster_authority", "api_keys", "durations", "families"}
    | {"add_checkpoint_answers", "back_off", "http_client", "witness_outcomes"},
    {"ways", "witness_exchange", "unix_socket", "open_streams"},
    {"config", "witness_client"},
    {"signed_lines"},
    {"remote_signer", "command_signer"},
    {"private_files", "tile_cache", "frames", "waiting", "outgoing", "acts", "roles", "head", "slots", "rates"}
    | {"high_water", "sign_memory", "witnessing", "calls", "disk"},
    {"cluster_secret", "member_key", "tokens", "keys", "browsers", "bodies", "former_keys"}
    | {"signer_set", "file_signer", "receipt_maker"},
    {"credentials", "access", "token_table", "lost_members", "published", "signers", "event_lines"},
    {"tls"},
    {"handshake", "opening", "connection", "incoming"},
    {"certification", "members", "tls_listener"},
    {"service"},
    {"acceptor", "link", "recognition", "deeds", "revocation", "guard"},
    {"transport", "admissions", "authorities", "enrolment", "passed_on", "signing"},
    {"history", "publishing"},
    {"leader_requests", "fetching", "key_uses"},
    {"certifier"},
    {"peers"},
    {"signing_parts"},
    {"observation"},
    {"node"},
    {"receipt_calls"},
    {"endpoints"},
    {"backups", "key_calls", "operator_bodies", "tiles", "snapshot_store", "signer_calls", "exposition"}
    | {"event_stream"},
    {"app"},
    {"serving"},
    {"main"},
    {"command"},
]
WITNESS_FLOORS = [
    {"allowance", "store", "key_file", "known_logs"},
    {"witness", "opening"},
    {"settings"},
    {"app"},
    {"serving"},
]
SIGNER_FLOORS = [
    {"settings"},
    {"serving"},
]
MONITORING_FLOORS = [
    {"sources", "findings", "ahead", "s3"},
    {"copy", "alerts", "targets"},
    {"published", "sinks", "state", "bucket"},
    {"places"},
    {"replaying", "receipts", "comparison", "outbox"},
    {"cross_check", "charge"},
    {"auditing", "metrics"},
    {"publisher", "restoring", "linking"},
    {"rounds"},
    {"monitor"},
]
DRILL_FLOORS = [
    {"processes", "forgery"},
    {"damage"},
    {"scene"},
    {"mask", "impostors"},
    {"guards"},
    {"drill"},
    {"folders", "files", "histories", "answers"},
    {"drills"},
]
CORE_FLOORS = [
    {"integers", "log_id", "durable"},
    {"error", "hash", "watermark"},
    {"position", "bytes"},
    {"fjall_check", "proof"},
    {"roots", "compact", "bulk_proof"},
    {"verify", "json", "store"},
    {"disk", "history", "hyper", "tlog", "bulk_form", "bulk_verify"},
    {"rows", "leaf_cache"},
    {"trees", "applied", "acts", "entry_rows", "hidden", "tree_image"},
    {"replay", "batch", "entry_tail", "start"},
    {"log"},
    {"replica", "page", "tiled", "upkeep", "bulk_prover"},
    {"entry_prover", "stored_tree"},
    {"backup", "audit", "receipts"},
    {"restoration", "entry_audit"},
    {"entry_restoration"},
]
NODE_FLOORS = [
    {"metrics", "member_id", "ticket", "queue", "public_key"},
    {"segments"},
    {"wal", "identity", "membership", "liveness", "notice", "comparison", "high_water", "sign_memory"},
    {"raftlog", "entry"},
    {"message_check"},
    {"roll_call"},
    {"consensus", "outbox"},
    {"state", "prover", "reads"},
    {"member"},
    {"applier", "recovery", "keeper"},
    {"founding"},
    {"folder"},
    {"disaster"},
    {"driver"},
]
ONLY = {
    "qed._qed": {
        "__init__",  # the version
        "errors",
        "proofs",
        "signed",
        "evidence",
        "questions",
        "trust",
        "verification",
        "bulk_verification",
        "log",
        "backups",
        "log_keys",
        "_client.linking",
        "history",
        "signer.settings",
        "witness.known_logs",
        "witness.witness",
        "drill.forgery",
        *(
            f"monitoring.{name}"
            for name in (
                "publisher",
                "restoring",
                "published",
                "copy",
                "replaying",
                "receipts",
                "cross_check",
                "charge",
                "auditing",
                "rounds",
                "monitor",
            )
        ),
        *(
            f"server.{name}"
            for name in (
                "opening",
                "high_water",
                "members",
                "waiting",
                "leader_requests",
                "observation",
                "key_uses",
                "fetching",
                "peers",
                "node",
                "acts",
                "history",
                "endpoints",
                "tiles",
                "sign_memory",
                "file_signer",
                "receipt_maker",
                "published",
                "guard",
                "signing",
                "publishing",
                "signing_parts",
                "receipt_calls",
                "command_signer",
                "signers",
                "remote_signer",
                "signed_lines",
                "witness_client",
                "witnessing",
                "witness_exchange",
                "event_stream",
            )
        ),
    },
    "httpx": {
        f"_client.{name}"
        for name in ("transports", "connections", "async_connections", "exchange", "duplex", "client", "async_client")
    }
    | {"_client.async_streaming"}
    | {"server.http_client", "monitoring.sources", "monitoring.sinks"},
    "starlette": {
        f"server.{name}"
        for name in ("app", "endpoints", "bodies", "operator_bodies", "key_calls", "backups", "tiles", "access", "head")
    }
    | {
        "server.receipt_calls",
        "server.snapshot_store",
        "server.signer_calls",
        "server.exposition",
        "server.event_stream",
    }
    | {"witness.app"},
    "h11": {"_client.dialogue"},
    "rich": {"cli.terminal"},
    "prometheus_client": {"monitoring.metrics", "server.families"},
    "cryptography": {
        "certificates",
        "authority",
        "cli.certs",
        "_client.doubts",
        *(f"server.{name}" for name in ("api_keys", "pins", "member_key", "cluster_authority", "credentials")),
        *(f"server.{name}" for name in ("tokens", "certification", "certifier", "enrolment")),
    },
}


def imports_of(path: Path) -> set[str]:
    """Return the absolute names of every module that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules() -> dict[str, set[str]]:
    files = PACKAGE.rglob("*.py")
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): imports_of(path) for path in files}


def floor_of(floors: list[set[str]], name: str) -> int | None:
    return next((number for number, floor in enumerate(floors) if name in floor), None)


def own_names(package: str) -> set[str]:
    """Return the names of the modules directly in a package."""
    return {path.stem for path in (PACKAGE / package).glob("*.py")} - {"__init__"}


@pytest.mark.parametrize(
    ("package", "floors"),
    [
        ("", PYTHON_FLOORS),
        ("_client", CLIENT_FLOORS),
        ("cli", CLI_FLOORS),
        ("witness", WITNESS_FLOORS),
        ("signer", SIGNER_FLOORS),
        ("monitoring", MONITORING_FLOORS),
        ("drill", DRILL_FLOORS),
    ],
)
def test_every_python_module_has_a_floor(package: str, floors: list[set[str]]) -> None:
    assert own_names(package) == set().union(*floors) - {"_qed"}


@pytest.mark.parametrize(
    ("prefix", "floors"),
    [
        ("qed.", PYTHON_FLOORS),
        ("qed._client.", CLIENT_FLOORS),
        ("qed.cli.", CLI_FLOORS),
        ("qed.server.", SERVER_FLOORS),
        ("qed.witness.", WITNESS_FLOORS),
        ("qed.signer.", SIGNER_FLOORS),
        ("qed.monitoring.", MONITORING_FLOORS),
        ("qed.drill.", DRILL_FLOORS),
    ],
)
def test_python_arrows_point_down(prefix: str, floors: list[set[str]]) -> None:
    package = prefix.removeprefix("qed.").removesuffix(".")
    for module, imported in modules().items():
        own = module.removeprefix(f"{package}." if package else "")
        if package and not module.startswith(f"{package}."):
            continue
        level = floor_of(floors, own)
        assert level is not None or package != "server" or own == "__init__", f"{module} has no floor"
        if level is None:
            continue
        for name in imported:
            other = floor_of(floors, name.removeprefix(prefix)) if name.startswith(prefix) else None
            assert other is None or other < level, f"{module} imports {name}"


@pytest.mark.parametrize("library", ONLY)
def test_a_library_is_imported_in_its_own_place_only(library: str) -> None:
    for module, imported in modules().items():
        users = {name for name in imported if name == library or name.startswith(f"{library}.")}
        assert not users or module in ONLY[library], f"{module} imports {users}"


def test_library_knows_neither_server_nor_command_line() -> None:
    for module, imported in modules().items():
        if module.startswith(("server", "cli", "witness", "signer")):
            continue
        assert not {name for name in imported if name.startswith(("qed.server", "qed.cli."))}, module


def modules_used(source: str) -> set[str]:
    """Return the modules of its own crate that Rust source names, anywhere in it."""
    names = set(re.findall(r"\bcrate::(\w+)", source))
    for group in re.findall(r"\bcrate::\{((?:[^{}]|\{[^{}]*\})*)\}", source):
        names |= {name.strip().partition("::")[0] for name in re.sub(r"\{[^{}]*\}", "", group).split(",")} - {""}
    return names


def test_uses_are_seen_in_every_form() -> None:
    source = "use crate::a::X;\n    use crate::{b::{Y, Z}, c::W,\n d};\npub use crate::e; let f = crate::g::h();"
    assert modules_used(source) == {"a", "b", "c", "d", "e", "g"}


@pytest.mark.parametrize(("crate", "floors"), [("core", CORE_FLOORS), ("node", NODE_FLOORS)])
def test_rust_arrows_point_down(crate: str, floors: list[set[str]]) -> None:
    source = ROOT / "rust" / crate / "src"
    for path in source.rglob("*.rs"):
        # A part of a module, such as hyper/plan.rs, is on the module's floor; its tests may use anything.
        module = path.relative_to(source).parts[0].removesuffix(".rs")
        if module == "lib" or path.stem == "tests":
            continue
        level = floor_of(floors, module)
        assert level is not None, f"{path} has no floor"
        code = re.split(r"^#\[cfg\(test\)\]\nmod \w+ \{", path.read_text(), flags=re.MULTILINE)[0]
        # A comment may refer to any module.
        code = re.sub(r"//.*", "", code)
        for name in modules_used(code) - {module}:
            other = floor_of(floors, name)
            assert other is not None, name
            assert other < level, f"{path} uses {name}"


def test_crates_point_down() -> None:
    node = (ROOT / "rust" / "node" / "Cargo.toml").read_text()
    core = (ROOT / "rust" / "core" / "Cargo.toml").read_text()
    sha256 = (ROOT / "rust" / "sha256" / "Cargo.toml").read_text()
    assert "qed-core" in node
    assert "qed-sha256" in core
    assert "qed-sha256" not in node
    assert not re.search(r"qed-(core|node|py)", sha256)
    assert "qed-py" not in node + core
    assert "qed-node" not in core
    assert "pyo3" not in node + core


IMPORT_EACH = """
import asyncio, importlib, os, sys
import click, cryptography.x509, httpx, msgspec, starlette.routing
failed = []
for name in sys.argv[1:]:
    if (child := os.fork()) == 0:
        importlib.import_module(name)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(name)
sys.exit(", ".join(failed) or 0)
"""
"""Imports each module in a child of a process that has loaded other people's packages, which takes most of the time."""


def test_every_module_can_be_imported_first() -> None:
    names = [info.name for info in pkgutil.walk_packages([str(PACKAGE)], "qed.")]
    subprocess.run([sys.executable, "-W", "error", "-c", IMPORT_EACH, *names], check=True, timeout=100)


def test_public_names_are_sorted_and_exist() -> None:
    names = qed.__all__
    assert names == sorted(names)
    assert all(hasattr(qed, name) for name in names)
    for module in ("errors", "proofs", "log", "_client.client"):
        public = importlib.import_module(f"qed.{module}").__all__
        assert public == sorted(public)
    for name in importlib.import_module("qed.errors").__all__:
        assert name in names


@pytest.mark.parametrize("kind", [qed.Client, qed.AsyncClient])
def test_every_name_in_a_client_s_signatures_is_public(kind: type) -> None:
    local = {
        "Callable",
        "Generator",
        "PathLike",
        "Iterable",
        "Iterator",
        "AsyncIterable",
        "AsyncIterator",
        "None",
        "Self",
        "Sequence",
        "TracebackType",
        "BaseException",
        "Never",
        "Path",
    }
    for name, method in vars(kind).items():
        if callable(method) and (not name.startswith("_") or name == "__init__"):
            words = set(re.findall(r"\b[A-Z]\w+", " ".join(map(str, method.__annotations__.values()))))
            assert words - local <= set(qed.__all__), name
