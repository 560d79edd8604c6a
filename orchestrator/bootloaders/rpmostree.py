# SPDX-License-Identifier: Apache-2.0
"""ostree deployments: each has its own kernel arguments, and rpm-ostree makes a new one for a change.

A new deployment is staged: its loader entry is written while the host shuts down. So the next boot is what ``rpm-ostree
kargs`` says; the entries tell it only where nothing is staged. Sources: rpm-ostree(1), ostree documentation ("Deployments",
"Staged deployments"), ostree's ostree-kernel-args.c.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.bootloaders.base import BootPlan, NextBoot, Stack, gone
from orchestrator.bootloaders.loader import boot_of, entries
from orchestrator.cmdline import key_of, split, values
from orchestrator.documents.facts import Facts
from orchestrator.documents.plan import Change, DesiredFile, DesiredState

_STAGED = "/run/ostree/staged-deployment"
_NO_TRIAL = (
    "a new deployment becomes the default at once; the one before it stays in the boot menu, and rpm-ostree rollback "
    "makes it the default again"
)


class RpmOstree(Stack):
    """The stack of rpm-ostree hosts."""

    place = "rpm-ostree kargs"

    def next_boot(self, facts: Facts) -> NextBoot:
        """The deployment that boots next: what rpm-ostree says, else the newest entry."""
        if facts.boot.kargs:
            return NextBoot(True, title="rpm-ostree", release=facts.kernel.release, arguments=split(facts.boot.kargs))
        if _STAGED in facts.boot.markers:
            return NextBoot(False, "a deployment is staged, and rpm-ostree kargs gave no answer")
        found, why = entries(facts)
        if why:
            return NextBoot(False, why)
        newest = found[0]  # ostree writes the number of the deployment as its version, the highest is the default
        return boot_of(newest, split(newest.fields.get("options", "")))

    def plan(
        self, facts: Facts, desired: DesiredState, boot: NextBoot, wrong: list[str], data: Mapping[str, Any]
    ) -> BootPlan:
        """One action. What it comes to is looked at on the host: the entry is written at shutdown only."""
        keys = dict.fromkeys([*map(key_of, desired.boot_ensure), *gone(desired)])
        wanted = {k: values([a for a in desired.boot_ensure if key_of(a) == k], k) for k in keys}
        # The order in which rpm-ostree keeps several values of one key is its own business.
        differ = [k for k, v in wanted.items() if sorted(v) != sorted(values(boot.arguments, k))]
        if not wrong or not differ:
            return BootPlan()
        ensure = [a for a in desired.boot_ensure if key_of(a) in differ]
        remove = [k for k in differ if k not in map(key_of, ensure)]
        step = {"op": "action", "name": "rpm-ostree-kargs", "ensure": ensure, "remove": remove}
        what = f"make a deployment with {', '.join(differ)} as wanted"
        return BootPlan([Change(kind="boot", what=what, why="; ".join(wrong), step=step)])

    def files(self, facts: Facts, desired: DesiredState, data: Mapping[str, Any]) -> list[DesiredFile]:
        """None: rpm-ostree keeps them."""
        return []

    def no_trial(self, facts: Facts) -> str:
        """There is none, and less need of one."""
        return _NO_TRIAL
