"""The settings of a server: parsed once, checked once, never changed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Final, TypeVar

from qed._limits import LOG_LEVELS, MIN_RATE_PER_S
from qed.server.addresses import Address, SettingsError
from qed.server.ways import Way, Ways

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "CERTIFICATE_FILE",
    "Address",
    "Limits",
    "Pace",
    "ServerTls",
    "Settings",
    "SettingsError",
    "SigningSettings",
    "Tls",
    "require_node_id",
]


CERTIFICATE_FILE: Final = "member.pem"
"""In a data folder: the certificate that a token was exchanged for, then that of the authority that signed it."""
_NODE_ID: Final = re.compile(r"[\x21-\x7e]{1,255}")
_MIB: Final = 1024 * 1024
_HEARTBEAT_TICKS: Final = 5
"""Election time-outs are random, in ticks. With fewer ticks, two members would often start elections at once."""
_MAX_PACE_MS: Final = 60_000
_MAX_LIMIT: Final = 2**31 - 1
"""More would not limit anything, and some limits are stored as 32-bit numbers."""
_DESCRIPTORS_BESIDE: Final = 512
"""File descriptors reserved for the store, for members and for operators: client connections leave them free."""
_Number = TypeVar("_Number", int, float)


def require_node_id(text: str) -> None:
    """Check the name of a member.

    Raises:
        SettingsError: It is not 1 to 255 visible ASCII characters.
    """
    if not _NODE_ID.fullmatch(text):
        raise SettingsError(f"expected a node id of 1 to 255 visible ASCII characters, found {text!r}")


def _limit(default: _Number, what: str, *, minimum: _Number) -> _Number:
    """Return a dataclass field that carries its help text and its smallest value for the command line."""
    limit: _Number = field(default=default, metadata={"help": what, "minimum": minimum})
    return limit


def _rate(what: str) -> float | None:
    """Return a dataclass field for a rate that is not limited by default."""
    rate: float | None = field(default=None, metadata={"help": what, "minimum": MIN_RATE_PER_S})
    return rate


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much one server accepts before it refuses more. Each limit has its reason.

    Attributes:
        max_body_bytes: A whole body is in memory while it is decoded, and the server answers no other request
            meanwhile: some tenths of a second at this size, which fits the largest bulk of half-kilobyte events.
        max_buffered_bytes: Bodies that arrive in pieces wait in memory, and only the number of connections bounds how
            many there are. This bounds them together: four of the largest, then 429.
        max_unread_bytes: Answers that clients have not read, on all connections together, not counting up to 64 KiB on
            each. Beyond it, the connection whose answer has waited longest is closed.
        max_head_bytes: All parts of a request except its body: request line, headers, trailers, chunk extensions.
            Nothing this server reads in them is longer than a kilobyte.
        max_bulk_events: A bulk is one atomic batch that all later requests wait for, and its answer takes 250 bytes an
            event. This keeps the wait around a second and the answer around 25 MB.
        max_connections: Each needs a file descriptor and up to 64 KiB of unread body. Clients keep and share
            connections, so more than this is a leak or an attack.
        queue_length: Events that may wait for the disk, over all requests. All waiting events are committed together,
            so a full queue means a stalled disk, or five of the largest bulks, which take some seconds.
        batch_events: Events after which a group commit accepts no further request. The first request waits for the
            last, a third of a second at this size, and larger batches would not be faster.
        max_waiting_proofs: Proofs that may wait for a thread. They take about 50 µs each, so the last waits 0.2 s.
        max_concurrent_proofs: Threads that compute proofs. One, beside the thread that answers requests, keeps two
            cores busy.
        request_arrival_timeout_s: A request that takes longer from its first byte to its last is a stalled or hostile
            client. The largest body arrives in time at 2.2 MB/s.
        request_timeout_s: A request that has waited this long for the disk or a thread is answered 503. An insertion
            may still be committed after that.
        unread_timeout_s: A client that reads less than 64 KiB of a waiting answer for this long has stalled. The system
            buffers a few megabytes, so progress is visible only in steps of about one megabyte.
        keep_alive_timeout_s: An idle connection is closed after this. Above the minute that common proxies use, so that
            the proxy closes first and no request is sent on a closing connection.
        key_events_per_s: Events that each key, or each certificate of a client, may add in a second on this server,
            unless the key has a rate of its own. None does not limit them.
        key_requests_per_s: Likewise its requests.
        dead_after_s: A leader presumes a member dead after this. Its server may then return with an empty folder and
            its old key. A restart of the machine takes less; until then, an operator can say that the member is lost.
        shutdown_grace_s: Everything after SIGTERM together: handing over, answering what was accepted, closing the log.
            Below the 30 s after which common supervisors kill.
    """

    max_body_bytes: int = _limit(64 * _MIB, "Largest request body, in bytes.", minimum=1024)
    max_buffered_bytes: int = _limit(256 * _MIB, "All request bodies being received together, in bytes.", minimum=1024)
    max_unread_bytes: int = _limit(256 * _MIB, "All answers that clients have not read, in bytes.", minimum=1024)
    max_head_bytes: int = _limit(
        16 * 1024, "Most bytes of a request without its body: line, headers, trailers.", minimum=1024
    )
    max_bulk_events: int = _limit(100_000, "Most events of one bulk.", minimum=1)
    max_connections: int = _limit(2048, "Most connections at one time.", minimum=1)
    queue_length: int = _limit(500_000, "Most events that wait for the disk.", minimum=1)
    batch_events: int = _limit(50_000, "Events after which a group commit is closed.", minimum=1)
    max_waiting_proofs: int = _limit(4096, "Most proofs that wait for a thread.", minimum=1)
    max_concurrent_proofs: int = _limit(1, "Threads that compute proofs.", minimum=1)
    request_arrival_timeout_s: float = _limit(30.0, "Seconds for a request to arrive whole.", minimum=0.05)
    request_timeout_s: float = _limit(30.0, "Seconds for a request to be answered once it has arrived.", minimum=0.05)
    unread_timeout_s: float = _limit(10.0, "Seconds within which a client must read more of an answer.", minimum=0.05)
    keep_alive_timeout_s: int = _limit(75, "Seconds after which an idle connection is closed.", minimum=1)
    key_events_per_s: float | None = _rate("Events a second for each key without a rate of its own.")
    key_requests_per_s: float | None = _rate("Requests a second for each key without a rate of its own.")
    dead_after_s: int = _limit(
        300, "Seconds of silence after which a server may return as a new member, if it has its key.", minimum=1
    )
    shutdown_grace_s: int = _limit(20, "Seconds to finish accepted work on SIGTERM.", minimum=1)

    def __post_init__(self) -> None:
        for limit in fields(self):
            minimum, value = limit.metadata["minimum"], getattr(self, limit.name)
            if value is not None and not minimum <= value <= _MAX_LIMIT:
                raise SettingsError(f"expected {limit.name} from {minimum} to {_MAX_LIMIT}, found {value}")
        if self.max_buffered_bytes < self.max_body_bytes:
            raise SettingsError(
                f"expected max_buffered_bytes to hold one body of {self.max_body_bytes} bytes, "
                f"found {self.max_buffered_bytes}"
            )

    def connections_within(self, descriptors: int) -> int:
        """Return how many client connections a process accepts that may have `descriptors` files open.

        If clients could use all of them, the store could not open a file, and the member would stop as if its disk had
        failed.
        """
        return min(self.max_connections, max(descriptors - _DESCRIPTORS_BESIDE, descriptors // 4, 1))

    @property
    def closing_grace_s(self) -> int:
        """Seconds of the grace period reserved for insertions whose clients no longer wait."""
        return self.shutdown_grace_s // 4


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How soon members notice that the leader has failed. All members of a cluster should have the same settings.

    Attributes:
        heartbeat_ms: A leader sends heartbeats at least this often.
        election_ms: A member starts an election when it has received nothing from a leader for this long, or at most
            twice as long. Five heartbeats, so that one late or lost heartbeat does not start an election.
    """

    heartbeat_ms: int = _limit(100, "Milliseconds between the heartbeats of a leader.", minimum=10)
    election_ms: int = _limit(500, "Least milliseconds without a leader before an election.", minimum=50)

    def __post_init__(self) -> None:
        for setting in fields(self):
            minimum, value = setting.metadata["minimum"], getattr(self, setting.name)
            if not minimum <= value <= _MAX_PACE_MS:
                raise SettingsError(f"expected {setting.name} from {minimum} to {_MAX_PACE_MS}, found {value}")
        if self.election_ms < 3 * self.heartbeat_ms:
            raise SettingsError(
                f"expected election_ms to be at least three heartbeats of {self.heartbeat_ms} ms, "
                f"found {self.election_ms}"
            )

    @property
    def tick_ms(self) -> int:
        """Milliseconds between looks at the clock."""
        return self.heartbeat_ms // _HEARTBEAT_TICKS

    @property
    def heartbeat_ticks(self) -> int:
        """Ticks between heartbeats."""
        return _HEARTBEAT_TICKS

    @property
    def election_ticks(self) -> int:
        """Ticks without a leader before an election."""
        return self.election_ms // self.tick_ms


@dataclass(frozen=True, kw_only=True)
class Tls:
    """The certificate that a member presents to the others, and the CA that it trusts.

    Attributes:
        certificate: PEM file with this member's certificate, then any that lead from it to the authority. Its subject
            alternative names include the node id, and the host in `raft_advertise_addr`.
        key: PEM file with the key of the certificate.
        ca: PEM file with the certificates that may sign those of members.
    """

    certificate: Path
    key: Path
    ca: Path


@dataclass(frozen=True, kw_only=True)
class ServerTls:
    """The certificate that this server presents to clients and operators.

    Attributes:
        certificate: PEM file with the certificate, then those that lead from it to its authority.
        key: PEM file with the key of the certificate.
        client_ca: PEM file with the certificates that may sign those of clients; None if clients have only keys.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, kw_only=True)
class SigningSettings:
    """How this server signs for the log while it leads.

    Attributes:
        origin: The name of the log.
        key: File with the private keys of the log; None if something else signs.
        signer: Where a signer listens: `unix:` with the path of its socket, or a URL; None if there is none.
        submitter_key: File with the key that signs the requests to it.
        command: The command that signs, with its arguments; empty if there is none.
        public_keys: File with the public keys of the log, one a line, for a signer or a command.
        memory: File outside the data folder that remembers what was signed.
        policy: File with the keys of the log and its witnesses; None if nobody cosigns.
        trusts_new_memory: Whether to create that file for a log that has events, and so may have signed something.
    """

    origin: str
    memory: Path
    key: Path | None = None
    signer: str | None = None
    submitter_key: Path | None = None
    command: tuple[str, ...] = ()
    public_keys: Path | None = None
    policy: Path | None = None
    trusts_new_memory: bool = False

    def __post_init__(self) -> None:
        if [self.key is not None, self.signer is not None, bool(self.command)].count(True) != 1:
            raise SettingsError("expected one of --signing-key, --signer and --signer-command with --origin")
        if (self.key is None) is not (self.public_keys is not None):
            raise SettingsError("expected --public-keys with --signer or --signer-command, and only then")
        if (self.signer is None) is not (self.submitter_key is None):
            raise SettingsError("expected --signer and --submitter-key together")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of one server.

    Attributes:
        node_id: Name of this member, unique among its peers: 1 to 255 visible ASCII characters.
        http_addr: Where clients are answered.
        mgmt_addr: Where operators are answered.
        metrics_addr: Where metrics are read, if `serves_metrics`.
        serves_metrics: Whether there is such an address at all.
        raft_addr: Where the other members are answered.
        http_advertise_addr: The ways by which clients reach `http_addr`, if they cannot use it as it is.
        mgmt_advertise_addr: The ways by which operators reach `mgmt_addr`.
        metrics_advertise_addr: Where metrics are reached.
        raft_advertise_addr: Where members reach `raft_addr`.
        data_dir: The folder that holds the log.
        backup_dir: The folder for backups that the server keeps; None for `backups` in `data_dir`.
        high_water: A file outside `data_dir` that notes how far this member is; None for none.
        raft_join_addrs: Members to ask for admission to their cluster; empty to start a new one.
        is_open: Whether everyone who can connect may do everything, without a key.
        tls: The certificate for clients and operators; None for plain HTTP.
        cluster_secret_file: File with the secret that all members know.
        join_token_file: File with a token to exchange for a certificate, unless the data folder has one already.
        raft_tls: The operator's own certificates for the streams between members.
        signing: How the log is signed; None if this server does not sign.
        log_level: One of `LOG_LEVELS`.
        limits: How much the server accepts.
        pace: How soon members notice that the leader has failed.
    """

    node_id: str
    http_addr: Address
    mgmt_addr: Address
    metrics_addr: Address
    raft_addr: Address
    data_dir: Path
    backup_dir: Path | None = None
    high_water: Path | None = None
    http_advertise_addr: Ways | None = None
    mgmt_advertise_addr: Ways | None = None
    metrics_advertise_addr: Address | None = None
    serves_metrics: bool = False
    raft_advertise_addr: Address | None = None
    raft_join_addrs: tuple[Address, ...] = ()
    cluster_secret_file: Path | None = None
    join_token_file: Path | None = None
    is_open: bool = False
    tls: ServerTls | None = None
    raft_tls: Tls | None = None
    signing: SigningSettings | None = None
    log_level: str = "info"
    limits: Limits = field(default_factory=Limits)
    pace: Pace = field(default_factory=Pace)

    def __post_init__(self) -> None:
        require_node_id(self.node_id)
        if self.log_level not in LOG_LEVELS:
            raise SettingsError(f"expected a log level of {', '.join(LOG_LEVELS)}, found {self.log_level!r}")
        self._check_addresses_differ()
        self._check_advertised()
        self._check_credentials()
        self._check_signing()
        if self.raft_join_addrs:
            self.require_credentials()

    @property
    def backups_dir(self) -> Path:
        """Where the server keeps backups."""
        return self.backup_dir or self.data_dir / "backups"

    @property
    def scheme(self) -> str:
        """The scheme of URLs at the listening addresses."""
        return "http" if self.tls is None else "https"

    @property
    def http_names(self) -> tuple[str, ...]:
        """The names of the addresses where requests are answered."""
        return ("http_addr", "mgmt_addr", *(["metrics_addr"] if self.serves_metrics else []))

    @property
    def has_client_ca(self) -> bool:
        """Whether clients can authenticate themselves with certificates."""
        return self.tls is not None and self.tls.client_ca is not None

    @property
    def can_do_without_keys(self) -> bool:
        """Whether operators can call this server without an API key."""
        return self.is_open or self.has_client_ca

    def advertised(self, name: str) -> Address | Ways:
        """Return where others reach the address `name`: `http`, `mgmt`, `metrics` or `raft`."""
        advertised: Address | None = getattr(self, f"{name}_advertise_addr")
        listening: Address = getattr(self, f"{name}_addr")
        return self.ways(name) if name in {"http", "mgmt"} else advertised or listening

    def ways(self, name: str) -> Ways:
        """Return the ways by which `http` or `mgmt` is reached."""
        advertised: Ways | None = getattr(self, f"{name}_advertise_addr")
        listening: Address = getattr(self, f"{name}_addr")
        ways = advertised or Ways((Way("", listening),))
        return ways if self.tls is None else ways.secured()

    def is_beyond_loopback(self, name: str) -> bool:
        """Return whether others than this machine reach an address: by itself, or by a proxy before it.

        Args:
            name: `http`, `mgmt` or `metrics`.
        """
        if name == "metrics" and not self.serves_metrics:
            return False
        listening: Address = getattr(self, f"{name}_addr")
        advertised = self.advertised(name)
        ways = [way.address for way in advertised.all] if isinstance(advertised, Ways) else [advertised]
        return not (listening.is_loopback and all(address.is_loopback for address in ways))

    def own_hosts(self) -> set[str]:
        """Return the hosts under which clients, operators and observers reach this server."""
        listening = {address.host for address in (self.http_addr, self.mgmt_addr) if not address.is_everywhere}
        if self.metrics_advertise_addr is not None:
            listening.add(self.metrics_advertise_addr.host)
        return listening | {way.address.host for name in ("http", "mgmt") for way in self.ways(name).all}

    def unreachable(self) -> list[str]:
        """Return the names of the advertised addresses that mean all interfaces, which nobody can connect to."""
        return [name for name in ("http", "mgmt", "raft") if self.advertised(name).is_everywhere]

    def require_reachable(self) -> None:
        """Check that this member advertises addresses that others can reach.

        Raises:
            SettingsError: An address means all interfaces, and no other is advertised instead.
        """
        for name in self.unreachable():
            raise SettingsError(
                f"expected --{name}-advertise-addr, because other members cannot reach {self.advertised(name)}"
            )

    @property
    def has_credentials(self) -> bool:
        """Whether this member has something with which it can prove to others that it is a member."""
        given = self.cluster_secret_file or self.raft_tls or self.join_token_file
        return given is not None or self.has_certificate

    @property
    def reads_files_again(self) -> bool:
        """Whether there are files that SIGHUP makes this server read again."""
        return self.has_credentials or self.tls is not None

    def require_credentials(self) -> None:
        """Check that this member can prove to others that it is a member.

        Raises:
            SettingsError: It has nothing to prove it with.
        """
        if not self.has_credentials:
            raise SettingsError(
                "a member of a cluster must prove who it is: give --cluster-secret-file, the same on every member "
                "(make one with `qed cluster secret`), or --join-token-file, or --raft-tls-cert, --raft-tls-key and "
                "--raft-tls-ca"
            )

    def _check_credentials(self) -> None:
        given = {
            "--cluster-secret-file": self.cluster_secret_file,
            "--join-token-file": self.join_token_file,
            "--raft-tls-*": self.raft_tls,
        }
        found = [name for name, value in given.items() if value is not None]
        if len(found) > 1:
            raise SettingsError(f"expected one of {', '.join(given)}, found {' and '.join(found)}")
        if self.join_token_file is not None and not self.raft_join_addrs and not self.has_certificate:
            raise SettingsError(
                "expected --raft-join-addr with --join-token-file: a member that knows the cluster secret"
            )

    def _check_signing(self) -> None:
        if self.signing is not None and self.data_dir in self.signing.memory.parents:
            raise SettingsError(
                f"expected --sign-memory outside {self.data_dir}, found {self.signing.memory}: it must not be lost, "
                "copied or restored together with the log"
            )

    @property
    def has_certificate(self) -> bool:
        """Whether a token was exchanged for a certificate, which is in the data folder."""
        return (self.data_dir / CERTIFICATE_FILE).exists()

    def _check_advertised(self) -> None:
        for name in ("http", "mgmt", "metrics", "raft"):
            advertised: Address | Ways | None = getattr(self, f"{name}_advertise_addr")
            if advertised is not None:
                advertised.require_somewhere(f"{name}_advertise_addr")
        if self.raft_join_addrs:
            self.require_reachable()

    def _check_addresses_differ(self) -> None:
        taken: dict[Address, str] = {}
        for name in ("http_addr", "mgmt_addr", "metrics_addr", "raft_addr"):
            address: Address = getattr(self, name)
            if address.port and address in taken:
                raise SettingsError(f"expected {name} to differ from {taken[address]}, found {address} for both")
            taken[address] = name
        # The port tells connections of clients from those of operators and observers.
        ports: dict[int, str] = {}
        for name in self.http_names:
            port = getattr(self, name).port
            if port and port in ports:
                raise SettingsError(f"expected {ports[port]} and {name} on different ports, found {port} in both")
            ports[port] = name
