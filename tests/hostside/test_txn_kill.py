# SPDX-License-Identifier: Apache-2.0
"""SIGKILL at every point where something durable happens: the host is before or after, and the journal says which.

A real child process applies (or undoes, or rolls back) and kills itself at its N-th durable call, for every N until it
comes through. Then a second process would find what this one finds: `recover` runs on what was left.
"""

import os
import shutil
import signal
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "..", "playbooks", "module_utils")]
import kdo_txn  # noqa: E402
import kdo_txn_engine  # noqa: E402
from test_txn_fake import LOADED, NOTIFIERS, SNIPPET, STATE, Host, Tools, change  # noqa: E402

POINTS = ("fsync", "rename", "unlink", "link", "symlink", "mkdir", "rmdir", "ftruncate", "chmod", "utime", "write")


@pytest.fixture(autouse=True)
def no_waiting_for_disks(monkeypatch):
    """A killed process loses nothing that it wrote, so the calls count and the disk need not turn."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def in_child(function, stop, arm=None):
    """Run in a child that kills itself at durable call number `stop` (after `arm` is called). True if it came through."""
    pid = os.fork()
    if pid == 0:
        try:
            count, armed = [0], []
            if arm:
                owner, name = arm
                real_arm = getattr(owner, name)
                setattr(owner, name, lambda *arguments: (armed.append(1), real_arm(*arguments))[1])

            def point():
                count[0] += 1 if armed or not arm else 0
                if count[0] == stop and (armed or not arm):
                    os.kill(os.getpid(), signal.SIGKILL)

            def counted(real):
                def call(*arguments, **named):
                    point()
                    return real(*arguments, **named)

                return call

            for name in POINTS:
                setattr(os, name, counted(getattr(os, name)))
            function(point)
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0
    return True


def content(picture):
    """A picture without times, without what only looks different each time."""
    return {path: row[:3] if row[0] == "file" else row[:2] for path, row in picture.items()}


def fresh(source, target):
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)
    return Host(target, make=False)


def states(host):
    return [row["state"] for row in kdo_txn.status(host.root)["transactions"]]


def every_point(function, source, tmp_path, judge, arm=None):
    """Kill at every point of `function(host, point)`, recover, and let `judge` look."""
    for stop in range(1, 5000):
        host = fresh(source, tmp_path / "work")
        through = in_child(lambda point, host=host: function(host, point), stop, arm)
        leftovers = kdo_txn.recover(host.root, runner=Tools(host), wait=0)
        assert leftovers["error"] is None, (stop, leftovers)
        judge(host, stop)
        again = kdo_txn.recover(host.root, runner=Tools(host), wait=0)
        assert again["state"] == "nothing", (stop, again)
        judge(host, stop)
        if through:
            return stop
    raise AssertionError("it never came through")


def hidden(host):
    """Nothing of ours is left outside the state directory, whatever the name."""
    return [
        path
        for path in host.picture()
        if "kdo-new" in path or "kdump-orchestrator-recover" in path or path.endswith(".new")
    ]


@pytest.fixture(params=[True, False], ids=["installed", "bare"])
def source(request, tmp_path):
    host = Host(tmp_path / "source", installed=request.param)
    host.installed = request.param
    return host


def test_apply(source, tmp_path):
    document, before = change(source, source.installed), source.picture()
    reference = fresh(source.root, tmp_path / "reference")
    assert kdo_txn.run(document, root=reference.root, runner=Tools(reference))["state"] == "committed"
    after, seen = content(reference.picture()), set()

    def judge(host, stop):
        assert hidden(host) == []
        now = host.picture()
        if states(host) == ["committed"]:
            assert content(now) == after, stop
            seen.add("after")
        else:
            assert now == before, stop
            seen.add("before")

    def function(host, point):
        kdo_txn.run(document, root=host.root, runner=Tools(host, on=point))

    points = every_point(function, source.root, tmp_path, judge)
    assert seen == {"before", "after"} and points > 150


def test_undo(source, tmp_path):
    document, before = change(source, source.installed), source.picture()
    document["expect"].append({"kind": "value", "path": NOTIFIERS, "value": "N"})

    def judge(host, stop):
        assert hidden(host) == []
        assert host.picture() == before, stop
        assert "committed" not in states(host)

    def function(host, point):
        kdo_txn.run(document, root=host.root, runner=Tools(host, on=point))

    every_point(function, source.root, tmp_path, judge, (kdo_txn_engine.Engine, "undo"))


def test_recover(source, tmp_path):
    document, before = change(source, source.installed), source.picture()
    broken = fresh(source.root, tmp_path / "broken")

    def all_but_commit(point):
        kdo_txn_engine.Engine._after = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        kdo_txn.run(document, root=broken.root, runner=Tools(broken))

    assert not in_child(all_but_commit, -1)
    assert states(broken) == ["unfinished"] and broken.here(SNIPPET)

    def judge(host, stop):
        assert hidden(host) == []
        assert host.picture() == before, stop
        assert states(host) == ["undone"]

    def function(host, point):
        kdo_txn.recover(host.root, runner=Tools(host, on=point), wait=0)

    every_point(function, broken.root, tmp_path, judge)


def test_rollback(source, tmp_path):
    document, before = change(source, source.installed), source.picture()
    done = fresh(source.root, tmp_path / "done")
    assert kdo_txn.run(document, root=done.root, runner=Tools(done))["state"] == "committed"
    after, seen = content(done.picture()), set()

    def judge(host, stop):
        assert hidden(host) == []
        state = states(host)
        seen.update(state)
        if state == ["committed"]:
            assert content(host.picture()) == after, stop
        else:
            assert state == ["rolled-back"]
            assert host.picture() == before, stop

    def function(host, point):
        kdo_txn.rollback(host.root, runner=Tools(host, on=point))

    every_point(function, done.root, tmp_path, judge)
    assert seen == {"committed", "rolled-back"}


def killed_before_commit(host, document):
    def function(_point):
        kdo_txn_engine.Engine._after = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        kdo_txn.run(document, root=host.root, runner=Tools(host))

    assert not in_child(function, -1)


def test_the_next_apply_undoes_first_and_says_so(source):
    document = change(source, source.installed)
    killed_before_commit(source, document)
    result = kdo_txn.run(document, root=source.root, runner=Tools(source))
    assert result["state"] == "committed"
    assert [row["state"] for row in result["recovered"]] == ["undone"]
    assert states(source) == ["undone", "committed"]


def test_check_mode_says_that_an_undo_comes_first(source):
    """Also where no step is left to do afterwards: what the undo puts back is a change of the host."""
    document, before = change(source, source.installed), source.picture()
    killed_before_commit(source, document)
    half = source.picture()
    for result in (
        kdo_txn.run(document, root=source.root, runner=Tools(source), check=True),
        kdo_txn.rollback(source.root, runner=Tools(source), check=True),
    ):
        assert result["changed"] and [row["state"] for row in result["recovered"]] == ["would be undone first"], result
    assert source.picture() == half != before
    done = kdo_txn.run(
        change(source, source.installed, steps=[document["steps"][-4]], expect=[]),
        root=source.root,
        runner=Tools(source),
    )
    assert done["changed"] and [row["state"] for row in done["recovered"]] == ["undone"], done


def test_power_loss(tmp_path):
    """Another boot: nothing is loaded, and the service will load the old configuration after the unit has run."""
    host = Host(tmp_path)
    before, document = host.picture(), change(host)
    killed_before_commit(host, document)
    assert host.here("/etc/systemd/system/kdump-orchestrator-recover.service")
    assert host.here("/etc/systemd/system/basic.target.wants/kdump-orchestrator-recover.service")
    host.put("/proc/sys/kernel/random/boot_id", "boot-two\n")
    host.put(LOADED, "0\n")
    host.drop("/loaded-config")
    tools = Tools(host)
    result = kdo_txn.recover(host.root, runner=tools, booting=True)
    assert result["state"] == "recovered" and result["error"] is None
    assert not [name for name, _ in tools.calls if name in ("kdump-load", "kdump-reload")]
    now = host.picture()
    for path in (LOADED, "/loaded-config", "/proc/sys/kernel/random/boot_id"):
        before.pop(path), now.pop(path, None)
    assert now == before


def test_a_torn_last_line_never_happened(tmp_path):
    host = Host(tmp_path)
    before, document = host.picture(), change(host)
    killed_before_commit(host, document)
    folder = os.path.join(host.real(STATE), "tx")
    journal = os.path.join(folder, os.listdir(folder)[0], "journal")
    with open(journal, "ab") as stream:
        stream.write(b'{"event": "commit", "after": {}, "kn')
    assert kdo_txn.recover(host.root, runner=Tools(host))["state"] == "recovered"
    assert host.picture() == before
    with open(journal, "rb") as stream:
        assert b'"kn{' not in stream.read() and states(host) == ["undone"]
