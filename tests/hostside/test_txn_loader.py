# SPDX-License-Identifier: Apache-2.0
"""Loader entries on a host made of files: tried once, made the default, taken back; killed anywhere, before or after."""

import json
import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "..", "playbooks", "module_utils")]
import kdo_arguments as arguments  # noqa: E402
import kdo_txn  # noqa: E402
import kdo_txn_loader as loader  # noqa: E402
from test_txn_fake import ID, REL, Host, Tools, sha  # noqa: E402
from test_txn_kill import every_point, fresh, hidden, no_waiting_for_disks, states  # noqa: E402, F401

MACHINE = "0123456789abcdef0123456789abcdef"
NEW, OLD = REL, "6.1.0-40-cloud-amd64"
ONE_SHOT = loader.VARIABLE % loader.ONE_SHOT
ENSURE, REMOVE = ["crashkernel=512M-:192M"], ["crash_kexec_post_notifiers"]
CONFIRM = "cd" * 32
GRUB2 = "/boot/grub2/grub.cfg"
GRUBENV = "/boot/grub2/grubenv"
MENU = """\
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
else
   set default="${saved_entry}"
fi
blscfg
"""


def environment(**values):
    text = "# GRUB Environment Block\n" + "".join(f"{k}={v}\n" for k, v in values.items())
    return text + "#" * (1024 - len(text))


class WithEntries(Host):
    """Two kernels of this system, a rescue entry, and one of another system."""

    folder, trial, sort_key = "", "", ""

    def path(self, release):
        return f"{self.folder}/{MACHINE}-{release}.conf"

    def entry(self, release, options):
        return f"title Debian ({release})\nversion {release}\n{self.sort_key}linux /{release}/linux\ninitrd /{release}/initrd\noptions {options}\n"

    def build(self, installed):
        self.put("/usr/bin/systemctl", "#!/bin/false\n", 0o755)
        for release in (NEW, OLD):
            self.put(self.path(release), self.entry(release, "root=LABEL=root ro quiet crashkernel=384M-:128M"))
        self.put(self.path("0-rescue"), self.entry("0-rescue", "root=LABEL=root ro rescue"))
        self.put("/etc/kernel/cmdline", "root=LABEL=root ro quiet crashkernel=384M-:128M\n")
        Host.build(self, installed)

    def options(self, name=None):
        with open(self.real(f"{self.folder}/{name}.conf" if name else self.path(NEW))) as stream:
            return loader.fields(stream.read())["options"].split()

    def boot(self, number):
        chosen = self.take_choice()
        self.put("/proc/cmdline", " ".join(self.options(chosen)) + "\n")
        self.put("/proc/sys/kernel/random/boot_id", f"boot-{number}\n")
        return chosen


class SystemdBoot(WithEntries):
    folder, trial, sort_key = "/boot/efi/loader/entries", "sdboot-trial", "sort-key debian\n"

    def build(self, installed):
        self.put("/usr/bin/bootctl", "#!/bin/false\n", 0o755)
        self.put("/sys/firmware/efi/efivars/Other-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f", "x")
        WithEntries.build(self, installed)

    def take_choice(self):
        chosen = loader.chosen_once(kdo_txn.Engine(self.root, self.real("/x"), lambda *_: (0, "")).tree)
        self.drop(ONE_SHOT)
        return chosen.replace(".conf", "")


class Bls(WithEntries):
    folder, trial = "/boot/loader/entries", "bls-trial"
    saved = f"{MACHINE}-{NEW}"

    def build(self, installed):
        self.put("/usr/bin/grub2-editenv", "#!/bin/false\n", 0o755)
        self.put(GRUB2, MENU)
        self.put(GRUBENV, environment(saved_entry=self.saved, boot_success="1"))
        self.put("/proc/self/mountinfo", "22 1 254:1 / / rw - ext4 /dev/vda1 rw\n")
        os.makedirs(self.real("/sys/devices/pci0000:00/virtio1/block/vda/vda1"), exist_ok=True)
        self.link("/sys/dev/block/254:1", "../../devices/pci0000:00/virtio1/block/vda/vda1")
        WithEntries.build(self, installed)

    def take_choice(self):
        rows = dict(row.split("=", 1) for row in self.get(GRUBENV).split("\n") if "=" in row)
        chosen = rows.pop("next_entry", "")
        self.put(GRUBENV, environment(**rows))
        return chosen


class Loaders(Tools):
    rebooted = False

    def bootctl_list(self, argv):
        folder = self.host.real(self.host.folder)
        found = [name for name in sorted(os.listdir(folder)) if name.endswith(".conf")]

        def order(name):
            with open(os.path.join(folder, name)) as stream:
                fields = loader.fields(stream.read())
            return ("sort-key" in fields, fields.get("version", ""), name)

        first = max(found, key=order)
        rows = [
            {"type": "type1", "id": name, "path": f"{self.host.folder}/{name}", "isDefault": name == first}
            for name in found
        ]
        return 0, "Couldn't find something\n" + json.dumps(rows)

    def bootctl_once(self, argv):
        assert argv[:2] == ["/usr/bin/bootctl", "set-oneshot"]
        self.host.drop(ONE_SHOT)
        if argv[2]:
            with open(self.host.real(ONE_SHOT), "wb") as stream:
                stream.write(b"\x07\0\0\0" + (argv[2] + "\0").encode("utf-16-le"))

    def grub2_once(self, argv):
        assert argv[1:3] == [GRUBENV, "set"]
        name, _, value = argv[3].partition("=")
        rows = dict(row.split("=", 1) for row in self.host.get(GRUBENV).split("\n") if "=" in row)
        self.host.put(GRUBENV, environment(**{**rows, name: value}))

    def grub2_next_none(self, argv):
        self.host.take_choice()

    def reboot(self, argv):
        self.rebooted = True


@pytest.fixture(params=[SystemdBoot, Bls])
def host(request, tmp_path):
    return request.param(tmp_path / "host")


def tried(host):
    step = {"op": "action", "name": host.trial, "ensure": ENSURE, "remove": REMOVE}
    return {"format_version": "1.0", "id": ID, "steps": [step], "expect": []}


def confirmed(host):
    steps = []
    for path in (host.path(NEW), host.path(OLD), "/etc/kernel/cmdline"):
        before = host.get(path)
        after = arguments.edit(path, before, ENSURE, REMOVE)
        steps.append({"op": "arguments", "path": path, "ensure": ENSURE, "remove": REMOVE, "before_sha256": sha(before),
                      "after_sha256": sha(after)})  # fmt: skip
    steps.append({"op": "action", "name": "loader-settle"})
    return {"format_version": "1.0", "id": CONFIRM, "steps": steps, "expect": [], "confirms": ID}


def run(host, document, **more):
    return kdo_txn.run(document, root=host.root, runner=Loaders(host), **more)


def arm(host):
    tools = Loaders(host)
    return kdo_txn.reboot_once(host.root, runner=tools), tools.rebooted


def trials(host):
    return [path for path in host.picture() if "kdump-orchestrator-trial" in path]


def test_tried_once_then_the_default_then_back(host):
    before = host.picture()
    looked = run(host, tried(host), check=True)
    assert looked["error"] is None and looked["changed"] and host.picture() == before
    result = run(host, tried(host))
    assert result["error"] is None and result["state"] == "committed"
    assert host.options() == ["root=LABEL=root", "ro", "quiet", "crashkernel=384M-:128M"]
    (entry,) = trials(host)
    text = host.get(entry)
    assert "crashkernel=512M-:192M" in text and f"/{NEW}/linux" in text and "sort-key" not in text
    done, rebooted = arm(host)
    assert done["error"] is None and rebooted
    assert host.boot("two").startswith("kdump-orchestrator-trial-")
    assert "crashkernel=512M-:192M" in host.get("/proc/cmdline")
    result = run(host, confirmed(host))
    assert result["error"] is None and trials(host) == []
    assert host.boot("three") == "" and "crashkernel=512M-:192M" in host.get("/proc/cmdline")
    for release in (NEW, OLD):
        assert host.get(host.path(release)).count("crashkernel=") == 1
    assert "rescue" in host.get(host.path("0-rescue")) and "crashkernel" not in host.get(host.path("0-rescue"))
    back = kdo_txn.rollback(host.root, runner=Loaders(host))
    assert back["error"] is None and back["reboot"]
    assert host.options() == ["root=LABEL=root", "ro", "quiet", "crashkernel=384M-:128M"]
    after = host.picture()
    for path in ("/proc/cmdline", "/proc/sys/kernel/random/boot_id", GRUBENV):
        before.pop(path, None), after.pop(path, None)
    assert after == before


def test_a_trial_that_never_came_back_boots_the_default(host):
    run(host, tried(host))
    arm(host)
    host.boot("two")
    assert host.boot("three") == "" and "384M" in host.get("/proc/cmdline")
    assert "does not have the arguments" in run(host, confirmed(host))["error"]["why"]
    assert kdo_txn.rollback(host.root, runner=Loaders(host))["error"] is None and trials(host) == []


def test_an_unbooted_trial_is_taken_back_with_its_choice(host):
    before = host.picture()
    run(host, tried(host))
    arm(host)
    assert kdo_txn.rollback(host.root, runner=Loaders(host))["error"] is None
    assert host.picture() == before and host.boot("two") == ""


def test_killed_anywhere(host, tmp_path):
    source, document, kind = host.root, tried(host), type(host)
    before = host.picture()

    def judge(work, stop):
        assert hidden(work) == []
        if states(work) != ["committed"]:
            assert work.picture() == before, stop

    def function(work, point):
        kdo_txn.run(document, root=work.root, runner=Loaders(as_kind(kind, work), on=point))

    assert every_point(function, source, tmp_path, judge) > 15
    again = as_kind(kind, fresh(source, tmp_path / "again"))
    run(again, document), arm(again), again.boot("two")
    document = confirmed(again)
    before = again.picture()

    def both(work, stop):
        assert hidden(work) == []
        now = work.picture()
        if states(work) == ["committed", "committed"]:
            assert not [path for path in now if "trial" in path], stop
        else:
            assert now == before, stop

    assert every_point(function, again.root, tmp_path, both) > 40


def as_kind(kind, host):
    other = kind.__new__(kind)
    other.root = host.root
    return other


def refused(host, document=None):
    result = run(host, document or tried(host))
    assert result["state"] == "refused", result
    return result["error"]["why"]


def test_where_there_is_no_trial(tmp_path):
    sd = SystemdBoot(tmp_path / "sd")
    Loaders(sd).bootctl_once(["/usr/bin/bootctl", "set-oneshot", "mine.conf"])
    assert "somebody has already chosen" in refused(sd)
    sd.drop(ONE_SHOT)
    for name in os.listdir(sd.real(sd.folder)):
        os.unlink(sd.real(f"{sd.folder}/{name}"))
    sd.put(f"{sd.folder}/{MACHINE}-x.conf", "title x\nlinux /x\n")
    assert "no options" in refused(sd)
    bls = Bls(tmp_path / "bls")
    bls.put(GRUBENV, environment(saved_entry="gone"))
    assert "no entry is named" in refused(bls)
    bls.put(GRUBENV, environment(saved_entry=Bls.saved, next_entry="mine"))
    assert "somebody has already chosen" in refused(bls)
    bls.put(GRUBENV, environment(saved_entry=Bls.saved))
    bls.put(GRUB2, "blscfg\n")
    assert "knows no choice" in refused(bls)
    bls.put(GRUB2, MENU)
    bls.put("/proc/self/mountinfo", "22 1 0:1 / / rw - btrfs /dev/vda1 rw\n")
    assert "btrfs" in refused(bls)


def test_arguments_from_the_environment_block_are_written_out_in_a_trial(tmp_path):
    host = Bls(tmp_path)
    host.put(GRUBENV, environment(saved_entry=Bls.saved, kernelopts="root=LABEL=root ro crashkernel=auto"))
    host.put(host.path(NEW), host.entry(NEW, "$kernelopts $tuned_params"))
    assert run(host, tried(host))["error"] is None
    (entry,) = trials(host)
    assert "options root=LABEL=root ro crashkernel=512M-:192M\n" in host.get(entry)


def test_an_entry_that_would_boot_unchosen_is_taken_away(tmp_path):
    host = SystemdBoot(tmp_path)
    SystemdBoot.sort_key, kept = "", SystemdBoot.sort_key
    try:
        for release in (NEW, OLD, "0-rescue"):
            host.put(host.path(release), host.entry(release, "root=x ro"))
    finally:
        SystemdBoot.sort_key = kept
    before = host.picture()
    result = run(host, tried(host))
    assert result["state"] == "undone" and "without being chosen" in result["error"]["why"]
    assert host.picture() == before


def test_a_document_never_tries_and_changes_at_once(host):
    document = confirmed(host)
    document.pop("confirms")
    document["steps"][-1] = tried(host)["steps"][0]
    assert "tried once" in refused(host, document)
