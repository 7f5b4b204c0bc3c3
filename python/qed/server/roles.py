"""Who may do what: the roles that each call accepts."""

from __future__ import annotations

from typing import Final

from qed._limits import APPEND, OBSERVE, OPERATE, PROVE, ROLES

__all__ = ["ANYONE", "ANY_ROLE", "CALLS", "MANAGEMENT_CALLS", "OPERATORS", "call_of", "roles_for"]

ANYONE: Final[frozenset[str]] = frozenset()
"""For calls that need no role, nor a key."""
ANY_ROLE: Final = frozenset(ROLES)
"""For calls that every client needs."""
OPERATORS: Final = frozenset({OPERATE})
"""For calls that change the cluster."""
_OBSERVERS: Final = frozenset({OPERATE, OBSERVE})

CALLS: Final[dict[str, frozenset[str]]] = {
    "/": ANYONE,
    # Load balancers and supervisors ask it, and the answer says nothing but that the server runs.
    "/healthcheck": ANYONE,
    "/events": frozenset({APPEND}),
    "/events/bulk": frozenset({APPEND}),
    "/events/stream": frozenset({APPEND}),
    "/proofs/membership": frozenset({PROVE}),
    "/proofs/digest-membership": frozenset({PROVE}),
    "/proofs/membership/bulk": frozenset({PROVE}),
    "/proofs/incremental": frozenset({PROVE}),
    "/snapshots/{version}": frozenset({PROVE}),
    "/receipts/{version}": frozenset({PROVE}),
    "/snapshot": frozenset({PROVE}),
    "/count": frozenset({PROVE}),
    "/log/checkpoint": frozenset({PROVE}),
    "/log/{path:path}": frozenset({PROVE}),
    # Every client must find the leader and the other members.
    "/info": ANY_ROLE,
    "/info/shards": ANY_ROLE,
}
"""The calls of clients, by their paths. One of the roles is enough."""

MANAGEMENT_CALLS: Final[dict[str, frozenset[str]]] = {
    "/": ANYONE,
    "/healthcheck": ANYONE,
    "/cluster": _OBSERVERS,
    "/cluster/history": _OBSERVERS,
    "/cluster/token": OPERATORS,
    "/cluster/remove": OPERATORS,
    "/cluster/replace": OPERATORS,
    "/cluster/transfer": OPERATORS,
    "/backup": OPERATORS,
    "/backups": OPERATORS,
    # It has the digests of all events, and the history.
    "/backups/part": OPERATORS,
    "/signers": _OBSERVERS,
    "/signers/retire": OPERATORS,
    "/keys": OPERATORS,
    "/keys/revoke": OPERATORS,
    # At an address of its own.
    "/metrics": _OBSERVERS,
}
"""The calls of operators and observers."""

_FAMILIES: Final = ("/snapshots/{version}", "/receipts/{version}", "/log/{path:path}")


def roles_for(path: str, *, is_management: bool) -> frozenset[str]:
    """Return the roles that a call accepts: one of them is enough. `ANYONE` accepts calls without a key.

    Args:
        path: The path of the call, decoded.
        is_management: Whether it came to the management address.

    Returns:
        The roles. A path that does not exist, or is missing in the tables above, is for operators, who then learn so.
    """
    call = call_of(path, is_management=is_management)
    if is_management:
        return OPERATORS if call is None else MANAGEMENT_CALLS[call]
    return ANY_ROLE if call is None else CALLS[call]


def call_of(path: str, *, is_management: bool) -> str | None:
    """Return the call that a path is about, as in the tables above; None if there is none. Arguments as above."""
    if is_management:
        return path if path in MANAGEMENT_CALLS else None
    if path in CALLS:
        return path
    return next((family for family in _FAMILIES if path.startswith(family[: family.index("{")])), None)
