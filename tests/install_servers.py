# SPDX-License-Identifier: Apache-2.0
"""Installs what tests start for themselves (PostgreSQL, OpenSSH, a headless Chromium, shells) or run (GRUB's programs, lintian) from the distribution's packages, where that can be done.

Called by `make test`. No service is started or left enabled, no cluster is made: the tests start their own, on loopback.
Without root, or without apt, the tests that need them skip and say so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

RULE = Path("/usr/sbin/policy-rc.d")
NO_CLUSTER = Path("/etc/postgresql-common/createcluster.d/kdo-tests.conf")


def missing() -> list[str]:
    """Packages that would have to be installed."""
    out = []
    if not shutil.which("ssh"):
        out.append("openssh-client")
    if not shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin"):
        out.append("openssh-server")
    if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")) and not shutil.which("initdb"):
        out.append("postgresql")
    if not shutil.which("grub-script-check"):
        out.append("grub-common")  # programs only; nothing of this machine's boot is touched
    out += [name for name in ("chromium", "lintian", "zsh", "fish", "mandoc", "sudo") if not shutil.which(name)]
    return out


def main() -> None:
    """Install what is missing; whatever goes wrong, the tests say what they could not do."""
    wanted = missing()
    if not wanted or os.getuid() != 0 or not shutil.which("apt-get"):
        return
    rule = not RULE.exists()
    made = not NO_CLUSTER.exists()
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        if rule:
            RULE.write_text("#!/bin/sh\nexit 101\n")  # "no service is to be started"
            RULE.chmod(0o755)
        if made:
            NO_CLUSTER.parent.mkdir(parents=True, exist_ok=True)
            NO_CLUSTER.write_text("create_main_cluster = false\n")
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *wanted]):
            subprocess.run(["apt-get", *command], env=env, capture_output=True, check=False)
    finally:
        if rule:
            RULE.unlink(missing_ok=True)
        if made:
            NO_CLUSTER.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
