# ruff: noqa: INP001, S603 - a script, not a package; it runs this project's own commands
"""Show the whole life of a log with the installed commands: add, prove, prove absence, tamper, detect it.

At the end a log that signs is attacked, as `qed drill` does it in full.

Exits 0 if every step succeeded, or 1 with the reason.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BIN = Path(sys.executable).parent
EVENTS = Path(__file__).with_name("demo-events.txt")
LISTENING = re.compile(r"listening on (http://\S+)")
ATTACKS = ("folder-log", "rollback", "rewrite-monitor", "hidden-event", "forged-proof", "old-absence")
"""One of each kind; `qed drill` alone carries out all."""
COLUMNS = 80
LIMIT_S = 30.0
DRILL_LIMIT_S = 300.0


class DemoError(Exception):
    """A step of the demonstration failed."""


def say(text: str = "") -> None:
    """Print a line at once, so that it appears before the output of the next command.

    Args:
        text: The line.
    """
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def qed(folder: Path, url: str, *args: str, code: int = 0, wanted: str = "", limit_s: float = LIMIT_S) -> None:
    """Show a qed command, run it, and show what it prints.

    Args:
        folder: The working directory, to which file names are relative.
        url: The server.
        *args: Its arguments.
        code: The expected exit code.
        wanted: Text that it must print.
        limit_s: How long it may take, in seconds.

    Raises:
        DemoError: It ended with another code or did not print that text.
    """
    shown = f"$ {shlex.join(('qed', *args))}"
    for option in (" --receipts", " --only rewrite"):
        shown = shown if len(shown) <= COLUMNS else shown.replace(option, f" \\\n     {option}")
    say(shown)
    done = subprocess.run(
        [BIN / "qed", *args],
        cwd=folder,
        env=_environment() | {"QED_ENDPOINTS": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit_s,
        check=False,
    )
    say(done.stdout.rstrip() + "\n")
    if done.returncode != code:
        raise DemoError(f"expected exit code {code}, found {done.returncode}")
    if wanted not in done.stdout:
        raise DemoError(f"expected {wanted!r} in the output")


def start(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Show the server's command and start it on free ports.

    Args:
        folder: Where its data and its log output go.

    Returns:
        The process, and its base URL.

    Raises:
        DemoError: It does not listen in time.
    """
    args = ["--http-addr", "127.0.0.1:0", "--mgmt-addr", "127.0.0.1:0", "--data-dir", "data"]
    say(f"$ {shlex.join(['qed-server', *args])} &")
    log = folder / "server.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen([BIN / "qed-server", *args], cwd=folder, env=_environment(), stderr=stderr)
    deadline = time.monotonic() + LIMIT_S
    while process.poll() is None and time.monotonic() < deadline:
        if found := LISTENING.search(log.read_text()):
            say(log.read_text())
            return process, found[1]
        time.sleep(0.05)
    process.kill()
    raise DemoError(f"the server did not start: {log.read_text().strip()}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Show how the server is stopped, and stop it.

    Args:
        process: The server.

    Raises:
        DemoError: It does not exit with 0.
    """
    say("$ kill -TERM %1; wait %1; echo $?")
    process.send_signal(signal.SIGTERM)
    code = process.wait(LIMIT_S)
    say(f"{code}\n")
    if code != 0:
        raise DemoError(f"expected the server to exit with 0, found {code}")


def tamper(folder: Path) -> None:
    """Change one version in the bundle, to make an event look older than it is.

    Args:
        folder: Where the bundle is.

    Raises:
        DemoError: The bundle does not contain that version.
    """
    say("""$ sed 's/"ActualVersion":40/"ActualVersion":12/' proof.json > forged.json\n""")
    honest = (folder / "proof.json").read_text()
    forged = honest.replace('"ActualVersion":40', '"ActualVersion":12')
    if forged == honest:
        raise DemoError("the bundle does not say that event 0 has version 40")
    (folder / "forged.json").write_text(forged)


def run(folder: Path) -> None:
    """Run the demonstration.

    Args:
        folder: An empty folder.

    Raises:
        DemoError: A step failed.
    """
    (folder / EVENTS.name).write_bytes(EVENTS.read_bytes())
    process, url = start(folder)
    try:
        say("# Add the lines of a file, then four events. Keep their snapshots as receipts.\n")
        qed(folder, url, "add", "--lines", EVENTS.name, "--receipts", "receipts.jsonl", wanted=" Version: 39\n")
        for number in range(4):
            event = f"event {number}"
            qed(
                folder,
                url,
                "add",
                "--event",
                event,
                "--receipts",
                "receipts.jsonl",
                wanted=f" Version: {40 + number}\n",
            )
        receipts = ("--receipts", "receipts.jsonl")
        ok = "Verify: OK\n"
        say("# Is it in the log? Check the answer with the receipts, and keep it.\n")
        qed(folder, url, "membership", "--event", "event 0", *receipts, "--out", "proof.json", wanted=ok)
        qed(folder, url, "membership", "--event", EVENTS.read_text().splitlines()[17], *receipts, wanted=ok)
        say("# And this one, which nobody added?\n")
        qed(folder, url, "membership", "--event", "event 4", *receipts, "--show", wanted=ok)
        say("# Has anything been rewritten since the file was added?\n")
        qed(folder, url, "incremental", "--start", "39", "--end", "43", *receipts, wanted=ok)
        say("# The kept answer needs no server. Forge it, and it fails.\n")
        qed(folder, url, "verify", "proof.json", *receipts, wanted=ok)
        tamper(folder)
        qed(folder, url, "verify", "forged.json", *receipts, code=1, wanted="Verify: KO\n")
        stop(process)
        say("# A log that signs, with witnesses and a monitor, under attack.\n")
        attacks = [word for name in ATTACKS for word in ("--only", name)]
        qed(folder, url, "drill", *attacks, wanted=f"{len(ATTACKS)} attacks, all noticed", limit_s=DRILL_LIMIT_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(LIMIT_S)


def _environment() -> dict[str, str]:
    """Return this process's environment without settings that would change what is shown."""
    return {name: value for name, value in os.environ.items() if not name.startswith("QED_")}


def main() -> int:
    """Run the demonstration in a temporary folder.

    Returns:
        The exit code.
    """
    began_s = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="qed-demo-") as folder:
            run(Path(folder))
    except (DemoError, OSError, subprocess.TimeoutExpired) as exc:
        sys.stderr.write(f"demo: failed: {exc}\n")
        return 1
    say(f"Everything happened as it should, in {time.monotonic() - began_s:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
