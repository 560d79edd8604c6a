# SPDX-License-Identifier: Apache-2.0
"""Connect the client on standard input with a port of 127.0.0.1, then end with either side.

QEMU's user network runs ``python3 -I relay.py PORT`` for each connection that a guest makes to a forwarded address.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading

BLOCK = 1 << 18


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):  # either side has gone
        while data := source.recv(BLOCK):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def relay(port: int) -> None:
    """Copy bytes both ways between file descriptor 0 and the port until both have ended."""
    client = socket.socket(fileno=os.dup(0))
    with client, socket.create_connection(("127.0.0.1", port)) as server:
        back = threading.Thread(target=_pump, args=(server, client), daemon=True)
        back.start()
        _pump(client, server)
        back.join(10)  # a guest that has died sends nothing more, and wants no answer either


if __name__ == "__main__":
    relay(int(sys.argv[1]))
