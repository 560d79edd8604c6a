# SPDX-License-Identifier: Apache-2.0
"""A failure at every step of a real apply on a real guest: the host is before or after, and what comes next mends the rest.

The change has every kind of step that a configured host meets: two files, the boot menu, the capture image, the unit,
loading, kernel settings. After each failure the host must be byte for byte what it was (or all done), with a capture
kernel loaded as before; after power loss it must boot by itself and be so.
"""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestrator.documents.plan import Plan
from orchestrator.fleet.act import change_document
from orchestrator.hostside import load as host_module
from orchestrator.lab.guest import Guest, Machine
from orchestrator.lab.images import ImageSpec, build_image
from orchestrator.resources import data_path
from tests.lab.lifecycle import Kdo, Resets

pytestmark = pytest.mark.lab

POLICY = """\
apiVersion: kdump-orchestrator/v1
kind: Policy
metadata: {name: other}
spec:
  settings: {sysctls: {kernel.unknown_nmi_panic: 1}, retention: {keep: 3}}
  default: {strategy: [crash_kexec_post_notifiers], settings: {capture: {ensure: [loglevel=5]}}}
"""
FOLDER = "/root/kdo-inject"
RECORD = "/var/crash/kexec_cmd"
LOADED = "/sys/kernel/kexec_crash_loaded"
MODES = ("kill-before", "kill-amid", "kill-after", "fail-after", "command-fails", "full", "power-amid")
FILE_MODES = ("kill-before", "kill-after", "fail-after", "full", "power-before")
COMMANDS = ("action", "service-enable")  # the operations that run commands


class Injector:
    """One guest, one change, and the state that every failure must lead back to."""

    def __init__(self, guest: Guest, home: Path) -> None:
        self.guest, self.home = guest, home
        self.rows: list[dict[str, Any]] = []
        guest.ssh(f"mkdir -p {FOLDER}")
        names = [*host_module("kdo_txn_boot").MODULES]
        for path in [
            *(data_path(f"playbooks/module_utils/{n}.py") for n in names),
            Path(__file__).parent / "inject.py",
        ]:
            guest.copy_to(Path(str(path)), f"{FOLDER}/{path.name}")

    def run(self, *words: str, timeout: float = 900, check: bool = True) -> Any:
        done = self.guest.ssh(f"python3 -B {FOLDER}/inject.py {' '.join(words)}", timeout, check=check)
        return json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else None

    def change(self, kdo: Kdo, policy: Path) -> list[dict[str, Any]]:
        """Plan, and put the host's change document into the guest."""
        path = self.home / "plan.json"
        kdo("plan", "-p", str(policy), "-o", str(path), code=2)
        plan = msgspec.json.decode(path.read_bytes(), type=Plan)
        document = base64.b64decode(change_document(plan.hosts[0], plan.hash))
        self.guest.ssh("cat > /root/change.json", stdin=document.decode())
        self.before = self.run("picture")
        steps: list[dict[str, Any]] = json.loads(document)["steps"]
        return steps

    def fail(self, mode: str, number: int, what: str) -> None:
        """One failure, the recovery, and the comparison."""
        began = time.monotonic()
        if mode.startswith("power"):
            self._power_loss(mode, number)
            how = "by the unit at boot"
        else:
            result = self.run("apply", mode, str(number), check=False)
            how = "by itself" if result is not None else "by the next run"
            if result is not None and result["state"] == "committed":
                how = "it held"  # the failure did not hit anything that the step needs
            back = self.run("recover")
            assert back["error"] is None, (mode, number, back)
        now = self.run("picture")
        if mode.startswith("power"):
            now[RECORD] = self.before[RECORD]  # a load inherits the arguments of this boot, which may be the new ones
            if self.before["unit"] != "enabled":
                now[LOADED] = self.before[LOADED]  # nothing loads it at boot, with or without a change of ours
        differs = {
            k: (self.before.get(k), now.get(k))
            for k in self.before.keys() | now.keys()
            if self.before.get(k) != now.get(k)
        }
        if how == "it held":
            assert self.run("rollback")["error"] is None
            now = self.run("picture")
            differs = {
                k: (self.before.get(k), now.get(k))
                for k in self.before.keys() | now.keys()
                if self.before.get(k) != now.get(k)
            }
        self.rows.append({"mode": mode, "step": number, "what": what, "undone": how, "seconds": round(time.monotonic() - began, 1),
                          "differences": len(differs)})  # fmt: skip
        print(json.dumps(self.rows[-1]), flush=True)
        assert differs == {}, (mode, number, what, differs)
        if mode.startswith("power"):
            if self.before["unit"] != "enabled":
                self.guest.ssh("grep -q 1 /sys/kernel/kexec_crash_loaded || kdump-config load")
            self.before[RECORD] = self.run("picture")[RECORD]

    def _power_loss(self, mode: str, number: int) -> None:
        mark = self.guest.console.mark()
        self.guest.ssh(f"nohup python3 -B {FOLDER}/inject.py apply {mode} {number} >/dev/null 2>&1 &")
        self.guest.wait_console("KDO-INJECT-POWER", 600, since=mark)
        self.guest.stop()
        self.guest.start()
        self.guest.wait_ssh(600)
        for _ in range(120):
            if self.guest.read("systemctl is-active kdump-tools || true") in ("active", "failed"):
                break
            time.sleep(1)


def armed(home: Path) -> Guest:
    """A guest that kdo has set up and rebooted once."""
    spec = ImageSpec(installed=True)
    guest = Guest(build_image(spec), home / "guest", name="inject", machine=Machine(memory_mb=spec.memory_mb, cpus=2))
    guest.start()
    guest.wait_ssh(600)
    with Resets(guest):
        Kdo(guest, home)("apply", "-y", "--reboot", timeout=1800)
    guest.wait_ssh(600)
    return guest


def keep(rows: list[dict[str, Any]], name: str) -> None:
    """Append the outcomes to the file that KDO_LAB_RESULTS names."""
    path = os.environ.get("KDO_LAB_RESULTS")
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"injection": name, "rows": rows}) + "\n")


@pytest.mark.lab_full
def test_every_failure_at_every_step(artifacts: Path) -> None:
    policy = artifacts / "other.yaml"
    policy.write_text(POLICY)
    guest = armed(artifacts)
    try:
        injector = Injector(guest, artifacts)
        steps = injector.change(Kdo(guest, artifacts), policy)
        doc = host_module("kdo_txn_doc")
        assert {s["op"] for s in steps} >= {"assign", "write", "action", "knob"}, steps
        for number, step in enumerate(steps):
            runs = step["op"] in COMMANDS
            for mode in MODES if runs else FILE_MODES:
                injector.fail(mode, number, doc.what(step))
        # After all of that the change itself still works, and goes back.
        assert injector.run("apply", "none", "99")["state"] == "committed"
        assert injector.run("rollback")["error"] is None
    finally:
        if "injector" in locals():
            keep(injector.rows, "Debian 12, GRUB: files, boot menu, load, kernel settings")
        guest.stop()
    assert len(injector.rows) > 30


@pytest.mark.lab_full
@pytest.mark.parametrize("name", ["kdump-build-image", "service-enable", "kdump-reload"])
def test_failures_at_steps_that_cost_minutes(name: str, artifacts: Path) -> None:
    """The worst moments of each."""
    policy = artifacts / "other.yaml"
    policy.write_text(POLICY)
    guest = armed(artifacts)
    try:
        injector = Injector(guest, artifacts)
        doc = host_module("kdo_txn_doc")
        guest.ssh("systemctl disable -q kdump-tools; touch /etc/initramfs-tools/modules")
        steps = injector.change(Kdo(guest, artifacts), policy)
        names = [step.get("name") or step["op"] for step in steps]
        for mode in ("kill-amid", "command-fails", "power-amid"):
            injector.fail(mode, names.index(name), doc.what(steps[names.index(name)]))
    finally:
        if "injector" in locals():
            keep(injector.rows, f"Debian 12, GRUB: {name}")
        guest.stop()


@pytest.mark.lab_full
def test_a_filesystem_that_turns_read_only(artifacts: Path) -> None:
    """Nothing can be undone then; the next run does it once the filesystem can be written again."""
    policy = artifacts / "other.yaml"
    policy.write_text(POLICY)
    guest = armed(artifacts)
    try:
        injector = Injector(guest, artifacts)
        steps = injector.change(Kdo(guest, artifacts), policy)
        doc = host_module("kdo_txn_doc")
        for number in (1, 3):
            began = time.monotonic()
            result = injector.run("apply", "read-only", str(number), check=False)
            assert result is None or result["state"] in ("undo-incomplete", "undone", "refused"), result
            guest.stop()
            guest.start()
            guest.wait_ssh(600)
            assert injector.run("recover")["error"] is None
            now = injector.run("picture")
            differs = {k for k in now.keys() | injector.before.keys() if now.get(k) != injector.before.get(k)}
            injector.rows.append({"mode": "read-only", "step": number, "what": doc.what(steps[number]), "undone": "after a boot",
                                  "seconds": round(time.monotonic() - began, 1), "differences": len(differs)})  # fmt: skip
            assert differs == set()
    finally:
        if "injector" in locals():
            keep(injector.rows, "Debian 12, GRUB: the file system turns read-only")
        guest.stop()
