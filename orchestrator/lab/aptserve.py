# SPDX-License-Identifier: Apache-2.0
"""Serve a directory over HTTP to the one client that is on standard input, read only, then end.

QEMU's user network runs ``python3 -I aptserve.py DIRECTORY`` for each connection, with the connection's socket as
standard input, output and error. Nothing but HTTP may therefore ever be printed.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from http.server import SimpleHTTPRequestHandler
from typing import Any

IDLE_SECONDS = 60  # a guest that has died never closes its connection


class QuietHandler(SimpleHTTPRequestHandler):
    """Keeps the connection for several requests, as apt likes it, and logs nothing."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: standard error is the client."""


def serve(directory: str) -> None:
    """Answer the client on file descriptor 0 until it closes or is idle for :data:`IDLE_SECONDS`."""
    connection = socket.socket(fileno=os.dup(0))
    with connection, open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 2)  # a traceback must not reach the client either
        with contextlib.suppress(OSError):  # the client has gone
            QuietHandler(connection, ("guest", 0), None, directory=directory)  # type: ignore[arg-type]


if __name__ == "__main__":
    serve(sys.argv[1])
