"""The guards: commands and servers that must notice an attack, and what they say when they do."""

from __future__ import annotations

import base64
import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from qed.drill.scene import exchange

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from qed.drill.impostors import Impostors
    from qed.drill.processes import Done, Processes, Server
    from qed.drill.scene import Scene

__all__ = ["Attack", "FolderAttack", "Sighting", "Unnoticed"]

_REFUSED: Final = (1, 2)
"""The exit codes of a server that does not start."""
_UNAVAILABLE: Final = 503
_SHOWN_CHARACTERS: Final = 400
_EVIDENCE: Final = re.compile(r"(fork|invalid-entry|suspicion)-.*\.jsonl?")


class Unnoticed(Exception):
    """A guard did not say what it has to say."""


@dataclass(frozen=True)
class Sighting:
    """What a guard said.

    Attributes:
        text: Its words.
        evidence: The file that was kept as evidence, or None.
    """

    text: str
    evidence: Path | None = None


class FolderAttack:
    """An attack on a data folder that a server has left.

    Args:
        run: Runs the product.
        data: The data folder. It is not changed.
        folder: An empty folder for what is damaged or forged.
    """

    def __init__(self, run: Processes, data: Path, folder: Path) -> None:
        self.run: Final = run
        self.data: Final = data
        self.folder: Final = folder
        self._watched_s = time.monotonic()

    def watch(self) -> None:
        """Begin to measure how long the guard takes: the attack is done."""
        self._watched_s = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """For how long the guard has been at work, in seconds."""
        return time.monotonic() - self._watched_s

    def command(self, *args: str | Path, words: str, code: int = 1) -> Sighting:
        """Return the line in which a command says why it fails.

        Args:
            *args: The command.
            words: What the line must match, as a regular expression.
            code: The exit code of the command.

        Raises:
            Unnoticed: The command ends otherwise.
        """
        done = self.run.qed(*args)
        if done.code != code:
            raise _unnoticed(done)
        return self._matched(done.lines, words)

    def refuses_to_start(self, server: Server, words: str) -> Sighting:
        """Return the line in which a server or a witness says why it does not start; otherwise as `command`."""
        is_running = bool(server.url)
        done = server.ended()
        if is_running:
            raise Unnoticed(f"{server.command} started")
        if done.code not in _REFUSED:
            raise _unnoticed(done)
        return self._matched(done.lines, words)

    def _matched(self, lines: Iterable[str], words: str) -> Sighting:
        shown = [self._shown(line) for line in lines]
        for line in reversed(shown):
            if re.search(words, line):
                return Sighting(line, self._evidence())
        raise Unnoticed(f"expected {words!r}, found: {shown[-1] if shown else 'nothing'}")

    def _shown(self, line: str) -> str:
        """Return a line for people, without the folders of this drill."""
        for folder in (self.folder, self.run.folder):
            line = line.replace(f"{folder}/", "")
        return re.sub(r"^qed(-server)?: |^time=.* event=", "", line)[:_SHOWN_CHARACTERS]

    def _evidence(self) -> Path | None:
        files = (path for path in sorted(self.folder.rglob("*")) if _EVIDENCE.fullmatch(path.name))
        return next(files, None)


class Attack(FolderAttack):
    """An attack on a signed log and its users.

    Args:
        scene: The honest log. It is not changed.
        impostors: Other histories under its name.
        folder: An empty folder for what else is damaged or forged.
    """

    def __init__(self, scene: Scene, impostors: Impostors, folder: Path) -> None:
        super().__init__(scene.run, scene.old_data, folder)
        self.scene: Final = scene
        self.impostors: Final = impostors

    def signs_nothing(self, server: Server, words: str) -> Sighting:
        """Return why a server accepts no events; otherwise as `command`."""
        body = json.dumps({"Event": base64.b64encode(b"one more").decode(), "Receipt": "committed"})
        status, answer = exchange(server.url, "/events", body.encode())
        reason = answer.decode(errors="replace")
        if status != _UNAVAILABLE or '"fork_guard"' not in reason or "sign-halted" not in server.output:
            raise Unnoticed(f"the server answered {status}: {reason[:_SHOWN_CHARACTERS]}")
        return self._matched([str(json.loads(answer)["message"])], words)

    def logs(self, server: Server, words: str) -> Sighting:
        """Return a line that a server had logged when it began to listen; otherwise as `command`."""
        return self._matched(server.output.splitlines(), words)

    def verdict(self, done: Done, verdict: str) -> Sighting:
        """Return why a client does not accept an answer; otherwise as `command`.

        Args:
            done: The command of the client.
            verdict: With which verdicts it may end, as a regular expression.
        """
        if done.code != 1 or not any(re.fullmatch(f"Verify: ({verdict})", line) for line in done.lines):
            raise _unnoticed(done)
        return self._matched([done.last_line], "")

    def verify(self, path: Path, *options: str | Path, verdict: str, words: str = "") -> Sighting:
        """Return why `qed verify` does not accept a file; otherwise as `command`.

        Args:
            path: The file.
            *options: Further options.
            verdict: Its verdict.
            words: What its reason must match, as a regular expression.
        """
        done = self.run.qed("verify", path, "--json", *options)
        record = _record(done)
        if record.get("Verify") != verdict or done.code == 0:
            raise _unnoticed(done)
        return self._matched([str(record.get("Reason"))], words)

    def audit(self, source: Path | str, *options: str | Path, policy: Path, kind: str, code: int = 1) -> Sighting:
        """Return what `qed audit` finds; otherwise as `command`.

        Args:
            source: What is audited.
            *options: Further options.
            policy: The keys that are trusted.
            kind: The kind of the finding; or `KO`, if the checkpoint or a file is damaged.
            code: The exit code.
        """
        given = ("--policy", policy, "--evidence-dir", self.folder)
        done = self.run.qed("audit", source, "--json", *given, *options)
        record = _record(done)
        if record.get("Audit") == kind and "Reason" in record and done.code == code:
            return self._matched([str(record["Reason"])], "")
        return self._found(done, record.get("Findings", []), kind, code)

    def monitor(self, *args: Path | str, policy: Path, kind: str, code: int = 1) -> Sighting:
        """Return what a round of `qed monitor` finds, whose state is in the folder of the attack; otherwise as `audit`.

        Args:
            *args: What is watched, and further options.
            policy: The keys that are trusted.
            kind: The kind of the finding.
            code: The exit code.
        """
        given = ("--policy", policy, "--state", self.folder / self.scene.state.name, "--once")
        done = self.run.qed("monitor", "--json", *args, *given)
        record = _record(done)
        return self._found(done, [*record.get("Findings", []), *record.get("Passing", [])], kind, code)

    def convicting(self, sighting: Sighting) -> Sighting:
        """Return a sighting after `qed evidence` has confirmed its evidence.

        Raises:
            Unnoticed: There is no evidence, or it proves nothing.
        """
        if sighting.evidence is None:
            raise Unnoticed(f"no evidence was kept of this: {sighting.text}")
        done = self.run.qed("evidence", sighting.evidence, "--policy", self.scene.word)
        if done.code != 0:
            raise Unnoticed(f"{sighting.evidence.name} does not convict the log: {done.last_line}")
        return sighting

    def _found(self, done: Done, findings: list[dict[str, Any]], kind: str, code: int) -> Sighting:
        texts = [f"{found['Kind']}: {found['Text']}" for found in findings if found["Kind"] == kind]
        if not texts or done.code != code:
            raise _unnoticed(done)
        return self._matched(texts, "")


def _unnoticed(done: Done) -> Unnoticed:
    return Unnoticed(f"`{done.command}` ended with {done.code}: {done.last_line[:_SHOWN_CHARACTERS]}")


def _record(done: Done) -> dict[str, Any]:
    """Return the record that a command has printed for programs."""
    for line in done.lines:
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
    raise _unnoticed(done)
