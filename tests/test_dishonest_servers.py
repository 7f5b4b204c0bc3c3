"""Servers that deny, roll back, rewrite, fork or invent a log, against every verifying command and both clients.

The caller has receipts of five events. "payment 17" is at version 3, and each server denies it in a different way. The
proofs of these servers are valid, but for a log other than the caller's.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from adversary import b64
from both_clients import Connect, connect
from commands import one_line, qed, read_lines
from dishonesty import Faces, changed, log_of
from harness.process import Server
from qed import Absent, Bundle, Digest, Extension, Membership, Present, Receipts, Snapshot, _qed
from qed.errors import (
    ContradictsReceipt,
    ForkDetected,
    QedError,
    ReceiptsError,
    StaleAnswer,
    VerificationError,
)

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from dishonesty import Reply
    from qed import Log
    from qed.questions import Question

__all__ = ["connect"]

PAYMENT: Final = b"payment 17"
EVENTS: Final = (b"event 0", b"event 1", b"event 2", PAYMENT, b"event 4")
OTHERS: Final = tuple(b"other %d" % number for number in range(9))
NAME: Final = "the log"
ZERO: Final = b64(bytes(32))
WORDS: Final = {VerificationError: "KO", ContradictsReceipt: "KO", StaleAnswer: "STALE", ForkDetected: "FORK"}


def write_receipts(path: Path, *snapshots: Snapshot) -> str:
    """Write proven receipts of the true log."""
    lines = [json.dumps({"Format": "qed-receipts-1", "Log": NAME})]
    lines += [json.dumps({**json.loads(snapshot.to_json()), "Linked": True}) for snapshot in snapshots]
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


@pytest.fixture
def receipts(tmp_path: Path) -> str:
    log = log_of(*EVENTS)
    return write_receipts(tmp_path / "receipts.jsonl", *(log.snapshot(version) for version in range(5)))


def lying(log: Log, **lies: Callable[[Reply], Reply]) -> Faces:
    faces = Faces(log, name=NAME)
    faces.lies.update(lies)
    return faces


def refused(first: int) -> Faces:
    """Refuse to answer about the payment, because it was added later."""
    reply = 412, {"error": "added_later", "message": "later", "FirstVersion": first}
    return lying(log_of(*EVENTS), membership=lambda _: reply)


def at_version_2() -> Faces:
    """Answer each question about the payment from the state after three events, with the true last version."""
    older = log_of(*EVENTS[:3])
    absence = json.loads(older.membership(PAYMENT).to_json())
    return lying(log_of(*EVENTS), membership=lambda _: (200, absence | {"CurrentVersion": 4}))


def beyond() -> Faces:
    """Answer from a longer log, and refuse its snapshots and incremental proofs."""
    unknown = 404, {"error": "unknown_version", "message": "no such version"}
    return lying(log_of(*OTHERS), snapshot=lambda _: unknown, incremental=lambda _: unknown)


def made_up() -> Faces:
    """Answer from a longer log, with invented snapshots."""
    return lying(log_of(*OTHERS), snapshot=changed(HistoryDigest=ZERO, HyperDigest=ZERO))


@dataclass(frozen=True)
class Case:
    """A server, and the error that each question to it must end with. None stands for a valid answer.

    Attributes:
        server: Makes the server.
        latest: For a question about the payment.
        at_its_version: For one about the payment at its version or the last one.
        whole: For one about the whole range.
        never_added: For one about an event that is not in the log.
    """

    server: Callable[[], Faces]
    latest: type[QedError]
    at_its_version: type[QedError]
    whole: type[QedError] | None
    never_added: type[QedError] | None


CASES: Final = {
    "stale": Case(lambda: Faces(log_of(*EVENTS[:3]), name=NAME), StaleAnswer, StaleAnswer, StaleAnswer, StaleAnswer),
    "emptied": Case(lambda: Faces(log_of(), name=NAME), StaleAnswer, StaleAnswer, StaleAnswer, StaleAnswer),
    "rewritten": Case(
        lambda: Faces(log_of(*OTHERS[:5]), name=NAME), ForkDetected, ForkDetected, ForkDetected, ForkDetected
    ),
    "rewritten and longer": Case(
        lambda: Faces(log_of(*OTHERS), name=NAME), ForkDetected, ForkDetected, ForkDetected, ForkDetected
    ),
    "rewritten from version 3 on": Case(
        lambda: Faces(log_of(*EVENTS[:3], *OTHERS[:2]), name=NAME),
        ForkDetected,
        ForkDetected,
        ForkDetected,
        ForkDetected,
    ),
    "two faces": Case(
        lambda: Faces(log_of(*OTHERS[:5]), name=NAME, snapshot=log_of(*EVENTS)),
        ContradictsReceipt,
        ContradictsReceipt,
        VerificationError,
        VerificationError,
    ),
    "two faces and longer": Case(
        lambda: Faces(log_of(*OTHERS), name=NAME, snapshot=log_of(*EVENTS, *OTHERS)),
        VerificationError,
        VerificationError,
        VerificationError,
        VerificationError,
    ),
    "a face for proofs of membership": Case(
        lambda: Faces(log_of(*EVENTS, b"event 5"), name=NAME, membership=log_of(*EVENTS[:3], *OTHERS[:3])),
        ContradictsReceipt,
        ContradictsReceipt,
        None,
        VerificationError,
    ),
    "clamped": Case(at_version_2, VerificationError, VerificationError, None, VerificationError),
    "refused as added later": Case(lambda: refused(9), ContradictsReceipt, ContradictsReceipt, None, VerificationError),
    "refused as added now": Case(lambda: refused(3), VerificationError, ContradictsReceipt, None, VerificationError),
    "refused as added before": Case(lambda: refused(2), VerificationError, ContradictsReceipt, None, VerificationError),
    "nothing to show": Case(beyond, StaleAnswer, StaleAnswer, StaleAnswer, StaleAnswer),
    "made up": Case(made_up, ForkDetected, ForkDetected, ForkDetected, ForkDetected),
}


def ended(done: subprocess.CompletedProcess[str], error: type[QedError]) -> None:
    """Check that a command ended with the verdict for an error, and gave the reason in one line."""
    assert "Verify: OK" not in done.stdout
    assert f"Verify: {WORDS[error]}\n" in done.stdout, (done.stdout, done.stderr)
    assert len(one_line(done.stderr)) < 600
    assert done.returncode == 1


QUESTIONS: Final = {
    "latest": ("membership", "--event", "payment 17"),
    "linearizable": ("membership", "--event", "payment 17", "--linearizable"),
    "at its version": ("membership", "--event", "payment 17", "--version", "3"),
    "whole": ("incremental", "--start", "0", "--end", "4"),
    "never added": ("membership", "--event", "never added"),
}


def expected(case: Case, question: str) -> type[QedError] | None:
    by_question = {"latest": case.latest, "linearizable": case.latest, "whole": case.whole}
    return (by_question | {"never added": case.never_added}).get(question, case.at_its_version)


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("name", CASES)
def test_no_command_is_talked_into_ok(receipts: str, tmp_path: Path, name: str, question: str) -> None:
    error, out = expected(CASES[name], question), tmp_path / "bundle.json"
    before = Path(receipts).read_bytes()
    with CASES[name].server() as server:
        asked = (*QUESTIONS[question], "--receipts", receipts, "--out", str(out))
        done = qed(*asked, QED_ENDPOINTS=server.url)
    assert Path(receipts).read_bytes() == before
    if error is None:
        assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stdout + done.stderr
        return
    # If the answer was saved, another line reports that.
    lines = [line for line in done.stderr.splitlines() if "saved the answer" not in line]
    done.stderr = "".join(f"{line}\n" for line in lines)
    ended(done, error)
    if error is ForkDetected:
        (kept,) = tmp_path.glob("fork-4-*.jsonl")
        assert read_lines(kept.read_text())[0]["HistoryDigest"] != read_lines(kept.read_text())[1]["HistoryDigest"]
    if out.exists():
        offline = qed("verify", str(out), "--receipts", receipts)
        assert "Verify: OK" not in offline.stdout
        assert offline.stdout.splitlines()[-1] in {"Verify: KO", "Verify: STALE", "Verify: FORK"}
        assert offline.returncode == 1
        one_line(offline.stderr)


@pytest.mark.parametrize("name", CASES)
def test_digests_of_ones_own_are_not_given_to_another_version(name: str) -> None:
    newest = log_of(*EVENTS).snapshot(4)
    history, hyper = newest.history_digest.hex(), newest.hyper_digest.hex()
    given = ("--hyper-digest", hyper, "--current-version", "4", "--history-digest", history, "--query-version", "4")
    with CASES[name].server() as server:
        done = qed(*QUESTIONS["latest"], *given, QED_ENDPOINTS=server.url)
    assert "Verify: OK" not in done.stdout
    # A server that refuses to answer, or whose log is empty, makes no claim to verify.
    assert done.returncode in ({4} if "refused" in name or name == "emptied" else {1})
    one_line(done.stderr)


@pytest.mark.parametrize("question", ["latest", "whole"])
@pytest.mark.parametrize("name", CASES)
def test_a_server_on_its_own_word_is_consistent_at_best(tmp_path: Path, name: str, question: str) -> None:
    out = tmp_path / "bundle.json"
    with CASES[name].server() as server:
        done = qed(*QUESTIONS[question], "--trust-server", "--out", str(out), "--json", QED_ENDPOINTS=server.url)
    verdicts = [line["Verify"] for line in read_lines(done.stdout)]
    assert "OK" not in verdicts
    assert (done.returncode == 0) == (verdicts == ["Consistent"])
    if out.exists():
        offline = qed("verify", str(out), "--trust-bundle", "--json")
        assert [line["Verify"] for line in read_lines(offline.stdout)] != ["OK"]


ASKED: Final[dict[str, Question]] = {
    "latest": Membership(PAYMENT),
    "at its version": Membership(PAYMENT, 3),
    "at the last version": Membership(PAYMENT, 4),
    "whole": Extension(0, 4),
    "never added": Membership(b"never added"),
}


@pytest.mark.parametrize("question", ASKED)
@pytest.mark.parametrize("name", CASES)
def test_no_client_is_talked_into_a_finding(connect: Connect, receipts: str, name: str, question: str) -> None:
    error = expected(CASES[name], question)
    with CASES[name].server() as server, Receipts.load(receipts) as trusted:
        client = connect(server.url)
        if error is None:
            client.verify(ASKED[question], trusted)
            return
        with pytest.raises(error) as caught:
            client.verify(ASKED[question], trusted)
    assert WORDS.get(caught.type, "KO") == WORDS[error]


@pytest.mark.parametrize("kind", ["membership", "everything"])
def test_a_member_that_lags_is_asked_again(connect: Connect, receipts: str, kind: str) -> None:
    true, lagging = log_of(*EVENTS), log_of(*EVENTS[:3])
    kinds = ("membership", "incremental", "snapshot") if kind == "everything" else (kind,)
    faces = dict.fromkeys(kinds, lagging) | {f"{name}!": true for name in kinds}
    with Faces(true, name=NAME, **faces) as server, Receipts.load(receipts) as trusted:
        client = connect(server.url)
        assert isinstance(client.verify(Membership(PAYMENT), trusted), Present)
        assert isinstance(client.verify(Membership(b"never added"), trusted), Absent)
        assert client.verify(Extension(0, 4), trusted).end == 4
        done = qed(*QUESTIONS["latest"], "--receipts", receipts, QED_ENDPOINTS=server.url)
    assert done.stdout.endswith("Verify: OK\n")


def test_a_member_that_lags_keeps_no_receipt_from_its_file(connect: Connect, receipts: str) -> None:
    true, lagging = log_of(*EVENTS), log_of(*EVENTS)
    faces = dict.fromkeys(("membership", "incremental"), lagging)
    faces |= {f"{name}!": true for name in faces}
    with Faces(true, name=NAME, **faces) as server, Receipts.open(receipts) as kept:
        client = connect(server.url)
        client.keep(kept, client.add(b"event 5"))
        assert kept.anchor == true.snapshot(5)


# Adding: snapshots that a server acknowledges are proven before they are kept.


def bulk(**fields: object) -> Callable[[Reply], Reply]:
    """Return the lie that changes the middle snapshot of a bulk."""

    def lie(reply: Reply) -> Reply:
        status, value = reply
        value[1].update(fields)
        return status, value

    return lie


def all_of_bulk(**fields: object) -> Callable[[Reply], Reply]:
    def lie(reply: Reply) -> Reply:
        status, value = reply
        for snapshot in value:
            snapshot.update(fields)
        return status, value

    return lie


def last_versions(reply: Reply) -> Reply:
    """Give a bulk the last versions of 64 bits."""
    status, value = reply
    for number, snapshot in enumerate(reversed(value)):
        snapshot["Version"] = 2**64 - 1 - number
    return status, value


def grown(reply: Reply) -> Reply:
    """Claim that the log has grown, to avoid a proof of the hyper tree, and deny the event."""
    other = log_of(*EVENTS[:3], *OTHERS)
    absence = json.loads(other.membership(b"event 5").to_json())
    return reply[0], absence | {"KeyDigest": reply[1]["KeyDigest"], "QueryVersion": 5, "ActualVersion": 5}


TRUE: Final = "true"

POISONS: Final[dict[str, tuple[Callable[[], Faces], type[QedError]]]] = {
    "zero roots": (
        lambda: lying(
            log_of(*EVENTS),
            add=changed(HistoryDigest=ZERO, HyperDigest=ZERO),
            bulk=all_of_bulk(HistoryDigest=ZERO, HyperDigest=ZERO),
        ),
        VerificationError,
    ),
    "a zero history root": (
        lambda: lying(log_of(*EVENTS), add=changed(HistoryDigest=ZERO), bulk=bulk(HistoryDigest=ZERO)),
        VerificationError,
    ),
    "a zero hyper root": (
        lambda: lying(log_of(*EVENTS), add=changed(HyperDigest=ZERO), bulk=all_of_bulk(HyperDigest=ZERO)),
        VerificationError,
    ),
    "a repeated version": (
        lambda: lying(log_of(*EVENTS), add=changed(Version=3), bulk=bulk(Version=3)),
        VerificationError,
    ),
    "a version far beyond": (
        lambda: lying(log_of(*EVENTS), add=changed(Version=2**64 - 1), bulk=bulk(Version=2**64 - 1)),
        VerificationError,
    ),
    "the last of all versions": (
        lambda: lying(log_of(*EVENTS), add=changed(Version=2**64 - 1), bulk=last_versions),
        VerificationError,
    ),
    "another event's snapshot": (
        lambda: lying(log_of(*EVENTS), add=changed(EventDigest=ZERO), bulk=bulk(EventDigest=ZERO)),
        VerificationError,
    ),
    "a rewritten log": (lambda: Faces(log_of(*OTHERS[:5]), name=NAME), ForkDetected),
    "a rewritten log that is longer": (lambda: Faces(log_of(*OTHERS), name=NAME), ForkDetected),
    "a log rolled back": (lambda: Faces(log_of(*EVENTS[:3]), name=NAME), VerificationError),
    "a log begun anew": (lambda: Faces(log_of(), name=NAME), VerificationError),
    "another log": (lambda: Faces(log_of(*OTHERS), name="another log"), ReceiptsError),
    "a name that fills a line": (lambda: Faces(log_of(*EVENTS), name="x" * 5000), VerificationError),
    "a log that has grown": (
        lambda: lying(log_of(*EVENTS), membership=grown),
        VerificationError,
    ),
    "a refusal": (
        lambda: lying(
            log_of(*EVENTS),
            membership=lambda _: (412, {"error": "added_later", "message": "later", "FirstVersion": 99}),
        ),
        VerificationError,
    ),
}


@pytest.mark.parametrize("form", ["--event", "--lines"])
@pytest.mark.parametrize("name", POISONS)
def test_nothing_false_reaches_the_receipts(receipts: str, tmp_path: Path, name: str, form: str) -> None:
    make, error = POISONS[name]
    lines = tmp_path / "lines.txt"
    lines.write_bytes(b"event 5\nevent 6\nevent 7\n")
    given = ("--event", "event 5") if form == "--event" else ("--lines", str(lines))
    before = Path(receipts).read_bytes()
    with make() as server:
        done = qed("add", *given, "--receipts", receipts, QED_ENDPOINTS=server.url)
    assert Path(receipts).read_bytes() == before
    assert done.returncode == (2 if error is ReceiptsError else 1)
    message = one_line(done.stderr)
    if error is ForkDetected:
        assert "fork: two different snapshots of version" in message
    # The refused snapshots are printed, unless they are of another event.
    assert ("may have no receipt" in message) == bool(done.stdout)


@pytest.mark.parametrize("name", POISONS)
def test_no_client_keeps_what_is_false(connect: Connect, receipts: str, name: str) -> None:
    make, error = POISONS[name]
    before = Path(receipts).read_bytes()
    for events in ([b"event 5"], [b"event 5", b"event 6", b"event 7"]):
        with make() as server, Receipts.open(receipts) as kept:
            client = connect(server.url)
            with pytest.raises(error):
                client.keep(kept, client.add_bulk(events) if len(events) > 1 else client.add(events[0]))
        assert Path(receipts).read_bytes() == before


def replayed(version: int, count: int = 1) -> Faces:
    """Acknowledge events with true snapshots of equal events from before, and add nothing."""
    log = log_of(*EVENTS)
    earlier = [json.loads(log.snapshot(number).to_json()) for number in range(version, version + count)]
    # The log that is asked for proofs is not the one that grows.
    faces = Faces(log, name=NAME, add=log_of(*EVENTS), bulk=log_of(*EVENTS))
    faces.lies.update(add=lambda _: (201, earlier[0]), bulk=lambda _: (201, earlier))
    return faces


def one_batch() -> Faces:
    """Acknowledge a bulk with the snapshots of an equal one from before."""
    log = log_of(*EVENTS[:3])
    earlier = [json.loads(snapshot.to_json()) for snapshot in log.add_bulk(EVENTS[3:])]
    faces = Faces(log, name=NAME, bulk=log_of())
    faces.lies["bulk"] = lambda _: (201, earlier)
    return faces


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("is_prepared", [False, True])
def test_an_event_acknowledged_with_an_earlier_snapshot_was_not_added(
    connect: Connect, receipts: str, version: int, is_prepared: bool
) -> None:
    before = Path(receipts).read_bytes()
    with replayed(version) as server, Receipts.open(receipts) as kept:
        client = connect(server.url)
        if is_prepared:
            client.prepare(kept)
        for _ in range(3):
            with pytest.raises(VerificationError, match="expected one above 4"):
                client.keep(kept, client.add(EVENTS[version]))
        # With if_absent the same answer is true.
        careful = connect(server.url)
        careful.prepare(kept)
        careful.keep(kept, careful.add(EVENTS[version], if_absent=True))
    assert Path(receipts).read_bytes() == before


def test_a_bulk_acknowledged_with_earlier_snapshots_was_not_added(connect: Connect, tmp_path: Path) -> None:
    log = log_of(*EVENTS[:3])
    log.add_bulk(EVENTS[3:])
    receipts = write_receipts(tmp_path / "receipts.jsonl", *(log.snapshot(version) for version in range(5)))
    for is_prepared in (False, True):
        with one_batch() as server, Receipts.open(receipts) as kept:
            client = connect(server.url)
            if is_prepared:
                client.prepare(kept)
            with pytest.raises(VerificationError, match="expected one above 4, computed 3"):
                client.keep(kept, client.add_bulk(EVENTS[3:]))


@pytest.mark.parametrize("proof", [(), ("--receipts-unverified",)], ids=["proven", "unverified"])
@pytest.mark.parametrize("form", ["--event", "--lines"])
def test_no_command_takes_an_earlier_snapshot_for_an_added_event(
    receipts: str, form: str, proof: tuple[str, ...]
) -> None:
    before = Path(receipts).read_bytes()
    given = ("--event", PAYMENT.decode()) if form == "--event" else ("--lines", "-")
    with replayed(3) as server:
        args = ("add", *given, "--receipts", receipts, *proof)
        done = qed(*args, stdin=PAYMENT + b"\n", QED_ENDPOINTS=server.url)
        assert "expected one above 4, computed 3" in one_line(done.stderr)
        assert (done.returncode, Path(receipts).read_bytes()) == (1, before)
        assert qed(*args, "--if-absent", stdin=PAYMENT + b"\n", QED_ENDPOINTS=server.url).returncode == 0


def test_receipts_that_others_append_meanwhile_make_no_event_old(connect: Connect, receipts: str) -> None:
    """Each add is compared with what was known before it, not with what others appended since."""
    with Faces(log_of(*EVENTS), name=NAME) as server, Receipts.open(receipts) as kept, Receipts.open(receipts) as own:
        client, other = connect(server.url), connect(server.url)
        for _ in range(2):
            added, later = client.add(b"mine"), other.add(b"theirs")
            other.keep(own, later)
            client.keep(kept, added)
        # The order in which one client keeps its snapshots is free, too.
        added, later = client.add(b"first"), client.add(b"second")
        client.keep(kept, later)
        client.keep(kept, added)
        assert len(kept) == 11


@pytest.mark.parametrize("name", ["zero roots", "a zero hyper root", "a name that fills a line"])
def test_an_empty_file_takes_nothing_false_either(connect: Connect, tmp_path: Path, name: str) -> None:
    path = tmp_path / "receipts.jsonl"
    with POISONS[name][0]() as server, Receipts.open(path) as kept:
        client = connect(server.url)
        with pytest.raises(VerificationError):
            client.keep(kept, client.add(b"event 5"))
    assert path.read_bytes() == b""


def test_receipts_of_two_logs_end_in_no_ok(tmp_path: Path) -> None:
    """The file was written by a version that appended receipts of a second log without proof."""
    true, other = log_of(*EVENTS[:3]), log_of(*OTHERS[:4])
    lines = [log.snapshot(version).to_json() for log, version in ((true, 0), (true, 1), (true, 2), (other, 3))]
    path, out = tmp_path / "receipts.jsonl", tmp_path / "bundle.json"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    with Faces(other, name=NAME) as server:
        for question in ("--event=event 0", "--event=never added", "--event=other 1"):
            asked = ("membership", question, "--receipts", str(path), "--out", str(out))
            done = qed(*asked, QED_ENDPOINTS=server.url)
            assert "Verify: KO\n" in done.stdout
            assert done.returncode == 1
            offline = qed("verify", str(out), "--receipts", str(path))
            assert offline.stdout.endswith("Verify: KO\n"), question
            assert offline.returncode == 1
        done = qed("add", "--event", "x", "--receipts", str(path), QED_ENDPOINTS=server.url)
        assert done.returncode == 1
    assert path.read_bytes() == b"".join(line + b"\n" for line in lines)


@pytest.mark.parametrize("versions", [(2**64 - 2, 2**64 - 1), (2**64 - 1,), (2**64 - 1, 0), (2**64 - 1, 2**64 - 1)])
def test_the_end_of_all_versions_is_refused_and_no_bug(versions: tuple[int, ...]) -> None:
    proof, nothing = log_of(*EVENTS).incremental(0, 1), Digest(bytes(32))
    added = [
        Snapshot(event_digest=nothing, history_digest=nothing, hyper_digest=nothing, version=version)
        for version in versions
    ]
    with pytest.raises(VerificationError):
        _qed.verify_bulk(proof, added)


# The same attacks with the ordinary server and real folders.


@dataclass
class Scene:
    """A log of five events on an ordinary server, with earlier copies of its folder."""

    folder: Path
    receipts: str

    def copy(self, name: str) -> Path:
        return self.folder / name


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    made = Scene(tmp_path_factory.mktemp("scene"), "")
    made.receipts = str(made.folder / "receipts.jsonl")
    for name, events in (("empty", ()), ("older", EVENTS[:3]), ("whole", EVENTS[3:])):
        with running(made.copy("log")) as url:
            for event in events:
                done = qed("add", "--event", event, "--receipts", made.receipts, QED_ENDPOINTS=url)
                assert done.returncode == 0, done.stderr
        shutil.copytree(made.copy("log"), made.copy(name))
    return made


class running:  # noqa: N801 - reads like a keyword after `with`
    """Run the ordinary server on a folder."""

    def __init__(self, folder: Path) -> None:
        self._server = Server("server0", folder)

    def __enter__(self) -> str:
        self._server.start()
        return self._server.url

    def __exit__(self, *_: object) -> None:
        self._server.stop()
        self._server.forget()


def rewritten(scene: Scene, base: str, name: str, events: tuple[bytes, ...]) -> Path:
    """Return a copy of a folder to which other events were added."""
    folder = scene.copy(name)
    shutil.copytree(scene.copy(base), folder)
    with running(folder) as url:
        for event in events:
            assert qed("add", "--event", event, QED_ENDPOINTS=url).returncode == 0
    return folder


@pytest.mark.parametrize("options", [(), ("--version", "3"), ("--version", "4"), ("--linearizable",)])
def test_a_folder_put_back_ends_stale(scene: Scene, tmp_path: Path, options: tuple[str, ...]) -> None:
    folder = shutil.copytree(scene.copy("older"), tmp_path / "log")
    with running(folder) as url:
        done = qed("membership", "--event", "payment 17", "--receipts", scene.receipts, *options, QED_ENDPOINTS=url)
    ended(done, StaleAnswer)


def test_a_folder_put_back_takes_no_receipt(scene: Scene, tmp_path: Path) -> None:
    folder = shutil.copytree(scene.copy("older"), tmp_path / "log")
    before = Path(scene.receipts).read_bytes()
    with running(folder) as url:
        done = qed("add", "--event", "event 5", "--receipts", scene.receipts, QED_ENDPOINTS=url)
        one_line(done.stderr)
        assert done.returncode == 1
        done = qed("incremental", "--start", "0", "--end", "4", "--receipts", scene.receipts, QED_ENDPOINTS=url)
        ended(done, StaleAnswer)
    assert Path(scene.receipts).read_bytes() == before


@pytest.mark.parametrize("count", [5, 8])
@pytest.mark.parametrize("base", ["empty", "older"])
def test_a_rewritten_folder_ends_in_a_fork(scene: Scene, tmp_path: Path, base: str, count: int) -> None:
    held = 3 if base == "older" else 0
    folder = rewritten(scene, base, f"rewritten {base} {count}", OTHERS[: count - held])
    receipts = shutil.copy(scene.receipts, tmp_path / "receipts.jsonl")
    before = Path(receipts).read_bytes()
    with running(folder) as url:

        def run(*args: str) -> subprocess.CompletedProcess[str]:
            return qed(*args, "--receipts", str(receipts), QED_ENDPOINTS=url)

        # The user adds one more event with the same file, then asks.
        added = run("add", "--event", "one more")
        assert (added.returncode, Path(receipts).read_bytes()) == (1, before)
        assert "fork" in one_line(added.stderr)
        for question in (("payment 17",), ("payment 17", "--version", "3"), ("event 0", "--version", "0")):
            out = tmp_path / f"{len(question)}{question[0]}.json"
            done = run("membership", "--event", *question, "--out", str(out))
            if question[0] == "payment 17" or base == "empty":
                assert "Verify: FORK\n" in done.stdout, done.stdout + done.stderr
                assert done.returncode == 1
                offline = qed("verify", str(out), "--event", question[0], "--receipts", str(receipts))
                assert "Verify: OK" not in offline.stdout
                assert offline.returncode == 1
        ended(run("incremental", "--start", "0", "--end", "4"), ForkDetected)


def test_the_honest_folder_verifies(scene: Scene) -> None:
    with running(scene.copy("whole")) as url:
        done = qed("membership", "--event", "payment 17", "--receipts", scene.receipts, QED_ENDPOINTS=url)
    assert done.stdout.endswith("Verify: OK\n")
    assert (done.returncode, hashlib.sha256(PAYMENT).hexdigest() in done.stdout) == (0, True)


def test_writers_shown_another_log_than_readers_hold_a_fork(receipts: str, tmp_path: Path) -> None:
    """The acknowledged snapshot differs from the one that the server shows to readers, and both are saved."""
    true, other = log_of(*EVENTS, b"event 5"), log_of(*EVENTS)
    with Faces(true, name=NAME, add=other) as server:
        done = qed("add", "--event", "event 6", "--receipts", receipts, QED_ENDPOINTS=server.url)
    assert "fork" in one_line(done.stderr)
    assert done.returncode == 1
    (kept,) = tmp_path.glob("fork-5-*.jsonl")
    assert len({line["EventDigest"] for line in read_lines(kept.read_text())}) == 2
    assert Receipts.load(receipts).get(5) is None


def test_a_kept_membership_stays_true_and_a_kept_absence_does_not(receipts: str, tmp_path: Path) -> None:
    """The bundle is of a log of three events, the receipts of five: an honest log grows."""
    older = log_of(*EVENTS[:3])
    for event, verdict, code in (("event 0", "OK", 0), ("payment 17", "STALE", 1), ("never added", "STALE", 1)):
        question = Membership(event.encode())
        bundle = tmp_path / "bundle.json"
        Bundle.of(question, older.membership(event.encode()), [older.snapshot(2)]).save(bundle)
        done = qed("verify", str(bundle), "--receipts", receipts)
        assert f"Verify: {verdict}\n" in done.stdout
        assert done.returncode == code
    # A membership does not answer a question about a version beyond its log.
    Bundle.of(Membership(EVENTS[0], 4), older.membership(EVENTS[0]), [older.snapshot(2)]).save(bundle)
    assert "Verify: STALE\n" in qed("verify", str(bundle), "--receipts", receipts).stdout


def test_a_kept_membership_is_true_of_the_receipts_only(receipts: str, tmp_path: Path) -> None:
    other = log_of(b"forged", *EVENTS[1:3])
    bundle = tmp_path / "bundle.json"
    Bundle.of(Membership(b"forged"), other.membership(b"forged"), [other.snapshot(2)]).save(bundle)
    done = qed("verify", str(bundle), "--receipts", receipts)
    assert "Verify: FORK\n" in done.stdout
    assert done.returncode == 1


@pytest.mark.parametrize("reply", [(201, {}), (500, "x"), (201, "x")])
def test_an_answer_that_cannot_be_read_leaves_it_open_whether_the_event_was_added(reply: Reply) -> None:
    with lying(log_of(), add=lambda _: reply) as server:
        done = qed("add", "--event", "x", QED_ENDPOINTS=server.url)
    assert one_line(done.stderr).endswith("the event may or may not have been added")
    assert done.returncode == 3
    with lying(log_of(), bulk=lambda _: reply) as server:
        done = qed("add", "--lines", "-", stdin=b"x\ny\n", QED_ENDPOINTS=server.url)
    assert one_line(done.stderr).endswith("the next 2 may or may not have been added")
    assert done.returncode == 3
