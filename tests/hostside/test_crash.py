# SPDX-License-Identifier: Apache-2.0
"""The host side of a crash test, against a tree in a temporary directory: nothing here can reach the real trigger."""

import ast
import json
import os
import time
from pathlib import Path

import pytest

from orchestrator.hostside import load

crash = load("kdo_crash")
BOOT = "11111111-2222-3333-4444-555555555555"
LATER = "99999999-2222-3333-4444-555555555555"
SPEC = {"folder": "/var/crash", "cpu": None, "boot_id": BOOT, "token": "ab" * 8}


class FakeHost:
    def __init__(self, root: Path):
        self.root, self.ordered = root, []
        self.put("/proc/sys/kernel/random/boot_id", BOOT)
        self.put("/proc/sys/kernel/osrelease", "6.1.0-1")
        self.put("/sys/kernel/kexec_crash_loaded", "1")
        self.put("/sys/devices/system/cpu/online", "0-2,5")
        (root / "var/crash").mkdir(parents=True)
        (root / "var/lib").mkdir(parents=True)
        self.host = crash.Host(str(root), trigger=str(root / "trigger"))
        (root / "trigger").write_text("")

    def put(self, path, text):
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n") if isinstance(text, str) else file.write_bytes(text)
        return file

    def order(self, **changes):
        return crash.order({**SPEC, **changes}, self.host, lambda *what: self.ordered.append(what))

    def crashed(self):
        """The machine has been through it."""
        self.put("/proc/sys/kernel/random/boot_id", LATER)


@pytest.fixture
def machine(tmp_path):
    return FakeHost(tmp_path)


def tree(root):
    return {str(p): (p.lstat().st_mtime_ns, p.read_bytes() if p.is_file() else b"") for p in root.rglob("*")}


def test_a_check_writes_nothing(machine):
    before = tree(machine.root)
    answer = crash.check({"folder": "/var/crash", "cpu": 5}, machine.host)
    assert answer["state"] == "check" and answer["boot_id"] == BOOT and answer["error"] is None
    assert tree(machine.root) == before


@pytest.mark.parametrize(
    ("spoil", "spec", "what"),
    [
        (lambda m: m.put("/sys/kernel/kexec_crash_loaded", "0"), {}, "no capture kernel is loaded"),
        (lambda m: None, {"cpu": 3}, "the host has no CPU 3"),
        (lambda m: None, {"boot_id": LATER}, "the host has rebooted since"),
        (lambda m: None, {"folder": "/var/../etc"}, "the dump directory is not valid"),
        (lambda m: None, {"folder": "crash"}, "the dump directory is not valid"),
        (lambda m: m.order(), {}, "a crash was ordered in this boot already"),
        (lambda m: (m.order(), m.crashed()), {"boot_id": LATER}, "an earlier crash test was never judged"),
        (lambda m: (m.root / "proc/sys/kernel/random/boot_id").unlink(), {}, "the boot cannot be told"),
    ],
)
def test_a_host_that_is_not_ready_is_not_crashed(machine, spoil, spec, what):
    spoil(machine)
    machine.ordered.clear()
    answer = machine.order(**spec)
    assert answer["state"] == "refused" and what in answer["error"]["what"], answer
    assert machine.ordered == []


def test_an_unfinished_transaction_and_a_held_lock_are_respected(machine):
    log = load("kdo_txn_log")
    machine.order()
    os.unlink(machine.host.marker)
    machine.ordered.clear()
    with log.Lock(machine.host.state):
        assert "transaction is running" in machine.order()["error"]["what"]
    store = log.Store(machine.host.state)
    tx, _ = store.open({"id": "c" * 64})
    tx.append("begin")
    assert "not finished" in machine.order()["error"]["what"]
    assert machine.ordered == []


def test_the_marker_is_there_before_the_order(machine):
    seen = []
    crash.order(SPEC, machine.host, lambda *_: seen.append(json.loads(Path(machine.host.marker).read_text())))
    assert seen[0]["boot_id"] == BOOT and seen[0]["token"] == SPEC["token"] and seen[0]["had"] == []
    assert Path(machine.host.marker).stat().st_mode & 0o777 == 0o600


def test_the_crash_itself_goes_to_the_trigger_on_the_chosen_cpu(machine):
    """The real process, with a file as the trigger."""
    trigger = machine.put("/trigger", "")
    began = time.monotonic()
    child = os.fork()
    if not child:
        try:
            crash.crash_soon(str(trigger), 0, 0.2, None)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert time.monotonic() - began < 5
    for _ in range(100):
        if trigger.read_text().strip() == "c":
            break
        time.sleep(0.05)
    assert trigger.read_text().strip() == "c"


LOG = b"[ 1.0] Linux version 6.1\n[ 9.0] Kernel panic - not syncing: sysrq triggered crash\n"


def makedumpfile(machine, log, code=0):
    """A stand-in on PATH that answers --dump-dmesg and -R as the real one does."""
    program = machine.root / "bin/makedumpfile"
    program.parent.mkdir(exist_ok=True)
    (machine.root / "bin/log").write_bytes(log)
    program.write_text(
        f'#!/bin/sh\n[ {code} = 0 ] || exit {code}\ncase $1 in -R) cat > "$2" ;; --dump-dmesg) cp {machine.root}/bin/log "$3" ;; esac\n'
    )
    program.chmod(0o755)
    return str(program.parent)


@pytest.mark.parametrize(
    ("files", "log", "code", "complete", "problem"),
    [
        ({"dump.202601010000": b"makedumpfile" + b"x" * 100}, LOG, 0, True, ""),
        ({"vmcore": b"KDUMP   " + b"x" * 100}, LOG, 0, True, ""),
        ({"dump.202601010000": b""}, LOG, 0, False, "it is empty"),
        ({"dump-incomplete.202601010000": b"KDUMP   x"}, LOG, 0, False, "did not finish"),
        ({"vmcore": b"KDUMP   x"}, b"nothing of interest", 0, False, "no panic"),
        ({"vmcore": b"KDUMP   x"}, LOG.replace(b"sysrq triggered crash", b"Fatal exception"), 0, False, "not the one"),
        ({"vmcore": b"KDUMP   x", "vmcore-dmesg.txt": LOG}, LOG, 1, False, "failed (1)"),
    ],
)
def test_what_a_crash_has_left_is_judged(machine, monkeypatch, files, log, code, complete, problem):
    monkeypatch.setenv("PATH", makedumpfile(machine, log, code), prepend=os.pathsep)
    machine.put("/var/crash/202501010000/dump.202501010000", b"KDUMP   an old one")
    machine.order()
    machine.crashed()
    for name, content in files.items():
        machine.put(f"/var/crash/202601010000/{name}", content)
    answer = crash.verdict({"token": SPEC["token"]}, machine.host)
    assert answer["state"] == "crashed" and answer["error"] is None
    dump = answer["dump"]
    assert dump["path"].startswith("/var/crash/202601010000/") and dump["complete"] is complete, dump
    assert problem in "; ".join(dump["problems"])
    if "vmcore-dmesg.txt" in files:
        assert dump["panic"].endswith("sysrq triggered crash") and dump["readers"] == []
    assert not os.path.exists(machine.host.marker)
    assert not list((machine.root / "var/crash").rglob(".kdo-*"))


def test_old_dumps_are_no_dump(machine):
    machine.put("/var/crash/202501010000/dump.202501010000", b"KDUMP   an old one")
    machine.order()
    machine.crashed()
    assert crash.verdict({"token": ""}, machine.host)["dump"] is None


def test_a_host_that_did_not_crash_says_so(machine):
    machine.order()
    answer = crash.verdict({"token": ""}, machine.host)
    assert answer["state"] == "not-crashed" and not os.path.exists(machine.host.marker)


def test_the_verdict_of_another_crash_test_is_not_taken(machine):
    machine.order()
    machine.crashed()
    answer = crash.verdict({"token": "cd" * 8}, machine.host)
    assert "another crash test's" in answer["error"]["what"] and os.path.exists(machine.host.marker)
    assert "no crash test waits" in crash.verdict({"token": ""}, FakeHost(machine.root / "other").host)["error"]["what"]


def test_makedumpfile_that_never_ends_is_ended(machine, monkeypatch):
    monkeypatch.setattr(crash, "READ_SECONDS", 0.5)
    program = machine.put("/bin/makedumpfile", "#!/bin/sh\nexec sleep 60")
    program.chmod(0o755)
    machine.put("/var/crash/x/vmcore", b"KDUMP   x")
    out = crash.judge(str(machine.root / "var/crash/x/vmcore"), str(program))
    assert "did not end" in out["problems"][0]


def test_the_modules_run_on_old_pythons():
    source = Path(crash.__file__).read_text()
    ast.parse(source, feature_version=(3, 6))


def test_a_kernel_without_sysrq_is_not_crashed(machine):
    os.unlink(machine.host.trigger)
    for answer in (crash.check({"folder": "/var/crash", "cpu": None}, machine.host), machine.order()):
        assert answer["state"] == "refused" and "sysrq" in answer["error"]["what"], answer
    assert machine.ordered == [] and not os.path.exists(machine.host.marker)


def test_a_cpu_that_cannot_be_used_leaves_no_marker(machine):
    """Online, but outside of the process's cpuset: known before anything is left behind. It never comes to a fork."""

    def forbidden(trigger, cpu, delay, keep):
        raise OSError(22, "Invalid argument")

    answer = crash.order({**SPEC, "cpu": 5}, machine.host, forbidden)
    assert answer["state"] == "refused" and not os.path.exists(machine.host.marker)


def test_the_affinity_is_tried_before_the_fork(machine, monkeypatch):
    monkeypatch.setattr(crash.os, "fork", lambda: pytest.fail("forked"))
    with pytest.raises(OSError):
        crash.crash_soon(machine.host.trigger, 100_000, 0, None)


def test_nobody_gets_the_lock_between_the_order_and_the_crash(machine, monkeypatch):
    log = load("kdo_txn_log")
    monkeypatch.setattr(crash, "DELAY", 1.5)
    child = os.fork()  # the module's process; the trigger is a file in a temporary directory
    if not child:
        try:
            crash.order(SPEC, machine.host)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert Path(machine.host.marker).exists()
    with pytest.raises(log.Busy), log.Lock(machine.host.state):
        pass
    assert "crash" in crash.verdict({"token": ""}, machine.host)["error"]["what"]  # still to come: not judged yet
    assert Path(machine.host.marker).exists()
    with log.Lock(machine.host.state, wait=30):
        assert Path(machine.host.trigger).read_text() == "c"


def test_a_verdict_that_got_lost_is_told_again(machine, monkeypatch):
    monkeypatch.setenv("PATH", makedumpfile(machine, LOG), prepend=os.pathsep)
    machine.order()
    machine.crashed()
    machine.put("/var/crash/202601010000/dump.202601010000", b"KDUMP   x")
    first = crash.verdict({"token": SPEC["token"]}, machine.host)
    assert not os.path.exists(machine.host.marker) and not first.get("again")
    for token in (SPEC["token"], ""):
        again = crash.verdict({"token": token}, machine.host)
        assert again["again"] is True and again["dump"] == first["dump"] and again["token"] == SPEC["token"]
    assert crash.verdict({"token": "cd" * 8}, machine.host)["error"]
    assert crash.check({"folder": "/var/crash", "cpu": None}, machine.host)["state"] == "check"  # it hinders nothing


def test_the_end_of_a_large_log_is_what_counts(machine, monkeypatch):
    monkeypatch.setattr(crash, "LIMIT", 1000)
    monkeypatch.setenv("PATH", makedumpfile(machine, b"[ 1.0] something\n" * 500 + LOG), prepend=os.pathsep)
    machine.put("/var/crash/x/vmcore", b"KDUMP   x")
    assert crash.judge(str(machine.root / "var/crash/x/vmcore"))["complete"]


@pytest.mark.parametrize(
    "log",
    [
        b"[ 9.0] sysrq: SysRq : Trigger a crash\n[ 9.1] BUG: unable to handle kernel NULL pointer dereference at 0\n",
        b"[ 9.0] SysRq : Trigger a crash\n[ 9.1] Oops: 0002\n[ 9.2] Kernel panic - not syncing: Fatal exception\n",
    ],
)
def test_kernels_before_4_20_oops_instead(machine, monkeypatch, log):
    monkeypatch.setenv("PATH", makedumpfile(machine, log), prepend=os.pathsep)
    machine.put("/var/crash/x/vmcore", b"KDUMP   x")
    out = crash.judge(str(machine.root / "var/crash/x/vmcore"))
    assert out["complete"] and out["panic"] and out["problems"] == [], out


def test_what_was_not_read_is_not_called_bad(machine, monkeypatch):
    """No program, no room, a collector's own compression: nothing is known against the dump."""
    saved = {"vmcore-dmesg.txt": LOG}
    folder = "/var/crash/202601010000/"
    for name, text in saved.items():
        machine.put(folder + name, text)
    core = str(machine.put(folder + "vmcore", b"KDUMP   x"))
    out = crash.judge(core, str(machine.root / "no/such/program"))
    assert not out["complete"] and out["problems"] == [] and "cannot be run" in out["notes"][0]
    assert out["panic"].endswith("sysrq triggered crash")

    monkeypatch.setattr(crash.os, "statvfs", lambda _path: os.statvfs_result((1, 1, 1, 0, 0, 0, 0, 0, 0, 0)))
    flat = str(machine.put(folder + "dump.202601010000", b"makedumpfile" + b"x" * 100))
    out = crash.judge(flat)
    assert out["problems"] == [] and "no room" in out["notes"][0]

    packed = str(machine.put(folder + "dump.202601010000.lz4", b"x" * 100))
    assert packed in machine.host.dumps("/var/crash")
    out = crash.judge(packed)
    assert out["problems"] == [] and "compressed" in out["notes"][0]


def test_a_full_dump_directory_does_not_hinder_the_verdict(machine, monkeypatch):
    monkeypatch.setenv("PATH", makedumpfile(machine, LOG), prepend=os.pathsep)
    real = crash.tempfile.mkdtemp

    def full(*args, **more):
        if str(more.get("dir") or "").startswith(str(machine.root / "var/crash")):
            raise OSError(28, "No space left on device")
        return real(*args, **more)

    monkeypatch.setattr(crash.tempfile, "mkdtemp", full)
    machine.order()
    machine.crashed()
    machine.put("/var/crash/202601010000/vmcore-incomplete", b"KDUMP   x")
    answer = crash.verdict({"token": SPEC["token"]}, machine.host)
    assert answer["state"] == "crashed" and "did not finish" in answer["dump"]["problems"][0], answer


def test_a_marker_that_makes_no_sense_is_no_traceback(machine):
    machine.order()
    machine.crashed()
    for text in ('{"token": "x"}', "[]", "7"):
        Path(machine.host.marker).write_text(text)
        assert crash.verdict({"token": ""}, machine.host)["state"] == "refused"
