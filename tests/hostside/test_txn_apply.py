# SPDX-License-Identifier: Apache-2.0
"""All of a change, or none of it."""

import copy
import fcntl
import json
import os
import signal
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "..", "playbooks", "module_utils")]
import kdo_txn  # noqa: E402
import kdo_txn_log  # noqa: E402
from test_txn_fake import (  # noqa: E402
    DEFAULTS,
    GRUB,
    ID,
    LOADED,
    NOTIFIERS,
    REL,
    SNIPPET,
    STATE,
    SYSCTL,
    UNIT_LINK,
    UTILS,
    Host,
    Tools,
    change,
    sha,
)  # fmt: skip


def apply(host, document, tools=None, **more):
    return kdo_txn.run(document, root=host.root, runner=tools or Tools(host), **more)


@pytest.fixture(params=[True, False], ids=["installed", "bare"])
def host(request, tmp_path):
    host = Host(tmp_path, installed=request.param)
    host.installed = request.param
    return host


@pytest.fixture
def ready(tmp_path):
    return Host(tmp_path)


def test_everything_is_done(host):
    host.put(UNIT_LINK.replace("kdump-tools", "other"), "x")
    result = apply(host, change(host, host.installed))
    assert result["error"] is None and result["state"] == "committed" and result["changed"]
    assert {row["op"] for row in result["steps"] if row["result"] != "changed"} <= {"service-enable"}
    assert 'KDUMP_CMDLINE_APPEND="reset_devices nr_cpus=1"' in host.get(DEFAULTS)
    assert "crashkernel=512M-:192M" in host.get(GRUB)
    assert host.get(NOTIFIERS).strip() == "Y" and host.get(LOADED).strip() == "1"
    assert host.get("/loaded-config") == sha(host.get(DEFAULTS)) == result["after"][DEFAULTS]
    assert host.get("/var/lib/kdump/initrd.img-" + REL) == "new image"
    assert host.here(UNIT_LINK)
    assert not host.here("/etc/systemd/system/kdump-orchestrator-recover.service")
    assert os.stat(host.real(STATE)).st_mode & 0o777 == 0o700
    assert set(os.listdir(host.real(STATE + "/engine"))) == {
        name
        for name in os.listdir(UTILS)
        if name.startswith("kdo_") and not name.startswith(("kdo_crash", "kdo_diff", "kdo_probe", "kdo_record"))
    }


def test_owner_and_mode_stay(ready):
    apply(ready, change(ready))
    assert os.stat(ready.real(DEFAULTS)).st_mode & 0o777 == 0o600


def test_again_changes_nothing(host):
    document = change(host, host.installed)
    apply(host, document)
    before = host.picture()
    tools = Tools(host)
    result = apply(host, document, tools)
    assert result["state"] == "committed" and not result["changed"] and result["error"] is None
    assert {row["result"] for row in result["steps"]} == {"unchanged"}
    assert before == host.picture()
    assert {name for name, _ in tools.calls} <= {"unit-state"}
    assert len(kdo_txn.status(host.root)["transactions"]) == 1


def test_already_as_wanted_opens_no_transaction(ready):
    ready.put(SNIPPET, "# x\n")
    document = change(
        ready, steps=[{"op": "write", "path": SNIPPET, "text": "# x\n", "before_sha256": None}], expect=[]
    )
    assert apply(ready, document)["transaction"] is None
    assert kdo_txn.status(ready.root)["transactions"] == []


FAILURES = [
    (name, how)
    for name in (
        "apt-install",
        "grub-regenerate",
        "grub-check",
        "kdump-hook",
        "kdump-symlinks",
        "unit-enable",
        "kdump-test",
        "kdump-reload",
        "kdump-load",
    )
    for how in ("at once", "late")
]


@pytest.mark.parametrize("name,how", FAILURES)
def test_a_command_that_fails_undoes_everything(host, name, how):
    before, once = host.picture(), []

    class Once(Tools):
        def __call__(self, command, argv, timeout):
            if command == name and not once:
                once.append(1)
                self.fail = {name: how}
            else:
                self.fail = {}
            return Tools.__call__(self, command, argv, timeout)

    result = apply(host, change(host, host.installed), Once(host))
    if not once:  # the other host's way
        assert result["state"] == "committed" and name in (
            "apt-install",
            "unit-enable",
            "kdump-reload",
            "kdump-load",
            "kdump-symlinks",
        )
        return
    assert result["state"] == "undone" and not result["changed"], result
    assert result["error"]["what"] and result["error"]["fix"]
    assert host.picture() == before
    assert kdo_txn.status(host.root)["transactions"][-1]["state"] == "undone"


def test_an_exception_after_every_step(host, monkeypatch):
    import kdo_txn_steps

    before, document = host.picture(), change(host, host.installed)
    real = kdo_txn_steps.Doer.do
    for stop in range(len(document["steps"])):

        def do(self, index, step, stop=stop):
            result = real(self, index, step)
            if index == stop:
                raise RuntimeError("secret content")
            return result

        monkeypatch.setattr(kdo_txn_steps.Doer, "do", do)
        result = apply(host, document)
        assert result["state"] == "undone" and "secret content" not in json.dumps(result)
        assert host.picture() == before


def test_a_failure_at_every_journal_write(host, monkeypatch):
    before, document = host.picture(), change(host, host.installed)
    real, count = kdo_txn_log.Transaction.append, [0, 0]

    def append(self, event, **more):
        count[0] += 1
        if count[0] == count[1]:
            raise OSError(28, "No space left on device", self.path)
        return real(self, event, **more)

    monkeypatch.setattr(kdo_txn_log.Transaction, "append", append)
    for stop in range(1, 200):
        count[:] = [0, stop]
        result = apply(host, document)
        if result["state"] == "committed":
            break
        assert result["state"] in ("undone", "refused"), result
        assert host.picture() == before, stop
    assert stop > 2 * len(document["steps"])


@pytest.mark.parametrize("index,bad", [(0, "crashkernel=1G"), (1, "0"), (2, "N")])
def test_a_failed_expectation_undoes_everything(host, index, bad):
    before, document = host.picture(), change(host, host.installed)
    item = document["expect"][index]
    if index == 0:
        item["once"]["crashkernel="] = bad
    else:
        item["value"] = bad
    result = apply(host, document)
    assert result["state"] == "undone" and "expectation %d" % index in result["error"]["what"]
    assert host.picture() == before


def test_old_capture_kernel_is_loaded_again(ready):
    ready.put(DEFAULTS, ready.get(DEFAULTS), 0o600)
    document = change(ready)
    document["steps"][1]["assignments"] = [["KDUMP_CMDLINE_APPEND", "bad"]]
    before = ready.picture()
    result = apply(ready, document, Tools(ready, {"load": "bad config"}))
    assert result["state"] == "undone" and ready.get(LOADED).strip() == "1"
    assert ready.picture() == before


def test_check_writes_nothing(host):
    before = host.picture()
    times = {
        path: os.lstat(os.path.join(folder, path)).st_mtime_ns
        for folder, folders, names in os.walk(host.root)
        for path in folders + names
    }
    result = apply(host, change(host, host.installed), check=True)
    assert result["state"] == "check" and result["changed"] and result["error"] is None
    assert {row["result"] for row in result["steps"]} == {"would change"} | (
        {"unchanged"} if host.here(UNIT_LINK) else set()
    )
    assert host.picture() == before and not host.here(STATE)
    assert times == {
        path: os.lstat(os.path.join(folder, path)).st_mtime_ns
        for folder, folders, names in os.walk(host.root)
        for path in folders + names
    }


def test_check_after_a_commit(ready):
    document = change(ready)
    apply(ready, document)
    result = apply(ready, document, check=True)
    assert result["state"] == "check" and not result["changed"]


def test_stale(ready):
    for path, text in ((DEFAULTS, "X=1\n"), (SNIPPET, "# mine\n")):
        document = change(ready)
        ready.put(path, text)
        before = ready.picture()
        result = apply(ready, document)
        assert result["state"] == "refused" and path in result["error"]["what"]
        assert ready.picture() == before
        ready.drop(SNIPPET)
    document = change(ready)
    ready.put(NOTIFIERS, "Y\n")
    document["steps"] = [step for step in document["steps"] if step["op"] == "knob"]
    ready.put("/proc/sys/kernel/panic", "5\n")
    assert "panic has changed" in apply(ready, document)["error"]["what"]


def test_predicted_bytes(ready):
    document = change(ready)
    document["steps"][1]["after_sha256"] = "0" * 64
    assert apply(ready, document)["state"] == "refused"
    from kdo_edit import assign

    document["steps"][1]["after_sha256"] = sha(
        assign(ready.get(DEFAULTS), [tuple(pair) for pair in document["steps"][1]["assignments"]])
    )
    assert apply(ready, document)["state"] == "committed"


@pytest.mark.parametrize(
    "path,text,word",
    [
        ("/proc/sys/kernel/kexec_load_disabled", "1\n", "kexec_load_disabled"),
        ("/proc/sys/kernel/kexec_load_limit_panic", "1\n", "limit"),
        ("/sys/kernel/kexec_crash_size", "0\n", "memory is reserved"),
        ("/proc/cmdline", "quiet\n", "crashkernel="),
    ],
)
def test_a_kernel_that_takes_no_capture_kernel(ready, path, text, word):
    ready.put(path, text)
    before = ready.picture()
    result = apply(ready, change(ready))
    assert result["state"] == "refused" and word in result["error"]["why"]
    assert ready.picture() == before


@pytest.mark.parametrize(
    "path",
    [
        "/usr/sbin/update-grub",
        "/usr/sbin/kdump-config",
        "/usr/bin/systemctl",
        "/boot/vmlinuz-" + REL,
        "/usr/sbin/mkinitramfs",
        GRUB,
    ],
)
def test_something_missing(ready, path):
    document = change(ready)
    ready.drop(path)
    before = ready.picture()
    result = apply(ready, document)
    assert result["state"] == "refused" and path in result["error"]["why"]
    assert ready.picture() == before


def test_no_room(ready, monkeypatch):
    class Full:
        f_bavail, f_frsize, f_flag = 1, 4096, 0

    monkeypatch.setattr(os, "statvfs", lambda path: Full)
    before = ready.picture()
    assert "room" in apply(ready, change(ready))["error"]["what"]
    assert ready.picture() == before


def test_read_only(ready, monkeypatch):
    class ReadOnly:
        f_bavail, f_frsize, f_flag = 1 << 30, 4096, os.ST_RDONLY

    monkeypatch.setattr(os, "statvfs", lambda path: ReadOnly)
    assert "read-only" in apply(ready, change(ready))["error"]["why"]


def test_a_link_in_the_place_of_a_file(ready):
    document = change(ready)
    ready.put("/target", ready.get(DEFAULTS))
    ready.link(DEFAULTS, ready.real("/target"))
    before = ready.picture()
    assert apply(ready, document)["state"] == "refused"
    assert ready.picture() == before


def test_a_state_directory_others_can_write(ready):
    os.makedirs(ready.real(STATE))
    os.chmod(ready.real(STATE), 0o777)
    assert "state directory" in apply(ready, change(ready))["error"]["what"]


def test_a_second_process_is_kept_out(ready):
    os.makedirs(ready.real(STATE), 0o700)
    code = "import fcntl,sys;f=open(sys.argv[1],'a');fcntl.flock(f,fcntl.LOCK_EX);print('held',flush=True);sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", code, ready.real(STATE + "/lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        other.stdout.readline()
        before = ready.picture()
        for result in (
            apply(ready, change(ready)),
            apply(ready, change(ready), check=True),
            kdo_txn.rollback(ready.root, runner=Tools(ready)),
        ):
            assert result["error"]["what"] == "another transaction is running"
        assert ready.picture() == before
    finally:
        other.stdin.close()
        other.wait()
        other.stdout.close()
    assert apply(ready, change(ready))["state"] == "committed"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("command", ["grub-regenerate", "kdump-hook", "kdump-reload", "apt-install"])
def test_signals(tmp_path, number, command):
    host = Host(tmp_path, installed=command != "apt-install")
    before, sent = host.picture(), []
    handler = signal.getsignal(number)  # nohup has some of them ignored

    class Signalled(Tools):
        def __call__(self, name, argv, timeout):
            if name == command and not sent:
                sent.append(1)
                os.kill(os.getpid(), number)
            return Tools.__call__(self, name, argv, timeout)

    result = apply(host, change(host, command != "apt-install"), Signalled(host))
    assert sent and result["state"] == "undone" and result["error"]["what"] == "interrupted"
    assert signal.Signals(number).name in result["error"]["why"]
    assert host.picture() == before
    assert signal.getsignal(number) == handler


def test_an_undo_that_cannot_be_completed_is_said_and_finished_later(tmp_path):
    host = Host(tmp_path, installed=False)
    before, document = host.picture(), change(host, False)
    document["expect"][1]["value"] = "0"
    result = apply(host, document, Tools(host, {"apt-purge": "at once"}))
    assert result["state"] == "undo-incomplete" and "remove packages" in result["error"]["why"]
    assert not host.here(SNIPPET)
    again = apply(host, document, Tools(host, {"apt-purge": "at once"}))
    assert again["state"] == "refused" and "earlier transaction" in again["error"]["what"]
    assert host.here("/etc/systemd/system/kdump-orchestrator-recover.service")
    result = kdo_txn.recover(host.root, runner=Tools(host))
    assert result["state"] == "recovered" and host.picture() == before


def test_giving_up(tmp_path):
    host = Host(tmp_path, installed=False)
    document = change(host, False, expect=[{"kind": "value", "path": LOADED, "value": "0"}])
    tools = Tools(host, {"apt-purge": "at once"})
    apply(host, document, tools)
    assert kdo_txn.recover(host.root, runner=tools, give_up=True)["recovered"][0]["state"] == "given-up"
    assert kdo_txn.recover(host.root, runner=tools)["recovered"] == []


def test_packages_that_would_take_others_along_stay(tmp_path):
    host = Host(tmp_path, installed=False)

    class Needed(Tools):
        def apt_purge_simulate(self, argv):
            return 0, "Purg kdump-tools [1]\nPurg someones-tool [1]\n"

    document = change(host, False, expect=[{"kind": "value", "path": LOADED, "value": "0"}])
    result = apply(host, document, Needed(host))
    assert result["state"] == "undo-incomplete" and "someones-tool" in result["error"]["why"]


def test_results_hold_no_content(host):
    document = change(host, host.installed)
    text = json.dumps(apply(host, document)) + json.dumps(kdo_txn.status(host.root))
    for secret in ("nr_cpus=1", "kernel.panic", SNIPPET_MARK):
        assert secret not in text


SNIPPET_MARK = "$GRUB_CMDLINE_LINUX_DEFAULT"


def test_old_transactions_go(ready):
    apply(ready, change(ready))
    for number in range(14):
        before = sha(ready.get(SYSCTL))
        steps = [{"op": "write", "path": SYSCTL, "text": "kernel.panic = %d\n" % number, "before_sha256": before}]
        assert apply(ready, change(ready, steps=steps, expect=[], id=f"{number:064x}"))["state"] == "committed"
    rows = kdo_txn.status(ready.root)["transactions"]
    assert len(rows) == kdo_txn_log.KEEP and rows[-1]["id"] == f"{13:064x}"
    assert copy.copy(rows) == sorted(rows, key=lambda row: row["began"])
    assert ID not in [row["id"] for row in rows]


def test_lock_is_handed_to_commands(tmp_path):
    from kdo_txn_cmd import Runner, Signals

    with open(tmp_path / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code = "import os,sys;os.fstat(int(sys.argv[1]));print('has it', os.environ.get('LC_ALL'), sorted(os.environ))"
        status, output = Runner(Signals(), [lock.fileno()])("x", [sys.executable, "-c", code, str(lock.fileno())], 20)
    assert status == 0 and "has it C" in output and "PYTEST" not in output


def test_a_command_that_hangs_is_ended():
    from kdo_txn_cmd import CommandError, Runner, Signals

    with pytest.raises(CommandError):
        Runner(Signals())("x", [sys.executable, "-c", "import time; time.sleep(60)"], 1)


def test_output_is_cleaned():
    from kdo_txn_cmd import clean

    assert (
        clean("\x1b[31mx\x1b[0m FTP_PASSWORD=hunter2 http://me:hunter2@host/")
        == "x FTP_PASSWORD=*** http://me:***@host/"
    )
    assert len(clean("a" * 100000)) <= 4000


def test_script(tmp_path):
    done = subprocess.run(
        [sys.executable, os.path.join(UTILS, "kdo_txn.py"), "status", "--state-dir", str(tmp_path / "none")],
        stdout=subprocess.PIPE,
        timeout=60,
    )
    assert done.returncode == 0 and json.loads(done.stdout)["transactions"] == []
    assert (
        subprocess.run(
            [sys.executable, os.path.join(UTILS, "kdo_txn.py"), "explode"], stderr=subprocess.DEVNULL, timeout=60
        ).returncode
        == 2
    )
