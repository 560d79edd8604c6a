# SPDX-License-Identifier: Apache-2.0
"""Every command of the tutorial, with kdo installed from a wheel, in an empty folder; the page shows what really comes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT
from tests.docs.tutorial import pattern, play, steps
from tests.installed import installed

PAGE = ROOT / "docs/tutorial.md"


@pytest.fixture
def env(tmp_path_factory, tmp_path):
    """As somebody has it who has just installed kdo: a home of their own and nothing in it."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("KDO_", "ANSIBLE_", "XDG_"))}
    ansible = Path(sys.executable).parent  # where the tests have what pip would have brought
    return {**kept, "HOME": str(home), "PATH": f"{installed(tmp_path_factory)}/bin:{ansible}:{os.environ['PATH']}"}


def test_every_fast_command_shows_what_the_page_shows(env, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    ran = [command.text for command in play(PAGE, ("fast",), folder, env)]
    assert len(ran) >= 15
    assert {"policy.yaml", "cases.yaml", "waivers.yaml", "fleet.jsonl", "plan.json", "fleet.html"} == {
        p.name for p in folder.iterdir()
    }


def test_no_command_escapes_the_tests():
    """What is neither run here nor by tests/lab/test_tutorial.py would go stale."""
    kinds = {step.kind for step in steps(PAGE)}
    assert kinds == {"fast", "lab", "checkout"}


@pytest.mark.parametrize(("shown", "came", "good"), [
    ("a\n", "a\n", True), ("a\n", "a\nb\n", False), ("a\n…\n", "a\n", True), ("a\n…\n", "a\nb\nc\n", True), ("…\nb\n", "a\nb\n", True),
    ("x … z\n", "x y y z\n", True), ("x … z\n", "x y\nz\n", False), ("", "", True), ("", "a\n", False), ("a.c\n", "abc\n", False),
])  # fmt: skip
def test_what_the_pages_words_stand_for(shown, came, good):
    assert bool(pattern(shown).fullmatch(came)) is good
