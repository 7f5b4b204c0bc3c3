"""The first lines of the `qed` command: Ctrl-C is quiet from here on, also while the rest is being imported.

Importing anything below `qed` imports `qed` itself, a good part of the wait, so this stands beside it.
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
        # An interpreter whose imports were cut short is not asked to clean up.
        os.write(2, b"qed: interrupted\n")
        os._exit(_EXIT_INTERRUPTED)
    run()
