"""Asking a signer in another process: one that is honest, and one that answers anything."""

from __future__ import annotations

import asyncio
import shlex
import ssl
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import uvloop

from certificates import Operator
from cosigners import old_of
from harness.wait import wait_until
from qed.errors import SigningError
from qed.log_keys import SigningKey, new_log_keys, new_witness_keys
from qed.server.command_signer import CommandSigner, _exchanged
from qed.server.config import SettingsError
from qed.server.remote_signer import RemoteSigner, SignerAhead
from scripted_http import HANG, ScriptedServer, reply
from signers import ORIGIN, SignedLog, SignerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from qed._qed import Digest
    from qed.server.file_signer import Signer
    from scripted_http import Reply

KEYS: Final = new_log_keys(ORIGIN)
VKEYS: Final = [key.vkey for key in KEYS]
SUBMITTER: Final = new_witness_keys(f"{ORIGIN}/m/1")[0]
LIMIT_S: Final = 0.5


def log_of(size: int) -> SignedLog:
    log = SignedLog(submitter=SUBMITTER)
    log.grow(size)
    return log


LOG: Final = log_of(9)
_signers: list[RemoteSigner] = []


@pytest.fixture(autouse=True)
async def _closed() -> AsyncIterator[None]:
    yield
    while _signers:
        await _signers.pop().aclose()


def remote(where: str, vkeys: Sequence[str] = VKEYS, **options: Any) -> RemoteSigner:  # noqa: ANN401  # of RemoteSigner
    signer = RemoteSigner(where, vkeys, SUBMITTER, **options)
    _signers.append(signer)
    return signer


async def sign(
    signer: Signer, log: SignedLog = LOG, *, is_published: bool = True, among: Sequence[str] | None = None
) -> list[str]:
    """Have the newest checkpoint of a log signed."""
    return await signer.sign(
        log.checkpoint(),
        is_published=is_published,
        time_s=int(time.time()),
        consistency=log.proof,
        among=signer.vkeys if among is None else among,
    )


def line_of(key: SigningKey, size: int = 9, log: SignedLog = LOG) -> str:
    return key.sign(log.checkpoint(size), time=1_700_000_000) + "\n"


HONEST: Final = "".join(line_of(key) for key in KEYS)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[SignerProcess]:
    process = SignerProcess(tmp_path, submitters=(SUBMITTER.vkey,))
    process.make_key()
    process.start("--new-database")
    yield process
    process.forget()


async def test_a_log_grows_and_every_checkpoint_is_signed(process: SignerProcess) -> None:
    vkeys, log = process.vkeys(), log_of(1)
    signer = remote(process.url, vkeys)
    asked: list[int] = []

    async def consistency(old: int) -> Sequence[Digest]:
        asked.append(old)
        return await log.proof(old)

    for count, is_published in ((0, True), (1, False), (5, True), (0, True), (0, False), (90, True)):
        log.grow(count)
        checkpoint = log.checkpoint()
        lines = await signer.sign(
            checkpoint, is_published=is_published, time_s=1, consistency=consistency, among=signer.vkeys
        )
        assert len(lines) == (2 if is_published else 1)
        assert checkpoint.to_note(lines).decode().startswith(log.text() + "\n")
    assert asked == [1, 2, 7]
    # A member that leads next knows nothing of it, and is told the size.
    log.grow(1)
    assert len(await sign(remote(process.url, vkeys), log)) == 2


async def test_a_log_that_lost_entries_is_told_so(process: SignerProcess) -> None:
    vkeys, log = process.vkeys(), log_of(9)
    same = remote(process.url, vkeys)
    await sign(same, log)
    del log.leaves[7:]
    with pytest.raises(SignerAhead):
        await sign(same, log)
    with pytest.raises(
        SignerAhead, match=r"signed 9 entries, but this log has 7: it has lost entries, or an"
    ) as caught:
        await sign(remote(process.url, vkeys), log)
    assert (caught.value.size, caught.value.signed) == (7, 9)
    log.leaves += [bytes([number]) * 32 for number in range(5)]
    with pytest.raises(SigningError, match="the signer refuses to sign: it answered 422"):
        await sign(remote(process.url, vkeys), log)
    with pytest.raises(SigningError, match="refuses to sign: it answered 422"):
        await sign(remote(process.url, vkeys), SignedLog(leaves=log.leaves[:9], submitter=SUBMITTER))


async def test_a_signer_that_was_killed_is_asked_again_when_it_is_back(process: SignerProcess) -> None:
    log = log_of(3)
    signer = remote(process.url, process.vkeys())
    await sign(signer, log)
    process.kill()
    with pytest.raises(SigningError, match="cannot be asked"):
        await sign(signer, log)
    process.start()
    log.grow(3)
    assert len(await sign(signer, log)) == 2


async def test_requests_at_the_same_time_are_signed_one_after_the_other(process: SignerProcess) -> None:
    logs = [log_of(size) for size in range(1, 9)]
    signer = remote(process.url, process.vkeys())
    assert all(await asyncio.gather(*(sign(signer, log) for log in logs)))


async def test_a_signer_at_a_url_shows_its_certificate(tmp_path: Path) -> None:
    process = SignerProcess(tmp_path, submitters=(SUBMITTER.vkey,), is_remote=True)
    process.make_key()
    operator = Operator(tmp_path / "ca")
    files = operator.issue("signer")
    try:
        process.start("--new-database", "--tls-cert", str(files.certificate), "--tls-key", str(files.key))
        context = ssl.create_default_context(cafile=operator.path)
        assert len(await sign(remote(process.url, process.vkeys(), tls=context))) == 2
        with pytest.raises(SigningError, match="cannot be asked"):
            await sign(remote(process.url, process.vkeys()))
    finally:
        process.forget()


async def answered(*replies: Reply, is_published: bool = True, among: Sequence[str] | None = None) -> list[str]:
    """Return what is made of the answers of a signer."""
    async with ScriptedServer(*replies) as server:
        signer = remote(server.url, limit_s=LIMIT_S)
        lines = await sign(signer, is_published=is_published, among=among)
        path = "/add-checkpoint" if is_published else "/add-checkpoint/01"
        assert {request.path for request in server.requests} == {path}
        return lines


async def test_lines_are_given_in_the_order_of_the_keys_and_those_of_others_are_dropped() -> None:
    first, second = (line_of(key) for key in KEYS)
    stranger = line_of(new_log_keys(ORIGIN)[0])
    assert await answered(reply(200, second + stranger + first)) == [first[:-1], second[:-1]]
    assert await answered(reply(200, second + first), is_published=False) == [first[:-1]]
    assert await answered(reply(200, first), is_published=False) == [first[:-1]]


async def test_a_retired_key_is_not_asked_for() -> None:
    first, second = (line_of(key) for key in KEYS)
    assert await answered(reply(200, first + second), among=VKEYS[:1]) == [first[:-1]]
    assert await answered(reply(200, first + second), among=[VKEYS[1], "another"]) == [second[:-1]]
    async with ScriptedServer(reply(500)) as server:
        assert await sign(remote(server.url), among=[]) == []
        assert server.requests == []


WRONG: Final = {
    "another text": "".join(line_of(key, 8) for key in KEYS),
    "one of two on another text": line_of(KEYS[0]) + line_of(KEYS[1], 8),
    "another key": "".join(line_of(key) for key in new_log_keys(ORIGIN)),
    "a kind that is missing": line_of(KEYS[0]),
    "the other kind missing": line_of(KEYS[1]),
    "a line twice": HONEST + line_of(KEYS[0]),
    "no line feed": HONEST[:-1],
    "nothing": "",
    "an empty line": HONEST + "\n",
    "a note": f"{LOG.text()}\n{HONEST}",
    "text": "ok\n",
    "too many lines": HONEST + "\u2014 x AAAAAAA=\n" * 99,
    "too much": HONEST + "\u2014 x " + "A" * 64 * 1024 + "\n",
}


@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG)
async def test_what_does_not_verify_is_no_signature(body: str) -> None:
    with pytest.raises(SigningError):
        await answered(reply(200, body))


@pytest.mark.parametrize("status", [302, 400, 403, 404, 422, 429, 500, 503])
async def test_a_refusal_is_an_error_with_its_reason(status: int) -> None:
    with pytest.raises(SigningError, match=rf"the signer refuses to sign: it answered {status}: no \\x1b"):
        await answered(reply(status, "no \x1b"))


async def test_the_signer_is_asked_once_more_from_the_size_that_it_names() -> None:
    async with ScriptedServer(reply(409, "4\n"), reply(200, HONEST)) as server:
        assert len(await sign(remote(server.url))) == 2
        assert [old_of(request) for request in server.posts] == [0, 4]
    for replies in ((reply(409, "4\n"), reply(409, "5\n")), (reply(409, "0\n"),), (reply(409, "x"),)):
        with pytest.raises(SigningError, match="refuses to sign: it answered 409"):
            await answered(*replies)
    with pytest.raises(SigningError, match="signed 10 entries, but this log has 9"):
        await answered(reply(409, "10\n"))
    async with ScriptedServer(reply(409, "0\n")) as server:
        with pytest.raises(SigningError):
            await sign(remote(server.url))
        assert len(server.requests) == 1


async def test_a_slow_signer_is_given_up() -> None:
    before = time.monotonic()
    with pytest.raises(SigningError, match=r"did not answer within 0\.5 s"):
        await answered(HANG)
    async with ScriptedServer(reply(200, HONEST), drip_s=0.05) as server:
        with pytest.raises(SigningError, match="did not answer within"):
            await sign(remote(server.url, limit_s=LIMIT_S))
    assert time.monotonic() - before < 5


def test_settings_that_cannot_work_are_refused() -> None:
    other = new_log_keys("log.example.com/other")
    for vkeys in ([], ["x"], VKEYS[1:], [VKEYS[0], other[1].vkey], VKEYS * 2, [SUBMITTER.vkey]):
        with pytest.raises(SettingsError):
            RemoteSigner("http://127.0.0.1:1", vkeys, SUBMITTER)
    for where in ("", "x", "ftp://x", "http://[::1", "http://x:99999"):
        with pytest.raises(SettingsError, match="the address of the signer"):
            RemoteSigner(where, VKEYS, SUBMITTER)
    with pytest.raises(SettingsError, match="with a name below"):
        RemoteSigner("http://127.0.0.1:1", VKEYS, new_witness_keys("witness.example.com/w1")[0])


SCRIPT: Final = """
import base64, os, sys
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
text = sys.stdin.buffer.read()
assert os.environ["QED_SIGN_FOR"] == sys.argv[3], os.environ["QED_SIGN_FOR"]
key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(sys.argv[1])[1:])
signature = base64.b64encode(bytes.fromhex(sys.argv[2]) + key.sign(text)).decode()
print(f"\\u2014 {text.decode().splitlines()[0]} {signature}")
"""
"""Signs with a library that shares no code with this one."""


LONG_SCRIPT: Final = SCRIPT + "print('\\u2014 x ' + 'A' * 80_000)"
"""Signs, and prints more than is read."""


def script(source: str, *arguments: str) -> list[str]:
    return [sys.executable, "-X", "utf8", "-c", source, *arguments]


def signing_script(purpose: str, key: SigningKey = KEYS[0], source: str = SCRIPT) -> list[str]:
    _, key_id, _ = key.vkey.split("+", 2)
    return script(source, key.to_secret_text().split("+", 4)[4], key_id, purpose)


async def test_a_command_signs_what_is_on_its_stdin() -> None:
    for purpose, is_published in (("checkpoint", True), ("receipt", False)):
        signer = CommandSigner(signing_script(purpose), VKEYS[:1])
        assert await sign(signer, is_published=is_published) == [line_of(KEYS[0])[:-1]]
    assert await sign(CommandSigner(["/missing"], VKEYS[:1]), among=[]) == []


FAILING: Final = {
    "another key": signing_script("checkpoint", new_log_keys(ORIGIN)[0]),
    "an end with an error": script("import sys; sys.exit('no \\x1b key')"),
    "no program": ["/missing"],
    "a folder": ["/tmp"],  # noqa: S108  # nothing is written there
    "a program with a zero byte": ["a\0b"],
    "no output": script("input()"),
    "a killed program": script("import os; os.kill(os.getpid(), 9)"),
    "a signature and too much": signing_script("checkpoint", source=LONG_SCRIPT),
    "too much output": script("print('x' * 10**7)"),
    "too much output on stderr": script("import sys; sys.stderr.write('x' * 10**7)"),
    "a shell": [shlex.join(signing_script("checkpoint"))],
}


@pytest.mark.parametrize("command", FAILING.values(), ids=FAILING)
async def test_a_command_that_fails_signs_nothing(command: list[str]) -> None:
    with pytest.raises(SigningError):
        await sign(CommandSigner(command, VKEYS[:1]))


async def test_the_end_of_a_command_with_an_error_has_its_reason() -> None:
    with pytest.raises(SigningError, match=r"ended with status 1: no \\x1b key"):
        await sign(CommandSigner(FAILING["an end with an error"], VKEYS[:1]))

    with pytest.raises(SigningError, match="ended with status 1, and printed no reason"):
        await sign(CommandSigner(["false"], VKEYS[:1]))


def test_a_command_that_ends_before_it_is_written_to_is_not_a_bug() -> None:
    async def exchange() -> list[bytes]:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec("true", stdin=pipe, stdout=pipe, stderr=pipe)
        await process.wait()
        assert process.stdin is not None
        # The server's loop, which has an error of its own for this, notices the end of the pipe a little later.
        while not process.stdin.transport.is_closing():  # noqa: ASYNC110  # it has no event for that
            await asyncio.sleep(0)
        return [*await _exchanged(process, b"text")]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(exchange()) == [b"", b""]


async def test_a_command_that_hangs_is_killed_with_what_it_started(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    source = (
        "import os, sys, time\n"
        "if os.fork(): time.sleep(1000)\n"
        "open(sys.argv[1] + 'x', 'w').write(str(os.getpid())); os.rename(sys.argv[1] + 'x', sys.argv[1])\n"
        "time.sleep(1000)\n"
    )
    before = time.monotonic()
    signing = asyncio.create_task(sign(CommandSigner(script(source, str(noted)), VKEYS[:1], limit_s=2.0)))
    with pytest.raises(SigningError, match="did not end within 2 s"):
        await signing
    assert time.monotonic() - before < 10
    child = int(noted.read_text())
    wait_until(lambda: not _is_running(child), "the end of the child")


def _is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_cancelled_signature_leaves_no_process(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    source = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(1000)"
    signing = asyncio.create_task(sign(CommandSigner(script(source, str(noted)), VKEYS[:1])))
    await asyncio.to_thread(wait_until, lambda: noted.exists() and noted.read_text() != "", "the start")
    signing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await signing
    assert not _is_running(int(noted.read_text()))
