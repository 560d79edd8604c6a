# SPDX-License-Identifier: Apache-2.0
"""benchmarks/chaos.py, small: killed workers, cut connections and a server that restarts change no host twice and lose none."""

from __future__ import annotations

import pytest

from benchmarks.chaos import faults, fight
from orchestrator.engine.queue import _idle
from orchestrator.store.runs import ShardRow
from tests.postgres import server


def test_every_host_exactly_once(tmp_path):
    with server(tmp_path) as own:  # it is restarted: nobody else's
        found = fight(
            own, tmp_path / "fight", "chaos", shards=12, size=3, workers=2, kills=2, cuts=1, restarts=1, patience=15
        )
    assert not faults(found), found
    assert found["server restarts (fast)"] == 1 and found["cuts"] == 1


@pytest.mark.parametrize(
    ("state", "beat", "idle"),
    [("lost", None, True), ("waiting", None, True), ("running", "2026-01-01", True), ("running", "2026-01-03", False),
     ("done", "2026-01-01", False)],
)  # fmt: skip
def test_a_shard_whose_worker_is_silent_is_not_waited_for(state, beat, idle):
    assert _idle(ShardRow(0, 0, "", state, 1, "w", beat, ""), "2026-01-02") is idle
