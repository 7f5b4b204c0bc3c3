"""`qed.Policy`: signed receipts, bundles and proofs, honest and hostile, made by an oracle of our own."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import qed
from qed.memory import Known, Recollection
from qed.policy import Level, Policy
from qed.signed import SignedBundle, SignedReceipt, TlogProof
from seeds import searching
from signing import (
    LOG,
    NOW,
    ORIGIN,
    OWN,
    WITNESSES,
    Signer,
    World,
    b64,
    bundle_of,
    event,
    policy_of,
    signed_log,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qed.policy import Verified

POLICY = Policy(policy_of().encode())
RECORDED = Policy(f"log {OWN['log']['vkey']}\nwitness w {OWN['witness']['vkey']}\nquorum none\n".encode())


def receipt(**changes: Any) -> SignedReceipt:  # noqa: ANN401  # fields of JSON
    return SignedReceipt.from_json(json.dumps(World().receipt() | changes).encode())


def verify(note: str, policy: Policy = POLICY, now: int = NOW, **options: Any) -> Verified:  # noqa: ANN401  # of Policy.verify
    return policy.verify(receipt(Checkpoint=note), now=now, **options)


def refused(note: str, policy: Policy = POLICY, now: int = NOW) -> str:
    with pytest.raises(qed.VerificationError) as caught:
        verify(note, policy, now)
    assert not isinstance(caught.value, qed.Inconclusive)
    return str(caught.value)


def test_a_witnessed_receipt_shows_events_and_roots() -> None:
    verified = POLICY.verify(receipt(), event(3), now=NOW)
    assert verified.level is Level.WITNESSED
    assert verified.shown.events == [(3, qed.Digest.of(event(3)))]
    end = json.dumps(World().snapshot(5)).encode()
    assert verified.shown.snapshots == [qed.Snapshot.from_json(end)]
    assert (verified.shown.batch_end, verified.shown.is_end_claimed) == (5, True)
    checkpoint = verified.checkpoint
    assert (checkpoint.origin, checkpoint.size, checkpoint.witnesses) == (ORIGIN, 9, ["w1", "w2"])
    assert (checkpoint.existed_at, checkpoint.confirmed_at) == (NOW, NOW)
    assert verified.trusted.by is qed.TrustedBy.WITNESSES
    assert verified.trusted.anchor == verified.shown.snapshots[0]
    with pytest.raises(qed.VerificationError, match="event digest"):
        POLICY.verify(receipt(), event(4), now=NOW)


def test_recorded_receipts_and_the_proof_verify_with_the_keys_of_the_vectors() -> None:
    for name, version in (("receipt_3", 3), ("receipt_1_at_2", 1)):
        recorded = SignedReceipt.from_json(json.dumps(OWN[name]).encode())
        assert json.loads(recorded.to_json()) == OWN[name]
        verified = RECORDED.verify(recorded, now=NOW)
        assert (verified.level, verified.shown.events[0][0]) == (Level.SIGNED, version)
        assert not verified.trusted.by.is_independent
    proof = TlogProof.parse(OWN["tlog_proof"].encode())
    assert RECORDED.verify(proof, b"event 2", now=NOW).shown.events[0][0] == 3
    assert proof.to_bytes().decode() == OWN["tlog_proof"]


def test_too_few_witnesses_are_no_failure_but_conclude_nothing() -> None:
    lines = World().lines()
    note = World().note(*lines[:2])
    with pytest.raises(qed.Inconclusive, match="found w1"):
        verify(note)
    assert verify(note, require=Level.SIGNED).level is Level.SIGNED
    alone = Policy(policy_of("none").encode())
    assert alone.required is Level.SIGNED
    assert verify(note, alone).level is Level.SIGNED


def test_a_checkpoint_of_another_log_is_refused() -> None:
    world = World(origin="other.example.com")
    assert "origin" in refused(world.note(LOG.line(world.text)))
    assert "origin" in refused(world.note(Signer("other.example.com", 1, 1).line(world.text)))


def test_lines_of_unknown_keys_are_ignored_and_malformed_ones_are_not() -> None:
    world = World()
    unknown = [f"\u2014 x{i} {b64(bytes([i]) * 40)}\n" for i in range(50)]
    same_id = f"\u2014 other {LOG.line(world.text).split()[2]}\n"
    same_name = Signer(LOG.name, 1, 99).line(world.text)
    assert verify(world.note(*unknown, same_id, same_name, *world.lines())).level is Level.WITNESSED
    assert "signature lines" in refused(world.note(*unknown, same_id, same_name))
    for bad in (
        "\u2014 x AAAAAAB=\n",
        "\u2014 x AAAAAAA\n",
        "\u2014 x AAAA\n",
        "\u2014 x\n",
        "\u2014 x AAAA_AAA\n",
    ):
        with pytest.raises(qed.MalformedProof):
            verify(world.note(bad, *world.lines()))


def test_a_known_line_must_verify_and_occur_once() -> None:
    world, other = World(), World(entries=World().entries[:3])
    for i, line in enumerate(world.lines()):
        assert "signature" in refused(world.note(*world.lines(), line))
        lines = world.lines()
        lines[i] = (LOG, *WITNESSES)[i].line(other.text)
        assert "signature" in refused(world.note(*lines))
    name, encoded = world.lines()[0].split()[1:]
    raw = bytearray(base64.b64decode(encoded))
    order = 2**252 + 27742317777372353535851937790883648493
    scalar = int.from_bytes(raw[36:], "little") + order
    raw[36:] = scalar.to_bytes(32, "little")
    assert "signature" in refused(world.note(f"\u2014 {name} {b64(bytes(raw))}\n", *world.lines()[1:]))


def test_limits_hold_before_anything_is_decoded() -> None:
    world = World()
    lines = [f"\u2014 x{i} {b64(bytes(40))}\n" for i in range(98)]
    with pytest.raises(qed.MalformedProof, match="100 signature lines"):
        verify(world.note(*lines, *world.lines()))
    with pytest.raises(qed.MalformedProof, match="262144 bytes"):
        verify(world.note(f"\u2014 x {b64(bytes(300_000))}\n", *world.lines()))
    for size in ("2", str(2**63), str(2**64), str(10**30), "007", "+9", "9 ", "-9", ""):
        text = world.text.replace("\n9\n", f"\n{size}\n")
        with pytest.raises(qed.VerificationError):
            verify(f"{text}\n{LOG.line(text)}")
    with pytest.raises(qed.MalformedProof):
        receipt(Proof=World().proof(3, 4) + [b64(bytes(32))] * 124)


@pytest.mark.parametrize(
    "change",
    [
        lambda note: note.replace("\n", "\r\n"),
        lambda note: note.replace("\n9\n", "\n9\t\n"),
        lambda note: note.replace("\n9\n", "\n9\0\n"),
        lambda note: "\ufeff" + note,
        lambda note: note[:-1],
        lambda note: note.replace("\n\n", "\n"),
        lambda note: note[:0],
    ],
)
def test_a_note_that_is_not_plain_text_is_malformed(change: Callable[[str], str]) -> None:
    with pytest.raises(qed.MalformedProof):
        verify(change(World().note()))


def test_an_empty_tree_has_one_root_and_no_receipts() -> None:
    world = World(entries=[])
    empty = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    assert f"\n0\n{empty}\n" in world.text
    assert "entries" in refused(world.note())
    text = world.text.replace(empty, b64(bytes(32)))
    assert "root" in refused(f"{text}\n{LOG.line(text)}")


def test_a_cosignature_counts_only_with_a_possible_time() -> None:
    world = World()
    for time, counts in ((0, False), (1, True), (NOW + 300, True), (NOW + 301, False), (2**63 - 1, False)):
        note = world.note(*world.lines()[:2], WITNESSES[1].line(world.text, time))
        if counts:
            assert verify(note).checkpoint.existed_at == max(time, NOW)
            assert verify(note).checkpoint.confirmed_at == min(time, NOW)
        else:
            with pytest.raises(qed.Inconclusive):
                verify(note)
    assert "signature" in refused(world.note(*world.lines()[:2], WITNESSES[1].line(world.text, 2**63)))


def test_extension_lines_that_the_log_signed_are_accepted() -> None:
    world = World(extensions="more\n")
    assert not verify(world.note()).checkpoint.has_unsigned_extensions


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (f"log {LOG.vkey[:-4]}AAA=", "line 1"),
        (f"log {WITNESSES[0].vkey}", "line 1"),
        (f"log {LOG.vkey.replace('+', '+0', 1)}", "line 1"),
        (f"log {LOG.vkey} # ours", "line 1"),
        (f"log {LOG.vkey}\r", "line 1"),
        (f"log {Signer(ORIGIN, 1, 1).vkey}\nlog {LOG.vkey}", "line 2"),
        (f"log {LOG.vkey}\nwitness a {WITNESSES[0].vkey}\nwitness b {WITNESSES[0].vkey}", "line 3"),
        (f"log {LOG.vkey}\ngroup g any nobody", "line 2"),
        (f"log {LOG.vkey}\nwitness a {WITNESSES[0].vkey}\ngroup g any a\ngroup h any a", "line 4"),
        (f"log {LOG.vkey}\nquorum none\nquorum none", "line 3"),
    ],
)
def test_a_policy_with_a_mistake_is_refused_with_its_line(line: str, reason: str) -> None:
    with pytest.raises(qed.PolicyError, match=reason):
        Policy(f"{line}\nquorum none\n".encode())
    small_order = Signer(ORIGIN, 1, 1).vkey.rpartition("+")[0] + "+" + b64(b"\1" + b"\1" + bytes(31))
    with pytest.raises(qed.PolicyError, match="line 1"):
        Policy(f"log {small_order}\nquorum none\n".encode())


def test_a_retired_key_counts_up_to_its_size() -> None:
    old, world = Signer(ORIGIN, 1, 2), World()
    note = world.note(old.line(world.text), *world.lines()[1:])
    for size, counts in ((9, True), (8, False)):
        retired = [{"Vkey": old.vkey, "MaxSize": size}]
        file = {"Format": "qed-trust-1", "Policy": policy_of(), "Retired": retired}
        policy = Policy(json.dumps(file).encode())
        if counts:
            assert verify(note, policy).level is Level.WITNESSED
        else:
            assert "origin" in refused(note, policy)


def test_a_batch_end_of_another_batch_is_only_claimed_or_refused() -> None:
    claimed = World().receipt(0, 1) | {"End": World().receipt(3, 4)["End"]}
    claimed["Snapshots"][0]["HyperDigest"] = World().snapshot(5)["HyperDigest"]
    signed = SignedReceipt.from_json(json.dumps(claimed).encode())
    assert POLICY.verify(signed, now=NOW).shown.is_end_claimed
    spanning = World().receipt(0, 6)
    with pytest.raises(qed.VerificationError, match="batch"):
        POLICY.verify(SignedReceipt.from_json(json.dumps(spanning).encode()), now=NOW)
    adjacent = SignedReceipt.from_json(json.dumps(World().receipt(3, 5)).encode())
    assert not POLICY.verify(adjacent, now=NOW).shown.is_end_claimed


@pytest.fixture(scope="module")
def bundles() -> dict[str, dict[str, Any]]:
    """Give a bundle of each kind, of a log of three batches, which end at versions 0, 3 and 4."""
    with qed.Log() as log:
        log.add(event(0))
        log.add_bulk([event(1), event(2), event(3)])
        log.add(event(4))
        world = signed_log(log)

        def asked(number: int, version: int | None = None) -> dict[str, object]:
            return {"KeyDigest": b64(bytes(qed.Digest.of(event(number)))), "Version": version}

        return {
            "membership": bundle_of(world, "membership", asked(1), log.membership(event(1)), 4),
            "older": bundle_of(world, "membership", asked(1, 3), log.membership(event(1), version=3), 3, 4),
            "absence": bundle_of(world, "membership", asked(9), log.membership(event(9)), 4),
            "incremental": bundle_of(world, "incremental", {"Start": 0, "End": 3}, log.incremental(0, 3), 0, 3),
            "to the end": bundle_of(world, "incremental", {"Start": 0, "End": 4}, log.incremental(0, 4), 0, 4),
            "inclusion": bundle_of(world, "inclusion", asked(2, 2), None, 2),
        }


def signed_bundle(bundle: dict[str, Any]) -> SignedBundle:
    return SignedBundle.from_json(json.dumps(bundle).encode())


FOUND: dict[str, type[qed.Present | qed.Absent | qed.Extends]] = {
    "membership": qed.Present,
    "older": qed.Present,
    "absence": qed.Absent,
    "incremental": qed.Extends,
}


@pytest.mark.parametrize("kind", [*FOUND, "inclusion"])
def test_a_signed_bundle_verifies_its_answer_with_the_roots_that_it_shows(
    bundles: dict[str, dict[str, Any]], kind: str
) -> None:
    signed = signed_bundle(bundles[kind])
    assert json.loads(signed.to_json()) == bundles[kind]
    verified = POLICY.verify(signed, now=NOW)
    if kind == "inclusion":
        assert (verified.finding, verified.shown.events) == (None, [(2, qed.Digest.of(event(2)))])
        assert verified.shown.snapshots == []
        return
    finding = verified.finding
    assert isinstance(finding, FOUND[kind])
    assert finding.trusted_by is qed.TrustedBy.WITNESSES
    assert signed.answer is not None
    assert qed.verify(signed.question, signed.answer, verified.trusted, is_kept=True) == finding


def test_a_bundle_answers_its_question_only(bundles: dict[str, dict[str, Any]]) -> None:
    other = qed.Membership(event(5))
    for kind in ("membership", "absence", "inclusion"):
        with pytest.raises(qed.VerificationError):
            POLICY.verify(signed_bundle(bundles[kind]), question=other, now=NOW)
    changed = bundles["inclusion"] | {"Question": bundles["absence"]["Question"] | {"Version": 2}}
    with pytest.raises(qed.VerificationError, match="event digest"):
        POLICY.verify(signed_bundle(changed), now=NOW)
    changed = bundles["membership"] | {"Question": bundles["absence"]["Question"]}
    with pytest.raises(qed.VerificationError):
        POLICY.verify(signed_bundle(changed), now=NOW)


def test_old_cosignatures_say_nothing_about_what_may_have_changed(bundles: dict[str, dict[str, Any]]) -> None:
    file = {"Format": "qed-trust-1", "Policy": policy_of(), "MaxAge": 100}
    policy = Policy(json.dumps(file).encode())
    for kind, is_past in (("membership", True), ("inclusion", True), ("absence", False), ("to the end", False)):
        signed = signed_bundle(bundles[kind])
        assert policy.verify(signed, now=NOW + 100).level is Level.WITNESSED
        if is_past:
            policy.verify(signed, now=NOW + 101)
        else:
            with pytest.raises(qed.Inconclusive, match="MaxAge"):
                policy.verify(signed, now=NOW + 101)
    assert policy.verify(receipt(), now=NOW + 10**6).level is Level.WITNESSED


@pytest.fixture(scope="module")
def stale() -> dict[str, dict[str, Any]]:
    """Give answers of the log as it was at version 3, under the checkpoint that has version 4: event 4 is in it."""
    with qed.Log() as log:
        log.add(event(0))
        log.add_bulk([event(1), event(2), event(3)])
        absence, membership = log.membership(event(4)), log.membership(event(1))
        log.add(event(4))
        world = signed_log(log)
        asked = {"KeyDigest": b64(bytes(qed.Digest.of(event(4)))), "Version": None}
        present = asked | {"KeyDigest": b64(bytes(qed.Digest.of(event(1))))}
        return {
            "absence": bundle_of(world, "membership", asked, absence, 3),
            "membership": bundle_of(world, "membership", present, membership, 3),
            "at 3": bundle_of(world, "membership", asked | {"Version": 3}, absence, 3),
        }


@pytest.mark.parametrize("kind", ["absence", "membership"])
def test_the_newest_state_is_that_at_the_end_of_the_checkpoint(stale: dict[str, dict[str, Any]], kind: str) -> None:
    for require in (None, Level.SIGNED):
        with pytest.raises(qed.StaleAnswer, match="version 4"):
            POLICY.verify(signed_bundle(stale[kind]), now=NOW, require=require)
    # The caller's own question counts, whatever that of the bundle is.
    with pytest.raises(qed.StaleAnswer):
        POLICY.verify(signed_bundle(stale["at 3"]), question=qed.Membership(event(4)), now=NOW)
    found = POLICY.verify(signed_bundle(stale["at 3"]), now=NOW).finding
    assert isinstance(found, qed.Absent)
    assert found.as_of == 3


def test_an_absence_under_a_smaller_checkpoint_than_the_known_one_is_stale(
    bundles: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    with qed.Log() as log:
        log.add(event(0))
        log.add_bulk([event(1), event(2), event(3)])
        absence, membership = log.membership(event(4)), log.membership(event(1))
        world = signed_log(log)
    memory = qed.Memory(tmp_path / "memory")
    POLICY.verify(signed_bundle(bundles["membership"]), now=NOW, memory=memory)
    asked = {"KeyDigest": b64(bytes(qed.Digest.of(event(4)))), "Version": None}
    old = signed_bundle(bundle_of(world, "membership", asked, absence, 3))
    POLICY.verify(old, now=NOW)
    with pytest.raises(qed.StaleAnswer, match="size 5"):
        POLICY.verify(old, now=NOW, memory=memory)
    at_3 = signed_bundle(bundle_of(world, "membership", asked | {"Version": 3}, absence, 3))
    assert POLICY.verify(at_3, now=NOW, memory=memory).recollection == Recollection(Known.OLDER, 5)
    # What was in the log then is in it still.
    asked["KeyDigest"] = b64(bytes(qed.Digest.of(event(1))))
    POLICY.verify(signed_bundle(bundle_of(world, "membership", asked, membership, 3)), now=NOW, memory=memory)


def test_an_incremental_answer_is_recent_only_up_to_the_end_of_the_checkpoint(
    bundles: dict[str, dict[str, Any]],
) -> None:
    file = {"Format": "qed-trust-1", "Policy": policy_of(), "MaxAge": 100}
    policy = Policy(json.dumps(file).encode())
    POLICY.verify(signed_bundle(bundles["incremental"]), now=NOW)
    with pytest.raises(qed.StaleAnswer, match="MaxAge"):
        policy.verify(signed_bundle(bundles["incremental"]), now=NOW)
    policy.verify(signed_bundle(bundles["to the end"]), now=NOW)


def test_a_maximum_age_counts_whatever_is_required(bundles: dict[str, dict[str, Any]]) -> None:
    file = {"Format": "qed-trust-1", "Policy": policy_of(), "MaxAge": 100}
    policy = Policy(json.dumps(file).encode())
    signed = signed_bundle(bundles["absence"])
    assert policy.verify(signed, now=NOW + 100, require=Level.SIGNED).level is Level.WITNESSED
    with pytest.raises(qed.Inconclusive, match="MaxAge"):
        policy.verify(signed, now=NOW + 101, require=Level.SIGNED)


def test_an_unknown_or_impossible_level_is_refused() -> None:
    note = World().note(LOG.line(World().text))
    for unknown in ("Witnessed", "foo", ""):
        with pytest.raises(ValueError, match="Level"):
            verify(note, require=unknown)
    for policy in (POLICY, Policy(policy_of("none").encode())):
        for level in (Level.WITNESSED, "witnessed"):
            with pytest.raises(qed.Inconclusive):
                verify(note, policy, require=level)
    assert verify(note, require="signed").level is Level.SIGNED


def test_arguments_of_the_wrong_kind_are_refused(bundles: dict[str, dict[str, Any]]) -> None:
    with pytest.raises(TypeError, match="question for a bundle"):
        POLICY.verify(signed_bundle(bundles["membership"]), event(1), now=NOW)
    with pytest.raises(TypeError, match="event for a receipt"):
        POLICY.verify(receipt(), question=qed.Membership(event(3)), now=NOW)


def _mutations(text: bytes) -> st.SearchStrategy[bytes]:
    place = st.integers(0, len(text) - 1)
    flips = st.tuples(place, st.integers(0, 7)).map(
        lambda flip: text[: flip[0]] + bytes([text[flip[0]] ^ 1 << flip[1]]) + text[flip[0] + 1 :]
    )
    cuts = place.map(lambda end: text[:end])
    parts = text.split(b",")
    swaps = st.tuples(st.integers(0, len(parts) - 1), st.integers(0, len(parts) - 1)).map(
        lambda pair: b",".join(
            parts[pair[1]] if i == pair[0] else parts[pair[0]] if i == pair[1] else part for i, part in enumerate(parts)
        )
    )
    return st.one_of(flips, cuts, swaps)


@searching(400)
@given(data=st.data())
def test_no_mutation_shows_anything_else(bundles: dict[str, dict[str, Any]], data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["receipt", *bundles]))
    read = SignedReceipt.from_json if kind == "receipt" else SignedBundle.from_json
    text = json.dumps(World().receipt() if kind == "receipt" else bundles[kind]).encode()
    honest = POLICY.verify(read(text), now=NOW)
    try:
        found = POLICY.verify(read(data.draw(_mutations(text))), now=NOW)
    except qed.VerificationError:
        return
    assert found.finding == honest.finding
    assert found.shown.events == honest.shown.events
    assert found.shown.snapshots == honest.shown.snapshots
    assert found.checkpoint.root == honest.checkpoint.root


def test_a_policy_file_is_loaded_and_named_in_errors(tmp_path: Path) -> None:
    path = tmp_path / "policy"
    path.write_text(policy_of())
    assert Policy.load(path).trust.origins == [ORIGIN]
    path.write_text("quorum none\nmore\n")
    with pytest.raises(qed.PolicyError, match=r"policy: line 2 of the policy: "):
        Policy.load(path)
