# SPDX-License-Identifier: Apache-2.0
"""kdo report --control: recorded facts and the store, every form, and what is refused."""

from __future__ import annotations

import json
from datetime import date
from xml.etree import ElementTree as ET

import pytest

from orchestrator.cli.main import cli
from orchestrator.documents.proof import Proof
from orchestrator.engine.look import looked
from orchestrator.errors import InvalidInput
from orchestrator.knowledge.load import knowledge
from orchestrator.planning.pipeline import Pipeline
from orchestrator.policy.load import load
from orchestrator.policy.waivers import Waivers
from orchestrator.reports.text import console
from orchestrator.store.hosts import Seen, keep_proof, keep_seen
from orchestrator.store.runs import Placed
from orchestrator.store.store import Store
from tests.builders import debian
from tests.checks.test_controls import WAIVED
from tests.example_fleet import FILE
from tests.planning.test_plan import armed
from tests.store.test_store import entered, later


@pytest.fixture
def kdo(capsysbinary):
    def run(*words: str) -> tuple[int, bytes]:
        console.cache_clear()  # it would hold on to the stdout of another test
        try:
            code = cli.main(["report", *words], standalone_mode=False)
        finally:
            console.cache_clear()
        return code, capsysbinary.readouterr().out

    return run


def test_recorded_facts_in_every_form(kdo, tmp_path):
    facts = ("--facts", str(FILE), "--control", "kdump-disabled", "--control", "kexec-load-disabled")
    code, out = kdo(*facts, "--format", "json")
    made = json.loads(out)
    assert code == 2 and [c["id"] for c in made["controls"]] == ["kdump-disabled", "kexec-load-disabled"]
    assert made["policy"] == "default" and len(made["controls"][0]["hosts"]) == 12
    code, out = kdo(*facts)
    assert code == 2 and b"named by DISA STIG: RHEL-08-010670" in out
    assert kdo(*facts, "--format", "csv")[0] == 0
    file = tmp_path / "junit.xml"
    assert kdo(*facts, "--format", "junit", "-o", str(file)) == (2, b"")
    assert [s.get("tests") for s in ET.parse(file).getroot()] == ["12", "12"]
    code, out = kdo(*facts, "--format", "markdown", "--host", "web*")
    assert b"web1" in out and b"edge1" not in out


def test_waivers_of_a_control_count(kdo, tmp_path):
    file = tmp_path / "w.yaml"
    file.write_text(WAIVED.format(about="control: kdump-disabled", day="2099-01-01"))
    code, out = kdo(
        "--facts",
        str(FILE),
        "--control",
        "kdump-disabled",
        "--host",
        "web1",
        "--waivers",
        str(file),
        "--format",
        "json",
    )
    assert code == 0 and json.loads(out)["controls"][0]["counts"]["waived"] == 1


def test_what_is_on_record(kdo, tmp_path):
    url = str(tmp_path / "store.db")
    with Store(url) as store:
        pipeline = Pipeline(load("default", knowledge()), knowledge())
        run = entered(store, placed=[Placed(h, 0, 0) for h in ("web1", "web2", "gone")])
        none = Waivers([], date(2026, 12, 1))
        found = [looked(pipeline, none, f, {}) for f in (armed(host="web1"), debian("web2"))]
        found.append(Seen("gone", "unreachable", "no route", answered=False))
        store.database.do(lambda s: keep_seen(s, run, later(1), found))
        keep_proof(store.database, Proof(how="crash-test", host="web1", at=later(2), outcome="dumped",
                                         kernel=found[0].kernel, state=found[0].desired))  # fmt: skip
    code, out = kdo("--control", "all", "--store", url, "--format", "json")
    made = {c["id"]: {h["host"]: h for h in c["hosts"]} for c in json.loads(out)["controls"]}
    assert code == 2
    assert {h: r["result"] for h, r in made["kdump-proven"].items()} == {
        "web1": "pass",
        "web2": "fail",
        "gone": "unknown",
    }
    assert {h: r["result"] for h, r in made["kdump-enabled-and-correct"].items()} == {
        "web1": "pass",
        "web2": "fail",
        "gone": "unknown",
    }
    assert (
        made["kdump-proven"]["gone"]["why"] == "it has never answered: no route"
        and made["kdump-proven"]["web1"]["seen"]
    )
    with pytest.raises(InvalidInput, match="no host is on record"):
        kdo("--control", "all", "--store", url, "--host", "nobody")


@pytest.mark.parametrize(("words", "said"), [
    (["--control", "kdump"], "no control 'kdump'"),
    (["--control", "all", "--format", "sarif"], "no form sarif"),
    (["--control", "all", "plan.json"], "judges hosts by their facts"),
    (["--control", "all", "--state", "failed"], "judges hosts by their facts"),
    (["--facts", str(FILE)], "are for --control"),
])  # fmt: skip
def test_what_cannot_be(kdo, words, said):
    with pytest.raises(InvalidInput, match=said):
        kdo(*words)
