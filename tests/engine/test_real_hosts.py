# SPDX-License-Identifier: Apache-2.0
"""Real processes over a real sshd: sweeps by both lanes, workers on a PostgreSQL queue, one that is killed, a run that is cancelled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.store import runs
from orchestrator.store.store import Store
from tests.sshd import SSHD, Sshd

pytestmark = pytest.mark.skipif(not SSHD, reason="there is no sshd here")


@pytest.fixture
def hosts(tmp_path):
    """An inventory of four names that are one sshd, and one that nobody answers for."""
    with Sshd(tmp_path / "sshd") as sshd:
        known = sshd.known_hosts(tmp_path / "known_hosts")
        common = f"ansible_user={sshd.user} ansible_ssh_private_key_file={sshd.key} ansible_python_interpreter={sys.executable}"
        common += f" ansible_ssh_common_args='-o UserKnownHostsFile={known} -o ConnectTimeout=20'"
        lines = [f"h{n} ansible_host=127.0.0.1 ansible_port={sshd.port} {common}" for n in range(4)]
        lines.append(f"dead ansible_host=127.0.0.1 ansible_port=1 {common}")
        file = tmp_path / "hosts.ini"
        file.write_text("\n".join(lines) + "\n")
        yield file


def kdo(*words: str, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", *map(str, words)], capture_output=True, text=True, **more
    )


def start(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "orchestrator", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


@pytest.mark.parametrize("lane", ["fast", "ansible"])
def test_a_sweep_over_ssh(hosts, tmp_path, lane):
    store = tmp_path / "store.db"
    done = kdo("sweep", "-i", hosts, "--store", store, "--lane", lane, "--shard-size", 3, "--format", "json")
    assert done.returncode == 4, done.stderr
    answer = json.loads(done.stdout)
    assert answer["state"] == "done" and answer["hosts"]["unreachable"] == 1 and sum(answer["hosts"].values()) == 5
    status = json.loads(kdo("status", "--store", store, "--format", "json").stdout)
    assert status["hosts"] == 5 and status["states"]["unreachable"] == 1
    listed = [json.loads(x) for x in kdo("status", "h*", "--store", store, "--format", "jsonl").stdout.splitlines()]
    assert len(listed) == 4 and len({r["kernel"] for r in listed}) == 1 and listed[0]["kernel"] == os.uname().release
    assert kdo("audit", "verify", "--store", store).returncode == 0
    same = kdo("runs", "compare", "last", "last", "--store", store)
    assert same.returncode == 0 and "as it did before" in same.stdout


def ended(store: Store, run: str, seconds: float = 240) -> str:
    deadline = time.monotonic() + seconds
    while (state := runs.state_of(store.database, run)) in (
        "planned",
        "running",
        "cancelling",
    ) and time.monotonic() < deadline:
        time.sleep(0.2)
    return state


def test_a_killed_worker_and_a_new_one_finish_the_run(hosts, postgres):
    url = postgres.database(f"queue{os.getpid()}")
    controller = start(
        "sweep", "-i", hosts, "--store", url, "--engine", "queue", "--shard-size", 1, "--lane", "ansible"
    )
    first = start("worker", "--store", url)
    second = None
    try:
        with Store(url) as store:
            deadline = time.monotonic() + 120
            while not (rows := runs.listed(store.database, 1)) or not any(
                s.state == "running" for s in runs.shards(store.database, rows[0].id)
            ):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            os.killpg(first.pid, signal.SIGKILL)
            second = start("worker", "--store", url, "--concurrency", "2")
            assert ended(store, rows[0].id) == "done"
            tally = runs.tally(store.database, rows[0].id)
            assert tally["unreachable"] == 1 and sum(tally.values()) == 5 and not {"waiting", "running"} & set(tally)
            attempts = [s.attempt for s in runs.shards(store.database, rows[0].id)]
            assert sum(attempts) >= 6, "the killed worker's shard was done again"
        assert controller.wait(60) == 4, controller.communicate()
    finally:
        for process in (controller, first, second):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(60)


def test_a_cancel_reaches_a_shard_that_is_under_way(hosts, postgres, tmp_path):
    """The hosts are made to hang: their Python is a script that sleeps."""
    slow = tmp_path / "python3"
    slow.write_text("#!/bin/sh\nsleep 300\n")
    slow.chmod(0o755)
    text = hosts.read_text().replace(sys.executable, str(slow))
    hosts.write_text(text)
    url = postgres.database(f"cancel{os.getpid()}")
    controller = start("sweep", "-i", hosts, "--store", url, "--engine", "queue", "--lane", "ansible")
    worker = start("worker", "--store", url)
    try:
        with Store(url) as store:
            deadline = time.monotonic() + 120
            while not (rows := runs.listed(store.database, 1)) or "running" not in runs.tally(
                store.database, rows[0].id
            ):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            began = time.monotonic()
            assert kdo("runs", "cancel", "last", "--store", url).returncode == 0
            assert ended(store, rows[0].id, 60) == "cancelled"
            assert time.monotonic() - began < 60 and runs.tally(store.database, rows[0].id) == {"cancelled": 5}
        assert controller.wait(60) == 130
    finally:
        for process in (controller, worker):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(60)


def test_a_controller_that_was_killed_is_gone_on_from(hosts, tmp_path):
    store_file = tmp_path / "store.db"
    controller = start(
        "sweep", "-i", hosts, "--store", str(store_file), "--shard-size", 2, "--parallel", "1", "--lane", "ansible"
    )
    deadline = time.monotonic() + 120
    while True:
        assert time.monotonic() < deadline
        time.sleep(0.1)
        if Path(store_file).exists():
            with Store(str(store_file)) as store:
                rows = runs.listed(store.database, 1)
                if rows and any(s.state == "done" for s in runs.shards(store.database, rows[0].id)):
                    break
    controller.kill()
    controller.wait()
    with Store(str(store_file)) as store:
        finished = {h.host: h.at for h in runs.hosts_of(store.database, rows[0].id) if h.state not in runs.OPEN}
        assert 0 < len(finished) < 5
    refused = kdo("runs", "resume", "last", "--store", store_file)
    for _ in range(70):
        if refused.returncode != 5:
            break
        assert "under way" in refused.stderr
        time.sleep(1)
        refused = kdo("runs", "resume", "last", "--store", store_file)
    assert refused.returncode == 4, refused.stderr
    with Store(str(store_file)) as store:
        rows_now = {h.host: h for h in runs.hosts_of(store.database, rows[0].id)}
        assert len(rows_now) == 5 and not any(h.state in runs.OPEN for h in rows_now.values())
        assert {h: rows_now[h].at for h in finished} == finished, "no finished host was asked again"


@pytest.fixture
def node(hosts, tmp_path, monkeypatch):
    """An execution node: the same sshd machine, with ansible-runner on its PATH; ssh finds it by a configuration of its own."""
    binaries = Path(sys.executable).parent
    with Sshd(tmp_path / "node", extra=f"SetEnv PATH={binaries}:/usr/bin:/bin") as sshd:
        known = sshd.known_hosts(tmp_path / "node_hosts")
        config = tmp_path / "ssh_config"
        config.write_text(
            f"Host node\n HostName 127.0.0.1\n Port {sshd.port}\n User {sshd.user}\n IdentityFile {sshd.key}\n"
            f" IdentitiesOnly yes\n UserKnownHostsFile {known}\n"
        )
        wrapper = tmp_path / "bin" / "ssh"
        wrapper.parent.mkdir()
        wrapper.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {config} "$@"\n')
        wrapper.chmod(0o755)
        monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
        yield "node"


def test_an_execution_node_that_only_ssh_reaches(hosts, node, tmp_path):
    store = tmp_path / "store.db"
    before = set(Path("/tmp").iterdir())
    done = kdo("sweep", "-i", hosts, "--store", store, "--engine", "ssh", "--site", f"={node}", "--format", "json")
    assert done.returncode == 4, done.stderr
    assert json.loads(done.stdout)["hosts"]["unreachable"] == 1
    assert len(kdo("status", "h*", "--store", store, "--format", "jsonl").stdout.splitlines()) == 4
    left = {p for p in set(Path("/tmp").iterdir()) - before if "ansible" in p.name or "runner" in p.name}
    assert not left, "nothing stays on the node"


def test_a_node_that_is_none_says_what_to_do(hosts, node, tmp_path):
    done = kdo(
        "sweep",
        "-i",
        hosts,
        "--store",
        tmp_path / "s.db",
        "--engine",
        "ssh",
        "--site",
        "=nobody.invalid",
        "--shard-size",
        9,
    )
    assert done.returncode == 3 and "nobody.invalid" in done.stderr
    listed = kdo("runs", "show", "--store", tmp_path / "s.db").stdout
    assert "the execution node did not do it" in listed


def test_a_plan_and_a_check_are_the_same_over_both_lanes(hosts):
    both = [kdo("plan", "-i", hosts, "-l", "h*", "--lane", lane, "--format", "json") for lane in ("fast", "ansible")]
    assert both[0].returncode == both[1].returncode and "Traceback" not in both[0].stderr
    fast, slow = (json.loads(done.stdout) for done in both)
    assert fast["hosts"] == slow["hosts"] and len(fast["hosts"]) == 4
    checks = [
        kdo("apply", "--check", "-i", hosts, "-l", "h*", "--lane", lane, "--format", "json")
        for lane in ("fast", "ansible")
    ]
    assert checks[0].returncode == checks[1].returncode and json.loads(checks[0].stdout)["problems"] == []
