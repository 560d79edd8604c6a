# SPDX-License-Identifier: Apache-2.0
"""Which hosts there can be: policies/knowledge/space.yaml, the schema's words, and what the probes of features imply."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from orchestrator.policy.context import Features, compile_feature
from orchestrator.resources import read_text
from orchestrator.yamlmarks import load as load_yaml

# What each kind of probe can answer; see context.py.
_NEVER_UNKNOWN, _NEVER_FALSE = ("fadump",), ("log",)


@dataclass(frozen=True)
class World:
    """``words``: every word that a closed field can have, ``listed``: those of them that the schema of policies lists.

    ``impossible``: matches that hold for no host, and why. ``probes``: the features as the knowledge data writes them.
    """

    words: Mapping[str, tuple[str, ...]]
    listed: Mapping[str, tuple[str, ...]]
    impossible: tuple[tuple[Mapping[str, Any], str], ...]
    probes: Mapping[str, list[Mapping[str, str]]]
    features: Features

    def answers(self, feature: str) -> tuple[bool | None, ...]:
        """What a feature can be, the ordinary answer first."""
        kinds = [kind for test in self.probes[feature] for kind in test]
        out: list[bool | None] = [True] if all(k in _NEVER_FALSE for k in kinds) else [False, True]
        if kinds[0] == "since":  # kernels of today
            out.reverse()
        return tuple(out if any(k in _NEVER_UNKNOWN for k in kinds) else [*out, None])

    def kernel_of(self, feature: str) -> list[str]:
        """Kernel versions that a feature's probes look at."""
        return [version for test in self.probes[feature] for kind, version in test.items() if kind == "since"]


def _enum(schema: Any, definitions: Mapping[str, Any]) -> list[str]:
    """The words of a field that the schema closes with an enum."""
    if "$ref" in schema:
        return _enum(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions)
    return [w for part in schema.get("oneOf", ()) for w in _enum(part, definitions)] or list(schema.get("enum", ()))


@cache
def world() -> World:
    """The shipped data."""
    data = load_yaml(read_text("policies/knowledge/space.yaml"), "policies/knowledge/space.yaml").data
    probes = load_yaml(read_text("policies/knowledge/features.yaml"), "policies/knowledge/features.yaml").data
    definitions = json.loads(read_text("schemas/policy.schema.json"))["$defs"]
    words: dict[str, tuple[str, ...]] = {}
    listed: dict[str, tuple[str, ...]] = {}
    for field, schema in definitions["match"]["properties"].items():
        if field in ("any", "all", "not"):
            continue
        listed[field] = tuple(_enum(schema, definitions))
        found = [*listed[field], *data["words"].get(field, ())]
        if found:
            first = data["prefer"].get(field, found[0])
            words[field] = tuple(dict.fromkeys([first, *found]))
    return World(
        words=words,
        listed=listed,
        impossible=tuple((entry["match"], entry["why"]) for entry in data["impossible"]),
        probes=probes["features"],
        features={name: compile_feature(tests) for name, tests in probes["features"].items()},
    )
