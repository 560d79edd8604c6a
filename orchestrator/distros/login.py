# SPDX-License-Identifier: Apache-2.0
"""What a host lacks for a login at the dump server of its policy: the same on every family."""

from __future__ import annotations

import posixpath

from orchestrator.documents.decision import SSH_KEY, DumpTarget
from orchestrator.documents.facts import Facts

#: The only directory in which a key is made; a key anywhere else is the operator's own business.
KEY_FOLDER = "/root/.ssh"


def needed(target: DumpTarget, facts: Facts) -> dict[str, str]:
    """Members of the host side's ``ssh-target`` step; empty where nothing is missing, or nothing was looked at."""
    if target.kind != "ssh" or facts.ssh.keys is None:
        return {}
    server, key = target.place.rpartition("@")[2], target.key or SSH_KEY
    there = any(k.path == key for k in facts.ssh.keys) or posixpath.dirname(key) != KEY_FOLDER
    pinned = not target.host_key or target.host_key in facts.ssh.known.get(server, [])
    if there and pinned:
        return {}
    return {"server": server, "key": "" if there else key, "host_key": "" if pinned else target.host_key}


def note(target: DumpTarget, facts: Facts) -> str:
    """What the operator has to do, because no plan can; empty where nothing is."""
    if target.kind != "ssh" or facts.ssh.keys is None:
        return ""
    server = target.place.rpartition("@")[2]
    if not target.host_key and not facts.ssh.known.get(server):
        return f"{server} is not in known_hosts, and the policy has no target.host_key: the dump could not log in"
    return ""
