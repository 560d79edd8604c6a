# SPDX-License-Identifier: Apache-2.0
"""``kdo report --control``: the fleet held against the controls of baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.checks.choice import PolicyChoice
from orchestrator.cli.common import report_problems, report_waivers
from orchestrator.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.checks.controls import Bench
    from orchestrator.documents.controls import ControlReport
    from orchestrator.documents.facts import Facts
    from orchestrator.store.store import Store

#: What the record says of a host's crash tests.
_PROOFS = {
    "proven": "a crash test of this host has left a vmcore",
    "proof expired": "its last good crash test was for another kernel or another configuration",
    "never proven": "no good crash test of this host is on record",
}


def controls_of(
    ids: tuple[str, ...], chosen: PolicyChoice, facts_files: tuple[str, ...], names: tuple[str, ...], tag: str, store_url: str | None
) -> ControlReport:  # fmt: skip
    """Judge the hosts on record, or recorded facts, by these controls. Nothing is asked of a host, nothing is remembered."""
    from orchestrator.checks.controls import Bench
    from orchestrator.fleet.collect import from_files
    from orchestrator.knowledge.controls import controls
    from orchestrator.proof.standing import standing
    from orchestrator.proof.store import by_host, stored
    from orchestrator.store.store import Store

    wanted = controls().chosen(ids)
    pipeline = chosen.pipeline()
    waivers = chosen.waiver_set(pipeline)
    bench, silent = Bench(pipeline, waivers), dict[str, str]()
    if not facts_files:
        with Store(store_url, create=False) as store:
            made = bench.report(wanted, _on_record(store, bench, names, tag, silent), store.name, silent)
    else:
        collected = from_files(facts_files)
        report_problems(collected.problems)
        kept = [f for f in collected.facts if _named(f, names, tag)]
        proofs = by_host(stored()) if any(c.proof for c in wanted) else {}
        for facts in kept if proofs else ():
            verdict = bench.look(facts).by(pipeline)[1]
            said = standing(proofs.get(facts.host, ()), verdict.state, verdict.kernel)
            bench.proofs[facts.host] = (said.state, said.why)
        made = bench.report(wanted, ((f, "") for f in kept), ", ".join(facts_files))
    if not any(c.hosts for c in made.controls):
        raise InvalidInput(
            "no host is on record", where=made.source, fix="kdo sweep -i INVENTORY, or give --facts FILE"
        )
    report_waivers(waivers, checks=False, controls=True)
    return made


def _on_record(
    store: Store, bench: Bench, names: tuple[str, ...], tag: str, silent: dict[str, str]
) -> Iterator[tuple[Facts, str]]:
    """Facts of one host at a time; what its crash tests say goes to the bench, and who has no facts into ``silent``."""
    from orchestrator.documents.facts import Facts
    from orchestrator.store.hosts import hosts

    for row in hosts(store.database, names=names, tag=tag):
        if row.facts:
            if row.proof:
                bench.proofs[row.host] = (row.proof, _PROOFS.get(row.proof, ""))
            yield store.document(row.facts, Facts), row.seen
        else:
            silent[row.host] = f"it has never answered: {row.why}" if row.why else "it has never answered"


def _named(facts: Facts, names: tuple[str, ...], tag: str) -> bool:
    from fnmatch import fnmatchcase

    return (not names or any(fnmatchcase(facts.host, n) for n in names)) and (not tag or tag in facts.inventory.tags)
