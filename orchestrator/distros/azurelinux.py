# SPDX-License-Identifier: Apache-2.0
"""Azure Linux: kdumpctl as on Red Hat's, boot arguments in grub.d (3) or in loader entries (4).

Release 2 is recognised only: its arguments are in /boot/mariner.cfg, a link to a file that every kernel package brings, and
its kdumpctl builds over the host's own initrd. Sources: microsoft/azurelinux SPECS/kexec-tools (kdumpctl, kdump.conf,
51_kexec_tools.cfg) and its issue 6478; release 4 from microsoft/lisa lisa/tools/kdump.py.
"""

from __future__ import annotations

from orchestrator.bootloaders.base import NextBoot
from orchestrator.distros.redhat import RedHat, _Host
from orchestrator.documents.decision import Decision, Settings
from orchestrator.documents.facts import Facts
from orchestrator.documents.plan import DesiredState
from orchestrator.documents.platform import Platform


class AzureLinux(RedHat):
    """The family module."""

    def _unsupported(self, host: _Host, s: Settings) -> str:
        if by_hand := self.data["by_hand"].get(host.distribution):
            return str(by_hand)
        if why := super()._unsupported(host, s):
            return why
        if s.enabled and not host.installed:
            package = (self._version(host.distribution, host.version) or {}).get("package", "")
            return (
                f"{package} is not installed, and tdnf's transactions cannot be taken back: install it, then plan again"
            )
        return ""

    def desired(self, decision: Decision, facts: Facts, platform: Platform, boot: NextBoot) -> DesiredState:
        """Also: the menu must say its arguments itself."""
        if made := next((a for a in boot.arguments if a.startswith("$")), ""):
            why = f"the boot menu takes its arguments from {made}, and not from grub.d: change the file that sets it by hand"
            return DesiredState(supported=False, why_not=why)
        return super().desired(decision, facts, platform, boot)
