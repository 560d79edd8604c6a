# SPDX-License-Identifier: Apache-2.0
"""Events of devices by netlink, through pyudev: from udev where it runs, else from the kernel itself."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from orchestrator.agent.events import Event

BUFFER = 8 << 20  # bytes, taken only when used: 1 MiB holds 900 events, and a large host has thousands of memory blocks
MAX_BATCH = 4096  # events taken at once, before anything else is looked at


class Monitor:
    """A socket that becomes readable when a device of these subsystems has come, gone or changed.

    Raises :class:`OSError` or :class:`ImportError` where there is no netlink or no libudev.
    """

    def __init__(self, subsystems: Sequence[str], source: str = "") -> None:
        import pyudev  # noqa: PLC0415  (only a watch needs it)

        # udev tells after its rules have run; without udev the kernel's own message is all that comes.
        self.source = source or ("udev" if Path("/run/udev/control").exists() else "kernel")
        self._monitor: Any = pyudev.Monitor.from_netlink(pyudev.Context(), self.source)
        for name in subsystems:
            self._monitor.filter_by(name)
        with suppress(OSError):  # without root's rights the system's own size has to do
            self._monitor.set_receive_buffer_size(BUFFER)
        self._monitor.start()

    def fileno(self) -> int:
        """For select()."""
        return int(self._monitor.fileno())

    def events(self) -> Iterator[Event]:
        """Everything that is there now; never waits. Raises :class:`OSError`, after the rest, when events were lost."""
        lost: OSError | None = None
        for _ in range(MAX_BATCH):
            try:
                device = self._monitor.poll(timeout=0)
            except OSError as e:
                if lost is not None:
                    raise
                # The socket was full (ENOBUFS). That stays its state, and it readable, until somebody asks for it.
                lost = e
                self._forgive()
                continue
            if device is None:
                break
            properties = device.properties
            yield Event(
                action=str(device.action)[:32],
                subsystem=str(device.subsystem)[:64],
                devpath=str(device.device_path)[:1024],
                driver=str(properties.get("DRIVER", ""))[:64],
            )
        if lost is not None:
            raise lost

    def _forgive(self) -> None:
        """Take the pending error off the socket."""
        with socket.socket(fileno=os.dup(self.fileno())) as same:
            same.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
