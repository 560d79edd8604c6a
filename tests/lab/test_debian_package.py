# SPDX-License-Identifier: Apache-2.0
"""The Debian package on a real Debian 13 under a live systemd: installed by apt, used as a user would, its units started, removed.

The guest has what the package depends on and no package source, so apt can take nothing from anywhere else.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator import __version__
from orchestrator.agent.services import units
from orchestrator.lab.guest import Guest, Machine
from orchestrator.lab.images import build_image
from orchestrator.lab.spec import ImageSpec
from orchestrator.packaging.debian import NAMES, build

pytestmark = pytest.mark.lab
ROOT = Path(__file__).parents[2]
DEB = f"/root/kdump-orchestrator_{__version__}_all.deb"
APT = "DEBIAN_FRONTEND=noninteractive apt-get -y -q"
SLOW = 600.0  # seconds for one command: emulated, and beside other tests
POLICY = """\
apiVersion: kdump-orchestrator/v1
kind: Policy
metadata: {name: fleet}
spec:
  extends: [default]
"""


@dataclass(frozen=True)
class Ready(ImageSpec):
    """A guest in which everything is installed that the package needs."""

    more: tuple[str, ...] = ()

    @property
    def packages(self) -> tuple[str, ...]:
        return tuple(sorted({*super().packages, *self.more}))

    @property
    def needs_first_boot(self) -> bool:
        return False

    @property
    def title(self) -> str:
        return f"{super().title}-controller"


SPEC = Ready(suite="trixie", more=(*sorted(NAMES.values()), "man-db"))


class Host:
    """The guest, its seconds, and what it says."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.seconds: list[tuple[str, float]] = []

    def __call__(self, command: str, code: int = 0) -> str:
        began = time.monotonic()
        done = self.guest.ssh(command, SLOW, check=False)
        self.seconds.append((command.splitlines()[0][:60], round(time.monotonic() - began, 1)))
        assert done.returncode == code, (
            f"{command}: exit {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}"
        )
        return done.stdout

    def until(self, command: str) -> None:
        """Wait in the guest until ``command`` succeeds: how long that takes says nothing."""
        self(f"for i in $(seq 500); do {command} && exit 0; sleep 1; done; exit 1")

    def journal(self, unit: str) -> list[str]:
        return self(f"journalctl -u {unit} -o cat --no-pager").splitlines()

    def install(self) -> None:
        """As a user does. The image leaves out manual pages of everything, which Debian does not."""
        self(f"rm /etc/dpkg/dpkg.cfg.d/99mmdebstrap; {APT} install {DEB}")

    def remove(self) -> None:
        """Nothing runs, nothing is enabled, nothing has failed, and no file is left but state and what somebody has written."""
        self(f"{APT} remove kdump-orchestrator")
        looks = ("list-unit-files 'kdo-*'", "list-units --all 'kdo-*'", "--failed")
        assert (
            self(
                "; ".join(f"systemctl --no-legend {look}" for look in looks) + "; ps -eo args | grep '[/]usr/bin/kdo'",
                1,
            )
            == ""
        )
        left = self("find / -xdev -iname '*kdo-*' -o -xdev -iname '*kdump-orchestrator*' | sort").splitlines()
        allowed = ("/var/lib/kdump-orchestrator", "/root/", "/etc/kdump-orchestrator", "/etc/default/grub.d/zz-", "/tmp/",
                   "/var/lib/dpkg/info/", "/var/lib/systemd/timers/stamp-", "/etc/systemd/system/kdo-pull.timer.d",
                   "/etc/systemd/system/kdo-enforce.timer.d")  # fmt: skip
        assert [path for path in left if not path.startswith(allowed)] == []


@contextmanager
def debian_13(artifacts: Path) -> Iterator[Host]:
    image = build_image(SPEC)
    (deb,) = build(ROOT, artifacts)
    machine = Machine(memory_mb=1536, cpus=2)
    with Guest(image, artifacts / "guest", name="debian13", machine=machine) as guest:
        guest.wait_ssh(600)
        guest.copy_to(deb, DEB)
        host = Host(guest)
        try:
            yield host
        finally:
            print(json.dumps(host.seconds))


def test_installed_used_and_removed(artifacts: Path) -> None:
    with debian_13(artifacts) as host:
        host.install()
        # Installed, and nothing more: no unit was enabled or started.
        listed = dict(line.split()[:2] for line in host("systemctl list-unit-files --no-legend 'kdo-*'").splitlines())
        assert set(listed) == set(units()) - {"kdo-serve.service"} and set(listed.values()) <= {"disabled", "static"}
        said = host("systemctl list-units --all --no-legend 'kdo-*'; "
                    "systemd-analyze verify $(ls /usr/lib/systemd/system/kdo-* | sed 's/@/@x/') 2>&1")  # fmt: skip
        assert "kdo" not in said

        pages = ("kdo", "kdo-policy-lint", "kdo-units-install")
        said = host(f"kdo --version; man -w {' '.join(pages)}; man kdo")
        assert said.splitlines()[:4] == [
            f"kdo, version {__version__}",
            *(f"/usr/share/man/man1/{p}.1.gz" for p in pages),
        ]
        assert "kdo - make kernel crash dumps work" in " ".join(said.split())
        completed = "COMP_WORDS='kdo val' COMP_CWORD=1 _KDO_COMPLETE=bash_complete kdo"
        loaded = "source /usr/share/bash-completion/completions/kdo; complete -p kdo"
        assert host(f"{completed}; bash -c '{loaded}'").split()[0] == "plain,validate"
        assert "MISSING" not in host("kdo doctor")
        (found,) = json.loads(host("kdo detect --format json | tee facts.json"))["hosts"]
        platform = found["platform"]
        assert (platform["hypervisor"], platform["distribution_version"], platform["ambiguous"]) == ("tcg", "13", False)
        (plan,) = json.loads(host("kdo plan --facts facts.json --format json", 2))["hosts"]
        assert (plan["strategy"], plan["status"]) == ("kdump_reset", "changes")
        assert "apt-get install python3-asyncssh" in host("kdo detect -i localhost, --lane fast 2>&1", 5)

        # The watch sees under its unit, with few capabilities and system calls, what root sees.
        host("systemctl enable --now kdo-watch.service 2>&1")
        host.until('journalctl -u kdo-watch -o cat | grep -q \'"kind":"start"\'')
        (line,) = (json.loads(text) for text in host.journal("kdo-watch") if text.startswith("{"))
        once = json.loads(host("kdo watch --once --format json", 2).splitlines()[0])
        assert line["after"] == once["after"] and line["problems"] == once["problems"] == []
        host.remove()
        said = host.journal("kdo-watch")
        assert any('"kind":"end"' in text for text in said) and not any("Failed" in text for text in said), said


@pytest.mark.lab_full
def test_timers_pull_and_enforce(artifacts: Path) -> None:
    with debian_13(artifacts) as host:
        host.install()
        # A bundle on a local path, signed on the spot; the timers fire at once instead of at their hours.
        etc = "/etc/kdump-orchestrator"
        options = f"--from /root/FLEET.bundle --allowed-signers {etc}/allowed_signers --report /root/reports --apply"
        host(f"""set -e
mkdir reports
cat > policy.yaml <<'END'
{POLICY}END
kdo bundle create -p policy.yaml --serial 1 -o FLEET.bundle
ssh-keygen -q -t ed25519 -N '' -C ann -f ann
ssh-keygen -q -Y sign -n kdump-orchestrator -f ann FLEET.bundle 2>&1
echo ann@example.org $(cut -d' ' -f1,2 ann.pub) > {etc}/allowed_signers
echo 'KDO_PULL_OPTIONS={options}' > {etc}/pull.conf
echo localhost ansible_connection=local ansible_python_interpreter=/usr/bin/python3 > {etc}/inventory
echo 'KDO_ENFORCE_OPTIONS=-i {etc}/inventory' > {etc}/enforce.conf
for timer in kdo-pull.timer kdo-enforce.timer; do
  mkdir /etc/systemd/system/$timer.d
  printf '[Timer]\\nOnActiveSec=1s\\nRandomizedDelaySec=0\\n' > /etc/systemd/system/$timer.d/now.conf
done
systemctl daemon-reload
systemctl enable --now kdo-pull.timer 2>&1""")
        host.until("journalctl -u kdo-pull -o cat | grep -q ^Finished")
        said = "\n".join(host.journal("kdo-pull"))
        assert ": committed" in said and "a reboot is needed before this is in force" in said, said
        (name,) = host("ls reports").split()
        report = json.loads(host(f"cat reports/{name}"))
        assert report["outcome"]["state"] == "committed" and report["bundle"]["serial"] == 1 and not report["problems"]
        checks = {c["id"]: c["verdict"] for c in report["verdict"]["checks"]}
        assert (
            checks["next-boot"] == "pass" and checks["reservation"] == "fail"
        )  # of after the transaction, before the reboot
        assert "crashkernel=" in host("cat /boot/grub/grub.cfg")
        (plan,) = json.loads(host("kdo plan --format json", 2))["hosts"]
        assert plan["changes"] == [] and plan["action"] == "reboot"
        host("systemctl disable --now kdo-pull.timer 2>&1")

        # One that is stopped on its way has not failed, and leaves nothing behind.
        host("systemctl start --no-block kdo-pull.service")
        host.until("systemctl show -P MainPID kdo-pull.service | grep -qv '^0$'")
        host("systemctl stop kdo-pull.service")
        assert host("systemctl show -P Result kdo-pull.service").strip() == "success"

        host("systemctl enable --now kdo-enforce.timer 2>&1")
        host.until("journalctl -u kdo-enforce -o cat | grep -q ^Finished")
        said = "\n".join(host.journal("kdo-enforce"))
        assert "looked at 1 hosts" in said and "1 pending reboot" in said, said
        assert "pending reboot" in host("kdo status", 2)
        # A new version starts what lasts anew, and nothing that does not run.
        host("systemctl enable --now kdo-watch.service 2>&1 && systemctl enable kdo-worker@rehearsals.service 2>&1")
        before = host("systemctl show -P MainPID kdo-watch")
        host(f"{APT} install --reinstall {DEB}")
        assert host("systemctl show -P MainPID kdo-watch") != before
        assert host("systemctl is-active kdo-watch kdo-worker@rehearsals kdo-pull.timer").split() == [
            "active",
            "inactive",
            "inactive",
        ]
        host.remove()
        assert "crashkernel=" in host("cat /boot/grub/grub.cfg")  # what was applied is the host's own configuration now
        host(f"{APT} purge kdump-orchestrator && test -d /var/lib/kdump-orchestrator/tx")
