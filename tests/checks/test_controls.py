# SPDX-License-Identifier: Apache-2.0
"""Controls of baselines: the data holds together, and hosts come to what they should under each of them."""

from __future__ import annotations

import csv
import io
import json
from datetime import date
from pathlib import Path
from xml.etree import ElementTree as ET

import jsonschema
import msgspec
import pytest

from orchestrator.checks.base import all_checks
from orchestrator.checks.controls import RESULTS, Bench
from orchestrator.documents.base import pretty
from orchestrator.documents.facts import Service
from orchestrator.errors import InvalidInput, PolicyError
from orchestrator.knowledge.controls import controls
from orchestrator.knowledge.load import knowledge
from orchestrator.planning.pipeline import Pipeline
from orchestrator.policy.load import load, parse
from orchestrator.policy.waivers import Waivers
from orchestrator.policy.waivers import parse as parse_waivers
from orchestrator.reports import controls as shown
from orchestrator.yamlmarks import load as load_yaml
from tests.builders import debian, kernel
from tests.example_fleet import fleet
from tests.planning.test_plan import armed
from tests.platforms.hosttree import facts_of, host_files, load_host

ROOT = Path(__file__).parents[2]
K = knowledge()
ALL = controls().controls
DEFAULT = load("default", K)
WAIVED = """\
apiVersion: kdump-orchestrator/v1
kind: Waivers
spec:
  waivers:
    - {{id: needed, {about}, hosts: {{host: web1}}, justification: databases are debugged, approver: ann, expires: "{day}"}}
"""


def waivers(about: str, day: str = "2027-01-01") -> Waivers:
    found = parse_waivers(WAIVED.format(about=about, day=day), "w.yaml", K, all_checks(), DEFAULT)
    return Waivers(found, date(2026, 12, 1))


def bench(policy=DEFAULT, waived: Waivers | None = None, proofs=None) -> Bench:
    return Bench(Pipeline(policy, K), waived or Waivers([], date(2026, 12, 1)), proofs)


def answers(facts, where: Bench | None = None) -> dict[str, tuple[str, str]]:
    where = where or bench()
    host = where.look(facts)
    return {c.id: ((a := where.judge(c, host)).result, a.why) for c in ALL}


def results(facts, where: Bench | None = None) -> list[str]:
    return [result for result, _ in answers(facts, where).values()]


def off(**more):
    """A host on which kdump is off, now and at the next boot."""
    return debian(services={"kdump-tools": Service(load="loaded", enabled="disabled", active="inactive")}, **more)


def kexec(facts, **changes):
    return msgspec.structs.replace(facts, kexec=msgspec.structs.replace(facts.kexec, **changes))


def test_the_data_is_valid_and_names_checks_that_there_are():
    name = "policies/knowledge/controls.yaml"
    data = load_yaml((ROOT / name).read_text(), name).data
    jsonschema.Draft202012Validator(json.loads((ROOT / "schemas/controls.schema.json").read_text())).validate(data)
    known = all_checks()
    for control in ALL:
        assert set(control.checks) <= known.keys(), control.id
        assert bool(control.checks) == (control.demands in ("enabled", "disabled") and not control.proof)
    used = {s for c in ALL for s in (*c.sources, *(s for b in c.baselines for s in b.sources))}
    assert used | {"cac"} == set(controls().sources)
    # Every check that says whether a crash would be caught is asked; a login is tried on request only.
    asked = {c for x in ALL for c in x.checks}
    assert set(known) - asked == {"target-login"}


def test_contradictions_are_named_on_both_sides():
    by = {c.id: {x.id for x in c.contradicts} for c in ALL}
    assert by["kdump-enabled-and-correct"] == {c.id for c in ALL if c.demands != "enabled"}
    assert all(
        "kdump-enabled-and-correct" in others
        for id, others in by.items()
        if not id.startswith(("kdump-enabled", "kdump-proven"))
    )
    assert all(id not in others for id, others in by.items())


#      enabled, proven, disabled, masked, locked, no kexec
@pytest.mark.parametrize(("facts", "expected"), [
    (armed(), ["pass", "fail", "fail", "fail", "fail", "fail"]),
    (debian(), ["fail", "fail", "fail", "fail", "fail", "fail"]),
    (off(), ["fail", "fail", "pass", "fail", "fail", "fail"]),
    (debian(services={"kdump-tools": Service(load="masked", enabled="masked", active="inactive")}),
     ["fail", "fail", "pass", "pass", "fail", "fail"]),
    (debian(services={"kdump-tools": Service(load="not-found")}, packages={}), ["fail", "fail", "pass", "pass", "fail", "fail"]),
    (kexec(armed(), load_disabled=1), ["pass", "fail", "fail", "fail", "pass", "fail"]),
    (kexec(off(), load_disabled=1), ["fail", "fail", "pass", "fail", "pass", "fail"]),
    (kexec(debian(), load_disabled=None), ["fail", "fail", "fail", "fail", "unknown", "fail"]),
    (kexec(off(), supported=False, crash_loaded=None, crash_size=None, load_disabled=None),
     ["fail", "fail", "pass", "fail", "not applicable", "pass"]),
])  # fmt: skip
def test_what_a_host_comes_to(facts, expected):
    assert results(facts) == expected, answers(facts)


def test_the_sysctl_that_breaks_kdump_is_told_apart():
    """Set before the service starts, nothing is loaded; set after it, the loaded image stays."""
    before, after = kexec(debian(), load_disabled=1), kexec(armed(), load_disabled=1)
    assert "none can be" in answers(before)["kexec-load-disabled"][1]
    assert "kexec_load_disabled is 1" in answers(before)["kdump-enabled-and-correct"][1]
    assert "stays usable" in answers(after)["kexec-load-disabled"][1]
    result, why = answers(after)["kdump-enabled-and-correct"]
    assert result == "pass" and "kexec_load_disabled is 1" in why


def test_the_policy_says_what_correct_is_and_never_what_off_is():
    lab = parse(
        "apiVersion: kdump-orchestrator/v1\nkind: Policy\nmetadata: {name: lab}\nspec: {default: {disable: a lab}}\n",
        "p.yaml",
        K,
    )
    assert results(off(), bench(lab)) == ["fail", "fail", "pass", "fail", "fail", "fail"]
    assert "wants no kdump on this host (rule default)" in answers(off(), bench(lab))["kdump-enabled-and-correct"][1]
    assert "the policy wants kdump on this host (rule kvm-x86)" in answers(armed())["kdump-disabled"][1]
    assert "wants kdump" not in answers(armed(), bench(lab))["kdump-disabled"][1]


def test_proofs():
    for state, expected in (("proven", "pass"), ("proof expired", "fail"), ("never proven", "fail")):
        result, why = answers(armed(), bench(proofs={"web1": (state, "because")}))["kdump-proven"]
        assert result == expected and "because" in why


def test_waivers_of_controls_checks_and_rules():
    where = bench(waived=waivers("control: kdump-disabled"))
    result, why = answers(armed(), where)["kdump-disabled"]
    assert result == "waived" and "needed: databases are debugged" in why and "off-memory" in why
    assert answers(armed(), where)["kdump-service-masked"][0] == "fail"
    assert where.waivers.unused() == []
    assert answers(debian("web2"), where)["kdump-disabled"][0] == "fail"
    result, why = answers(armed(), bench(waived=waivers("control: kdump-disabled", "2026-11-30")))["kdump-disabled"]
    assert result == "fail" and "has expired on 2026-11-30" in why
    loose = kexec(armed(), crash_loaded=False)
    assert answers(loose, bench(waived=waivers("check: capture-loaded")))["kdump-enabled-and-correct"][0] == "fail"
    assert answers(debian(), bench(waived=waivers("rule: kvm-x86")))["kdump-enabled-and-correct"][0] == "waived"
    # A rule of the site's policy is another thing than a rule of the same name in the policy that controls are judged by.
    assert answers(debian(), bench(waived=waivers("rule: default")))["kdump-disabled"][0] == "fail"
    with pytest.raises(PolicyError, match="no control 'kdump-disabeld'") as wrong:
        waivers("control: kdump-disabeld")
    assert wrong.value.problems[0].id == "W012" and "did you mean 'kdump-disabled'" in wrong.value.problems[0].fix


@pytest.mark.parametrize("path", host_files(), ids=lambda p: p.stem)
def test_every_recorded_host_comes_to_something(path, tmp_path):
    facts = facts_of(load_host(path), tmp_path)
    found = answers(facts)
    role = bench().look(facts).by(bench().own)[0].platform.role
    inside = role in ("container", "wsl", "uml")
    assert all((result == "not applicable") == inside or result in RESULTS for result, _ in found.values())
    assert inside == all(result == "not applicable" for result, _ in found.values())
    assert all(why for result, why in found.values() if result != "pass")
    # Nothing was ever armed on these trees, and a tree has no services that could be asked.
    assert found["kdump-enabled-and-correct"][0] != "pass" and found["kdump-disabled"][0] != "pass"


def report(*ids: str):
    where = bench(waived=waivers("control: kdump-disabled"))
    return where.report(
        controls().chosen(ids or ("all",)), ((f, "2026-11-30T00:00:00Z") for f in fleet()), "x", {"gone": "no route"}
    )


def test_every_form_says_the_same():
    made = report()
    for control in made.controls:
        assert sum(control.counts.values()) == len(control.hosts) == 13 and list(control.counts) == list(RESULTS)
    rows = list(csv.DictReader(io.StringIO(shown.as_csv(made).decode())))
    assert {(r["control"], r["host"], r["result"]) for r in rows} == {
        (c.id, h.host, h.result) for c in made.controls for h in c.hosts
    }
    root = ET.fromstring(shown.as_junit(made))
    assert [s.get("name") for s in root] == [c.id for c in ALL]
    for node, control in zip(root, made.controls, strict=True):
        n = control.counts
        assert (node.get("failures"), node.get("errors")) == (str(n["fail"]), str(n["unknown"]))
        assert node.get("skipped") == str(n["waived"] + n["not applicable"])
    text = shown.as_markdown(made).decode()
    assert all(f"### {c.id}" in text for c in made.controls) and "RHEL-09-213115" in text
    schema = json.loads((ROOT / "schemas/control-report.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(json.loads(pretty(made)))
    assert pretty(report()) == pretty(made)


def test_the_example_fleet(capsys):
    made = {c.id: {h.host: h.result for h in c.hosts} for c in report().controls}
    on = made["kdump-enabled-and-correct"]
    assert on["web3"] == "pass" and on["web1"] == on["old2"] == "fail" and on["pod1"] == "not applicable"
    assert on["web4"] == on["gone"] == "unknown"
    assert made["kdump-disabled"]["web1"] == "waived" and made["kdump-disabled"]["web2"] == "fail"
    shown.show(report("kdump-disabled"))
    assert shown.bad(report()) and not shown.bad(bench().report((), (), "x"))


def test_a_control_that_there_is_not():
    with pytest.raises(InvalidInput, match="there is no control 'kdump'"):
        controls().chosen(("kdump",))
    assert controls().chosen(("all", "kdump-proven")) == ALL
    assert [c.id for c in controls().chosen(("kdump-proven", "kdump-proven"))] == ["kdump-proven"]


def test_no_secret_of_a_symbol_list_is_needed():
    """Controls are answered without root's view of the kernel as far as that is possible."""
    assert results(kernel(off(), symbols=None))[2:4] == ["pass", "fail"]
