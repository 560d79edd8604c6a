# SPDX-License-Identifier: Apache-2.0
"""What is on record of a fleet, for people: the states of its hosts, its runs, and what came of one run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from orchestrator.documents.findings import Report
from orchestrator.reports.grouped import groups
from orchestrator.reports.text import line, one_line, some, table
from orchestrator.store.audit import Entry
from orchestrator.store.hosts import STATES, HostRow
from orchestrator.store.runs import OPEN, HostOf, RunRow, WaveRow

STYLES = {
    "failed": "bold red", "unreachable": "red", "drift": "yellow", "pending reboot": "yellow", "refused": "red",
    "waived": "yellow", "proof expired": "yellow", "changed": "green", "compliant": "green",
}  # fmt: skip


def states(
    counts: Mapping[str, int], cells: Iterable[tuple[str, str, str, int]], proofs: Mapping[str, int], silent: int = 0, days: int = 0
) -> None:  # fmt: skip
    """How many hosts are in which state, and which platforms they are."""
    total = sum(counts.values())
    if not total:
        line("no host is on record: kdo sweep -i INVENTORY", "yellow")
        return
    width = len(f"{total:,}")
    for state, number in counts.items():
        share = f"{100 * number / total:5.1f} %"
        line(f"{number:>{width},} {share}  {state:<15} {STATES.get(state, '')}".rstrip(), STYLES.get(state, ""))
    line(f"{total:>{width},} hosts", "bold")
    if sum(proofs.values()):
        said = ", ".join(f"{n} {s}" for s, n in proofs.items())
        line(f"crash tests: {said}", "dim")
    if silent:
        line(
            f"{silent:,} hosts have not answered within the last {days} days: what is said of them may be old", "yellow"
        )
    rows: dict[tuple[str, str], dict[str, int]] = {}
    for arch, hypervisor, state, number in cells:
        rows.setdefault((arch or "?", hypervisor or "?"), {})[state] = number
    line()
    shown = list(counts)
    table(
        ("ARCH", "HYPERVISOR", "HOSTS", *(s.upper() for s in shown)),
        [
            (a, h, f"{sum(n.values()):,}", *(f"{n[s]:,}" if s in n else "." for s in shown))
            for (a, h), n in sorted(rows.items())
        ],
    )


def found_out(report: Report, most: int = 40) -> None:
    """States, and the findings of all hosts together: what is wrong, where that is written, on which hosts, what to do."""
    cells: dict[tuple[str, str, str], int] = {}
    for h in report.hosts:
        cells[(h.arch, h.hypervisor, h.state)] = cells.get((h.arch, h.hypervisor, h.state), 0) + 1
    states(report.states, [(*key, n) for key, n in cells.items()], {})
    found = groups(report.hosts)
    for group in found[:most]:
        f = group.first
        line()
        line(f"{f.level}: {f.what} [{f.id}]", {"error": "bold red", "warning": "yellow"}.get(f.level, "dim"))
        line(f"  on: {some(group.hosts)}")
        for label, text in (("why", group.why), ("fix", f.fix), ("rule", f.where)):
            if text:
                line(f"  {label}: {one_line(text, 300)}")
    if len(found) > most:
        line(f"… and {len(found) - most} kinds of findings more: --format json has all of them", "dim")


def hosts(rows: Iterable[HostRow]) -> int:
    """One line for each host: state, since when, what it is, why. Returns how many there were."""
    count = 0
    for h in rows:
        count += 1
        proof = f" [{h.proof}]" if h.proof and h.proof != "never proven" else ""
        line(f"{h.host}: {h.state} since {h.since[:16]}{proof}  {h.platform}", STYLES.get(h.state, ""))
        if h.why:
            line(f"  {h.why}", "dim")
    return count


def one_host(
    row: HostRow, history: Sequence[tuple[str, str, str]], runs: Sequence[HostOf], names: Sequence[str]
) -> None:
    """Everything that the store says of one host."""
    hosts([row])
    for what, value in (("strategy", row.strategy), ("rule", row.rule), ("kernel", row.kernel), ("tags", row.tags),
                        ("crash tests", row.proof), ("last answered", row.seen[:19]), ("last asked", row.tried[:19])):  # fmt: skip
        if value:
            line(f"  {what:<14} {value}")
    line(
        f"  {'facts':<14} {len(history)} different since {history[0][1][:16]}"
        if history
        else "  no facts are on record"
    )
    for name, h in zip(names, runs, strict=True):
        line(f"  run {name}: {h.state}{': ' + h.why if h.why else ''}", "dim")


def run_list(runs: Sequence[RunRow], tallies: Sequence[Mapping[str, int]]) -> None:
    """One line for each run, newest first."""
    table(
        ("RUN", "KIND", "STATE", "HOSTS", "BEGUN", "WHO", "CAME TO"),
        [
            (
                r.id,
                r.kind,
                r.state,
                f"{r.hosts:,}",
                r.created[:16],
                r.who,
                ", ".join(f"{n:,} {s}" for s, n in sorted(t.items())),
            )
            for r, t in zip(runs, tallies, strict=True)
        ],
    )


def run(
    row: RunRow, waves: Sequence[WaveRow], tally: Mapping[str, int], bad: Iterable[HostOf], notes: Iterable[str] = ()
) -> None:  # fmt: skip
    """One run: its waves, and the hosts that need somebody."""
    line(f"{row.id}: {row.kind} {row.state}{': ' + row.why if row.why else ''}", "bold")
    line(
        f"  policy {row.policy} {row.policy_hash[:12]}, begun {row.created[:19]} by {row.who}, {row.hosts:,} hosts",
        "dim",
    )
    for w in waves:
        name = f" {w.name}" if w.name else ""
        why = f": {w.why}" if w.why else ""
        line(f"  wave {w.number + 1}{name}: {w.state}, {w.hosts:,} hosts, {w.failed:,} failed{why}")
    came_to(tally)
    for note in notes:
        line(f"  {note}", "dim")
    for h in bad:
        line(f"{h.host}: {h.state}{': ' + h.why if h.why else ''}", STYLES.get(h.state, "red"))


def came_to(tally: Mapping[str, int]) -> None:
    """What came of the hosts of a run, in one line."""
    done = ", ".join(f"{n:,} {s}" for s, n in sorted(tally.items()) if s not in OPEN)
    left = sum(tally.get(s, 0) for s in OPEN)
    line(f"  {done or 'no host is done'}{f'; {left:,} not done' if left else ''}", "bold")


def compared(rows: Iterable[tuple[str, str, str]]) -> dict[tuple[str, str], int]:
    """Hosts that ended differently in two runs; returns how often each difference occurs."""
    found: dict[tuple[str, str], int] = {}
    for host, then, later in rows:
        found[then, later] = found.get((then, later), 0) + 1
        line(f"{host}: {then or 'not in it'} → {later or 'not in it'}", STYLES.get(later, ""))
    return found


def audit(entries: Iterable[Entry]) -> None:
    """The audit trail, a line for each entry."""
    for e in entries:
        line(f"{e.number:>6} {e.at[:19]} {e.who}: {e.what} {e.subject}")
        if e.detail not in ("", "{}"):
            line(f"       {e.detail}", "dim")


def enforced(
    sweep: RunRow, looked: Mapping[str, int], stopped: str, left: Mapping[str, str], chosen: Sequence[str], run: RunRow | None,
    came: Mapping[str, int], state: str,
) -> None:  # fmt: skip
    """One round of enforcement: what was seen, what was changed, what was left and why."""
    line(f"looked at {sum(looked.values()):,} hosts (run {sweep.id})", "bold")
    came_to(looked)
    if stopped:
        line(f"nothing was changed: {stopped}", "bold red")
    reasons: dict[str, list[str]] = {}
    for host, why in left.items():
        reasons.setdefault(why, []).append(host)
    for why, names in reasons.items():
        line(f"left: {some(names)}: {why}", "yellow")
    if run is not None:
        line(f"changed (run {run.id}): {state}", "bold")
        came_to(came)
    elif chosen:
        line(f"would be changed: {some(chosen)}", "yellow")
    elif not stopped and not left:
        line("no host has drifted that the policy would have changed", "green")
