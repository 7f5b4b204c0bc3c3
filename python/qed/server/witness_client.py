"""Asking the witnesses of a policy to cosign the checkpoints of this log.

Nothing is published here: the caller publishes the note of a `Round` if its quorum is met.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from qed._qed import Cosigning
from qed.errors import PolicyError
from qed.server.back_off import BackOff
from qed.server.durations import Durations
from qed.server.http_client import HttpClient, require_url
from qed.server.logs import Line
from qed.server.witness_exchange import AcknowledgedSizes, WitnessExchange
from qed.server.witness_outcomes import Outcome, OutcomeKind, Round

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence

    from qed._qed import Cosignature
    from qed.policy import Policy
    from qed.server.witness_exchange import ConsistencyProofs
    from qed.server.witness_outcomes import Sighting

__all__ = ["ROUND_S", "WitnessClient"]

_log = logging.getLogger(__name__)

ROUND_S: Final = 2.0
"""How long a round may take. A checkpoint waits for the slowest witness up to then."""
_URGENT: Final = (OutcomeKind.AHEAD, OutcomeKind.CONFLICT, OutcomeKind.DISAGREES, OutcomeKind.MISCONFIGURED)
"""What does not end by itself."""


class WitnessClient:
    """Collects cosignatures. It is for one event loop.

    Keys of a policy with one URL are one witness, which gets one request. Different witnesses are asked at the same
    time, and each of them one request after the other.

    Attributes:
        times: How long each witness took to answer when it was asked to cosign, by its first name.
        outcomes: How often that ended in which way, by the name and the kind of the outcome.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        acknowledged: AcknowledgedSizes | None = None,
        monitoring_urls: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
        back_off: Callable[[], BackOff] = BackOff,
    ) -> None:
        """Make a client; nothing is connected yet.

        Args:
            policy: The log, and its witnesses with their URLs.
            acknowledged: What is known of the sizes that witnesses have cosigned last. Without it, the first request to
                a witness may be answered with the size.
            monitoring_urls: By URL, where the witness serves its newest checkpoints, if that is somewhere else.
            tls: How to check the certificates of witnesses; see `HttpClient`.
            clock: The time in seconds since 1970.
            back_off: Makes the waits of a witness.

        Raises:
            PolicyError: The URL of a witness cannot be used.
        """
        self._trust: Final = policy.trust
        self._names: Final = tuple(witness.name for witness in policy.trust.witnesses)
        self._clock = clock
        self._http = HttpClient(tls=tls)
        self._last: dict[str, OutcomeKind] = {}
        self.times: dict[str, Durations] = {}
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self._without_url: list[str] = []
        self._witnesses: dict[str, WitnessExchange] = {}
        known, elsewhere = acknowledged or AcknowledgedSizes(), monitoring_urls or {}

        def exchange_of(url: str) -> WitnessExchange:
            return WitnessExchange(
                url=url,
                monitoring_url=_usable(elsewhere.get(url, url)),
                acknowledged=known,
                trust=policy.trust,
                http=self._http,
                back_off=back_off(),
                clock=clock,
            )

        for index, witness in enumerate(policy.trust.witnesses):
            if witness.url is None:
                self._without_url.append(witness.name)
                continue
            url = _usable(witness.url)
            exchange = self._witnesses.get(url) or self._witnesses.setdefault(url, exchange_of(url))
            exchange.names[index] = witness.name

    async def aclose(self) -> None:
        """Close the connections. No round may be under way."""
        await self._http.aclose()

    async def cosign(self, note: str, proofs: ConsistencyProofs, *, limit_s: float = ROUND_S) -> Round:
        """Ask every witness to cosign a checkpoint, and return what came of it.

        It returns when all witnesses have answered, or after `limit_s`. No failure of a witness is an exception. A
        witness that failed is left out for some time.

        Args:
            note: The checkpoint, signed by this log. Cosignatures that it has already are kept unless there are newer
                ones.
            proofs: Where the proofs between two sizes of this log come from.
            limit_s: How long the round may take.

        Raises:
            VerificationError: The policy does not have the key with which the log has signed, or a line fails.
        """
        cosigning = Cosigning.begin(self._trust, note.encode(), now=int(self._clock()))
        deadline = asyncio.get_running_loop().time() + limit_s

        async def ask(witness: WitnessExchange) -> tuple[Outcome, list[Cosignature]]:
            begun_s = time.perf_counter()
            outcome, found = await witness.cosign(cosigning, proofs, deadline)
            self._count(outcome, time.perf_counter() - begun_s)
            return outcome, found

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(witness)) for witness in self._witnesses.values()]
        results = [task.result() for task in tasks]
        outcomes = [outcome for outcome, _ in results]
        for outcome in outcomes:
            self._report(outcome)
        missing = [Outcome("", (name,), OutcomeKind.NO_URL, "the policy has no URL") for name in self._without_url]
        cosigned = cosigning.note([cosignature for _, found in results for cosignature in found])
        checkpoint = self._trust.endorse(cosigned.encode(), now=int(self._clock()))
        is_quorum_met = checkpoint.is_witnessed or not self._trust.has_quorum
        return Round(cosigned, checkpoint, is_quorum_met, (*outcomes, *missing))

    async def newest(self, origin: str, *, limit_s: float = ROUND_S) -> tuple[Sighting, ...]:
        """Ask every witness for the newest checkpoint of a log, as before the first signature after a start.

        Each checkpoint that is found was signed by the log. One that is larger than the log, or has another root than
        the log has at its size, means that the log has lost entries. It may lag behind what the witness has cosigned,
        and an answer that there is none may come from a witness that serves no checkpoints: it proves nothing.

        Args:
            origin: The name of the log.
            limit_s: How long this may take.

        Returns:
            How asking each witness with a URL ended, in the order of the policy.
        """
        deadline = asyncio.get_running_loop().time() + limit_s
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(witness.newest(origin, deadline)) for witness in self._witnesses.values()]
        return tuple(task.result() for task in tasks)

    def others(self, sightings: Sequence[Sighting]) -> Sequence[str]:
        """Return the names of all witnesses that have shown nothing, in the order of the policy."""
        shown = {name for sighting in sightings for name in sighting.names}
        return [name for name in self._names if name not in shown]

    def may_publish(self, names: Sequence[str]) -> bool:
        """Return whether a checkpoint may be published that only these witnesses have cosigned. No names: no."""
        return bool(names) and self._trust.is_quorum(names)

    def ask_again(self) -> None:
        """Ask every witness in the next round, also those that failed, as after a change of the configuration."""
        for witness in self._witnesses.values():
            witness.back_off.reset()

    def _count(self, outcome: Outcome, took_s: float) -> None:
        name = outcome.names[0]
        self.outcomes[name, outcome.kind.value] += 1
        if outcome.kind is not OutcomeKind.WAITING:
            self.times.setdefault(name, Durations()).add(took_s)

    def _report(self, outcome: Outcome) -> None:
        """Log an outcome if it is another than in the last round in which the witness was asked."""
        if outcome.kind is OutcomeKind.WAITING or self._last.get(outcome.url, OutcomeKind.COSIGNED) is outcome.kind:
            return
        self._last[outcome.url] = outcome.kind
        if outcome.kind is OutcomeKind.COSIGNED:
            _log.info(Line("witness cosigns again", witness=outcome.url))
            return
        line = Line("witness has not cosigned", witness=outcome.url, outcome=outcome.kind, reason=outcome.detail)
        _log.log(logging.ERROR if outcome.kind in _URGENT else logging.WARNING, line)


def _usable(url: str) -> str:
    """Return a URL of a witness without a slash at its end."""
    try:
        require_url(url)
    except ValueError as exc:
        raise PolicyError(f"a witness cannot be asked: {exc}") from exc
    return url.rstrip("/")
