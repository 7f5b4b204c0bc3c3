"""Decides whether a request may do what it asks for: by its API key, by its certificate, or because the server is open.

Who is refused learns only that: never whether a key exists, has expired, or lacks a role that another call needs.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from qed.errors import QedError, Unavailable
from qed.server.acts import ANONYMOUS
from qed.server.browsers import ForeignHost, ForeignOrigin, Sites
from qed.server.config import SettingsError
from qed.server.logs import Line, OncePerMinute
from qed.server.rates import UNLIMITED, Allowances
from qed.server.roles import ANY_ROLE, ANYONE, OPERATORS, roles_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Scope

    from qed.server.config import Address, Settings
    from qed.server.head import Head
    from qed.server.keys import KeyTable
    from qed.server.rates import Allowance, Rates

__all__ = ["CALLER", "CERTIFICATE", "Access", "Caller", "Forbidden", "KeysNotKnown", "Unauthenticated"]

_log = logging.getLogger(__name__)

CALLER: Final = "qed.caller"
"""Where a scope has the `Caller` of a request that was admitted."""
CERTIFICATE: Final = "qed.certificate"
"""Where a scope has the `Caller` that the client's certificate names, if it has one."""


class Unauthenticated(QedError):
    """The request has no valid key, and needs one."""

    def __init__(self) -> None:
        super().__init__("expected a valid key in the header Api-Key, or Authorization: Bearer")


class Forbidden(QedError):
    """The request comes from somebody known who may not do this."""

    def __init__(self) -> None:
        super().__init__("this key does not allow this call")


class KeysNotKnown(Unavailable):
    """This member has not caught up yet: it does not know whether a key is valid, or whether the request needs one."""

    def __init__(self) -> None:
        super().__init__(
            "this member has just started, and does not know the keys of its cluster before it finds a leader"
        )


class Caller(NamedTuple):
    """Who makes a request.

    Attributes:
        name: What acts call the key or the certificate, or `ANONYMOUS`.
        roles: What the caller may do.
        ends: When a certificate expires, in seconds since 1970. Connections may last longer.
        allowance: How much of it, for now; None if that is not limited.
        presented: The text of the key, if it has one.
    """

    name: str
    roles: frozenset[str]
    ends: float = math.inf
    allowance: Allowance | None = None
    presented: bytes = b""

    @property
    def is_known(self) -> bool:
        """Whether a key or a certificate names the caller."""
        return self is not _ANYBODY


_ANYBODY: Final = Caller(ANONYMOUS, frozenset())


class Access:
    """The gate before every call.

    Attributes:
        refused: How many requests were refused since the start, by the code of the answer.
    """

    def __init__(self, settings: Settings, keys: KeyTable, is_settled: Callable[[], bool]) -> None:
        self._settings = settings
        self._keys = keys
        self._is_settled = is_settled
        self._needs_credentials = settings.has_client_ca
        self._is_beyond_loopback = {
            True: settings.is_beyond_loopback("mgmt") or settings.is_beyond_loopback("metrics"),
            False: settings.is_beyond_loopback("http"),
        }
        self._sites = Sites(settings)
        # Of keys that were recognised, by their texts.
        self._callers: dict[bytes, Caller] = {}
        self._allowances = Allowances(settings.limits)
        self._once_per_minute = OncePerMinute()
        self.refused: Counter[str] = Counter()

    def require_intended(self) -> None:
        """Check that this server is open to other machines only if the operator says so.

        A member that joins a cluster has no keys yet. It starts, and is closed until it has those of the cluster.

        Raises:
            SettingsError: An address, listened on or advertised, is beyond loopback, and no key protects it.
        """
        settings = self._settings
        if settings.is_open or self._needs_credentials or settings.raft_join_addrs:
            return
        is_managed = self._keys.has_operators
        for name, is_protected in (("http", self._keys.has_keys), ("mgmt", is_managed), ("metrics", is_managed)):
            if settings.is_beyond_loopback(name) and not is_protected:
                raise SettingsError(_unprotected(settings, name))

    def is_open(self, *, is_management: bool) -> bool:
        """Return whether calls need no key: the operator says so, or there is no key and only this machine has access.

        A key closes the calls of clients. Those of operators stay open until there is a key that can make others.
        """
        if self._settings.is_open:
            return True
        has_keys = self._keys.has_operators if is_management else self._keys.has_keys
        return not (has_keys or self._needs_credentials or self._is_beyond_loopback[is_management])

    def admit(self, scope: Scope, head: Head, *, is_management: bool) -> bool:
        """Check that a request may do what it asks for, and note its `Caller` in its scope.

        Returns:
            Whether it was admitted to more than the calls that are for everyone.

        Raises:
            Unauthenticated: It needs a valid key or certificate, and has none.
            KeysNotKnown: Another member may know its key, or a key that it would need.
            Forbidden: Its key or certificate has no role for this call.
            ForeignOrigin: A web page of another site makes it.
            ForeignHost: It is for another host than this one.
            RateExceeded: The caller has made too many requests.
        """
        try:
            self._sites.require_own(head, is_management=is_management)
        except (ForeignOrigin, ForeignHost) as exc:
            raise self._refusal(exc, "foreign", scope) from None
        accepted = roles_for(scope["path"], is_management=is_management)
        if accepted is ANYONE:
            scope[CALLER] = _ANYBODY
            return False
        caller = self._caller(scope, head.keys)
        scope[CALLER] = caller or _ANYBODY
        if caller is not None and caller.allowance is not None and not is_management:
            # Operators must be able to act, and a backup is many requests.
            caller.allowance.spend_request()
        if self._needs_no_key(accepted, is_management=is_management):
            return True
        if caller is None and not self._is_settled() and (head.keys or self.is_open(is_management=is_management)):
            raise KeysNotKnown
        if caller is None:
            raise self._refusal(Unauthenticated(), "unauthorized", scope)
        if caller.roles.isdisjoint(accepted):
            raise self._refusal(Forbidden(), "forbidden", scope)
        return True

    def require_still(self, scope: Scope) -> None:
        """Check that a request which was admitted, and goes on, would be admitted again.

        Raises:
            Unauthenticated: Its key or certificate has expired, or its key was revoked.
            Forbidden: It has no role for this call any more.
        """
        caller: Caller = scope[CALLER]
        accepted = roles_for(scope["path"], is_management=False)
        if self._needs_no_key(accepted, is_management=False):
            return
        is_valid = time.time() < caller.ends and (
            not caller.presented or self._keys.recognise(caller.presented) is not None
        )
        if not (caller.is_known and is_valid):
            raise self._refusal(Unauthenticated(), "unauthorized", scope)
        if caller.roles.isdisjoint(accepted):
            raise self._refusal(Forbidden(), "forbidden", scope)

    def _needs_no_key(self, accepted: frozenset[str], *, is_management: bool) -> bool:
        if accepted is OPERATORS and not self._is_settled():
            # This member may not have the keys of its cluster yet, and the leader relies on it to check them.
            return self._settings.is_open
        if self.is_open(is_management=is_management):
            return True
        # While operators of this machine need no key, they must be able to find the management address.
        is_local = not self._is_beyond_loopback[False]
        return is_local and accepted is ANY_ROLE and self.is_open(is_management=True)

    def _caller(self, scope: Scope, presented: list[bytes]) -> Caller | None:
        if not presented:
            certified: Caller | None = scope.get(CERTIFICATE)
            if certified is None or time.time() >= certified.ends:
                return None
            return self._allowed(certified, UNLIMITED)
        # With two, a proxy in between might have checked the other one.
        key = self._keys.recognise(presented[0]) if len(presented) == 1 else None
        if key is None:
            return None
        caller = self._callers.get(presented[0])
        if caller is None:
            caller = self._callers[presented[0]] = Caller(key.caller, key.roles, presented=presented[0])
        return self._allowed(caller, key.rates)

    def _allowed(self, caller: Caller, rates: Rates) -> Caller:
        allowance = self._allowances.of(caller.name, rates)
        return caller if allowance is None else caller._replace(allowance=allowance)

    def note_rate_exceeded(self, scope: Scope) -> None:
        """Count a request that was refused because its caller has used up a rate, and log that now and then."""
        self.refused["rate_limited"] += 1
        caller: Caller = scope[CALLER]
        if self._once_per_minute.is_due(caller.name, "rate_limited"):
            _log.warning(Line("request refused", reason="rate_limited", caller=caller.name, path=scope["path"][:100]))

    def _refusal(self, refusal: QedError, code: str, scope: Scope) -> QedError:
        self.refused[code] += 1
        host = (scope["client"] or ("unknown",))[0]
        if self._once_per_minute.is_due(host, code):
            _log.warning(Line("request refused", reason=code, host=host, path=scope["path"][:100]))
        return refusal


def _unprotected(settings: Settings, name: str) -> str:
    listening: Address = getattr(settings, f"{name}_addr")
    if not listening.is_loopback:
        what = f"--{name}-addr {listening} is"
    else:
        what = f"{settings.advertised(name)}, at which --{name}-addr is advertised, is"
    return (
        f"{what} beyond this machine, and no key protects it: make a key with `qed keys create --role operate` while "
        "the server is reached on 127.0.0.1 only, give --tls-client-ca, or say --open to let everyone in"
    )
