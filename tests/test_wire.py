"""The JSON forms: what is accepted, what is refused, and what is sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adversary import b64, snapshot
from qed import _wire as wire
from qed.errors import MalformedProof
from qed.proofs import Digest

if TYPE_CHECKING:
    import msgspec

    from qed._wire import Decoder

DECODERS: dict[str, Decoder[Any]] = {
    name: getattr(wire, name) for name in wire.__all__ if isinstance(getattr(wire, name), wire.Decoder)
}
every_decoder = pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)

INFO: dict[str, Any] = {
    "node_id": "a",
    "raft_addr": "a:1",
    "mgmt_addr": "a:2",
    "http_addr": "a:3",
    "metrics_addr": "a:4",
    "version": "1.0",
    "current_version": None,
    "events": 0,
    "log": "0123456789abcdef0123456789abcdef",
    "accepts": [],
    "continues": [],
}
FORMS: list[tuple[Decoder[Any], msgspec.Struct, object]] = [
    (wire.ADD_REQUEST, wire.AddRequest(b"event"), {"Event": b64(b"event")}),
    (wire.ADD_REQUEST, wire.AddRequest(b"", if_absent=True), {"Event": "", "IfAbsent": True}),
    (wire.ADD_BULK_REQUEST, wire.AddBulkRequest([b"a", b""]), {"Events": [b64(b"a"), ""]}),
    (wire.ADD_BULK_REQUEST, wire.AddBulkRequest([b"a"], if_absent=True), {"Events": [b64(b"a")], "IfAbsent": True}),
    (wire.ADD_REQUEST, wire.AddRequest(event_digest=bytes(32)), {"EventDigest": b64(bytes(32))}),
    (
        wire.ADD_BULK_REQUEST,
        wire.AddBulkRequest(event_digests=[bytes(32)], if_absent=True),
        {"EventDigests": [b64(bytes(32))], "IfAbsent": True},
    ),
    (wire.MEMBER_REQUEST, wire.MemberRequest("server1"), {"name": "server1"}),
    (wire.MEMBERSHIP_REQUEST, wire.MembershipRequest(b"event"), {"Key": b64(b"event")}),
    (wire.MEMBERSHIP_REQUEST, wire.MembershipRequest(b"event", 0), {"Key": b64(b"event"), "Version": 0}),
    (wire.DIGEST_MEMBERSHIP_REQUEST, wire.DigestMembershipRequest(bytes(32)), {"KeyDigest": b64(bytes(32))}),
    (
        wire.DIGEST_MEMBERSHIP_REQUEST,
        wire.DigestMembershipRequest(bytes(32), 2**64 - 1),
        {"KeyDigest": b64(bytes(32)), "Version": 2**64 - 1},
    ),
    (wire.INCREMENTAL_REQUEST, wire.IncrementalRequest(0, 2**64 - 1), {"Start": 0, "End": 2**64 - 1}),
    (wire.INCREMENTAL_REQUEST, wire.IncrementalRequest(7, 3), {"Start": 7, "End": 3}),
    (wire.INFO, wire.Info(**INFO), INFO),
    (
        wire.SHARDS,
        wire.Shards("a", "b", "http", {"a": wire.Shard("a", "a:1")}),
        {"nodeId": "a", "leaderId": "b", "uriScheme": "http", "shards": {"a": {"nodeId": "a", "httpAddr": "a:1"}}},
    ),
    (wire.ERROR_BODY, wire.ErrorBody("code", "text"), {"error": "code", "message": "text"}),
    (
        wire.ERROR_BODY,
        wire.ErrorBody("added_later", "text", 9),
        {"error": "added_later", "message": "text", "FirstVersion": 9},
    ),
]
OPTIONAL = {"IfAbsent", "Version", "FirstVersion", "log", "accepts", "continues", "name"}
every_form = pytest.mark.parametrize(
    ("decoder", "value", "form"), FORMS, ids=[type(form[1]).__name__ for form in FORMS]
)


@every_form
def test_what_is_sent_is_exactly_the_form(decoder: Decoder[Any], value: msgspec.Struct, form: object) -> None:
    assert json.loads(wire.ENCODER.encode(value)) == form
    assert decoder.decode(wire.ENCODER.encode(value)) == value


@every_form
def test_unknown_fields_are_ignored(decoder: Decoder[Any], value: msgspec.Struct, form: dict[str, object]) -> None:
    assert decoder.decode(json.dumps(form | {"Unknown": [{"x": None}]}).encode()) == value


@every_form
def test_every_field_has_its_type(decoder: Decoder[Any], value: msgspec.Struct, form: dict[str, object]) -> None:
    assert decoder.decode(json.dumps(form).encode()) == value
    for name in form:
        for wrong in (1.5, [[1]], {"x": 1}):
            with pytest.raises(wire.DecodeError):
                decoder.decode(json.dumps(form | {name: wrong}).encode())


@every_form
def test_what_is_not_optional_is_needed(decoder: Decoder[Any], value: msgspec.Struct, form: dict[str, object]) -> None:
    assert decoder.decode(json.dumps(form).encode()) == value
    for name in form.keys() - OPTIONAL:
        with pytest.raises(wire.DecodeError):
            decoder.decode(json.dumps({other: form[other] for other in form.keys() - {name}}).encode())


VERSION_FIELDS: list[tuple[Decoder[Any], dict[str, object], str]] = [
    (wire.MEMBERSHIP_REQUEST, {"Key": ""}, "Version"),
    (wire.DIGEST_MEMBERSHIP_REQUEST, {"KeyDigest": b64(bytes(32))}, "Version"),
    (wire.INCREMENTAL_REQUEST, {"End": 0}, "Start"),
    (wire.INCREMENTAL_REQUEST, {"Start": 0}, "End"),
    (wire.ERROR_BODY, {"error": "", "message": ""}, "FirstVersion"),
]


@pytest.mark.parametrize(("decoder", "form", "field"), VERSION_FIELDS)
@pytest.mark.parametrize(
    "number", ["-1", "1.0", "1e3", "0.5", "18446744073709551616", "9" * 100_000, "01", "true", '"1"']
)
def test_what_is_no_version_is_refused(decoder: Decoder[Any], form: dict[str, object], field: str, number: str) -> None:
    body = json.dumps(form | {field: "HERE"}).replace('"HERE"', number)
    with pytest.raises(wire.DecodeError):
        decoder.decode(body.encode())


@pytest.mark.parametrize(
    "text", ["YQ", "Y", "YQ=", "YQ===", "YQ==YQ==", "Y Q==", "YQ==\n", "_-==", "é", "!!!!", "===="]
)
def test_what_is_no_padded_base64_is_refused(text: str) -> None:
    with pytest.raises(wire.DecodeError):
        wire.ADD_REQUEST.decode(json.dumps({"Event": text}).encode())


DECODED = [
    (wire.ADD_REQUEST, '{"Event":%s}'),
    (wire.ADD_BULK_REQUEST, '{"Events":["","YQ==",%s,"YWI="]}'),
    (wire.MEMBERSHIP_REQUEST, '{"Key":%s}'),
    (wire.MEMBERSHIP_REQUEST, '{"Key":"","K\\u0065y":%s}'),
]


@pytest.mark.parametrize(("decoder", "form"), DECODED)
@pytest.mark.parametrize("text", ["AB==", "YR==", "YWJ=", "YWJjZB==", "YWJjZGF=", "Y\\u0052==", "YR\\u003d="])
def test_bits_that_belong_to_no_byte_are_refused(decoder: Decoder[Any], form: str, text: str) -> None:
    with pytest.raises(wire.DecodeError):
        decoder.decode((form % f'"{text}"').encode())


@pytest.mark.parametrize("digest", [bytes(32), bytes(range(32))], ids=["zeros", "rising"])
def test_the_digest_asked_about_has_one_spelling(digest: bytes) -> None:
    text = b64(digest)
    assert wire.DIGEST_MEMBERSHIP_REQUEST.decode(json.dumps({"KeyDigest": text}).encode()).key_digest == digest
    with pytest.raises(wire.DecodeError):
        wire.DIGEST_MEMBERSHIP_REQUEST.decode(json.dumps({"KeyDigest": text[:-2] + "9="}).encode())


@given(st.binary())
def test_every_event_has_a_spelling(event: bytes) -> None:
    for text in (b64(event), b64(event).replace("/", "\\/").replace("=", "\\u003d")):
        body = f'{{"Event":"{text}","Comment":"AB==","Other":"AB=\\u003d"}}'.encode()
        assert wire.ADD_REQUEST.decode(body).event == event


def test_a_server_that_does_not_name_its_log_is_understood() -> None:
    form = {name: value for name, value in INFO.items() if name not in {"log", "accepts"}}
    info = wire.INFO.decode(json.dumps(form).encode())
    assert (info.log, info.accepts) == ("", [])


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_digest_has_32_bytes(size: int) -> None:
    with pytest.raises(wire.DecodeError):
        wire.DIGEST_MEMBERSHIP_REQUEST.decode(json.dumps({"KeyDigest": b64(bytes(size))}).encode())


@pytest.mark.parametrize("field", ["Events", "EventDigests"])
def test_a_bulk_has_at_least_one_event(field: str) -> None:
    with pytest.raises(wire.DecodeError):
        wire.ADD_BULK_REQUEST.decode(b'{"%s":[]}' % field.encode())


def test_what_is_added_are_events_or_digests() -> None:
    digest = Digest.of(b"event")
    assert wire.ADD_REQUEST.decode(b'{"Event":"YQ=="}').added() == b"a"
    assert wire.ADD_REQUEST.decode(b'{"EventDigest":"%s"}' % b64(bytes(digest)).encode()).added() == digest
    assert wire.ADD_BULK_REQUEST.decode(b'{"Events":["YQ==",""]}').added() == [b"a", b""]
    body = json.dumps({"EventDigests": [b64(bytes(digest))] * 2}).encode()
    assert wire.ADD_BULK_REQUEST.decode(body).added() == [digest, digest]


REQUESTS = [form for form in FORMS if isinstance(form[0], wire.RequestDecoder)]


@pytest.mark.parametrize(("decoder", "value", "form"), REQUESTS)
def test_a_field_stands_once(decoder: Decoder[Any], value: msgspec.Struct, form: dict[str, object]) -> None:
    fields = [f"{json.dumps(name)}: {json.dumps(content)}" for name, content in form.items()]
    for name, content in form.items():
        again = json.dumps(content)
        for spelt in (json.dumps(name), f'"\\u{ord(name[0]):04x}{name[1:]}"'):
            for gap in ("", " ", "\n\t"):
                body = "{%s, %s%s:%s}" % (", ".join(fields), spelt, gap, again)  # noqa: UP031  # full of braces
                with pytest.raises(wire.DecodeError, match="once"):
                    decoder.decode(body.encode())
        # The name as a value, or as a field inside an unknown field, does not count as a field of the request.
        others = [f'"x": {json.dumps(name)}', f'"y": {{{json.dumps(name)}: [{{{json.dumps(name)}: 1}}]}}']
        assert decoder.decode(f"{{{', '.join([*fields, *others])}}}".encode()) == value


_members = st.lists(
    st.tuples(
        st.sampled_from(["Key", "Version", '"Key', "Key\\", "x:", ""]),
        st.sampled_from(['"YQ=="', "null", '"Key"', '{"Key":"","Version":[{"Key":":"}]}', '[",\\"Key\\":", ":"]']),
        st.booleans(),
        st.sampled_from(["", " "]),
    ),
    max_size=6,
)


@given(_members)
def test_repeated_fields_are_found_as_a_plain_parser_finds_them(members: list[tuple[str, str, bool, str]]) -> None:
    def spell(name: str, *, is_escaped: bool) -> str:
        return '"' + "".join(f"\\u{ord(char):04x}" for char in name) + '"' if is_escaped else json.dumps(name)

    spelt = [f"{spell(name, is_escaped=escaped)}{gap}:{value}" for name, value, escaped, gap in members]
    body = "{" + ",".join(spelt) + "}"
    names = [name for name, *_ in members]
    is_repeated = any(names.count(name) > 1 for name in ("Key", "Version"))
    try:
        wire.MEMBERSHIP_REQUEST.decode(body.encode())
        refusal = ""
    except wire.DecodeError as exc:
        refusal = str(exc)
    # Unknown fields may repeat. Fields inside them may or may not count as fields of the request.
    assert "once" not in refusal or len(names) > len(set(names))
    assert refusal or not is_repeated


DEEP = {
    "open arrays": b"[" * 10_000_000,
    "open objects": b'{"x":' * 2_000_000,
    "closed arrays": b"[" * 100_000 + b"]" * 100_000,
    "in an unknown field": b'{"x":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}",
}


@every_decoder
@pytest.mark.parametrize(
    "body", [*DEEP.values(), b"", b"\xff", b'"', b"null", b"7", b"{}{}", b"\xef\xbb\xbf{}", b"NaN"]
)
def test_whatever_arrives_is_refused_with_one_exception(decoder: Decoder[Any], body: bytes) -> None:
    with pytest.raises(wire.DecodeError):
        decoder.decode(body)


@every_decoder
@given(body=st.binary() | st.text().map(str.encode))
def test_no_bytes_raise_anything_else(decoder: Decoder[Any], body: bytes) -> None:
    with pytest.raises(wire.DecodeError):
        decoder.decode(body)


def test_text_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(wire.DecodeError):
        wire.ERROR_BODY.decode(b'{"error":"\xff","message":""}')


def test_an_array_of_snapshots_keeps_its_order() -> None:
    body = json.dumps([snapshot(b"one", 4), snapshot(b"two", 3)]).encode()
    assert [each.version for each in wire.snapshots_from_json(body)] == [4, 3]
    assert wire.snapshots_from_json(b"[]") == []


@pytest.mark.parametrize("body", [*DEEP.values(), b"", b"{}", b"[{}]", b"[null]", b"[[]]", b'["', b"[\xff]"])
def test_what_is_no_array_of_snapshots_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedProof):
        wire.snapshots_from_json(body)


def test_very_many_fields_are_refused_unread() -> None:
    with pytest.raises(wire.DecodeError, match="at most 1000 fields"):
        wire.ADD_REQUEST.decode(b"{" + b'"IfAbsent":true,' * 1001)
