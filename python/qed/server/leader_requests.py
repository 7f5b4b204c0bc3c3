"""Requests that only a leader can carry out: admission, removal, transfer of leadership, recording acts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from qed._limits import U64_LIMIT
from qed._qed import ClusterChange, MemberInfo
from qed.errors import ClusterError, MembershipRefused, NotLeader, Unavailable
from qed.server.acts import KeyRevoked, decode, encode
from qed.server.config import Address, SettingsError, require_node_id
from qed.server.deeds import deed_of
from qed.server.frames import TransportError
from qed.server.handshake import REPLY_TIMEOUT_S, LeaderRequest, Mismatch, Removed, Reply, Stranger
from qed.server.logs import Line
from qed.server.members import NO_LEADER
from qed.server.passed_on import CallerRefused, signed
from qed.server.waiting import READ, TASK, delays
from qed.server.ways import Ways

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from qed._qed import Replica
    from qed.server.admissions import Admissions
    from qed.server.api_keys import ApiKey
    from qed.server.config import Settings
    from qed.server.members import Members
    from qed.server.revocation import Revocation
    from qed.server.transport import Transport
    from qed.server.waiting import Waiting

__all__ = ["LeaderRequests"]

_log = logging.getLogger(__name__)

_RETRY_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
"""How long to wait before asking for admission again."""
_REFUSALS_ELECTIONS: Final = 8
"""Election time-outs for which a member that was refused admission keeps asking."""
_HAND_OVER_TRIES: Final = 3
"""Members asked to lead before this one stops without a successor: one that just died may still look alive."""
_HAND_OVER_HEARTBEATS: Final = 2
"""Heartbeats within which a member that is asked to lead becomes leader."""
_PASSED_ON_TIMES: Final = 2
"""How many leaders a request is passed on to, one after the other: the first may just have handed over."""
_PASSED_ON_AT_ONCE: Final = 2
"""The leader serves four questions of a member at once; the rest is for what members ask for themselves."""
_SUCCESSOR_ELECTIONS: Final = 2
"""Election time-outs within which a leader that steps down has a successor."""


class LeaderRequests:
    """Carries requests out if this member is the leader, and passes them on to the leader otherwise."""

    def __init__(  # noqa: PLR0913  # what it carries requests out with
        self,
        settings: Settings,
        replica: Replica,
        waiting: Waiting,
        members: Members,
        *,
        transport: Transport,
        admissions: Admissions,
        revocation: Revocation,
    ) -> None:
        self._settings = settings
        self._replica = replica
        self._waiting = waiting
        self._members = members
        self._transport = transport
        self._admissions = admissions
        self._revocation = revocation
        self._turns = asyncio.Semaphore(_PASSED_ON_AT_ONCE)
        self.retire: Callable[[LeaderRequest], Awaitable[None]] | None = None
        """Retires a key of the log; None if this member does not sign."""
        self.require_growable: Callable[[], Awaitable[None]] | None = None
        """Checks that the log continues all that it has signed; None if this member does not sign."""

    async def ask_leader(self, request: LeaderRequest, key: ApiKey | None = None) -> None:
        """Carry a request out as the leader, or pass it on to the leader.

        Args:
            request: The request.
            key: The API key of the caller, if it has one. It signs what is passed on.

        Raises:
            MembershipRefused: The membership does not allow it.
            CallerRefused: The leader does not accept the caller.
            ClusterError: It could not be done now.
        """
        try:
            await self.carry_out(request)
        except NotLeader:
            await self._pass_on(request, key)

    async def _pass_on(self, request: LeaderRequest, key: ApiKey | None) -> None:
        members = self._members
        if request.kind == "remove" and request.name == self._settings.node_id:
            # A leader that is asked to remove itself hands over first: its successor removes it.
            await self._await_successor(members.number)
        for _ in range(_PASSED_ON_TIMES):
            async with self._turn():
                asked = members.status.leader
                reply = None if members.is_leader else await self._ask_signed(request, key)
            if reply is None:
                # The leader that was asked before has handed over to this member.
                with contextlib.suppress(NotLeader):
                    await self.carry_out(request)
                    return
            elif reply.error == "caller" and request.who:
                raise CallerRefused(reply.message)
            elif reply.error != "elsewhere":
                _accepted(reply)
                return
            # It led, and did nothing: the signature is for it alone.
            await self._await_successor(asked)
        raise Unavailable("leadership is changing; try again")

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait until fewer requests than the leader serves at once are on their way to it.

        Raises:
            Unavailable: It took too long. Nothing was sent.
        """
        try:
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                await self._turns.acquire()
        except TimeoutError as exc:
            raise Unavailable("too many requests wait for the leader; try again") from exc
        try:
            yield
        finally:
            self._turns.release()

    async def _ask_signed(self, request: LeaderRequest, key: ApiKey | None) -> Reply:
        """Send a request to the leader, with the signature of its caller.

        Raises:
            Unavailable: There is no leader, or it does not answer.
        """
        members = self._members
        leader, number = members.leader, members.status.leader
        if leader is None or number is None:
            raise Unavailable(NO_LEADER)
        try:
            whole = signed(request, key, members.cluster or "", number)
            return await self._transport.ask(Address.parse(leader.raft_addr), leader.key, whole)
        except TransportError as exc:
            raise Unavailable(str(exc)) from exc

    async def _await_successor(self, leader: int | None) -> None:
        members = self._members
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SUCCESSOR_ELECTIONS * self._settings.pace.election_ms / 1000):
                await members.wait_until(lambda: members.status.leader not in {None, leader})

    async def catch_up(self) -> None:
        """Return once this member has applied everything that was acknowledged when this was called.

        Raises:
            NotLeader: No leader confirmed it.
            Unavailable: No leader confirmed it in time, or a write or sync has failed.
        """
        ticket, future = self._waiting.enter(READ)
        self._replica.read(ticket)
        await future

    async def carry_out(self, request: LeaderRequest) -> None:
        """Carry a request out as the leader.

        Raises:
            MembershipRefused: The membership does not allow it.
            NotLeader: This member does not lead. Nothing was done.
            ClusterError: It could not be done now.
        """
        if request.kind in {"admit", "redeem"}:
            # A leader that was just elected may not have applied yet what another one recorded: a removal, or a token.
            await self.catch_up()
        if request.kind == "redeem":
            await self._admissions.redeem(request, self.record)
        elif request.kind == "record":
            await self._record_deed(request.act)
        elif request.kind == "retire":
            if self.retire is None:
                raise MembershipRefused("the leader does not sign: it was started without --origin")
            await self.retire(request)
        else:
            await self._change_members(request)

    async def _record_deed(self, act: bytes) -> None:
        deed = decode(act)
        if isinstance(deed, KeyRevoked):
            await self._revocation.revoke(deed, self.record)
        else:
            await self.record(act)

    async def _change_members(self, request: LeaderRequest) -> None:
        """Carry out, as the leader, a request about a member, or about who leads.

        Raises:
            Exception: As `carry_out`.
        """
        is_new = request.kind == "admit" and request.id not in self._members.by_number
        if is_new and self.require_growable is not None:
            # A new member knows nothing of what was signed, so it would sign whatever this one must not. This may take
            # seconds, so all other checks come after it.
            await self.require_growable()
        replaced = self._replaced_by(request)
        if request.kind == "admit":
            self._admissions.require_admissible(request)
        act = _act_of(request, self._members)
        if request.kind == "replace":
            await self._expect_replacement(request.name, act)
            return
        change = _change_of(request, act) if replaced is None else _replacement_of(replaced, request, act)
        # A cluster of one may advertise an address that others cannot reach.
        if request.kind == "admit" and request.id != self._members.number:
            _require_somewhere(request)
            self._require_reachable()
        if request.kind == "transfer" and request.who and act is not None:
            # Before it happens: the next leader may not know who asked for it. A member that stops has no author.
            await self.record(act)
        ticket, done = self._waiting.enter(TASK)
        self._replica.request(ticket, change)
        await done

    async def _expect_replacement(self, name: str, act: bytes | None) -> None:
        """Let the next server that asks for admission as `name` take the place of the member.

        Raises:
            NotLeader: This member does not lead.
            MembershipRefused: There is no such member, or it is alive.
        """
        members = self._members
        if not members.is_leader:
            raise NotLeader(NO_LEADER)
        number = members.number_of(name)
        if number is None:
            raise MembershipRefused(f"no member is called {name}")
        if members.is_alive(number):
            raise MembershipRefused(f"{name} is alive: stop its server first")
        if act is not None:
            await self.record(act)

    def _replaced_by(self, request: LeaderRequest) -> int | None:
        """Return the member whose place a server asks to take, after an operator has given that member up."""
        number = self._members.number_of(request.name)
        if request.kind != "admit" or number is None or number == request.id:
            return None
        return number if self._members.lost.may_be_replaced(request.name, number) else None

    async def record(self, act: bytes) -> None:
        """Record an act, as the leader. When this returns, it is synced on a majority, and applied here.

        Raises:
            NotLeader: This member does not lead. Nothing was recorded.
            OutcomeUnknown: Leadership was lost. The act may still be recorded.
            ClusterError: It could not be recorded now.
        """
        ticket, recorded = self._waiting.enter(TASK)
        self._replica.act(ticket, act)
        await recorded

    def _require_reachable(self) -> None:
        # A cluster of one may listen on all interfaces, but a joining member needs an address of the first one.
        try:
            self._settings.require_reachable()
        except SettingsError as exc:
            raise MembershipRefused(f"restart {self._settings.node_id} with other options first: {exc}") from exc

    async def _send(self, address: Address, expected: bytes | None, request: LeaderRequest) -> Reply:
        """Send a request to the member at `address`, whose key is the expected one if it is known.

        Raises:
            TransportError: No member there accepts it.
            MembershipRefused: The membership does not allow it.
            Unavailable: It could not be done now.
        """
        return _accepted(await self._transport.ask(address, expected, request))

    async def _send_admission(
        self, address: Address, member: int | None, request: LeaderRequest
    ) -> tuple[Reply, int | None]:
        """Ask whoever is at `address`, or the member that should be there, for admission, then the leader it names.

        Returns:
            The reply, and the number of the member that has sent it; None if that one is not known.

        Raises:
            Exception: As `_send`.
        """
        others = self._members.others()
        reply = await self._transport.ask(address, None if member is None else others[member].key, request)
        if reply.error != "elsewhere":
            return _accepted(reply), member
        try:
            leader = Address.parse(reply.leader)
            number = next((number for number, other in others.items() if other.raft_addr == reply.leader), None)
            expected = None if number is None else others[number].key
            return _accepted(await self._transport.ask(leader, expected, request)), number
        except (SettingsError, Mismatch, Stranger) as exc:
            # It may be the address of a leader of before.
            raise TransportError(f"{address} says that {reply.message}: {exc}") from exc

    async def hand_over(self) -> None:
        """Make another member the leader, so that no election has to time out. Gives up after a few attempts."""
        members = self._members
        for _ in range(_HAND_OVER_TRIES):
            with contextlib.suppress(ClusterError, TimeoutError):
                async with asyncio.timeout(_HAND_OVER_HEARTBEATS * self._settings.pace.heartbeat_ms / 1000):
                    await self.carry_out(LeaderRequest("transfer"))
                    await members.wait_until(lambda: not members.is_leader)
                    return

    async def probe_joined(self) -> str | None:
        """Probe the addresses to join; return the reason if this member cannot join there, and is accepted at none.

        Strangers do not count: anyone can be at an address whose member is down, and this one is a member already.
        """
        refusals: list[TransportError] = []
        for address in self._settings.raft_join_addrs:
            try:
                await self._transport.probe(address)
            except (Mismatch, Removed) as exc:
                refusals.append(exc)
            except TransportError as exc:
                level = logging.WARNING if isinstance(exc, Stranger) else logging.DEBUG
                _log.log(level, Line("no member answered the probe", address=address, reason=exc))
            else:
                return None
        return f"{self._settings.data_dir} cannot join: {refusals[0]}" if refusals else None

    async def seek_introduction(self) -> None:
        """Ask the members that are known who the members are, until one answers that knows more than this one."""
        for number, member in self._members.others().items():
            try:
                reply = await self._send(Address.parse(member.raft_addr), member.key, LeaderRequest("introduce"))
            except (ClusterError, TransportError) as exc:
                _log.debug(Line("no introduction", by=member.name, reason=exc))
            else:
                if self._members.introduce(reply.keys, reply.applied, by=number):
                    return

    async def seek_admission(self, own: MemberInfo, level: int = logging.INFO) -> Exception | None:
        """Ask to be admitted with these addresses and this key, or for them to be recorded, until that is done.

        Args:
            own: The addresses and the key.
            level: How to log the failures of the first round.

        Returns:
            None once it is done; or the reason why it cannot be done: `Removed`, after which nothing helps, or what an
            operator has to change: `MembershipRefused`, `Mismatch` or `Stranger`.
        """
        loop = asyncio.get_running_loop()
        request = LeaderRequest(
            "admit",
            name=own.name,
            id=self._members.number,
            raft_addr=own.raft_addr,
            http_addr=own.http_addr,
            mgmt_addr=own.mgmt_addr,
            metrics_addr=own.metrics_addr,
            key=own.key or self._members.pin_of(self._members.number) or b"",
            who=own.name,
            origin=own.raft_addr,
        )
        patient_until = loop.time() + _REFUSALS_ELECTIONS * self._settings.pace.election_ms / 1000
        admitted_by, retries = None, delays(*_RETRY_S)
        first = 0
        while not self._members.is_recorded(own):
            try:
                answered_by = await self._ask_admission(request, level, first)
            except MembershipRefused as exc:
                # The previous owner of the name may have just died, and counts as alive for two more elections.
                if loop.time() > patient_until:
                    return exc
                answered_by = None
            except (Mismatch, Removed, Stranger) as exc:
                return exc
            if answered_by is not None and admitted_by is None:
                # A member that has much to catch up with is admitted again and again before it sees its admission.
                admitted_by = answered_by
                _log.info(Line("admitted", by=admitted_by))
            level = logging.DEBUG
            # Whoever said that this was done may have lied: a former member has a certificate, too.
            first += 1
            if not self._members.is_recorded(own):
                await asyncio.sleep(next(retries))
        return None

    async def _admit_self(self, request: LeaderRequest, level: int) -> None:
        """Record the new addresses or the new key of this member, which leads."""
        try:
            await self.carry_out(request)
        except MembershipRefused:
            raise
        except ClusterError as exc:
            _log.log(level, Line("not recorded yet", reason=exc))

    async def _ask_admission(self, request: LeaderRequest, level: int, first: int) -> Address | None:
        """Ask one member after another; return the address of the one that did it. A leader does it itself.

        Args:
            request: The request.
            level: How to log failures.
            first: With which address to join to begin.

        Raises:
            MembershipRefused: The membership does not allow it.
            Removed: This member was removed.
            Mismatch: A member to join belongs to another cluster.
            Stranger: This server is no member yet, and there are only strangers at all addresses to join.
        """
        if self._members.is_leader:
            await self._admit_self(request, level)
            return None
        failures: list[tuple[Address, ClusterError | TransportError]] = []
        known = [(Address.parse(member.raft_addr), number) for number, member in self._members.others().items()]
        joined = self._settings.raft_join_addrs
        first = first % len(joined) if joined else 0
        for address, number in [*((address, None) for address in joined[first:] + joined[:first]), *known]:
            if number is not None and number not in self._members.others():
                continue  # It was removed meanwhile.
            try:
                reply, by = await self._send_admission(address, number, request)
            except (ClusterError, TransportError) as exc:
                failures.append((address, exc))
                _log.log(level, Line("not admitted yet", address=address, reason=exc))
            else:
                if not self._members.by_number:
                    self._members.cluster = reply.cluster or None
                self._members.introduce(reply.keys, reply.applied, by=by)
                return address
        self._raise_final(failures)
        return None

    def _raise_final(self, failures: Sequence[tuple[Address, ClusterError | TransportError]]) -> None:
        """Raise the first failure after which a retry does not help, now that nobody has admitted this member.

        Raises:
            Exception: As `_ask_admission`.
        """
        joined = set(self._settings.raft_join_addrs)
        for address, exc in failures:
            # The address of a known member may now belong to another cluster; an address to join was given by the
            # operator, so there it is an error.
            if isinstance(exc, MembershipRefused | Removed) or (isinstance(exc, Mismatch) and address in joined):
                raise exc
        strangers = {address: exc for address, exc in failures if isinstance(exc, Stranger)}
        if joined and joined <= strangers.keys() and not self._members.cluster:
            raise next(iter(strangers.values()))


def _accepted(reply: Reply) -> Reply:
    """Return a reply that is no refusal.

    Raises:
        MembershipRefused: The membership does not allow it.
        Unavailable: It could not be done now.
    """
    if reply.error == "refused":
        raise MembershipRefused(reply.message)
    if reply.error:
        # Any code may come, even `caller` for what a member asks for itself: who answers need not be a member.
        raise Unavailable(reply.message)
    return reply


def _act_of(request: LeaderRequest, members: Members) -> bytes | None:
    """Return the act that records a request, or None if there is nothing to record.

    Raises:
        MembershipRefused: It is too long.
    """
    deed = deed_of(request, members)
    try:
        return None if deed is None else encode(deed)
    except ValueError as exc:
        raise MembershipRefused(str(exc)) from exc


def _replacement_of(replaced: int, request: LeaderRequest, act: bytes | None) -> ClusterChange:
    """Return the change that lets a server take the place of the member with this number.

    Raises:
        MembershipRefused: As `_described`.
    """
    return ClusterChange.replace(replaced, request.id, _described(request), act)


def _change_of(request: LeaderRequest, act: bytes | None) -> ClusterChange:
    """Return the request in the replica's form, checked.

    Raises:
        MembershipRefused: As `_described`.
    """
    if request.kind == "admit":
        return ClusterChange.admit(request.id, _described(request), act)
    if request.kind == "remove":
        return ClusterChange.remove(request.name, act)
    return ClusterChange.transfer(request.name or None)


def _described(request: LeaderRequest) -> MemberInfo:
    """Return the member that asks for admission.

    Raises:
        MembershipRefused: Its number, its name or an address is invalid. It must be refused here, before every member
            stores it.
    """
    addresses = _addresses(request)
    try:
        require_node_id(request.name)
        for name, address in addresses.items():
            _parsed(name, address)
    except SettingsError as exc:
        raise MembershipRefused(str(exc)) from exc
    if not 0 < request.id < U64_LIMIT:
        raise MembershipRefused(f"expected the number of a member, found {request.id}")
    return MemberInfo(name=request.name, key=request.key or None, **addresses)


def _require_somewhere(request: LeaderRequest) -> None:
    """Check that others can reach the member that asks for admission.

    Raises:
        MembershipRefused: One of its addresses means all interfaces.
    """
    try:
        for name, address in _addresses(request).items():
            if name != "metrics_addr":  # Reserved: nothing connects to it.
                _parsed(name, address).require_somewhere(name)
    except SettingsError as exc:
        raise MembershipRefused(str(exc)) from exc


def _addresses(request: LeaderRequest) -> dict[str, str]:
    return {
        "raft_addr": request.raft_addr,
        "http_addr": request.http_addr,
        "mgmt_addr": request.mgmt_addr,
        "metrics_addr": request.metrics_addr,
    }


def _parsed(name: str, address: str) -> Address | Ways:
    return Ways.parse(address) if name in {"http_addr", "mgmt_addr"} else Address.parse(address)
