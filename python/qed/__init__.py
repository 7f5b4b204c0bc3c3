"""A tamper-evident log: prove that a record is there, that it is not, and that nothing was rewritten.

Verify without any server::

    import qed

    proof = qed.parse_answer(answer)
    qed.verify_membership(event, proof, version=None, query_snapshot=trusted, current_snapshot=trusted)

Talk to a server with `Client` or `AsyncClient`; keep a log in this process with `Log`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from qed.errors import (
    AddedLater,
    ClusterError,
    CorruptLog,
    InternalError,
    LogError,
    LogFull,
    MalformedProof,
    MalformedRequest,
    MembershipRefused,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    PageError,
    ProtocolError,
    QedError,
    StoreLocked,
    Unavailable,
    UnknownVersion,
    UnsupportedFormat,
    VerificationError,
    WriteRefused,
)
from qed.log import Log
from qed.proofs import (
    AbsenceProof,
    Digest,
    IncrementalProof,
    MembershipProof,
    Neighbour,
    Snapshot,
    parse_answer,
    verify_absence,
    verify_incremental,
    verify_membership,
)

if TYPE_CHECKING:
    from qed._client.async_client import AsyncClient
    from qed._client.client import Client

    __version__: str

__all__ = [
    "AbsenceProof",
    "AddedLater",
    "AsyncClient",
    "Client",
    "ClusterError",
    "CorruptLog",
    "Digest",
    "IncrementalProof",
    "InternalError",
    "Log",
    "LogError",
    "LogFull",
    "MalformedProof",
    "MalformedRequest",
    "MembershipProof",
    "MembershipRefused",
    "Neighbour",
    "NotLeader",
    "OutcomeUnknown",
    "Overloaded",
    "PageError",
    "ProtocolError",
    "QedError",
    "Snapshot",
    "StoreLocked",
    "Unavailable",
    "UnknownVersion",
    "UnsupportedFormat",
    "VerificationError",
    "WriteRefused",
    "__version__",
    "parse_answer",
    "verify_absence",
    "verify_incremental",
    "verify_membership",
]


def __getattr__(name: str) -> object:
    """Give what takes long when it is first used: who only verifies does not wait for an HTTP library."""
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - the point of this function

        return version("qed-log")
    modules = {"AsyncClient": "_client.async_client", "Client": "_client.client"}
    if name in modules:
        return getattr(import_module(f"qed.{modules[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
