# SPDX-License-Identifier: Apache-2.0
"""A crash test on the host itself: is everything ready, crash, and (in the next boot) what it has left.

A marker in the state directory, written durably before the crash, is what the next boot's verdict goes by: the boot that
crashed, and the dumps that were there already. No clock is compared. Nothing of a dump but its panic line leaves the host.
The verdict takes the marker's place: whoever lost the answer on the way asks again, until the next crash test.
"""

import errno
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
JUDGED = "last-crash.json"
TRIGGER = "/proc/sysrq-trigger"
DELAY = 3  # seconds until the crash: the answer has to be out by then
DEPTH = 3  # levels below the dump directory that are looked at
LIMIT = 4 << 20  # bytes of a kernel log that are read, from its end
READ_SECONDS = 600
PROGRAMS = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"  # a login that is not root's often has no sbin
# kdump-tools (with KDUMP_COMPRESSION, too), kdump-utils, SUSE
PACKED = re.compile(r"dump(?:-incomplete|\.[0-9]{8,})\.(?:bz2|gz|lz4|xz)\Z")
DUMP = re.compile(r"(?:dump|vmcore)(?:-incomplete|-flat|\.flat)?(?:\.[0-9]{8,})?\Z|vmcore[-.][A-Za-z0-9._-]*\Z")
LOG = re.compile(r"dmesg(?:\.[0-9]+)?(?:\.txt)?\Z|vmcore-dmesg(?:-incomplete)?\.txt\Z|dmesg\.txt\Z")
PANIC = re.compile(rb"Kernel panic - not syncing[ -~]{0,160}")
# What every kernel says of a written c. Before v4.20 (commit 8341f2f222d7, "sysrq: Use panic() to force a crash") an oops comes
# next, and a capture kernel that is loaded is started from it: such a log has no line of a panic, or that of the oops.
ORDERED = re.compile(rb"(?:sysrq: )?(?:SysRq : |sysrq: )Trigger a crash")
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
        what, fix = "a transaction is running on the host, or a crash is about to come", "wait until it has ended"
        result.update(state="refused", error=_problem(what, "its lock is held", fix))
    except StateError as error:
        result.update(state="refused", error=_problem("the state directory is not safe", str(error), "look at it"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = "%s: %s" % (type(error).__name__, str(error)[:300])
        fix = "look at %s and its filesystem" % STATE_DIR
        result.update(state="refused", error=_problem("the host could not be read or written", why, fix))
    return result


class Host(object):
    """One host's files below ``root`` ("/" but in tests), and the way to crash it."""

    def __init__(self, root="/", state_dir=STATE_DIR, trigger=TRIGGER):
        self.tree = Tree(root)
        self.state = self.tree.real(state_dir) if root != "/" else state_dir
        self.marker = os.path.join(self.state, MARKER)
        self.judged = os.path.join(self.state, JUDGED)
        self.trigger = trigger

    def read(self, path):
        """The marker or the last verdict; None if there is none."""
        try:
            with open(path, "rb") as stream:
                return json.loads(stream.read(1 << 20).decode("utf-8"))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            raise

    def forget(self, path):
        os.unlink(path)
        fsync_dir(self.state)

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
                named = DUMP.match(name) or PACKED.match(name)
                if named and not LOG.match(name) and os.path.isfile(full) and not os.path.islink(full):
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
        if not os.access(self.trigger, os.W_OK):  # kernel.sysrq is about keyboards: a write here is always obeyed
            why = "there is no %s that can be written" % TRIGGER
            raise NotReady(
                "the host has no sysrq to crash it with", why, "a kernel with CONFIG_MAGIC_SYSRQ, no container"
            )
        store = Store(self.state)
        store.check()
        if store.unfinished():
            fix = "kdo apply or kdo rollback finishes it"
            raise NotReady("a transaction on the host is not finished", store.unfinished()[0].name, fix)
        marker = self.read(self.marker)
        if marker is not None:
            if marker["boot_id"] == now:
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
    """Leave the marker, and have the host crash in a few seconds. ``crash(trigger, cpu, delay, keep)`` does it."""
    result = {"changed": False, "state": "ordered", "error": None}

    def work():
        make_private(host.state)
        with Lock(host.state) as lock:
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
            try:
                (crash or crash_soon)(host.trigger, spec.get("cpu"), DELAY, lock.handle)
            except OSError:
                host.forget(host.marker)
                raise
            result.update(changed=True, boot_id=now)

    return _guard(result, work)


def crash_soon(trigger, cpu, delay, keep):
    """A process of its own that waits and then crashes the machine; of what is open it has only ``keep``, the lock.

    Raises OSError, with nothing begun, where the CPU is not for us (a cpuset).
    """
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})  # children inherit it
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        os.closerange(3, 1 << 16 if keep is None else keep)
        if keep is not None:
            os.closerange(keep + 1, 1 << 16)
        time.sleep(delay)
        handle = os.open(trigger, os.O_WRONLY)
        os.write(handle, b"c")
    finally:
        os._exit(1)


def verdict(spec, host):
    """What the crash has left, after it. The marker goes when something can be said; that stays until the next crash test."""
    result = {"changed": False, "state": "nothing", "error": None, "dump": None}

    def work():
        with Lock(host.state, create=False):
            Store(host.state).check()
            marker = host.read(host.marker)
            if marker is None:
                result.update(_told(host, spec))
                return
            _ours(spec, marker)
            result.update({key: marker[key] for key in ("token", "cpu", "kernel", "at")})
            if marker["boot_id"] == boot_id(host.tree):
                result["state"] = "not-crashed"
            else:
                result.update(state="crashed", dump=_newest(host, marker))
            result["changed"] = True
            write_whole(host.judged, json.dumps(result).encode("utf-8"), 0o600)
            host.forget(host.marker)

    return _guard(result, work)


def _told(host, spec):
    """The verdict that was given before: its answer may have been lost on the way."""
    told = host.read(host.judged)
    if told is None:
        raise NotReady("no crash test waits for its verdict", "there is no marker on the host", "order one")
    _ours(spec, told)
    told.update(changed=False, again=True)
    return told


def _ours(spec, marker):
    if spec.get("token") and marker["token"] != spec["token"]:
        why, fix = "somebody else has ordered one", "kdo crash-test HOST --verdict"
        raise NotReady("the marker is another crash test's", why, fix)


def _newest(host, marker):
    """The newest dump that was not there before the crash, judged; None if there is none."""
    had = set(marker["had"])
    new = {path: facts for path, facts in host.dumps(marker["folder"]).items() if path not in had}
    if not new:
        return None
    found = judge(max(new, key=lambda path: new[path][1]))
    found["path"] = "/" + os.path.relpath(found["path"], host.tree.root)
    return found


def judge(path, makedumpfile="makedumpfile"):
    """One dump: size, whether its collector finished it, its panic line and who has read that.

    ``problems`` speak against it; ``notes`` say why it was not read here, which says nothing about it.
    """
    name, folder = os.path.basename(path), os.path.dirname(path)
    out = {"path": path, "size": os.path.getsize(path), "complete": False, "panic": "", "readers": []}
    out.update(problems=[], notes=[])
    if not out["size"]:
        out["problems"].append("it is empty")
        return out
    if "incomplete" in name:
        out["problems"].append("its collector did not finish it")
    try:
        text = _log_by_makedumpfile(path, makedumpfile)
        read = True
    except NotRead as error:
        out["notes"].append("%s: only the log that was saved beside it was looked at" % error)
        text, read = _saved_log(folder), False
    except Broken as error:
        out["problems"].append(str(error))
        text, read = _saved_log(folder), False
    panics, ordered = PANIC.findall(text), ORDERED.findall(text)
    if panics or ordered:
        out["panic"] = (panics or ordered)[-1].decode("ascii", "replace")
        out["readers"] = ["makedumpfile"] if read else []
        if not ordered and b"sysrq triggered crash" not in panics[-1]:
            out["problems"].append("its panic is not the one that was ordered")
    elif read:
        out["problems"].append("its kernel log has no panic")
    out["complete"] = read and not out["problems"]
    return out


class NotRead(Exception):
    """The dump could not be read here, for a reason that is not its own."""


class Broken(Exception):
    """makedumpfile has failed on the dump."""


def _log_by_makedumpfile(path, program):
    """The end of the kernel log in a dump. A flattened one is rebuilt first, where there is room for it."""
    if PACKED.search(os.path.basename(path)):
        raise NotRead("it is compressed by its collector")
    with open(path, "rb") as stream:
        flattened = stream.read(len(FLATTENED)) == FLATTENED
    made = []
    try:
        made.append(_private(None))  # the log is small; beside the dump there may be no room at all
        log = os.path.join(made[0], "log")
        if flattened:
            room = os.statvfs(os.path.dirname(path))
            if room.f_bavail * room.f_frsize < 2 * os.path.getsize(path):
                raise NotRead("there is no room to rebuild the flattened dump")
            made.append(_private(os.path.dirname(path)))
            core = os.path.join(made[1], "core")
            with open(path, "rb") as stream:
                _run([program, "-R", core], stream)
            path = core
        _run([program, "--dump-dmesg", path, log])
        return _end(log)
    finally:
        for folder in made:
            shutil.rmtree(folder, ignore_errors=True)


def _private(folder):
    try:
        return tempfile.mkdtemp(prefix=".kdo-", dir=folder)
    except OSError as error:
        raise NotRead("there is no place to work in (%s)" % error.strerror)


def _run(argv, stdin=None):
    """Raises NotRead or Broken. A broken dump can keep makedumpfile busy for ever."""
    words = " ".join(argv[:2])
    environment = dict(os.environ, LC_ALL="C", PATH=os.environ.get("PATH", "") + os.pathsep + PROGRAMS)
    try:
        with open(os.devnull, "rb") as nothing:
            done = subprocess.run(
                argv,
                check=False,
                stdin=stdin or nothing,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=READ_SECONDS,
                env=environment,
            )
    except OSError:
        raise NotRead("%s cannot be run" % argv[0])
    except subprocess.TimeoutExpired:
        raise Broken("%s did not end within %d s" % (words, READ_SECONDS))
    if done.returncode:
        raise Broken("%s failed (%d): %s" % (words, done.returncode, done.stdout[-200:].decode("utf-8", "replace")))


def _end(path):
    """The last bytes of a log: that is where a panic stands."""
    with open(path, "rb") as stream:
        stream.seek(max(0, os.path.getsize(path) - LIMIT))
        return stream.read(LIMIT)


def _saved_log(folder):
    for name in sorted(os.listdir(folder)):
        full = os.path.join(folder, name)
        if LOG.match(name) and os.path.isfile(full) and not os.path.islink(full):
            return _end(full)
    return b""
