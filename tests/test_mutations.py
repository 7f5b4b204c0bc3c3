"""No damaged proof is accepted: every single bit and value, then as many random mutations as time allows."""

from __future__ import annotations

import json
import os
from functools import cache, partial
from typing import TYPE_CHECKING, Final

import pytest

from mutations import all_damage, damaged_answer, damaged_bytes, flips
from oracle_verify import RejectedError, parse
from qed import _qed
from qed.errors import MalformedProof, VerificationError
from seeds import SEED, chance
from specimens import Proof, Specimen, dumps, log, named, specimens, trusted

if TYPE_CHECKING:
    from collections.abc import Callable

    from oracle import Json

MUTATIONS: Final = int(os.environ.get("QED_MUTATIONS", "100000"))
NESTED_BYTES: Final = 10_000_000
LONG_TEXT_BYTES: Final = 5_000

every = pytest.mark.parametrize("specimen", specimens(), ids=str)


@cache
def original(specimen_name: str) -> Proof:
    return named(specimen_name).proof


def is_refused(specimen: Specimen, decode: Callable[[], Proof]) -> bool:
    """Return False when the damage decodes to the very same proof; fail when another proof is accepted."""
    try:
        proof = decode()
    except MalformedProof:
        return True
    if proof == original(specimen.name):
        return False
    with pytest.raises(VerificationError):
        specimen.question.verify(proof)
    return True


def is_text_refused(specimen: Specimen, text: bytes) -> bool:
    return is_refused(specimen, partial(specimen.question.read, text))


def is_refused_by_oracle(specimen: Specimen, text: bytes) -> bool:
    try:
        specimen.question.verify_with_oracle(parse(text))
    except RejectedError:
        return True
    return False


def says_the_same(text: bytes, answer: Json) -> bool:
    """Return whether the damage only removed a null, or added a name that no answer has."""
    names = {*answer, "Neighbour", "LatestVersion", "LatestHistory"}

    def said(claims: Json) -> Json:
        return {name: value for name, value in claims.items() if name in names and value is not None}

    return said(parse(text)) == said(answer)


# Every single damage.


@every
def test_every_flipped_bit_of_the_compact_form_is_refused(specimen: Specimen) -> None:
    for bit, damaged in flips(specimen.proof.to_bytes()):
        assert is_refused(specimen, partial(specimen.decode, damaged)), f"bit {bit}"


@every
def test_every_cut_of_the_compact_form_is_malformed(specimen: Specimen) -> None:
    compact = specimen.proof.to_bytes()
    for length in range(len(compact)):
        with pytest.raises(MalformedProof):
            specimen.decode(compact[:length])
    for tail in (b"\0", b"\xff", compact):
        with pytest.raises(MalformedProof):
            specimen.decode(compact + tail)


@every
def test_every_flipped_bit_of_the_json_form_is_refused(specimen: Specimen) -> None:
    """In a very long text, whose positions are all alike, every 31st bit represents the others."""
    text = specimen.text
    for bit, damaged in flips(text, step=1 if len(text) <= LONG_TEXT_BYTES else 31):
        if not is_text_refused(specimen, damaged):
            assert says_the_same(damaged, specimen.answer), damaged[max(0, bit // 8 - 20) : bit // 8 + 20]


@every
def test_every_damaged_value_of_the_json_form_is_refused(specimen: Specimen) -> None:
    for place, text in all_damage(specimen.answer):
        if is_text_refused(specimen, text):
            assert is_refused_by_oracle(specimen, text), (place, text[:2000])
        else:
            assert says_the_same(text, specimen.answer), (place, text[:2000])


@every
def test_every_cut_of_the_json_form_is_malformed(specimen: Specimen) -> None:
    for length in range(0, len(specimen.text), 1 if len(specimen.text) <= LONG_TEXT_BYTES else 31):
        with pytest.raises(MalformedProof):
            specimen.question.read(specimen.text[:length])


# Shapes that no proof has.


def nested(opening: bytes, closing: bytes) -> bytes:
    depth = NESTED_BYTES // (len(opening) + len(closing))
    return opening * depth + closing * depth


HOSTILE_TEXTS: Final = {
    "nothing": b"",
    "space": b" ",
    "null": b"null",
    "true": b"true",
    "number": b"1",
    "string": b'"x"',
    "empty object": b"{}",
    "empty array": b"[]",
    "open brace": b"{",
    "not UTF-8": b'{"Exists":\xff\xfe}',
    "byte order mark": b"\xef\xbb\xbf{}",
    "lone surrogate": b'{"\\ud800":1}',
    "NaN": b'{"Exists":NaN}',
    "zero byte": b"\0",
    "10 MB of brackets": b"[" * NESTED_BYTES,
    "10 MB of nested arrays": nested(b"[", b"]"),
    "10 MB of nested objects": nested(b'{"Hyper":', b"}"),
    "10 MB of open objects": b'{"a":' * (NESTED_BYTES // 5),
    "10 MB of string": b'"' + b"a" * NESTED_BYTES + b'"',
    "10 MB of digits": b"1" * NESTED_BYTES,
    "10 MB of spaces": b" " * NESTED_BYTES,
}


@pytest.mark.parametrize("text", HOSTILE_TEXTS.values(), ids=HOSTILE_TEXTS.keys())
@pytest.mark.parametrize(
    "read",
    [
        _qed.parse_answer,
        _qed.MembershipProof.from_json,
        _qed.AbsenceProof.from_json,
        _qed.IncrementalProof.from_json,
        _qed.Snapshot.from_json,
    ],
    ids=["answer", "membership", "absence", "incremental", "snapshot"],
)
def test_hostile_text_is_malformed(read: Callable[[bytes], object], text: bytes) -> None:
    with pytest.raises(MalformedProof):
        read(text)


@pytest.mark.parametrize(
    "decode",
    [
        _qed.MembershipProof.from_bytes,
        _qed.AbsenceProof.from_bytes,
        _qed.IncrementalProof.from_bytes,
        _qed.Snapshot.from_bytes,
    ],
    ids=["membership", "absence", "incremental", "snapshot"],
)
def test_hostile_bytes_are_malformed(decode: Callable[[bytes], object]) -> None:
    for byte in range(256):
        for length in (0, 1, 2, 8, 33, 1_000, 100_000):
            with pytest.raises(MalformedProof):
                decode(bytes([byte]) * length)


@every
def test_array_of_the_values_is_malformed(specimen: Specimen) -> None:
    """Fields have names: an array that lists their values, in whatever order, is no answer."""
    optional = {"LatestVersion": None, "LatestHistory": None, "Neighbour": None} if "Exists" in specimen.answer else {}
    answer = {**optional, **specimen.answer}
    late = [name for name in answer if name not in {"LatestVersion", "LatestHistory", "Neighbour"}]
    orders = [
        late,
        list(specimen.answer),
        [*late, *optional],
        [*late, *reversed(optional)],
        [*late[:6], *(name for name in optional if name != "Neighbour"), *late[6:], *list(optional)[2:]],
    ]
    for order in orders:
        with pytest.raises(MalformedProof):
            specimen.question.read(dumps([answer[name] for name in order]))


def test_damaged_snapshot_is_malformed_or_another() -> None:
    snapshot = log().snapshot(5)
    with pytest.raises(MalformedProof):
        _qed.Snapshot.from_json(dumps(list(snapshot.values())))
    for place, text in all_damage(snapshot):
        try:
            assert _qed.Snapshot.from_json(text) != trusted(snapshot), (place, text)
        except MalformedProof:
            continue


@pytest.mark.parametrize("name", ["membership", "absence at another key", "incremental 2-13"])
@pytest.mark.parametrize("deep", [nested(b"[", b"]"), nested(b'{"a":', b"}")], ids=["arrays", "objects"])
def test_10_mb_nested_inside_a_proof_harms_nothing(name: str, deep: bytes) -> None:
    specimen = named(name)
    for field in ("Unknown", "Hyper", "History", "AuditPath", "CurrentVersion", "Start", "Neighbour"):
        text = specimen.text[:-1] + b',"' + field.encode() + b'":' + deep + b"}"
        assert is_text_refused(specimen, text) or field not in specimen.answer


@every
def test_unknown_fields_and_spaces_change_nothing(specimen: Specimen) -> None:
    answer = {"Unknown": [{"x": None}], **specimen.answer, "Unknown too": {"0|0": 1}}
    for text in (dumps(answer), json.dumps(answer, indent="\t").encode(), b" \r\n" + specimen.text + b"\n"):
        assert specimen.question.read(text) == specimen.proof


# Random damage. A run repeats with QED_SEED; the long run sets QED_MUTATIONS to a million.


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("run_seed", [SEED])
def test_no_random_damage_to_the_compact_form_is_accepted(run_seed: int) -> None:
    dice, stock = chance(run_seed), specimens()
    compact = {specimen.name: specimen.proof.to_bytes() for specimen in stock}
    for _ in range(MUTATIONS // 2):
        specimen, donor = dice.choices(stock, k=2)
        damaged = damaged_bytes(dice, compact[specimen.name], compact[donor.name])
        if not is_refused(specimen, partial(specimen.decode, damaged)):
            assert damaged == compact[specimen.name], "two compact forms of one proof"


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("run_seed", [SEED])
def test_no_random_damage_to_the_json_form_is_accepted(run_seed: int) -> None:
    dice, stock = chance(run_seed), specimens()
    for _ in range(MUTATIONS // 2):
        specimen, donor = dice.choices(stock, k=2)
        text = dumps(damaged_answer(dice, specimen.answer, donor.answer))
        if dice.random() < 0.5:
            text = damaged_bytes(dice, specimen.text if dice.random() < 0.8 else text, donor.text)
        is_text_refused(specimen, text)
