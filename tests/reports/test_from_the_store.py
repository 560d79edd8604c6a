# SPDX-License-Identifier: Apache-2.0
"""What a report reads from a store, on SQLite and on PostgreSQL."""

from __future__ import annotations

from datetime import UTC, date, datetime

from orchestrator.engine.look import looked
from orchestrator.planning.pipeline import Pipeline
from orchestrator.policy.waivers import Waivers
from orchestrator.reports.collected import report, stored
from orchestrator.reports.page import around, page
from orchestrator.store.hosts import keep_seen, set_state
from orchestrator.store.runs import Placed
from orchestrator.store.store import Store
from tests.engine.test_campaign import PIPELINE
from tests.simulated import drifted, settled
from tests.store.test_store import entered, keep, later, seen

NOBODY = Waivers((), date(2026, 11, 24))


def test_hosts_runs_and_waivers(store_url):
    assert isinstance(PIPELINE, Pipeline)
    with Store(store_url) as store:
        run = entered(store, placed=[Placed("a", 0, 0), Placed("b", 0, 0), Placed("c", 0, 0)])
        store.database.do(
            lambda s: keep_seen(
                s, run, later(1), [looked(PIPELINE, NOBODY, drifted("a")), looked(PIPELINE, NOBODY, settled("b"))]
            )
        )
        waiver = ("W1", "dump-room", "lead", "2027-01-01")
        keep(store, run, 2, seen("c", "waived", {"n": 1}, waivers=[waiver]))
        made = report(stored(store, whole=True), "store")
        a, b, c = made.hosts
        assert made.states == {"drift": 1, "waived": 1, "compliant": 1}
        assert a.rule == "kvm-x86" and a.where.startswith("policies/default.yaml:") and a.findings[0].where == a.where
        assert {"due-knob"} <= {f.id for f in a.findings} and not [f for f in b.findings if f.level == "error"]
        assert a.detail and a.detail.layers and a.detail.checks and a.detail.changes and not a.detail.changes[0].step
        assert c.detail is not None and not c.detail.checks
        assert [h.detail for h in stored(store, names=["a"])] == [None]
        beside = around(store.database)
        (told,) = beside.runs
        assert told["id"] == run and told["hosts"] == 3 and [w["hosts"] for w in told["waves"]] == [3]
        assert beside.waivers == [
            {"id": "W1", "about": "dump-room", "approver": "lead", "expires": "2027-01-01", "hosts": 1}
        ]
        text = page(made, datetime(2026, 11, 24, tzinfo=UTC), beside).decode()
        assert run in text and "W1" in text and "kvm-x86" in text
        # What a host has become since it last answered is the first thing that is said of it.
        store.database.do(lambda s: set_state(s, ["b"], "failed", "no capture kernel", later(3)))
        (b,) = stored(store, names=["b"])
        assert (b.findings[0].id, b.findings[0].why) == ("failed", "no capture kernel")
