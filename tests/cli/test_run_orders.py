# SPDX-License-Identifier: Apache-2.0
"""kdo runs cancel: with a controller that lives, and with one that is gone."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from orchestrator.cli.main import cli
from orchestrator.errors import InvalidInput
from orchestrator.reports.text import console
from orchestrator.store import audit, leases, runs
from orchestrator.store.runs import Placed
from orchestrator.store.store import Store
from tests.store.test_store import entered, later


@pytest.fixture
def store(tmp_path):
    with Store(str(tmp_path / "store.db")) as store:
        yield store


def cancel(store, run, capsys):
    console.cache_clear()  # it would hold on to the stdout of another test
    try:
        cli.main(["runs", "cancel", run, "--store", store.url], standalone_mode=False)
    finally:
        console.cache_clear()
    return capsys.readouterr().out


@pytest.mark.parametrize("state", ["planned", "running", "pausing", "cancelling", "held"])
def test_a_run_without_a_controller_ends_at_once(store, state, capsys):
    run = entered(store, placed=[Placed("a", 0, 0), Placed("b", 0, 0)])
    runs.move(store.database, run, state, later(1))
    assert cancel(store, run, capsys) == f"{run}: cancelled\n"
    assert runs.state_of(store.database, run) == "cancelled" and runs.tally(store.database, run) == {"cancelled": 2}
    assert [e.what for e in audit.entries(store.database)][-1] == "cancelled"
    assert not leases.take(store.database, [f"run:{run}"], "somebody", datetime.now(UTC))
    with pytest.raises(InvalidInput, match="cancelled"):
        cancel(store, run, capsys)


def test_a_run_with_a_controller_is_ended_by_it(store, capsys):
    run = entered(store, placed=[Placed("a", 0, 0)])
    runs.move(store.database, run, "running", later(1))
    leases.take(store.database, [f"run:{run}"], "controller", datetime.now(UTC))
    assert "cancelling" in cancel(store, run, capsys)
    assert runs.state_of(store.database, run) == "cancelling" and runs.tally(store.database, run) == {"waiting": 1}
    with pytest.raises(InvalidInput, match="cancelling"):
        cancel(store, run, capsys)
