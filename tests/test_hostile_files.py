"""Hostile tiles, bundles and sources, by `qed audit` and `qed monitor`: damage is refused, another source is asked."""

from __future__ import annotations

import asyncio
import json
import shutil
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

import qed
from commands import qed as run
from published import Answer, entries_of, log_of, publish, serving, tile_path
from scripted_http import ScriptedServer, reply
from signing import World, policy_of

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE: Final = 600
OLDER: Final = 300
ELSEWHERE: Final = "http://169.254.169.254/latest"


@pytest.fixture(scope="module")
def honest() -> list[bytes]:
    with qed.Log() as log:
        log_of(log, OLDER, SIZE - OLDER)
        return entries_of(log)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, honest: list[bytes]) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("policy").write_text(policy_of())
    publish(Path("copy"), honest)
    return tmp_path


def monitored(*sources: str) -> tuple[int, list[str]]:
    """Return the exit code of one round, and the kinds of what it found."""
    done = run("--json", "monitor", *sources, "--policy", "policy", "--state", "state", "--once")
    found = json.loads(done.stdout)
    return done.returncode, [each["Kind"] for each in found["Findings"] + found["Passing"]]


def audited(source: str) -> int:
    done = run("audit", source, "--policy", "policy")
    assert not list(Path().glob("*.json")), "damage convicts nobody"
    return done.returncode


TILE: Final = tile_path(0, 0, 256)
BUNDLE: Final = tile_path("entries", 0, 256)


def answering(path: str, answer: Answer) -> Callable[[str, Answer], Answer]:
    """Return a server's change: this answer in place of one file."""
    return lambda asked, honest: answer if asked == path else honest


@pytest.mark.parametrize(
    "answer",
    [
        (200, {}, bytes(255 * 32)),
        (200, {}, bytes(8193)),
        (200, {}, b""),
        (200, {"Content-Type": "text/html"}, b"<html>please wait</html>"),
        (302, {"Location": ELSEWHERE}, b""),
        (404, {"Cache-Control": "max-age=31536000"}, b"cached"),
    ],
    ids=["255 hashes", "8193 bytes", "nothing", "a page", "a redirect", "a cached 404"],
)
def test_a_tile_that_is_damaged_in_one_place_is_read_from_another(answer: Answer) -> None:
    with serving(Path("copy"), answering(TILE, answer)) as url:
        assert audited(f"{url}/log") == 1
        assert monitored(f"{url}/log", "copy") == (0, [])


def test_a_source_whose_checkpoint_does_not_verify_hides_nothing_about_the_others() -> None:
    with serving(Path("copy"), answering("checkpoint", (200, {}, b"no note"))) as url:
        assert monitored(f"{url}/log", "copy") == (1, ["damaged"])
    state = json.loads(Path("state").read_bytes())["State"]
    assert state["NextEntry"] == SIZE


def entries_in(bundle: bytes) -> list[bytes]:
    found = []
    while bundle:
        (length,) = struct.unpack(">H", bundle[:2])
        found.append(bundle[: 2 + length])
        bundle = bundle[2 + length :]
    return found


@pytest.mark.parametrize(
    "change",
    [
        lambda parts: b"".join(parts[:-1]) + struct.pack(">H", len(parts[-1])) + parts[-1][2:],
        lambda parts: b"".join(parts) + b"\0",
        lambda parts: b"".join([*parts, parts[0]]),
        lambda parts: b"".join(parts[:-1]),
        lambda parts: b"".join([parts[1], parts[0], *parts[2:]]),
    ],
    ids=["an entry beyond the end", "a further byte", "257 entries", "255 entries", "two entries exchanged"],
)
def test_a_bundle_has_its_entries_and_nothing_else(change: Callable[[list[bytes]], bytes]) -> None:
    bundle = Path("copy") / BUNDLE
    honest = bundle.read_bytes()
    assert len(entries_in(honest)) == 256
    damaged = change(entries_in(honest))
    assert damaged != honest
    bundle.write_bytes(damaged)
    assert audited("copy") == 1


def test_a_partial_tile_and_the_full_one_are_of_one_history(honest: list[bytes]) -> None:
    """What a log publishes first must be the beginning of what it publishes later."""
    publish(Path("older"), honest[:OLDER])
    assert monitored("older") == (0, [])
    with qed.Log() as log:
        log_of(log, OLDER - 1)
        log.add(b"another event")
        log_of(log, SIZE - OLDER, start=OLDER)
        publish(Path("other"), entries_of(log))
    code, kinds = monitored("other")
    assert (code, kinds) == (1, ["fork"])
    [evidence] = Path().glob("fork-*.json")
    assert run("evidence", str(evidence), "--policy", "policy").returncode == 0
    # Without a signature, a full tile that differs is damage.
    shutil.copy(Path("other") / tile_path(0, 1, 256), Path("copy") / tile_path(0, 1, 256))
    evidence.unlink()
    assert audited("copy") == 1


def test_yesterday_s_checkpoint_with_the_tiles_of_today_is_only_old(honest: list[bytes]) -> None:
    assert monitored("copy") == (0, [])
    note = World(entries=honest[:OLDER]).note().encode()
    with serving(Path("copy"), answering("checkpoint", (200, {}, note))) as url:
        assert monitored(f"{url}/log") == (5, ["stale-source"])
        assert monitored(f"{url}/log", "copy") == (0, ["stale-source"])


async def test_a_source_that_drips_has_no_more_time_than_any_other() -> None:
    """A head of 300 bytes, 20 a second: no single wait is long, and the answer takes 15 s."""
    slow = reply(200, b"x", f"X-Slow: {'x' * 300}")
    async with ScriptedServer(slow, drip_s=0.05) as server:
        command = ["audit", f"{server.url}/log", "--policy", "policy", "--timeout", "0.5"]
        done = await asyncio.to_thread(run, *command)
        assert (done.returncode, len(server.requests)) == (3, 4)
