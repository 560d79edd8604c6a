# SPDX-License-Identifier: Apache-2.0
"""/etc/kdump.conf: read strictly, edited in place."""

import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "playbooks", "module_utils"))
from kdo_conf import ConfError, check_setting, edit, settings

STOCK = """\
# This file contains a series of commands to perform (in order) in the kdump
# kernel after a kernel crash in the crash kernel(1st kernel) has happened.
#
#raw /dev/vg/lv_kdump
#ext4 LABEL=/boot
#nfs my.server.com:/export/tmp
#sshkey /root/.ssh/kdump_id_rsa
auto_reset_crashkernel yes
path /var/crash
core_collector makedumpfile -l --message-level 7 -d 31   # the default
#failure_action shell
  kdump_post /var/crash/scripts/kdump-post.sh
"""


def test_reading():
    assert settings(STOCK) == {
        "auto_reset_crashkernel": ("yes", 8),
        "path": ("/var/crash", 9),
        "core_collector": ("makedumpfile -l --message-level 7 -d 31", 10),
        "kdump_post": ("/var/crash/scripts/kdump-post.sh", 12),
    }


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("path /a\npath /b\n", 2, "stands twice"),
        ("path\n", 1, "no value"),
        ("path # /var/crash\n", 1, "no value"),
        ("ok 1\nKDUMP=1\n", 2, "not a key"),
        ("a\0b", 1, "zero byte"),
    ],
)
def test_what_kdumpctl_would_refuse_is_refused_with_its_line(text, line, what):
    with pytest.raises(ConfError) as e:
        settings(text)
    assert e.value.line == line and what in str(e.value)
    with pytest.raises(ConfError):
        edit(text, [("path", "/x")])


def test_editing_keeps_what_the_admin_wrote():
    after = edit(
        STOCK,
        [
            ("path", "/dumps"),
            ("nfs", "s:/x"),
            ("failure_action", "poweroff"),
            ("kdump_post", None),
            ("final_action", "halt"),
        ],
    )
    assert after.split("\n") == [
        *STOCK.split("\n")[:6],
        "nfs s:/x",
        "#sshkey /root/.ssh/kdump_id_rsa",
        "auto_reset_crashkernel yes",
        "path /dumps",
        "core_collector makedumpfile -l --message-level 7 -d 31   # the default",
        "#failure_action shell",
        "failure_action poweroff",
        "#  kdump_post /var/crash/scripts/kdump-post.sh",
        "final_action halt",
        "",
    ]  # fmt: skip
    assert edit(STOCK, [("core_collector", "makedumpfile -c -d 31")]).split("\n")[9] == (
        "core_collector makedumpfile -c -d 31   # the default"
    )


def test_what_cannot_stand_in_such_a_file():
    for key, value in [
        ("Path", "/x"),
        ("path", ""),
        ("path", "/a # b"),
        ("path", "/a\nraw /dev/sda"),
        ("path", " /a"),
        ("a b", "c"),
    ]:
        with pytest.raises(ConfError):
            check_setting(key, value)
    with pytest.raises(ConfError):
        edit("", [("path", "/a"), ("path", "/b")])


KEYS = st.sampled_from(["path", "nfs", "ssh", "raw", "core_collector", "final_action", "extra_bins"])
VALUES = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#"), min_size=1, max_size=12)
ROWS = st.one_of(
    st.just(""),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20).map(lambda t: "#" + t),
    st.tuples(KEYS, VALUES).map(lambda kv: f"#{kv[0]} {kv[1]}"),
)


@st.composite
def files(draw):
    chosen = draw(st.dictionaries(KEYS, VALUES, max_size=5))
    rows = [
        f"{draw(st.sampled_from(['', ' ', chr(9)]))}{k} {v}{draw(st.sampled_from(['', '  # note']))}"
        for k, v in chosen.items()
    ]
    rows += draw(st.lists(ROWS, max_size=8))
    return chosen, "\n".join(draw(st.permutations(rows))) + draw(st.sampled_from(["", "\n"]))


@given(files(), st.dictionaries(KEYS, st.none() | VALUES, max_size=4))
def test_edit_does_what_it_says_twice_does_nothing_and_touches_no_other_line(file, wanted):
    chosen, text = file
    assert {k: v for k, (v, _) in settings(text).items()} == chosen
    after = edit(text, list(wanted.items()))
    expected = {k: v for k, v in {**chosen, **wanted}.items() if v is not None}
    assert {k: v for k, (v, _) in settings(after).items()} == expected
    assert edit(after, list(wanted.items())) == after
    mine = set(wanted)
    kept = [r for r in text.split("\n") if r and not (r.split()[0] in mine if r.split() else False)]
    remaining = after.split("\n")
    assert all(row in remaining for row in kept)
    assert edit(text, []) == text
