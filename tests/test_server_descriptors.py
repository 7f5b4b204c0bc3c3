"""What an operator learns when a server has used up its file descriptors."""

from __future__ import annotations

import contextlib
import socket
import sys
from pathlib import Path
from typing import Final

from harness.process import COMMAND, Server
from harness.wait import LIMIT_S, wait_until

LIMIT: Final = 64
"""Client connections may use a quarter of it."""
LEFT: Final = 8
"""File descriptors left when the server has started: fewer than its clients may use."""

# Limits the file descriptors, opens as many as the first argument says, and becomes the server.
OPEN_AND_RUN: Final = f"""
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT}))
for _ in range(int(sys.argv[1])):
    os.set_inheritable(os.open(os.devnull, os.O_RDONLY), True)
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_the_last_file_descriptor_is_logged(tmp_path: Path) -> None:
    server = Server("full", tmp_path)
    try:
        server.start()
        own = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
        assert server.stop() == 0
        server.command = (sys.executable, "-c", OPEN_AND_RUN, str(LIMIT - LEFT - own), COMMAND)
        server.start()
        with contextlib.ExitStack() as stack:
            for _ in range(LIMIT // 4):
                stack.enter_context(socket.create_connection(server.http_address, LIMIT_S))
            said = f'level=error logger=qed.server.connection event="file descriptors run out" limit={LIMIT}'
            wait_until(lambda: said in server.stderr, "the line in the server's log")
            assert server.stderr.count("file descriptors run out") == 1
    finally:
        server.forget()
