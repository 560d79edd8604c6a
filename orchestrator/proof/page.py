# SPDX-License-Identifier: Apache-2.0
"""docs/proof.md: every stored proof, with the console lines that show it. Made from results, never written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from orchestrator.documents.proof import Proof
from orchestrator.proof.crashes import kinds
from orchestrator.reports.markdown import table

RESULTS = "proof/proofs.jsonl"
_HEAD = """\
# Crashes that were made, and what came of them

<!-- generated from tests/results/proof by `make docs`; `make proof` makes the results anew -->

Each line is one crash of a real kernel in a guest that `kdo rehearse` set up through the same playbooks as a host. **dumped**: the
vmcore was complete and held the ordered panic, as makedumpfile read it (and drgn, where it is named). **lost**: there was
none. *predicted* is what the knowledge data said before. The guests run under software emulation, so no hypervisor's own layer
is in the way: what a platform's row says of KVM, Hyper-V or Xen is not proven by these lines.
"""


def read(folder: Path) -> list[Proof]:
    """The stored proofs in the order in which they were made; none where nothing is stored."""
    path = folder / RESULTS
    if not path.is_file():
        return []
    return [msgspec.json.decode(line, type=Proof) for line in path.read_bytes().splitlines() if line.strip()]


def _mib(size: int | None) -> str:
    return "" if size is None else f"{size / (1 << 20):.0f}"


def _seconds(proof: Proof, *names: str) -> str:
    found = [stage.seconds for stage in proof.stages if stage.name in names]
    return f"{sum(found):.0f}" if found else ""


def _what(proof: Proof) -> str:
    """Strategy, or what was set against it."""
    return f"{proof.strategy}, but {proof.experiment}" if proof.experiment else proof.strategy


def _outcome(proof: Proof) -> str:
    said = f"**{proof.outcome}**"
    if not proof.predicted:
        return f"{said} (nothing was predicted)"
    return said if proof.as_predicted else f"{said}, **not as predicted** ({proof.predicted})"


def _crashes(proofs: Sequence[Proof]) -> list[str]:
    rows = []
    for p in proofs:
        total = sum(s.seconds for s in p.stages if s.name not in ("image", "panic to reset"))
        cpu = f" {p.cpu}" if p.cpu is not None else ""
        rows.append([
            p.arch, p.boot, p.kernel, _what(p), f"{p.crash}{cpu}", _outcome(p), p.what, _mib(p.reservation),
            _mib(p.capture.peak), _mib(p.dump.size) if p.dump.size else "", _seconds(p, "panic to reset"), f"{total:.0f}",
            ", ".join(p.dump.readers),
        ])  # fmt: skip
    head = ["arch", "boot", "kernel", "strategy", "crash", "outcome", "what went wrong", "reserved MiB", "in use MiB",
            "dump MiB", "panic to reset s", "boot to verdict s", "read by"]  # fmt: skip
    return table(head, rows)


def _smallest(proofs: Sequence[Proof]) -> list[str]:
    """Where one guest was tried with several reservations: the smallest that dumped, and the largest that did not."""
    rows = []
    for arch, kernel in dict.fromkeys((p.arch, p.kernel) for p in proofs if p.kernel):
        mine = [p for p in proofs if (p.arch, p.kernel) == (arch, kernel) and p.reservation and not p.experiment]
        good = [p.reservation for p in mine if p.outcome == "dumped" and p.reservation]
        bad = [p for p in mine if p.outcome == "lost" and p.crash == "sysrq" and p.reservation]
        if good and bad:
            worst = max(bad, key=lambda p: p.reservation or 0)
            rows.append([arch, kernel, _mib(min(good)), f"{_mib(worst.reservation)}: {worst.what}"])
    if not rows:
        return []
    head = ["arch", "kernel", "smallest that dumped, MiB", "largest that did not"]
    return ["## Smallest reservation", "", *table(head, rows), ""]


def _evidence(proofs: Sequence[Proof]) -> list[str]:
    out = ["## What the consoles said", ""]
    for p in proofs:
        cpu = f" on CPU {p.cpu}" if p.cpu is not None else ""
        out += [
            f"<details><summary>{p.arch}, {p.kernel}, {_what(p)}, {p.crash}{cpu}: {p.outcome} ({p.at})</summary>",
            "",
        ]
        stages = ", ".join(f"{s.name} {s.seconds:.0f} s" for s in p.stages)
        out += [f"{p.machine}. {stages}.", "", "```text"]
        out += [line.replace("```", "'''") for line in p.console]
        out += ["```", "", "</details>", ""]
    return out


def page(folder: Path) -> str:
    """The whole page, as Markdown."""
    proofs = read(folder)
    named = [f"- `{kind.id}`: {kind.title}" for kind in kinds().values()]
    lines = [
        _HEAD,
        *_crashes(proofs),
        "",
        *_smallest(proofs),
        "## Kinds of crashes",
        "",
        *named,
        "",
        *_evidence(proofs),
    ]
    return "\n".join(lines).rstrip() + "\n"
