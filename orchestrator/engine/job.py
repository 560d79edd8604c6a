# SPDX-License-Identifier: Apache-2.0
"""How a run was asked for, and what a worker gets to do one shard of it."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any

import msgspec

from orchestrator.checks.choice import PolicyChoice
from orchestrator.documents.base import Document
from orchestrator.documents.plan import Rollout
from orchestrator.errors import InvalidInput
from orchestrator.fleet.runner import Whom
from orchestrator.planning.pipeline import Pipeline

#: Hosts of one shard: few enough that a lost worker costs little, enough that Ansible's start does not count.
SHARD = 200


class Settings(Document, frozen=True, kw_only=True):
    """Kept with the run, so that it can be resumed. No variables of hosts, no secrets."""

    inventory: list[str] = []
    limit: str = ""
    forks: int = 20
    become: bool = False
    policy: str | None = None  # file or shipped name; None = the shipped default
    waivers: list[str] = []
    signers: str | None = None
    lane: str = "ansible"  # auto | fast | ansible, of a sweep
    reboot: bool = False
    trial: bool = True
    shard: int = SHARD
    parallel: int = 0  # shards at the same time; 0 = one for each CPU
    engine: str = "local"  # local | queue | ssh
    sites: dict[str, str] = {}  # engine ssh: site → user@host of its execution node
    rollout: Rollout = Rollout()
    prove: bool = False  # one host of the first wave is crashed on purpose before the second one begins
    folder: str = ""  # where relative names begin

    def whom(self, hosts_only: bytes = b"", via: str = "") -> Whom:
        """For the Ansible side."""
        return Whom(tuple(self.inventory), self.limit, self.forks, self.become, hosts_only=hosts_only, via=via)

    def data(self) -> Mapping[str, Any]:
        """As plain data, for the store."""
        found: Mapping[str, Any] = msgspec.to_builtins(self)
        return found


def settings_of(data: Mapping[str, Any]) -> Settings:
    """Back from the store; what another version has written beside is ignored."""
    return msgspec.convert(data, Settings)


def policy_of(settings: Settings, policy_hash: str) -> tuple[PolicyChoice, Pipeline]:
    """The policy of a run as it is here. Raises :class:`InvalidInput` when it is another one than the run was begun with."""
    chosen = PolicyChoice(settings.policy, tuple(settings.waivers), settings.signers)
    pipeline = chosen.pipeline()
    if pipeline.policy.hash != policy_hash:
        raise InvalidInput(
            "the policy here is another one than the run's", where=chosen.name,
            why=f"run: {policy_hash[:12]}, here: {pipeline.policy.hash[:12]}", fix="bring the run's policy here, or plan again",
        )  # fmt: skip
    return chosen, pipeline


class Job(Document, frozen=True, kw_only=True):
    """One shard for one worker process. ``hosts_only`` holds variables of hosts: it goes through a pipe and nowhere else."""

    store: str
    run: str
    shard: int
    worker: str
    hosts_only: bytes = b""
    via: str = ""  # an execution node: Ansible runs there


def worker_name(suffix: str = "") -> str:
    """A name for this process that no other one has."""
    return f"{socket.gethostname()}:{os.getpid()}{':' + suffix if suffix else ''}"
