# SPDX-License-Identifier: Apache-2.0
"""The fast lane: many hosts asked at once over AsyncSSH, with the probe and the inventory that Ansible would use.

Read-only, always: what changes a host goes through Ansible and nothing else. A host that cannot be asked in just the way
in which Ansible would ask it is handed back with the reason. Facts are passed on as they come and never held here.
"""

from __future__ import annotations

import asyncio
import resource
import secrets
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

import msgspec

from orchestrator.documents.facts import Facts
from orchestrator.errors import InvalidInput, Problem
from orchestrator.fleet.collect import (
    MAX_DOCUMENT,
    Collected,
    HostProblem,
    facts_from,
    from_hosts,
    interest,
    problem_of,
)
from orchestrator.fleet.endpoint import Defaults, Route, defaults, route
from orchestrator.fleet.inventory import Host, Inventory
from orchestrator.fleet.payload import Payload, asked, build
from orchestrator.fleet.runner import Progress, Whom
from orchestrator.fleet.sshconfig import Unsupported
from orchestrator.resources import how_to_install

if TYPE_CHECKING:
    from orchestrator.fleet.wire import Said, Wire

Lane = Literal["auto", "fast", "ansible"]
OnFacts = Callable[[Facts | HostProblem], None]

CONNECTIONS = 100  # hosts asked at the same time
TIMEOUT = 60.0  # seconds for one host, from the first packet to the last
NOT_INSTALLED = "asyncssh is not installed (extra: fleet)"
_SPARE_FILES = 64  # descriptors for everything else
_SLACK = 64 << 10  # bytes around the document: banners


def require() -> None:
    """Raise :class:`InvalidInput` where nobody could be asked over the fast lane."""
    if find_spec("asyncssh") is None:
        raise InvalidInput("the fast lane cannot be used", where="--lane fast", why="asyncssh is not installed",
                           fix=f"{how_to_install('fleet', 'python3-asyncssh')}, or --lane auto")  # fmt: skip


def sweep(
    inventory: Inventory,
    targets: Sequence[str],
    *,
    become: bool = False,
    connections: int = CONNECTIONS,
    timeout: float = TIMEOUT,
    on_facts: OnFacts,
    udev: str = "auto",
) -> dict[str, str]:
    """Ask every host of the inventory; ``on_facts`` gets each answer as it comes, in no order, in this thread.

    ``targets``: paths where dumps may go; ``become``: ask as root through ``sudo -n``, unless a host's variables say
    otherwise; ``timeout``: seconds for one host. Returns host → why it has to be asked through Ansible; ``on_facts`` is
    not called for those. Raises :class:`KeyboardInterrupt` on Ctrl-C and SIGTERM, and whatever ``on_facts`` raises.
    """
    if find_spec("asyncssh") is None:
        return dict.fromkeys(inventory.hosts, NOT_INSTALLED)
    own = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    room = max(1, own - _SPARE_FILES) if own != resource.RLIM_INFINITY else connections
    looked_at, paths = asked(interest(), targets)
    payload = build(looked_at, paths, f"kdo-{secrets.token_hex(16)}", udev)
    work = _Sweep(payload, defaults(), become, timeout, on_facts)
    asyncio.run(work.all(iter(inventory.hosts.values()), max(1, min(connections, room, len(inventory.hosts)))))
    return work.left


class _Sweep:
    """One sweep: a few workers that take hosts from one iterator, so that 100,000 hosts are never 100,000 tasks."""

    def __init__(self, payload: Payload, given: Defaults, become: bool, timeout: float, on_facts: OnFacts) -> None:
        self.payload = payload
        self.given = given
        self.become = become
        self.timeout = timeout
        self.on_facts = on_facts
        self.left: dict[str, str] = {}

    async def all(self, hosts: Iterator[Host], workers: int) -> None:
        """Ask all hosts; the first error of a worker ends all of them."""
        from orchestrator.fleet.wire import Wire  # noqa: PLC0415  (asyncssh: 200 ms of import, and it is optional)

        wire = Wire()
        loop = asyncio.get_running_loop()
        main = asyncio.current_task()
        interrupted = False

        def stop() -> None:
            nonlocal interrupted
            interrupted = True
            if main is not None:
                main.cancel()

        signals = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
        for number in signals:
            loop.add_signal_handler(number, stop)
        tasks = [asyncio.create_task(self._worker(hosts, wire)) for _ in range(workers)]
        try:
            await asyncio.gather(*tasks)
        except asyncio.CancelledError:
            if interrupted:
                raise KeyboardInterrupt from None
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            wire.abort()
            for number in signals:
                loop.remove_signal_handler(number)

    async def _worker(self, hosts: Iterator[Host], wire: Wire) -> None:
        for host in hosts:
            try:
                answer = await self._ask(host, route(host, self.given, become=self.become), wire)
            except Unsupported as e:
                self.left[host.name] = str(e)
                continue
            except Exception as e:  # a host that AsyncSSH stumbles over must not end the sweep
                self.left[host.name] = f"AsyncSSH failed: {type(e).__name__}"
                continue
            self.on_facts(answer)

    async def _ask(self, host: Host, way: Route, wire: Wire) -> Facts | HostProblem:
        """One host's answer. Raises :class:`Unsupported` when Ansible may do better."""
        from orchestrator.fleet import wire as w  # noqa: PLC0415

        place = way.endpoint
        command = f"{'sudo -H -n -u root ' if way.become else ''}{way.interpreter} -B -"
        text = self.payload.text(host.name, host.groups, host.tags)
        connection = None
        try:
            async with asyncio.timeout(self.timeout):
                connection = await wire.connect(place)
                said, code = await w.run(connection, command, text, MAX_DOCUMENT + _SLACK)
        except TimeoutError:
            if connection is not None:
                return HostProblem(host.name, "failed", "the host did not answer in time", f"no answer in {self.timeout:g} s",
                                   "look at its load and its storage, or ask it through Ansible")  # fmt: skip
            why = f"Failed to connect to the host via ssh: ssh: connect to host {place.host} port {place.port}: Connection timed out"
            return problem_of(host.name, "unreachable", why)
        except w.Unreachable as e:
            return problem_of(host.name, "unreachable", str(e))
        finally:
            if connection is not None:
                connection.abort()  # everything that was wanted is here: no last round trip
        return self._answer(host, said, code, way.become)

    def _answer(self, host: Host, said: Said, code: int | None, become: bool) -> Facts | HostProblem:
        if said.cut:
            return HostProblem(host.name, "failed", "the host's answer is too large", f"more than {MAX_DOCUMENT} bytes",
                               "look at what it sends")  # fmt: skip
        word, document = self.payload.answer(b"".join(said.output))
        if word == "facts":
            return facts_from(document, host.name)
        if word == "failed":
            with suppress(msgspec.MsgspecError):
                return problem_of(host.name, "failed", msgspec.json.decode(document, type=str)[:1000])
        if code in (126, 127) or b"command not found" in said.errors:
            raise Unsupported("no Python by that name on the host")
        if become and b"sudo" in said.errors:
            raise Unsupported("sudo does not let in without a password")
        raise Unsupported("the answer is no facts document")


def notes(left: dict[str, str]) -> list[Problem]:
    """Why hosts went through Ansible: one note for each reason, the most frequent first, with how many hosts and one of them."""
    example: dict[str, str] = {}
    for host, why in left.items():
        example.setdefault(why, host)
    return [
        Problem(
            f"{count} host{'s' if count > 1 else ''} not asked over the fast lane: {why}", example[why], severity="note"
        )
        for why, count in Counter(left.values()).most_common()
    ]


def from_fleet(
    whom: Whom,
    inventory: Inventory,
    targets: Sequence[str],
    *,
    lane: Lane = "auto",
    progress: Progress | None = None,
    on_left: Callable[[dict[str, str]], None] | None = None,
) -> Collected:
    """Facts of all hosts of the inventory, sorted by host: over the fast lane, and the rest through Ansible.

    ``lane``: ``auto`` is both; ``fast`` never uses Ansible, hosts that need it become problems; ``ansible`` is
    :func:`collect.from_hosts`. ``on_left`` gets host → reason of those that the fast lane did not ask.
    """
    if lane == "ansible":
        return from_hosts(whom, targets, progress=progress)
    if lane == "fast":
        require()
    out = Collected()

    def take(item: Facts | HostProblem) -> None:
        if isinstance(item, Facts):
            out.facts.append(item)
        else:
            out.problems.append(item)
        if progress is not None:
            progress(item.host, "ok" if isinstance(item, Facts) else item.status)

    left = sweep(inventory, targets, become=whom.become, on_facts=take)
    if left and on_left is not None:
        on_left(left)
    if left and lane == "fast":
        fix = "ask it through Ansible (--lane auto)"
        out.problems += [
            HostProblem(h, "failed", "the fast lane cannot ask this host", why, fix) for h, why in left.items()
        ]
    elif left:
        rest = Whom(forks=whom.forks, become=whom.become, hosts_only=inventory.subset(left))
        more = from_hosts(rest, targets, progress=progress)
        out.facts += more.facts
        out.problems += more.problems
    out.facts.sort(key=lambda f: f.host)
    out.problems.sort(key=lambda p: p.host)
    return out
