# SPDX-License-Identifier: Apache-2.0
"""The whole tutorial as a newcomer has it: installed by pip from a checkout, and the last section really crashes a guest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.lab.process import default_cache
from tests.docs.markdown import ROOT
from tests.docs.tutorial import play

pytestmark = pytest.mark.lab


def test_the_whole_page(artifacts: Path) -> None:
    home, empty = artifacts / "home", artifacts / "empty"
    home.mkdir()
    empty.mkdir()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("KDO_", "ANSIBLE_", "XDG_", "VIRTUAL_ENV"))}
    env = {
        **kept,
        "HOME": str(home),
        "PATH": f"{home}/kdo/bin:{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(default_cache().parent.parent),
    }
    page = ROOT / "docs/tutorial.md"
    assert len(list(play(page, ("checkout",), ROOT, env, 1800))) == 3
    ran = [command.text for command in play(page, ("fast", "lab"), empty, env, 7200)]
    assert any(text.startswith("kdo rehearse") for text in ran)
