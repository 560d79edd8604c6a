# SPDX-License-Identifier: Apache-2.0
"""Fixtures: the facts of every recorded host, collected once per session."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.documents.facts import Facts
from tests.platforms.hosttree import HOSTS, facts_of, load_host


@pytest.fixture(scope="session")
def recorded(tmp_path_factory) -> Callable[[str], Facts]:
    """Facts of a recorded host by name."""
    base = tmp_path_factory.mktemp("hosts")
    known: dict[str, Facts] = {}

    def get(name: str) -> Facts:
        if name not in known:
            known[name] = facts_of(load_host(HOSTS / f"{name}.yaml"), base)
        return known[name]

    return get
