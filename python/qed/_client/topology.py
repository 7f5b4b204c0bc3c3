"""The known servers: the given endpoints, the members that they list, the leader, and servers that do not answer."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

import idna

from qed._hosts import is_everywhere

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from qed._wire import Shards

__all__ = ["MEMBERS_MOST", "READS", "Read", "Topology", "Trust", "is_base_url", "member_url", "path_of", "scheme_of"]

Read: TypeAlias = Literal["primary", "primary-preferred", "secondary", "secondary-preferred", "any"]
"""Which members a read may go to: the leader (primary), the others (secondary), or one of them first."""
READS: Final[tuple[Read, ...]] = get_args(Read)

DOWN_S: Final = 5.0
"""How long an endpoint that did not answer is asked last. Longer than an election, shorter than a user's patience."""
FRESH_S: Final = 10.0
"""How long a list of members is believed if nothing contradicts it."""
EVENTS_ONLY_S: Final = 60.0
"""How long a server is believed to accept no digests. It may be upgraded, but that need not be noticed at once."""
MEMBERS_MOST: Final = 32
"""How many members of a list are used. More than any cluster has; an endless list would prolong a call endlessly."""

_SCHEMES: Final = frozenset({"http", "https"})


@dataclass(frozen=True, slots=True)
class Trust:
    """What a client may send to members that it was not given, but that other servers have named.

    Whoever answers at a given endpoint, or on the way to it, can name any host: without TLS, nothing shows that it is a
    member. So keys and events go to given endpoints only, unless the named host proves itself by a certificate.

    Attributes:
        has_key: Whether every request carries a key.
        is_verified: Whether certificates are checked.
        has_members: Whether the caller trusts the members that servers name.
    """

    has_key: bool = False
    is_verified: bool = True
    has_members: bool = False


_NO_SECRETS: Final = Trust()


class Topology:
    """One client's knowledge of its cluster. All servers are named by their base URLs.

    A member may have two: the one that was given, and the one that it advertises. A given URL is matched to its member
    once it has listed the members, or has accepted an insertion as the leader that others named.

    Concurrent calls share it without a lock: each attribute is replaced as a whole, or is a dict that is never
    iterated, of entries that do not depend on each other. A lost update only costs one more request.

    Attributes:
        given: The URLs that the caller gave.
        trust: What may be sent to others.
        leader: The server that accepts insertions, if known.
        has_answered: Whether any server ever answered.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        given: tuple[str, ...],
        clock: Callable[[], float] = time.monotonic,
        first_turn: int = 0,
        trust: Trust = _NO_SECRETS,
    ) -> None:
        self.given = given
        self.trust = trust
        self.clock = clock
        self.leader: str | None = None
        self.has_answered = False
        self._leader_name: str | None = None
        self._advertised: Mapping[str, str] = {}
        self._names: Mapping[str, str] = {}
        self._down_since: dict[str, float] = {}
        self._events_only_since: dict[str, float] = {}
        self._is_learnt = False
        # The first call is sent at once: a program that makes only one does not need the list of members.
        self._due_at = float("inf")
        self._turns = itertools.count(first_turn)

    @staticmethod
    def parse(
        endpoints: str | Sequence[str],
        clock: Callable[[], float] = time.monotonic,
        first_turn: int = 0,
        trust: Trust = _NO_SECRETS,
    ) -> Topology:
        """Return a topology that knows only the caller's endpoints.

        Args:
            endpoints: One base URL or several, such as `http://127.0.0.1:8800`.
            clock: Returns the time in seconds.
            first_turn: Where to start among equally good members.
            trust: What may be sent to members that are not given.

        Returns:
            The topology, with no server known to be down.

        Raises:
            ValueError: No URL is given, or one is not a plain http or https URL.
        """
        urls = (endpoints,) if isinstance(endpoints, str) else tuple(endpoints)
        if not urls:
            raise ValueError("expected at least one endpoint, found none")
        if not all(is_base_url(url) for url in urls):
            raise ValueError("expected endpoints like http://host:port, without user, query or fragment")
        return Topology(tuple(dict.fromkeys(url.rstrip("/") for url in urls)), clock, first_turn, trust)

    # Queries.

    def is_due(self) -> bool:
        """Return whether to ask for the members before a call: after the first call, and then now and again."""
        return self.clock() >= self._due_at

    def may_send(self, url: str, *, has_event: bool) -> bool:
        """Return whether a request may go to the server at `url`, given what the request carries."""
        is_guarded = self.trust.has_key or has_event
        return not is_guarded or self._is_trusted(url)

    def may_manage(self, url: str) -> bool:
        """Return whether a request may go to the management address at `url`.

        It may also be on the host of a given endpoint. That host gets the key in any case.
        """
        hosts = {urlsplit(given).hostname for given in self.given}
        return not self.trust.has_key or self._is_trusted(url) or urlsplit(url).hostname in hosts

    def _is_trusted(self, url: str) -> bool:
        is_proven = scheme_of(url) == "https" and self.trust.is_verified
        return url in self.given or is_proven or self.trust.has_members

    def lacks(self, read: Read) -> bool:
        """Return whether a read of this preference cannot be sent before a server lists the members."""
        if read == "primary":
            return self.leader is None
        return read.startswith("secondary") and not self._is_learnt

    def unnamed(self) -> tuple[str, ...]:
        """Return the given endpoints that are not matched to a member."""
        return tuple(url for url in self.given if url not in self._names)

    def everyone(self) -> tuple[str, ...]:
        """Return every server once, given ones first; those that did not answer recently come last."""
        reached = {name for url, name in self._names.items() if not self._is_down(url)}
        others = (url for name, url in self._advertised.items() if name not in reached)
        return self._awake_first(dict.fromkeys((*self.given, *others)))

    def for_insertions(self) -> tuple[str, ...]:
        """Return the servers to ask for an insertion: the leader if known, then everyone."""
        leader = () if self.leader is None else (self.leader,)
        return tuple(dict.fromkeys((*leader, *self.everyone())))

    def for_reads(self, read: Read, turn: int) -> tuple[str, ...]:
        """Return the servers to ask for a proof, best first.

        Args:
            read: The preference.
            turn: Where to start among equally good members.

        Returns:
            The servers that qualify, possibly none.
        """
        if read == "primary":
            return () if self.leader is None else (self.leader,)
        if read == "primary-preferred":
            return self.for_insertions()
        members = [url for url in self.everyone() if self._name_of(url) is not None]
        if read == "any":
            return self._in_turn(members or self.everyone(), turn, self.everyone())
        others = [url for url in members if not self._leads(url)]
        return self._in_turn(others, turn, self.everyone() if read == "secondary-preferred" else ())

    def may_accept_digests(self) -> bool:
        """Return whether the first server to ask for an insertion may accept digests, as far as is known."""
        since = self._events_only_since.get(self.for_insertions()[0])
        return since is None or self.clock() - since >= EVENTS_ONLY_S

    def next_turn(self) -> int:
        """Return a number one above the last."""
        return next(self._turns)

    # Updates.

    def learn(self, url: str, shards: Shards) -> None:
        """Note the members that the server at `url` lists, and their leader.

        Addresses with another scheme than `url` are ignored: from https to http, events and the api key would be sent
        unencrypted.
        """
        if url in self.given:
            self._names = {**self._names, url: shards.node_id}
        if shards.uri_scheme == scheme_of(url):
            listed = itertools.islice(sorted(shards.shards.items()), MEMBERS_MOST)
            found = ((name, member_url(url, shard.http_addr)) for name, shard in listed)
            self._advertised = {
                name: base for name, base in found if base is not None and self.may_send(base, has_event=False)
            }
        self._leader_name = shards.leader_id or None
        self.leader = self._url_of(shards.leader_id)
        self._is_learnt = True
        self._due_at = self.clock() + FRESH_S

    def note_unlearnt(self) -> None:
        """Note that no server lists the members, so that not every call asks for them."""
        self._due_at = self.clock() + FRESH_S

    def note_answer(self, url: str) -> None:
        """Note that the server at `url` answers."""
        self.has_answered = True
        self._down_since.pop(url, None)
        self._due_at = min(self._due_at, self.clock() + (FRESH_S if self._is_learnt else 0.0))

    def note_leader(self, url: str) -> None:
        """Note that the server at `url` accepts insertions, or that another server says so."""
        name = self._name_of(url)
        if name is None and url in self.given and self._leader_name is not None:
            # A server named a leader at an address that did not work; this is that leader's working address.
            name = self._leader_name
            self._names = {**self._names, url: name}
        self.leader = url if name is None else self._url_of(name)
        if name is None or name != self._leader_name:
            self._is_learnt = False
        self._leader_name = name

    def note_no_digests(self, url: str) -> None:
        """Note that the server at `url` accepts events only."""
        self._events_only_since[url] = self.clock()

    def note_down(self, url: str) -> None:
        """Note that the server at `url` does not serve."""
        self._down_since[url] = self.clock()
        if self.has_answered:
            self._due_at = self.clock()
        if self._leads(url):
            self.leader, self._leader_name, self._is_learnt = None, None, False

    # Names and addresses.

    def _is_down(self, url: str) -> bool:
        since = self._down_since.get(url)
        return since is not None and self.clock() - since < DOWN_S

    def _awake_first(self, urls: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted(urls, key=self._is_down))

    def _in_turn(self, urls: Sequence[str], turn: int, rest: Sequence[str]) -> tuple[str, ...]:
        """Return `urls`, starting with another one each turn, followed by the other URLs of `rest`."""
        first = turn % len(urls) if urls else 0
        return tuple(dict.fromkeys((*self._awake_first((*urls[first:], *urls[:first])), *rest)))

    def _name_of(self, url: str) -> str | None:
        found = self._names.get(url)
        return found or next((name for name, advertised in self._advertised.items() if advertised == url), None)

    def _url_of(self, name: str) -> str | None:
        """Return the URL of the member called `name`: preferably the caller's own, if it is known and works."""
        given = [url for url in self.given if self._names.get(url) == name]
        advertised = self._advertised.get(name)
        return next(iter(self._awake_first([*given, *([] if advertised is None else [advertised])])), None)

    def _leads(self, url: str) -> bool:
        name = self._name_of(url)
        return url == self.leader or (name is not None and name == self._leader_name)


def scheme_of(url: str) -> str:
    """Return `http` or `https`."""
    return urlsplit(url).scheme


def path_of(url: str) -> str:
    """Return the path of a base URL, or an empty string."""
    return urlsplit(url).path


def member_url(base: str, address: str) -> str | None:
    """Return the base URL of a member with this advertised `address`; None unless that is a valid `host:port`.

    It has the scheme of `base`, the URL of the server that named the address. An address of all interfaces, which
    nobody can connect to, is also on the host of `base`: only a server without other members advertises one.
    """
    url = f"{scheme_of(base)}://{address}"
    if "/" in address or not is_base_url(url):
        return None
    parts = urlsplit(url)
    if not is_everywhere(parts.hostname or ""):
        return url
    host = urlsplit(base).hostname or ""
    port = "" if parts.port is None else f":{parts.port}"
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}"


def is_base_url(url: str) -> bool:
    """Return whether `url` is a plain http or https URL, without user, query or fragment, not even empty ones."""
    try:
        parts = urlsplit(url)
        # Both raise ValueError for an invalid value: the port, and a host name that could not be looked up.
        host = parts.hostname or ""
        _ = parts.port, host.encode("idna")
        if "xn--" in host:
            # httpx decodes it with this library, but only when it sends a request.
            idna.decode(host)
    except ValueError:
        return False
    # A path appended after a `?` or `#` would not be part of the path.
    is_plain = not any(mark in url for mark in "?#") and "@" not in parts.netloc
    return is_plain and url.isascii() and url.isprintable() and parts.scheme in _SCHEMES and bool(parts.hostname)
