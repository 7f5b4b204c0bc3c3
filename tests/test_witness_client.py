"""Asking witnesses that answer wrongly, late, too much or not at all."""

from __future__ import annotations

import asyncio
import gzip
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING

import pytest

import qed
from cosigners import FINGERPRINT, LIMIT_S, W1, W2, Chronicle, client_of, close_clients, log_of, old_of, policy_of
from qed.server.witness_exchange import AcknowledgedSizes
from qed.server.witness_outcomes import OutcomeKind, SightingKind
from scripted_http import HANG, ScriptedServer, reply
from signing import NOW, Signer
from witnesses import ForeignLog, consistency, request, root_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from qed.server.witness_client import WitnessClient
    from qed.server.witness_outcomes import Outcome, Round
    from scripted_http import Reply, Request

LOG = log_of(9)
NOTE = LOG.sign(LOG.text())
SKEW_S = 300


@pytest.fixture(autouse=True)
async def _closed() -> AsyncIterator[None]:
    yield
    await close_clients()


def line_of(witness: Signer, time: int = NOW, log: ForeignLog = LOG) -> str:
    return witness.line(log.text(), time)


def good(witness: Signer = W1) -> bytes:
    return reply(200, line_of(witness))


async def ask(
    server: ScriptedServer, *more: str, limit_s: float = 5.0, acknowledged: int = 0, quorum: str = "all"
) -> tuple[Round, WitnessClient]:
    """Ask a witness at a server for its cosignature, and further ones."""
    policy = policy_of(LOG, f"w1 {W1.vkey} {server.url}", *more, quorum=quorum)
    client = client_of(policy, acknowledged=AcknowledgedSizes({server.url: acknowledged}))
    return await client.cosign(NOTE, Chronicle(LOG), limit_s=limit_s), client


async def outcome_of(*replies: Reply, acknowledged: int = 0, limit_s: float = 5.0) -> tuple[Outcome, list[Request]]:
    """Return how asking one witness ends that gives these replies, and what it was sent."""
    async with ScriptedServer(*replies) as server:
        result, _ = await ask(server, acknowledged=acknowledged, limit_s=limit_s)
        is_cosigned = result.outcomes[0].kind is OutcomeKind.COSIGNED
        assert (result.is_quorum_met, result.checkpoint.is_witnessed) == (is_cosigned, is_cosigned)
        assert result.note == (NOTE + line_of(W1) if is_cosigned else NOTE)
        return result.outcomes[0], server.requests


async def test_a_cosigned_checkpoint_has_the_line_of_the_witness_and_meets_the_quorum() -> None:
    outcome, requests = await outcome_of(good())
    assert (outcome.kind, outcome.names, outcome.cosigned) == (OutcomeKind.COSIGNED, ("w1",), ("w1",))
    assert (outcome.time, outcome.size, outcome.wait_s, outcome.detail) == (NOW, 9, 0, "")
    assert [(one.method, one.path) for one in requests] == [("POST", "/add-checkpoint")]
    assert requests[0].body == request(0, [], NOTE)


async def test_a_prefix_in_the_url_comes_before_the_path() -> None:
    async with ScriptedServer(good()) as server:
        client = client_of(policy_of(LOG, f"w1 {W1.vkey} {server.url}/a/b/"))
        await client.cosign(NOTE, Chronicle(LOG))
        assert [one.path for one in server.requests] == ["/a/b/add-checkpoint"]


async def test_the_size_that_a_witness_names_is_the_one_to_start_from_and_is_kept() -> None:
    kept: list[tuple[str, int]] = []
    acknowledged = AcknowledgedSizes(on_change=lambda url, size: kept.append((url, size)))
    async with ScriptedServer(reply(409, "4\n"), good()) as server:
        policy = policy_of(LOG, f"w1 {W1.vkey} {server.url}")
        client = client_of(policy, acknowledged=acknowledged)
        chronicle = Chronicle(LOG)
        assert (await client.cosign(NOTE, chronicle)).is_quorum_met
        assert kept == [(server.url, 4), (server.url, 9)]
        assert chronicle.asked == [(4, 9)]
        assert [one.body for one in server.posts] == [
            request(0, [], NOTE),
            request(4, consistency(LOG.leaves, 4), NOTE),
        ]
        # The same size again is how the times of cosignatures become newer.
        assert (await client.cosign(NOTE, chronicle)).is_quorum_met
        assert server.posts[2].body == request(9, [], NOTE)
        assert len(kept) == 2
        assert chronicle.asked == [(4, 9)]


async def test_a_size_that_was_kept_is_the_one_to_start_from() -> None:
    outcome, requests = await outcome_of(good(), acknowledged=7)
    assert outcome.kind is OutcomeKind.COSIGNED
    assert [old_of(one) for one in requests] == [7]


async def test_a_witness_that_was_restored_is_asked_from_its_older_size() -> None:
    outcome, requests = await outcome_of(reply(409, "2\n"), good(), acknowledged=9)
    assert outcome.kind is OutcomeKind.COSIGNED
    assert [old_of(one) for one in requests] == [9, 2]


async def test_a_witness_with_a_larger_size_than_the_log_is_not_asked_again_and_shows_its_checkpoint() -> None:
    larger = log_of(9)
    larger._key = LOG._key
    larger.grow(5)
    seen = larger.sign(larger.text()) + W1.line(larger.text())
    async with ScriptedServer(reply(409, "14\n"), reply(200, seen)) as server:
        result, _ = await ask(server)
        (outcome,) = result.ahead
        assert (outcome.kind, outcome.size) == (OutcomeKind.AHEAD, 14)
        assert outcome.newest is not None
        assert (outcome.newest.size, outcome.newest.note, outcome.newest.witnesses) == (14, seen, ["w1"])
        assert not result.is_quorum_met
        assert [(one.method, one.path) for one in server.requests] == [
            ("POST", "/add-checkpoint"),
            ("GET", f"/{FINGERPRINT}/checkpoint"),
        ]


async def test_a_kept_size_above_that_of_the_log_is_confirmed_by_the_witness() -> None:
    outcome, requests = await outcome_of(reply(409, "14\n"), reply(404), acknowledged=14)
    assert (outcome.kind, outcome.size, outcome.newest) == (OutcomeKind.AHEAD, 14, None)
    assert [old_of(one) for one in requests if one.method == "POST"] == [9]


NO_SIZES = [
    "",
    "\n",
    "4",
    "04\n",
    "+4\n",
    " 4\n",
    "4 \n",
    "4\n\n",
    "4\r\n",
    "-4\n",
    "4\n5\n",
    "x\n",
    "0x4\n",
    "\u0664\n",
]
TOO_LARGE = [f"{2**63}\n", f"{2**64}\n", "1" * 5000 + "\n"]


@pytest.mark.parametrize("body", NO_SIZES + TOO_LARGE)
async def test_a_conflict_without_a_size_is_a_conflict_and_not_a_hint(body: str) -> None:
    outcome, requests = await outcome_of(reply(409, body), reply(404))
    assert (outcome.kind, outcome.wait_s) == (OutcomeKind.CONFLICT, 30)
    assert [one.method for one in requests] == ["POST", "GET"]


async def test_a_conflict_that_names_the_size_that_was_sent_is_a_conflict() -> None:
    outcome, requests = await outcome_of(reply(409, "4\n"), reply(404), acknowledged=4)
    assert (outcome.kind, outcome.size) == (OutcomeKind.CONFLICT, 4)
    assert [one.method for one in requests] == ["POST", "GET"]
    outcome, requests = await outcome_of(reply(409, "4\n"), reply(409, "4\n"), reply(404))
    assert outcome.kind is OutcomeKind.CONFLICT
    assert [one.method for one in requests] == ["POST", "POST", "GET"]


async def test_a_witness_whose_size_changes_twice_is_given_up_in_this_round_only() -> None:
    async with ScriptedServer(reply(409, "4\n"), reply(409, "5\n"), good()) as server:
        result, client = await ask(server)
        assert (result.outcomes[0].kind, result.outcomes[0].size) == (OutcomeKind.BEHIND, 5)
        assert [old_of(one) for one in server.requests] == [0, 4]
        assert (await client.cosign(NOTE, Chronicle(LOG))).is_quorum_met
        assert [old_of(one) for one in server.requests] == [0, 4, 5]


async def test_a_witness_that_is_ahead_after_the_retry_is_ahead() -> None:
    outcome, requests = await outcome_of(reply(409, "4\n"), reply(409, "10\n"), reply(404))
    assert (outcome.kind, outcome.size) == (OutcomeKind.AHEAD, 10)
    assert [one.method for one in requests] == ["POST", "POST", "GET"]


async def test_a_witness_that_refuses_a_good_proof_disagrees_and_shows_its_checkpoint() -> None:
    other = ForeignLog(LOG.origin, [b"x" * 32] * 4, LOG._key)
    seen = other.sign(other.text()) + W1.line(other.text())
    async with ScriptedServer(reply(422, "no\n"), reply(200, seen)) as server:
        result, _ = await ask(server, acknowledged=4)
        (outcome,) = result.disagreeing
        assert (outcome.kind, outcome.detail, outcome.wait_s) == (OutcomeKind.DISAGREES, "it answered 422: no", 30)
        assert outcome.newest is not None
        assert (outcome.newest.note, outcome.newest.root) == (seen, qed.Digest(root_of(other.leaves)))
        assert [one.method for one in server.requests] == ["POST", "GET"]


async def test_evidence_that_the_log_has_not_signed_is_not_shown() -> None:
    impostor = log_of(4)
    seen = impostor.sign(impostor.text()) + W1.line(impostor.text())
    outcome, _ = await outcome_of(reply(422), reply(200, seen))
    assert (outcome.kind, outcome.newest) == (OutcomeKind.DISAGREES, None)


async def test_evidence_is_not_waited_for_longer_than_the_round() -> None:
    outcome, _ = await outcome_of(reply(422), HANG, limit_s=LIMIT_S)
    assert (outcome.kind, outcome.newest) == (OutcomeKind.DISAGREES, None)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 413, 421, 451])
async def test_a_refusal_is_a_matter_of_configuration_and_waits_grow_to_hours(status: int) -> None:
    async with ScriptedServer(reply(status, "unknown \x1b[31mlog\n" + "x" * 999)) as server:
        policy = policy_of(LOG, f"w1 {W1.vkey} {server.url}")
        client = client_of(policy)
        outcome = (await client.cosign(NOTE, Chronicle(LOG))).outcomes[0]
        assert (outcome.kind, outcome.wait_s) == (OutcomeKind.MISCONFIGURED, 30)
        assert outcome.detail.startswith(f"it answered {status}: unknown \\x1b[31mlog\\nxxx")
        assert len(outcome.detail) < 230
        assert len(server.requests) == 1
        witness = client._witnesses[server.url]
        for _ in range(20):
            witness.back_off._due_at = 0.0
            outcome = (await client.cosign(NOTE, Chronicle(LOG))).outcomes[0]
        assert outcome.wait_s == 2 * 3600


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    async with ScriptedServer(good()) as target:
        outcome, requests = await outcome_of(reply(status, b"", f"Location: {target.url}/add-checkpoint"))
        assert outcome.kind is OutcomeKind.MISCONFIGURED
        assert (len(requests), target.requests) == (1, [])


@pytest.mark.parametrize("status", [408, 429, 503])
@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        ("1800", 1800),
        ("0", 0.5),
        ("86400", 3600),
        (format_datetime(datetime.fromtimestamp(NOW + 600, UTC), usegmt=True), 600),
        (format_datetime(datetime.fromtimestamp(NOW - 600, UTC), usegmt=True), 0.5),
        (format_datetime(datetime.fromtimestamp(NOW + 10**6, UTC), usegmt=True), 3600),
        ("-5", 0.5),
        ("9" * 400, 0.5),
        ("soon", 0.5),
        ("nan", 0.5),
        ("Fri, 31 Dec 99999 23:59:59 GMT", 0.5),
    ],
)
async def test_a_busy_witness_may_ask_for_a_wait_of_up_to_an_hour(status: int, header: str, wait_s: float) -> None:
    outcome, requests = await outcome_of(reply(status, b"", f"Retry-After: {header}"))
    assert (outcome.kind, outcome.wait_s) == (OutcomeKind.BUSY, wait_s)
    assert len(requests) == 1


async def test_a_witness_that_fails_is_left_out_until_it_is_due_or_asked_for() -> None:
    async with ScriptedServer(reply(503), good()) as server:
        result, client = await ask(server)
        assert result.outcomes[0].kind is OutcomeKind.BUSY
        waiting = (await client.cosign(NOTE, Chronicle(LOG))).outcomes[0]
        assert (waiting.kind, waiting.wait_s) == (OutcomeKind.WAITING, 0.5)
        assert len(server.requests) == 1
        client.ask_again()
        assert (await client.cosign(NOTE, Chronicle(LOG))).is_quorum_met


async def test_a_success_ends_the_row_of_failures() -> None:
    async with ScriptedServer(reply(503), reply(503), good(), reply(503)) as server:
        client = client_of(policy_of(LOG, f"w1 {W1.vkey} {server.url}"))
        waits = []
        for _ in range(4):
            client._witnesses[server.url].back_off._due_at = 0.0
            waits.append((await client.cosign(NOTE, Chronicle(LOG))).outcomes[0].wait_s)
        assert waits == [0.5, 1, 0, 0.5]


@pytest.mark.parametrize("status", [500, 502, 504])
async def test_an_error_of_the_witness_is_an_outage(status: int) -> None:
    outcome, requests = await outcome_of(reply(status))
    assert (outcome.kind, outcome.wait_s, len(requests)) == (OutcomeKind.UNREACHABLE, 0.5, 1)


async def test_a_witness_that_never_answers_does_not_hold_up_the_others() -> None:
    async with ScriptedServer(HANG) as silent, ScriptedServer(good(W2)) as server:
        before = asyncio.get_running_loop().time()
        result, client = await ask(silent, f"w2 {W2.vkey} {server.url}", limit_s=LIMIT_S)
        assert LIMIT_S <= asyncio.get_running_loop().time() - before < LIMIT_S + 2
        first, second = result.outcomes
        assert (first.kind, first.wait_s, second.kind) == (OutcomeKind.UNREACHABLE, 0.5, OutcomeKind.COSIGNED)
        assert result.note == NOTE + line_of(W2)
        assert not result.is_quorum_met
        waiting = (await client.cosign(NOTE, Chronicle(LOG))).outcomes[0]
        assert waiting.kind is OutcomeKind.WAITING


async def test_an_answer_that_drips_has_no_more_time_than_any_other() -> None:
    async with ScriptedServer(good(), drip_s=0.05) as server:
        result, _ = await ask(server, limit_s=LIMIT_S)
        assert result.outcomes[0].kind is OutcomeKind.UNREACHABLE


@pytest.mark.parametrize("content", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 x\r\nContent-Length: 9\r\n\r\nxx"])
async def test_what_is_not_http_or_is_cut_off_is_an_outage(content: bytes) -> None:
    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(content)
        writer.close()

    server = await asyncio.start_server(closing, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    client = client_of(policy_of(LOG, f"w1 {W1.vkey} {url}"))
    outcome = (await client.cosign(NOTE, Chronicle(LOG))).outcomes[0]
    assert (outcome.kind, outcome.wait_s) == (OutcomeKind.UNREACHABLE, 0.5)
    server.close()


async def test_a_witness_that_cannot_be_reached_is_an_outage() -> None:
    client = client_of(policy_of(LOG, f"w1 {W1.vkey} http://127.0.0.1:1"))
    outcome = (await client.cosign(NOTE, Chronicle(LOG))).outcomes[0]
    assert (outcome.kind, outcome.wait_s) == (OutcomeKind.UNREACHABLE, 0.5)


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://127.0.0.1:99999", "https:///x", "http://:80/", "http://a\u00a0b/", "http://\u2603/"]
)
async def test_a_policy_with_a_url_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(qed.PolicyError, match="a witness cannot be asked: expected an HTTP URL"):
        client_of(policy_of(LOG, f"w1 {W1.vkey} {url}"))
    with pytest.raises(qed.PolicyError, match="expected an HTTP URL"):
        client_of(policy_of(LOG, f"w1 {W1.vkey} http://a"), monitoring_urls={"http://a": url})


async def test_an_answer_is_read_up_to_its_limit_only() -> None:
    lines = line_of(W1).encode()
    foreign = "\u2014 x AAAAAAA=\n".encode()
    longest = "\u2014 x ".encode() + b"A" * (4 * ((64 * 1024 - len(lines) - 7) // 4)) + b"\n"
    assert (await outcome_of(reply(200, lines + longest)))[0].kind is OutcomeKind.COSIGNED
    assert (await outcome_of(reply(200, lines + foreign * 200)))[0].kind is OutcomeKind.INVALID
    outcome, _ = await outcome_of(reply(200, lines + longest + foreign))
    assert (outcome.kind, outcome.wait_s) == (OutcomeKind.INVALID, 0.5)
    assert "answered 200 with more than 65536 bytes" in outcome.detail


async def test_an_endless_answer_is_not_read_to_its_end() -> None:
    endless = b"HTTP/1.1 200 x\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 300_000
    outcome, _ = await outcome_of(endless)
    assert "answered 200 with more than 65536 bytes" in outcome.detail
    async with ScriptedServer(endless) as server:
        (found,) = await client_of(policy_of(LOG, f"w1 {W1.vkey} {server.url}")).newest(LOG.origin)
        assert found.kind is SightingKind.INVALID
        assert "answered 200 with more than 262144 bytes" in found.detail


async def test_a_compressed_answer_is_not_unpacked() -> None:
    compressed = reply(200, gzip.compress(line_of(W1).encode()), "Content-Encoding: gzip")
    assert (await outcome_of(compressed))[0].kind is OutcomeKind.INVALID


async def test_cookies_are_not_sent_back() -> None:
    async with ScriptedServer(reply(200, line_of(W1), "Set-Cookie: a=b")) as server:
        _, client = await ask(server)
        await client.cosign(NOTE, Chronicle(LOG))
        assert [one.headers.get("cookie") for one in server.posts] == [None, None]


FOREIGN = [
    line_of(W2),
    Signer("stranger.example.com", 4, 99).line(LOG.text()),
    Signer(W1.name, 4, 98).line(LOG.text()),
    Signer(LOG.origin, 1, 97).line(LOG.text()),
    W1.line(LOG.text(8)),
    line_of(W1, 0),
    line_of(W1, NOW + SKEW_S + 1),
    line_of(W1, 2**63),
]


@pytest.mark.parametrize("line", FOREIGN)
async def test_a_line_that_does_not_verify_for_this_witness_counts_for_nothing(line: str) -> None:
    outcome, _ = await outcome_of(reply(200, line))
    assert (outcome.kind, outcome.wait_s) == (OutcomeKind.INVALID, 0.5)


async def test_lines_of_others_are_dropped() -> None:
    outcome, _ = await outcome_of(reply(200, "".join([*FOREIGN[:4], line_of(W1), FOREIGN[-1]])))
    assert outcome.kind is OutcomeKind.COSIGNED


async def test_a_line_of_another_witness_counts_only_from_itself() -> None:
    async with ScriptedServer(reply(200, line_of(W1) + line_of(W2))) as server:
        result, _ = await ask(server, f"w2 {W2.vkey}")
        assert result.note == NOTE + line_of(W1)
        assert [(one.url, one.kind) for one in result.outcomes] == [
            (server.url, OutcomeKind.COSIGNED),
            ("", OutcomeKind.NO_URL),
        ]


@pytest.mark.parametrize(
    "body", ["", "\n", "ok\n", line_of(W1)[:-1], line_of(W1) + "\n", f"\n{line_of(W1)}", "x" + line_of(W1)]
)
async def test_an_answer_of_anything_but_signature_lines_is_refused(body: str) -> None:
    assert (await outcome_of(reply(200, body)))[0].kind is OutcomeKind.INVALID


async def test_an_answer_that_hides_another_checkpoint_is_refused() -> None:
    other = log_of(4)
    hidden = f"{line_of(W1)}\n{W1.line(NOTE[:-1] + line_of(W1))}"
    assert (await outcome_of(reply(200, hidden)))[0].kind is OutcomeKind.INVALID
    assert (await outcome_of(reply(200, other.text() + "\n" + W1.line(other.text()))))[0].kind is OutcomeKind.INVALID


@pytest.mark.parametrize("status", [201, 202, 204, 206])
async def test_only_status_200_is_a_cosignature(status: int) -> None:
    body = b"" if status == 204 else line_of(W1).encode()
    assert (await outcome_of(reply(status, body)))[0].kind is OutcomeKind.INVALID


async def test_times_may_be_ahead_by_what_clocks_differ() -> None:
    async with ScriptedServer(reply(200, line_of(W1, NOW + SKEW_S))) as server:
        result, _ = await ask(server)
        assert (result.is_quorum_met, result.outcomes[0].time) == (True, NOW + SKEW_S)


async def test_an_invalid_cosignature_acknowledges_nothing() -> None:
    async with ScriptedServer(reply(200, line_of(W2)), good()) as server:
        _, client = await ask(server)
        client.ask_again()
        await client.cosign(NOTE, Chronicle(LOG))
        assert [old_of(one) for one in server.posts] == [0, 0]


async def test_cosignatures_are_in_the_order_of_the_policy_whoever_answers_first() -> None:
    done = asyncio.Event()

    async def late(_: Request) -> bytes:
        await done.wait()
        return good(W1)

    async def early(_: Request) -> bytes:
        asyncio.get_running_loop().call_later(0.05, done.set)
        return good(W2)

    async with ScriptedServer(late) as first, ScriptedServer(early) as second:
        result, _ = await ask(first, f"w2 {W2.vkey} {second.url}")
        assert result.note == NOTE + line_of(W1) + line_of(W2)
        assert result.is_quorum_met


async def test_two_keys_at_one_url_are_one_witness_that_is_asked_once() -> None:
    async with ScriptedServer(reply(200, line_of(W2) + line_of(W1))) as server:
        result, _ = await ask(server, f"w2 {W2.vkey} {server.url}/")
        assert len(server.requests) == 1
        assert result.note == NOTE + line_of(W1) + line_of(W2)
        assert [(one.names, one.cosigned) for one in result.outcomes] == [(("w1", "w2"), ("w1", "w2"))]


async def test_one_key_of_two_is_kept_if_the_other_fails() -> None:
    async with ScriptedServer(reply(200, line_of(W1) + W2.line(LOG.text(8)))) as server:
        result, _ = await ask(server, f"w2 {W2.vkey} {server.url}")
        assert result.note == NOTE + line_of(W1)
        assert result.outcomes[0].cosigned == ("w1",)
        assert not result.is_quorum_met


async def test_cosignatures_that_the_note_has_are_kept_until_there_are_newer_ones() -> None:
    earlier = NOTE + line_of(W2, NOW - 60) + line_of(W1, NOW - 60) + Signer("x", 4, 96).line(LOG.text())
    async with ScriptedServer(good(), reply(200, line_of(W1, NOW - 90))) as server:
        policy = policy_of(LOG, f"w1 {W1.vkey} {server.url}", f"w2 {W2.vkey} http://127.0.0.1:1/")
        client = client_of(policy)
        result = await client.cosign(earlier, Chronicle(LOG))
        assert result.note == NOTE + line_of(W1) + line_of(W2, NOW - 60)
        assert result.is_quorum_met
        assert server.posts[0].body == request(0, [], NOTE)
        again = await client.cosign(result.note, Chronicle(LOG))
        assert again.note == result.note


async def test_witnesses_are_asked_at_the_same_time() -> None:
    barrier = asyncio.Barrier(2)

    def waiting(witness: Signer) -> Reply:
        async def answer(_: Request) -> bytes:
            await barrier.wait()
            return good(witness)

        return answer

    async with ScriptedServer(waiting(W1)) as first, ScriptedServer(waiting(W2)) as second:
        result, _ = await ask(first, f"w2 {W2.vkey} {second.url}")
        assert result.is_quorum_met


async def test_one_witness_is_asked_one_request_after_the_other() -> None:
    async def slow(_: Request) -> bytes:
        await asyncio.sleep(0.05)
        return good()

    async with ScriptedServer(slow) as server:
        client = client_of(policy_of(LOG, f"w1 {W1.vkey} {server.url}"))
        results = await asyncio.gather(*(client.cosign(NOTE, Chronicle(LOG)) for _ in range(4)))
        assert all(result.is_quorum_met for result in results)
        assert (len(server.requests), server.most_at_once) == (4, 1)


async def test_a_log_that_cannot_prove_its_growth_does_not_blame_the_witness() -> None:
    class Silent:
        async def consistency(self, old: int, new: int) -> Sequence[bytes]:
            raise qed.UnknownVersion(f"no {old} and {new}")

    async with ScriptedServer(reply(409, "4\n")) as server:
        client = client_of(policy_of(LOG, f"w1 {W1.vkey} {server.url}"))
        outcome = (await client.cosign(NOTE, Silent())).outcomes[0]
        assert (outcome.kind, outcome.wait_s) == (OutcomeKind.NO_PROOF, 0)
        assert outcome.detail == "no proof from 4 to 9: no 4 and 9"
        assert len(server.requests) == 1


async def test_a_policy_without_a_quorum_is_met_at_once() -> None:
    async with ScriptedServer(reply(503)) as server:
        result, _ = await ask(server, quorum="none")
        assert result.is_quorum_met
        assert result.note == NOTE


async def test_a_checkpoint_of_another_log_or_key_is_sent_to_nobody() -> None:
    impostor = log_of(9)
    async with ScriptedServer(good()) as server:
        client = client_of(policy_of(LOG, f"w1 {W1.vkey} {server.url}"))
        for note in (impostor.sign(impostor.text()), ForeignLog("other").sign(LOG.text()), LOG.text(), ""):
            with pytest.raises(qed.VerificationError):
                await client.cosign(note, Chronicle(LOG))
        assert server.requests == []


async def test_outcomes_are_logged_when_they_change(caplog: pytest.LogCaptureFixture) -> None:
    async with ScriptedServer(reply(404), reply(404), reply(503), good(), good()) as server:
        client = client_of(policy_of(LOG, f"w1 {W1.vkey} {server.url}"))
        with caplog.at_level("INFO", "qed.server.witness_client"):
            for _ in range(5):
                await client.cosign(NOTE, Chronicle(LOG))
                await client.cosign(NOTE, Chronicle(LOG))
                client.ask_again()
    found = [(record.levelname, str(record.msg)) for record in caplog.records]
    start = f"witness has not cosigned witness={server_url(found)}"
    assert found == [
        ("ERROR", f"{start} outcome=misconfigured reason='it answered 404'"),
        ("WARNING", f"{start} outcome=busy reason='it answered 503'"),
        ("INFO", f"witness cosigns again witness={server_url(found)}"),
    ]


def server_url(found: list[tuple[str, str]]) -> str:
    return found[0][1].split("witness=")[1].split(" ")[0]


async def sighting(answer: Reply, limit_s: float = 5.0) -> tuple[SightingKind, str | None]:
    async with ScriptedServer(answer) as server:
        client = client_of(policy_of(LOG, f"w1 {W1.vkey} {server.url}", f"w2 {W2.vkey}"))
        (found,) = await client.newest(LOG.origin, limit_s=limit_s)
        assert [(one.method, one.path) for one in server.requests] == [("GET", f"/{FINGERPRINT}/checkpoint")]
        assert (found.url, found.names) == (server.url, ("w1",))
        assert (found.kind is SightingKind.FOUND) == (found.detail == "")
        return found.kind, None if found.checkpoint is None else found.checkpoint.note


async def test_the_newest_checkpoint_is_one_that_the_log_has_signed() -> None:
    note = NOTE + line_of(W1)
    assert await sighting(reply(200, note)) == (SightingKind.FOUND, note)
    assert await sighting(reply(404)) == (SightingKind.NONE, None)
    impostor = log_of(9)
    for content in (impostor.sign(impostor.text()), LOG.text(), "", "x" * 300_000, NOTE + W1.line(LOG.text(8))):
        assert await sighting(reply(200, content)) == (SightingKind.INVALID, None)
    for status in (204, 302, 403, 429, 500):
        assert await sighting(reply(status)) == (SightingKind.UNREACHABLE, None)
    assert await sighting(HANG, LIMIT_S) == (SightingKind.UNREACHABLE, None)


async def test_the_newest_checkpoint_of_another_log_of_the_policy_is_none_of_this_log() -> None:
    other = ForeignLog("log.example.com/other")
    async with ScriptedServer(reply(200, other.sign(other.text()))) as server:
        text = f"log {LOG.vkey}\nlog {other.vkey}\nwitness w1 {W1.vkey} {server.url}\nquorum none\n"
        client = client_of(qed.Policy(text.encode()))
        (found,) = await client.newest(LOG.origin)
        assert (found.kind, found.checkpoint) == (SightingKind.INVALID, None)


async def test_checkpoints_may_be_served_somewhere_else() -> None:
    async with ScriptedServer(reply(409, "10\n")) as server, ScriptedServer(reply(200, NOTE)) as monitoring:
        policy = policy_of(LOG, f"w1 {W1.vkey} {server.url}/")
        client = client_of(policy, monitoring_urls={server.url: f"{monitoring.url}/m/"})
        (found,) = await client.newest(LOG.origin)
        assert found.kind is SightingKind.FOUND
        result = await client.cosign(NOTE, Chronicle(LOG))
        assert result.ahead[0].newest is not None
        assert [one.path for one in monitoring.requests] == [f"/m/{FINGERPRINT}/checkpoint"] * 2
