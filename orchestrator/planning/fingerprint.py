# SPDX-License-Identifier: Apache-2.0
"""The fingerprint of a host: what a plan depends on. If it moves, the plan is stale and is refused.

Free space, load, times and anything else that changes by itself are left out on purpose.
"""

from __future__ import annotations

import hashlib

import msgspec

from orchestrator.documents.facts import Facts
from orchestrator.documents.platform import Platform


def fingerprint(facts: Facts, platform: Platform) -> str:
    """SHA-256 (hex) over the state that decides what the plan for this host would be."""
    k, x = facts.kernel, facts.kexec
    subject = (
        platform.arch, platform.hypervisor, platform.role, platform.variant, platform.confidential, platform.cloud, platform.ambiguous,
        platform.distribution, platform.distribution_version, platform.boot_stack,
        k.release, k.cmdline, k.post_notifiers, k.lockdown,
        x.supported, x.crash_loaded, x.crash_size, x.load_disabled, x.limit_panic,
        facts.boot.grub.sha256, sorted(facts.boot.grub.env.items()),
        [(path, file.sha256, file.mode, file.error) for path, file in sorted(facts.files.items()) if file.text is not None or file.error],
        sorted((facts.packages or {}).items()),
        [(name, s.enabled, s.load) for name, s in sorted(facts.services.items())],
        [(k.path, k.mode) for k in facts.ssh.keys or []], sorted(facts.ssh.known.items()),
    )  # fmt: skip
    return hashlib.sha256(msgspec.json.encode(subject)).hexdigest()
