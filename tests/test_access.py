"""Who may do what: every call with every credential, and servers that are open, closed or refuse to start."""

from __future__ import annotations

import itertools
import json
import re
import socket
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import httpx
import pytest

from commands import one_line, qed, read_lines
from harness.cluster import new_cluster
from harness.process import run_to_exit, start_process
from harness.wait import LIMIT_S, wait_until
from plain_http import connect, read_answer
from qed._limits import ROLES
from qed.server.access import CERTIFICATE, Access, Caller, KeysNotKnown, Unauthenticated
from qed.server.acts import KeyCreated, KeyRevoked
from qed.server.api_keys import ApiKey
from qed.server.config import Address, Settings
from qed.server.head import Head
from qed.server.keys import KeyTable
from qed.server.roles import CALLS, MANAGEMENT_CALLS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import StartServer
    from harness.process import Server

APP: Final = Path(__file__).parent.parent / "python" / "qed" / "server" / "app.py"
Table: TypeAlias = "dict[tuple[str, str], set[str]]"
"""What each call accepts: roles, or no key at all."""
EVERYONE: Final[set[str]] = {"no key", *ROLES}
BY_CLIENTS: Final[Table] = {
    ("GET", "/"): EVERYONE,
    ("HEAD", "/healthcheck"): EVERYONE,
    ("POST", "/events"): {"append"},
    ("POST", "/events/bulk"): {"append"},
    ("POST", "/proofs/membership"): {"prove"},
    ("POST", "/proofs/digest-membership"): {"prove"},
    ("POST", "/proofs/membership/bulk"): {"prove"},
    ("POST", "/proofs/incremental"): {"prove"},
    ("GET", "/snapshots/0"): {"prove"},
    ("GET", "/snapshots/%30"): {"prove"},
    ("GET", "/receipts/0"): {"prove"},
    ("GET", "/snapshot?v=0"): {"prove"},
    ("GET", "/count"): {"prove"},
    ("GET", "/log/checkpoint"): {"prove"},
    ("GET", "/log/tile/0/000"): {"prove"},
    ("GET", "/log/no-such-file"): {"prove"},
    ("GET", "/info"): {"append", "prove", "operate", "observe"},
    ("GET", "/info/shards"): {"append", "prove", "operate", "observe"},
    ("GET", "/no-such-path"): {"append", "prove", "operate", "observe"},
    ("DELETE", "/events"): {"append"},
}
BY_OPERATORS: Final[Table] = {
    ("GET", "/"): EVERYONE,
    ("HEAD", "/healthcheck"): EVERYONE,
    ("GET", "/cluster"): {"operate", "observe"},
    ("GET", "/cluster/history"): {"operate", "observe"},
    ("POST", "/cluster/remove"): {"operate"},
    ("POST", "/cluster/replace"): {"operate"},
    ("POST", "/cluster/transfer"): {"operate"},
    ("POST", "/backup?since=x"): {"operate"},
    ("DELETE", "/backup?backupID=x"): {"operate"},
    ("GET", "/backups"): {"operate"},
    ("GET", "/backups/part?after=x"): {"operate"},
    ("GET", "/signers"): {"operate", "observe"},
    ("POST", "/signers/retire"): {"operate"},
    ("GET", "/keys"): {"operate"},
    ("POST", "/keys"): {"operate"},
    ("POST", "/keys/revoke"): {"operate"},
    ("POST", "/events"): {"operate"},
    ("GET", "/no-such-path"): {"operate"},
}


class Keyed:
    """A server with keys, and clients of both of its addresses."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.http = httpx.Client(base_url=server.url, timeout=LIMIT_S)
        self.mgmt = httpx.Client(base_url=f"http://{server.info().mgmt_addr}", timeout=LIMIT_S)
        self.operator = self.make("operate")

    def make(self, *roles: str, **fields: object) -> str:
        """Make a key and return its text."""
        headers = {"Api-Key": self.operator} if hasattr(self, "operator") else {}
        answer = self.mgmt.post("/keys", json={"Roles": roles, **fields}, headers=headers)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["Key"])

    def revoke(self, text: str) -> httpx.Response:
        headers = {"Api-Key": self.operator}
        return self.mgmt.post("/keys/revoke", json={"Id": text.split("_")[1]}, headers=headers)


@pytest.fixture(scope="module")
def keyed(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    found = Keyed(start_server(tmp_path_factory.mktemp("keyed") / "log"))
    yield found
    found.http.close()
    found.mgmt.close()


def expired(keyed: Keyed) -> str:
    """Return a key with every role that was valid and has expired."""
    ends = datetime.now(UTC) + timedelta(seconds=1)
    text = keyed.make(*ROLES, Expires=ends.isoformat())
    wait_until(lambda: datetime.now(UTC) > ends, "the key to expire")
    return text


def revoked(keyed: Keyed) -> str:
    """Return a key with every role that was revoked."""
    text = keyed.make(*ROLES)
    assert keyed.revoke(text).status_code == 200
    return text


def invalid_credentials(keyed: Keyed) -> list[dict[str, str]]:
    """Return headers that present no key, or one that is not valid."""
    right = keyed.make(*ROLES)
    public, secret = right.split("_")[1:]
    wrong = f"qed_{public}_{secret[:-1]}{'0' if secret[-1] != '0' else '1'}"
    unknown = f"qed_{'0' * 16}_{secret}"
    malformed = ["my-key", right[:-1], right + "0", right.upper(), f"qed_{public}_", secret, "qed__", "é"]
    texts = [wrong, unknown, expired(keyed), revoked(keyed), *malformed]
    return [
        {},
        *({"Api-Key": text} for text in texts),
        *({"Authorization": f"Bearer {text}"} for text in texts),
        {"Authorization": right},
        {"Authorization": f"Basic {right}"},
        {"Cookie": f"Api-Key={right}"},
        # A proxy may have checked one of them, and the server the other.
        {"Api-Key": right, "Authorization": f"Bearer {right}"},
    ]


def ask(client: httpx.Client, call: tuple[str, str], headers: dict[str, str]) -> httpx.Response:
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    return client.request(*call, content=b"{" if call[0] == "POST" else None, headers=encoded)


def test_every_call_with_every_credential(keyed: Keyed) -> None:
    valid = {role: keyed.make(role) for role in ROLES}
    nothing = invalid_credentials(keyed)
    refusals = set()
    for client, table in ((keyed.http, BY_CLIENTS), (keyed.mgmt, BY_OPERATORS)):
        for call, accepted in table.items():
            for headers in nothing:
                answer = ask(client, call, headers)
                assert (answer.status_code == 401) is ("no key" not in accepted), (call, headers)
                if answer.status_code == 401:
                    refusals.add((answer.text, answer.headers["www-authenticate"]))
            for role, text in valid.items():
                for header in (
                    {"Api-Key": text},
                    {"Authorization": f"Bearer {text}"},
                    {"authorization": f"bearer {text}"},
                ):
                    answer = ask(client, call, header)
                    assert answer.status_code != 401
                    assert (answer.status_code == 403) is (role not in accepted), (call, role, answer.text)
    # One text for all: it does not say what is wrong with a key.
    assert refusals == {
        (
            '{"error":"unauthorized","message":"expected a valid key in the header Api-Key, or Authorization: Bearer"}',
            "Bearer",
        )
    }


@pytest.mark.parametrize("end", ["%0A", "%0D", "%0D%0A", "%00", "%09", "%0B", "%C2%85", "%E2%80%A8", "%20", "/", "%2F"])
def test_a_path_that_is_nearly_that_of_a_call_is_none(keyed: Keyed, end: str) -> None:
    for client, table in ((keyed.http, BY_CLIENTS), (keyed.mgmt, BY_OPERATORS)):
        for method, path in table:
            if path == "/" or "?" in path or "no-such" in path or (method, path) == ("DELETE", "/events"):
                continue
            answer = ask(client, (method, path + end), {"Api-Key": keyed.make(*ROLES)})
            is_version = path.startswith(("/snapshots/", "/receipts/"))
            assert answer.status_code in ({400, 404} if is_version else {404}), (method, path, answer.text)


def test_two_equal_headers_are_refused(keyed: Keyed) -> None:
    key = keyed.make("observe")
    assert keyed.http.get("/info", headers=[("Api-Key", key)]).status_code == 200
    assert keyed.http.get("/info", headers=[("Api-Key", key), ("Api-Key", key)]).status_code == 401


def test_a_key_has_each_of_its_roles(keyed: Keyed) -> None:
    for roles in itertools.combinations(ROLES, 2):
        key = keyed.make(*roles)
        for table, client in ((BY_CLIENTS, keyed.http), (BY_OPERATORS, keyed.mgmt)):
            for call, accepted in table.items():
                refused = ask(client, call, {"Api-Key": key}).status_code == 403
                assert refused is accepted.isdisjoint(roles), (call, roles)


def test_every_route_has_its_roles_in_the_table() -> None:
    # A path without an entry would be for operators only, or for every role.
    routes = re.findall(r'Route\("([^"]+)"', APP.read_text())
    assert set(routes) == {*CALLS, *MANAGEMENT_CALLS}


def test_refusals_are_counted(keyed: Keyed) -> None:
    def counted() -> dict[str, int]:
        return dict(keyed.mgmt.get("/keys", headers={"Api-Key": keyed.operator}).json()["Refused"])

    before = counted()
    keyed.http.get("/info")
    keyed.mgmt.get("/cluster", headers={"Api-Key": keyed.make("append")})
    after = counted()
    assert after["unauthorized"] == before.get("unauthorized", 0) + 1
    assert after["forbidden"] == before.get("forbidden", 0) + 1


def test_a_key_that_is_revoked_while_its_request_arrives_does_nothing(keyed: Keyed) -> None:
    host, port = keyed.mgmt.base_url.host, keyed.mgmt.base_url.port or 0
    key, body = keyed.make("operate"), b'{"Roles": ["operate"]}'
    head = f"POST /keys HTTP/1.1\r\nHost: x\r\nApi-Key: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, port), timeout=LIMIT_S) as held:
        held.sendall(head.encode() + body[:5])
        assert keyed.revoke(key).status_code == 200
        held.sendall(body[5:])
        assert held.recv(100).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("name", ["Api-Key: ", "Authorization: Bearer "])
def test_a_key_after_the_body_is_no_credential(keyed: Keyed, name: str) -> None:
    body = b'{"Event": "YQ=="}'
    request = b"POST /events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(body), body)
    trailer = f"0\r\n{name}{keyed.make('append')}\r\n\r\n".encode()
    with connect(keyed.server) as peer:
        # In one piece, so that the trailer has arrived when the request is handled.
        peer.sendall(request + trailer)
        assert read_answer(peer)[0] == 401


def test_the_body_of_an_operator_s_call_is_small(keyed: Keyed) -> None:
    answer = keyed.mgmt.post("/keys", content=b" " * (64 * 1024 + 1), headers={"Api-Key": keyed.operator})
    assert (answer.status_code, answer.json()["error"]) == (413, "too_large")


def test_a_member_that_was_away_asks_whether_a_key_was_revoked(tmp_path: Path) -> None:
    cluster = new_cluster(tmp_path, 3)
    try:
        cluster.start()
        leader, away = cluster.leader(), cluster.followers()[0]
        at_leader, at_away = (f"http://{member.address('mgmt')}" for member in (leader, away))
        keys: list[str] = []
        for _ in range(2):
            headers = {"Api-Key": keys[0]} if keys else {}
            made = httpx.post(f"{at_leader}/keys", json={"Roles": ["operate"]}, headers=headers, timeout=LIMIT_S)
            keys.append(made.json()["Key"])
        stolen = {"Api-Key": keys[1]}
        wait_until(lambda: httpx.get(f"{at_away}/keys", headers=stolen).is_success, "the other member to know the key")
        away.pause()
        public, body = keys[1].split("_")[1], b'{"Roles": ["operate"]}'
        revoked = httpx.post(
            f"{at_leader}/keys/revoke", json={"Id": public}, headers={"Api-Key": keys[0]}, timeout=LIMIT_S
        )
        assert revoked.status_code == 200
        head = f"POST /keys HTTP/1.1\r\nHost: x\r\nApi-Key: {keys[1]}\r\nContent-Length: {len(body)}\r\n\r\n"
        host, _, port = away.address("mgmt").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=LIMIT_S) as thief:
            thief.sendall(head.encode() + body)
            away.resume()
            assert thief.recv(100).startswith(b"HTTP/1.1 401")
    finally:
        cluster.forget()


def call_of(member: Server) -> Callable[..., httpx.Response]:
    """Return a function that makes a call at a member's management address, with a key or without."""
    base = f"http://{member.address('mgmt')}"

    def call(method: str, path: str, body: object = None, *, key: str = "") -> httpx.Response:
        headers = {"Api-Key": key} if key else {}
        return httpx.request(method, f"{base}{path}", json=body, headers=headers, timeout=LIMIT_S)

    return call


def test_a_member_that_starts_alone_is_open_to_no_operator(tmp_path: Path) -> None:
    cluster = new_cluster(tmp_path, 3)
    try:
        cluster.start()
        leader, (away, other) = cluster.leader(), cluster.followers()
        away.kill()
        key = call_of(leader)("POST", "/keys", {"Roles": ["operate"]}).json()["Key"]
        leader.kill()
        other.kill()
        away.start()
        call = call_of(away)
        calls = [("GET", "/keys"), ("GET", "/backups/part"), ("POST", "/backup"), ("DELETE", "/backup?backupID=1")]
        assert [call(*made).json()["error"] for made in calls] == ["unavailable"] * 4
        assert [call(*made, key=key).json()["error"] for made in calls] == ["unavailable"] * 4
        assert call("GET", "/cluster").status_code == 200
        leader.start()
        wait_until(lambda: call("GET", "/keys", key=key).is_success, "the member to know the key")
        assert [call(*made).status_code for made in calls] == [401] * 4
    finally:
        cluster.forget()


def test_a_member_that_is_cut_off_deletes_nothing_for_a_revoked_key(tmp_path: Path) -> None:
    cluster = new_cluster(tmp_path, 3, "--request-timeout-s", "3")
    try:
        cluster.start()
        leader, (away, other) = cluster.leader(), cluster.followers()
        assert leader.add(b"x").status_code == 201
        call = call_of(leader)
        good = call("POST", "/keys", {"Roles": ["operate"]}).json()["Key"]
        stolen = call("POST", "/keys", {"Roles": ["operate"]}, key=good).json()["Key"]
        at_away = call_of(away)
        wait_until(lambda: at_away("GET", "/keys", key=stolen).is_success, "the other member to know the key")
        assert at_away("POST", "/backup", key=stolen).status_code == 200
        away.stop()
        assert call("POST", "/keys/revoke", {"Id": stolen.split("_")[1]}, key=good).status_code == 200
        leader.kill()
        other.kill()
        away.start()
        assert at_away("DELETE", "/backup?backupID=1", key=stolen).status_code == 503
        assert len(at_away("GET", "/backups", key=good).json()) == 1
        other.start()
        wait_until(lambda: at_away("GET", "/backups", key=stolen).status_code == 401, "the member to catch up")
    finally:
        cluster.forget()


def test_a_list_shows_the_last_use_and_no_secret(keyed: Keyed) -> None:
    key = keyed.make("append", Name="ingest")
    public, secret = key.split("_")[1:]

    def row() -> dict[str, object]:
        answer = keyed.mgmt.get("/keys", headers={"Api-Key": keyed.operator})
        assert secret not in answer.text
        return next(dict(row) for row in answer.json()["Keys"] if row["Id"] == public)

    assert row()["LastUsed"] is None
    began = datetime.now(UTC).replace(microsecond=0)
    keyed.http.get("/info", headers={"Api-Key": key})
    seen = row()
    assert datetime.fromisoformat(str(seen["LastUsed"])) >= began
    assert (seen["Name"], seen["Roles"], seen["IsRevoked"], seen["Expires"]) == ("ingest", ["append"], False, None)
    history = keyed.mgmt.get("/cluster/history", headers={"Api-Key": keyed.operator}).text
    assert secret not in history + keyed.server.stderr
    assert key.encode() not in b"".join(path.read_bytes() for path in keyed.server.folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "fields",
    [
        {"Roles": []},
        {"Roles": ["append", "append"]},
        {"Roles": ["root"]},
        {"Roles": ["append"], "Name": "a\nb"},
        {"Roles": ["append"], "Name": "a" * 256},
        {"Roles": ["append"], "Expires": "2030-01-31T12:00:00"},
        {"Roles": ["append"], "Expires": "soon"},
        {"Roles": ["append"], "Expires": "2020-01-31T12:00:00Z"},
        {"Roles": ["append"], "Expires": "9999-12-31T23:59:59-23:59"},
    ],
)
def test_a_malformed_key_is_refused(keyed: Keyed, fields: dict[str, object]) -> None:
    answer = keyed.mgmt.post("/keys", json=fields, headers={"Api-Key": keyed.operator})
    assert (answer.status_code, answer.json()["error"]) == (400, "malformed")


def test_an_unknown_key_cannot_be_revoked(keyed: Keyed) -> None:
    assert keyed.revoke("qed_0000000000000000_").status_code == 409


# Open and closed servers


def test_a_server_without_keys_accepts_any_key(server: Server) -> None:
    for headers in ({}, {"Api-Key": "my-key"}, {"Authorization": "Bearer my-key"}):
        assert httpx.get(f"{server.url}/info/shards", headers=headers).status_code == 200


def test_a_first_key_for_clients_closes_their_calls_and_an_operator_closes_the_rest(tmp_path: Path) -> None:
    server = start_process(tmp_path / "log")
    try:
        mgmt = f"http://{server.info().mgmt_addr}"
        append = httpx.post(f"{mgmt}/keys", json={"Roles": ["append"]}).json()["Key"]
        assert httpx.post(f"{server.url}/events", content=b"{").status_code == 401
        assert httpx.post(f"{server.url}/events", content=b"{", headers={"Api-Key": append}).status_code == 400
        # Operators still have to find the management address.
        assert httpx.get(f"{server.url}/info").status_code == 200
        assert httpx.get(f"{mgmt}/keys").json()["IsManagementOpen"] is True
        operate = httpx.post(f"{mgmt}/keys", json={"Roles": ["operate"]}).json()["Key"]
        assert httpx.get(f"{server.url}/info").status_code == 401
        assert httpx.get(f"{mgmt}/keys").status_code == 401
        assert httpx.get(f"{mgmt}/keys", headers={"Api-Key": operate}).json()["IsManagementOpen"] is False
        # Nobody could make keys any more.
        last = {"Id": operate.split("_")[1]}
        refused = httpx.post(f"{mgmt}/keys/revoke", json=last, headers={"Api-Key": operate})
        assert (refused.status_code, refused.json()["error"]) == (409, "refused")
        server.stop()
        server.start()
        assert httpx.get(f"{server.url}/info").status_code == 401
        assert httpx.get(f"{server.url}/info", headers={"Api-Key": append}).status_code == 200
    finally:
        server.forget()


EVERYWHERE: Final = "0.0.0.0:0"


@pytest.mark.parametrize("option", ["--http-addr", "--mgmt-addr"])
def test_a_server_beyond_loopback_without_keys_does_not_start(tmp_path: Path, option: str) -> None:
    done = run_to_exit(tmp_path / "log", option, EVERYWHERE)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("qed-server: ")]
    assert len(lines) == 1, done.stderr
    for way in (option, "qed keys create", "--tls-client-ca", "--open"):
        assert way in lines[0]


@pytest.mark.parametrize("name", ["http", "mgmt"])
def test_a_server_behind_a_proxy_without_keys_does_not_start(tmp_path: Path, name: str) -> None:
    done = run_to_exit(tmp_path / "log", f"--{name}-advertise-addr", "log.example.com:443")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("qed-server: ")]
    assert line.startswith(
        f"qed-server: log.example.com:443, at which --{name}-addr is advertised, is beyond this machine"
    )


def test_a_server_beyond_loopback_starts_with_open_or_with_keys(tmp_path: Path) -> None:
    server = start_process(tmp_path / "log", "--http-addr", EVERYWHERE, "--open")
    try:
        port = server.http_address[1]
        assert httpx.get(f"http://127.0.0.1:{port}/info", headers={"Api-Key": "my-key"}).status_code == 200
        mgmt = httpx.get(f"http://127.0.0.1:{port}/info").json()["mgmt_addr"]
        key = httpx.post(f"http://{mgmt}/keys", json={"Roles": ["append"]}).json()["Key"]
        # The operator said so: keys do not close it.
        assert httpx.get(f"http://127.0.0.1:{port}/info").status_code == 200
        server.stop()
        server.extra = ("--http-addr", EVERYWHERE)
        server.start()
        port = server.http_address[1]
        assert httpx.get(f"http://127.0.0.1:{port}/info").status_code == 401
        assert httpx.get(f"http://127.0.0.1:{port}/info", headers={"Api-Key": key}).status_code == 200
    finally:
        server.forget()


@pytest.mark.parametrize("everywhere", [EVERYWHERE, "[::]:0"])
def test_an_operator_uses_a_server_on_all_interfaces_by_the_host_that_was_given(
    tmp_path: Path, everywhere: str
) -> None:
    server = start_process(tmp_path / "log", "--http-addr", everywhere, "--mgmt-addr", everywhere, "--open")
    try:
        url = f"http://127.0.0.1:{server.http_address[1]}"
        key = json.loads(qed("--endpoints", url, "--json", "keys", "create", "--role", "operate").stdout)["Key"]
        for command in (("keys", "list"), ("cluster", "status"), ("backup", "create"), ("add", "--event", "a")):
            done = qed("--endpoints", url, *command, QED_API_KEY=key)
            assert (done.returncode, done.stderr) == (0, ""), command
    finally:
        server.forget()


def settings_of(tmp_path: Path, **fields: object) -> Settings:
    addresses = {
        f"{name}_addr": Address("127.0.0.1", port) for port, name in enumerate(("http", "mgmt", "metrics", "raft"), 1)
    }
    return Settings(node_id="a", data_dir=tmp_path, **{**addresses, **fields})  # type: ignore[arg-type]  # named above


NO_KEY: Final = Head(b"localhost", None, [])


def scope_of(path: str) -> dict[str, object]:
    return {"path": path, "client": ("127.0.0.1", 1)}


def test_a_member_that_may_lack_the_keys_of_its_cluster_changes_nothing_for_strangers(tmp_path: Path) -> None:
    settled = [False]
    access = Access(settings_of(tmp_path), KeyTable(), lambda: settled[0])
    for path in ("/cluster/remove", "/cluster/transfer", "/keys", "/backups/part"):
        with pytest.raises(KeysNotKnown):
            access.admit(scope_of(path), NO_KEY, is_management=True)
    access.admit(scope_of("/cluster"), NO_KEY, is_management=True)
    settled[0] = True
    access.admit(scope_of("/cluster/remove"), NO_KEY, is_management=True)


def test_a_certificate_ends_also_on_a_connection_that_lasts(tmp_path: Path) -> None:
    access = Access(settings_of(tmp_path, http_addr=Address("10.0.0.1", 1)), KeyTable(), lambda: True)
    certified = Caller("certificate 1", frozenset({"prove"}), ends=time.time() + 100)
    scope = {**scope_of("/info"), CERTIFICATE: certified}
    access.admit(scope, Head(b"x", None, []), is_management=False)
    scope[CERTIFICATE] = certified._replace(ends=time.time() - 1)
    with pytest.raises(Unauthenticated):
        access.admit(scope, Head(b"x", None, []), is_management=False)


def test_a_member_that_may_lack_the_keys_of_its_cluster_refers_to_others(tmp_path: Path) -> None:
    settled, table, key = [False], KeyTable(), ApiKey.make()
    access = Access(settings_of(tmp_path, is_open=False), table, lambda: settled[0])
    table.fold(created(ApiKey.make(), roles=list(ROLES)))
    keyed = Head(b"localhost", None, [key.text.encode()])
    with pytest.raises(KeysNotKnown):
        access.admit(scope_of("/events"), keyed, is_management=False)
    with pytest.raises(Unauthenticated):
        access.admit(scope_of("/events"), NO_KEY, is_management=False)
    settled[0] = True
    with pytest.raises(Unauthenticated):
        access.admit(scope_of("/events"), keyed, is_management=False)
    table.fold(created(key))
    access.admit(scope_of("/events"), keyed, is_management=False)


# The table of keys


def created(key: ApiKey, **fields: object) -> KeyCreated:
    values = {"roles": ["append"], "name": "", "expires": None, **fields}
    return KeyCreated(who="a", origin="b", when=datetime.now(UTC), id=key.id, hash=key.hash, **values)  # type: ignore[arg-type]  # named above


def test_a_second_act_with_the_same_id_changes_nothing() -> None:
    table, key, other = KeyTable(), ApiKey.make(), ApiKey.make()
    table.fold(created(key))
    table.fold(created(ApiKey(key.id, other.secret), roles=["operate"]))
    found = table.recognise(key.text.encode())
    assert found is not None
    assert found.roles == {"append"}


def test_a_table_stays_closed_when_its_last_key_ends() -> None:
    table, key = KeyTable(), ApiKey.make()
    table.fold(created(key, roles=["operate"], expires=datetime.fromtimestamp(time.time() - 1, UTC)))
    assert table.recognise(key.text.encode()) is None
    table.fold(KeyRevoked(who="a", origin="b", when=datetime.now(UTC), id=key.id))
    assert table.has_keys
    assert table.has_operators


def test_a_key_that_was_used_ends_when_it_is_revoked_or_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    table, revoked, expiring = KeyTable(), ApiKey.make(), ApiKey.make()
    table.fold(created(revoked))
    table.fold(created(expiring, expires=datetime.fromtimestamp(time.time() + 60, UTC)))
    assert table.recognise(revoked.text.encode()) is not None
    assert table.recognise(expiring.text.encode()) is not None
    table.fold(KeyRevoked(who="a", origin="b", when=datetime.now(UTC), id=revoked.id))
    later = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: later)
    for key in (revoked, expiring):
        assert table.recognise(key.text.encode()) is None


def test_each_bit_of_a_key_counts() -> None:
    table, key = KeyTable(), ApiKey.make()
    table.fold(created(key))
    text = key.text.encode()
    assert table.recognise(text) is not None
    for place in range(8 * len(text)):
        flipped = bytearray(text)
        flipped[place // 8] ^= 1 << place % 8
        assert table.recognise(bytes(flipped)) is None


@pytest.mark.parametrize(
    ("others", "is_revoked"),
    [([], False), ([60], False), ([-60], False), ([None], True), ([60, None], True), (["revoked"], False)],
)
def test_a_key_that_does_not_expire_is_left(others: list[int | str | None], is_revoked: bool) -> None:
    table, key, moment = KeyTable(), ApiKey.make(), datetime.now(UTC)
    table.fold(created(key, roles=["operate"]))
    table.fold(created(ApiKey.make(), roles=["append", "prove", "observe"]))
    for seconds in others:
        other = ApiKey.make()
        expires = moment + timedelta(seconds=seconds) if isinstance(seconds, int) else None
        table.fold(created(other, roles=["operate"], expires=expires))
        if seconds == "revoked":
            table.fold(KeyRevoked(who="a", origin="b", when=moment, id=other.id))
    act = KeyRevoked(who="a", origin="b", when=moment, id=key.id)
    assert (table.refusal(act) is None) is is_revoked
    table.fold(act)
    assert (table.recognise(key.text.encode()) is None) is is_revoked
    # Operators may have certificates.
    table.fold(KeyRevoked(who="a", origin="b", when=moment, id=key.id, may_be_last=True))
    assert table.recognise(key.text.encode()) is None


def test_an_expiring_key_is_revoked_while_another_is_valid_at_the_time_of_the_act() -> None:
    table, keys, moment = KeyTable(), [ApiKey.make(), ApiKey.make()], datetime.now(UTC)
    for key, seconds in zip(keys, (60, 30), strict=True):
        table.fold(created(key, roles=["operate"], expires=moment + timedelta(seconds=seconds)))
    late = KeyRevoked(who="a", origin="b", when=moment + timedelta(seconds=31), id=keys[0].id)
    assert table.refusal(late) == "this is the last key with the role operate: make another one first"
    table.fold(KeyRevoked(who="a", origin="b", when=moment, id=keys[0].id))
    assert table.recognise(keys[0].text.encode()) is None


# The command line


def test_keys_are_made_listed_and_revoked(tmp_path: Path) -> None:
    server = start_process(tmp_path / "log")
    try:
        at = ("--endpoints", server.url)
        operate = read_lines(qed(*at, "keys", "create", "--role", "operate", "--name", "admin", "--json").stdout)[0]
        key = operate["Key"]
        made = qed(*at, "--api-key", key, "keys", "create", "--role", "append", "--expires", "30d", "--json")
        append = read_lines(made.stdout)[0]
        assert append["Roles"] == ["append"]
        ends = datetime.fromisoformat(append["Expires"])
        assert timedelta(days=29) < ends - datetime.now(UTC) <= timedelta(days=30)

        refused = qed(*at, "add", "--event", "e")
        assert refused.returncode == 4
        assert "expected a valid key" in one_line(refused.stderr)
        assert qed(*at, "add", "--event", "e", QED_API_KEY=append["Key"]).returncode == 0
        forbidden = qed(*at, "--api-key", append["Key"], "keys", "list")
        assert forbidden.returncode == 4
        assert "does not allow" in one_line(forbidden.stderr)

        listed = qed(*at, "--api-key", key, "keys", "list")
        assert append["Id"] in listed.stdout
        assert append["Key"] not in listed.stdout
        assert qed(*at, "--api-key", key, "keys", "revoke", append["Id"]).returncode == 0
        assert qed(*at, "--api-key", append["Key"], "add", "--event", "e").returncode == 4
        acts = read_lines(qed(*at, "--api-key", key, "--json", "cluster", "history").stdout)
        by = {act["act"]["deed"]: act["act"]["who"] for act in acts}
        assert by["key_revoked"] == f"key {operate['Id']} (admin)"
    finally:
        server.forget()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create",), "--role"),
        (("create", "--role", "root"), "root"),
        (("create", "--role", "append", "--expires", "yesterday"), "yesterday"),
        (("create", "--role", "append", "--expires", "2020-01-31"), "future"),
        (("revoke", "qed_0123456789abcdef_00"), "16 hexadecimal digits"),
    ],
)
def test_wrong_usage_of_keys_is_one_line(arguments: tuple[str, ...], said: str) -> None:
    done = qed("keys", *arguments)
    assert done.returncode == 2
    assert said in one_line(done.stderr)
