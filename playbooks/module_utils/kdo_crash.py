# SPDX-License-Identifier: Apache-2.0
"""A crash test on the host itself: is everything ready, crash, and (in the next boot) what it has left.

A marker in the state directory, written durably before the crash, is what the next boot's verdict goes by: the boot that
crashed, and the dumps that were there already. No clock is compared. Nothing of a dump but its panic line leaves the host.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time

try:
    from ansible.module_utils.kdo_txn_fs import Tree, fsync_dir, write_whole
    from ansible.module_utils.kdo_txn_host import boot_id, loaded, running_release
    from ansible.module_utils.kdo_txn_log import Busy, Lock, StateError, Store, make_private
except ImportError:
    from kdo_txn_fs import Tree, fsync_dir, write_whole
    from kdo_txn_host import boot_id, loaded, running_release
    from kdo_txn_log import Busy, Lock, StateError, Store, make_private

STATE_DIR = "/var/lib/kdump-orchestrator"
MARKER = "crash-test.json"
TRIGGER = "/proc/sysrq-trigger"
DELAY = 3  # seconds until the crash: the answer has to be out by then
DEPTH = 3  # levels below the dump directory that are looked at
LIMIT = 4 << 20  # bytes of a kernel log that are read
READ_SECONDS = 600
# kdump-tools, kdump-utils, SUSE
DUMP = re.compile(r"(?:dump|vmcore)(?:-incomplete|-flat|\.flat)?(?:\.[0-9]{8,})?\Z|vmcore[-.][A-Za-z0-9._-]*\Z")
LOG = re.compile(r"dmesg(?:\.[0-9]+)?(?:\.txt)?\Z|vmcore-dmesg(?:-incomplete)?\.txt\Z|dmesg\.txt\Z")
PANIC = re.compile(rb"Kernel panic - not syncing[ -~]{0,160}")
FLATTENED = b"makedumpfile"


class NotReady(Exception):
    """(what, why, fix)."""


def _problem(what, why, fix):
    return {"what": what, "why": why, "fix": fix}


def _guard(result, function):
    try:
        function()
    except NotReady as error:
        result.update(state="refused", error=_problem(*error.args))
    except Busy:
        fix = "wait until it has ended"
        result.update(state="refused", error=_problem("a transaction is running on the host", "its lock is held", fix))
    except StateError as error:
        result.update(state="refused", error=_problem("the state directory is not safe", str(error), "look at it"))
    except (OSError, ValueError) as error:
        result.update(state="refused", error=_problem("the host could not be read or written", str(error)[:300], ""))
    return result


class Host(object):
    """One host's files below ``root`` ("/" but in tests), and the way to crash it."""

    def __init__(self, root="/", state_dir=STATE_DIR, trigger=TRIGGER):
        self.tree = Tree(root)
        self.state = self.tree.real(state_dir) if root != "/" else state_dir
        self.marker = os.path.join(self.state, MARKER)
        self.trigger = trigger

    def read_marker(self):
        try:
            with open(self.marker, "rb") as stream:
                return json.loads(stream.read(1 << 20).decode("utf-8"))
        except (OSError, ValueError):
            return None

    def folder(self, path):
        if not re.match(r"/[A-Za-z0-9._/@+-]*\Z", path) or "/../" in path + "/":
            raise NotReady("the dump directory is not valid", "it is not a plain absolute path", "look at the plan")
        return self.tree.real(path)

    def dumps(self, path):
        """``{path: [size, mtime]}`` of the files that look like dumps."""
        found, top = {}, self.folder(path)
        for folder, folders, names in os.walk(top):
            if folder[len(top) :].count("/") >= DEPTH:
                del folders[:]
            for name in names:
                full = os.path.join(folder, name)
                if DUMP.match(name) and not LOG.match(name) and os.path.isfile(full) and not os.path.islink(full):
                    info = os.stat(full)
                    found[full] = [info.st_size, info.st_mtime]
        return found

    def cpus(self):
        """Numbers of the CPUs that are online; sysfs says ``0-3,8``."""
        out = set()
        for part in (self.tree.value("/sys/devices/system/cpu/online") or "0").split(","):
            first, _, last = part.partition("-")
            if first.isdigit() and (last or first).isdigit():
                out.update(range(int(first), int(last or first) + 1))
        return out

    def ready(self, cpu):
        """Raises NotReady unless a crash now would be a fair test and hurts nobody else's work."""
        now = boot_id(self.tree)
        if not now:
            raise NotReady("the boot cannot be told from the next one", "there is no boot_id", "mount /proc")
        if loaded(self.tree) != "1":
            fix = "kdo validate says more"
            raise NotReady("no capture kernel is loaded", "the crash would be lost", fix)
        store = Store(self.state)
        store.check()
        if store.unfinished():
            fix = "kdo apply or kdo rollback finishes it"
            raise NotReady("a transaction on the host is not finished", store.unfinished()[0].name, fix)
        marker = self.read_marker()
        if marker is not None:
            if marker.get("boot_id") == now:
                fix = "wait for it, or remove %s if nothing comes" % self.marker
                raise NotReady("a crash was ordered in this boot already", "its marker is there", fix)
            fix = "kdo crash-test HOST --verdict"
            raise NotReady("an earlier crash test was never judged", "its marker is there", fix)
        if cpu is not None and cpu not in self.cpus():
            have = ", ".join(str(number) for number in sorted(self.cpus()))
            raise NotReady("the host has no CPU %d" % cpu, "online are %s" % have, "choose one of them")
        return now


def check(spec, host):
    """Every precondition, and nothing is written."""
    result = {"changed": False, "state": "check", "error": None}

    def work():
        with Lock(host.state, create=False):
            result["boot_id"] = host.ready(spec.get("cpu"))
            host.dumps(spec["folder"])

    return _guard(result, work)


def order(spec, host, crash=None):
    """Leave the marker, and have the host crash in a few seconds. ``crash(trigger, cpu, delay)`` does it."""
    result = {"changed": False, "state": "ordered", "error": None}

    def work():
        make_private(host.state)
        with Lock(host.state):
            now = host.ready(spec.get("cpu"))
            if now != spec["boot_id"]:
                raise NotReady("the host has rebooted since it was checked", "its boot_id is another", "start again")
            marker = {
                "token": spec["token"],
                "boot_id": now,
                "at": time.time(),
                "cpu": spec.get("cpu"),
                "kernel": running_release(host.tree),
                "folder": spec["folder"],
                "had": sorted(host.dumps(spec["folder"])),
            }
            write_whole(host.marker, json.dumps(marker).encode("utf-8"), 0o600)
            os.sync()
            (crash or crash_soon)(host.trigger, spec.get("cpu"), DELAY)
            result.update(changed=True, boot_id=now)

    return _guard(result, work)


def crash_soon(trigger, cpu, delay):
    """A process of its own, with nothing of ours open, that waits and then crashes the machine."""
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.closerange(3, 1 << 16)
    time.sleep(delay)
    try:
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})
        handle = os.open(trigger, os.O_WRONLY)
        os.write(handle, b"c")
    finally:
        os._exit(1)


def verdict(spec, host):
    """What the crash has left, after it. The marker goes when something can be said."""
    result = {"changed": False, "state": "nothing", "error": None, "dump": None}

    def work():
        with Lock(host.state, create=False):
            marker = host.read_marker()
            if marker is None:
                raise NotReady("no crash test waits for its verdict", "there is no marker on the host", "")
            if spec.get("token") and marker.get("token") != spec["token"]:
                raise NotReady(
                    "the marker is another crash test's",
                    "somebody else has ordered one",
                    "kdo crash-test HOST --verdict",
                )
            result.update(token=marker["token"], cpu=marker["cpu"], kernel=marker["kernel"], at=marker["at"])
            if marker["boot_id"] == boot_id(host.tree):
                result["state"] = "not-crashed"
            else:
                result["state"] = "crashed"
                had = set(marker["had"])
                new = {p: v for p, v in host.dumps(marker["folder"]).items() if p not in had}
                if new:
                    result["dump"] = judge(max(new, key=lambda path: new[path][1]))
                    result["dump"]["path"] = "/" + os.path.relpath(result["dump"]["path"], host.tree.root)
            os.unlink(host.marker)
            fsync_dir(host.state)
            result["changed"] = True

    return _guard(result, work)


def judge(path, makedumpfile="makedumpfile"):
    """One dump: size, whether its collector finished it, its panic line and who has read that."""
    out = {"path": path, "size": os.path.getsize(path), "complete": False, "panic": "", "readers": [], "problems": []}
    name = os.path.basename(path)
    if not out["size"]:
        out["problems"].append("it is empty")
        return out
    if "incomplete" in name:
        out["problems"].append("its collector did not finish it")
    work = tempfile.mkdtemp(prefix=".kdo-", dir=os.path.dirname(path))
    try:
        text, problem = _log_by_makedumpfile(path, work, makedumpfile)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    found = PANIC.findall(text)
    if found:
        out["readers"].append("makedumpfile")
    else:
        out["problems"].append(problem or "its kernel log has no panic")
        text = _saved_log(os.path.dirname(path))
        found = PANIC.findall(text)
    out["panic"] = found[-1].decode("ascii", "replace") if found else ""
    out["complete"] = not out["problems"] and b"sysrq triggered crash" in (found[-1] if found else b"")
    if not out["complete"] and not out["problems"]:
        out["problems"].append("its panic is not the one that was ordered")
    return out


def _log_by_makedumpfile(path, work, program):
    """(kernel log, problem). A flattened dump is rebuilt first, where there is room for it."""
    core, log = path, os.path.join(work, "log")
    with open(path, "rb") as stream:
        flattened = stream.read(len(FLATTENED)) == FLATTENED
    if flattened:
        room = os.statvfs(work)
        if room.f_bavail * room.f_frsize < 2 * os.path.getsize(path):
            return b"", "there is no room to rebuild the flattened dump, so only the saved log was read"
        core = os.path.join(work, "core")
        with open(path, "rb") as stream:
            problem = _run([program, "-R", core], stream)
        if problem:
            return b"", problem
    problem = _run([program, "--dump-dmesg", core, log])
    if problem:
        return b"", problem
    with open(log, "rb") as stream:
        return stream.read(LIMIT), ""


def _run(argv, stdin=None):
    """Why the command did not do its work; empty if it did. A broken dump can keep makedumpfile busy for ever."""
    try:
        with open(os.devnull, "rb") as nothing:
            done = subprocess.run(
                argv,
                check=False,
                stdin=stdin or nothing,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=READ_SECONDS,
            )
    except OSError:
        return "%s cannot be run" % argv[0]
    except subprocess.TimeoutExpired:
        return "%s did not end within %d s" % (" ".join(argv[:2]), READ_SECONDS)
    if done.returncode:
        return "%s failed (%d): %s" % (
            " ".join(argv[:2]),
            done.returncode,
            done.stdout[-200:].decode("utf-8", "replace"),
        )
    return ""


def _saved_log(folder):
    for name in sorted(os.listdir(folder)):
        full = os.path.join(folder, name)
        if LOG.match(name) and os.path.isfile(full) and not os.path.islink(full):
            with open(full, "rb") as stream:
                return stream.read(LIMIT)
    return b""
