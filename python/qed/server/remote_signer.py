"""A signer in another process: `qed signer run`, on a Unix socket or at a URL.

It remembers what it signed, and signs only what extends that. So it needs a proof, and it notices by itself if the log
has lost entries. FORMATS.md, "Requests to signers".
"""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qed._qed import AddCheckpoint
from qed.errors import ProtocolError, SigningError, Unavailable
from qed.server.add_checkpoint_answers import shown, size_in
from qed.server.config import SettingsError
from qed.server.http_client import HttpClient, require_url
from qed.server.signed_lines import ANSWER_BYTES, SignedLines

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Sequence

    from qed._client.calls import Answer
    from qed._qed import Digest, SigningKey, UnsignedCheckpoint

__all__ = ["LIMIT_S", "RemoteSigner", "SignerAhead"]

LIMIT_S: Final = 5.0
"""How long a signer may take, with all its requests."""
_UNIX: Final = "unix:"
_NO_HOST: Final = "http://signer"
"""On a Unix socket, the host of a URL means nothing."""


class SignerAhead(SigningError):
    """The signer has signed a larger size than this log has. The log has lost entries, or another member leads.

    Attributes:
        size: The size of this log.
        signed: What the signer has signed.
    """

    def __init__(self, size: int, signed: int) -> None:
        super().__init__(
            f"the signer has signed {signed} entries, but this log has {size}: it has lost entries, or another member "
            "leads"
        )
        self.size = size
        self.signed = signed


class RemoteSigner:
    """Asks a signer for the signatures of the log. It is for one event loop.

    Attributes:
        vkeys: The public keys of the log, which verify what the signer answers.
    """

    def __init__(
        self,
        where: str,
        vkeys: Sequence[str],
        submitter: SigningKey,
        *,
        tls: ssl.SSLContext | None = None,
        limit_s: float = LIMIT_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Make it; nothing is connected yet.

        Args:
            where: `unix:` with the path of a socket, or a URL.
            vkeys: The public keys of the log.
            submitter: The key that signs the requests, of kind 04 or 06, with a name below that of the log.
            tls: How to check the certificate of the signer; see `HttpClient`.
            limit_s: How long a signature may take.
            clock: The time in seconds since 1970.

        Raises:
            SettingsError: One of them cannot be used.
        """
        origin = vkeys[0].partition("+")[0] if vkeys else ""
        self._lines = SignedLines(vkeys, origin)
        self.vkeys: Sequence[str] = self._lines.vkeys
        if not submitter.name.startswith(f"{origin}/"):
            raise SettingsError(f"expected a submitter with a name below {origin}/, found {submitter.name}")
        self._submitter = submitter
        self._limit_s = limit_s
        self._clock = clock
        self._turn = asyncio.Lock()
        self._signed = 0
        """The size that the signer has signed last, as far as is known."""
        socket = Path(where.removeprefix(_UNIX)) if where.startswith(_UNIX) else None
        self._url = where.rstrip("/") if socket is None else _NO_HOST
        try:
            require_url(self._url)
        except ValueError as exc:
            raise SettingsError(f"the address of the signer cannot be used: {exc}") from exc
        self._http = HttpClient(tls=tls, socket=socket)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def sign(
        self,
        checkpoint: UnsignedCheckpoint,
        *,
        is_published: bool,
        time_s: int,  # noqa: ARG002  # the signer has a clock of its own, and remembers the last time
        consistency: Callable[[int], Awaitable[Sequence[Digest]]],
        among: Sequence[str],
    ) -> list[str]:
        """Return the lines that sign a checkpoint.

        Args:
            checkpoint: The checkpoint.
            is_published: Whether it is for everybody, with every kind of key; or for a receipt, with Ed25519 alone.
            time_s: Not used: the signer knows the time.
            consistency: Returns the proof that the checkpoint extends the tree of a smaller size, which is not 0.
            among: The public keys that may sign.

        Raises:
            SignerAhead: It has signed a larger size.
            SigningError: It did not sign, or what it answered does not verify.
        """
        wanted = self._lines.wanted(among, is_published=is_published)
        if not wanted:
            return []
        path = "/add-checkpoint" if is_published else "/add-checkpoint/01"
        try:
            async with asyncio.timeout(self._limit_s), self._turn:
                answer = await self._asked(path, checkpoint, consistency)
        except TimeoutError as exc:
            raise SigningError(f"the signer did not answer within {self._limit_s:g} s") from exc
        except (Unavailable, ProtocolError) as exc:
            raise SigningError(f"the signer cannot be asked: {exc}") from exc
        lines = self._lines.read(checkpoint, answer.body, wanted)
        self._signed = checkpoint.size
        return lines

    async def _asked(
        self,
        path: str,
        checkpoint: UnsignedCheckpoint,
        consistency: Callable[[int], Awaitable[Sequence[Digest]]],
    ) -> Answer:
        """Return an answer with status 200. If the signer names another size, it is asked once more, from there."""
        old = min(self._signed, checkpoint.size)
        answer = await self._post(path, checkpoint, consistency, old)
        if answer.status == HTTPStatus.CONFLICT:
            size = size_in(answer.body)
            if size is None or size == old:
                raise SigningError(f"the signer refuses to sign: {shown(answer)}")
            if size > checkpoint.size:
                raise SignerAhead(checkpoint.size, size)
            self._signed = size
            answer = await self._post(path, checkpoint, consistency, size)
        if answer.status != HTTPStatus.OK:
            raise SigningError(f"the signer refuses to sign: {shown(answer)}")
        return answer

    async def _post(
        self,
        path: str,
        checkpoint: UnsignedCheckpoint,
        consistency: Callable[[int], Awaitable[Sequence[Digest]]],
        old: int,
    ) -> Answer:
        proof = await consistency(old) if 0 < old < checkpoint.size else []
        note = checkpoint.to_note([self._submitter.sign(checkpoint, time=int(self._clock()))])
        request = AddCheckpoint.of(old, [bytes(node) for node in proof], note)
        return await self._http.post(f"{self._url}{path}", request.to_bytes(), limit_bytes=ANSWER_BYTES)
