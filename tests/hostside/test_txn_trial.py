# SPDX-License-Identifier: Apache-2.0
"""New boot arguments for one boot: the entry, the choice, the confirmation, and the way back from every point."""

import json
import os
import shutil
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "..", "playbooks", "module_utils")]
import kdo_txn  # noqa: E402
import kdo_txn_grub as trial  # noqa: E402
import kdo_txn_menu as menu  # noqa: E402
from test_txn_fake import DEFAULTS, GRUB, LOADED, REL, SNIPPET, SNIPPET_TEXT, STATE, Host, Tools, change, sha  # noqa: E402
from test_txn_kill import content, every_point, fresh, hidden, states  # noqa: E402

CUSTOM, GRUBENV = "/boot/grub/custom.cfg", "/boot/grub/grubenv"
TRIAL_ID, CONFIRM_ID = "cd" * 32, "ef" * 32
NAME = "kdump-orchestrator-trial-" + TRIAL_ID[:8]
NEW = ["crashkernel=512M-:192M"]
MOUNTS = """\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
23 22 0:21 / /proc rw - proc proc rw
24 22 254:2 / /boot\\040old rw - btrfs /dev/vda2 rw
"""
HEADER = """\
### BEGIN /etc/grub.d/00_header ###
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="DEFAULT"
fi

if [ x"${feature_menuentry_id}" = xy ]; then
  menuentry_id_option="--id"
else
  menuentry_id_option=""
fi
export menuentry_id_option

function savedefault {
  if [ -z "${boot_once}" ]; then
    saved_entry="${chosen}"
    save_env saved_entry
  fi
}
terminal_input serial; terminal_output serial
### END /etc/grub.d/00_header ###
"""
ENTRY = """\
menuentry 'TITLE' --class debian --class gnu-linux $menuentry_id_option 'IDENT' --unrestricted {
	load_video
	insmod gzio
	if [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
	search --no-floppy --fs-uuid --set=root 1234-abcd
	echo	'Loading it''s kernel ...'   # the admin's } and { in words: "}"
	linux	/boot/vmlinuz-RELEASE root=UUID=1234-abcd ro  dyndbg=\\"file\\ a.c\\ +p\\" 'msg=two words' $vt_handoff ARGS
	echo	'Loading initial ramdisk ...'
	initrd	/boot/initrd.img-RELEASE
}
"""
FOOTER = """\
### BEGIN /etc/grub.d/30_uefi-firmware ###
if [ "$grub_platform" = "efi" ]; then
	menuentry 'UEFI Firmware Settings' $menuentry_id_option 'uefi-firmware' {
		fwsetup
	}
fi
### END /etc/grub.d/30_uefi-firmware ###
### BEGIN /etc/grub.d/41_custom ###
if [ -f  ${config_directory}/custom.cfg ]; then
  source ${config_directory}/custom.cfg
elif [ -z "${config_directory}" -a -f  $prefix/custom.cfg ]; then
  source $prefix/custom.cfg
fi
### END /etc/grub.d/41_custom ###
"""


def environment(**values):
    text = "# GRUB Environment Block\n" + "".join(f"{k}={v}\n" for k, v in values.items())
    return text + "#" * (1024 - len(text))


class Debian(Host):
    """A host with a menu as grub-mkconfig makes it."""

    default = "0"

    def build(self, installed):
        for path in ("/usr/sbin/grub-reboot", "/usr/bin/grub-editenv"):
            self.put(path, "#!/bin/false\n", 0o755)
        self.put(GRUBENV, environment(saved_entry="gnulinux-advanced>old"))
        self.put("/proc/self/mountinfo", MOUNTS)
        os.makedirs(self.real("/sys/devices/pci0000:00/virtio1/block/vda/vda1"))
        self.link("/sys/dev/block/254:1", "../../devices/pci0000:00/virtio1/block/vda/vda1")
        self.put("/boot/vmlinuz-old", "old kernel")
        Host.build(self, installed)

    def update_grub(self):
        def entry(title, ident, release=REL, more=""):
            text = ENTRY.replace("TITLE", title).replace("IDENT", ident).replace("RELEASE", release)
            return text.replace("ARGS", self.arguments() + more)

        text = HEADER.replace("DEFAULT", self.default) + "### BEGIN /etc/grub.d/10_linux ###\n"
        text += entry("Debian", "gnulinux-simple")
        text += "submenu 'Advanced options' $menuentry_id_option 'gnulinux-advanced' {\n"
        text += entry("Debian, with new", "new") + entry("Debian, with old", "old", "old", " old_one")
        text += entry("Debian (recovery mode)", "recovery", REL, " single")
        text += "}\n### END /etc/grub.d/10_linux ###\n" + FOOTER
        self.drop(GRUB)
        self.put(GRUB, text, 0o444, age=sum(text.encode()) % 1000)

    def chosen(self):
        return trial.environment(kdo_txn.Engine(self.root, self.real(STATE), lambda *_: (0, "")).tree).get("next_entry")

    def boot(self, number="two"):
        """What GRUB and the kernel do: the choice for one boot first, and it is gone before the kernel starts."""
        text, chosen = self.get(GRUB) + (self.get(CUSTOM) if self.here(CUSTOM) else ""), self.chosen()
        saved = dict(row.split("=", 1) for row in self.get(GRUBENV).split("\n") if "=" in row)
        saved.pop("next_entry", None)
        self.put(GRUBENV, environment(**saved), age=3)
        found = menu.Menu(text.replace("${config_directory}/custom.cfg", "done"))
        entry = menu.default_entry(menu.Menu(self.get(GRUB)), saved)
        if chosen:
            entry = next(e for e in found.entries if e.id == chosen)
        words = menu.linux(entry)
        self.put("/proc/cmdline", "BOOT_IMAGE=%s %s\n" % (words[1].value, " ".join(w.value for w in words[2:])))
        self.put("/proc/sys/kernel/random/boot_id", f"boot-{number}\n")

    def default_arguments(self):
        return menu.arguments(menu.default_entry(menu.Menu(self.get(GRUB)), {}))


class Grub(Tools):
    """The tools, with grub-editenv and grub-reboot; ``rebooted`` is set by a reboot."""

    rebooted = False

    def grub_check_custom(self, argv):
        done = subprocess.run(
            ["grub-script-check", self.host.real(CUSTOM)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        return done.returncode, done.stdout.decode()

    def grub_once(self, argv):
        assert argv[0].endswith("grub-reboot") and len(argv) == 2
        self.host.put(GRUBENV, environment(saved_entry="gnulinux-advanced>old", next_entry=argv[1]), age=4)

    def grub_next_none(self, argv):
        assert argv[1:] == [GRUBENV, "unset", "next_entry"]
        self.host.put(GRUBENV, environment(saved_entry="gnulinux-advanced>old"))

    def reboot(self, argv):
        self.rebooted = True


def tried(host, installed=True, **more):
    """Everything but the default boot entry, and the trial."""
    document = change(host, installed)
    steps = [s for s in document["steps"] if s.get("path") != SNIPPET and s.get("name") != "grub-regenerate"]
    step = {"op": "action", "name": "grub-trial", "ensure": NEW, "remove": ["quiet", "nokdump"]}
    expect = [item for item in document["expect"] if item["path"] not in (GRUB, SNIPPET)]
    return dict(document, id=TRIAL_ID, steps=[*steps, step], expect=expect, **more)


def confirmed(**more):
    steps = [
        {"op": "write", "path": SNIPPET, "text": SNIPPET_TEXT, "mode": "0644", "before_sha256": None},
        {"op": "action", "name": "grub-regenerate"},
    ]
    words = {"crashkernel=": NEW[0]}
    expect = [{"kind": "words", "path": GRUB, "line_prefix": "linux", "once": words, "present": [], "absent": []}]
    document = {"format_version": "1.0", "id": CONFIRM_ID, "title": "confirm", "steps": steps, "expect": expect}
    return dict(document, confirms=TRIAL_ID, **more)


def apply(host, document, tools=None, **more):
    return kdo_txn.run(document, root=host.root, runner=tools or Grub(host), **more)


def once(host, tools=None):
    return kdo_txn.reboot_once(host.root, runner=tools or Grub(host))


def back(host, tools=None, **more):
    return kdo_txn.rollback(host.root, runner=tools or Grub(host), **more)


@pytest.fixture
def host(tmp_path):
    return Debian(tmp_path)


@pytest.fixture
def bare(tmp_path):
    return Debian(tmp_path, installed=False)


def without_boot(picture):
    """A picture without what a boot changes by itself."""
    gone = (GRUBENV, "/proc/cmdline", "/proc/sys/kernel/random/boot_id")
    return {path: row for path, row in picture.items() if path not in gone}


def test_the_whole_way(host):
    before, old = host.picture(), host.default_arguments()
    result = apply(host, tried(host))
    assert result["state"] == "committed" and result["error"] is None, result
    assert host.picture()[GRUB] == before[GRUB] and not host.chosen()  # nothing boots it yet: a controller may die here
    assert not host.here(SNIPPET)
    host.boot()
    assert host.get("/proc/cmdline").split()[1:] == " ".join(old).split()
    host.put("/proc/sys/kernel/random/boot_id", "boot-one\n")

    tools = Grub(host)
    assert once(host, tools)["state"] == "rebooting" and tools.rebooted and host.chosen() == NAME
    host.boot()
    running = host.get("/proc/cmdline")
    assert running.split().count(NEW[0]) == 1 and "384M" not in running and "quiet" not in running
    assert 'dyndbg="file a.c +p" msg=two words' in running
    assert host.default_arguments() == old and not host.chosen()

    result = apply(host, confirmed())
    assert result["state"] == "committed" and result["error"] is None, result
    assert not host.here(CUSTOM) and NEW[0] in host.default_arguments()
    assert states(host) == ["committed", "committed"]
    result = back(host)
    assert result["state"] == "rolled-back" and result["reboot"] and {SNIPPET, DEFAULTS} <= set(result["put_back"])
    assert states(host) == ["rolled-back", "rolled-back"]
    assert without_boot(host.picture()) == without_boot(before)
    assert back(host)["state"] == "nothing"


def test_the_next_boot_after_a_failed_trial_is_the_old_one(host):
    before, old = host.picture(), host.default_arguments()
    apply(host, tried(host))
    once(host)
    host.boot("two")
    host.boot("three")  # it hung, and somebody pressed the button
    assert host.get("/proc/cmdline").split()[1:] == " ".join(old).split()
    result = back(host)
    assert result["state"] == "rolled-back" and not result["reboot"]
    assert without_boot(host.picture()) == without_boot(before)


def test_a_trial_that_runs_and_is_taken_back_needs_a_reboot(host):
    apply(host, tried(host))
    once(host)
    host.boot()
    assert back(host)["reboot"]


def test_a_package_that_makes_the_menu_anew_changes_no_default(bare):
    before = bare.picture()
    result = apply(bare, tried(bare, False))
    assert result["state"] == "committed", result
    assert bare.picture()[GRUB] == before[GRUB]
    once(bare)
    bare.boot()
    assert apply(bare, confirmed())["state"] == "committed"
    assert back(bare)["state"] == "rolled-back"
    assert without_boot(bare.picture()) == without_boot(before)


@pytest.mark.parametrize("text", ["menuentry 'mine' {\n  true\n}\n", "set color=blue", ""])
def test_the_admins_custom_cfg_comes_back_to_the_byte(host, text):
    host.put(CUSTOM, text, 0o600)
    was = host.picture()[CUSTOM]
    assert apply(host, tried(host))["state"] == "committed"
    assert host.get(CUSTOM).startswith(text) and NAME in host.get(CUSTOM)
    assert os.stat(host.real(CUSTOM)).st_mode & 0o777 == 0o600
    once(host)
    host.boot()
    assert apply(host, confirmed())["state"] == "committed"
    assert host.picture()[CUSTOM] == was
    assert back(host)["state"] == "rolled-back" and host.picture()[CUSTOM] == was


def test_what_the_admin_adds_to_custom_cfg_meanwhile_stays(host):
    apply(host, tried(host))
    host.put(CUSTOM, host.get(CUSTOM) + "# added\n")
    assert back(host)["state"] == "rolled-back"
    assert host.get(CUSTOM) == "# added\n"


def test_a_second_trial_replaces_the_entry_of_the_first(host):
    host.put(CUSTOM, "# mine\n")
    was = host.picture()[CUSTOM]
    apply(host, tried(host))
    again = dict(tried(host), id="12" * 32, steps=[tried(host)["steps"][-1]], expect=[])
    assert apply(host, again)["state"] == "committed"
    assert host.get(CUSTOM).count("menuentry") == 1 and NAME not in host.get(CUSTOM)
    back(host), back(host)
    assert host.picture()[CUSTOM] == was


def test_making_arguments_the_default_takes_a_forgotten_trial_away(host):
    apply(host, tried(host))
    once(host)
    document = {k: v for k, v in confirmed().items() if k != "confirms"}
    assert apply(host, document)["state"] == "committed"
    assert not host.here(CUSTOM) and not host.chosen()


def test_submenus_saved_entries_and_titles(host):
    for default, release in (
        ("0", REL), ("1>1", "old"), ("gnulinux-advanced>old", "old"), ("Advanced options>Debian, with old", "old"),
        ("1", REL), ("${saved_entry}", "old"), ("nowhere", REL), ("9", REL),
    ):  # fmt: skip
        host.default = default
        host.update_grub()
        if default == "9":  # whether there is a tenth entry depends on the firmware
            assert apply(host, tried(host), check=True)["state"] == "refused"
            continue
        assert apply(host, tried(host))["state"] == "committed", default
        (entry,) = menu.Menu(host.get(CUSTOM)).entries
        assert menu.linux(entry)[1].value == "/boot/vmlinuz-" + release
        assert ("old_one" in menu.arguments(entry)) == (release == "old")
        assert back(host)["state"] == "rolled-back"


def test_only_the_arguments_differ(host):
    apply(host, tried(host))
    text = host.get(CUSTOM)
    old, new = ENTRY.split("\n"), text[text.index("\tload_video") :].split("\n")
    for number, row in enumerate(old[1:9]):
        if "linux\t" not in row and "RELEASE" not in row:
            assert new[number] == row
    assert "--class debian --class gnu-linux --unrestricted" in text
    assert "\\\"file\\ a.c\\ +p\\\" 'msg=two words' $vt_handoff" in text


def obstacle(host, word, tools=None):
    before = host.picture()
    result = apply(host, tried(host), tools)
    assert result["state"] == "refused" and word in result["error"]["why"], result
    assert "--no-trial" in result["error"]["fix"] or "missing" in result["error"]["what"]
    assert host.picture() == before and "committed" not in states(host)


def test_obstacles_in_the_menu(host):
    text = host.get(GRUB)
    for old, new, word in (
        ("save_env next_entry", "true", "next_entry"),
        ("custom.cfg", "other.cfg", "41_custom"),
        ("### END /etc/grub.d/10_linux ###", "blscfg\n", "blscfg"),
        ("initrd\t", "linux /boot/vmlinuz-x\n\tinitrd\t", "kernel lines"),
        ('set default="0"', 'set default="`x`$a"', "computed"),
        ("### END /etc/grub.d/00_header ###", "set default=3", "2 places"),
        ("### END /etc/grub.d/41_custom ###", "echo 'open", "quote"),
        ("### END /etc/grub.d/00_header ###", "}", "brace"),
        ("/boot/vmlinuz-" + REL, "/boot/vmlinuz-gone", "not one in /boot"),
        ('set default="0"', 'set default="2"', "depends on the machine"),
    ):
        assert old in text
        os.chmod(host.real(GRUB), 0o644)
        host.put(GRUB, text.replace(old, new))
        obstacle(host, word)


def test_obstacles_in_the_environment_block(host):
    for text, word in (
        (environment(next_entry="2"), "chosen"),
        (environment(prev_saved_entry="2"), "prev_saved"),
        ("x" * 1024, "not an environment block"),
        (environment()[:500], "not an environment block"),
    ):
        host.put(GRUBENV, text)
        obstacle(host, word)
    host.drop(GRUBENV)
    obstacle(host, "there is no " + GRUBENV)


def test_obstacles_below_the_filesystem(host):
    for kind in ("btrfs", "zfs", "overlay", "squashfs"):
        host.put("/proc/self/mountinfo", MOUNTS.replace("ext4", kind))
        obstacle(host, kind)
    host.put("/proc/self/mountinfo", MOUNTS + "30 22 9:0 / /boot rw - ext4 /dev/md0 rw\n")
    obstacle(host, "not known")
    os.makedirs(host.real("/sys/devices/virtual/block/md0"))
    host.link("/sys/dev/block/9:0", "../../devices/virtual/block/md0")
    obstacle(host, "md0")
    os.makedirs(host.real("/sys/devices/virtual/block/dm-3/dm"))
    host.put("/sys/devices/virtual/block/dm-3/dm/uuid", "LVM-abcdef\n")
    host.link("/sys/dev/block/9:0", "../../devices/virtual/block/dm-3")
    obstacle(host, "LVM")


def test_other_obstacles(host):
    host.put(CUSTOM, "set default=mine\n")
    obstacle(host, "chooses the entry itself")
    host.put(CUSTOM, "menuentry 'never closed' {\n")
    obstacle(host, "never closed")
    host.drop(CUSTOM)
    for path in ("/usr/sbin/grub-reboot", "/usr/bin/grub-editenv", "/usr/bin/grub-script-check"):
        text = host.get(path)
        host.drop(path)
        obstacle(host, path)
        host.put(path, text, 0o755)


def test_a_block_that_was_edited_is_not_touched(host):
    apply(host, tried(host))
    host.put(CUSTOM, host.get(CUSTOM).replace("### END", "### end"))
    result = back(host)
    assert result["state"] == "undo-incomplete" and "by hand" in result["error"]["why"]
    host.drop(CUSTOM)
    assert back(host)["state"] == "rolled-back"


def test_what_a_plan_may_not_ask(host):
    step = tried(host)["steps"][-1]
    for more in (
        {"ensure": ["a b"]}, {"ensure": ["a'"]}, {"ensure": ["$x"]}, {"ensure": ["a;b"]}, {"ensure": ["a\nb"]}, {"ensure": ["a{"]},
        {"ensure": ["--x"]}, {"ensure": "quiet"}, {"ensure": [1]}, {"ensure": [], "remove": []}, {"remove": ["a=b"]}, {"text": "menuentry"},
        {"ensure": ["a"] * 65}, {"ensure": ["a" * 600]},
    ):  # fmt: skip
        result = apply(host, dict(tried(host), steps=[dict(step, **more)]))
        assert result["state"] == "refused" and "not valid" in result["error"]["what"], more
    both = [*tried(host)["steps"], {"op": "action", "name": "grub-regenerate"}]
    assert apply(host, dict(tried(host), steps=both))["state"] == "refused"
    assert apply(host, confirmed(confirms_="x"))["state"] == "refused"
    assert not host.here(STATE + "/tx")


def test_only_a_trial_that_runs_is_confirmed(host):
    assert "no trial" in apply(host, confirmed())["error"]["what"]
    apply(host, tried(host))
    assert "not been booted" in apply(host, confirmed())["error"]["why"]
    host.boot()  # without reboot-once: the old arguments
    assert "does not have the arguments" in apply(host, confirmed())["error"]["why"]
    assert once(host)["state"] == "refused"  # it is another boot by now
    assert back(host)["state"] == "rolled-back"
    assert once(host)["state"] == "refused"


def test_a_reboot_that_does_not_begin_leaves_no_choice_behind(host):
    apply(host, tried(host))
    for how in ("at once", "late"):
        result = once(host, Grub(host, {"reboot": how}))
        assert result["state"] == "refused" and not host.chosen()
    assert once(host, Grub(host, {"grub-once": "late"}))["error"] and not host.chosen()
    assert once(host)["state"] == "rebooting"


@pytest.mark.parametrize("how", ["at once", "late"])
@pytest.mark.parametrize("name", ["grub-check-custom", "kdump-hook", "kdump-reload", "apt-install"])
def test_a_command_that_fails_in_the_trial_undoes_it(tmp_path, name, how):
    host = Debian(tmp_path, installed=name != "apt-install")
    before, failed = host.picture(), []

    class Once(Grub):
        def __call__(self, command, argv, timeout):
            self.fail = {name: how} if command == name and not failed else {}
            failed.extend([1] if command == name else [])
            return Grub.__call__(self, command, argv, timeout)

    result = apply(host, tried(host, name != "apt-install"), Once(host))
    assert failed and result["state"] == "undone", result
    assert host.picture() == before


@pytest.mark.parametrize("how", ["at once", "late"])
@pytest.mark.parametrize("name", ["grub-regenerate", "grub-check"])
def test_a_command_that_fails_in_the_confirmation_leaves_the_trial(host, name, how):
    before = host.picture()
    apply(host, tried(host))
    once(host)
    host.boot()
    now = host.picture()
    assert apply(host, confirmed(), Grub(host, {name: how}))["state"] == "undone"
    assert host.picture() == now
    assert back(host)["state"] == "rolled-back" and without_boot(host.picture()) == without_boot(before)


def test_an_entry_that_grub_would_not_accept_is_taken_back(host):
    before = host.picture()
    os.chmod(host.real(GRUB), 0o644)
    host.put(GRUB, host.get(GRUB).replace("\tinsmod gzio\n", "\tinsmod gzio\n\tif true; then; fi\n"))
    before = host.picture()
    assert apply(host, tried(host))["state"] == "undone" and host.picture() == before


def test_check_writes_nothing(host):
    before = host.picture()
    assert apply(host, tried(host), check=True)["state"] == "check"
    assert host.picture() == before and not host.here(STATE)


def test_again_opens_no_second_trial(host):
    apply(host, tried(host))
    assert apply(host, tried(host))["changed"] is False and states(host) == ["committed"]
    host.drop(CUSTOM)
    assert apply(host, tried(host))["state"] == "committed" and NAME in host.get(CUSTOM)


def test_results_hold_no_arguments(host):
    text = json.dumps(apply(host, tried(host))) + json.dumps(kdo_txn.status(host.root))
    assert NEW[0] not in text


# Kill at every durable call.


@pytest.fixture(autouse=True)
def no_waiting_for_disks(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def no_tools(monkeypatch):
    """The kill tests' `recover` uses the plain tools; ours know grub-editenv."""
    import test_txn_kill

    monkeypatch.setattr(test_txn_kill, "Tools", Grub)
    monkeypatch.setattr(test_txn_kill, "fresh", copy)


def copy(source, target):
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)
    return Debian(target, make=False)


@pytest.mark.parametrize("installed", [True, False], ids=["installed", "bare"])
def test_killed_in_the_trial(tmp_path, monkeypatch, installed):
    no_tools(monkeypatch)
    source = Debian(tmp_path / "source", installed=installed)
    document, before, old = tried(source, installed), source.picture(), source.default_arguments()
    done = copy(source.root, tmp_path / "done")
    assert apply(done, document)["state"] == "committed"
    after, seen = content(done.picture()), set()

    def judge(host, stop):
        assert hidden(host) == []
        assert host.default_arguments() == old and not host.chosen()
        if states(host) == ["committed"]:
            assert content(host.picture()) == after, stop
        else:
            assert host.picture() == before, stop
        seen.update(states(host))

    def function(host, point):
        apply(host, document, Grub(host, on=point))

    every_point(function, source.root, tmp_path, judge)
    assert {"committed", "undone"} <= seen


@pytest.fixture
def booted(tmp_path, monkeypatch):
    """A host that runs its trial."""
    no_tools(monkeypatch)
    host = Debian(tmp_path / "source")
    host.put(CUSTOM, "# mine")
    host.before = host.picture()
    apply(host, tried(host))
    once(host)
    host.boot()
    return host


def test_killed_in_the_confirmation(booted, tmp_path):
    now, old, seen = booted.picture(), booted.default_arguments(), set()

    def judge(host, stop):
        assert hidden(host) == []
        seen.update(states(host))
        if states(host) == ["committed", "committed"]:
            assert NEW[0] in host.default_arguments() and host.get(CUSTOM) == "# mine"
        else:
            assert host.picture() == now and host.default_arguments() == old, stop

    def function(host, point):
        apply(host, confirmed(), Grub(host, on=point))

    every_point(function, booted.root, tmp_path, judge)
    assert seen >= {"committed", "undone"}


def test_killed_while_the_pair_is_rolled_back(booted, tmp_path):
    assert apply(booted, confirmed())["state"] == "committed"
    now, seen = content(booted.picture()), set()

    def judge(host, stop):
        assert hidden(host) == []
        seen.add(tuple(states(host)))
        if states(host) == ["committed", "committed"]:
            assert content(host.picture()) == now, stop
        else:  # both or none
            assert states(host) == ["rolled-back", "rolled-back"], stop
            assert without_boot(host.picture()) == without_boot(booted.before), stop

    def function(host, point):
        back(host, Grub(host, on=point))

    every_point(function, booted.root, tmp_path, judge)
    assert len(seen) == 2


def test_power_loss_while_the_trial_is_rolled_back_boots_the_default(booted, tmp_path):
    """The choice goes first: from then on nothing boots the trial."""
    host = fresh(booted.root, tmp_path / "x")
    host.__class__ = Debian
    Grub(host).grub_once(["/usr/sbin/grub-reboot", NAME])
    order = []

    class Watched(Grub):
        def __call__(self, name, argv, timeout):
            order.append((name, host.here(CUSTOM) and NAME in host.get(CUSTOM)))
            return Grub.__call__(self, name, argv, timeout)

    assert back(host, Watched(host))["state"] == "rolled-back" and not host.chosen()
    assert order[0] == ("grub-next-none", True)


def test_loaded_is_what_it_was(booted):
    assert back(booted)["state"] == "rolled-back" and booted.get(LOADED).strip() == "1"
    assert sha(booted.get(DEFAULTS)) == booted.get("/loaded-config")
