# SPDX-License-Identifier: Apache-2.0
"""systemd-boot: what boots next, what is changed, and where a trial is refused."""

import msgspec

from orchestrator.bootloaders import next_boot
from orchestrator.bootloaders.systemdboot import SystemdBoot
from orchestrator.documents.facts import Boot, FileFact
from orchestrator.fleet.act import change_document
from orchestrator.hostside import load as host_module
from orchestrator.knowledge.load import knowledge
from orchestrator.planning.plan import Planner, seal
from orchestrator.policy.decide import Decider
from orchestrator.policy.load import default_path, load
from tests.builders import RELEASE, debian, file, platform

MACHINE = "0123456789abcdef0123456789abcdef"
FOLDER = "/boot/efi/loader/entries"
STACK = SystemdBoot()
K = knowledge()


def entry(release, options="root=LABEL=root ro quiet", *, key="debian", machine=MACHINE):
    sort = f"sort-key {key}\n" if key else ""
    return f"""title Debian GNU/Linux
version {release}
machine-id {machine}
{sort}options {options} systemd.machine_id={machine}
linux /{machine}/{release}/linux
initrd /{machine}/{release}/initrd.img-{release}
"""


def host(entries, variables=None, conf="", **more):
    facts = debian()
    files = {path: f for path, f in facts.files.items() if path != "/etc/default/grub"}
    files |= {f"{FOLDER}/{name}.conf": file(text) for name, text in entries.items()}
    files["/boot/efi/loader/loader.conf"] = file(conf)
    files["/etc/kernel/cmdline"] = file("root=LABEL=root ro quiet\n")
    files |= more.pop("files", {})
    boot = Boot(markers=["/sys/firmware/efi"], tools=["bootctl"], loader=variables or {})
    return msgspec.structs.replace(facts, files=files, boot=boot)


OLD, NEW = "6.1.0-39-amd64", RELEASE
BOTH = {f"{MACHINE}-{OLD}": entry(OLD), f"{MACHINE}-{NEW}": entry(NEW)}


def booted(*args, **more):
    return next_boot("systemd-boot", host(*args, **more))


def test_what_boots_next():
    assert booted(BOTH).release == NEW
    assert booted(BOTH, conf=f"timeout 3\ndefault {MACHINE}-{OLD}.conf\n").release == OLD
    assert booted(BOTH, conf=f"default *-{OLD}*\n").release == OLD
    assert booted(BOTH, {"LoaderEntryDefault": f"{MACHINE}-{OLD}.conf"}, conf="default x\n").release == OLD
    assert (
        booted(BOTH, {"LoaderEntryDefault": "@saved", "LoaderEntryLastBooted": f"{MACHINE}-{OLD}.conf"}).release == OLD
    )
    assert booted(BOTH, {"LoaderEntryOneShot": f"{MACHINE}-{OLD}.conf"}).release == OLD
    assert booted(BOTH, {"LoaderEntryOneShot": "kdump-orchestrator-trial-01234567.conf"}).release == NEW
    other = {"other": entry("9.9", key=""), **BOTH}
    assert booted(other).release == NEW  # an entry without a sort-key comes after those with one


def test_a_unified_kernel_image_is_reported():
    image = {"/boot/efi/EFI/Linux/debian.efi": FileFact(size=1)}
    for boot in (
        booted({}, files=image),
        booted(BOTH, files=image),
        booted(BOTH, {"LoaderEntryDefault": "debian.efi"}),
    ):
        assert not boot.known and "unified kernel image" in boot.why and "/etc/kernel/cmdline" in boot.fix
    assert booted(BOTH, conf=f"default {MACHINE}-*\n", files=image).release == NEW


def planned(facts):
    policy, where = load(default_path(), K), platform(boot_stack="systemd-boot")
    return seal(policy, [Planner(K).plan_host(facts, where, Decider(policy, K).decide(facts, where))])


def test_every_kernel_of_this_system_and_what_the_next_one_is_made_from():
    foreign = {"ffffffffffffffffffffffffffffffff-6.6": entry("6.6", machine="f" * 32)}
    plan = planned(host({**BOTH, **foreign}))
    (h,) = plan.hosts
    paths = [c.step.get("path") or c.step["name"] for c in h.changes]
    assert paths[1:] == [
        f"{FOLDER}/{MACHINE}-{NEW}.conf",
        f"{FOLDER}/{MACHINE}-{OLD}.conf",
        "/etc/kernel/cmdline",
        "loader-settle",
    ]
    assert all(c.default for c in h.changes[1:]) and not h.changes[0].default
    assert (
        "+options root=LABEL=root ro quiet systemd.machine_id" in h.changes[1].diff
        and "crashkernel=384M-:128M" in h.changes[1].diff
    )
    assert h.trial == {
        "op": "action",
        "name": "sdboot-trial",
        "ensure": ["crashkernel=384M-:128M"],
        "remove": ["crash_kexec_post_notifiers"],
    }
    assert not h.notes
    for part in ("whole", "trial", "confirm"):
        document = msgspec.json.decode(__import__("base64").b64decode(change_document(h, plan.hash, part)))
        host_module("kdo_txn_doc").validate(document)


def test_the_result_needs_nothing_more():
    text = "root=LABEL=root ro quiet crashkernel=384M-:128M"
    done = {name: body.replace("ro quiet", "ro quiet crashkernel=384M-:128M") for name, body in BOTH.items()}
    (h,) = planned(host(done, files={"/etc/kernel/cmdline": file(text + "\n")})).hosts
    assert [c.step.get("path") for c in h.changes] == ["/etc/default/kdump-tools"]
    half = {**done, f"{MACHINE}-{OLD}": entry(OLD)}  # a kernel that does not boot next is put right as well
    (h,) = planned(host(half, files={"/etc/kernel/cmdline": file(text + "\n")})).hosts
    assert f"{FOLDER}/{MACHINE}-{OLD}.conf" in [c.step.get("path") for c in h.changes] and not h.trial


def test_where_a_trial_could_become_the_default_there_is_none():
    assert STACK.no_trial(host(BOTH)) == ""
    bare = {f"{MACHINE}-{NEW}": entry(NEW, key="")}
    assert "no entry is named" in STACK.no_trial(host(bare))
    assert STACK.no_trial(host(bare, conf=f"default {MACHINE}-*\n")) == ""
    assert "already chosen" in STACK.no_trial(host(BOTH, {"LoaderEntryOneShot": "x.conf"}))
    (h,) = planned(host(bare)).hosts
    assert any("cannot be tried" in note for note in h.notes)


def test_a_trial_that_was_left_is_cleaned_away():
    left = {**BOTH, "kdump-orchestrator-trial-01234567": entry(NEW)}
    assert "never confirmed" in STACK.left_over(host(left)) and booted(left).release == NEW
    done = {n: b.replace("ro quiet", "ro quiet crashkernel=384M-:128M") for n, b in left.items()}
    (h,) = planned(host(done, files={"/etc/kernel/cmdline": file("root=LABEL=root crashkernel=384M-:128M\n")})).hosts
    assert h.changes[-1].step["name"] == "loader-settle"


def test_an_entry_that_cannot_be_read_stops_the_plan():
    (h,) = planned(
        host(BOTH, files={f"{FOLDER}/{MACHINE}-{OLD}.conf": FileFact(error="Permission denied", sha256="x")})
    ).hosts
    assert h.status == "refused" and h.refusals[0].id == "boot-unknown"
