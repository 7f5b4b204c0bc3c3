"""The walks of docs/cluster.md and docs/trust.md in containers.

They need a Docker engine: `pytest -m containers` selects them.

The base image is `$BASE`, or the Dockerfile's if it is present or can be pulled, or one from compose/base-image.sh.
The image to build in is `$TOOLCHAIN`, or the base image, or the other one of that script.
The wheel is `$WHEEL`, or one that the test builds.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import time
from contextlib import closing
from functools import cache
from typing import TYPE_CHECKING, Final

import httpx
import pytest

from harness.wait import wait_until
from test_readme import is_taken
from trust_walk import Reader, steps_of
from walkthrough import CONTAINERS, NAMES, ROOT, commands_of, is_whole, run, walk
from wheels import build_wheel

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1200)]

PORTS: Final = (8800, 8801, 8802)
IMAGE: Final = "qed-test"
DEFAULT_BASE: Final[str] = re.findall(r"^ARG BASE=(.+)$", (ROOT / "compose" / "Dockerfile").read_text(), re.MULTILINE)[
    0
]
LIMIT_S: Final = 60.0


def obstacle() -> str | None:
    """Return why containers cannot run here, or None if they can."""
    if shutil.which("docker") is None:
        return "there is no docker command"
    if compose() is None:
        return "there is neither `docker compose` nor `docker-compose`"
    engine = docker("version", "--format", "{{.Server.Version}}", is_checked=False)
    if engine.returncode != 0:
        return f"no Docker engine answers: {engine.stderr.strip().splitlines()[-1]}"
    if given_base() is None and (os.geteuid() != 0 or shutil.which("debootstrap") is None):
        return f"there is neither $BASE nor {DEFAULT_BASE}, and only root with debootstrap can make a base"
    return what_is_taken()


def what_is_taken() -> str | None:
    """Return the first port or name of the compose files that is in use, or None."""
    for port in PORTS:
        with closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return f"port {port} is in use"
    if taken := CONTAINERS.keys() & set(docker("ps", "--all", "--format", "{{.Names}}").stdout.split()):
        return f"there are containers of these names already: {', '.join(sorted(taken))}"
    return None


def compose() -> str | None:
    """Return the compose tool of this machine."""
    if docker("compose", "version", is_checked=False).returncode == 0:
        return "docker compose"
    return shutil.which("docker-compose") and "docker-compose"


def docker(*words: str, is_checked: bool = True) -> subprocess.CompletedProcess[str]:
    command = [str(shutil.which("docker")), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0 or not is_checked, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@cache
def given_base() -> str | None:
    """Return a base image that need not be built, or None."""
    if base := os.environ.get("BASE"):
        return base
    is_here = docker("image", "inspect", DEFAULT_BASE, is_checked=False).returncode == 0
    if is_here or docker("pull", "--quiet", DEFAULT_BASE, is_checked=False).returncode == 0:
        return DEFAULT_BASE
    return None


def base_images() -> Iterator[dict[str, str]]:
    """Give the images to run on and to build in; remove them again if they were made here."""
    if base := given_base():
        yield {"BASE": base, "TOOLCHAIN": os.environ.get("TOOLCHAIN", base)}
        return
    tag = secrets.token_hex(4)
    base, toolchain = f"qed-base:{tag}", f"qed-toolchain:{tag}"
    script = ROOT / "compose" / "base-image.sh"
    subprocess.run([script, base, toolchain], check=True, timeout=900, stdout=subprocess.DEVNULL)
    yield {"BASE": base, "TOOLCHAIN": toolchain}
    docker("image", "rm", toolchain, base)


def wheel() -> Iterator[str]:
    """Give the path of a wheel in the repository; remove it again unless `$WHEEL` named it."""
    if given := os.environ.get("WHEEL"):
        yield given
        return
    folder = ROOT / "dist" / f"test-{secrets.token_hex(4)}"
    yield str(build_wheel(folder).relative_to(ROOT))
    shutil.rmtree(folder)


def nameless_images() -> set[str]:
    return set(docker("images", "--quiet", "--filter", "dangling=true").stdout.split())


@pytest.fixture(scope="module")
def settings() -> Iterator[dict[str, str]]:
    """Give the environment for the compose files, and remove the images afterwards."""
    if reason := obstacle():
        pytest.skip(reason)
    before = nameless_images()
    bases, wheels = base_images(), wheel()
    images = next(bases)
    try:
        yield {**images, "WHEEL": next(wheels), "QED_IMAGE": IMAGE}
    finally:
        docker("image", "rm", "--force", IMAGE, is_checked=False)
        # The stage in which the wheel was installed remains as an unnamed image.
        for image in nameless_images() - before:
            docker("image", "rm", image, is_checked=False)
        for rest in (bases, wheels):
            for _ in rest:
                pass


def health_of(container: str) -> str:
    return docker("inspect", "--format", "{{.State.Health.Status}}", container).stdout.strip()


def are_healthy(names: Collection[str]) -> bool:
    """Return whether the containers of these members are healthy."""
    return all(health_of(container) == "healthy" for container, name in CONTAINERS.items() if name in names)


def wait(names: set[str]) -> None:
    """Wait until these members are healthy and agree."""
    wait_until(lambda: are_healthy(names), f"{names} to be healthy", limit_s=LIMIT_S)
    ports = [port for name, port in zip(NAMES, PORTS, strict=True) if name in names]
    wait_until(lambda: is_whole(ports), f"{names} to agree", limit_s=LIMIT_S)


def on_this_machine(command: str) -> str:
    """Return a command of the documentation, with the compose tool and the image of this test."""
    return command.replace("docker-compose", str(compose())).replace(" qed qed ", f" {IMAGE} qed ")


def test_walk_through_in_containers(settings: dict[str, str], tmp_path: Path) -> None:
    down = f"docker-compose -f {ROOT / 'compose' / 'cluster-mode.yml'} down --volumes"
    (up,) = commands_of("In containers")
    try:
        run(on_this_machine(up), ROOT, **settings)
        wait(set(NAMES))
        walk(lambda command: run(command, tmp_path, **settings), wait=wait, ports=PORTS)
        assert_reached_from_a_container()
        for container in CONTAINERS:
            assert_confined(container)
        assert_guarded("qed_server_0")
    finally:
        run(on_this_machine(down), ROOT, **settings)


def assert_reached_from_a_container() -> None:
    """Follow the commands that run the client in a container: it is told addresses that it can reach."""
    add, info = commands_of("From a container")
    assert " Version: 4\n" in run(on_this_machine(add), ROOT)
    seen = json.loads(run(on_this_machine(info), ROOT))
    assert seen["Shards"]["shards"] == {
        name: {"nodeId": name, "httpAddr": f"{container}:8800"} for container, name in CONTAINERS.items()
    }


def test_secure_cluster_in_containers(settings: dict[str, str], tmp_path: Path) -> None:
    up, *commands = commands_of("With keys and TLS")
    down = up.replace("up -d --build", "down --volumes")
    fetching, using = [command for command in commands if "docker cp" in command], commands[3:]
    try:
        run(on_this_machine(up), ROOT, **settings)
        run("\n".join(fetching), tmp_path)
        wait_until(lambda: are_healthy(NAMES), "all to be healthy", limit_s=LIMIT_S)
        wait_until(lambda: voters(tmp_path) == set(NAMES), "all to vote", limit_s=LIMIT_S)
        shown = run(on_this_machine("set -euo pipefail\n" + "\n".join(using)), tmp_path)
        assert "Verify: OK\n" in shown
        shards, end = json.JSONDecoder().raw_decode(shown, shown.index('{"nodeId"'))
        assert_ways(shards)
        assert " Version: 1\n" in shown[end:]
        assert_closed(tmp_path, json.loads((tmp_path / "app.json").read_text())["Key"])
        for container in CONTAINERS:
            assert_confined(container)
            held = docker("exec", container, "ls", "/run/qed").stdout.split()
            assert held == ["ca.pem", "cluster-secret", "server.key", "server.pem"]
    finally:
        run(on_this_machine(down), ROOT, **settings)


def assert_ways(shards: dict[str, object]) -> None:
    """Check the addresses that a client on the host is given."""
    assert shards["uriScheme"] == "https"
    assert shards["shards"] == {
        name: {"nodeId": name, "httpAddr": f"127.0.0.1:{port}"} for name, port in zip(NAMES, PORTS, strict=True)
    }


def secured(folder: Path, *, certificate: str | None = None, key: str | None = None) -> httpx.Client:
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    if certificate is not None:
        context.load_cert_chain(folder / f"{certificate}.pem", folder / f"{certificate}.key")
    return httpx.Client(verify=context, headers={} if key is None else {"Api-Key": key})


def voters(folder: Path) -> set[str]:
    """Return the names of the members that vote, as an operator sees them."""
    with secured(folder, certificate="operator") as operator:
        members = operator.get("https://127.0.0.1:8700/cluster").json()["members"]
    return {member["node_id"] for member in members if member["role"] in {"leader", "follower"}}


def assert_closed(folder: Path, app: str) -> None:
    """Check what nobody, a client's key and a server's certificate may not do."""
    event = {"Event": "eA=="}
    for caller, add, operate in ((None, 401, 401), (app, 201, 403)):
        with secured(folder, key=caller) as client:
            assert client.post("https://127.0.0.1:8800/events", json=event).status_code == add
            for call in ("transfer", "remove"):
                answer = client.post(f"https://127.0.0.1:8700/cluster/{call}", json={"name": "server1"})
                assert answer.status_code == operate
    for suffix in ("pem", "key"):
        docker("cp", f"qed_server_0:/run/qed/server.{suffix}", str(folder / f"server.{suffix}"))
    with pytest.raises(httpx.TransportError), secured(folder, certificate="server") as thief:
        thief.post("https://127.0.0.1:8800/events", json=event)
    with pytest.raises(httpx.TransportError):
        httpx.get("http://127.0.0.1:8800/info")


CONFINED = """
import pathlib, re
status = pathlib.Path("/proc/self/status").read_text()
held = dict(re.findall(r"^(Cap[A-Z]\\w+|NoNewPrivs):\\s*(\\w+)$", status, re.MULTILINE))
assert held.pop("NoNewPrivs") == "1", status
assert held and not any(int(value, 16) for value in held.values()), held
for folder in ("/", "/etc", "/opt/qed", "/tmp", "/usr/local/share/ca-certificates"):
    try:
        pathlib.Path(folder, "written").touch()
    except OSError as exc:
        assert exc.errno in {13, 30}, exc
    else:
        raise AssertionError(folder)
assert not list(pathlib.Path("/usr/local/share/ca-certificates").rglob("*.crt"))
"""
"""What a process finds in a container: no capabilities, nothing to write to, no authorities of the building machine."""


def assert_confined(name: str) -> None:
    """Check what a container may do: nothing but to serve."""
    docker("exec", name, "python3", "-c", CONFINED)
    config = "{{.ReadonlyRootfs}} {{.CapDrop}} {{.SecurityOpt}} {{.PidsLimit}} {{.Memory}}"
    found = docker("inspect", "--format", f"{{{{with .HostConfig}}}}{config}{{{{end}}}}", name).stdout.split()
    assert found == ["true", "[ALL]", "[no-new-privileges:true]", "256", str(2 * 1024**3)]
    published = docker("port", name).stdout
    assert "8600/tcp" not in published
    assert re.findall(r"-> (\S+):\d+$", published, re.MULTILINE) == ["127.0.0.1"] * len(published.splitlines())


def assert_guarded(name: str) -> None:
    """Check which user a container runs as, and that it restarts when it dies."""
    assert docker("exec", name, "id", "--user").stdout.strip() == "10001"
    assert docker("inspect", "--format", "{{.Config.StopSignal}}", name).stdout.strip() == "SIGTERM"
    docker("exec", name, "python3", "-c", "import os, signal; os.kill(1, signal.SIGTERM)")
    count = "{{.RestartCount}} {{.State.Running}}"
    wait_until(
        lambda: docker("inspect", "--format", count, name).stdout.split() == ["1", "true"], "a restart", limit_s=LIMIT_S
    )
    wait(set(NAMES))


TRUST_PORTS: Final = (8080, 8081, 8701, 8702)
"""The ports of compose/trust-mode.yml beyond those of the servers for clients."""
CONFINED_IN_TRUST_MODE: Final = (
    "qed_server_1",
    "qed_witness_0",
    "qed_publisher",
    "qed_mirror",
    "qed_alerts",
    "qed_monitor",
)


def of_trust_walk(command: str) -> str:
    """Return a command of docs/trust.md, with the compose tool, the folder and the image of this test."""
    command = command.replace("docker-compose -f compose/", f"{compose()} -f {ROOT / 'compose'}/")
    return re.sub(r" qed (?=(qed|qed-server|sh|find) )", f" {IMAGE} ", command)


def test_trust_walk_in_containers(settings: dict[str, str], tmp_path: Path) -> None:
    if taken := [port for port in TRUST_PORTS if is_taken(port)]:
        pytest.skip(f"ports in use: {taken}")
    reader = Reader(tmp_path, of_trust_walk, settings | {"XDG_STATE_HOME": str(tmp_path / "state")})
    *steps, ended, down = steps_of("In containers")
    try:
        for step in steps:
            reader.follow(step)
            if step.command.startswith("docker exec qed_witness_0"):
                assert_guarded_webhook()
                for container in CONFINED_IN_TRUST_MODE:
                    assert_confined(container)
        [alert] = httpx.get("http://127.0.0.1:8081").json()
        assert (alert["Kind"], alert["Severity"], alert["Evidence"]["Kind"]) == ("fork", "critical", "same-size")
        reader.follow(ended)
    finally:
        docker("rm", "--force", "qed_forger", is_checked=False)
        reader.follow(down)


def assert_guarded_webhook() -> None:
    """Check that the webhook of the page accepts only what the monitor has signed."""
    alert = {"Kind": "fork", "Severity": "critical", "Text": "forged"}
    signed = {"webhook-id": "1", "webhook-timestamp": str(int(time.time())), "webhook-signature": "v1,AAAA"}
    for headers in ({}, signed, signed | {"webhook-timestamp": "0"}):
        assert httpx.post("http://127.0.0.1:8081", json=alert, headers=headers).status_code == 401
    assert httpx.get("http://127.0.0.1:8081").json() == []


def test_quickstart_serves(settings: dict[str, str]) -> None:
    tool = f"docker-compose -f {ROOT / 'compose' / 'quickstart.yml'}"
    try:
        run(on_this_machine(f"{tool} up -d"), ROOT, **settings)
        wait_until(lambda: health_of("qed_server") == "healthy", "the server to be healthy", limit_s=LIMIT_S)
        wait_until(lambda: is_whole([8800], ["qed_server"]), "the server to lead", limit_s=LIMIT_S)
        assert httpx.post("http://127.0.0.1:8800/events", json={"Event": "eA=="}).status_code == 201
        assert_confined("qed_server")
    finally:
        run(on_this_machine(f"{tool} down --volumes"), ROOT, **settings)
