# SPDX-License-Identifier: Apache-2.0
"""The Ansible side of a crash test: one host is asked, crashed, waited for, and asked again."""

from __future__ import annotations

import base64
import json
from typing import Any

from orchestrator.errors import InvalidInput
from orchestrator.fleet.runner import Answer, Whom, run_playbook

RETURN_DELAY = 20  # seconds after the order in which the host may still answer from before its crash


def ask(whom: Whom, host: str, phase: str, spec: dict[str, Any], *, timeout: int = 1800, delay: int = 0) -> Answer:
    """One phase (check | crash | verdict) on one host. ``timeout`` in seconds is for its return (verdict only).

    Raises :class:`InvalidInput` where ``host`` names a group: its members are not given a file, so they do nothing.
    """
    files = {host: base64.b64encode(json.dumps(spec).encode())}
    playbook = "crash-verdict.yml" if phase == "verdict" else "crash.yml"
    variables = {"kdo_hosts": "all", "kdo_phase": phase, "kdo_timeout": timeout, "kdo_delay": delay}
    answers = run_playbook(playbook, whom, variables=variables, host_files=files, hosts=[host])
    if answers.keys() - {host}:
        raise InvalidInput(f"{host!r} is not one host of the inventory", fix="name one host, not a group or a pattern")
    return answers.get(host, Answer(host))
