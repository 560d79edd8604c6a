# SPDX-License-Identifier: Apache-2.0
"""The command group. Verbs are imported when they are used, so that ``kdo --help`` stays quick."""

from __future__ import annotations

import click

from orchestrator import __version__
from orchestrator.cli.lazy import LazyGroup

_VERBS = {
    "detect": "Say what each host is: architecture, hypervisor, role, with the evidence.",
    "explain": "Show every rule and every clause behind one host's decision.",
    "plan": "Dry run: what would change on each host, and why.",
    "apply": "Do exactly what a plan says, as one transaction per host.",
    "sweep": "Look at every host of a fleet, and remember what each is and needs.",
    "status": "Say what state every host is in, from what is on record.",
    "report": "The state of the fleet as a table, JSON, CSV, Markdown, JUnit, SARIF, metrics or HTML.",
    "serve": "The store in a browser and as JSON, read-only: fleet, hosts, runs as they go on.",
    "facts": "Print the last facts on record, for what-if with other verbs.",
    "runs": "Runs on record: list, show, compare, pause, resume, cancel, prune.",
    "audit": "Who did what, when; and whether that record is whole.",
    "enforce": "Bring back the hosts that have drifted, within the policy's level, budget and windows.",
    "ingest": "Put reports that hosts have sent on record.",
    "worker": "Do shards of runs that were begun elsewhere (PostgreSQL queue).",
    "validate": "Check, with evidence, that kdump is armed as decided.",
    "rehearse": "Crash a disposable guest that is set up like a host, and judge its dump.",
    "crash-test": "Crash one real host on purpose, with consent, and keep the verdict.",
    "rollback": "Put back what the last transaction on a host changed.",
    "target": "Prepare dump servers: show the keys of hosts, bring them to a server.",
    "watch": "On the host itself: notice what disarms kdump or changes the decision, and say so.",
    "pull": "On the host itself: fetch the signed policy, judge, act if wanted, and report.",
    "bundle": "Make and check the signed file that hosts pull.",
    "units": "Show and install the systemd units of the verbs that run on hosts.",
    "policy": "Work on policies: lint, test, what-if, matrix, waivers.",
    "completion": "Print the completion script of bash, zsh or fish.",
    "doctor": "Find what is missing on this machine, and say how to mend it.",
}


@click.group(
    cls=LazyGroup,
    verbs=_VERBS,
    modules="orchestrator.cli.{}",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="kdo")
def cli() -> None:
    """Make kernel crash dumps work on every Linux host of a fleet, and prove it.

    Without -i a verb is about this machine. Nothing is ever written to a host except by `apply`, `rollback` and `pull --apply`;
    only `crash-test` crashes one, after you have typed its name.
    Exit codes: 0 fine, 1 our fault, 2 changes pending or a violation, 3 some hosts failed, 4 some unreachable,
    5 invalid policy, inventory, facts or plan, 6 stale plan, 130 interrupted.
    """
