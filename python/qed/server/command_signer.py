"""A signer that is a command of somebody else: the text to sign on its stdin, signature lines on its stdout."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Final

from qed._printable import printable
from qed.errors import InternalError, SigningError
from qed.server.signed_lines import ANSWER_BYTES, SignedLines

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Awaitable, Callable, Sequence

    from qed._qed import Digest, UnsignedCheckpoint

__all__ = ["LIMIT_S", "CommandSigner"]

LIMIT_S: Final = 5.0
"""How long the command may take."""
_END_S: Final = 1.0
"""How long a command may take to end after it was killed."""
_SHOWN: Final = 200
_FOR: Final = "QED_SIGN_FOR"
"""The variable that tells the command which signatures are needed."""


class CommandSigner:
    """Runs a command for each signature, without a shell. It is for one event loop.

    Attributes:
        vkeys: The public keys of the log, which verify what the command prints.
    """

    def __init__(self, command: Sequence[str], vkeys: Sequence[str], *, limit_s: float = LIMIT_S) -> None:
        """Make it.

        Args:
            command: The program and its arguments.
            vkeys: The public keys of the log.
            limit_s: How long the command may take.

        Raises:
            SettingsError: The keys cannot be used.
        """
        self._lines = SignedLines(vkeys, vkeys[0].partition("+")[0] if vkeys else "")
        self.vkeys: Sequence[str] = self._lines.vkeys
        self._command = tuple(command)
        self._limit_s = limit_s

    async def sign(
        self,
        checkpoint: UnsignedCheckpoint,
        *,
        is_published: bool,
        time_s: int,  # noqa: ARG002  # the command knows the time
        consistency: Callable[[int], Awaitable[Sequence[Digest]]],  # noqa: ARG002  # it only signs
        among: Sequence[str],
    ) -> list[str]:
        """Return the lines that sign a checkpoint.

        The command gets the text of the checkpoint on its stdin. Its environment variable `QED_SIGN_FOR` is
        `checkpoint` if all keys have to sign, and `receipt` if those of kind 01 are enough.

        Args:
            checkpoint: The checkpoint.
            is_published: Whether all keys have to sign.
            time_s: Not used: the command knows the time.
            consistency: Not used: the command only signs.
            among: The public keys that may sign.

        Raises:
            SigningError: The command failed, took too long, or printed something that does not verify.
        """
        wanted = self._lines.wanted(among, is_published=is_published)
        if not wanted:
            return []
        environment = os.environ | {_FOR: "checkpoint" if is_published else "receipt"}
        answer = await self._run(checkpoint.text.encode(), environment)
        return self._lines.read(checkpoint, answer, wanted)

    async def _run(self, text: bytes, environment: dict[str, str]) -> bytes:
        pipe = asyncio.subprocess.PIPE
        try:
            # In a session of its own, so that what it has started ends with it.
            process = await asyncio.create_subprocess_exec(
                *self._command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, start_new_session=True
            )
        except (OSError, ValueError) as exc:
            raise SigningError(f"the command that signs cannot be run: {exc}") from exc
        try:
            async with asyncio.timeout(self._limit_s):
                output, errors = await _exchanged(process, text)
                status = await process.wait()
        except TimeoutError as exc:
            raise SigningError(f"the command that signs did not end within {self._limit_s:g} s") from exc
        finally:
            await _end(process)
        if status != 0:
            reason = printable(errors.decode(errors="replace").strip())[:_SHOWN]
            said = f": {reason}" if reason else ", and printed no reason"
            raise SigningError(f"the command that signs ended with status {status}{said}")
        if len(output) > ANSWER_BYTES:
            raise SigningError(f"expected at most {ANSWER_BYTES} bytes from the command that signs, found more")
        return output


async def _exchanged(process: Process, text: bytes) -> tuple[bytes, bytes]:
    """Write to a process while both of its outputs are read, each up to its limit and one byte."""
    if process.stdin is None:
        raise InternalError("expected a process with three pipes")
    # A command need not read. uvloop has an error of its own for a pipe that is closed already.
    with contextlib.suppress(ConnectionError, RuntimeError):
        process.stdin.write(text)
        await process.stdin.drain()
        process.stdin.close()
    return await _read(process)


async def _read(process: Process) -> tuple[bytes, bytes]:
    if process.stdout is None or process.stderr is None:
        raise InternalError("expected a process with three pipes")
    return await asyncio.gather(_bounded(process.stdout), _bounded(process.stderr))


async def _bounded(stream: asyncio.StreamReader) -> bytes:
    """Return what arrives until the end; of what is too much, at least one byte."""
    kept = b""
    while part := await stream.read(ANSWER_BYTES):
        kept += part[: ANSWER_BYTES + 1 - len(kept)]
    return kept


async def _end(process: Process) -> None:
    """Kill a process with all that it has started, and take note of its end.

    asyncio does that only once both outputs have ended. They may not, if a process has left the session.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_S):
            await _read(process)
            await process.wait()
