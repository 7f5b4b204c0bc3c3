"""A tamper-evident log: prove that a record is present, that it is absent, and that nothing was rewritten.

Verify without any server::

    import qed

    receipts = qed.Receipts.load("receipts.jsonl")
    found = qed.verify(qed.Membership(b"my event"), qed.parse_answer(answer), receipts)

Talk to a server with `Client` or `AsyncClient`; keep a log in this process with `Log`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from qed._qed import __version__
from qed.bulk_verification import verify_bulk
from qed.errors import (
    AccessRefused,
    AddedLater,
    AlertUndelivered,
    BackupError,
    CertificateError,
    CheckpointFork,
    ClusterError,
    ContradictsReceipt,
    CorruptLog,
    DamagedBackup,
    DamagedFile,
    DigestsRefused,
    ForkDetected,
    Inconclusive,
    InternalError,
    KeyExposedWarning,
    LogError,
    LogFull,
    MalformedProof,
    MalformedRequest,
    MembershipRefused,
    MonitorError,
    NotLeader,
    NotTrusted,
    OutcomeUnknown,
    Overloaded,
    PageError,
    PolicyError,
    ProtocolError,
    QedError,
    ReceiptsError,
    SigningError,
    StaleAnswer,
    StoreLocked,
    StreamBroken,
    Unavailable,
    UnknownVersion,
    UnsupportedFormat,
    VerificationError,
    WitnessError,
    WriteRefused,
)
from qed.log import Log
from qed.proofs import (
    AbsenceProof,
    BulkProof,
    Digest,
    HistoryRoot,
    HyperRoot,
    IncrementalProof,
    MembershipProof,
    Neighbour,
    Snapshot,
    parse_answer,
)
from qed.questions import Answer, BulkMembership, Extension, Membership, Question
from qed.signed import Checkpoint, Shown, SignedBundle, SignedReceipt, TlogProof
from qed.trust import Linked, Trusted, TrustedBy, TrustedRoots, TrustedSnapshots
from qed.verification import Absent, Extends, Finding, Present, verify

if TYPE_CHECKING:
    from qed._client.adding import Sent
    from qed._client.async_client import AsyncClient
    from qed._client.calls import Consistency
    from qed._client.client import Client
    from qed._client.examination import Examination
    from qed._client.topology import Read
    from qed._wire import (
        Cluster,
        ClusterMember,
        CreatedKey,
        Info,
        JoinToken,
        KeptBackup,
        KeyRow,
        Keys,
        ReceiptLevel,
        Shard,
        Shards,
        SignerRow,
        Signers,
    )
    from qed.acknowledgement import Acknowledgement
    from qed.backups import Backup
    from qed.bundle import Bundle
    from qed.evidence import Evidence
    from qed.history import Act
    from qed.memory import Memory
    from qed.monitoring.monitor import Monitor
    from qed.policy import Level, Policy, Verified
    from qed.receipts import Receipts

__all__ = [
    "AbsenceProof",
    "Absent",
    "AccessRefused",
    "Acknowledgement",
    "Act",
    "AddedLater",
    "AlertUndelivered",
    "Answer",
    "AsyncClient",
    "Backup",
    "BackupError",
    "BulkMembership",
    "BulkProof",
    "Bundle",
    "CertificateError",
    "Checkpoint",
    "CheckpointFork",
    "Client",
    "Cluster",
    "ClusterError",
    "ClusterMember",
    "Consistency",
    "ContradictsReceipt",
    "CorruptLog",
    "CreatedKey",
    "DamagedBackup",
    "DamagedFile",
    "Digest",
    "DigestsRefused",
    "Evidence",
    "Examination",
    "Extends",
    "Extension",
    "Finding",
    "ForkDetected",
    "HistoryRoot",
    "HyperRoot",
    "Inconclusive",
    "IncrementalProof",
    "Info",
    "InternalError",
    "JoinToken",
    "KeptBackup",
    "KeyExposedWarning",
    "KeyRow",
    "Keys",
    "Level",
    "Linked",
    "Log",
    "LogError",
    "LogFull",
    "MalformedProof",
    "MalformedRequest",
    "Membership",
    "MembershipProof",
    "MembershipRefused",
    "Memory",
    "Monitor",
    "MonitorError",
    "Neighbour",
    "NotLeader",
    "NotTrusted",
    "OutcomeUnknown",
    "Overloaded",
    "PageError",
    "Policy",
    "PolicyError",
    "Present",
    "ProtocolError",
    "QedError",
    "Question",
    "Read",
    "ReceiptLevel",
    "Receipts",
    "ReceiptsError",
    "Sent",
    "Shard",
    "Shards",
    "Shown",
    "SignedBundle",
    "SignedReceipt",
    "SignerRow",
    "Signers",
    "SigningError",
    "Snapshot",
    "StaleAnswer",
    "StoreLocked",
    "StreamBroken",
    "TlogProof",
    "Trusted",
    "TrustedBy",
    "TrustedRoots",
    "TrustedSnapshots",
    "Unavailable",
    "UnknownVersion",
    "UnsupportedFormat",
    "VerificationError",
    "Verified",
    "WitnessError",
    "WriteRefused",
    "__version__",
    "parse_answer",
    "verify",
    "verify_bulk",
]


def __getattr__(name: str) -> object:
    """Import a name when it is first used: a program that only verifies does not wait for an HTTP library."""
    modules = {
        "Acknowledgement": "acknowledgement",
        "Act": "history",
        "AsyncClient": "_client.async_client",
        "Backup": "backups",
        "Bundle": "bundle",
        "Client": "_client.client",
        "Cluster": "_wire",
        "ClusterMember": "_wire",
        "CreatedKey": "_wire",
        "KeyRow": "_wire",
        "Keys": "_wire",
        "Consistency": "_client.calls",
        "Evidence": "evidence",
        "Examination": "_client.examination",
        "Info": "_wire",
        "JoinToken": "_wire",
        "KeptBackup": "_wire",
        "Level": "policy",
        "Memory": "memory",
        "Monitor": "monitoring.monitor",
        "Policy": "policy",
        "Read": "_client.topology",
        "ReceiptLevel": "_wire",
        "Receipts": "receipts",
        "Sent": "_client.adding",
        "Shard": "_wire",
        "Shards": "_wire",
        "SignerRow": "_wire",
        "Signers": "_wire",
        "Verified": "policy",
    }
    if name in modules:
        return getattr(import_module(f"qed.{modules[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
