# SPDX-License-Identifier: Apache-2.0
"""Shell variable files: what is written is what sh reads back, and nothing else moves."""

import ast
import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

UTILS = os.path.join(os.path.dirname(__file__), "..", "..", "playbooks", "module_utils")
sys.path.insert(0, os.path.abspath(UTILS))

from kdo_edit import EditError, assign, read_assignments  # noqa: E402

KEYS = ["USE_KDUMP", "KDUMP_CMDLINE_APPEND", "A", "A_B", "_x1"]
SAFE = st.text(
    alphabet=st.one_of(
        st.sampled_from(" abcXYZ019-_=.:,/+*?[]{}()<>|&;'#!~%@^"),
        st.characters(min_codepoint=0xA1, max_codepoint=0x2FF).filter(str.isprintable),
    ),
    max_size=30,
)
PLAIN = st.text(alphabet="abcXYZ019-_=.:,/+", max_size=12)


@st.composite
def lines(draw):
    key = draw(st.sampled_from([*KEYS, "OTHER", "FOO"]))
    value = draw(PLAIN)
    kind = draw(st.integers(0, 11))
    return {
        0: "",
        1: "# a comment with KEY= and 'odd \" quotes",
        2: f"#{key}={value}",
        3: f"{key}={value}",
        4: f'{key}="{value} two words"',
        5: f"{key}='{value} $not `this` \"'",
        6: f"export {key}={value}",
        7: f'{key}="{value} \\\n more"  # and a comment',
        8: f"  {key}={value}; OTHER=1",
        9: f"{key}=a\\ b'c d'\"e\" FOO=2",
        10: f'FOO="{value}\nsecond line"',
        11: f"# {key}={value}",
    }[kind]


@st.composite
def files(draw):
    rows = draw(st.lists(lines(), max_size=12))
    text = "\n".join(rows)
    return text + draw(st.sampled_from(["", "\n", "\n\n"])) if rows else ""


def sh_value(tmp_path, text, key):
    file = tmp_path / "vars"
    file.write_bytes(text.encode())
    script = '. "$1"; eval "printf %s \\"\\${$2-<unset>}\\""'.replace("%s", "%s")
    done = subprocess.run(
        ["/bin/sh", "-c", script, "sh", str(file), key], stdout=subprocess.PIPE, env={}, check=True, timeout=20
    )
    return done.stdout.decode()


@given(files(), st.sampled_from(KEYS), SAFE)
def test_written_value_is_read_back_and_again_changes_nothing(text, key, value):
    once = assign(text, [(key, value)])
    assert read_assignments(once)[key][0] == value
    assert assign(once, [(key, value)]) == once


@given(files(), st.sampled_from(KEYS), SAFE)
def test_other_keys_keep_their_value(text, key, value):
    before, after = read_assignments(text), read_assignments(assign(text, [(key, value)]))
    before.pop(key, None), after.pop(key, None)
    assert {name: row[0] for name, row in before.items()} == {name: row[0] for name, row in after.items()}


@given(files(), st.sampled_from(KEYS), SAFE)
def test_only_one_stretch_of_the_text_changes(text, key, value):
    after = assign(text, [(key, value)])
    if after == text:
        return
    start = next((i for i, (a, b) in enumerate(zip(text, after, strict=False)) if a != b), min(len(text), len(after)))
    common = 0
    while common < min(len(text), len(after)) - start and text[-1 - common] == after[-1 - common]:
        common += 1
    changed = after[start : len(after) - common]
    assert changed in f'\n{key}="{value}"\n{key}="{value}"\n'


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files(), st.sampled_from(KEYS), SAFE)
def test_sh_agrees(tmp_path, text, key, value):
    known = read_assignments(text)
    for name in KEYS:
        expected = known[name][0] if name in known else "<unset>"
        assert expected is not None
        assert sh_value(tmp_path, text, name) == expected
    assert sh_value(tmp_path, assign(text, [(key, value)]), key) == value


def test_last_of_several_is_the_one_that_counts():
    assert assign("A=1\nA=2\n#A=3\n", [("A", "x y")]) == 'A=1\nA="x y"\n#A=3\n'


def test_below_its_template_else_at_the_end():
    assert assign('# A=doc\n#A=""\nB=1', [("A", "x")]) == '# A=doc\n#A=""\nA="x"\nB=1'
    assert assign("B=1", [("A", "x")]) == 'B=1\nA="x"\n'
    assert assign("", [("A", "")]) == 'A=""\n'


def test_a_value_that_is_there_already_is_left_as_it_is_written():
    assert assign("USE_KDUMP=1\n", [("USE_KDUMP", "1")]) == "USE_KDUMP=1\n"


def test_export_comment_and_continuation_stay():
    assert assign("export A='old one' # why\n", [("A", "n")]) == 'export A="n" # why\n'
    assert assign('A="one \\\n two" B=3\n', [("A", "n")]) == 'A="n" B=3\n'


@pytest.mark.parametrize("value", ['"', "$x", "`id`", "a\\b", "a\nb", "\x00", "\x1b[0m", "\u2028", "\ud800", 1, None])
def test_unsafe_values(value):
    with pytest.raises(EditError):
        assign("", [("A", value)])


@pytest.mark.parametrize("key", ["", "1A", "A B", "A=", "A\n", "É", None])
def test_unsafe_keys(key):
    with pytest.raises(EditError):
        assign("", [(key, "x")])


@pytest.mark.parametrize(
    "text,line",
    [
        ("x=1\nif true; then A=2; fi\n", 2),
        ("if true\nthen\n  A=2\nfi\n", 3),
        ("cat <<EOF\nB=1\nA=2\nEOF\n", 3),
        ("cat <<-'E'\n\tA=2\n\tE\n", 2),
        ("B=$(echo 1\necho 2)\n", 1),
        ("\nB=`echo 1\necho 2`\n", 2),
        ("true && A=3\n", 1),
        ("f() {\nA=1\n}\n", 2),
        ("case $x in\na) A=1 ;;\nesac\n", 2),
        ("( A=2 )\n", 1),
        ("A=1\nunset A\n", 2),
        (': "${A:=4}"\n', 1),
        ("readonly A=1\n", 1),
        ("A+=x\n", 1),
        ("A=1 command\n", 1),
        ("A=1\nexit 0\nA=2\n", 2),
        ("B='open\n", 1),
        ('B=1\nC="open\n', 2),
        ("B=1 \\\n", 1),
        ("B=1 \\", 1),
        ("fi\n", 1),
        ("if true; then\n", 2),
        ("cat <<EOF\nA=2\n", 2),
        ("for A in 1 2; do :; done\n", 1),
    ],
)
def test_refuses_what_it_cannot_follow(text, line):
    with pytest.raises(EditError) as error:
        assign(text, [("A", "x")])
    assert error.value.line == line


def test_a_strange_place_for_another_key_does_not_matter():
    text = "if true; then B=2; fi\nA=1\n"
    assert assign(text, [("A", "x")]) == 'if true; then B=2; fi\nA="x"\n'


def test_dynamic_values_are_said_to_be():
    text = 'A=$B\nC="x${D}"\nE=`id`\nF=${F:=1}\nG=~/x\nH=a$\nI=$((1+1))\nJ=a:~/b\n'
    values = {key: row[0] for key, row in read_assignments(text).items() if key in "ACEFGHIJ"}
    assert values == {"A": None, "C": None, "E": None, "F": None, "G": None, "H": "a$", "I": None, "J": None}
    assert read_assignments("A=1\nif x; then\nA=2; fi\n")["A"] == (None, 3)


def test_debians_own_file():
    text = 'USE_KDUMP=1\n\n#KDUMP_CMDLINE_APPEND="reset_devices"\n'
    after = assign(text, [("KDUMP_CMDLINE_APPEND", "reset_devices nr_cpus=1"), ("USE_KDUMP", "1")])
    assert read_assignments(after)["KDUMP_CMDLINE_APPEND"][0] == "reset_devices nr_cpus=1"
    new = set(after.splitlines()) - set(text.splitlines())
    assert new == {'KDUMP_CMDLINE_APPEND="reset_devices nr_cpus=1"'}


@pytest.mark.parametrize(
    "folder,prefix",
    [("module_utils", "kdo_txn"), ("module_utils", "kdo_edit"), ("library", "kdo_apply"), ("library", "kdo_rollback")],
)
def test_runs_on_old_pythons_and_stays_small(folder, prefix):
    base = os.path.join(UTILS, "..", folder)
    for name in sorted(os.listdir(base)):
        if name.startswith(prefix) and name.endswith(".py"):
            source = open(os.path.join(base, name)).read()
            ast.parse(source, feature_version=(3, 6))
            assert len(source.splitlines()) < 400, name
            for word in ("capture_output", "shell=True", "os.system", "from __future__ import annotations"):
                assert word not in source, (name, word)
