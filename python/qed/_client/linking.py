"""Links: proofs that snapshots belong to the log of the receipts, which are then appended or marked."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from qed import _qed
from qed._client import calls
from qed._client.forks import diagnosed, landmarks
from qed._client.fresh_answers import fresh_answer, incremental_between
from qed._client.steps import together
from qed.errors import QedError, ReceiptsError, VerificationError
from qed.proofs import IncrementalProof
from qed.questions import Membership
from qed.receipts import LOG_NAME_MAX
from qed.trust import TrustedSnapshots
from qed.verification import require_consistent, require_fresh, verify

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from qed._client.growth import Growth
    from qed._client.steps import Calls, Steps
    from qed.proofs import Snapshot
    from qed.receipts import Receipts

__all__ = ["keep", "link", "prepare"]


def prepare(receipts: Receipts, growth: Growth) -> Steps[None]:
    """Check that the receipts belong to the server's log, before anything is added to it.

    The log's name is compared, and receipts that were never linked are linked.

    Args:
        receipts: The receipts, open for appending.
        growth: Notes the receipts: what is added from now on must be newer.

    Yields:
        Calls, to be sent their values.

    Raises:
        VerificationError: The receipts do not belong to the server's log.
        ReceiptsError: The file is of another log.
        OSError: The file cannot be written.
        QedError: The server gave no proofs.
    """
    try:
        log = yield from _log_name(receipts)
        yield from link(receipts, log)
    except VerificationError as exc:
        raise (yield from diagnosed(exc, *landmarks(receipts))) from exc
    growth.note(receipts)


def keep(receipts: Receipts, snapshots: Sequence[Snapshot], growth: Growth) -> Steps[None]:
    """Prove that acknowledged snapshots extend the log of the receipts, then append them.

    The log's name is compared first, unless it was compared before. An incremental proof links the newest snapshot to
    the anchor and shows its event at its version; a membership proof shows it in the hyper tree, unless other events
    were added since. Every history digest of a bulk is recomputed. Receipts that were never linked are linked first.

    Args:
        receipts: The receipts, open for appending.
        snapshots: What a server acknowledged, in its order.
        growth: Knows when they were added, and notes the receipts.

    Yields:
        Calls, to be sent their values.

    Raises:
        VerificationError: They do not belong to the log of the receipts; nothing was appended.
        ReceiptsError: The file is of another log; nothing was appended.
        OSError: The file cannot be written.
        QedError: The server gave no proofs; nothing was appended.
    """
    # A receipt ties the snapshots to its log whatever its name; the first one has only the name.
    is_known = receipts.is_confirmed and receipts.anchor is not None
    log = receipts.log if is_known else (yield from _log_name(receipts))
    is_appended = False
    while not is_appended:
        try:
            yield from link(receipts, log)
            growth.require_new(receipts, snapshots)
            fresh = receipts.unknown(snapshots)
            anchor = receipts.linked_anchor
            yield from _prove(anchor, fresh)
        except VerificationError as exc:
            # Another log is a mistake to report as such, not a fork.
            refused = yield from _refused_by_name(receipts)
            # What was acknowledged is compared too: a server may show one log to writers and another to readers.
            known = [*landmarks(receipts), *snapshots[-1:]]
            raise (refused or (yield from diagnosed(exc, *known))) from exc
        is_appended = receipts.append_proven(fresh, log=log, anchor=anchor)
    growth.note(receipts)


def link(receipts: Receipts, log: str | None = None) -> Steps[None]:
    """Prove that receipts which were never linked all belong to one log, and mark them as linked in their file.

    Such receipts are in files of the earlier format, or were appended without proof.

    Args:
        receipts: The receipts.
        log: The log's name, if it is known already.

    Yields:
        Calls, to be sent their values.

    Raises:
        VerificationError: They do not belong to one log, or not to this one.
        ReceiptsError: The file is of another log.
        QedError: The server gave no proofs.
    """
    pending = receipts.unlinked
    if not pending:
        return
    log = log or (yield from _log_name(receipts))
    yield from _prove(receipts.linked_anchor, pending)
    receipts.mark_linked(log, pending)


def _log_name(receipts: Receipts) -> Calls[str | None]:
    info = yield calls.info()
    if len(info.log) > LOG_NAME_MAX:
        raise VerificationError(f"expected a log name of at most {LOG_NAME_MAX} characters, found {len(info.log)}")
    if receipts.log in info.continues and receipts.log != info.log:
        yield from _follow(receipts, info.log)
    receipts.confirm_log(info.log or None)
    return info.log or None


def _follow(receipts: Receipts, log: str) -> Calls[None]:
    """Give the receipts the new name of their log, which was restored or recovered, if it still has all they state.

    The server's word that it continues that log only tells a new name from another log. What counts is the proof: the
    log holds the newest receipts with their history roots, and so everything before them.
    """
    for known in landmarks(receipts):
        if known is not None:
            proof = yield from incremental_between(known.version, known.version)
            _qed.verify_addition(proof, trusted=known.history_root(), added=known)
    receipts.rename_log(log)


def _refused_by_name(receipts: Receipts) -> Calls[ReceiptsError | None]:
    """Return the error that says that the server has another log, if its name shows that."""
    try:
        yield from _log_name(receipts)
    except ReceiptsError as exc:
        return exc
    except QedError:
        return None
    return None


def _prove(anchor: Snapshot | None, added: Sequence[Snapshot]) -> Steps[None]:
    """Prove that snapshots belong to one log, that of the anchor if there is one."""
    ordered = _runs(added)
    if ordered:
        yield from together(_prove_in_history_tree(anchor, ordered), _prove_in_hyper_tree(ordered[-1]))


def _runs(snapshots: Iterable[Snapshot]) -> list[list[Snapshot]]:
    """Return snapshots as runs of consecutive versions, in ascending order: one proof covers a run."""
    ordered = sorted(snapshots, key=lambda snapshot: snapshot.version)
    numbered = groupby(enumerate(ordered), lambda pair: pair[1].version - pair[0])
    return [[snapshot for _, snapshot in group] for _, group in numbered]


def _prove_in_history_tree(anchor: Snapshot | None, ordered: Sequence[Sequence[Snapshot]]) -> Calls[None]:
    """Prove that runs of consecutive snapshots belong to one history tree, that of the anchor if there is one."""
    for run in ordered:
        newest = run[-1]
        if len(run) > 1:
            proof = yield from incremental_between(run[0].version, newest.version)
            _qed.verify_bulk(proof, run)
        if anchor is None and len(run) > 1:
            anchor = newest
            continue
        linked_to = anchor or newest
        proof = yield from incremental_between(linked_to.version, newest.version)
        _qed.verify_addition(proof, trusted=linked_to.history_root(), added=newest)
        anchor = newest if anchor is None or newest.version > anchor.version else anchor


def _prove_in_hyper_tree(run: Sequence[Snapshot]) -> Calls[None]:
    """Prove that the hyper root of the newest snapshot contains its event, unless the log has grown since.

    In a log that has grown, the answer must still be that the event is there. The other snapshots of the run bound the
    commit batch of the newest: of equal events in a commit batch, the hyper tree shows the first.
    """
    added, trusted = run[-1], TrustedSnapshots(*run)
    question = Membership(added.event_digest, added.version)
    answer = yield from fresh_answer(question, trusted, None)
    if isinstance(answer, IncrementalProof) or answer.current_version == added.version:
        verify(question, answer, trusted)
        return
    require_fresh(question, answer, trusted)
    require_consistent(question, answer, trusted)
