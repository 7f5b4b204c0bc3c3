"""The entry point of the `qed` command, which handles Ctrl-C even during the imports.

It is outside the package `qed`: importing any module of that package imports `qed` itself, which is slow.
"""

from __future__ import annotations

import os

__all__ = ["main"]

_EXIT_INTERRUPTED = 130


def main() -> None:
    """Run `qed` and exit.

    Raises:
        SystemExit: Always; its code is one of those in `qed --help`.
    """
    try:
        from qed.cli.main import main as run  # noqa: PLC0415 - the point of this file
    except KeyboardInterrupt:
        # Skip the interpreter's clean-up, which is not reliable after an interrupted import.
        os.write(2, b"qed: interrupted\n")
        os._exit(_EXIT_INTERRUPTED)
    run()
