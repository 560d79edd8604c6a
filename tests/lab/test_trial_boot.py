# SPDX-License-Identifier: Apache-2.0
"""New boot arguments are tried once on a real guest: one good trial, one that validates badly, one that never comes up.

GRUB itself clears the choice, so whether a failed trial ends in the old arguments is shown by resets and nothing else.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestrator.documents.base import digest
from orchestrator.documents.plan import Plan
from orchestrator.fleet.act import transact, trial_id
from orchestrator.fleet.runner import Whom
from orchestrator.lab.aptrepo import build_repository
from orchestrator.lab.guest import Guest, Machine
from orchestrator.lab.images import ImageSpec, build_image
from orchestrator.lab.process import LabError
from tests.lab.lifecycle import Kdo, Resets

pytestmark = pytest.mark.lab

TITLE = "kdump-orchestrator: boot arguments on trial"
WANTED = "crashkernel=384M-:128M"
SNIPPET = "/etc/default/grub.d/zz-kdump-orchestrator.cfg"
TOO_SMALL = """\
apiVersion: kdump-orchestrator/v1
kind: Policy
metadata: {name: too-small}
spec:
  default:
    strategy: [kdump_reset]
    settings: {reservation: {crashkernel: 24M}}
"""


class Watch:
    """Looks at the guest by itself while `kdo apply` runs, and keeps what each boot looked like."""

    COMMAND = "cat /proc/sys/kernel/random/boot_id; cat /proc/cmdline; sha256sum < /boot/grub/grub.cfg; ls /boot/grub"

    def __init__(self, guest: Guest) -> None:
        self.guest, self.seen, self.on = guest, [], True  # type: ignore[var-annotated]
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while self.on:
            try:
                done = self.guest.ssh(self.COMMAND, 30, check=False)
            except LabError:
                done = None
            if done is not None and done.returncode == 0:
                boot, cmdline, menu, *names = done.stdout.splitlines()
                row = {"boot": boot, "cmdline": cmdline, "menu": menu.split()[0], "custom": "custom.cfg" in names}
                if row not in self.seen:
                    self.seen.append(row)
            time.sleep(0.4)

    def end(self) -> list[dict[str, Any]]:
        self.on = False
        self.thread.join(60)
        return self.seen


def prepared(artifacts: Path, name: str) -> Guest:
    return Guest(
        build_image(ImageSpec(suite="bookworm")),
        artifacts / "guest",
        name=name,
        machine=Machine(memory_mb=768, cpus=2),
    )


def generated(guest: Guest) -> dict[str, str]:
    """What an installed system has and the image lacks: a generated grub.cfg and GRUB's environment block.

    The package's own snippet goes: the old default has no crashkernel= at all. Returns what must be so again at the end.
    """
    guest.ssh("rm -f /etc/default/grub.d/kdump-tools.cfg && update-grub && grub-editenv /boot/grub/grubenv create")
    return state(guest)


def state(guest: Guest) -> dict[str, str]:
    paths = ("/boot/grub/grub.cfg", "/etc/default/kdump-tools", "/etc/default/grub")
    text = guest.read(f"sha256sum {' '.join(paths)}; ls /boot/grub /etc/default/grub.d")
    return {"files": text, "next": guest.read("grub-editenv /boot/grub/grubenv list | grep next_entry || true")}


def running(guest: Guest) -> str:
    return guest.read("cat /proc/cmdline")


def default(guest: Guest) -> str:
    """/proc/cmdline as a boot of the first menu entry gives it."""
    words = guest.read("grep -m1 '^[[:space:]]*linux' /boot/grub/grub.cfg").split()
    return " ".join([f"BOOT_IMAGE={words[1]}", *words[2:]])


def test_a_good_trial_becomes_the_default(artifacts: Path) -> None:
    with prepared(artifacts, "trial") as guest:
        guest.wait_ssh()
        before = generated(guest)
        guest.ssh("printf '# the admin wrote this' > /boot/grub/custom.cfg")
        old_menu = guest.read("sha256sum < /boot/grub/grub.cfg").split()[0]
        assert "crashkernel" not in running(guest) + guest.read("cat /boot/grub/grub.cfg")
        kdo = Kdo(guest, artifacts)
        (host,) = kdo.json("plan", code=2)["hosts"]
        assert host["reboot"] and not [n for n in host["notes"] if "tried" in n]
        kdo("apply", "-y", "--reboot", "--check", code=2)

        resets, watch = Resets(guest), Watch(guest)
        began = time.monotonic()
        done = kdo.json("apply", "-y", "--reboot")
        took = round(time.monotonic() - began, 1)
        seen = watch.end()
        resets.end()
        (outcome,) = done["hosts"]
        assert outcome["state"] == "committed" and outcome["rebooted"] and outcome["error"] is None
        assert done["validation"][0]["status"] == "pass"
        # Between the trial and its confirmation: the new arguments run, the default is still the old one.
        trial = [row for row in seen if WANTED in row["cmdline"] and row["menu"] == old_menu]
        assert trial and trial[0]["custom"], seen
        assert [row for row in seen if WANTED in row["cmdline"] and row["menu"] != old_menu]
        assert [t for t in guest.console.texts() if "Booting `" + TITLE in t]
        print(json.dumps({"apply": took, "reset": resets.seconds, "seen": seen}, indent=1))
        (artifacts / "seen.json").write_text(json.dumps(seen, indent=1))

        # The admin's file is what it was, nothing is chosen, and the next boot is the default's with the new arguments.
        assert guest.read("cat /boot/grub/custom.cfg") == "# the admin wrote this"
        assert guest.read("grub-editenv /boot/grub/grubenv list | grep next_entry || true") in ("", "next_entry=")
        began = time.monotonic()
        guest.reboot()
        print("reboot", round(time.monotonic() - began, 1))
        assert running(guest).split().count(WANTED) == 1
        kdo("validate")
        assert kdo.json("plan")["hosts"][0]["status"] == "none"

        # One rollback for the pair.
        (back,) = kdo.json("rollback", "trial", "-y")["hosts"]
        assert back["state"] == "rolled-back"
        guest.ssh("rm /boot/grub/custom.cfg")
        after = state(guest)
        assert after["files"] == before["files"]
        assert kdo.json("rollback", "trial", "-y")["hosts"][0]["state"] == "nothing"
        guest.reboot()
        assert "crashkernel" not in running(guest)
        print(json.dumps(kdo.seconds))


@pytest.mark.lab_full
def test_a_trial_that_validates_badly_is_rolled_back_at_once(artifacts: Path) -> None:
    policy = artifacts / "small.yaml"
    policy.write_text(TOO_SMALL)
    with prepared(artifacts, "small") as guest:
        guest.wait_ssh()
        before = generated(guest)
        kdo = Kdo(guest, artifacts)
        resets = Resets(guest)
        done = kdo.json("apply", "-p", str(policy), "-y", "--reboot", code=3)
        resets.end()
        (outcome,) = done["hosts"]
        print(json.dumps(outcome["error"], indent=1))
        assert outcome["state"] == "undone" and outcome["rebooted"]
        assert "capture-loaded" in outcome["error"]["why"] and "until its next reboot" in outcome["error"]["fix"]
        assert "crashkernel=24M" in running(guest)
        assert state(guest)["files"] == before["files"]
        took = guest.reboot()
        assert "crashkernel" not in running(guest) and state(guest)["files"] == before["files"]
        print(json.dumps([*kdo.seconds, ("reboot", round(took, 1))]))


def test_a_trial_that_never_comes_up_ends_in_the_old_arguments(artifacts: Path) -> None:
    with prepared(artifacts, "lost") as guest:
        guest.wait_ssh()
        before = generated(guest)
        old = default(guest)
        kdo = Kdo(guest, artifacts)
        path = artifacts / "plan.json"
        kdo("plan", "-o", str(path), code=2)
        path.write_bytes(msgspec.json.encode(poisoned(path)))
        mark = guest.console.mark()
        # The trial's panic resets it by itself (panic=10); what boots then is GRUB's choice.
        resets = Resets(guest, 2)
        began = time.monotonic()
        done = kdo.json("apply", str(path), "-y", "--reboot", code=3)
        took = round(time.monotonic() - began, 1)
        resets.end()
        (outcome,) = done["hosts"]
        print(json.dumps({"error": outcome["error"], "apply": took, "resets": resets.seconds}, indent=1))
        said = "\n".join(guest.console.texts(mark))
        assert "Kernel panic - not syncing" in said and "rdinit=/nonexistent" in said
        assert outcome["state"] == "undone" and "not started from the trial entry" in outcome["error"]["why"]
        assert resets.times == len(resets.seconds) == 2
        now = running(guest)
        assert now == old and "rdinit" not in guest.read("cat /boot/grub/grub.cfg")
        assert state(guest)["files"] == before["files"]
        took = guest.reboot()
        assert running(guest) == old
        print(json.dumps([*kdo.seconds, ("reboot", round(took, 1))]))


@pytest.mark.lab_full
def test_a_controller_that_dies_and_a_grub_that_cannot_forget(artifacts: Path) -> None:
    """After the trial's transaction nobody comes back: the next boot is the old one, and the next plan says what is left.

    Then the worst: the entry is chosen, and GRUB does not clear the choice (its save_env is taken out of grub.cfg).
    """
    with prepared(artifacts, "alone") as guest:
        guest.wait_ssh()
        before, old = generated(guest), default(guest)
        kdo = Kdo(guest, artifacts)
        path = artifacts / "plan.json"
        kdo("plan", "-o", str(path), code=2)
        plan = msgspec.json.decode(path.read_bytes(), type=Plan)
        (outcome,) = transact(Whom((str(kdo.inventory),)), plan.hosts, plan.hash, part="trial")
        assert outcome.state == "committed" and TITLE in guest.read("cat /boot/grub/custom.cfg")
        guest.reboot()
        assert running(guest) == old

        guest.ssh("sed -i '/save_env next_entry/d' /boot/grub/grub.cfg")
        guest.ssh(f"grub-reboot kdump-orchestrator-trial-{trial_id(plan.hash)[:8]}")
        mark = guest.console.mark()
        guest.reboot()
        assert running(guest) == old and not [t for t in guest.console.texts(mark) if "Booting `" + TITLE in t]
        (host,) = kdo.json("plan", code=2)["hosts"]
        assert any(note.startswith("left over: ") for note in host["notes"]), host["notes"]

        guest.ssh("update-grub")
        assert kdo.json("rollback", "alone", "-y")["hosts"][0]["state"] == "rolled-back"
        assert state(guest) == before
        print(json.dumps(kdo.seconds))


@pytest.mark.lab_full
def test_a_package_that_regenerates_the_menu_makes_nothing_the_default(artifacts: Path) -> None:
    """kdump-tools runs update-grub when it is installed, with a crashkernel= of its own: not in a trial."""
    image = build_image(ImageSpec(suite="bookworm", with_kdump=False))
    machine = Machine(memory_mb=768, cpus=2, apt_repository=build_repository(image, "bookworm"))
    with Guest(image, artifacts / "guest", name="bare", machine=machine) as guest:
        guest.wait_ssh()
        guest.ssh("update-grub && grub-editenv /boot/grub/grubenv create")
        old_menu = guest.read("sha256sum < /boot/grub/grub.cfg").split()[0]
        kdo = Kdo(guest, artifacts)
        resets, watch = Resets(guest), Watch(guest)
        done = kdo.json("apply", "-y", "--reboot")
        seen = watch.end()
        resets.end()
        assert done["hosts"][0]["state"] == "committed" and done["validation"][0]["status"] == "pass"
        assert [row for row in seen if WANTED in row["cmdline"] and row["menu"] == old_menu and row["custom"]], seen
        assert guest.ssh("test -e /boot/grub/custom.cfg", check=False).returncode != 0
        assert kdo.json("rollback", "bare", "-y")["hosts"][0]["state"] == "rolled-back"
        assert guest.ssh("test -e /etc/default/kdump-tools", check=False).returncode != 0
        assert guest.read("sha256sum < /boot/grub/grub.cfg").split()[0] == old_menu
        print(json.dumps([*kdo.seconds, ("seen", len(seen))]))


def poisoned(path: Path) -> Plan:
    """The plan with an argument that no kernel comes up with, sealed again."""
    plan = msgspec.json.decode(path.read_bytes(), type=Plan)
    (host,) = plan.hosts
    trial = {**host.trial, "ensure": [*host.trial["ensure"], "rdinit=/nonexistent"]}
    plan = msgspec.structs.replace(plan, hosts=[msgspec.structs.replace(host, trial=trial)], hash="")
    return msgspec.structs.replace(plan, hash=digest(plan))
