# SPDX-License-Identifier: Apache-2.0
"""Generated files are up to date, and schemas accept what the code makes."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from orchestrator.documents.base import to_builtins
from orchestrator.reference import generate
from tests.builders import debian

ROOT = Path(__file__).parent.parent
GENERATED = generate()


@pytest.mark.parametrize("name", sorted(GENERATED))
def test_generated_files_are_up_to_date(name):
    assert (ROOT / name).read_text() == GENERATED[name], "run: make docs"


def test_schemas_are_valid_and_accept_our_documents():
    for path in (ROOT / "schemas").glob("*.json"):
        jsonschema.Draft202012Validator.check_schema(json.loads(path.read_text()))
    schema = json.loads((ROOT / "schemas/facts.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(to_builtins(debian()))


def test_every_key_of_the_policy_schema_is_described():
    schema = json.loads((ROOT / "schemas/policy.schema.json").read_text())
    for name in ("settings", "match"):
        for key, node in schema["$defs"][name]["properties"].items():
            assert node.get("description") or node.get("$ref"), (name, key)
