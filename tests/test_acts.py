"""The form of acts, and the chain of hashes as a client checks it."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from qed._client import calls
from qed.errors import ProtocolError, VerificationError
from qed.history import Act, require_chain
from qed.proofs import Digest
from qed.server import acts
from qed.server.acts import decode, encode

WHEN = datetime(2026, 11, 29, 4, 47, 43, 120_000, tzinfo=UTC)
BY: dict[str, Any] = {"who": "ops", "origin": "192.0.2.1:5000", "when": WHEN}
ADDRESSES: dict[str, Any] = {"raft_addr": "a:1", "http_addr": "a:2", "mgmt_addr": "a:3"}
DEEDS: list[acts.Act] = [
    acts.Founded(**BY, name="a", member="01", cluster="c", events=3),
    acts.Admitted(**BY, name="a", member="01", **ADDRESSES),
    acts.Announced(**BY, name="a", member="01", **ADDRESSES),
    acts.Replaced(**BY, name="a", replaced="01", member="02", **ADDRESSES),
    acts.GivenUp(**BY, name="a", member="01"),
    acts.Promoted(**BY, name="a", member="01"),
    acts.Removed(**BY, name="a", member="01"),
    acts.Transferred(**BY, name=None, leader="a"),
    acts.KeyCreated(**BY, id="k", name="n", roles=["append"], hash=bytes(32)),
    acts.KeyRevoked(**BY, id="k"),
    acts.TokenCreated(**BY, id="t", name=None, public_key=bytes(32), expires=WHEN),
    acts.SecretChanged(**BY, name="a", member="01", authorities=[bytes(32)]),
    acts.Restored(**BY, backup="7", cluster="c", events=3),
    acts.Recovered(**BY, name="a", cluster="c", events=3),
]


def act_hash(previous: bytes, index: int, term: int, body: bytes) -> bytes:
    """Return the hash of an act as FORMATS.md, "Acts", describes it."""
    log_id = index.to_bytes(8, "big") + term.to_bytes(8, "big")
    return hashlib.sha256(b"qed act 1\0" + previous + log_id + body).digest()


def chain(*bodies: bytes) -> list[Act]:
    made, previous = [], bytes(32)
    for index, body in enumerate(bodies, 3):
        made.append(Act(index=index, term=1 + index // 5, previous=Digest(previous), body=body))
        previous = act_hash(previous, index, 1 + index // 5, body)
    return made


@pytest.mark.parametrize("act", DEEDS, ids=lambda act: type(act).__name__)
def test_an_act_is_read_as_it_was_written(act: acts.Act) -> None:
    assert decode(encode(act)) == act


def test_an_act_is_json_that_a_person_can_read() -> None:
    assert json.loads(encode(acts.Removed(**BY, name="a", member="01"))) == {
        "deed": "removed",
        "who": "ops",
        "from": "192.0.2.1:5000",
        "when": "2026-11-29T04:47:43.120000Z",
        "name": "a",
        "member": "01",
        "key": None,
    }


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[" * 10_000,
        b"{}",
        b'{"deed": "invented", "who": "a", "from": "b", "when": "2026-11-29T04:47:43Z"}',
        b'{"deed": "key_revoked", "who": "a", "from": "b", "when": "2026-11-29T04:47:43", "id": "k"}',
        b'{"deed": "key_revoked", "who": "a", "from": "b", "when": "2026-11-29T04:47:43Z"}',
    ],
)
def test_what_this_build_does_not_know_is_no_act(body: bytes) -> None:
    assert decode(body) is None


def test_fields_of_a_later_build_are_skipped() -> None:
    revoked = acts.KeyRevoked(**BY, id="k")
    assert decode(encode(revoked)[:-1] + b',"reason":"leaked"}') == revoked


def test_an_act_that_could_not_be_passed_on_is_refused() -> None:
    with pytest.raises(ValueError, match="expected an act of at most 32768 bytes, found"):
        encode(acts.KeyRevoked(**BY, id="k" * (32 << 10)))


def test_moments_are_of_now_and_in_milliseconds() -> None:
    moment = acts.now()
    assert abs((datetime.now(UTC) - moment).total_seconds()) < 60
    assert moment.microsecond % 1000 == 0


def test_the_hash_of_an_act_is_that_of_the_format() -> None:
    first, second = chain(b"one", b"two")
    assert bytes(first.hash) == act_hash(bytes(32), 3, 1, b"one")
    assert bytes(second.hash) == act_hash(bytes(first.hash), 4, 1, b"two")


@pytest.mark.parametrize("size_bytes", [0, (64 << 10) + 1])
def test_an_act_without_a_body_or_with_one_too_long_cannot_be_made(size_bytes: int) -> None:
    with pytest.raises(ValueError, match="expected an act of 1 to 65536 bytes, found"):
        Act(index=1, term=1, previous=Digest(bytes(32)), body=bytes(size_bytes))


def test_a_whole_chain_is_accepted_at_once_and_in_parts() -> None:
    whole = chain(b"one", b"two", b"three")
    require_chain(whole)
    require_chain(whole[:1])
    require_chain(whole[1:], whole[0])
    require_chain([], whole[0])


def test_every_damage_of_a_chain_is_noticed() -> None:
    one, two, three = chain(b"one", b"two", b"three")

    def changed(act: Act, **fields: object) -> Act:
        kept: dict[str, Any] = {"index": act.index, "term": act.term, "previous": act.previous, "body": act.body}
        return Act(**kept | fields)

    damaged = [
        [changed(one, body=b"ane"), two, three],
        [one, changed(two, body=b"twa"), three],
        [one, changed(two, index=9), three],
        [one, changed(two, term=1), changed(three, term=7), changed(two, term=1)],
        [one, three],
        [two, three],
        [two, one, three],
        [one, one, two],
        [changed(one, previous=one.hash), two],
        [one, two, changed(three, index=4, previous=two.hash)],
        [one, two, changed(three, term=0)],
    ]
    for acts_ in damaged:
        with pytest.raises(VerificationError, match="the act of entry"):
            require_chain(acts_)


def answer(acts_: list[Act]) -> bytes:
    rows = [
        {
            "index": act.index,
            "term": act.term,
            "previous": base64.b64encode(bytes(act.previous)).decode(),
            "body": base64.b64encode(act.body).decode(),
        }
        for act in acts_
    ]
    return json.dumps({"node_id": "a", "cluster_id": "c", "acts": rows}).encode()


def received(body: bytes, last: Act | None = None) -> list[Act]:
    return calls.history(last).result(calls.Answer("http://a", 200, {}, body))


def test_a_client_refuses_a_page_of_history_that_does_not_go_on() -> None:
    one, two, three = chain(b"one", b"two", b"three")
    assert received(answer([one, two])) == [one, two]
    assert received(answer([three]), two) == [three]
    assert calls.history(two).path == "/cluster/history?after=4"
    assert calls.history(None).path == "/cluster/history"
    for body, last in [(answer([two]), None), (answer([one]), one), (answer([three]), one)]:
        with pytest.raises(VerificationError):
            received(body, last)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        answer(chain(b"one")).replace(b'"body": "b25l"', b'"body": ""'),
        answer(chain(b"one")).replace(b'"index": 3', b'"index": 18446744073709551616'),
        answer(chain(b"one")).replace(b'"index": 3', b'"index": -1'),
        answer(chain(b"one")).replace(b'"AAAA', b'"'),
    ],
)
def test_an_answer_that_is_no_history_is_outside_the_protocol(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="with an invalid body"):
        received(body)
