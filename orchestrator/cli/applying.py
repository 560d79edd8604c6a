# SPDX-License-Identifier: Apache-2.0
"""What ``kdo apply`` does when it is no dry run: a run on record, in waves, and what came of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click
import msgspec

from orchestrator.checks.choice import PolicyChoice
from orchestrator.cli.apply_said import nothing_to_do, say_stale, within_cap
from orchestrator.cli.common import Hosts, report_waivers, write_json
from orchestrator.cli.fleet import Engine, carry_on, exit_of, settings_for
from orchestrator.documents.base import FORMAT_VERSION, digest
from orchestrator.documents.plan import HostPlan, Plan, Rollout
from orchestrator.documents.verdict import Outcome, Verdict
from orchestrator.engine.begin import begin_apply, begin_sweep, waves_of
from orchestrator.errors import InvalidInput
from orchestrator.fleet.inventory import Inventory, resolve
from orchestrator.planning.pipeline import Pipeline
from orchestrator.reports.fleet import came_to
from orchestrator.reports.plans import outcomes, planned_hosts, total, verdicts
from orchestrator.reports.text import line
from orchestrator.store import runs
from orchestrator.store.hosts import Document
from orchestrator.store.runs import RunRow
from orchestrator.store.store import Store

if TYPE_CHECKING:
    from orchestrator.engine.job import Settings

#: Up to so many hosts each is shown with its steps; of more, only those that need somebody.
EACH = 50
_DONE_AT = ("changed", "nothing", "compliant", "waived", "proof expired")


@dataclass
class Applying:
    """One `kdo apply` with all that was asked for."""

    hosts: Hosts
    chosen: PolicyChoice
    engine: Engine
    rollout: Rollout
    pipeline: Pipeline
    reboot: bool
    trial: bool
    max_hosts: int | None
    yes: bool
    prove_canary: bool
    consent: str

    def go(self, store_url: str | None, saved: Plan | None, output: str) -> int:
        """Plan where there is no plan, ask, go through the waves, and report."""
        inventory = resolve(self.hosts.whom())
        waivers = self.chosen.waiver_set(self.pipeline)
        with Store(store_url) as store:
            self.engine.check(store)
            problems: list[dict[str, str]] = []
            if saved is not None:
                plans = [(h, Document.of("plan", h)) for h in saved.hosts if h.host in inventory.hosts]
                work: dict[str, Document | str] = {h.host: d for h, d in plans if h.status == "changes"}
                changing = sum(bool(h.changes) for h, _ in plans if h.status == "changes")
                plan_hash, bad, summary = (
                    saved.hash,
                    any(h.status in ("refused", "audit") for h, _ in plans),
                    total(saved),
                )
                everything = list(saved.hosts)
            else:
                swept = begin_sweep(store, self.pipeline.policy, inventory, self._settings())
                state = carry_on(store, swept, inventory)
                if state != "done":
                    return exit_of(state, runs.tally(store.database, swept.id))
                seen = _Swept(each=swept.hosts <= EACH)
                planned = seen.look(_hosts_planned(store, swept))
                tally = None
                if output == "table":
                    tally = planned_hosts(planned)
                else:
                    deque(planned, 0)
                report_waivers(waivers, checks=False)
                work, changing, bad, everything = seen.work, seen.changing, seen.bad, seen.everything
                rows = runs.hosts_of(store.database, swept.id, states=("unreachable", "failed"))
                problems = [{"host": r.host, "status": r.state, "why": r.why} for r in rows if not r.plan]
                plan_hash = digest([self.pipeline.policy.hash, sorted(work.items())])
                summary = tally.line() if tally is not None else f"plan: {len(work)} hosts to change"
            within_cap(changing, self.rollout.max_hosts, self.max_hosts, self.chosen.name)
            if not (changing or (self.reboot and work)):
                return self._nothing(everything, problems, bad, output, plan_hash, pending=list(work))
            self._canary(inventory, work)
            if not self.yes:
                click.echo(summary, err=True)
                click.confirm(f"Apply this to {len(work)} hosts?", abort=True, err=True)
            settings = msgspec.structs.replace(self._settings(), prove=self.prove_canary)
            run = begin_apply(store, self.pipeline.policy, inventory, settings, work.items(), plan_hash)
            state = carry_on(store, run, inventory, self.consent)
            return self._report(store, run, state, problems, bad, output)

    def _settings(self) -> Settings:
        # The lane is for the look before anything is changed; a change looks again, through Ansible.
        more: dict[str, Any] = {"reboot": self.reboot, "trial": self.trial, "lane": self.hosts.lane}
        return settings_for(self.hosts, self.chosen, self.engine, self.rollout, **more)

    def _canary(self, inventory: Inventory, names: Iterable[str]) -> None:
        """Raise :class:`InvalidInput` before anything is touched when there is no canary that a crash could prove."""
        if not self.prove_canary:
            return
        first, *others = waves_of(inventory, names, self.rollout)
        if not others:
            why = f"all {len(first.hosts)} hosts are in one wave"
            raise InvalidInput("there is no canary to prove", where="--prove-canary", why=why,
                               fix="give --waves 1,100%, or name a canary in the policy's rollout")  # fmt: skip
        if self.consent and self.consent not in first.hosts:
            raise InvalidInput(
                "the consent is for no host of the first wave", where="--consent", why=repr(self.consent)
            )

    def _nothing(
        self, plans: list[HostPlan], problems: list[dict[str, str]], bad: bool, output: str, plan_hash: str, pending: list[str]
    ) -> int:  # fmt: skip
        if output == "json":
            write_json({"format_version": FORMAT_VERSION, "plan": plan_hash, "run": "", "hosts": [], "validation": [],
                        "pending_reboot": pending, "problems": problems})  # fmt: skip
        else:
            for host in pending:
                line(f"{host}: a reboot is needed before this is in force (--reboot does it)", "yellow")
            nothing_to_do(plans)
        _say(problems)
        tally: dict[str, int] = {"pending reboot": len(pending)} if pending else {}
        for p in problems:
            tally[p["status"]] = tally.get(p["status"], 0) + 1
        tally["drift"] = int(bad)
        return exit_of("done", {k: v for k, v in tally.items() if v})

    def _report(
        self, store: Store, run: RunRow, state: str, problems: list[dict[str, str]], bad: bool, output: str
    ) -> int:
        run = runs.get(store.database, run.id)
        tally = runs.tally(store.database, run.id)
        code = exit_of(state, {**tally, **{p["status"]: 1 for p in problems}, **({"drift": 1} if bad else {})})
        rows = runs.hosts_of(store.database, run.id)
        if output == "json":
            found = list(rows)
            write_json(
                {
                    "format_version": FORMAT_VERSION,
                    "plan": run.plan_hash,
                    "run": run.id,
                    "state": state,
                    "why": run.why,
                    "hosts": [store.document(r.outcome, Outcome) for r in found if r.outcome],
                    "validation": [store.document(r.verdict, Verdict) for r in found if r.verdict],
                    "pending_reboot": [r.host for r in found if r.state == "pending reboot"],
                    "reboot_held": {r.host: r.why for r in found if r.state == "pending reboot" and r.why},
                    "held": [r.host for r in found if r.state == "waiting"],
                    "waves": sum(w.state == "done" for w in runs.waves(store.database, run.id)),
                    "problems": [*problems, *({"host": r.host, "status": r.state, "why": r.why} for r in found if not r.outcome and r.state in ("failed", "unreachable", "busy"))],
                }
            )  # fmt: skip
            return code
        say_stale([r.host for r in runs.hosts_of(store.database, run.id, states=("stale",))])
        for row in rows:
            if run.hosts > EACH and row.state in (*_DONE_AT, "waiting"):
                continue
            if row.outcome:
                outcomes([store.document(row.outcome, Outcome)])
            elif row.state != "waiting":
                line(f"{row.host}: {row.state}{': ' + row.why if row.why else ''}", "bold red")
            if row.verdict:
                verdicts([store.document(row.verdict, Verdict)])
            if row.state == "pending reboot":
                how = row.why or "--reboot does it"
                line(f"{row.host}: a reboot is needed before this is in force ({how})", "yellow")
        if held := tally.get("waiting", 0):
            line(f"held back: {held} hosts: {run.why or state}", "red")
        _say(problems)
        line(f"run {run.id}: {state}", "bold")
        came_to(tally)
        if state in ("held", "paused", "interrupted"):
            line(f"  go on: kdo runs resume {run.id}", "dim")
        return code


def _say(problems: list[dict[str, str]]) -> None:
    for p in problems:
        click.echo(f"{p['host']}: {p['status']}: {p['why']}", err=True)


@dataclass
class _Swept:
    """What the plans of a sweep come to, in one pass over them. ``each``: keep them; else only the hashes of what changes."""

    each: bool
    work: dict[str, Document | str] = field(default_factory=dict)
    changing: int = 0
    bad: bool = False
    everything: list[HostPlan] = field(default_factory=list)

    def look(self, plans: Iterable[tuple[str, HostPlan]]) -> Iterator[HostPlan]:
        """Pass them on."""
        for hash, h in plans:
            self.bad = self.bad or h.status in ("refused", "audit")
            if h.status == "changes":
                self.work[h.host] = hash
                self.changing += bool(h.changes)
            if self.each:
                self.everything.append(h)
            yield h


def _hosts_planned(store: Store, run: RunRow) -> Iterator[tuple[str, HostPlan]]:
    """The plans that a sweep has made with their hashes, host by host."""
    sql = "SELECT d.hash, d.body FROM run_host h JOIN document d ON d.hash = h.plan WHERE h.run = ? ORDER BY h.host"
    for hash, body in store.database.stream(sql, (run.id,)):
        yield hash, store.decode(body, HostPlan)
