# SPDX-License-Identifier: Apache-2.0
"""YAML with positions, version order, kernel command lines, crashkernel=."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import cmdline, crashkernel
from orchestrator.errors import InvalidInput
from orchestrator.versions import Version, at_least, compare
from orchestrator.yamlmarks import load

MIB, GIB = 1 << 20, 1 << 30


# --- YAML


def test_yaml_keeps_positions_of_keys_and_values():
    m = load("a:\n  - b: 1\n    c: [x, y]\n", "f")
    assert m.data == {"a": [{"b": 1, "c": ["x", "y"]}]}
    assert m.where(("a", 0, "c", 1)) == "f:3:12"
    assert m.where(("a", 0, "c"), key=True) == "f:3:5"
    assert m.where(("a", 0, "c", 7)) == "f:3:8"  # nearest ancestor


def test_yaml_booleans_are_those_of_yaml_1_2():
    assert load("[no, on, 12:30, 0o17, 0x1f, 1e3, ~, 'true']", "f").data == [
        "no",
        "on",
        "12:30",
        15,
        31,
        1000.0,
        None,
        "true",
    ]


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("a: 1\nb: 2\na: 3\n", "f:3:1", "stands twice"),
        ("a: &x 1\nb: *x\n", "f:1:4", "alias"),
        ("a: [1\n", "f:2:1", "not valid YAML"),
        ("a:\n\t- b\n", "f:2:1", "not valid YAML"),
        ("? [a]\n: b\n", "f:1:3", "plain text"),
        ("<<: {a: 1}\n", "f:1:1", "merge"),
        ("[" * 100_000, "f:1:65", "nested deeper"),
    ],
)
def test_yaml_mistakes_have_a_place(text, where, what):
    with pytest.raises(InvalidInput) as e:
        load(text, "f")
    problem = e.value.problems[0]
    assert what in problem.what
    assert where is None or problem.where == where


# --- versions


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("6.1.0-18-amd64", "6.1.0-40-amd64"),
        ("5.14.0-427.el9", "5.14.0-503.el9"),
        ("4.18.0-553.el8_10.x86_64", "5.14.0-1.el9"),
        ("6.8.0-1013-aws", "6.8.0-1014-aws"),
        ("1.0~rc1", "1.0"),
        ("1.2", "1.10"),
        ("123-1", "123.1-1"),
        ("124-1", "124^1"),
        ("12", "13"),
        ("22.04", "24.10"),
    ],
)
def test_versions_of_the_field_are_ordered(older, newer):
    assert compare(older, newer) == -1 and compare(newer, older) == 1
    assert Version(older) < Version(newer)


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_version_order_is_an_order(a, b, c):
    assert compare(a, a) == 0
    assert compare(a, b) == -compare(b, a)
    if compare(a, b) <= 0 and compare(b, c) <= 0:
        assert compare(a, c) <= 0


def test_kernel_ranges_look_at_the_upstream_number():
    assert at_least("6.9.0-1-amd64", "6.9") and at_least("6.12.117+deb13-amd64", "6.9")
    assert not at_least("6.1.0-40-amd64", "6.9")
    assert at_least("7.0.0-rc1", "7.0") and not at_least("", "1")


# --- kernel command lines

WORD = st.from_regex(r"[a-z_]{1,8}(=[A-Za-z0-9_.,:/]{0,8})?", fullmatch=True)


@given(st.lists(WORD))
def test_split_and_join_are_inverse(words):
    assert cmdline.split(cmdline.join(words)) == words


@given(st.lists(WORD), st.lists(WORD, unique_by=cmdline.key_of))
def test_ensure_gives_each_key_once_and_loses_nothing_else(words, wanted):
    out = cmdline.ensure(words, wanted)
    keys = {cmdline.key_of(w) for w in wanted}
    for argument in wanted:
        assert [w for w in out if cmdline.key_of(w) == cmdline.key_of(argument)] == [argument]
    assert [w for w in out if cmdline.key_of(w) not in keys] == [w for w in words if cmdline.key_of(w) not in keys]
    assert cmdline.ensure(out, wanted) == out


def test_quotes_protect_spaces_as_in_the_kernel():
    assert cmdline.split('a dyndbg="file x +p" b') == ["a", 'dyndbg="file x +p"', "b"]
    assert cmdline.values('a="1 2" a=3', "a") == ["1 2", "3"]
    assert cmdline.key_of("foo-bar=1") == cmdline.key_of("foo_bar")


@pytest.mark.parametrize(
    ("word", "name", "value"),
    [
        ('"d e=f g"', "d e", "f g"),
        ('a="b c"', "a", "b c"),
        ('"a"', "a", None),
        ("=x", "=x", None),  # a name has at least one character
        ('a="', "a", ""),
        ('a="b"c', "a", 'b"c'),
        ('a=b"c d"', "a", 'b"c d"'),
        ("foo-bar=1-2", "foo_bar", "1-2"),
        ("a==", "a", "="),
    ],
)
def test_a_word_is_taken_apart_as_the_kernel_does_it(word, name, value):
    """Compared with next_arg() of lib/cmdline.c on random words."""
    assert cmdline.pair(word) == (name, value)


def test_without_removes_keys_or_exact_values():
    assert cmdline.without(["irqpoll", "swiotlb=noforce", "swiotlb=force"], ["irqpoll", "swiotlb=noforce"]) == [
        "swiotlb=force"
    ]


@pytest.mark.parametrize("bad", ["a b", 'a"b', "a$(x)", "a`x`", "a;b", "a\nb", "", "é", "{{ x }}", "a" * 513])
def test_unsafe_arguments_are_refused(bad):
    with pytest.raises(InvalidInput):
        cmdline.check_safe(bad)


def test_booleans_as_the_kernel_reads_them():
    read = [cmdline.truthy(v) for v in (None, "", "1", "Y", "on", "0", "n", "off", "maybe")]
    assert read == [None, True, True, True, True, False, False, False, None]


# --- crashkernel=


@pytest.mark.parametrize(
    ("text", "ram", "size"),
    [
        ("256M", 4 * GIB, 256 * MIB),
        ("384M-:128M", 4 * GIB, 128 * MIB),
        ("512M-:192M", 511 * MIB, 192 * MIB),  # RAM is rounded up to 128 MiB: 512M
        ("512M-:192M", 256 * MIB, 0),
        ("2G-64G:256M,64G-:512M", 2 * GIB - 1, 256 * MIB),
        ("2G-64G:256M,64G-:512M", 64 * GIB, 512 * MIB),
        ("2G-64G:256M", 64 * GIB, 0),
        ("1G-:4G", 2 * GIB, 0),  # must be smaller than RAM
        ("1G,high", 8 * GIB, 1 * GIB),
    ],
)
def test_reservation_follows_the_kernels_rules(text, ram, size):
    assert crashkernel.parse(text).reserve(ram) == size


def test_the_last_plain_value_counts_and_silences_high():
    assert crashkernel.reserved_by(["64M", "256M"], GIB) == 256 * MIB
    assert crashkernel.reserved_by(["1G,high", "128M,low"], 8 * GIB) == GIB + 128 * MIB
    assert crashkernel.reserved_by(["1G,high", "256M"], 8 * GIB) == 256 * MIB
    assert crashkernel.reserved_by(["nonsense", "1G,cma"], 8 * GIB) == 0


@pytest.mark.parametrize(
    ("values", "ram", "size"),
    [
        (["256M", "nonsense"], 4 * GIB, 0),  # the last one counts, also when it cannot be read
        (["1G,high", "512M-"], 8 * GIB, 0),  # and hides the high part
        (["0400M"], 4 * GIB, 256 * MIB),  # octal
        (["0x100M"], 4 * GIB, 256 * MIB),
        (["256Mx"], 4 * GIB, 0),
        (["256M@16M"], 4 * GIB, 256 * MIB),
        (["1G-:256M,garbage"], 4 * GIB, 256 * MIB),  # what follows the range that matches is not looked at
        (["8G-:64M,x"], 4 * GIB, 0),
        (["8G-16G:5G,1G-:256M"], 4 * GIB, 0),  # a size that is not below RAM ends it, wherever it stands
        (["1G-:256M@"], 4 * GIB, 0),
        (["128M,low"], 8 * GIB, 0),  # no low part without a high one
        (["1G,high", "2G,high", "64M,low", "128M,low"], 8 * GIB, 2 * GIB + 128 * MIB),
        (["1G,higher"], 8 * GIB, 0),
    ],
)
def test_the_kernels_own_reading_of_odd_values(values, ram, size):
    """Found by comparing with the parser of kernel/crash_core.c on random command lines."""
    assert crashkernel.reserved_by(values, ram) == size


@given(st.lists(st.text("0123456789MGKx-:,@ highlow", max_size=20), max_size=3), st.integers(1, 1 << 40))
def test_no_text_is_too_odd(values, ram):
    assert crashkernel.reserved_by(values, ram) >= 0


SIZE = st.integers(1, 1 << 20).map(lambda n: n * MIB)


@st.composite
def _values(draw):
    if draw(st.booleans()):
        return crashkernel.Crashkernel(size=draw(SIZE), suffix=draw(st.sampled_from(["", "high", "low", "cma"])))
    bounds = sorted(draw(st.lists(st.integers(1, 1 << 16), min_size=2, max_size=7, unique=True)))
    pairs = list(itertools.pairwise(bounds))
    ranges = tuple(
        crashkernel.Range(a * MIB, b * MIB if i + 1 < len(pairs) else None, draw(SIZE))
        for i, (a, b) in enumerate(pairs)
    )
    return crashkernel.Crashkernel(ranges=ranges)


@given(_values(), SIZE)
def test_parse_and_print_round_trip(value, ram):
    again = crashkernel.parse(str(value))
    assert again == value
    assert again.reserve(ram) == value.reserve(ram)


@pytest.mark.parametrize("bad", ["", "auto", "0256M", "256Q", "2G-1G:64M", "1G:64M", "1G-2G:64M,high", "-", "a-b:c"])
def test_nonsense_is_refused(bad):
    with pytest.raises(InvalidInput):
        crashkernel.parse(bad)


# --- recorded answers of the kernel's own parsers (Linux 6.1), to random input

DATA = Path(__file__).parent / "data"


def test_every_recorded_reservation_of_the_kernels_parser():
    rows = [
        r.split("\t") for r in (DATA / "crashkernel-as-the-kernel-reads-it.tsv").read_text().splitlines() if r[0] != "#"
    ]
    assert len(rows) >= 500
    for ram, line, size in rows:
        assert crashkernel.reserved_by(cmdline.values(line, "crashkernel"), int(ram)) == int(size), line


def test_every_recorded_word_of_the_kernels_parser():
    rows = [json.loads(r) for r in (DATA / "arguments-as-the-kernel-reads-them.jsonl").read_text().splitlines()]
    assert len(rows) >= 300
    for line, pairs in rows:
        expected = [(name.replace("-", "_"), value) for name, value in pairs]
        assert [cmdline.pair(word) for word in cmdline.split(line)] == expected, line
