"""One witness as its log sees it: what it has acknowledged, when it may be asked again, and what its answers mean.

C2SP tlog-witness, `add-checkpoint`. Everything that a witness answers is untrusted: only a verified cosignature counts.
"""

from __future__ import annotations

import asyncio
import email.utils
import hashlib
import re
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol

from qed._printable import printable
from qed.errors import ProtocolError, QedError, Unavailable, VerificationError
from qed.server.add_checkpoint_answers import SHOWN, shown, size_in
from qed.server.back_off import LONG, SHORT
from qed.server.witness_outcomes import Outcome, OutcomeKind, Sighting, SightingKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from qed._client.calls import Answer
    from qed._qed import Cosignature, Cosigning, Digest
    from qed.server.back_off import BackOff, Waits
    from qed.server.http_client import HttpClient
    from qed.signed import Checkpoint, TrustFile

__all__ = ["AcknowledgedSizes", "ConsistencyProofs", "WitnessExchange"]

_ANSWER_BYTES: Final = 64 * 1024
_NOTE_BYTES: Final = 256 * 1024
_SECONDS: Final = re.compile(r"[0-9]{1,9}")
_LONGEST_S: Final = 3600.0
"""The longest wait that a witness may ask for."""
_LATER: Final = (
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
_SUSPICIOUS: Final = (OutcomeKind.AHEAD, OutcomeKind.CONFLICT, OutcomeKind.DISAGREES)
"""What may mean that there are two histories."""


class ConsistencyProofs(Protocol):
    """Where the proofs of the log come from."""

    async def consistency(self, old: int, new: int) -> Sequence[bytes | Digest]:
        """Return the consistency proof of RFC 6962 between two sizes of the log, 0 < `old` < `new`.

        Raises:
            QedError: There is none at the moment.
        """
        ...


class AcknowledgedSizes:
    """The sizes that witnesses have cosigned last, as far as is known. They only spare a request that would fail."""

    def __init__(
        self, sizes: Mapping[str, int] | None = None, *, on_change: Callable[[str, int], object] = lambda _, __: None
    ) -> None:
        """Start with the sizes that are known.

        Args:
            sizes: The sizes, by the URLs of the witnesses without a slash at the end.
            on_change: Called with a URL and a size whenever one changes. It may keep it anywhere, durable or not, and
                must not wait for anything.
        """
        self._sizes = dict(sizes or {})
        self._on_change = on_change

    def of(self, url: str) -> int:
        """Return the size that a witness has cosigned last; 0 if nothing is known."""
        return self._sizes.get(url, 0)

    def note(self, url: str, size: int) -> None:
        """Note what a witness has cosigned last."""
        if size != self.of(url):
            self._sizes[url] = size
            self._on_change(url, size)


class _Unseen(Exception):
    """Looking for the newest checkpoint ended without one."""

    def __init__(self, kind: SightingKind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class _Ended(Exception):
    """The exchange ended without a cosignature."""

    def __init__(
        self,
        kind: OutcomeKind,
        detail: str,
        waits: Waits | None = None,
        *,
        least_s: float = 0.0,
        size: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.waits = waits
        self.least_s = least_s
        self.size = size


@dataclass
class WitnessExchange:
    """One witness. Requests to it are sent one after the other.

    Attributes:
        url: Where it is, without a slash at the end.
        monitoring_url: Where its newest checkpoints are, without a slash at the end.
        acknowledged: The sizes that witnesses have cosigned last.
        trust: The policy.
        http: Sends the requests.
        back_off: When it may be asked again.
        clock: The time in seconds since 1970.
        names: Its names in the policy, by their index there. It has one for each of its keys.
    """

    url: str
    monitoring_url: str
    acknowledged: AcknowledgedSizes
    trust: TrustFile
    http: HttpClient
    back_off: BackOff
    clock: Callable[[], float]
    names: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._turn = asyncio.Lock()

    async def cosign(
        self, cosigning: Cosigning, proofs: ConsistencyProofs, deadline: float
    ) -> tuple[Outcome, list[Cosignature]]:
        """Ask for cosignatures, with at most two requests.

        Args:
            cosigning: The checkpoint.
            proofs: Where proofs come from.
            deadline: When to give up, on the clock of the event loop.

        Returns:
            How it ended, and the verified cosignatures, at most one of each key.
        """
        try:
            async with asyncio.timeout_at(deadline), self._turn:
                if wait_s := self.back_off.wait_s():
                    return self._outcome(OutcomeKind.WAITING, f"the next request is due in {wait_s:.0f} s"), []
                found = await self._submit(cosigning, proofs)
        except TimeoutError:
            self.back_off.fail(SHORT)
            return self._outcome(OutcomeKind.UNREACHABLE, "no complete answer in time"), []
        except _Ended as exc:
            if exc.waits is not None:
                self.back_off.fail(exc.waits, least_s=exc.least_s)
            outcome = self._outcome(exc.kind, str(exc), size=exc.size)
            return await self._with_evidence(outcome, cosigning.origin, deadline), []
        self.back_off.reset()
        cosigned = tuple(self.names[cosignature.witness] for cosignature in found)
        newest = max(cosignature.time for cosignature in found)
        return replace(
            self._outcome(OutcomeKind.COSIGNED, "", size=cosigning.size), cosigned=cosigned, time=newest
        ), found

    async def newest(self, origin: str, deadline: float) -> Sighting:
        """Ask for the newest checkpoint of the log called `origin`; give up at `deadline`, as in `cosign`."""
        try:
            async with asyncio.timeout_at(deadline):
                checkpoint = await self._newest(origin)
        except TimeoutError:
            return self._sighting(SightingKind.UNREACHABLE, "no complete answer in time")
        except _Unseen as exc:
            return self._sighting(exc.kind, str(exc))
        return Sighting(self.url, tuple(self.names.values()), SightingKind.FOUND, checkpoint)

    async def _newest(self, origin: str) -> Checkpoint:
        url = f"{self.monitoring_url}/{hashlib.sha256(origin.encode()).hexdigest()}/checkpoint"
        try:
            answer = await self.http.get(url, limit_bytes=_NOTE_BYTES)
        except Unavailable as exc:
            raise _Unseen(SightingKind.UNREACHABLE, str(exc)) from exc
        except ProtocolError as exc:
            raise _Unseen(SightingKind.INVALID, str(exc)) from exc
        if answer.status != HTTPStatus.OK:
            is_missing = answer.status == HTTPStatus.NOT_FOUND
            raise _Unseen(SightingKind.NONE if is_missing else SightingKind.UNREACHABLE, shown(answer))
        try:
            checkpoint = self.trust.endorse(answer.body, now=int(self.clock()))
        except VerificationError as exc:
            raise _Unseen(SightingKind.INVALID, printable(str(exc))[:SHOWN]) from exc
        if checkpoint.origin != origin:
            detail = f"expected a checkpoint of {origin}, found one of {printable(checkpoint.origin)}"
            raise _Unseen(SightingKind.INVALID, detail)
        return checkpoint

    async def _submit(self, cosigning: Cosigning, proofs: ConsistencyProofs) -> list[Cosignature]:
        """Return the cosignatures, at least one.

        1. The first request is for the size that is known to be acknowledged.
        2. If the witness names another one that the log has reached, there is one more request, for that size.
        """
        # 1. A size above that of the log would be refused as malformed; if it is true, the witness says so again.
        old = min(self.acknowledged.of(self.url), cosigning.size)
        answer = await self._post(cosigning, proofs, old)
        # 2.
        if answer.status == HTTPStatus.CONFLICT:
            old = self._size_to_start_from(answer, cosigning, old)
            answer = await self._post(cosigning, proofs, old)
        if answer.status == HTTPStatus.CONFLICT:
            size = self._size_to_start_from(answer, cosigning, old)
            raise _Ended(OutcomeKind.BEHIND, f"its last size was {old}, then {size}", size=size)
        if answer.status != HTTPStatus.OK:
            raise _refusal(answer, _retry_after_s(answer, self.clock()))
        try:
            found = cosigning.read(list(self.names), answer.body, now=int(self.clock()))
        except VerificationError as exc:
            raise _Ended(OutcomeKind.INVALID, printable(str(exc))[:SHOWN], SHORT) from exc
        if not found:
            detail = "expected a cosignature by a key of the policy at a time that is not in the future, found none"
            raise _Ended(OutcomeKind.INVALID, detail, SHORT)
        self.acknowledged.note(self.url, cosigning.size)
        return found

    async def _post(self, cosigning: Cosigning, proofs: ConsistencyProofs, old: int) -> Answer:
        try:
            proof = await proofs.consistency(old, cosigning.size) if 0 < old < cosigning.size else []
            body = cosigning.request(old, [bytes(node) for node in proof])
        except QedError as exc:
            raise _Ended(OutcomeKind.NO_PROOF, f"no proof from {old} to {cosigning.size}: {exc}") from exc
        try:
            return await self.http.post(f"{self.url}/add-checkpoint", body, limit_bytes=_ANSWER_BYTES)
        except Unavailable as exc:
            raise _Ended(OutcomeKind.UNREACHABLE, str(exc), SHORT) from exc
        except ProtocolError as exc:
            raise _Ended(OutcomeKind.INVALID, str(exc), SHORT) from exc

    def _size_to_start_from(self, answer: Answer, cosigning: Cosigning, old: int) -> int:
        """Return the size that an answer with status 409 names, if the log can start from it."""
        size = size_in(answer.body)
        if size is None or size == old:
            raise _Ended(OutcomeKind.CONFLICT, shown(answer), LONG, size=size)
        if size > cosigning.size:
            detail = f"it has cosigned size {size}, but this log has size {cosigning.size}"
            raise _Ended(OutcomeKind.AHEAD, detail, size=size)
        self.acknowledged.note(self.url, size)
        return size

    async def _with_evidence(self, outcome: Outcome, origin: str, deadline: float) -> Outcome:
        """Add what the witness has cosigned last, if that can show that there are two histories."""
        if outcome.kind not in _SUSPICIOUS:
            return outcome
        sighting = await self.newest(origin, deadline)
        return replace(outcome, newest=sighting.checkpoint)

    def _outcome(self, kind: OutcomeKind, detail: str, *, size: int | None = None) -> Outcome:
        wait_s = self.back_off.wait_s()
        return Outcome(self.url, tuple(self.names.values()), kind, detail, size=size, wait_s=wait_s)

    def _sighting(self, kind: SightingKind, detail: str) -> Sighting:
        return Sighting(self.url, tuple(self.names.values()), kind, detail=detail)


def _refusal(answer: Answer, retry_after_s: float) -> _Ended:
    """Return what an answer means that is neither a cosignature nor a size."""
    status, detail = answer.status, shown(answer)
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        return _Ended(OutcomeKind.DISAGREES, detail, LONG)
    if status in _LATER:
        return _Ended(OutcomeKind.BUSY, detail, SHORT, least_s=retry_after_s)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _Ended(OutcomeKind.UNREACHABLE, detail, SHORT, least_s=retry_after_s)
    if status >= HTTPStatus.MULTIPLE_CHOICES:
        return _Ended(OutcomeKind.MISCONFIGURED, detail, LONG)
    return _Ended(OutcomeKind.INVALID, detail, SHORT)


def _retry_after_s(answer: Answer, now: float) -> float:
    """Return how long the witness asks to wait, 0 to an hour. What cannot be read asks for nothing."""
    text = answer.headers.get("retry-after", "")
    if _SECONDS.fullmatch(text):
        return min(float(text), _LONGEST_S)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return min(max(moment.timestamp() - now, 0.0), _LONGEST_S)
