# SPDX-License-Identifier: Apache-2.0
"""What a rehearsal puts into its guest before the crash: eyes in the capture kernel, and the way to crash.

The capture kernel of kdump-tools boots the real root file system, so what stands there watches it. A capture image that
saves from its initramfs (dracut) is not watched: then its memory is simply not known.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Final

from orchestrator.lab.crash_module import MODULE, crash_module
from orchestrator.lab.guest import Guest
from orchestrator.lab.spec import ImageSpec
from orchestrator.proof.crashes import Kind

FOLDER: Final = "/usr/local/lib/kdo-rehearsal"
SECOND_CRASH: Final = f"{FOLDER}/crash-again"
# MemAvailable of the worst moment, each time that it gets worse. No process is started for it: memory is what is measured.
WATCH: Final = f"""\
#!/bin/sh
exec </dev/null
[ ! -e {SECOND_CRASH} ] || echo c > /proc/sysrq-trigger
least=
while :; do
  while read -r key value unit; do
    case $key in MemTotal:) total=$value ;; MemAvailable:) now=$value ;; esac
  done </proc/meminfo
  if [ -z "$least" ] || [ "$now" -lt "$least" ]; then
    least=$now
    echo "kdo-memory: total $total least $least kB" >/dev/console
  fi
  sleep 0.3
done
"""
WATCH_UNIT: Final = f"""\
[Unit]
Description=Watch the memory of the capture kernel
DefaultDependencies=no
Before=kdump-tools-dump.service
[Service]
ExecStart=/bin/sh {FOLDER}/watch
"""
DROP_IN: Final = "[Unit]\nWants=kdo-rehearsal.service\n"
FILES: Final = {
    f"{FOLDER}/watch": WATCH,
    "/etc/systemd/system/kdo-rehearsal.service": WATCH_UNIT,
    "/etc/systemd/system/kdump-tools-dump.service.d/kdo-rehearsal.conf": DROP_IN,
}
MEMORY: Final = re.compile(r"kdo-memory: total (\d+) least (\d+) kB")


def install(guest: Guest) -> None:
    """Put the watcher into the guest. Nothing of it runs before the crash."""
    for path, text in FILES.items():
        guest.ssh(f"mkdir -p {shlex.quote(path.rsplit('/', 1)[0])} && cat > {shlex.quote(path)}", stdin=text)
    guest.ssh("systemctl daemon-reload")


def arrange(guest: Guest, kind: Kind, spec: ImageSpec) -> None:
    """Everything for one crash but the crash itself: settings, module, load, and an empty place for the dump."""
    guest.ssh(f"rm -rf /var/crash/[0-9]* {SECOND_CRASH}")
    for name, value in kind.sysctls.items():
        guest.ssh(["sysctl", "-qw", f"{name}={value}"])
    if kind.capture == "crash":
        guest.ssh(["touch", SECOND_CRASH])
    if kind.module:
        module = crash_module(spec, guest.read("uname -r"))
        guest.copy_to(module, f"{FOLDER}/{MODULE}")
    guest.ssh("sync")
    if kind.background:
        guest.ssh(f"nohup sh -c {shlex.quote(kind.background)} >/dev/null 2>&1 &")
        guest.ssh("sleep 3")


def order(guest: Guest, kind: Kind, cpu: int | None) -> int:
    """Order the crash and return the console position just before it; does not wait for it."""
    mark = guest.console.mark()
    if kind.monitor:
        guest.qmp().execute(kind.monitor)
        return mark
    script = kind.script.replace("{cpu}", str(cpu or 0)) or f"exec insmod {FOLDER}/{MODULE} kind={kind.module}"
    guest.ssh(f"nohup sh -c {shlex.quote('sleep 0.5; ' + script)} >/dev/null 2>&1 &")
    return mark


def memory_seen(console_lines: Sequence[str]) -> tuple[int | None, int | None]:
    """(bytes that the capture kernel had in all, bytes that were available at its worst moment), or None for each."""
    found = [match for text in console_lines if (match := MEMORY.search(text))]
    if not found:
        return None, None
    return int(found[-1][1]) << 10, min(int(match[2]) for match in found) << 10
