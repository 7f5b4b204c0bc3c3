"""The logs that a witness cosigns for, as its operator lists them.

Two formats are read. A file that begins with the line `logs/v0` is a list as public witnesses share it (C2SP
tlog-list): one log after the other, each a `vkey` line and then `origin`, `qpd` and others, in any order. Any other
file is TOML::

    [[log]]
    vkeys = ["log.example.com/payments+…", "log.example.com/payments+…"]
    origin = "log.example.com/payments"     # only if it differs from the name of the keys
    per_day = 86400                         # how many checkpoints are cosigned in a day
"""

from __future__ import annotations

import hashlib
import logging
import tomllib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from qed._files import open_at_once
from qed._printable import printable
from qed._qed import LogKeys, require_origin
from qed.errors import CertificateError, WitnessError
from qed.server.logs import Line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

__all__ = ["KnownLog", "KnownLogs", "logs_in", "read_logs"]

_log = logging.getLogger(__name__)

_HEADER: Final = "logs/v0"
_MAX_BYTES: Final = 8 * 1024 * 1024
"""Of a file. Public lists have some hundred bytes a log."""
_MAX_LOGS: Final = 100_000
_MAX_PER_DAY: Final = 10**9
_FIELDS: Final = frozenset({"vkeys", "origin", "per_day"})
_NONE: Final = "none"
"""What some lists write in place of an origin that is the name of the key."""


@dataclass(frozen=True)
class KnownLog:
    """A log that the witness cosigns for.

    Attributes:
        origin: Its name, the first line of its checkpoints.
        vkeys: Its public keys. One signature is enough, and no signature by one of them may fail.
        per_day: How many checkpoints are cosigned in a day, or None for any number.
        keys: The public keys, parsed.
        place: Where it is listed, for messages.
        is_shared: Whether it comes from a shared list. What the operator says of a log counts, whatever others list.
    """

    origin: str
    vkeys: tuple[str, ...]
    per_day: int | None
    keys: LogKeys = field(compare=False)
    place: str = field(default="--vkey", compare=False)
    is_shared: bool = field(default=False, compare=False)

    @classmethod
    def of(cls, vkeys: Sequence[str], *, origin: str | None = None, per_day: int | None = None) -> KnownLog:
        """Return the log with these keys.

        Args:
            vkeys: Its public keys, at least one.
            origin: Its name, or None for that of its keys.
            per_day: How many checkpoints are cosigned in a day, 1 to a billion, or None for any number.

        Raises:
            WitnessError: A key or the name is invalid, or the keys have different names and no origin is given.
        """
        if per_day is not None and not 1 <= per_day <= _MAX_PER_DAY:
            raise WitnessError(f"expected 1 to {_MAX_PER_DAY} checkpoints a day, found {per_day}")
        try:
            keys = LogKeys.parse(vkeys)
            names = sorted(set(keys.names))
            if not names:
                raise WitnessError("expected at least one vkey of each log, found none")
            if origin is None and len(names) > 1:
                found = " and ".join(map(printable, names))
                raise WitnessError(f"expected keys of one name, or an origin, found the names {found}")
            name = names[0] if origin is None else origin
            require_origin(name)
        except CertificateError as exc:
            raise WitnessError(str(exc)) from exc
        return cls(name, tuple(vkeys), per_day, keys)


class KnownLogs:
    """All logs that a witness cosigns for, by their names."""

    def __init__(self, logs: Iterable[KnownLog], *, witness: str) -> None:
        """Collect the logs.

        Args:
            logs: Each of them.
            witness: The name of the witness.

        Raises:
            WitnessError: A log that the operator lists has the name of the witness, or is listed twice and not alike. A
                log of a shared list is logged and left out instead.
        """
        self._by_origin: dict[str, KnownLog] = {}
        for log in sorted(logs, key=lambda log: log.is_shared):
            reason = self._objection(log, witness)
            if reason is not None and not log.is_shared:
                raise WitnessError(f"{log.place}: {reason}")
            if reason is not None:
                _log.warning(Line("log skipped", place=log.place, reason=reason))
            else:
                self._by_origin.setdefault(log.origin, log)
        self._origin_by_hash = {hashlib.sha256(origin.encode()).hexdigest(): origin for origin in self._by_origin}

    def _objection(self, log: KnownLog, witness: str) -> str | None:
        # A checkpoint of such a log has lines of two parties under one name, and nobody could tell whose they are.
        if witness in {log.origin, *log.keys.names}:
            return f"expected logs with other names than the witness, found {printable(witness)}"
        known = self._by_origin.get(log.origin)
        if known is None:
            return None
        # A shared list may say another rate than the operator, or than another list. The first counts.
        if set(known.vkeys) == set(log.vkeys) and (log.is_shared or known.per_day == log.per_day):
            return None
        return f"expected each log once, found {printable(log.origin)} again, and not as in {known.place}"

    def __len__(self) -> int:
        return len(self._by_origin)

    def __iter__(self) -> Iterator[KnownLog]:
        return iter(self._by_origin.values())

    def find(self, origin: str) -> KnownLog | None:
        """Return the log with this name, or None."""
        return self._by_origin.get(origin)

    def origin_of(self, digest: str) -> str | None:
        """Return the name whose SHA-256 has these 64 lower-case hexadecimal digits, or None."""
        return self._origin_by_hash.get(digest)


def read_logs(path: Path) -> list[KnownLog]:
    """Return the logs that a file lists. Those of a shared list that this witness cannot cosign for are logged.

    Raises:
        WitnessError: The file cannot be read, or is in neither format. The message names it.
    """
    try:
        with open_at_once(path) as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as exc:
        raise WitnessError(f"cannot read {path}: {exc.strerror or exc}") from exc
    try:
        return logs_in(content, str(path))
    except WitnessError as exc:
        raise WitnessError(f"{path}: {exc}") from exc


def logs_in(content: bytes, name: str) -> list[KnownLog]:
    """Return the logs in the content of a file.

    Args:
        content: The content.
        name: The name of the file, for messages.

    Raises:
        WitnessError: It is in neither format.
    """
    if len(content) > _MAX_BYTES:
        raise WitnessError(f"expected a list of logs of at most {_MAX_BYTES} bytes, found more")
    try:
        text = content.decode()
    except UnicodeDecodeError as exc:
        raise WitnessError("expected text in UTF-8, found other bytes") from exc
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if lines and lines[0][1] == _HEADER:
        return list(_shared(lines[1:], name))
    return list(_configured(text, name))


def _shared(lines: Sequence[tuple[int, str]], name: str) -> Iterator[KnownLog]:
    """Yield the usable logs of a shared list, which has lines for other readers and logs of other kinds."""
    entries: list[tuple[int, dict[str, str]]] = []
    for number, line in lines:
        keyword, _, value = line.partition(" ")
        if keyword == "vkey":
            entries.append((number, {}))
        elif not entries:
            raise WitnessError(f"line {number}: expected a vkey first, found {printable(keyword)!r}")
        if keyword in entries[-1][1]:
            raise WitnessError(f"line {number}: expected one {printable(keyword)} for each log, found another")
        entries[-1][1][keyword] = value.strip()
    if len(entries) > _MAX_LOGS:
        raise WitnessError(f"expected at most {_MAX_LOGS} logs, found {len(entries)}")
    for number, entry in entries:
        origin, queries = entry.get("origin", _NONE), entry.get("qpd")
        if queries is not None and not (queries.isascii() and queries.isdigit() and len(queries) <= 10):  # noqa: PLR2004  # more digits are more than the limit
            raise WitnessError(f"line {number}: expected a number of queries a day, found {printable(queries)!r}")
        per_day = None if queries is None else int(queries)
        try:
            log = KnownLog.of([entry["vkey"]], origin=None if origin == _NONE else origin, per_day=per_day)
        except WitnessError as exc:
            # The list is for witnesses of all kinds: one log that this one cannot read must not stop it.
            _log.warning(Line("log skipped", place=f"{name}:{number}", reason=exc))
        else:
            yield replace(log, place=f"{name}:{number}", is_shared=True)


def _configured(text: str, name: str) -> Iterator[KnownLog]:
    """Yield the logs of a TOML file."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise WitnessError(f"expected {_HEADER} or TOML: {exc}") from exc
    entries = document.get("log")
    if set(document) != {"log"} or not isinstance(entries, list):
        raise WitnessError(f"expected tables [[log]] and nothing else, found {', '.join(document) or 'none'}")
    for number, entry in enumerate(entries, 1):
        try:
            yield replace(_configured_log(entry), place=f"{name}: log {number}")
        except WitnessError as exc:
            raise WitnessError(f"log {number}: {exc}") from exc


def _configured_log(entry: Any) -> KnownLog:  # noqa: ANN401  # as TOML has it, not checked yet
    if not isinstance(entry, dict) or not set(entry) <= _FIELDS:
        raise WitnessError(f"expected a table with {', '.join(sorted(_FIELDS))} and nothing else")
    vkeys, origin, per_day = entry.get("vkeys"), entry.get("origin"), entry.get("per_day")
    if not isinstance(vkeys, list) or not all(isinstance(vkey, str) for vkey in vkeys):
        raise WitnessError("expected vkeys as a list of strings")
    if not (origin is None or isinstance(origin, str)):
        raise WitnessError("expected origin as a string")
    if not (per_day is None or type(per_day) is int):
        raise WitnessError("expected per_day as a whole number")
    return KnownLog.of(vkeys, origin=origin, per_day=per_day)
