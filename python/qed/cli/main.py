"""The `qed` command itself: find the command, run it, and turn its outcome into an exit code."""

from __future__ import annotations

import os
import re
import signal
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from click.shell_completion import shell_complete

from qed import __version__
from qed.cli.completion import COMPLETE_VARIABLE, PROGRAM
from qed.cli.options import Command, Group, global_options, write_examples
from qed.cli.signals import Interrupted
from qed.cli.terminal import close_streams, open_streams, print_error, show_warnings
from qed.errors import (
    BackupError,
    CertificateError,
    CorruptLog,
    DamagedBackup,
    Inconclusive,
    InternalError,
    MonitorError,
    NotLeader,
    OutcomeUnknown,
    PolicyError,
    QedError,
    ReceiptsError,
    Unavailable,
    VerificationError,
    WitnessError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

# Each command with its module, which is imported only when it runs: `qed verify` needs no HTTP client.
_COMMANDS: Final = {
    "add": "qed.cli.events",
    "membership": "qed.cli.proofs",
    "incremental": "qed.cli.proofs",
    "snapshot": "qed.cli.events",
    "verify": "qed.cli.verify",
    "evidence": "qed.cli.evidence",
    "audit": "qed.cli.audit",
    "publish": "qed.cli.publish",
    "monitor": "qed.cli.monitor",
    "export": "qed.cli.export",
    "info": "qed.cli.info",
    "cluster": "qed.cli.cluster",
    "keys": "qed.cli.keys",
    "check": "qed.cli.check",
    "backup": "qed.cli.backup",
    "restore": "qed.cli.restore",
    "recover": "qed.cli.restore",
    "certs": "qed.cli.certs",
    "log-key": "qed.cli.log_key",
    "witness": "qed.cli.witness",
    "signer": "qed.cli.signer",
    "drill": "qed.cli.drill",
    "completion": "qed.cli.completion",
}

_EXIT_VERIFICATION: Final = 1
_EXIT_USAGE: Final = 2
_EXIT_UNAVAILABLE: Final = 3
_EXIT_REFUSED: Final = 4
_EXIT_INCONCLUSIVE: Final = 5
_EXIT_BUG: Final = 70  # EX_SOFTWARE of sysexits.h
_EXIT_SIGNAL: Final = 128  # and the number of the signal, as a shell reports it
_EXIT_PIPE: Final = 128 + 13  # as a shell reports SIGPIPE

# What is wrong with a file of the user's.
_OF_FILES: Final = (BackupError, CertificateError, MonitorError, PolicyError, ReceiptsError, WitnessError)

_EXIT_CODES: Final = (
    ("0", "success"),
    ("1", "verification failed (false, stale, a fork, no trusted root), evidence proves nothing, or a log is damaged"),
    ("2", "wrong usage, or a file that cannot be read or written"),
    ("3", "no server answered, none leads, or the answer to an add is unreadable; what was sent may have been done"),
    ("4", "the server refused the request"),
    ("5", "cannot be concluded: it rests on the server's own word, or witnesses that the policy requires are missing"),
    ("70", "a bug in qed"),
    ("129", "ended by SIGHUP, as when a terminal closes"),
    ("130", "interrupted with Ctrl-C"),
    ("141", "output pipe closed"),
    ("143", "ended by SIGTERM"),
)


class _Root(click.Group):
    """The commands, each imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        module = _COMMANDS.get(cmd_name)
        if module is None:
            return None
        found: Command | Group = getattr(import_module(module), cmd_name.replace("-", "_"))
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as exc:
            # click knows only the commands that are loaded.
            raise click.exceptions.NoSuchCommand(exc.command_name, possibilities=_COMMANDS, ctx=ctx) from None

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Exit codes"):
            formatter.write_dl(_EXIT_CODES)
        write_examples(
            formatter,
            [
                'qed add --event "event 0" --receipts receipts.jsonl',
                'qed membership --event "event 0" --receipts receipts.jsonl',
                "qed --endpoints http://10.0.0.1:8800,http://10.0.0.2:8800 info",
            ],
        )


_ROOT: Final = _Root(
    PROGRAM,
    params=global_options(has_environment=True),
    no_args_is_help=True,
    help="""Add events to a tamper-evident log, and verify its servers' answers.

    The options below may be given before or after the command. Results are printed on stdout, all else on stderr.
    """,
)
click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")(_ROOT)


def main(args: Sequence[str] | None = None) -> None:
    """Run `qed` and exit.

    Args:
        args: The arguments, or None for those of the process.

    Raises:
        SystemExit: Always; its code is one of those in `qed --help`.
    """
    open_streams()
    show_warnings()
    try:
        sys.exit(_run(sys.argv[1:] if args is None else args))
    except BrokenPipeError as exc:
        # The notes say whether events were added; the user must still learn that.
        if notes := getattr(exc, "__notes__", ()):
            with suppress(OSError):
                print_error("; ".join(["output pipe closed", *notes]))
        close_streams()
        sys.exit(_EXIT_PIPE)


def _run(args: Sequence[str]) -> int:
    """Run a command line and return its exit code. Raise only BrokenPipeError: its message has no reader."""
    try:
        if instruction := os.environ.get(COMPLETE_VARIABLE):
            return shell_complete(_ROOT, {}, PROGRAM, COMPLETE_VARIABLE, instruction)
        with _ROOT.make_context(PROGRAM, list(args)) as context:
            _ROOT.invoke(context)
    except BrokenPipeError:
        raise
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.exceptions.NoArgsIsHelpError as exc:
        exc.show()
        return _EXIT_USAGE
    except (KeyboardInterrupt, QedError, click.ClickException, OSError) as exc:
        print_error(_sentence(exc))
        return _exit_code(exc)
    except Exception as exc:  # noqa: BLE001  # the last place before Python's own traceback, and exit code 1 means KO
        origin = traceback.extract_tb(exc.__traceback__)[-1]
        place = f"{Path(origin.filename).name}:{origin.lineno}"
        print_error(f"a bug in qed, please report it: {type(exc).__name__}: {exc} ({place})")
        return _EXIT_BUG
    return 0


def _exit_code(exc: BaseException) -> int:
    match exc:
        case KeyboardInterrupt():
            return _EXIT_SIGNAL + (exc.number if isinstance(exc, Interrupted) else signal.SIGINT)
        case VerificationError() | CorruptLog() | DamagedBackup():
            return _EXIT_INCONCLUSIVE if isinstance(exc, Inconclusive) else _EXIT_VERIFICATION
        case Unavailable() | NotLeader() | OutcomeUnknown():
            return _EXIT_UNAVAILABLE
        case InternalError():
            return _EXIT_BUG
        case QedError() if not isinstance(exc, _OF_FILES):
            return _EXIT_REFUSED
        case _:
            return _EXIT_USAGE


def _sentence(exc: BaseException) -> str:
    """Return an exception's message for people, with its notes."""
    match exc:
        case Interrupted(number=signal.SIGTERM):
            text = "terminated"
        case Interrupted(number=signal.SIGHUP):
            text = "hung up"
        case KeyboardInterrupt():
            text = "interrupted"
        case click.UsageError():
            # click lists each choice on its own line.
            text = re.sub(r"\n\t?", " ", exc.format_message())
            if exc.ctx is not None:
                text = f"{text.rstrip('.')} (see {exc.ctx.command_path} --help)"
        case click.ClickException():
            text = exc.format_message()
        case OSError():
            text = exc.strerror or str(exc)
            text = text if exc.filename is None else f"{exc.filename}: {text}"
        case _:
            text = str(exc)
    return "; ".join([text, *getattr(exc, "__notes__", ())])
