"""Answers with the signed checkpoint that they rest on: from the clients, and by `--policy` of commands that ask."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import qed
from adversary import Adversary, http
from both_clients import Connect, connect
from commands import one_line, read_lines, values
from commands import qed as run
from harness.process import Server
from signing import World, b64, policy_of, signed_log
from test_signing import running
from test_witnessed_log import Watched

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    Ask = Callable[..., subprocess.CompletedProcess[str]]

__all__ = ["connect"]

POLICY = qed.Policy(policy_of().encode())
NOW = 1_700_000_000


def event(number: int) -> bytes:
    return b"event %d" % number


@pytest.fixture
def log(tmp_path: Path) -> Iterator[qed.Log]:
    """Give a log with the batches [0], [1], [2, 3]."""
    log = qed.Log(tmp_path / "log")
    log.add(event(0))
    log.add(event(1))
    log.add_bulk([event(2), event(3)])
    yield log
    log.close()


def receipt(log: qed.Log, world: World, version: int, end: int | None = None) -> bytes:
    """Return the answer with the receipt of one version, which ends its batch unless `end` does."""
    run = {"Proof": world.proof(version, version + 1), "Checkpoint": world.note()}
    last = (
        None if end is None else {"Version": end, "Entry": b64(world.entries[end]), "Proof": world.proof(end, end + 1)}
    )
    of_one = {"Format": "qed-receipt-1", "First": version, "Entries": [b64(world.entries[version])], "End": last}
    return http(200, of_one | run | {"Snapshots": [json.loads(log.snapshot(version).to_json())]})


def answer(log: qed.Log, question: qed.Membership | qed.Extension) -> bytes:
    if isinstance(question, qed.Extension):
        return http(200, log.incremental(question.start, question.end).to_json())
    return http(200, log.membership(question.digest, version=question.version).to_json())


def test_an_answer_and_its_receipts_become_a_bundle(log: qed.Log, connect: Connect) -> None:
    world = signed_log(log)
    asked = qed.Membership(event(1), 1)
    plays = answer(log, asked), receipt(log, world, 3), receipt(log, world, 1)
    with Adversary(*plays) as server:
        bundle = connect(server.url).signed_answer(asked)
        assert [each.path for each in server.received[1:]] == [
            "/receipts/3?last=3&level=witnessed",
            "/receipts/1?last=1&level=witnessed",
        ]
    verified = POLICY.verify(qed.SignedBundle.from_json(bundle.to_json()), question=asked, now=NOW)
    assert isinstance(verified.finding, qed.Present)
    assert (verified.finding.version, verified.level) == (1, qed.Level.WITNESSED)


def test_absence_and_growth_become_bundles(log: qed.Log, connect: Connect) -> None:
    world = signed_log(log)
    absent, grown = qed.Membership(b"never added"), qed.Extension(0, 3)
    plays = (
        answer(log, absent), receipt(log, world, 3),
        answer(log, grown), receipt(log, world, 3), receipt(log, world, 0),
    )  # fmt: skip
    with Adversary(*plays) as server:
        client = connect(server.url)
        bundles = client.signed_answer(absent, level="committed"), client.signed_answer(grown)
        assert server.received[1].path.endswith("level=committed")
    findings = [POLICY.verify(bundle, now=NOW).finding for bundle in bundles]
    assert [type(finding) for finding in findings] == [qed.Absent, qed.Extends]


def test_the_question_is_asked_again_if_the_log_grew(log: qed.Log, connect: Connect) -> None:
    asked = qed.Membership(event(0))
    before = answer(log, asked)
    log.add(b"meanwhile")
    world = signed_log(log)
    with Adversary(before, receipt(log, world, 3), answer(log, asked), receipt(log, world, 4)) as server:
        bundle = connect(server.url).signed_answer(asked)
    assert POLICY.verify(bundle, question=asked, now=NOW).checkpoint.size == 5


def test_receipts_of_two_trees_are_asked_for_again(log: qed.Log, connect: Connect) -> None:
    asked = qed.Extension(0, 3)
    first = signed_log(log)
    log.add(b"meanwhile")
    second = signed_log(log)
    torn = answer(log, asked), receipt(log, first, 3), receipt(log, second, 0)
    whole = answer(log, asked), receipt(log, second, 3), receipt(log, second, 0)
    with Adversary(*torn, *whole) as server:
        bundle = connect(server.url).signed_answer(asked)
        assert len(server.received) == 6
    assert POLICY.verify(bundle, question=asked, now=NOW).checkpoint.size == 5


def test_an_old_answer_is_never_passed_off_as_the_newest(log: qed.Log, connect: Connect) -> None:
    asked = qed.Membership(b"never added")
    old = answer(log, asked)
    log.add(b"never added")
    plays = [old, receipt(log, signed_log(log), 3)] * 10
    with Adversary(*plays) as server, pytest.raises(qed.SigningError, match="ask about version 3"):
        connect(server.url).signed_answer(asked)
    assert len(server.received) == 8


def test_a_version_inside_a_batch_has_no_signed_roots(log: qed.Log, connect: Connect) -> None:
    world = signed_log(log)
    plays = answer(log, qed.Extension(0, 2)), receipt(log, world, 2, end=3)
    with Adversary(*plays) as server, pytest.raises(qed.SigningError, match=r"version 2 is inside .* version 3"):
        connect(server.url).signed_answer(qed.Extension(0, 2))


def test_an_entry_that_is_not_that_of_the_answer_is_refused(log: qed.Log, connect: Connect) -> None:
    world = signed_log(log)
    forged = json.loads(receipt(log, world, 3).partition(b"\r\n\r\n")[2]) | {"Entries": [b64(world.entries[1])]}
    with (
        Adversary(answer(log, qed.Membership(event(0))), http(200, forged)) as server,
        pytest.raises(qed.VerificationError),
    ):
        POLICY.verify(connect(server.url).signed_answer(qed.Membership(event(0))), now=NOW)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Watched, Server]]:
    """Give a server with two witnesses and three events, of which the last two came in one bulk."""
    watched = Watched(tmp_path_factory.mktemp("watched"))
    server = Server("lone", watched.folder / "data", extra=watched.options())
    try:
        with running(server):
            server.add(b"event 0")
            with qed.Client(server.url) as client:
                client.add_bulk([b"event 1", b"event 2"])
            yield watched, server
    finally:
        watched.stop()


@pytest.fixture
def ask(watched: tuple[Watched, Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Give a function that runs `qed` in an empty folder, with the policy in the environment."""
    monkeypatch.chdir(tmp_path)
    world, server = watched

    def ask(*args: str, **changes: str) -> subprocess.CompletedProcess[str]:
        settings = {"XDG_STATE_HOME": os.path.realpath("state"), "QED_ENDPOINTS": server.url}
        settings |= {"QED_POLICY": str(world.policy_file)} | changes
        return run(*args, stdin=b"", **settings)

    return ask


def test_with_a_policy_every_answer_is_verified(ask: Ask) -> None:
    found = ask("membership", "--event", "event 0", "--out", "proof.json")
    assert (found.returncode, found.stdout.splitlines()[-1]) == (
        0,
        "Verify: OK, in the log at version 0, as of version 2",
    )
    assert values(found.stdout)["Witnesses"] == "w0, w1"
    assert all(len(line) <= 80 for line in found.stdout.splitlines())
    absent = ask("membership", "--event", "never added")
    assert (absent.returncode, absent.stdout.splitlines()[-1]) == (0, "Verify: OK, absent as of version 2")
    grown = ask("incremental", "--start", "0", "--end", "2", "--json")
    [record] = read_lines(grown.stdout)
    assert (record["Verify"], record["Level"], record["Kind"]) == ("OK", "witnessed", "bundle")
    inside = ask("incremental", "--start", "0", "--end", "1")
    assert (inside.returncode, one_line(inside.stderr)) == (
        4,
        "version 1 is inside a commit batch, and only its end, version 2, has signed roots: ask about that",
    )
    # What was saved needs no server, and other tools read it.
    offline = ask("verify", "proof.json", "--event", "event 0", QED_ENDPOINTS="http://127.0.0.1:1")
    assert (offline.returncode, offline.stdout.splitlines()[-1]) == (0, found.stdout.splitlines()[-1])
    assert ask("verify", "proof.json", "--event", "event 1").returncode == 1
    proof = ask("export", "--tlog-proof", "proof.json").stdout
    assert proof.startswith("c2sp.org/tlog-proof@v1\n")
    Path("event.tlog-proof").write_text(proof)
    assert ask("verify", "event.tlog-proof").returncode == 0


def test_a_policy_of_others_is_not_met(ask: Ask) -> None:
    Path("others").write_text(policy_of())
    done = ask("membership", "--event", "event 0", "--policy", "others", "--out", "proof.json")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "Verify: KO")
    # It was saved all the same: an answer that fails is evidence.
    assert qed.SignedBundle.from_json(Path("proof.json").read_bytes())


def test_with_a_policy_every_receipt_is_verified(ask: Ask) -> None:
    added = ask("add", "--event", "event 3")
    assert (added.returncode, added.stdout.splitlines()[-1]) == (
        0,
        "Verify: OK, signed, in log.example.com/test at size 4",
    )
    Path("lines").write_text("event 4\nevent 5\n")
    lines = ask("add", "--lines", "lines", "--receipts", "receipts", "--receipt-level", "witnessed")
    assert (lines.returncode, lines.stdout.splitlines()[-1]) == (
        0,
        "Verify: OK, witnessed, in log.example.com/test at size 6",
    )
    assert ask("verify", "receipts").returncode == 0
    again = ask("add", "--event", "event 3", "--if-absent")
    assert (again.returncode, "nothing was added, so there is no receipt" in again.stderr) == (0, True)
    assert "Verify" not in again.stdout


def test_receipts_of_others_do_not_verify(ask: Ask) -> None:
    Path("others").write_text(policy_of())
    done = ask("add", "--event", "event 3", "--policy", "others", "--receipts", "receipts")
    assert (done.returncode, done.stdout) == (1, "Verify: KO\n")
    assert "the event is in the log, says the server, at version" in done.stderr
    # It was kept all the same: it is evidence.
    assert "log.example.com/test" in Path("receipts").read_text()


def test_a_log_that_does_not_sign_meets_no_policy(ask: Ask, tmp_path: Path) -> None:
    with running(Server("plain", tmp_path / "plain")) as plain:
        done = ask("add", "--event", "event 0", QED_ENDPOINTS=plain.url)
    assert (done.returncode, done.stdout) == (5, "Verify: INCONCLUSIVE\n")
    assert "there is no committed receipt: " in one_line(done.stderr)


def test_an_event_that_is_added_before_what_is_known_is_a_fork(ask: Ask, watched: tuple[Watched, Server]) -> None:
    world, server = watched
    assert ask("membership", "--event", "event 0").returncode == 0
    # The operator has put an old copy back, with the real keys and without the witnesses.
    memory = world.folder / "forger.memory"
    signing = ("--origin", "log.example.com/test", "--signing-key", str(world.key), "--sign-memory", str(memory))
    with running(Server("forger", world.folder / "forger", extra=signing)) as forger:
        done = ask("add", "--event", "another", QED_ENDPOINTS=forger.url)
    assert (done.returncode, done.stdout) == (1, "Verify: FORK\n")
    assert "and now adds an event at version 0" in done.stderr
    assert ask("add", "--event", "event 9").returncode == 1
    assert len(server.url) > 0


def test_one_source_of_trust_is_named(ask: Ask, watched: tuple[Watched, Server]) -> None:
    policy = str(watched[0].policy_file)
    asked = "membership", "--event", "event 0"
    both = ask(*asked, "--policy", policy, "--trust-server")
    assert (both.returncode, "cannot be combined" in both.stderr) == (2, True)
    # A policy in the environment gives way to what is named.
    named = ask(*asked, "--trust-server")
    assert (named.returncode, "nothing trusted" in named.stdout) == (0, True)
    needless = ask(*asked, "--trust-server", "--memory", "memory")
    assert (needless.returncode, "--require and --memory are about a policy" in needless.stderr) == (2, True)
    lower = ask(*asked, "--require", "signed", "--memory", "memory", "--json")
    assert read_lines(lower.stdout)[0]["Level"] == "signed"
    assert Path("memory").exists()


def test_an_answer_that_is_not_witnessed_in_time_is_inconclusive(ask: Ask, watched: tuple[Watched, Server]) -> None:
    world, server = watched
    world.witnesses[1].kill()
    server.add(b"after that")
    done = ask("membership", "--event", "event 0", "--json")
    assert (done.returncode, "no witnessed answer: not witnessed yet" in one_line(done.stderr)) == (5, True)
    assert [record["Verify"] for record in read_lines(done.stdout)] == ["Inconclusive"]


def bulk_answer(log: qed.Log, events: list[bytes]) -> bytes:
    return http(200, log.membership_many(events).to_json())


def test_a_bulk_is_verified_by_what_the_log_has_signed(log: qed.Log, connect: Connect) -> None:
    world, asked = signed_log(log), [event(2), b"never added", event(0)]
    with Adversary(bulk_answer(log, asked), receipt(log, world, 3)) as server:
        found = connect(server.url).membership_many(asked, POLICY)
        assert server.received[-1].path == "/receipts/3?last=3&level=witnessed"
    assert [(type(each), each.as_of, each.trusted_by) for each in found] == [
        (qed.Present, 3, qed.TrustedBy.WITNESSES),
        (qed.Absent, 3, qed.TrustedBy.WITNESSES),
        (qed.Present, 3, qed.TrustedBy.WITNESSES),
    ]


def test_a_bulk_of_an_older_state_than_the_checkpoint_is_asked_for_again(log: qed.Log, connect: Connect) -> None:
    older = qed.Log()
    older.add(event(0))
    older.add(event(1))
    world, asked = signed_log(log), [event(1)]
    lagging = bulk_answer(older, asked), receipt(log, world, 1)
    with Adversary(*lagging, bulk_answer(log, asked), receipt(log, world, 3)) as server:
        (found,) = connect(server.url).membership_many(asked, POLICY)
    assert found.as_of == 3
    with Adversary(*lagging, lagging[0]) as server, pytest.raises(qed.SigningError, match="the log grows"):
        connect(server.url).membership_many(asked, POLICY)


def test_a_bulk_of_another_log_than_the_signed_one_proves_nothing(log: qed.Log, connect: Connect) -> None:
    other = qed.Log()
    other.add_bulk([b"forged", event(1), event(2), event(3)])
    plays = bulk_answer(other, [event(1)]), receipt(log, signed_log(log), 3)
    with Adversary(*plays) as server, pytest.raises(qed.VerificationError):
        connect(server.url).membership_many([event(1)], POLICY)
