# SPDX-License-Identifier: Apache-2.0
"""Runs inside a guest: a real apply with one failure at a chosen step, and what the host looks like.

    inject.py picture                 state of the host as JSON (contents, modes, owners, links, kernel values, units)
    inject.py apply MODE STEP         apply /root/change.json, injecting MODE at step number STEP
    inject.py recover                 what the next call does

The engine's own modules lie beside this file. Only the moment is made up; what happens at it is real: SIGKILL of the
engine (with its command left running, as a killed ssh session leaves it), a command that does not do its work, no room
left on the disk, a filesystem that turns read-only, and, for power loss, a wait in which the machine is switched off.
"""

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import kdo_txn
import kdo_txn_cmd
import kdo_txn_steps

STATE = "/var/lib/kdump-orchestrator"
TREES = ("/etc", "/boot", "/var/lib/kdump", "/usr/lib/systemd/system", "/usr/sbin")
SINGLE = ("/var/crash/kexec_cmd",)
VALUES = (
    "/sys/kernel/kexec_crash_loaded", "/sys/module/kernel/parameters/crash_kexec_post_notifiers",
    "/proc/sys/kernel/panic_on_oops", "/proc/sys/kernel/unknown_nmi_panic",
)  # fmt: skip
# Written by the system itself, whether anybody changes anything or not.
OTHERS = ("/etc/resolv.conf", "/etc/mtab", "/boot/grub/grubenv", "/etc/machine-id", "/etc/ld.so.cache")
FILLER = "/var/kdo-filler"


def entry(path):
    info = os.lstat(path)
    row = [stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid]
    if stat.S_ISLNK(info.st_mode):
        return [*row, "link", os.readlink(path)]
    if stat.S_ISDIR(info.st_mode):
        return [*row, "dir"]
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return [*row, "file", digest.hexdigest()]


def picture():
    found = {}
    for root in TREES:
        for folder, folders, names in os.walk(root):
            for name in folders + names:
                path = os.path.join(folder, name)
                if path not in OTHERS:
                    found[path] = entry(path)
    for path in SINGLE:
        if os.path.lexists(path):
            found[path] = entry(path)
    for path in VALUES:
        if os.path.exists(path):
            with open(path) as stream:
                found[path] = stream.read().strip()
    done = subprocess.run(["systemctl", "is-enabled", "kdump-tools"], stdout=subprocess.PIPE, text=True)
    found["unit"] = done.stdout.strip()
    return found


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def power():
    """Tell the machine's owner over the console, and wait to be switched off."""
    with open("/dev/ttyS0", "w") as console:
        console.write("\nKDO-INJECT-POWER\n")
    time.sleep(3600)


def fill():
    """Leave no block, also none of those that are kept for root."""
    with open(FILLER, "wb") as stream:
        try:
            while True:
                stream.write(b"\0" * (1 << 20))
                stream.flush()
        except OSError:
            pass
        try:
            while True:
                stream.write(b"\0" * 4096)
                stream.flush()
        except OSError:
            pass


def read_only():
    with open("/proc/sysrq-trigger", "w") as stream:
        stream.write("u")
    for _ in range(100):
        with open("/proc/self/mountinfo") as stream:
            row = next(line for line in stream if line.split()[4] == "/")
        if "ro" in row.split()[-1].split(","):
            return
        time.sleep(0.1)


def inject(mode, number):
    """Wrap the engine so that step `number` meets its failure."""
    real, runner = kdo_txn_steps.Doer.do, kdo_txn_cmd.Runner.__call__
    now = {"step": None}

    def do(self, index, step):
        now["step"] = index
        if index == number:
            if mode == "kill-before":
                die()
            if mode == "power-before":
                power()
            if mode == "full":
                fill()
            if mode == "read-only":
                read_only()
        done = real(self, index, step)
        if index == number:
            if mode == "kill-after":
                die()
            if mode == "power-after":
                power()
            if mode == "fail-after":
                raise OSError(5, "Input/output error (injected)")
        return done

    def run(self, name, argv, timeout):
        at = now["step"] == number
        if at and mode == "kill-amid":
            threading.Timer(0.7, die).start()
        if at and mode == "power-amid":
            threading.Timer(0.7, power).start()
        if at and mode == "command-fails":
            return 1, "injected"
        return runner(self, name, argv, timeout)

    kdo_txn_steps.Doer.do = do
    kdo_txn_cmd.Runner.__call__ = run


def main(argv):
    if argv[0] == "picture":
        out = picture()
    elif argv[0] == "apply":
        inject(argv[1], int(argv[2]))
        with open("/root/change.json") as stream:
            out = kdo_txn.run(json.load(stream))
        if os.path.exists(FILLER):
            os.unlink(FILLER)
    elif argv[0] == "recover":
        out = kdo_txn.recover(wait=600)  # a killed apply leaves its command running, which keeps the lock
    else:
        out = kdo_txn.rollback()
    print(json.dumps(out))


if __name__ == "__main__":
    main(sys.argv[1:])
