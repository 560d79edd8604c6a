# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a dump target is known before the crash: one broken thing at a time, each found by its own check."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

from orchestrator import bootloaders
from orchestrator.checks.base import Subject, function_of
from orchestrator.checks.run import verdict
from orchestrator.documents.decision import DumpTarget
from orchestrator.documents.facts import BlockDevice, Facts, FileFact, NetworkDevice, Ssh, SshKey, Target
from orchestrator.documents.verdict import Check
from orchestrator.errors import KdoError
from orchestrator.knowledge.load import knowledge
from orchestrator.planning.fingerprint import fingerprint
from orchestrator.planning.pipeline import Pipeline
from orchestrator.policy.decide import ram_of
from orchestrator.policy.load import parse
from tests.builders import KDUMP_TOOLS, file, platform
from tests.planning.test_plan import armed

K = knowledge()
KEY = "/root/.ssh/kdump_id_rsa"
GOOD = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMwc0Y5gJvGkRjnV1wCdq2V9o7N4R6kq2ZP7jTqYb0XW"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
ONLINE = "/etc/systemd/system/network-online.target.wants/systemd-networkd-wait-online.service"


def policy(target: str):
    text = "apiVersion: kdump-orchestrator/v1\nkind: Policy\nmetadata: {name: t}\nspec:\n  extends: [default]\n"
    return parse(text + (f"  settings: {{target: {target}}}\n" if target else ""), "t.yaml", K)


def host(**changes: Any) -> Facts:
    """An armed guest from which a dump would arrive at dumps@vault, or at an NFS server."""
    facts = armed(
        network=[NetworkDevice(name="ens3", driver="virtio_net")],
        ssh=Ssh(keys=[SshKey(path=KEY, mode="0600", public=GOOD)], known={"vault": [GOOD]}),
    )
    tools = [*facts.boot.tools, "ssh", "ssh-keygen", "mount.nfs"]
    boot = msgspec.structs.replace(facts.boot, tools=changes.pop("tools", tools))
    files = {**facts.files, ONLINE: FileFact(link="/lib/systemd/system/systemd-networkd-wait-online.service")}
    files |= changes.pop("files", {})
    without = changes.pop("without", ())
    files = {path: fact for path, fact in files.items() if path not in without}
    return msgspec.structs.replace(facts, boot=boot, files=files, **changes)


def checks(facts: Facts, target: str = "", **where: Any) -> dict[str, Check]:
    pipeline = Pipeline(policy(target), K)
    place = platform(**where)
    found = verdict(pipeline.planner, facts, place, pipeline.decider.decide(facts, place))
    return {check.id: check for check in found.checks}


SSH = "{ssh: dumps@vault}"
NFS = "{nfs: 'vault:/dumps'}"


@pytest.mark.parametrize("target", [SSH, f"{{ssh: dumps@vault, host_key: {GOOD}}}", NFS])
def test_a_host_from_which_the_dump_would_arrive(target: str) -> None:
    found = checks(host(), target)
    expected = "skip" if target == NFS else "pass"
    assert [found[id].verdict for id in ("target", "target-network", "target-key", "target-host-key")] == [
        "pass",
        "pass",
        expected,
        expected,
    ]


@pytest.mark.parametrize(
    ("changes", "target", "id", "says"),
    [
        ({"tools": []}, NFS, "target", "there is no mount.nfs"),
        ({"tools": []}, SSH, "target", "there is no ssh"),
        ({"network": []}, SSH, "target-network", "no network interface"),
        ({"without": [ONLINE]}, SSH, "target-network", "it wants nothing"),
        (
            {"files": {"/etc/systemd/system/systemd-networkd-wait-online.service": FileFact(link="/dev/null")}},
            NFS,
            "target-network",
            "masked: systemd-networkd-wait-online.service",
        ),
        ({"ssh": Ssh(keys=[], known={"vault": [GOOD]})}, SSH, "target-key", "is not there"),
        (
            {"ssh": Ssh(keys=[SshKey(path="/root/.ssh/id_rsa", mode="0600")], known={"vault": [GOOD]})},
            SSH,
            "target-key",
            "there are: id_rsa",
        ),
        ({"ssh": Ssh(keys=[SshKey(path=KEY, mode="0644")])}, SSH, "target-key", "mode 0644"),
        ({"ssh": Ssh(keys=[SshKey(path=KEY, mode="0600", uid=1000)])}, SSH, "target-key", "owner 1000"),
        ({"ssh": Ssh(keys=[], known={"vault": []})}, SSH, "target-host-key", "not in known_hosts"),
        (
            {"ssh": Ssh(keys=[], known={"vault": [OTHER]})},
            f"{{ssh: dumps@vault, host_key: {GOOD}}}",
            "target-host-key",
            "another ssh-ed25519 key",
        ),
        (
            {"ssh": Ssh(keys=[], known={"vault": []})},
            f"{{ssh: dumps@vault, host_key: {GOOD}}}",
            "target-host-key",
            "the policy's ssh-ed25519 key is not",
        ),
    ],
)
def test_each_thing_that_is_wrong_fails_its_own_check(changes: Any, target: str, id: str, says: str) -> None:
    found = checks(host(**changes), target)
    assert found[id].verdict == "fail" and says in found[id].evidence, found[id]


def test_what_was_not_looked_at_is_unknown_and_never_passes() -> None:
    found = checks(host(ssh=Ssh()), SSH)
    assert (found["target-key"].verdict, found["target-host-key"].verdict) == ("unknown", "unknown")


def test_a_server_that_the_host_itself_is_configured_for_counts_too() -> None:
    config = {"/etc/default/kdump-tools": file(KDUMP_TOOLS + 'NFS="vault:/dumps"\n')}
    assert checks(host(files=config, tools=[]))["target"].evidence.startswith("vault:/dumps: there is no mount.nfs")
    config = {"/etc/default/kdump-tools": file(KDUMP_TOOLS + 'SSH="dumps@vault"\n')}
    assert checks(host(files=config))["target-key"].verdict == "pass"


def directory(**more: Any) -> Target:
    values = {"path": "/var/crash", "exists": True, "mount_point": "/", "fs_type": "ext4", "read_only": False}
    return Target(**(values | {"size": 20 << 30, "free": 10 << 30} | more))


@pytest.mark.parametrize(
    ("seen", "expected", "says"),
    [
        (directory(), "pass", "10G free"),
        (directory(free=2 << 30), "warn", "2G free"),
        (directory(free=1 << 20), "fail", "1M free"),
        (directory(exists=False), "fail", "does not exist"),
        (directory(read_only=True), "fail", "read-only"),
        (directory(free=None), "unknown", "not known"),
        (directory(chain=[BlockDevice(name="dm-0", dm_kind="CRYPT")]), "warn", "encrypted (dm-0)"),
        (directory(chain=[BlockDevice(name="sda", network="iscsi")]), "warn", "over a network (iscsi)"),
        (directory(fs_type="nfs4", mount_point="/var/crash"), "fail", "remote-fs.target"),
    ],
)
def test_a_directory(seen: Target, expected: str, says: str) -> None:
    found = checks(host(targets=[seen]))
    assert found["target"].verdict == expected and says in found["target"].evidence, found["target"]
    stays = not seen.chain and seen.fs_type == "ext4"
    assert (found["target-network"].verdict == "skip") is (stays or bool(seen.chain and not seen.chain[0].network))


def test_a_login_is_needed_for_ssh_only() -> None:
    found = checks(host(ssh=Ssh()))
    assert {found[id].verdict for id in ("target-key", "target-host-key", "target-network")} == {"skip"}


def device(**more: Any) -> Target:
    return Target(**({"path": "UUID=aa", "exists": True, "source": "/dev/sdb1", "size": 20 << 30} | more))


XFS = {"fs_type": "xfs"}
MOUNTED = {**XFS, "mount_point": "/srv", "read_only": False, "free": 9 << 30}


@pytest.mark.parametrize(
    ("kind", "seen", "expected", "says"),
    [
        ("filesystem", None, "unknown", "not looked at"),
        ("filesystem", device(exists=False), "fail", "no block device"),
        ("filesystem", device(), "fail", "no filesystem"),
        ("filesystem", device(fs_type="crypto_LUKS"), "fail", "crypto_LUKS"),
        ("filesystem", device(**XFS), "pass", "not mounted now, 20G in size"),
        ("filesystem", device(**MOUNTED), "pass", "mounted at /srv, 9G free"),
        ("filesystem", device(**{**MOUNTED, "free": 1 << 20}), "fail", "1M free"),
        ("filesystem", device(**{**MOUNTED, "read_only": True}), "fail", "read-only at /srv"),
        ("filesystem", device(**{**XFS, "size": None}), "unknown", "not known"),
        ("filesystem", device(**XFS, chain=[BlockDevice(name="dm-1", dm_kind="CRYPT")]), "warn", "encrypted (dm-1)"),
        ("filesystem", device(**XFS, chain=[BlockDevice(name="sdb1", network="iscsi")]), "warn", "(iscsi)"),
        ("raw", device(), "pass", "20G in size"),
        ("raw", device(size=1 << 20), "fail", "1M in size"),
        ("raw", device(**XFS), "fail", "holds xfs"),
        ("raw", device(mount_point="/srv"), "fail", "is mounted at /srv"),
    ],
)
def test_a_device(kind: str, seen: Target | None, expected: str, says: str) -> None:
    """The question is the same for every family that can be planned with such a target; here it is asked directly."""
    facts, place = host(targets=[] if seen is None else [seen]), platform()
    pipeline = Pipeline(policy(""), K)
    decision = pipeline.decider.decide(facts, place)
    wish = DumpTarget(kind=kind, place="UUID=aa")
    decision = msgspec.structs.replace(decision, settings=msgspec.structs.replace(decision.settings, target=wish))
    boot = bootloaders.next_boot(place.boot_stack, facts)
    capture = pipeline.planner.families["debian"].capture(facts, place, boot)
    subject = Subject(
        facts, place, decision, boot, dataclasses.replace(capture), pipeline.planner.desired(decision, facts, place, boot),
        ram_of(facts),
    )  # fmt: skip
    answer = function_of("target")(subject)
    assert answer[0] == expected and says in answer[1], answer
    remote = seen is not None and any(d.network for d in seen.chain)
    assert (function_of("target-network")(subject)[0] == "pass") is remote


# The plan makes what the checks ask for.

PINNED = f"{{ssh: dumps@vault, host_key: {GOOD}}}"


@pytest.mark.parametrize(
    ("ssh", "key", "pinned"),
    [
        (Ssh(keys=[], known={"vault": []}), KEY, GOOD),
        (Ssh(keys=[SshKey(path=KEY, mode="0600")], known={"vault": []}), "", GOOD),
        (Ssh(keys=[], known={"vault": [OTHER, GOOD]}), KEY, ""),
    ],
)
def test_the_plan_makes_what_is_missing_and_nothing_else(ssh: Ssh, key: str, pinned: str) -> None:
    pipeline, facts = Pipeline(policy(PINNED), K), host(ssh=ssh)
    plan = pipeline.planner.plan_host(facts, platform(), pipeline.decider.decide(facts, platform()))
    (change,) = [change for change in plan.changes if change.kind == "login"]
    assert change.step == {"op": "action", "name": "ssh-target", "server": "vault", "key": key, "host_key": pinned}
    assert (KEY in change.what) is bool(key) and (GOOD in change.diff) is bool(pinned)
    assert not change.default  # a trial boot comes after it


def test_nothing_is_planned_for_a_login_that_is_ready_or_was_not_looked_at() -> None:
    pipeline = Pipeline(policy(PINNED), K)
    for ssh in (Ssh(keys=[SshKey(path=KEY)], known={"vault": [GOOD]}), Ssh()):
        facts = host(ssh=ssh)
        plan = pipeline.planner.plan_host(facts, platform(), pipeline.decider.decide(facts, platform()))
        assert [change.kind for change in plan.changes] == ["file"]  # SSH= in /etc/default/kdump-tools


def test_hosts_that_differ_in_their_keys_have_plans_of_their_own() -> None:
    pipeline = Pipeline(policy(PINNED), K)
    decision = pipeline.decider.decide(host(), platform())
    ready = host()
    bare = host(ssh=Ssh(keys=[], known={"vault": []}))
    plans = [pipeline.planner.plan_host(facts, platform(), decision) for facts in (ready, bare, ready)]
    assert [sum(c.kind == "login" for c in plan.changes) for plan in plans] == [0, 1, 0]
    assert fingerprint(ready, platform()) != fingerprint(bare, platform())


def test_a_server_that_nobody_pinned_is_a_note() -> None:
    pipeline, facts = Pipeline(policy(SSH), K), host(ssh=Ssh(keys=[], known={"vault": []}))
    plan = pipeline.planner.plan_host(facts, platform(), pipeline.decider.decide(facts, platform()))
    assert any("vault is not in known_hosts" in note for note in plan.notes)


def test_a_key_elsewhere_is_the_operators_own() -> None:
    pipeline = Pipeline(policy("{ssh: dumps@vault, key: /etc/kdump/key}"), K)
    facts = host(ssh=Ssh(keys=[], known={"vault": [GOOD]}))
    plan = pipeline.planner.plan_host(facts, platform(), pipeline.decider.decide(facts, platform()))
    assert not [change for change in plan.changes if change.kind == "login"]
    assert "key:/etc/kdump/key" in pipeline.targets() and "dumps@vault" in pipeline.targets()


@pytest.mark.parametrize(
    "target",
    [
        "{ssh: dumps@vault, host_key: 'ssh-ed25519 AAAA'}",
        f"{{ssh: dumps@vault, host_key: 'restrict {GOOD}'}}",
        f"{{ssh: dumps@vault, host_key: '{GOOD} comment'}}",
        f"{{nfs: 'vault:/dumps', host_key: {GOOD}}}",
        "{ssh: dumps@vault, host_key: 'ssh-dss AAAAC3NzaC1lZDI1NTE5AAAAIMwc0Y5gJvGkRjnV1wCdq2V9o7N4'}",
    ],
)
def test_a_host_key_is_one_key_and_nothing_else(target: str) -> None:
    with pytest.raises(KdoError):
        policy(target)


def test_a_login_that_was_tried() -> None:
    ready = host().ssh
    for answer, expected in (("", "pass"), ("Permission denied (publickey).", "fail")):
        found = checks(host(ssh=msgspec.structs.replace(ready, login=answer)), SSH)["target-login"]
        assert (found.verdict, answer in found.evidence) == (expected, True)
    assert checks(host(), SSH)["target-login"].fix == "kdo validate --probe-target"
