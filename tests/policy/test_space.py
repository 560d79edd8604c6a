# SPDX-License-Identifier: Apache-2.0
"""Who decides where: against enumeration, against random hosts and the real matches, against the recorded hosts."""

from __future__ import annotations

import itertools
import random
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.knowledge.load import knowledge
from orchestrator.platforms.classify import classify
from orchestrator.policy import boxes as boxes_module
from orchestrator.policy import globs
from orchestrator.policy.boxes import Cover, Undecided, cross, meet, union
from orchestrator.policy.context import FIELDS, Cell, Context
from orchestrator.policy.load import default_path, load
from orchestrator.policy.match import compile_match
from orchestrator.policy.space import ARCHES, HYPERVISORS, Space, cells
from orchestrator.policy.worlds import World, world
from orchestrator.resources import read_text
from orchestrator.yamlmarks import load as load_yaml
from tests.platforms.hosttree import facts_of, load_host

K = knowledge()
HOSTS = sorted((Path(__file__).parents[1] / "hosts").glob("*.yaml"))
PLATFORMS = load_yaml(read_text("policies/knowledge/platforms.yaml"), "platforms.yaml").data
IMPOSSIBLE = [(compile_match(match, K.features), why) for match, why in world().impossible]


def rules_of(*matches):
    """Rules as Space wants them, without the rest of a policy."""
    return [SimpleNamespace(id=f"r{n}", source=m, match=compile_match(m, K.features)) for n, m in enumerate(matches)]


def decider(rules, cell):
    return next((r.id for r in rules if r.match.test(cell) is True), None)


# ---------------------------------------------------------------------- boxes


def inside(point, box):
    return all(mask >> point[axis] & 1 for axis, mask in box.items())


SIZES = (2, 3, 4, 2, 2)


def random_box():
    return st.dictionaries(st.integers(0, 4), st.integers(1, 15), max_size=4).map(
        lambda d: {a: m for a, v in d.items() if (m := v & ((1 << SIZES[a]) - 1)) and m != (1 << SIZES[a]) - 1}
    )


@settings(max_examples=400, deadline=None)
@given(st.lists(random_box(), max_size=9), random_box(), st.sets(st.tuples(st.booleans(), st.booleans())))
def test_what_sticks_out_is_what_enumeration_finds(others, box, bound):
    """``bound``: which combinations of the axes 3 and 4 exist, as names and patterns would have it."""

    def consistent(b, groups):
        return not list(groups) or any(
            inside((0, 0, 0, *pair), {a: m for a, m in b.items() if a > 2}) for pair in bound
        )

    cover = Cover(SIZES, others, consistent, [frozenset((3, 4))])
    points = [p for p in itertools.product(*map(range, SIZES)) if (p[3], p[4]) in bound]
    free = [p for p in points if inside(p, box) and not any(inside(p, o) for o in others)]
    found = cover.outside(box, cover.all)
    assert (found is not None) == bool(free)
    if found is not None:
        chosen = [
            (found.get(a, (1 << n) - 1) & -found.get(a, (1 << n) - 1)).bit_length() - 1 for a, n in enumerate(SIZES)
        ]
        rest = [p for p in free if p[:3] == tuple(chosen[:3]) and inside(p, {a: m for a, m in found.items() if a > 2})]
        assert rest
        ordinary = cover.ordinary(box, cover.all)
        if ordinary is not None:
            assert meet(ordinary, box) == ordinary
            assert not [o for o in others if meet(ordinary, o) == ordinary]
    elif points:
        # What the answer rests on covers the box by itself.
        core = [others[n] for n in cover.core]
        assert all(any(inside(p, o) for o in core) for p in points if inside(p, box))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(random_box(), max_size=4), max_size=4))
def test_union_and_cross_mean_or_and_and(parts):
    full = [(1 << n) - 1 for n in SIZES]
    both, either = cross(parts, full), union(parts, full)
    for p in itertools.product(*map(range, SIZES)):
        holds = [any(inside(p, b) for b in part) for part in parts]
        assert any(inside(p, b) for b in both) == all(holds)
        assert any(inside(p, b) for b in either) == any(holds)


def test_a_budget_that_is_spent_is_said(monkeypatch):
    rng = random.Random(3)
    others = [
        {a: 1 << rng.randint(0, 3) | 1 << rng.randint(0, 3) for a in rng.sample(range(30), 3)} for _ in range(900)
    ]
    cover = Cover([4] * 30, others, lambda b, g: True, [])
    monkeypatch.setattr(boxes_module, "MAX_STEPS", 5)
    with pytest.raises(Undecided):
        cover.outside({}, cover.all)


# ---------------------------------------------------------------------- patterns

NAMES = ["".join(t) for n in range(6) for t in itertools.product("abz", repeat=n)]
PIECES = ("a", "b", "*", "?", "[ab]", "[!a]", "[", "*a")


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(PIECES), max_size=3).map("".join), max_size=3),
    st.lists(st.lists(st.sampled_from(PIECES), max_size=3).map("".join), max_size=3),
    st.booleans(),
)
def test_a_name_is_found_exactly_when_there_is_one(wanted, unwanted, empty):
    found = globs.example(tuple(wanted), tuple(unwanted), empty)
    fits = [
        n
        for n in NAMES
        if (n or empty) and all(fnmatchcase(n, p) for p in wanted) and not any(fnmatchcase(n, p) for p in unwanted)
    ]
    if found is None:
        assert not fits
    else:
        assert all(fnmatchcase(found, p) for p in wanted) and not any(fnmatchcase(found, p) for p in unwanted)
        assert found or empty


def test_ranges_and_pieces_that_only_together_take_a_name():
    assert globs.example(("web-?",), ("web-[a-m]", "web-[n-z]")) not in (None, "web-a")
    assert globs.example(("web-[a-z]",), ("web-[a-m]", "web-[n-z]")) is None
    assert globs.example(("web-1*",), ("web-*",)) is None
    assert globs.example(("*-db",), ("web-*",)) is not None
    assert globs.example((), ("*",)) is None
    assert globs.example((), ("?*",)) == "" and globs.example((), ("?*",), empty=False) is None


# ---------------------------------------------------------------------- small spaces: enumeration

SMALL = World(words={}, listed={}, impossible=(), probes={"f": [{"symbol": "f"}], "g": [{"symbol": "g"}]}, features=K.features)  # fmt: skip
VALUES = {
    "memory": [1 << 30, 8 << 30, 12 << 30, 16 << 30, 64 << 30, None],
    "kernel": ["5.4", "5.15", "6.1", "6.1.5-18-amd64", "6.9", None],
    "distribution_version": ["9", "12", "12.5", "13~rc1", "13", None],
    "groups": [frozenset(c) for n in range(3) for c in itertools.combinations(["web", "db"], n)],
    "drivers": [None, frozenset(), frozenset(["nvme"])],
    "cloud": ["", "aws", "elsewhere"],
    "ambiguous": [False, True],
    "host": [n for n in NAMES if 0 < len(n) < 4],
}

leaf = st.one_of(
    st.sampled_from([{"memory": {"min": "8G"}}, {"memory": {"below": "64G"}}, {"memory": {"min": "8G", "below": "16G"}}]),
    st.sampled_from([{"kernel": {"min": "6.1"}}, {"kernel": {"below": "6.9"}}, {"kernel": {"min": "5.10", "below": "6.1.3"}}]),
    st.sampled_from([{"distribution_version": {"min": "12"}}, {"distribution_version": {"below": "13"}}]),
    st.sampled_from([{"groups": "web"}, {"groups": {"all": ["web", "db"]}}, {"groups": {"any": ["web"], "none": ["db"]}}, {"groups": {"none": ["web", "db"]}}]),
    st.sampled_from([{"drivers": ["nvme"]}, {"drivers": {"none": ["nvme"]}}]),
    st.sampled_from([{"cloud": "aws"}, {"cloud": ["aws", ""]}, {"cloud": ""}]),
    st.sampled_from([{"ambiguous": True}, {"ambiguous": False}]),
    st.sampled_from([{"host": "a*"}, {"host": ["ab*", "b?"]}, {"host": "*b"}, {"host": "[!a]*"}, {"host": "?"}, {"host": "??*"}]),
)  # fmt: skip


def merged(parts):
    return {field: spec for part in parts for field, spec in part.items()}


match = st.recursive(
    st.lists(leaf, max_size=2).map(merged),
    lambda inner: st.one_of(
        st.tuples(st.lists(leaf, max_size=1).map(merged), inner).map(lambda t: {**t[0], "not": t[1]}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"any": parts}),
        st.lists(inner, min_size=1, max_size=2).map(lambda parts: {"all": parts}),
    ),
    max_leaves=4,
)


@settings(max_examples=120, deadline=None)
@given(st.lists(match, min_size=1, max_size=5))
def test_reach_is_what_enumeration_finds(matches):
    """Every point of a small space, decided by the real matches: a rule is reached exactly when a point is its own."""
    rules = rules_of(*matches)
    space = Space(rules, SimpleNamespace(rows=()), known=SMALL)
    used = sorted(set().union(*(r.match.fields for r in rules)))
    spread = [VALUES[f] for f in used]
    if len(used) > 4:  # the product grows too large: the other direction is checked below all the same
        rng = random.Random(len(matches))
        points = [tuple(rng.choice(values) for values in spread) for _ in range(3000)]
    else:
        points = itertools.product(*spread)
    decided = {decider(rules, Cell(dict(zip(used, point, strict=True)))) for point in points}
    for rule in rules:
        witness = space.reach(rule)
        if witness is None:
            assert rule.id not in decided
        else:
            assert decider(rules, witness.cell()) == rule.id, witness
            assert len(used) > 4 or rule.id in decided, witness


@settings(max_examples=150, deadline=None)
@given(match)
def test_the_true_and_the_false_set_of_a_match(m):
    """Kleene: a point is in the true set, in the false set, or in neither, as the real match says."""
    space = Space(rules_of(m), SimpleNamespace(rows=()), known=SMALL)
    axes = space.axes
    true, false = axes.boxes(m), axes.boxes(m, False)
    compiled = compile_match(m, K.features)
    rng = random.Random(7)
    for _ in range(60):
        point = {n: 1 << rng.randrange(len(a.values)) for n, a in enumerate(axes.axes)}
        if not axes.consistent(point, range(len(axes.groups))):
            continue
        classes = {n: m.bit_length() - 1 for n, m in point.items()}
        answer = compiled.test(Cell(axes.point(point)))
        assert any(inside(classes, b) for b in true) == (answer is True)
        assert any(inside(classes, b) for b in false) == (answer is False)


# ---------------------------------------------------------------------- the real space: random hosts

WORDS = world().words
LARGE = {
    **VALUES,
    "arch": [*WORDS["arch"], None],
    "hypervisor": WORDS["hypervisor"],
    "role": WORDS["role"],
    "confidential": WORDS["confidential"],
    "variant": WORDS["variant"],
    "confidential_host": WORDS["confidential_host"],
    "paravisor": [False, True],
    "family": WORDS["family"],
    "boot_stack": WORDS["boot_stack"],
    "distribution": ["debian", "rhel", "alpine", None],
    "firmware": ["efi", "bios", None],
    "page_size": ["4k", "16k", "64k", None],
    "tags": [frozenset()],
    "product": ["", "x"],
}


def random_host(rng):
    """A host that is not impossible, or ``None``. Features that hang on the kernel's version follow it."""
    values = {f: rng.choice(v) for f, v in LARGE.items()}
    if rng.random() < 0.9:  # most random words contradict each other
        platforms = [("kvm", "guest"), ("none", "host"), ("hyperv", "guest"), ("xen", "guest"), ("unknown", "unknown")]
        values["hypervisor"], values["role"] = rng.choice(platforms)
        values |= {"variant": "", "confidential_host": "", "paravisor": False, "page_size": "4k", "boot_stack": "grub"}
        values["confidential"] = rng.choice(["none", "none", "none", "unknown", "sev-snp", "tdx", "cca"])
        values["family"], values["distribution"] = rng.choice(
            [("debian", "debian"), ("redhat", "rhel"), ("suse", "x"), ("unknown", None)]
        )
    for feature in K.features:
        tests = [pair for test in world().probes[feature] for pair in test.items()]
        kind, argument = tests[0]
        versions = [a for k, a in tests if k == "since"]
        if kind == "since":
            leaf = compile_match({"kernel": {"min": argument}}, {})
            answer = leaf.test(Cell(values))
        else:
            answer = rng.choice(
                [False, True] if "fadump" in kind or (versions and values["kernel"]) else [False, True, None]
            )
        values[f"feature:{feature}"] = answer and (kind != "fadump" or values["arch"] == "ppc64le")
    cell = Cell(values)
    return None if any(m.test(cell) is True for m, _ in IMPOSSIBLE) else cell


@pytest.fixture(scope="module")
def hosts():
    rng = random.Random(20261124)
    found = [h for _ in range(12_000) if (h := random_host(rng)) is not None]
    assert len(found) > 1500
    return found


def random_match(rng, depth=0):
    pool = [
        {"arch": rng.choice(ARCHES)},
        {"arch": rng.sample(ARCHES, 3)},
        {"hypervisor": rng.choice(HYPERVISORS[:6])},
        {"role": rng.choice(["guest", "host", "container"])},
        {"confidential": rng.choice(["none", "sev-snp", "unknown"])},
        {"family": rng.sample(WORDS["family"], 2)},
        {"distribution": rng.choice(["debian", "rhel"])},
        {"memory": {"min": rng.choice(["8G", "16G"])}},
        {"memory": {"below": rng.choice(["8G", "16G"])}},
        {"kernel": {"min": rng.choice(["6.1", "6.9"])}},
        {"groups": rng.choice([["web"], {"none": ["web"]}, ["web", "db"]])},
        {"host": rng.choice(["a*", "ab*", "*b", "?"])},
        {"features": rng.choice([["pvpanic"], {"none": ["pvpanic"]}, ["snp_guest_kexec"], {"none": ["ppc_nr_cpus"]}])},
        {"ambiguous": rng.choice([True, False])},
    ]
    out = merged(rng.sample(pool, rng.randint(1, 2)))
    if depth < 2 and rng.random() < 0.3:
        out["not"] = random_match(rng, depth + 1)
    if depth < 2 and rng.random() < 0.3:
        out["any"] = [random_match(rng, depth + 1) for _ in range(2)]
    return out


@pytest.mark.parametrize("seed", range(12))
def test_random_hosts_are_never_decided_by_what_is_out_of_reach(seed, hosts):
    rng = random.Random(seed)
    rules = rules_of(*(random_match(rng) for _ in range(12)), {})
    space = Space(rules, K)
    reach = {r.id: {row.id for row, _ in space.rows_in_reach(r)} for r in rules}
    for cell in rng.sample(hosts, 600):
        rule = decider(rules, cell)
        assert decider(K.rows, cell) in reach[rule], cell.values
    for rule in rules:
        assert bool(reach[rule.id]) == (space.reach(rule) is not None)
        for row, witness in space.rows_in_reach(rule):
            cell = witness.cell()
            assert not [why for m, why in IMPOSSIBLE if m.test(cell) is True]
            assert (decider(rules, cell), decider(K.rows, cell)) == (rule.id, row.id), str(witness)


def test_pairs_of_rules_and_rows_within_a_platform():
    policy = load(default_path(), K)
    space = Space(policy.rules, K)
    for fixed in (
        {"arch": "aarch64", "hypervisor": "kvm"},
        {"cloud": "aws"},
        {"groups": ["web"], "memory": {"min": "1G"}},
    ):
        pairs = space.pairs(fixed)
        asked = compile_match(fixed, K.features)
        assert pairs
        for rule, row, witness in pairs:
            cell = witness.cell()
            assert asked.test(cell) is True
            assert (decider(policy.rules, cell), decider(K.rows, cell)) == (rule.id, row.id)
    arm = {(rule.id, row.id) for rule, row, _ in space.pairs({"arch": "aarch64", "hypervisor": "hyperv"})}
    assert ("hyperv-arm64", "A03") in arm and not any(rule == "default" for rule, _ in arm)


def test_questions_with_a_match_of_ones_own():
    rules = rules_of({"groups": ["web"]}, {"arch": "x86_64"}, {})
    space = Space(rules, K)
    assert space.reach(rules[0], {"tags": ["x"]}) is not None
    assert space.reach(rules[1], {"groups": ["web"]}) is None
    assert space.reach_outside(rules[1], {"arch": ["x86_64", "aarch64"]}) is None
    outside = space.reach_outside(rules[1], {"memory": {"min": "4G"}})
    assert compile_match({"memory": {"min": "4G"}}, {}).test(outside.cell()) is not True
    assert [f for f, _ in space.families_in_reach(rules[2])] == list(WORDS["family"])
    only = rules_of({"distribution": "debian"}, {})
    assert [f for f, _ in Space(only, K).families_in_reach(only[0])] == ["debian", "ostree", "sonic"]


# ---------------------------------------------------------------------- the data


@pytest.mark.parametrize("path", HOSTS, ids=lambda p: p.stem)
def test_no_recorded_host_is_impossible(path, tmp_path):
    facts = facts_of(load_host(path), tmp_path)
    context = Context(facts, classify(facts), K.features)
    assert not [
        why for m, why in IMPOSSIBLE if all(f in FIELDS or ":" in f for f in m.fields) and m.test(context) is True
    ]
    for field, words in WORDS.items():
        if field in FIELDS:
            assert context.value(field) in (*words, None), field


def test_the_words_are_those_of_the_detection():
    vocabulary = PLATFORMS["vocabulary"]
    assert set(WORDS["hypervisor"]) == set(vocabulary["hypervisor"])
    assert set(WORDS["role"]) == {*vocabulary["role"], *vocabulary["inside"], "unknown"} - {"own"}
    assert set(WORDS["variant"]) == {*vocabulary["variant"], ""}
    assert set(WORDS["confidential"]) == {*vocabulary["confidential"], "unknown"}
    assert set(WORDS["confidential_host"]) == {*vocabulary["confidential_host"], ""}
    assert set(WORDS["arch"]) == set(PLATFORMS["arches"])
    assert set(WORDS["family"]) == {*PLATFORMS["families"]["ids"], "ostree", "sonic", "unknown"}
    assert set(WORDS["boot_stack"]) == {row["stack"] for row in PLATFORMS["boot_stacks"]} | {"unknown"}
    families = {m["not"]["family"][0]: m["distribution"] for m, _ in world().impossible if "distribution" in m}
    assert families == {f: ids for f, ids in PLATFORMS["families"]["ids"].items() if f != "unknown"}


def test_every_impossible_combination_has_a_reason_and_takes_something_away():
    assert all(why for _, why in world().impossible)
    space = Space(rules_of({}), K)
    for match, _ in world().impossible:
        assert space.axes.boxes(match), match


def test_the_listed_platforms_are_possible_and_many():
    assert len(cells()) > 500
    assert not [c for c in cells() if any(m.test(c) is True for m, _ in IMPOSSIBLE)]
    assert {c.values["arch"] for c in cells()} == set(ARCHES)
    assert {c.values["hypervisor"] for c in cells()} == set(HYPERVISORS)
