# SPDX-License-Identifier: Apache-2.0
"""Events of devices by netlink, through pyudev: from udev where it runs, else from the kernel itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from orchestrator.agent.events import Event

BUFFER = 1 << 20  # bytes: a hundred memory blocks come online within a moment
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
        """Everything that is there now; never waits. Raises :class:`OSError` when events were lost (ENOBUFS)."""
        for _ in range(MAX_BATCH):
            device = self._monitor.poll(timeout=0)
            if device is None:
                return
            properties = device.properties
            yield Event(
                action=str(device.action)[:32],
                subsystem=str(device.subsystem)[:64],
                devpath=str(device.device_path)[:1024],
                driver=str(properties.get("DRIVER", ""))[:64],
            )
