# SPDX-License-Identifier: Apache-2.0
"""Enforcement: what one round may change, and the verb over simulated hosts."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.__main__ import main
from orchestrator.cli import fleet as cli_fleet
from orchestrator.documents.plan import Rollout
from orchestrator.engine.enforce import PATIENCE, Drifting, choose
from orchestrator.fleet import inventory as inventories
from orchestrator.store import leases, runs
from orchestrator.store.store import Store
from tests.engine.test_campaign import done_by
from tests.simulated import Fleet

POLICY = """\
apiVersion: kdump-orchestrator/v1
kind: Policy
metadata: {name: t}
spec:
  extends: [default]
  rollout: {waves: [1, 100%], budget: 4, max_hosts: 6}
"""


@given(
    st.lists(st.integers(0, 5), max_size=30),
    st.sampled_from(["", "0", "3", "10%", "100%"]),
    st.one_of(st.none(), st.integers(1, 40)),
    st.integers(0, 20),
)
def test_a_round_keeps_within_everything(tries, budget, cap, spent):
    drifting = [Drifting(f"h{n:02d}", "p", tried) for n, tried in enumerate(tries)]
    found = choose(drifting, Rollout(budget=budget, max_hosts=cap), 30, spent)
    chosen = {d.host for d in found.chosen}
    assert not chosen & set(found.left)
    assert all(d.tried < PATIENCE for d in found.chosen)
    if found.stopped:
        assert not chosen and cap is not None
    else:
        assert chosen | set(found.left) == {d.host for d in drifting}
    limit = {"": 30, "0": 0, "3": 3, "10%": 3, "100%": 30}[budget]
    assert len(chosen) <= (max(0, limit - spent) if budget else 30) and (cap is None or len(chosen) <= cap)


@pytest.fixture
def kdo(monkeypatch, tmp_path, capsys, store_url):
    """`kdo enforce` over a simulated fleet, in this process."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)

    def run(fleet: Fleet, *words: str):
        fleet.install(monkeypatch)
        monkeypatch.setattr(inventories, "resolve", lambda _whom: fleet.inventory)
        monkeypatch.setattr(cli_fleet, "executor_for", lambda store, _settings: done_by(store, store_url))
        monkeypatch.setattr("sys.argv", ["kdo", *words, "-p", str(policy), "--store", store_url, "--format", "json"])
        with pytest.raises(SystemExit) as ended:
            main()
        out = capsys.readouterr()
        return ended.value.code, json.loads(out.out) if out.out.strip() else out.err

    return run


def test_drift_is_brought_back_within_the_budget(kdo, store_url):
    fleet = Fleet(names=[f"h{n}" for n in range(6)], gone={"h5"})
    code, said = kdo(fleet, "enforce")
    assert code == 4, said  # one host cannot be reached
    assert said["came_to"] == {"changed": 4} and list(said["left"]) == ["h4"] and "budget of 4" in said["left"]["h4"]
    code, said = kdo(fleet, "enforce")
    assert (
        said["chosen"] == []
        and list(said["left"]) == ["h4"]
        and said["looked"] == {"compliant": 4, "drift": 1, "unreachable": 1}
    )
    with Store(store_url) as store:
        assert [r.kind for r in runs.listed(store.database, 9)] == ["sweep", "enforce", "sweep"]


def test_too_much_drift_at_once_is_nobodys_to_mend_but_a_persons(kdo):
    fleet = Fleet(names=[f"h{n}" for n in range(7)])
    code, said = kdo(fleet, "enforce")
    assert code == 2 and "7 hosts drift at once" in said["stopped"] and fleet.changed == []


def test_a_check_changes_nothing(kdo):
    fleet = Fleet(names=["a", "b"])
    code, said = kdo(fleet, "enforce", "--check")
    assert code == 2 and said["chosen"] == ["a", "b"] and fleet.changed == [] and said["run"] == ""


def test_a_host_that_does_not_stay_is_left_to_a_person(kdo):
    fleet = Fleet(names=["a"])
    for _ in range(PATIENCE):
        code, said = kdo(fleet, "enforce")
        assert code == 0 and said["came_to"] == {"changed": 1}
        fleet.done.clear()  # somebody undoes it
    code, said = kdo(fleet, "enforce")
    assert code == 2 and "does not stay" in said["left"]["a"] and len(fleet.changed) == PATIENCE


def test_two_enforcements_of_one_fleet_exclude_each_other(kdo, store_url):
    with Store(store_url) as store:
        leases.take(store.database, ["enforce"], "elsewhere:7", datetime.now(UTC))
    code, said = kdo(Fleet(names=["a"]), "enforce")
    assert code == 5 and "elsewhere:7" in said
