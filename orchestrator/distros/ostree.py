# SPDX-License-Identifier: Apache-2.0
"""Fedora CoreOS, RHEL for Edge and other rpm-ostree hosts: kdumpctl's files in /etc, boot arguments by rpm-ostree.

Sources: Fedora CoreOS documentation, "Debugging kernel crashes using kdump" and "Modifying Kernel Arguments"; rpm-ostree(1).
"""

from __future__ import annotations

from dataclasses import replace

from orchestrator.distros.redhat import RedHat, _Host
from orchestrator.documents.decision import Settings


class Ostree(RedHat):
    """The family module. The root is read-only by design, /etc and /var are not."""

    def _unsupported(self, host: _Host, s: Settings) -> str:
        if why := super()._unsupported(replace(host, read_only=False), s):
            return why
        if s.enabled and not host.installed:
            package = (self._version(host.distribution, host.version) or {}).get("package", "")
            return (
                f"{package} is not part of this image: add it there, or layer it (rpm-ostree install), then plan again"
            )
        return ""
