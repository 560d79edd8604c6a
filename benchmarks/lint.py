# SPDX-License-Identifier: Apache-2.0
"""`kdo policy lint` on large policies: CPU seconds, and what looking at random hosts finds instead.

    python benchmarks/lint.py [--rules N] [--points N] [--seed N]

The policies are made up as fleets write them: rules by group, host name, memory, kernel and tags, some nested, and
among them rules that can never apply: narrower copies of earlier ones, names that an earlier pattern takes, and rules
that only several earlier ones cover together. The peer is sampling: for each rule that many random hosts are drawn from
its own match (so none is wasted on hosts that it cannot take) and decided by the compiled matches; a rule that none of
its hosts reaches looks unreachable.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

SITES = ["fra", "ams", "iad", "sjc", "nrt", "syd", "gru", "bom"]
ROLES = ["web", "db", "cache", "queue", "build", "gpu", "edge", "log", "auth", "mail"]


def _clauses(rng: random.Random, groups: list[str]) -> dict[str, Any]:
    """A match of one to four clauses."""
    match: dict[str, Any] = {}
    makers = {
        "groups": lambda: rng.choice([rng.sample(groups, rng.randint(1, 3)), {"all": rng.sample(groups, 2)}, {"any": rng.sample(groups, 2), "none": rng.sample(groups, 1)}]),
        "host": lambda: rng.choice([f"{rng.choice(ROLES)}-{rng.choice(SITES)}-*", f"{rng.choice(ROLES)}-{rng.choice(SITES)}-{rng.randint(0, 9)}?", f"*-{rng.choice(SITES)}-{rng.randint(0, 99):02}"]),
        "memory": lambda: rng.choice([{"min": f"{1 << rng.randint(2, 10)}G"}, {"below": f"{1 << rng.randint(2, 10)}G"}, {"min": "16G", "below": f"{1 << rng.randint(5, 10)}G"}]),
        "kernel": lambda: rng.choice([{"min": f"6.{rng.randint(1, 18)}"}, {"below": f"6.{rng.randint(1, 18)}"}, {"min": "5.14", "below": f"6.{rng.randint(1, 18)}"}]),
        "tags": lambda: rng.choice([["canary"], ["prod"], {"none": ["pci"]}]),
        "distribution": lambda: rng.choice(["debian", "ubuntu", ["rhel", "rocky"]]),
        "arch": lambda: rng.choice(["x86_64", "aarch64", ["ppc64le", "s390x"]]),
        "hypervisor": lambda: rng.choice(["kvm", "none", ["vmware", "kvm"]]),
    }  # fmt: skip
    first = rng.choice(["groups", "groups", "host"])  # few rules of a fleet are for everybody
    rest = sorted(set(makers) - {first})
    for field in [first, *rng.sample(rest, rng.randint(0, 2))]:
        match[field] = makers[field]()
    if rng.random() < 0.15:
        match["any"] = [{"memory": {"min": "64G"}}, {"groups": rng.sample(groups, 2)}]
    if rng.random() < 0.15:
        match["not"] = {"any": [{"tags": ["legacy"]}, {"kernel": {"below": "5.10"}}]}
    return match


def policy_text(count: int, seed: int) -> tuple[str, set[str]]:
    """A policy of ``count`` rules as YAML, and the ids of rules that were made unreachable on purpose."""
    rng = random.Random(seed)
    groups = [f"{role}-{site}" for role in ROLES for site in SITES]
    entries: list[dict[str, Any]] = []
    dead: set[str] = set()
    while len(entries) < count:
        kind = rng.random()
        id = f"r{len(entries):04}"
        if kind < 0.03 and entries:
            match = {"all": [rng.choice(entries)["match"], {"tags": ["canary"]}]}
            dead.add(id)
        elif kind < 0.05:
            group = f"all-{len(entries)}"
            parts = [{"groups": group, "tags": ["split"]}, {"groups": group, "tags": {"none": ["split"]}}]
            for part in parts:
                entries.append({"id": f"r{len(entries):04}", "match": part, "strategy": ["kdump_reset"]})
            id = f"r{len(entries):04}"
            match = {"groups": group, **_clauses(rng, groups)} | {"groups": group}
            dead.add(id)
        elif kind < 0.07:
            prefix = f"node{len(entries)}-"
            entries.append({"id": id, "match": {"host": prefix + "*"}, "strategy": ["kdump_reset"]})
            id = f"r{len(entries):04}"
            match = {"host": prefix + "1[0-9]*", "arch": "x86_64"}
            dead.add(id)
        else:
            match = _clauses(rng, groups)
        entries.append({"id": id, "match": match, "strategy": ["kdump_reset", "custom_handler"]})
    spec = {"rules": entries[:count], "default": {"strategy": ["kdump_reset"]}}
    whole = {"apiVersion": "kdump-orchestrator/v1", "kind": "Policy", "metadata": {"name": "made-up"}, "spec": spec}
    return json.dumps(whole, indent=1), {e["id"] for e in entries[:count]} & dead


def sample(space: Any, points: int, rng: random.Random) -> set[str]:
    """Rules that none of ``points`` random hosts of their own match reaches."""
    from orchestrator.policy.boxes import bits
    from orchestrator.policy.context import Cell

    axes, missed = space.axes, set()
    for n, rule in enumerate(space.rules):
        hit = False
        for _ in range(points):
            if not space.boxes_of(n):
                break
            box = dict(rng.choice(space.boxes_of(n)))
            for axis, mask in enumerate(axes.full):
                if axes.axes[axis].member and axis not in axes.patterns:
                    box.setdefault(axis, 2 if rng.random() < 0.02 else 1)  # a host is in few groups
                elif axis not in axes.patterns:
                    box[axis] = 1 << rng.choice(list(bits(box.get(axis, mask))))
            cell = Cell(axes.point(box))
            if next(r for r in space.rules if r.match.test(cell) is True) is rule:
                hit = True
                break
        if not hit:
            missed.add(rule.id)
    return missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rules", type=int, default=500)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    from orchestrator.errors import PolicyError
    from orchestrator.knowledge.load import knowledge
    from orchestrator.policy.lint import lint, require_sound, space_of
    from orchestrator.policy.load import default_path, load, parse

    known = knowledge()
    shipped = load(default_path(), known)
    require_sound(shipped, known)
    start = time.process_time()
    require_sound(shipped, known)
    print(
        f"shipped policy, {len(shipped.rules)} rules: {(time.process_time() - start) * 1e3:.1f} ms CPU per `kdo plan`"
    )

    text, planted = policy_text(options.rules, options.seed)
    policy = parse(text, "made-up.json", known)
    start = time.process_time()
    with contextlib.suppress(PolicyError):
        require_sound(policy, known)
    sound = time.process_time() - start
    start = time.process_time()
    problems = lint(policy, known)
    whole = time.process_time() - start
    found = {p.what.split("'")[1] for p in problems if p.id in ("P020", "P021")}
    counts: dict[str, int] = {}
    for p in problems:
        counts[p.id] = counts.get(p.id, 0) + 1
    start = time.process_time()
    space = space_of(policy, known)
    built = time.process_time() - start
    boxes = sum(len(space.boxes_of(n)) for n in range(len(space.rules)))
    print(
        f"{len(policy.rules)} rules, {boxes} boxes on {len(space.axes.axes)} axes: {built:.2f} s CPU to build, "
        f"{sound:.2f} s for errors alone (`kdo plan`), {whole:.2f} s for everything (`kdo policy lint`); findings {counts}"
    )
    print(f"unreachable rules: {len(found)} found, {len(planted)} were planted, {len(planted - found)} of them missed")

    start = time.process_time()
    missed = sample(space, options.points, random.Random(options.seed))
    spent = time.process_time() - start
    print(
        f"sampling, up to {options.points} hosts of each rule's own match: {spent:.2f} s CPU; calls {len(missed)} rules unreachable, "
        f"{len(missed - found - {'default'})} of them wrongly; proves nothing about the other {len(missed & found)}"
    )


if __name__ == "__main__":
    main()
