"""Exchanging a token for a certificate: what those who are asked can make of it, and what they may answer."""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import struct
import threading
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from harness.process import Server
from harness.wait import LIMIT_S, wait_until
from impostors import Impostor
from intruders import frame_of, plain
from qed.server.cluster_authority import ClusterAuthority
from qed.server.cluster_secret import read_secret
from qed.server.credentials import Credentials, of_authority
from qed.server.handshake import PROTOCOL
from test_tokens import token_option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from harness.cluster import Cluster

pytestmark = pytest.mark.usefixtures("goes_on")

HELLO = frame_of({"protocol": PROTOCOL, "kind": "enrol", "cluster": "", "sender": 0, "receiver": 0, "raft_addr": ""})
ACCEPTED = frame_of({})
THEIRS = ClusterAuthority.of_secret(b"an authority of a stranger, who has its key")


@pytest.fixture
def newcomer(cluster: Cluster, tmp_path: Path) -> Iterator[Server]:
    """Yield a server with a token, which is removed once it has joined."""
    server = Server("server9", tmp_path / "log", extra=token_option(tmp_path / "token", cluster))
    yield server
    server.forget()


def authority_of(cluster: Cluster) -> ClusterAuthority:
    """Return the authority of a cluster, for those who may sign with it."""
    secret = cluster.members[0].secret
    assert secret is not None
    return ClusterAuthority.of_secret(read_secret(secret))


def read(stream: IO[bytes]) -> dict[str, Any]:
    """Return the next frame, a JSON object."""
    (length,) = struct.unpack(">I", stream.read(4))
    found = json.loads(stream.read(length))
    assert isinstance(found, dict)
    return found


def ask(member: Server, request: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask a member as a stranger; return the last answer: the authority's certificate if there is no request."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(plain(member)) as peer, peer.makefile("rb") as stream:
        peer.sendall(HELLO)
        assert read(stream) == {}
        answer = read(stream)
        if request is not None:
            peer.sendall(frame_of(request))
            answer = read(stream)
        return answer


class Certifier(Impostor):
    """Somebody who acts as a member that exchanges tokens, and keeps what it is sent."""

    def __init__(
        self, credentials: Credentials, authority: str, certify: Callable[[dict[str, Any]], dict[str, str]]
    ) -> None:
        self.requests: list[dict[str, Any]] = []
        self._authority = frame_of({"certificate": authority})
        self._certify = certify
        super().__init__(credentials.accepting, self._enrol)

    def _enrol(self, peer: ssl.SSLSocket) -> None:
        with peer.makefile("rb") as stream:
            if read(stream)["kind"] != "enrol":
                return  # A server that has its certificate asks to be admitted.
            peer.sendall(ACCEPTED + self._authority)
            if not stream.peek(1):
                return  # The new server has got what it wanted: the certificate.
            self.requests.append(read(stream))
            peer.sendall(frame_of(self._certify(self.requests[-1])))


def signing_request(key: Ed25519PrivateKey) -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody")])
    return x509.CertificateSigningRequestBuilder(subject).sign(key, None).public_bytes(Encoding.PEM).decode()


def certificate_for(authority: ClusterAuthority, request: dict[str, Any]) -> str:
    key = x509.load_pem_x509_csr(request["signing_request"].encode()).public_key()
    assert isinstance(key, Ed25519PublicKey)
    return authority.sign(key).decode()


def issuers(server: Server) -> list[bytes]:
    """Return the certificates that a server has stored behind its own."""
    _, *authorities = x509.load_pem_x509_certificates((server.folder / "member.pem").read_bytes())
    return [certificate.public_bytes(Encoding.PEM) for certificate in authorities]


def wait_joined(cluster: Cluster, server: Server) -> None:
    """Let a server join at the first member, check whom it believes, and remove it."""
    server.kill()
    server.join = (*server.join, cluster.members[0].address("raft"))
    server.start()
    with cluster.joined_by(server):
        assert issuers(server) == [authority_of(cluster).pem]


def made_up(key: Ed25519PrivateKey) -> dict[str, Any]:
    """Return the request of somebody who has no token."""
    token, proof = secrets.token_hex(8), base64.b64encode(bytes(64)).decode()
    return {"token": token, "proof": proof, "name": "server9", "member": 9, "signing_request": signing_request(key)}


def of_an_unknown_kind(pem: str) -> str:
    """Return a certificate, or a request for one, whose key is of a kind that nobody knows."""
    begin, *lines, end = pem.strip().splitlines()
    ed25519, unknown = bytes.fromhex("300506032b6570032100"), bytes.fromhex("300506032b6502032100")
    content = base64.b64decode("".join(lines))
    assert ed25519 in content
    return "\n".join([begin, base64.encodebytes(content.replace(ed25519, unknown)).decode().strip(), end, ""])


def test_a_request_for_an_unknown_kind_of_key_is_refused_like_any_other(cluster: Cluster) -> None:
    member, key = cluster.members[0], Ed25519PrivateKey.generate()
    request = made_up(key) | {"signing_request": of_an_unknown_kind(signing_request(key))}
    refused = {"error": "refused", "message": "expected a signing request of an Ed25519 key"}
    # What a stranger sends does not fill the log: neither at length nor often.
    assert "node id" in ask(member, request | {"name": "x" * 50_000})["message"]
    assert [ask(member, request) for _ in range(3)] == [refused] * 3
    assert member.stderr.count("token refused") == 1
    assert "Traceback" not in member.stderr
    assert max(map(len, member.stderr.splitlines())) < 1000


def test_stranger_who_shows_the_authority_s_certificate_beside_its_own_is_not_believed(
    cluster: Cluster, newcomer: Server, tmp_path: Path
) -> None:
    public = ask(cluster.members[0])["certificate"]
    (tmp_path / "theirs").mkdir()
    credentials = of_authority(THEIRS, tmp_path / "theirs")
    with Certifier(credentials, public + THEIRS.pem.decode(), lambda _: {"error": "unavailable"}) as stranger:
        newcomer.join = (stranger.address,)
        newcomer.start()
        wait_until(lambda: newcomer.stderr.count("no certificate yet") > 1, "two attempts")
        assert stranger.requests == []
        wait_joined(cluster, newcomer)
        assert stranger.requests == []


def test_what_a_removed_member_is_sent_lets_nobody_in(cluster: Cluster, newcomer: Server, tmp_path: Path) -> None:
    authority = authority_of(cluster)
    (tmp_path / "former").mkdir()
    credentials = of_authority(authority, tmp_path / "former")
    with Certifier(credentials, authority.pem.decode(), lambda _: {"error": "unavailable"}) as former:
        newcomer.join = (former.address,)
        newcomer.start()
        wait_until(lambda: bool(former.requests), "the request of the new server")
        newcomer.kill()
        sent = former.requests[0]
        theirs = {"signing_request": signing_request(Ed25519PrivateKey.generate())}
        for changes in ({}, theirs, theirs | {"member": 77}, theirs | {"name": "server8"}, {"member": 2**64}):
            for member in cluster.members:
                refused = {"error": "refused", "message": "this token is not valid"}
                if changes.get("member") == 2**64:
                    refused["message"] = f"expected the number of a member, found {2**64}"
                assert ask(member, sent | changes) == refused, changes
        # The token is still good for its server.
        wait_joined(cluster, newcomer)


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (lambda own, _: [own, THEIRS.pem.decode()], "expected one certificate, found 2"),
        (lambda own, _: [THEIRS.pem.decode(), own], "expected one certificate, found 2"),
        (lambda own, _: [own[:-40]], "something else than a certificate"),
        (lambda _, request: [certificate_for(THEIRS, request)], "the authority has not signed"),
        (lambda own, _: ["\ufffe", own, "garbage"], ""),
    ],
)
def test_certificate_is_stored_alone(
    cluster: Cluster,
    newcomer: Server,
    tmp_path: Path,
    texts: Callable[[str, dict[str, Any]], list[str]],
    reason: str,
) -> None:
    authority = authority_of(cluster)

    def certify(request: dict[str, Any]) -> dict[str, str]:
        return {"certificate": "".join(texts(certificate_for(authority, request), request))}

    (tmp_path / "former").mkdir()
    with Certifier(of_authority(authority, tmp_path / "former"), authority.pem.decode(), certify) as former:
        newcomer.join = (former.address,)
        newcomer.start()
        if reason:
            wait_until(lambda: reason in newcomer.stderr, "the reason")
            assert not (newcomer.folder / "member.pem").exists()
        else:
            wait_until((newcomer.folder / "member.pem").exists, "the certificate")
            content = (newcomer.folder / "member.pem").read_bytes()
            assert content.startswith(b"-----BEGIN CERTIFICATE-----\n")
            assert content.endswith(b"-----END CERTIFICATE-----\n")
            assert issuers(newcomer) == [authority.pem]


def test_a_stranger_with_an_unknown_kind_of_key_delays_nobody(
    cluster: Cluster, newcomer: Server, tmp_path: Path
) -> None:
    (tmp_path / "theirs").mkdir()
    credentials = of_authority(THEIRS, tmp_path / "theirs")
    with Certifier(credentials, of_an_unknown_kind(THEIRS.pem.decode()), lambda _: {}) as stranger:
        newcomer.join = (stranger.address, cluster.members[0].address("raft"))
        newcomer.start()
        with cluster.joined_by(newcomer):
            assert issuers(newcomer) == [authority_of(cluster).pem]


def test_made_up_tokens_keep_no_member_from_the_leader(cluster: Cluster) -> None:
    follower, key, end = cluster.follower(), Ed25519PrivateKey.generate(), threading.Event()
    answers: list[dict[str, Any]] = []
    logged = follower.stderr.count('event="token refused"')

    def keep_asking() -> None:
        while not end.is_set():
            with suppress(OSError, struct.error):
                answers.append(ask(follower, made_up(key)))

    strangers = [threading.Thread(target=keep_asking) for _ in range(8)]
    for thread in strangers:
        thread.start()
    try:
        wait_until(lambda: len(answers) >= 8, "the strangers to be heard")
        # The follower passes each of these on to the leader.
        url, wish = f"http://{follower.address('mgmt')}/cluster/token", {"ttl_s": 60, "name": None}
        made = [httpx.post(url, json=wish, timeout=LIMIT_S) for _ in range(30)]
        before = len(answers)
        wait_until(lambda: len(answers) > before, "more strangers to be heard")
    finally:
        end.set()
        for thread in strangers:
            thread.join()
    assert {answer.status_code for answer in made} == {201}, [answer.text for answer in made]
    assert {answer["message"] for answer in answers} == {"this token is not valid"}
    # Once a minute is enough for the log.
    assert follower.stderr.count('event="token refused"') - logged <= 1
    assert "peer=127.0.0.1" in follower.stderr
