"""How a member is, as metrics: read where it is kept when somebody asks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from qed import __version__
from qed.server.families import by_label, counter, gauge, histogram
from qed.server.waiting import ADD, PROOF, READ, TASK, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qed._qed import Replica, Status
    from qed.server.config import Settings
    from qed.server.families import Family
    from qed.server.members import Members
    from qed.server.peers import Peers
    from qed.server.signing_parts import SigningParts
    from qed.server.waiting import Waiting

__all__ = ["Observation"]

_KINDS: Final[dict[str, Kind[Any]]] = {"add": ADD, "proof": PROOF, "read": READ, "task": TASK}
_MS: Final = 1000


class Observation:
    """What is measured of one member.

    Attributes:
        phases: How long each phase of its start took, in seconds.
        since_s: When the present phase has begun, by the clock for intervals.
    """

    def __init__(
        self,
        settings: Settings,
        replica: Replica,
        members: Members,
        *,
        waiting: Waiting,
        peers: Peers,
        signing: SigningParts | None,
    ) -> None:
        self._settings = settings
        self._replica = replica
        self._members = members
        self._waiting = waiting
        self._peers = peers
        self._signing = signing
        self.phases: dict[str, float] = {}
        self.since_s = time.perf_counter()

    def end_phase(self, phase: str) -> None:
        """Note that a phase of the start has ended; the next one begins."""
        moment_s = time.perf_counter()
        self.phases[phase] = moment_s - self.since_s
        self.since_s = moment_s

    def families(self, *, is_well: bool, is_settled: bool) -> Iterator[Family]:
        """Yield all metrics.

        Args:
            is_well: Whether this member accepts requests.
            is_settled: Whether it votes, and has caught up since it started.
        """
        yield gauge("build_info", "Always 1; the label is the version.", (1, __version__), labels=("version",))
        yield gauge("healthy", "1 while this member answers; 0 once its disk or its log has failed.", (is_well,))
        yield gauge("settled", "1 once this member votes, and has caught up since it started.", (is_settled,))
        yield gauge("events", "Events in the log of this member.", (len(self._replica),))
        yield gauge(
            "start_phase_seconds",
            "How long each phase of the start took.",
            *((took_s, phase) for phase, took_s in self.phases.items()),
            labels=("phase",),
        )
        # Status and counters are read together: each call waits for a lock.
        yield from self._of_raft(self._replica.status())
        yield from self._of_replica()
        yield from self._of_peers()
        yield from self._of_trust()

    def _of_raft(self, status: Status) -> Iterator[Family]:
        yield gauge("raft_term", "The term of this member.", (status.term,))
        yield gauge("raft_is_leader", "1 on the leader.", (status.is_leader,))
        yield gauge("raft_has_leader", "1 if this member knows a leader.", (status.leader is not None,))
        yield gauge("raft_members", "Members of the cluster.", (len(status.members),))
        yield gauge("raft_voters", "Members of the cluster that vote.", (len(status.voters),))
        yield gauge("raft_commit_index", "The last entry that is known to be committed.", (status.commit_index,))
        yield gauge("raft_applied_index", "The last entry that is applied here.", (status.applied_index,))
        names = {number: member.name for number, member in status.members}
        others = [one for one in status.followers if one.number != status.id and one.number in names]
        yield gauge(
            "raft_member_lag_entries",
            "On the leader: how many committed entries each other member is not known to have.",
            *((max(0, status.commit_index - one.matched), names[one.number]) for one in others),
            labels=("member",),
        )
        yield gauge(
            "raft_member_last_contact_seconds",
            "On the leader: how long ago each other member sent its last message.",
            *(
                (one.silence * self._settings.pace.tick_ms / _MS, names[one.number])
                for one in others
                if one.silence is not None
            ),
            labels=("member",),
        )

    def _of_replica(self) -> Iterator[Family]:
        found = self._replica.metrics()
        changes = found.leader_changes
        yield counter("raft_leader_changes", "How often this member has learned of another leader.", (changes,))
        yield counter(
            "raft_dropped_messages", "Messages from other members that came too fast.", (found.dropped_messages,)
        )
        yield histogram(
            "entry_step_seconds",
            "How long each step of an entry took.",
            ((times, step) for step, times in found.steps),
            labels=("step",),
        )
        yield histogram("entry_events", "Events of the entries that were proposed here.", [(found.entry_events,)])
        yield histogram(
            "query_seconds",
            "How long each answer took, by what it is about, without its wait.",
            ((times, kind) for kind, times in found.queries),
            labels=("kind",),
        )
        yield gauge(
            "tree_bytes",
            "Memory that the keys and hashes of each tree take.",
            *((float(count), tree) for tree, count in found.tree_bytes),
            labels=("tree",),
        )
        yield gauge("image_events", "Events whose trees are in the newest image.", (found.image_events,))
        yield counter("image_failures", "Images of the trees that could not be written.", (found.failed_images,))
        yield gauge("queue_events", "Events that wait to be proposed.", (found.waiting_events,))
        limits = self._settings.limits
        yield gauge("queue_events_limit", "With that many, no more are accepted.", (limits.queue_length,))
        yield gauge(
            "waiting_requests",
            "Requests that wait for the log, by kind.",
            *((self._waiting.count(kind), name) for name, kind in _KINDS.items()),
            labels=("kind",),
        )
        yield gauge(
            "waiting_proofs_limit", "With that many proofs, no more are accepted.", (limits.max_waiting_proofs,)
        )

    def _of_peers(self) -> Iterator[Family]:
        transport = self._peers.transport
        yield counter(
            "raft_sent_bytes",
            "Bytes of messages to each other member.",
            *((count, name) for name, count in transport.sent_bytes().items()),
            labels=("member",),
        )
        yield counter(
            "raft_refused_messages",
            "Messages that no sound member sends, by member.",
            *by_label(self._peers.refused_messages),
            labels=("member",),
        )
        yield counter(
            "raft_refused_streams",
            "Streams to this member that were refused, by reason.",
            *by_label(transport.refused_streams),
            labels=("reason",),
        )

    def _of_trust(self) -> Iterator[Family]:
        checkpoint, taken_at = self._peers.published.checkpoint, self._peers.published.taken_at
        if checkpoint is not None:
            yield gauge("checkpoint_size", "Entries of the newest published checkpoint.", (checkpoint.size,))
            confirmed_at = taken_at if checkpoint.confirmed_at is None else checkpoint.confirmed_at
            yield gauge(
                "checkpoint_age_seconds",
                "Time since its witnesses confirmed it; without witnesses, since this member has it.",
                (max(0.0, time.time() - confirmed_at),),
            )
        if self._signing is None:
            return
        guard = self._signing.guard
        is_halted = guard.halted is not None
        yield gauge("sign_halted", "1 once this member signs nothing any more (sign-halted).", (is_halted,))
        yield counter(
            "signatures",
            "Checkpoints that this member has signed, by purpose.",
            *by_label(self._signing.signing.signed),
            labels=("for",),
        )
        witnessing = self._signing.witnessing
        if witnessing is None:
            return
        yield histogram(
            "witness_round_seconds",
            "How long each witness took to answer.",
            ((times, name) for name, times in witnessing.times.items()),
            labels=("witness",),
        )
        yield counter(
            "witness_requests",
            "How asking each witness ended.",
            *((count, name, kind) for (name, kind), count in witnessing.outcomes.items()),
            labels=("witness", "outcome"),
        )
