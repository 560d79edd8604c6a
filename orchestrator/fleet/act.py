# SPDX-License-Identifier: Apache-2.0
"""Everything that changes a host: transactions, rollbacks, reboots. Always through Ansible, never by another way."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from orchestrator.documents.base import FORMAT_VERSION
from orchestrator.documents.plan import HostPlan
from orchestrator.documents.verdict import Outcome
from orchestrator.edits import unified
from orchestrator.fleet.runner import Answer, Progress, Whom, run_playbook
from orchestrator.planning import steps

# whole: everything at once. trial: all but the default boot entry, and the new arguments for one boot. confirm: the rest.
Part = Literal["whole", "trial", "confirm"]


def trial_id(plan_hash: str) -> str:
    """The trial and its confirmation are two transactions with names of their own."""
    return hashlib.sha256(f"trial of {plan_hash}".encode()).hexdigest()


def change_document(plan: HostPlan, plan_hash: str, part: Part = "whole") -> bytes:
    """What the host side gets: the plan's own steps and expectations, nothing else."""
    change: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "id": plan_hash,
        "title": f"{plan.strategy} for {plan.host}",
        "steps": [c.step for c in plan.changes],
        "expect": [*plan.boot_expect, *plan.expect],
        "family": plan.family,
    }
    step = steps.trial(plan) if part != "whole" else None
    if step is not None:
        first, second = steps.trial_parts(plan, step)
        if part == "trial":
            change |= {"id": trial_id(plan_hash), "steps": first, "expect": plan.expect}
            change["title"] += ", boot arguments on trial"
        else:
            change |= {"steps": second, "expect": plan.boot_expect, "confirms": trial_id(plan_hash)}
            change["title"] += ", trial confirmed"
    return base64.b64encode(msgspec.json.encode(change))


def _outcome(host: str, answer: Answer) -> Outcome:
    if answer.status == "unreachable":
        return Outcome(
            host=host,
            state="unreachable",
            error={"what": "the host cannot be reached", "why": answer.message, "fix": ""},
        )
    result: Any = answer.result
    if not isinstance(result.get("state"), str):
        why = answer.message or "the host did not say what it did"
        return Outcome(
            host=host,
            state="failed",
            error={"what": "the transaction gave no result", "why": why, "fix": "kdo validate"},
        )
    error = result.get("error")
    return Outcome(
        host=host,
        state=result["state"],
        changed=bool(result.get("changed")),
        transaction=str(result.get("transaction") or ""),
        steps=[s for s in result.get("steps") or [] if isinstance(s, dict)],
        recovered=[_recovered(r) for r in result.get("recovered") or [] if isinstance(r, dict)],
        error={k: str(v) for k, v in error.items()} if isinstance(error, dict) else None,
        put_back=[str(p) for p in result.get("put_back") or []],
        diff=_texts(result.get("diff")),
    )


_RECOVERED = {
    "undone": "the unfinished transaction {} was undone first",
    "would be undone first": "the unfinished transaction {} would be undone first",
    "rolled-back": "the unfinished rollback of {} was finished first",
}


def _recovered(row: Mapping[str, Any]) -> str:
    """What became of a transaction that somebody left open on the host."""
    state, problems = str(row.get("state")), [str(p) for p in row.get("problems") or []]
    text = _RECOVERED.get(state, "the unfinished transaction {} is " + state).replace(
        "{}", str(row.get("transaction")), 1
    )
    return ": ".join([text, *(["; ".join(problems)] if problems else [])])


def _texts(rows: Any) -> str:
    """The files of Ansible's own diff as unified diffs; what has no text is named by ``put_back``."""
    found = []
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and isinstance(row.get("before"), str) and isinstance(row.get("after"), str):
            head = [str(row.get(f"{side}_header", "")) for side in ("before", "after")]
            found.append(unified(row["before"], row["after"], *head))
    return "".join(found)


def transact(
    whom: Whom,
    plans: Iterable[HostPlan],
    plan_hash: str,
    *,
    check: bool = False,
    progress: Progress | None = None,
    part: Part = "whole",
) -> list[Outcome]:
    """Run each host's plan, or one part of it, as one transaction; hosts are independent of each other."""
    files = {p.host: change_document(p, plan_hash, part) for p in plans}
    answers = run_playbook("apply.yml", whom, host_files=files, hosts=sorted(files), check=check, progress=progress)
    silent = [
        Outcome(host=h, state="failed", error={"what": "the host never answered", "why": "", "fix": ""})
        for h in files
        if h not in answers
    ]
    return sorted([_outcome(h, a) for h, a in answers.items()] + silent, key=lambda o: o.host)


def rollback(
    whom: Whom,
    hosts: list[str] | None,
    *,
    force: bool = False,
    check: bool = False,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Undo the last committed transaction of each host; with ``check`` only say what would go back."""
    answers = run_playbook(
        "rollback.yml", whom, variables={"kdo_force": force}, hosts=hosts, check=check, diff=True, progress=progress
    )
    return sorted((_outcome(h, a) for h, a in answers.items()), key=lambda o: o.host)


def reboot(whom: Whom, hosts: list[str], *, progress: Progress | None = None, once: bool = False) -> dict[str, str]:
    """Reboot hosts and wait for them; host → "" or the reason why it did not come back.

    ``once``: boot the entry of the trial that was made ready there, this one time.
    """
    answers = run_playbook("try.yml" if once else "reboot.yml", whom, hosts=hosts, progress=progress)
    return {h: "" if a.status == "ok" else a.message or a.status for h, a in answers.items()}
