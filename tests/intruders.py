"""Somebody at the port for members, with a key and a certificate of their own or of a member."""

from __future__ import annotations

import json
import socket
import ssl
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from harness.wait import LIMIT_S
from qed.server.cluster_authority import ClusterAuthority
from qed.server.cluster_secret import read_secret
from qed.server.credentials import Credentials, of_authority
from qed.server.handshake import PROTOCOL

if TYPE_CHECKING:
    from pathlib import Path

    from harness.process import Server

KIB = 1024


def frame(payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + payload


def frame_of(value: object) -> bytes:
    return frame(json.dumps(value).encode())


def read_frame(peer: socket.socket) -> dict[str, Any]:
    """Return the next frame, a JSON object."""
    with peer.makefile("rb") as stream:
        (length,) = struct.unpack(">I", stream.read(4))
        found = json.loads(stream.read(length))
    assert isinstance(found, dict)
    return found


def assert_closed(peer: socket.socket) -> None:
    """Read until the other side ends the stream, which it must."""
    with suppress(ConnectionError, ssl.SSLError):
        while peer.recv(64 * KIB):
            pass


def plain(target: Server) -> socket.socket:
    """Connect to the port for members, without TLS."""
    return socket.create_connection(("127.0.0.1", target.ports["raft"]), timeout=LIMIT_S)


def number_of(member: Server) -> int:
    """Return a member's number, which identifies it to the others, from its folder."""
    number = json.loads((member.folder / "MEMBER").read_bytes())["id"]
    assert isinstance(number, int)
    return number


def cluster_of(member: Server) -> str:
    """Return the name of the cluster that a running member belongs to."""
    return member.view().cluster_id


class Intruder:
    """Somebody who connects to members with given credentials, under a number."""

    def __init__(self, credentials: Credentials, number: int) -> None:
        self.credentials = credentials
        self.number = number

    @classmethod
    def with_secret(cls, secret: Path, folder: Path, number: int = 77) -> Intruder:
        """Return one that knows a cluster's secret, with the member's key in `folder`, or with a new one."""
        folder.mkdir(exist_ok=True)
        return cls(of_authority(ClusterAuthority.of_secret(read_secret(secret)), folder), number)

    @classmethod
    def as_member(cls, member: Server) -> Intruder:
        """Return one that has all that a member has."""
        assert member.secret is not None
        return cls.with_secret(member.secret, member.folder, number_of(member))

    def connect(self, target: Server) -> ssl.SSLSocket:
        """Connect with TLS, and say nothing yet."""
        return self.credentials.dialling.wrap_socket(plain(target))

    def hello(self, target: Server, **changes: object) -> bytes:
        """Return the frame of the hello of a stream of messages to `target`, with changes."""
        whole = {"protocol": PROTOCOL, "kind": "messages", "sender": self.number, "raft_addr": "127.0.0.1:1", "run": 1}
        whole["receiver"] = number_of(target)
        if "cluster" not in changes:
            whole["cluster"] = cluster_of(target)
        return frame_of(whole | changes)

    def greet(self, target: Server, **changes: object) -> tuple[ssl.SSLSocket, dict[str, Any]]:
        """Say hello; return the stream and the answer."""
        peer = self.connect(target)
        peer.sendall(self.hello(target, **changes))
        return peer, read_frame(peer)

    def accepted(self, target: Server, **changes: object) -> ssl.SSLSocket:
        """Return a stream that `target` has accepted."""
        peer, answer = self.greet(target, **changes)
        assert answer == {}, answer
        return peer

    def ask(self, target: Server, wish: dict[str, object], **changes: object) -> dict[str, Any]:
        """Ask a question; return the answer to it, or to the hello if that was refused."""
        peer, answer = self.greet(target, **{"kind": "question", "receiver": 0} | changes)
        with peer:
            if answer:
                return answer
            peer.sendall(frame_of(wish))
            return read_frame(peer)

    def admission(self, name: str, **changes: object) -> dict[str, object]:
        """Return the wish to be admitted under a name."""
        wish: dict[str, object] = {"wish": "admit", "id": self.number, "name": name}
        return wish | {f"{kind}_addr": f"127.0.0.1:{port}" for port, kind in enumerate(KINDS, 1)} | changes


KINDS = ("raft", "http", "mgmt", "metrics")
