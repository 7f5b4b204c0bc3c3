"""`qed verify`: saved bundles, offline, honest and hostile."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from commands import QED, environment, hex_of, one_line, qed, read_lines, values
from harness.wait import LIMIT_S
from qed import Bundle, Receipts
from qed.errors import ReceiptsError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.process import Server


# Each means that the answer was not verified; which one depends on the check that fails first.
REFUSALS = ("Verify: KO\n", "Verify: STALE\n", "Verify: FORK\n")
KINDS = ("membership", "older", "absence", "neighbour", "incremental")


@dataclass(frozen=True)
class Saved:
    """A server's bundles, by kind, and the receipts to verify them with."""

    folder: Path

    @property
    def receipts(self) -> str:
        return str(self.folder / "receipts.jsonl")

    def path(self, kind: str) -> str:
        return str(self.folder / f"{kind}.json")

    def content(self, kind: str) -> bytes:
        return Path(self.path(kind)).read_bytes()


@pytest.fixture(scope="module")
def saved(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Give a bundle of each kind. The last commit holds several events, so versions 39 to 41 share one HyperDigest."""
    kept = Saved(tmp_path_factory.mktemp("bundles"))
    for numbers in (range(39), (0, 39, 40)):
        lines = "".join(f"event {number}\n" for number in numbers).encode()
        done = qed("add", "--lines", "-", "--receipts", kept.receipts, stdin=lines, QED_ENDPOINTS=server.url)
        assert done.returncode == 0, done.stderr
    questions = {
        "membership": ("membership", "--event", "event 7", "--version", "30"),
        "older": ("membership", "--event", "event 0", "--version", "20"),
        "absence": ("membership", "--event", "absent 0", "--version", "30"),
        "neighbour": ("membership", "--event", "absent 88714"),
        "incremental": ("incremental", "--start", "3", "--end", "21"),
    }
    for kind, question in questions.items():
        done = qed(*question, "--receipts", kept.receipts, "--out", kept.path(kind), QED_ENDPOINTS=server.url)
        assert done.returncode == 0, done.stderr
    # Found by search: this event's digest begins with the same 24 bits as that of "event 6".
    assert b'"Neighbour"' in kept.content("neighbour")
    return kept


def tampered(saved: Saved, kind: str, change: Callable[[dict[str, Any]], object], path: Path) -> str:
    """Apply `change` to the JSON of a bundle, write it, and return the path."""
    bundle = json.loads(saved.content(kind))
    change(bundle)
    path.write_text(json.dumps(bundle))
    return str(path)


def swap(path: dict[str, Any]) -> None:
    """Swap the first two different values of a path."""
    first = next(iter(path))
    second = next(position for position in path if path[position] != path[first])
    path[first], path[second] = path[second], path[first]


TAMPERINGS: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "question": ("absence", lambda bundle: bundle["Question"].update(KeyDigest="A" * 43 + "=")),
    "no question": ("absence", lambda bundle: bundle.pop("Question")),
    "flag": ("membership", lambda bundle: bundle["Answer"].update(Exists=False)),
    "flag and path": ("membership", lambda bundle: bundle["Answer"].update(Exists=False, History=None)),
    "flag of an absence": ("absence", lambda bundle: bundle["Answer"].update(Exists=True, History={})),
    "other event": (
        "membership",
        lambda bundle: bundle["Answer"].update(KeyDigest=bundle["Snapshots"][0]["EventDigest"]),
    ),
    "actual version": ("membership", lambda bundle: bundle["Answer"].update(ActualVersion=8)),
    "query version": ("membership", lambda bundle: bundle["Answer"].update(QueryVersion=31)),
    "current version": ("membership", lambda bundle: bundle["Answer"].update(CurrentVersion=40)),
    "latest version": ("older", lambda bundle: bundle["Answer"].update(LatestVersion=40)),
    "no latest version": ("older", lambda bundle: bundle["Answer"].pop("LatestVersion")),
    "no latest history": ("older", lambda bundle: bundle["Answer"].pop("LatestHistory")),
    "swapped latest history": ("older", lambda bundle: swap(bundle["Answer"]["LatestHistory"])),
    "missing sibling": ("membership", lambda bundle: bundle["Answer"]["Hyper"].popitem()),
    "missing history": ("membership", lambda bundle: bundle["Answer"]["History"].popitem()),
    "swapped siblings": ("membership", lambda bundle: swap(bundle["Answer"]["Hyper"])),
    "no history": ("membership", lambda bundle: bundle["Answer"].update(History=None)),
    "neighbour's version": ("neighbour", lambda bundle: bundle["Answer"]["Neighbour"].update(Version=7)),
    "no neighbour": ("neighbour", lambda bundle: bundle["Answer"].pop("Neighbour")),
    "range": ("incremental", lambda bundle: bundle["Answer"].update(End=22)),
    "swapped nodes": ("incremental", lambda bundle: swap(bundle["Answer"]["AuditPath"])),
    "kind": ("incremental", lambda bundle: bundle.update(Kind="membership")),
    "format": ("membership", lambda bundle: bundle.update(Format="qed-bundle-2")),
    "no snapshots": ("membership", lambda bundle: bundle.update(Snapshots=[])),
    "snapshot twice": ("membership", lambda bundle: bundle["Snapshots"].append(bundle["Snapshots"][0])),
    "snapshot's root": ("membership", lambda bundle: bundle["Snapshots"][1].update(HyperDigest="A" * 43 + "=")),
    "snapshot's event": ("membership", lambda bundle: bundle["Snapshots"][1].update(EventDigest="A" * 43 + "=")),
    "a word more": ("membership", lambda bundle: bundle.update(Note="verified by a notary")),
    "a word more in the answer": ("membership", lambda bundle: bundle["Answer"].update(Author="someone else")),
    "the event's text": ("membership", lambda bundle: bundle["Answer"].update(Key="ZXZlbnQgOA==")),
}


def asking(**fields: int) -> Callable[[dict[str, Any]], object]:
    """Return a change that sets these fields of a question."""
    return lambda bundle: bundle["Question"].update(fields)


for version in (-1, 2**64, 2**70):
    TAMPERINGS[f"asked at {version}"] = ("membership", asking(Version=version))
    TAMPERINGS[f"start at {version}"] = ("incremental", asking(Start=version))
    TAMPERINGS[f"end at {version}"] = ("incremental", asking(End=version))


@pytest.mark.parametrize("name", TAMPERINGS)
def test_a_tampered_bundle_fails(saved: Saved, tmp_path: Path, name: str) -> None:
    kind, change = TAMPERINGS[name]
    path = tampered(saved, kind, change, tmp_path / "tampered.json")
    done = qed("verify", path, "--receipts", saved.receipts)
    assert any(refusal in done.stdout for refusal in REFUSALS)
    assert "Verify: OK" not in done.stdout
    one_line(done.stderr)
    assert done.returncode == 1


@pytest.mark.parametrize("kind", KINDS)
def test_an_honest_bundle_verifies(saved: Saved, kind: str) -> None:
    done = qed("verify", saved.path(kind), "--receipts", saved.receipts)
    assert done.stdout.endswith("Verify: OK\n")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_alone_verifies_nothing(saved: Saved, kind: str) -> None:
    done = qed("verify", saved.path(kind))
    assert "nothing is trusted" in one_line(done.stderr)
    assert (done.stdout, done.returncode) == ("", 2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_on_its_own_word_is_consistent_at_best(saved: Saved, tmp_path: Path, kind: str) -> None:
    done = qed("verify", saved.path(kind), "--trust-bundle")
    assert done.stdout.endswith("Consistent (nothing trusted)\n")
    assert "Verify: OK" not in done.stdout
    assert (done.returncode, done.stderr) == (0, "")
    (record,) = read_lines(qed("verify", saved.path(kind), "--trust-bundle", "--json").stdout)
    assert (record["Verify"], record["TrustedBy"]) == ("Consistent", "bundle")
    path = "AuditPath" if kind == "incremental" else "Hyper"
    forged = tampered(saved, kind, lambda bundle: swap(bundle["Answer"][path]), tmp_path / "forged.json")
    assert qed("verify", forged, "--trust-bundle").returncode == 1


def test_programs_get_answer_and_verdict(saved: Saved) -> None:
    (record,) = read_lines(qed("verify", saved.path("older"), "--receipts", saved.receipts, "--json").stdout)
    answer = json.loads(saved.content("older"))["Answer"]
    assert record == answer | {"Verify": "OK", "TrustedBy": "receipts"}
    assert (answer["ActualVersion"], answer["QueryVersion"], answer["LatestVersion"]) == (0, 20, 39)


def test_verifying_opens_no_connection(saved: Saved) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        done = qed("verify", saved.path("membership"), "--receipts", saved.receipts, QED_ENDPOINTS=url)
        assert done.returncode == 0
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_verifying_makes_no_socket_at_all(saved: Saved) -> None:
    watched = (
        "import sys\n"
        "def watch(event, _):\n"
        "    if event.startswith('socket.'): raise SystemExit(f'{event}!')\n"
        "sys.addaudithook(watch)\n"
        "from qed.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", watched, "verify", saved.path("membership"), "--receipts", saved.receipts]
    done = subprocess.run(command, capture_output=True, env=environment(), check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def judge(text: bytes, receipts: Receipts) -> None:
    """Do what `qed verify --receipts` does, without a process."""
    bundle = Bundle.from_json(text)
    bundle.compare(receipts)
    bundle.verify(receipts)


@pytest.fixture(scope="module")
def receipts(saved: Saved) -> Receipts:
    return Receipts.load(saved.receipts)


@pytest.mark.parametrize("kind", KINDS)
def test_no_bundle_with_a_flipped_bit_verifies(saved: Saved, receipts: Receipts, kind: str) -> None:
    text = bytearray(saved.content(kind))
    judge(bytes(text), receipts)
    for bit in range(len(text) * 8):
        text[bit // 8] ^= 1 << bit % 8
        with pytest.raises(VerificationError):
            judge(bytes(text), receipts)
        text[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("kind", KINDS)
def test_no_truncated_bundle_verifies(saved: Saved, receipts: Receipts, kind: str) -> None:
    text = saved.content(kind).rstrip()
    for length in range(len(text)):
        with pytest.raises(VerificationError):
            judge(text[:length], receipts)


def test_a_reformatted_bundle_verifies(saved: Saved, tmp_path: Path) -> None:
    path = tmp_path / "pretty.json"
    path.write_text(json.dumps(json.loads(saved.content("membership")), indent=2, sort_keys=True))
    assert qed("verify", str(path), "--receipts", saved.receipts).returncode == 0


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ('"Format":', '"Format":"verified by a notary",'),
        ('"ActualVersion":', '"ActualVersion":3,'),
        ('"HyperDigest":', '"HyperDigest":"",'),
        ('"Version":30', '"Version":7,'),
        ('"Kind":', '"Kind":' + "9" * 5000 + ","),
    ],
)
def test_a_bundle_that_says_two_things_fails(saved: Saved, tmp_path: Path, field: str, other: str) -> None:
    path = tmp_path / "twice.json"
    path.write_text(saved.content("membership").decode().replace(field, other + field, 1))
    done = qed("verify", str(path), "--receipts", saved.receipts)
    assert any(refusal in done.stdout for refusal in REFUSALS)
    one_line(done.stderr)
    assert done.returncode == 1


def test_a_closed_stdin_is_wrong_usage() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec '{QED}' verify - <&-"], capture_output=True, env=environment(), check=False
    )
    assert one_line(done.stderr.decode()).startswith("stdin is closed")
    assert done.returncode == 2


def test_a_bundle_is_read_from_stdin(saved: Saved) -> None:
    done = qed("verify", "-", "--receipts", saved.receipts, stdin=saved.content("membership"))
    assert done.returncode == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"hello",
        b"\xff\xfe\x00",
        b"[" * 10_000_000,
        b'{"Answer":' * 1_000_000,
        b'{"Format":"qed-bundle-1","Kind":"membership","Snapshots":[],"Answer":' + b"[" * 900_000,
        b'{"Format":"qed-bundle-1","Kind":"membership","Answer":{},"Snapshots":'
        + b"[" * 100_000
        + b"]" * 100_000
        + b"}",
        b'{"Format":"\xff","Kind":"membership","Answer":{},"Snapshots":[]}',
        b'{"Format":"qed-bundle-1","Kind":"incremental","Answer":null,"Snapshots":null}',
    ],
    ids=lambda content: repr(content[:60]),
)
def test_what_is_no_bundle_fails_with_one_line(saved: Saved, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bundle.json"
    path.write_bytes(content)
    done = qed("verify", str(path), "--receipts", saved.receipts)
    assert done.stdout == "Verify: KO\n"
    assert len(one_line(done.stderr)) < 500
    assert done.returncode == 1


def test_an_endless_file_ends(saved: Saved) -> None:
    with open("/dev/zero", "rb") as endless:  # noqa: PTH123 - a device
        command = [QED, "verify", "-", "--receipts", saved.receipts]
        done = subprocess.run(
            command, stdin=endless, capture_output=True, timeout=LIMIT_S, env=environment(), check=False
        )
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("kind", "question"),
    [
        ("membership", ("--event", "event 8")),
        ("membership", ("--event-digest", "00" * 32)),
        ("membership", ("--version", "29")),
        ("absence", ("--event", "event 7")),
        ("incremental", ("--start", "4")),
        ("incremental", ("--end", "20")),
    ],
)
def test_an_answer_to_another_question_fails(saved: Saved, kind: str, question: tuple[str, str]) -> None:
    done = qed("verify", saved.path(kind), "--receipts", saved.receipts, *question)
    assert "Verify: KO\n" in done.stdout
    assert done.returncode == 1


def test_an_answer_to_the_callers_own_question_verifies(saved: Saved) -> None:
    asked = ("--event", "event 7", "--version", "30")
    assert qed("verify", saved.path("membership"), "--receipts", saved.receipts, *asked).returncode == 0
    asked = ("--start", "3", "--end", "21")
    assert qed("verify", saved.path("incremental"), "--receipts", saved.receipts, *asked).returncode == 0


def test_options_that_would_be_ignored_are_refused(saved: Saved) -> None:
    assert qed("verify", saved.path("membership"), "--start", "3").returncode == 2
    assert qed("verify", saved.path("membership"), "--end-digest", "00" * 32).returncode == 2
    assert qed("verify", saved.path("incremental"), "--event", "event 7").returncode == 2
    assert qed("verify", saved.path("incremental"), "--hyper-digest", "00" * 32).returncode == 2


def test_digests_of_ones_own_decide(saved: Saved, receipts: Receipts) -> None:
    hyper, history = receipts.hyper_root(41).digest.hex(), receipts.history_root(30).digest.hex()
    given = [
        ((hyper, "41"), (history, "30"), 0),
        ((history, "41"), (history, "30"), 1),
        ((hyper, "41"), (hyper, "30"), 1),
    ]
    # Correct digests, but not of the answer's versions: the server must not choose which version is trusted.
    given += [((hyper, "40"), (history, "30"), 1), ((hyper, "41"), (history, "29"), 1)]
    for (root, current), (other, query), code in given:
        trusted = ["--hyper-digest", root, "--current-version", current]
        trusted += ["--history-digest", other, "--query-version", query]
        assert qed("verify", saved.path("membership"), *trusted).returncode == code, given


@pytest.mark.parametrize("digest", ["--hyper-digest", "--history-digest"])
def test_a_digest_without_its_version_is_wrong_usage(saved: Saved, receipts: Receipts, digest: str) -> None:
    done = qed("verify", saved.path("membership"), digest, receipts.hyper_root(41).digest.hex())
    assert "-version" in one_line(done.stderr)
    assert (done.stdout, done.returncode) == ("", 2)


def test_an_event_added_again_needs_both_history_digests(saved: Saved, receipts: Receipts) -> None:
    trusted = ["--hyper-digest", receipts.hyper_root(41).digest.hex(), "--current-version", "41"]
    trusted += ["--history-digest", receipts.history_root(20).digest.hex(), "--query-version", "20"]
    done = qed("verify", saved.path("older"), *trusted)
    assert "version 41" in one_line(done.stderr)
    assert done.returncode == 1
    trusted += ["--current-history-digest", receipts.history_root(41).digest.hex()]
    done = qed("verify", saved.path("older"), *trusted)
    assert done.stdout.endswith("Verify: OK\n")
    assert done.returncode == 0


def test_one_digest_alone_does_not_suffice(saved: Saved, receipts: Receipts) -> None:
    trusted = ("--hyper-digest", receipts.hyper_root(41).digest.hex(), "--current-version", "41")
    done = qed("verify", saved.path("membership"), *trusted)
    assert "history digest of version 30" in one_line(done.stderr)
    assert "Verify: OK" not in done.stdout
    assert done.returncode == 1


def test_receipts_that_contradict_themselves_fail(saved: Saved, tmp_path: Path) -> None:
    lines = Path(saved.receipts).read_text()
    false = json.loads(lines.splitlines()[42]) | {"HyperDigest": "A" * 43 + "="}
    path = tmp_path / "receipts.jsonl"
    path.write_text(lines + json.dumps(false) + "\n")
    done = qed("verify", saved.path("membership"), "--receipts", str(path))
    assert "two different snapshots of version 41" in one_line(done.stderr)
    assert "Verify: FORK\n" in done.stdout
    assert done.returncode == 1
    (kept,) = tmp_path.glob("fork-41-*.jsonl")
    assert kept.stat().st_mode & 0o777 == 0o600
    assert len(read_lines(kept.read_text())) == 2


def test_half_a_line_at_the_end_of_receipts_is_refused(saved: Saved, tmp_path: Path) -> None:
    """It may be half of the newest receipt, without which an older answer would pass."""
    content = Path(saved.receipts).read_bytes()
    path = tmp_path / "receipts.jsonl"
    path.write_bytes(content + content[:100])
    done = qed("verify", saved.path("membership"), "--receipts", str(path))
    assert "ends in half a line" in one_line(done.stderr)
    assert (done.stdout, done.returncode) == ("", 2)


def test_a_bundle_does_not_replace_receipts(saved: Saved, tmp_path: Path) -> None:
    bundle = Bundle.load(saved.path("membership"))
    content = Path(saved.receipts).read_bytes()
    headless = content.split(b"\n", 1)[1] if content.startswith(b'{"Format"') else content
    for name, receipts in (("a", content), ("b", headless)):
        path = tmp_path / name
        path.write_bytes(receipts)
        with pytest.raises(ReceiptsError, match="is a receipts file"):
            bundle.save(path)
        assert path.read_bytes() == receipts


@pytest.mark.parametrize("content", [b"hello\n", b"{}\n", b"x" * 5000, os.urandom(5000) + b"\n"])
def test_a_file_that_holds_no_receipts_is_wrong_usage(saved: Saved, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "receipts.jsonl"
    path.write_bytes(content)
    done = qed("verify", saved.path("membership"), "--receipts", str(path))
    assert "is not a receipts file" in one_line(done.stderr)
    assert "Verify: OK" not in done.stdout
    assert done.returncode == 2


def test_a_missing_bundle_is_wrong_usage(saved: Saved, tmp_path: Path) -> None:
    done = qed("verify", str(tmp_path / "missing.json"), "--receipts", saved.receipts)
    assert (done.stdout, done.returncode) == ("", 2)


def test_a_pipe_that_nobody_writes_to_is_no_bundle(saved: Saved, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = qed("verify", str(tmp_path / "pipe"), "--receipts", saved.receipts)
    assert (done.stdout, done.returncode) == ("Verify: KO\n", 1)
    one_line(done.stderr)


def test_a_bundle_is_read_from_a_pipe(saved: Saved) -> None:
    reading, writing = os.pipe()
    os.write(writing, Path(saved.path("membership")).read_bytes())
    os.close(writing)
    command = [QED, "verify", f"/dev/fd/{reading}", "--receipts", saved.receipts]
    done = subprocess.run(command, pass_fds=[reading], capture_output=True, timeout=LIMIT_S, check=False)
    os.close(reading)
    assert done.returncode == 0, done.stderr


def test_the_paths_of_every_kind_are_drawn_in_80_columns(saved: Saved) -> None:
    for kind in KINDS:
        done = qed("verify", saved.path(kind), "--receipts", saved.receipts, "--show")
        assert max(len(line) for line in done.stdout.splitlines()) <= 80
        assert "└── " in done.stdout
        key = json.loads(saved.content(kind))["Answer"].get("KeyDigest")
        assert key is None or values(done.stdout)["KeyDigest"] == hex_of(key)
