# SPDX-License-Identifier: Apache-2.0
"""Reading a policy file: YAML with positions, JSON Schema, then meaning. Every problem has file:line:col."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from orchestrator.crashkernel import parse as parse_crashkernel
from orchestrator.documents.base import digest
from orchestrator.errors import InvalidInput, PolicyError, Problem
from orchestrator.knowledge.load import Knowledge
from orchestrator.policy.match import Matcher, compile_match
from orchestrator.resources import data_path, data_root, read_text
from orchestrator.yamlmarks import Marked
from orchestrator.yamlmarks import Path as YamlPath
from orchestrator.yamlmarks import load as load_yaml

MAX_BYTES = 4 << 20


@dataclass(frozen=True)
class Rule:
    """One rule, compiled. ``strategy`` is empty when the rule refuses."""

    id: str
    where: str
    match: Matcher
    why: str
    strategy: tuple[str, ...]
    refuse: str
    level: str
    settings: Mapping[str, Any]
    path: YamlPath
    source: Mapping[str, Any]  # the match as it is written, for reasoning about the policy


@dataclass(frozen=True)
class Policy:
    """A policy that has passed every check of its own text. The last rule is the default and matches every host."""

    name: str
    file: str
    hash: str
    rules: tuple[Rule, ...]
    marked: Marked


@cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator  # noqa: PLC0415  (108 ms of import that `--help` must not pay)

    schema = json.loads(read_text("schemas/policy.schema.json"))
    return Draft202012Validator(schema)


def default_path() -> Path:
    """The shipped policy."""
    return data_path("policies/default.yaml")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else text[:57] + "…"


def _choices(schema: Any) -> list[str]:
    """Every value that an enum somewhere below allows, for suggestions."""
    out: list[str] = []
    if isinstance(schema, dict):
        out += [str(v) for v in schema.get("enum", [])]
        for key in ("oneOf", "anyOf", "items"):
            below = schema.get(key)
            for part in below if isinstance(below, list) else [below] if below else []:
                target = part
                if isinstance(part, dict) and "$ref" in part:
                    target = _validator().schema["$defs"][part["$ref"].rsplit("/", 1)[1]]
                out += _choices(target)
    return list(dict.fromkeys(out))


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else "known here: " + ", ".join(known)


def _describe(error: Any, marked: Marked) -> list[Problem]:
    """Turn one schema error into problems in the field's words."""
    path = tuple(error.absolute_path)
    where = marked.where(path)
    here = ".".join(str(p) for p in path) or "the policy"
    value, validator = error.instance, error.validator
    if validator == "additionalProperties" and isinstance(value, dict) and isinstance(error.schema, dict):
        known = sorted(error.schema.get("properties", {}))
        extra = [k for k in value if k not in known]
        return [
            Problem(
                f"unknown key {k!r} in {here}",
                marked.where((*path, k), key=True),
                "the schema has no such key",
                _nearest(k, known),
                "P002",
            )
            for k in extra
        ]
    if validator == "required":
        missing = [k for k in error.validator_value if isinstance(value, dict) and k not in value]
        return [Problem(f"{here} lacks {k!r}", where, "it is required", f"add {k}:", "P003") for k in missing]
    if validator == "oneOf" and isinstance(value, dict) and any("required" in s for s in error.validator_value):
        both = "strategy" in value and "refuse" in value
        return [
            Problem(
                f"{here} has both strategy and refuse" if both else f"{here} has neither strategy nor refuse",
                where,
                "a rule either relies on a layer or touches nothing",
                "keep one of the two" if both else "add one of the two",
                "P004",
            )
        ]
    if validator in ("enum", "const", "oneOf"):
        choices = _choices(error.schema) or [str(error.validator_value)]
        bad = [v for v in value if str(v) not in choices] if isinstance(value, list) else [value]
        if isinstance(value, list) and bad:
            path = (*path, value.index(bad[0]))
            where = marked.where(path)
        shown = bad[0] if bad else value
        hint = _nearest(str(shown), choices)
        return [
            Problem(
                f"{here}: {_short(shown)} is not allowed",
                where,
                "only certain values have a meaning here",
                hint,
                "P005",
            )
        ]
    if validator == "type":
        number = error.validator_value == "string" and isinstance(value, int | float)
        fix = (
            f'put it in quotes: "{value}" (6.10 without quotes is the number 6.1)'
            if number
            else "see docs/policy-reference.md"
        )
        what = f"{here}: {_short(value)} is not {_kind(error.validator_value)}"
        return [Problem(what, where, "wrong type", fix, "P006")]
    if validator == "propertyNames" or error.parent is not None:
        return [
            Problem(
                f"{here}: {error.message[:200]}",
                where,
                "the name is not allowed there",
                "see docs/policy-reference.md",
                "P005",
            )
        ]
    return [
        Problem(
            f"{here}: {error.message[:200]}",
            where,
            "the schema does not allow it",
            "see docs/policy-reference.md",
            "P007",
        )
    ]


def _kind(name: Any) -> str:
    words = {
        "object": "a mapping",
        "array": "a list",
        "string": "text",
        "integer": "a whole number",
        "boolean": "true or false",
    }
    return words.get(str(name), str(name))


def check_schema(marked: Marked) -> list[Problem]:
    """Every way in which the text is not a policy."""
    problems: list[Problem] = []
    for error in sorted(_validator().iter_errors(marked.data), key=lambda e: [str(p) for p in e.absolute_path]):
        problems += _describe(error, marked)
    return list(dict.fromkeys(problems))


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a rule over those of the policy: mappings merge key by key, everything else is replaced."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        out[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return out


def _check_settings(settings: Mapping[str, Any], marked: Marked, path: YamlPath) -> list[Problem]:
    problems = []
    reservation = settings.get("reservation", {})
    if "crashkernel" in reservation:
        try:
            parse_crashkernel(reservation["crashkernel"])
        except InvalidInput as e:
            p = e.problems[0]
            where = marked.where((*path, "reservation", "crashkernel"))
            problems.append(Problem(p.what, where, p.why or "the kernel would reserve nothing", p.fix, "P010"))
    capture = settings.get("capture", {})
    keys: dict[str, str] = {}
    for argument in capture.get("ensure", []):
        key = argument.split("=", 1)[0]
        where = marked.where((*path, "capture", "ensure"))
        if key in keys:
            problems.append(
                Problem(
                    f"capture.ensure names {key!r} twice", where, "one argument can have one value", "keep one", "P011"
                )
            )
        keys[key] = argument
        if key in ("elfcorehdr", "crashkernel"):
            problems.append(
                Problem(f"capture.ensure must not set {key!r}", where, "kexec sets it itself", "remove it", "P012")
            )
    for key in capture.get("remove", []):
        if key in keys or key in keys.values():
            where = marked.where((*path, "capture", "remove"))
            problems.append(
                Problem(
                    f"{key!r} is both ensured and removed", where, "the two contradict each other", "keep one", "P013"
                )
            )
    return problems


def parse(text: str, name: str, knowledge: Knowledge) -> Policy:
    """Check and compile a policy. Raises :class:`PolicyError` with everything that is wrong."""
    try:
        marked = load_yaml(text, name)
    except InvalidInput as e:
        raise PolicyError([Problem(p.what, p.where, p.why, p.fix, "P001") for p in e.problems]) from None
    if problems := check_schema(marked):
        raise PolicyError(problems)
    data, spec = marked.data, marked.data["spec"]
    shared = spec.get("settings", {})
    problems = _check_settings(shared, marked, ("spec", "settings"))
    rules: list[Rule] = []
    ids: dict[str, str] = {}
    entries: list[tuple[YamlPath, dict[str, Any]]] = [
        (("spec", "rules", i), r) for i, r in enumerate(spec.get("rules", []))
    ]
    entries.append((("spec", "default"), {"id": "default", "match": {}, **spec["default"]}))
    for path, entry in entries:
        where = marked.where(path)
        if entry["id"] in ids:
            problems.append(
                Problem(
                    f"rule id {entry['id']!r} stands twice",
                    where,
                    f"the first is at {ids[entry['id']]}",
                    "rename one",
                    "P014",
                )
            )
        ids[entry["id"]] = where
        own = entry.get("settings", {})
        problems += _check_settings(own, marked, (*path, "settings"))
        try:
            match = compile_match(entry["match"], knowledge.features, marked.where((*path, "match")))
        except InvalidInput as e:
            problems += [Problem(p.what, p.where, p.why, p.fix, "P015") for p in e.problems]
            continue
        rules.append(
            Rule(
                entry["id"],
                where,
                match,
                entry.get("why", ""),
                tuple(entry.get("strategy", ())),
                entry.get("refuse", ""),
                entry.get("level", "enforce"),
                _merge(shared, own),
                path,
                entry["match"],
            )
        )
    if problems:
        raise PolicyError(problems)
    return Policy(data["metadata"]["name"], name, digest([data, knowledge.hash]), tuple(rules), marked)


def load(path: str | Path, knowledge: Knowledge) -> Policy:
    """Read a policy file. Raises :class:`PolicyError`."""
    file = Path(path)
    try:
        if file.stat().st_size > MAX_BYTES:
            raise PolicyError(f"the file is larger than {MAX_BYTES} bytes", where=str(path), fix="is that a policy?")
        text = file.read_text(encoding="utf-8")
    except OSError as e:
        raise PolicyError(
            "cannot read the policy", where=str(path), why=e.strerror or str(e), fix="give the path of a policy with -p"
        ) from None
    except UnicodeDecodeError as e:
        raise PolicyError(
            "the policy is not UTF-8 text", where=f"{path}: byte {e.start}", fix="save it as UTF-8"
        ) from None
    # A shipped policy is named as in the checkout, wherever it is installed: the same plan reads the same everywhere.
    inside = file.resolve().is_relative_to(data_root())
    return parse(text, str(file.resolve().relative_to(data_root())) if inside else str(path), knowledge)
