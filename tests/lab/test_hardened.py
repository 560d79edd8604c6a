# SPDX-License-Identifier: Apache-2.0
"""No kdump as a baseline wants it, on a real guest: masked, refused to others, exempted again, and back."""

from pathlib import Path

import pytest

from orchestrator.lab.guest import Guest, Machine
from orchestrator.lab.images import ImageSpec, build_image
from orchestrator.lab.resets import Resets
from orchestrator.lab.treehash import diff_trees
from tests.lab.lifecycle import GRUB_CHOICE, Kdo, changed

pytestmark = [pytest.mark.lab, pytest.mark.lab_full]

EXEMPT = """\
apiVersion: kdump-orchestrator/v1
kind: Policy
metadata: {name: exempt}
spec:
  extends: [default]
  settings: {mask: manage}
"""
LOADED, SIZE = "/sys/kernel/kexec_crash_loaded", "/sys/kernel/kexec_crash_size"
STATE = "systemctl is-enabled kdump-tools.service || true"


def test_masked_exempted_and_back(artifacts: Path) -> None:
    spec = ImageSpec(suite="bookworm")
    (artifacts / "exempt.yaml").write_text(EXEMPT)
    with Guest(
        build_image(spec), artifacts / "guest", name="hardened", machine=Machine(memory_mb=spec.memory_mb, cpus=2)
    ) as guest:
        guest.wait_ssh()
        kdo = Kdo(guest, artifacts)

        def applied(policy: str) -> None:
            booted = Resets(guest)
            done = kdo.json("apply", "-p", policy, "-y", "--reboot", "--no-trial")
            booted.end()
            assert done["pending_reboot"] == [] and done["validation"][0]["status"] == "pass", done

        applied("default")
        before, choice = guest.tree_hash(), guest.read(GRUB_CHOICE)
        assert (guest.read(STATE), guest.read(f"cat {LOADED}")) == ("enabled", "1")

        predicted = kdo.json("plan", "-p", "hardened-disabled", code=2)["hosts"][0]
        assert [c["step"]["op"] for c in predicted["changes"] if c["kind"] == "service"] == [
            "service-disable",
            "service-mask",
        ]
        applied("hardened-disabled")
        assert (guest.read(STATE), guest.read(f"cat {LOADED}"), guest.read(f"cat {SIZE}")) == ("masked", "0", "0")
        assert "crashkernel" not in guest.read("cat /proc/cmdline")

        # The default leaves masks to whoever made them, and says so before anything is touched.
        held = guest.tree_hash()
        refused = kdo.json("plan", code=2)["hosts"][0]
        assert [r["id"] for r in refused["refusals"]] == ["service-masked"]
        kdo("apply", "-y", code=2)
        assert changed(held, guest.tree_hash()) == {}

        applied("exempt.yaml")
        assert (guest.read(STATE), guest.read(f"cat {LOADED}")) == ("enabled", "1")

        # Both transactions back, one after the other; what kdo foretells of each is what it then does.
        for state in ("masked", "enabled"):
            untouched = guest.tree_hash()
            (told,) = kdo.json("rollback", "hardened", "--check")["hosts"]
            assert diff_trees(untouched, guest.tree_hash()) == []
            (back,) = kdo.json("rollback", "hardened", "-y")["hosts"]
            assert (told["state"], back["state"]) == ("check", "rolled-back")
            foretold, came = ({p for p in o["put_back"] if p.startswith("/")} for o in (told, back))
            assert foretold == came, foretold ^ came
            assert guest.read(STATE) == state
        assert changed(before, guest.tree_hash()) == {}
        assert guest.read(GRUB_CHOICE) == choice
        guest.reboot(600)
        assert guest.read(f"cat {LOADED}") == "1"
