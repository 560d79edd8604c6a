# SPDX-License-Identifier: Apache-2.0
"""The playbooks as somebody runs them who has Ansible and a checkout: honest check and diff modes, and messages that help."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.playbooks.hosts import (
    BEFORE,
    DEFAULTS,
    PANIC,
    PLAYBOOKS,
    SYSCTL,
    Simulated,
    facts_in,
    play,
    policy,
    possible,
)
from tests.sshd import SSHD, Sshd

needs_namespace = pytest.mark.skipif(bool(possible()), reason=possible() or "it can")
LOCAL = "web1,"
HERE = ("-c", "local", "-e", f"ansible_python_interpreter={sys.executable}")


@pytest.fixture
def host(tmp_path):
    return Simulated(tmp_path)


def kdo_on(host, verb, *words):
    """What kdo said and how it ended, with a store of the test's own."""
    command = [sys.executable, "-m", "orchestrator", verb, "-i", str(host.inventory), *words]
    command += ["--store", str(host.folder / "store.db")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@needs_namespace
def test_apply_is_predicted_done_and_then_nothing_is_left(host):
    plan, before = str(host.plan()), host.picture()
    predicted = host.play("apply.yml", "-e", f"kdo_plan={plan}", "--check", "--diff")
    assert predicted.code == 0 and predicted.changed() == 1, predicted.text
    assert host.picture() == before
    done = host.play("apply.yml", "-e", "kdo_plan=plan.json", "--diff")
    assert done.code == 0 and done.changed() == 1, done.text
    for text in (predicted.text, done.text):  # the same difference, predicted and done
        assert f"--- before: {DEFAULTS}\n+++ after: {DEFAULTS}\n" in text
        assert f"--- before: {SYSCTL} (not there)\n+++ after: {SYSCTL}\n" in text
        assert '+KDUMP_CMDLINE_APPEND="reset_devices nr_cpus=1"' in text and "+kernel.panic = 10" in text
        assert f"set {PANIC}" in text and "hunter2" not in text
    assert host.get(DEFAULTS).startswith(BEFORE) and "nr_cpus=1" in host.get(DEFAULTS)
    assert host.get(SYSCTL) == "kernel.panic = 10\n" and host.get(PANIC).strip() == "10"
    after = host.picture()
    for words in ((), ("--check", "--diff")):
        again = host.play("apply.yml", "-e", f"kdo_plan={plan}", *words)
        assert again.code == 0 and again.changed() == 0 and "+++" not in again.text, again.text
    assert {k: v for k, v in host.picture().items() if "/tx/" in k} == {k: v for k, v in after.items() if "/tx/" in k}
    assert host.get(PANIC) == "10\n"


@needs_namespace
def test_kdo_and_the_playbook_make_the_same_transaction(host):
    plan = str(host.plan(fingerprint=host.fingerprint()))
    done = kdo_on(host, "apply", plan, "-y")
    assert "web1: committed" in done.stdout, done.stdout + done.stderr
    again = host.play("apply.yml", "-e", f"kdo_plan={plan}")
    assert again.code == 0 and again.changed() == 0, again.text
    history = [p.name for p in (host.tree / "var/lib/kdump-orchestrator/tx").iterdir()]
    assert len(history) == 1, history


@needs_namespace
def test_rollback_is_predicted_and_done(host):
    """Over a real connection, where there is an sshd."""
    with Sshd(host.folder / "sshd") if SSHD else nullcontext() as sshd:
        if sshd:
            host.behind(sshd)
        none = host.play("rollback.yml", "--check", "--diff")
        assert none.code == 0 and none.changed() == 0 and "there is no transaction to take back" in none.text, none.text
        host.play("apply.yml", "-e", f"kdo_plan={host.plan()}")
        now = host.picture()
        predicted = host.play("rollback.yml", "--check", "--diff")
        assert predicted.code == 0 and predicted.changed() == 1 and host.picture() == now, predicted.text
        done = host.play("rollback.yml", "--diff")
        assert done.code == 0 and done.changed() == 1, done.text
        for text in (predicted.text, done.text):
            assert (
                '-KDUMP_CMDLINE_APPEND="reset_devices nr_cpus=1"' in text and f"+++ after: {SYSCTL} (not there)" in text
            )
            assert PANIC in text and "hunter2" not in text
        assert host.get(DEFAULTS) == BEFORE and host.get(SYSCTL) is None and host.get(PANIC).strip() == "0"


@needs_namespace
def test_kdo_predicts_a_rollback_and_writes_nothing_anywhere(host):
    none = kdo_on(host, "rollback", "--check")
    assert none.returncode == 0 and "web1: nothing\n" in none.stdout, none
    host.play("apply.yml", "-e", f"kdo_plan={host.plan()}")
    now = host.picture()
    predicted = kdo_on(host, "rollback", "--check", "web1")
    assert predicted.returncode == 0 and host.picture() == now and not (host.folder / "store.db").exists(), predicted
    assert "web1: check\n" in predicted.stdout and "checked only: nothing was changed\n" in predicted.stdout
    done = kdo_on(host, "rollback", "web1", "-y", "--format", "json")
    (back,) = json.loads(done.stdout)["hosts"]
    assert done.returncode == 0 and back["state"] == "rolled-back" and (host.folder / "store.db").exists(), done
    assert set(back["put_back"]) == {DEFAULTS, SYSCTL, PANIC}
    for path in back["put_back"]:
        assert f"  would go back: {path}\n" in predicted.stdout, predicted.stdout
    for text in (predicted.stdout, back["diff"]):
        assert '-KDUMP_CMDLINE_APPEND="reset_devices nr_cpus=1"' in text and "-kernel.panic = 10" in text
        assert "hunter2" not in text
    assert host.get(DEFAULTS) == BEFORE and kdo_on(host, "rollback", "--check").stdout.startswith("web1: nothing\n")


@needs_namespace
def test_kdo_says_what_it_does_about_a_transaction_that_was_killed(host):
    host.play("apply.yml", "-e", f"kdo_plan={host.plan()}")
    (journal,) = (host.tree / "var/lib/kdump-orchestrator/tx").glob("*/journal")
    rows = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(rows[: next(n for n, row in enumerate(rows) if '"commit"' in row)]))
    now = host.picture()
    for words, said in ((["--check"], "would be undone first"), (["-y"], "was undone first")):
        done = kdo_on(host, "rollback", *words)
        assert done.returncode == 0 and f"  the unfinished transaction {journal.parent.name} {said}\n" in done.stdout, (
            done
        )
        assert (host.picture() == now) == (words == ["--check"])
    assert host.get(DEFAULTS) == BEFORE and host.get(SYSCTL) is None


@needs_namespace
def test_a_file_that_somebody_changed_stops_apply_and_rollback(host):
    plan = str(host.plan())
    host.put(DEFAULTS, BEFORE + "# mine\n")
    refused = host.play("apply.yml", "-e", f"kdo_plan={plan}", "--check")
    assert refused.code == 2 and f"{DEFAULTS} has changed" in refused.text, refused.text
    host.put(DEFAULTS, BEFORE)
    assert host.play("apply.yml", "-e", f"kdo_plan={plan}").code == 0
    host.put(DEFAULTS, "# all mine\n")
    refused = host.play("rollback.yml", "--check")
    assert refused.code == 2 and "changed since the transaction" in refused.text, refused.text
    forced = host.play("rollback.yml", "-e", "kdo_force=true", "--diff")
    assert forced.changed() == 1 and "-# all mine" in forced.text and host.get(DEFAULTS) == BEFORE, forced.text


@needs_namespace
def test_check_mode_sees_an_expectation_that_does_not_hold(host):
    plan = str(host.plan(expect=[{"kind": "value", "path": "/sys/kernel/kexec_crash_size", "value": "7"}],
                         changes=[]))  # fmt: skip
    assert host.play("apply.yml", "-e", f"kdo_plan={plan}").changed() == 0  # no steps: nothing is asked of the host
    plan = str(host.plan(expect=[{"kind": "value", "path": PANIC, "value": "11"}]))
    host.put(PANIC, "10\n")
    host.put(SYSCTL, "kernel.panic = 10\n")
    host.put(DEFAULTS, BEFORE + 'KDUMP_CMDLINE_APPEND="reset_devices nr_cpus=1"\n')
    for words in ((), ("--check",)):
        refused = host.play("apply.yml", "-e", f"kdo_plan={plan}", *words)
        assert refused.code == 2 and "expectation 0 is not met" in refused.text, refused.text


@needs_namespace
def test_validate_says_what_is_left(host):
    plan = str(host.plan())
    before = host.picture()
    bad = host.play("validate.yml", "-e", f"kdo_plan={plan}")
    assert bad.code == 2 and bad.changed() == 0 and host.picture() == before, bad.text
    assert f"left to be done: set KDUMP_CMDLINE_APPEND in {DEFAULTS}; write {SYSCTL}; set {PANIC} to 10." in bad.text
    host.play("apply.yml", "-e", f"kdo_plan={plan}")
    good = host.play("validate.yml", "-e", f"kdo_plan={plan}")
    assert good.code == 0 and good.changed() == 0, good.text
    host.crash_kernel(reserved=256 << 20, loaded=False)
    lost = host.play("validate.yml")
    assert lost.code == 2 and "no capture kernel is loaded" in lost.text, lost.text
    host.crash_kernel(reserved=0, loaded=False)
    none = host.play("validate.yml")
    assert none.code == 2 and "No memory is set aside" in none.text and "kdo plan -i INVENTORY" in none.text, none.text


def test_what_is_missing_is_said(tmp_path):
    plan = Simulated(tmp_path / "host").plan()
    relative = play(PLAYBOOKS / "detect.yml", "-i", LOCAL, *HERE, "-e", "kdo_facts_dir=facts", cwd=tmp_path)
    assert relative.code == 2 and "-e kdo_facts_dir=$PWD/facts" in relative.text
    missing = play(PLAYBOOKS / "apply.yml", "-i", LOCAL, *HERE, cwd=tmp_path)
    assert (
        missing.code == 2
        and "kdo_plan is missing" in missing.text
        and "kdo plan -i INVENTORY -o plan.json" in missing.text
    )
    none = play(PLAYBOOKS / "apply.yml", "-i", LOCAL, *HERE, "-e", "kdo_plan=nowhere.json", cwd=tmp_path)
    assert none.code == 2 and "cannot be read: No such file" in none.text, none.text
    other = play(PLAYBOOKS / "apply.yml", "-i", "db9,", *HERE, "-e", f"kdo_plan={plan}", cwd=tmp_path)
    assert other.code == 2 and "says nothing of the host db9; its hosts: web1" in other.text, other.text
    text = plan.read_text().replace("nr_cpus=1", "nr_cpus=2")
    (tmp_path / "forged.json").write_text(text)
    forged = play(PLAYBOOKS / "apply.yml", "-i", LOCAL, *HERE, "-e", "kdo_plan=forged.json", cwd=tmp_path)
    assert forged.code == 2 and "was changed after it was made" in forged.text, forged.text
    (tmp_path / "facts.json").write_text('{"kind": "Facts"}')
    wrong = play(PLAYBOOKS / "apply.yml", "-i", LOCAL, *HERE, "-e", "kdo_plan=facts.json", cwd=tmp_path)
    assert wrong.code == 2 and "is not a plan" in wrong.text, wrong.text


@given(st.text(), st.text(st.characters(max_codepoint=0x7F)))
def test_the_hash_of_a_plan_is_the_same_by_both_readers(one, two):
    """kdo reads a plan with msgspec, the lookup with the standard library: the hash covers the same bytes for both."""
    from orchestrator.documents.base import pretty
    from orchestrator.documents.plan import HostPlan
    from orchestrator.planning.plan import seal

    place = importlib.util.spec_from_file_location("kdo_change", PLAYBOOKS / "lookup_plugins/kdo_change.py")
    lookup = importlib.util.module_from_spec(place)
    place.loader.exec_module(lookup)
    row = HostPlan(host=one, fingerprint=two, status="none", platform=one + two, rule="", strategy="", notes=[two])
    with tempfile.NamedTemporaryFile() as file:
        file.write(pretty(seal(policy(), [row])))
        file.flush()
        assert lookup.part(lookup.read_plan(file.name), one)["status"] == "none"


def test_a_host_that_the_plan_refuses_says_why(tmp_path):
    from orchestrator.documents.decision import Refusal

    refusal = Refusal(id="G1", what="no memory can be set aside", why="the host has 256 MiB", fix="leave it out")
    plan = Simulated(tmp_path / "host").plan(status="refused", refusals=[refusal], changes=[])
    refused = play(PLAYBOOKS / "apply.yml", "-i", LOCAL, *HERE, "-e", f"kdo_plan={plan}", cwd=tmp_path)
    assert refused.code == 2 and "no memory can be set aside: the host has 256 MiB; to do: leave it out" in refused.text


@pytest.mark.skipif(not SSHD, reason="there is no sshd here")
def test_facts_over_ssh_become_a_plan(tmp_path):
    """detect.yml by hand over a real sshd; kdo, which need not reach the hosts, makes a plan of what it has kept."""
    with Sshd(tmp_path / "sshd") as sshd:
        known = sshd.known_hosts(tmp_path / "known_hosts")
        inventory = tmp_path / "hosts.ini"
        inventory.write_text("".join(
            f"{name} ansible_host=127.0.0.1 ansible_port={sshd.port} ansible_user={sshd.user} ansible_ssh_private_key_file={sshd.key}"
            f" ansible_python_interpreter={sys.executable} ansible_ssh_common_args='-F none -o UserKnownHostsFile={known}'\n"
            for name in ("h1", "h2")))  # fmt: skip
        seen = play(
            PLAYBOOKS / "detect.yml", "-i", str(inventory), "-e", f"kdo_facts_dir={tmp_path}/facts", cwd=tmp_path
        )
    assert seen.code == 0 and set(seen.recap) == {"h1", "h2"} and "capture kernel is" in seen.text, seen.text
    kept = facts_in(tmp_path / "facts")
    assert {name: f["host"] for name, f in kept.items()} == {"h1": "h1", "h2": "h2"}
    fleet = "".join(p.read_text() for p in sorted((tmp_path / "facts").glob("*.json")))
    done = subprocess.run([sys.executable, "-m", "orchestrator", "plan", "--facts", "-", "--format", "json"],
                          input=fleet, capture_output=True, text=True)  # fmt: skip
    assert [h["host"] for h in json.loads(done.stdout)["hosts"]] == ["h1", "h2"], done.stderr
