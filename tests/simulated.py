# SPDX-License-Identifier: Apache-2.0
"""Hosts that are only documents: they answer the probe, take a transaction and keep it. What Ansible would do is done here;
everything above it (shards, waves, gates, the store) is the real thing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from orchestrator.documents.facts import Facts, Inventory
from orchestrator.documents.verdict import Outcome
from orchestrator.engine import work
from orchestrator.fleet import inventory as inventories
from orchestrator.fleet import session
from orchestrator.fleet.collect import Collected, HostProblem
from tests.builders import debian, kernel
from tests.planning.test_plan import armed


def settled(host: str) -> Facts:
    """A host as the default policy wants it."""
    return msgspec.structs.replace(armed(), host=host)


def drifted(host: str) -> Facts:
    """The same with one kernel setting that is wrong: mended at once, without a reboot."""
    return kernel(settled(host), post_notifiers="Y")


def bare(host: str) -> Facts:
    """As after the installation: files, boot arguments and a reboot are missing."""
    return msgspec.structs.replace(debian(), host=host)


@dataclass
class Fleet:
    """Hosts by name. ``bad``: their transaction is undone; ``gone``: they cannot be reached."""

    make: Callable[[str], Facts] = drifted
    names: Sequence[str] = ()
    bad: set[str] = field(default_factory=set)
    refusing: set[str] = field(default_factory=set)  # their transaction is refused before anything is done
    gone: set[str] = field(default_factory=set)
    tags: dict[str, list[str]] = field(default_factory=dict)
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    done: dict[str, Facts] = field(default_factory=dict)  # what has been changed
    changed: list[list[str]] = field(default_factory=list)
    rebooted: list[str] = field(default_factory=list)
    before_transaction: Callable[[Sequence[str]], None] | None = None

    @property
    def inventory(self) -> inventories.Inventory:
        """As Ansible would have read it."""
        hosts = {n: inventories.Host(n, self.groups.get(n, ()), {"kdo_tags": self.tags.get(n, [])}) for n in self.names}
        return inventories.Inventory(hosts)

    def facts(self, host: str) -> Facts:
        """What the host says of itself now."""
        facts = self.done.get(host) or self.make(host)
        return msgspec.structs.replace(facts, inventory=Inventory(tags=self.tags.get(host, [])))

    def from_hosts(
        self, _whom: object, _targets: object, *, hosts: Iterable[str], progress: object = None
    ) -> Collected:
        """Ask them."""
        out = Collected()
        for host in hosts:
            if host in self.gone:
                out.problems.append(HostProblem(host, "unreachable", "the host cannot be reached", "no route"))
            else:
                out.facts.append(self.facts(host))
        return out

    def transact(self, _whom, plans, _hash, *, check=False, progress=None, part="whole"):
        """One transaction each."""
        names = [p.host for p in plans]
        if self.before_transaction is not None:
            self.before_transaction(names)
        self.changed.append(names)
        out = []
        for host in names:
            if host in self.refusing:
                out.append(
                    Outcome(
                        host=host, state="refused", error={"what": "no room", "why": "the test wants it", "fix": ""}
                    )
                )
                continue
            if host in self.bad:
                error = {"what": "a step failed", "why": "the test wants it", "fix": ""}
                out.append(Outcome(host=host, state="undone", error=error))
                continue
            self.done[host] = settled(host)
            out.append(Outcome(host=host, state="committed", changed=True, transaction=f"t-{host}"))
        return out

    def reboot(self, _whom, hosts, *, progress=None, once=False):
        """All come back."""
        self.rebooted += hosts
        return dict.fromkeys(hosts, "")

    def install(self, monkeypatch) -> Fleet:
        """Take Ansible's place in this process."""
        monkeypatch.setattr(work, "sweep", lambda inventory, *_, **__: dict.fromkeys(inventory.hosts, "simulated"))
        monkeypatch.setattr(work, "from_hosts", self.from_hosts)
        monkeypatch.setattr(session, "from_hosts", self.from_hosts)
        monkeypatch.setattr(session, "transact", self.transact)
        monkeypatch.setattr(session, "reboot_hosts", self.reboot)
        return self
