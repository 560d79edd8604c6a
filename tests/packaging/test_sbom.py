# SPDX-License-Identifier: Apache-2.0
"""The SBOM: valid by CycloneDX's own schema, the same bytes each time, and what an empty environment really gets."""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha256
from importlib.metadata import version

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from orchestrator.errors import KdoError
from orchestrator.packaging.lock import FILE, Pin, canonical, read
from orchestrator.packaging.sbom import WHERE, document
from tests.packaging.trees import ROOT, bare

PINS = read((ROOT / "tests" / FILE).read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    (found,) = (bare(tmp_path_factory) / "dist").glob("*.whl")
    return found


def test_it_is_valid_and_always_the_same(wheel):
    found = document(wheel, PINS, 1_700_000_000)
    text = json.dumps(found)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert json.dumps(document(wheel, PINS, 1_700_000_000)) == text
    assert found["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"
    main = found["metadata"]["component"]
    assert main["hashes"] == [{"alg": "SHA-256", "content": sha256(wheel.read_bytes()).hexdigest()}]
    assert main["licenses"] == [{"expression": "Apache-2.0 AND GPL-3.0-or-later", "acknowledgement": "declared"}]
    references = {c["bom-ref"] for c in (main, *found["components"])}
    assert {d["ref"] for d in found["dependencies"]} == references
    assert {r for d in found["dependencies"] for r in d["dependsOn"]} == references - {main["bom-ref"]}
    assert not [c["name"] for c in found["components"] if "unknown" in str(c["licenses"])]


def test_it_names_what_an_empty_environment_gets(wheel, tmp_path_factory):
    python = bare(tmp_path_factory) / "env/bin/python"
    listing = "import importlib.metadata as m, json; print(json.dumps({d.metadata['Name']: d.version for d in m.distributions()}))"
    said = subprocess.run([python, "-I", "-c", listing], capture_output=True, text=True, check=True).stdout
    got = {canonical(name): number for name, number in json.loads(said).items()}
    got.pop("kdump-orchestrator")
    named = {canonical(c["name"]): c["version"] for c in document(wheel, PINS, 0)["components"]}
    # A later Python needs less: typing-extensions is for those before 3.13.
    missing, more = named.keys() - got.keys(), got.items() - named.items()
    assert not more and (
        not missing or sys.version_info[:2] > tuple(int(n) for n in WHERE["python_version"].split("."))
    )


def test_an_environment_that_is_not_as_locked_makes_none(wheel):
    other = {**PINS, "click": Pin("click", "0.1", "", ())}
    with pytest.raises(KdoError) as seen:
        document(wheel, other, 0)
    assert seen.value.problems[0].why == f"the lock has 0.1, this environment {version('click')}"
