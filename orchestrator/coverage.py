# SPDX-License-Identifier: Apache-2.0
"""Family × boot stack × target, and how far each is proven: made from stored test results, never written by hand.

Results are JSON lines below ``tests/results/``. Tests on real guests append them (``KDO_LAB_RESULTS=FILE``), and so does
who holds generated files against a family's own parser:

- a life cycle on a guest (``outcome``, ``family``, ``boot``, ``target``, ``stages`` in seconds),
- ``{"injection": name, "rows": [...]}``: failures at every step of an apply on a guest,
- ``{"parser": name, "family": f, "files": n, "accepted": n}``: what a family's own parser says of our files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.knowledge.load import Knowledge
from orchestrator.reports.markdown import table

TARGETS = ("path", "filesystem", "raw", "nfs", "ssh", "virtiofs")
_HEAD = """\
# How far each combination is proven

<!-- generated from tests/results and policies/knowledge by `make docs`; do not edit -->

**crash-proven**: a real guest was set up by `kdo`, rebooted, crashed, its vmcore was read on the controller, and a rollback left
the tree as it was (**laid out**: with the family's files, loader entries and package database on a Debian base). **own parser**: the generated files were accepted by the family's own parser, and the host side was
tested on a simulated host with a kill at every durable call. **documentation**: built from the family's documentation and tested
on a simulated host only. **refused**: the family cannot do it, and a policy that asks for it is told so.
"""


def read(folder: Path) -> list[dict[str, Any]]:
    """Every stored result, in the order of files and lines."""
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        found += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return found


def _stack_of(result: dict[str, Any]) -> str:
    return str(result["boot"]).split(",")[0]


def _target_of(result: dict[str, Any]) -> str:
    return "path" if result["target"] == "local" else str(result["target"])


def _refused(known: Knowledge, family: str) -> set[str]:
    """Targets that the data about limits exclude for a whole family."""
    out = set()
    for limit in known.limits:
        whole = dict(limit.source.get("match", limit.source)) == {"family": family}
        if whole and limit.setting.startswith("target.") and limit.values is None:
            out.add(limit.setting.partition(".")[2])
    return out


def _cells(known: Knowledge, results: list[dict[str, Any]]) -> Iterator[list[str]]:
    crashed = {(r["family"], _stack_of(r), _target_of(r)): r for r in results if r.get("outcome") == "passed"}
    parsed = {r["family"] for r in results if "parser" in r and r["files"] == r["accepted"]}
    for family, data in sorted(known.families.items()):
        refused = _refused(known, family)
        for stack in data.get("boot", {}):
            row = [family, stack]
            for target in TARGETS:
                if target in refused:
                    row.append("refused")
                elif (family, stack, target) in crashed:
                    laid_out = crashed[family, stack, target]["system"].startswith("files of ")
                    row.append("**crash-proven**, laid out" if laid_out else "**crash-proven**")
                else:
                    row.append("own parser" if family in parsed else "documentation")
            yield row


def _cycles(results: list[dict[str, Any]]) -> list[str]:
    rows = []
    for r in results:
        if "stages" in r:
            stages = ", ".join(f"{name} {seconds:.0f}" for name, seconds in r["stages"].items() if name != "image")
            trial = "yes" if r.get("trial") else "no"
            outcome = r["outcome"] if r["outcome"] == "passed" else f"{r['outcome']} at {r['where']}"
            rows.append([r["name"], r["kernel"], r["boot"], r["target"], r["strategy"], trial, outcome, stages])
    head = ["guest", "kernel", "boot", "target", "strategy", "trial boot", "outcome", "seconds"]
    return ["## Life cycles on real guests", "", *table(head, rows), ""]


def _injections(results: list[dict[str, Any]]) -> list[str]:
    out = ["## Failures injected into a real apply on a real guest", ""]
    out += [
        "Each row is a step of the change and a way to fail at it; after it the host was compared with what it was before.",
        "",
    ]
    for result in results:
        rows = result.get("rows")
        if rows is None:
            continue
        lost = sum(1 for row in rows if row["differences"])
        out += [f"{result['injection']}: {len(rows)} failures, {lost} losses.", ""]
        cells = [
            [str(r["step"]), r["what"], r["mode"], r["undone"], str(r["differences"]), f"{r['seconds']:.0f}"]
            for r in rows
        ]
        out += [*table(["step", "what", "failure", "undone", "differences", "seconds"], cells), ""]
    return out


def _parsers(results: list[dict[str, Any]]) -> list[str]:
    rows = [[r["family"], r["parser"], str(r["files"]), str(r["accepted"])] for r in results if "parser" in r]
    return [
        "## Generated files held against the family's own parser",
        "",
        *table(["family", "parser", "files", "accepted"], rows),
        "",
    ]


def page(known: Knowledge, folder: Path) -> str:
    """The whole page, as Markdown."""
    results = read(folder)
    lines = [_HEAD, *table(["family", "boot stack", *TARGETS], list(_cells(known, results))), ""]
    others = [f"{name}: {text}" for name, text in sorted(known.reported_stacks.items())]
    lines += ["Recognised and reported, never changed:", "", *(f"- {text}" for text in others), ""]
    return "\n".join([*lines, *_cycles(results), *_parsers(results), *_injections(results)]).rstrip() + "\n"
