# SPDX-License-Identifier: Apache-2.0
"""JSON Schema errors turned into problems in the field's words, each with file:line:col."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from orchestrator.errors import Problem, did_you_mean
from orchestrator.resources import read_text
from orchestrator.yamlmarks import Marked

_KINDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "boolean": "true or false",
}


@cache
def validator(name: str) -> Any:
    """The validator of one schema (``policy``, ``waivers``, ``policy-test``)."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415  (108 ms of import that `--help` must not pay)

    return Draft202012Validator(json.loads(read_text(f"schemas/{name}.schema.json")))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else text[:57] + "…"


def _resolve(schema: Any, root: Any) -> Any:
    if isinstance(schema, dict) and "$ref" in schema:
        return root["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def _choices(schema: Any, root: Any) -> list[str]:
    """Every value that an enum somewhere below allows, for suggestions."""
    out: list[str] = []
    if isinstance(schema, dict):
        out += [str(v) for v in schema.get("enum", [])]
        for key in ("oneOf", "anyOf", "items"):
            below = schema.get(key)
            for part in below if isinstance(below, list) else [below] if below else []:
                out += _choices(_resolve(part, root), root)
    return list(dict.fromkeys(out))


def _nearest(word: str, known: list[str]) -> str:
    return did_you_mean(word, known) or "known here: " + ", ".join(known)


def _unknown_keys(error: Any, marked: Marked, path: tuple[Any, ...], here: str) -> list[Problem]:
    known = sorted(error.schema.get("properties", {}))
    return [
        Problem(
            f"unknown key {k!r} in {here}",
            marked.where((*path, k), key=True),
            "the schema has no such key",
            _nearest(str(k), known),
            "P002",
        )
        for k in error.instance
        if k not in known
    ]


def _outcome(value: dict[str, Any], where: str, here: str, words: list[str]) -> Problem:
    """One of several keys is wanted, and none or more than one is there."""
    have = [w for w in words if w in value]
    what = f"{here} has both {' and '.join(have)}" if have else f"{here} has neither {' nor '.join(words)}"
    fix = "keep one of them" if have else "add one of them"
    return Problem(what, where, "exactly one of them must be there", fix, "P004")


def _required_words(alternatives: list[Any]) -> list[str]:
    return [w for s in alternatives if isinstance(s, dict) for w in s.get("required", [])]


def _choice(error: Any, marked: Marked, path: tuple[Any, ...], here: str, root: Any) -> Problem:
    value = error.instance
    choices = _choices(error.schema, root) or [str(error.validator_value)]
    bad = [v for v in value if str(v) not in choices] if isinstance(value, list) else [value]
    if isinstance(value, list) and bad:
        path = (*path, value.index(bad[0]))
    shown = bad[0] if bad else value
    why = "only certain values have a meaning here"
    return Problem(
        f"{here}: {_short(shown)} is not allowed", marked.where(path), why, _nearest(str(shown), choices), "P005"
    )


def _describe(error: Any, marked: Marked, root: Any, manual: str) -> list[Problem]:
    """Turn one schema error into problems in the field's words."""
    path = tuple(error.absolute_path)
    where = marked.where(path)
    here = ".".join(str(p) for p in path) or "the document"
    value, kind = error.instance, error.validator
    if kind == "additionalProperties" and isinstance(value, dict) and isinstance(error.schema, dict):
        return _unknown_keys(error, marked, path, here)
    if kind == "required":
        missing = [k for k in error.validator_value if isinstance(value, dict) and k not in value]
        return [Problem(f"{here} lacks {k!r}", where, "it is required", f"add {k}:", "P003") for k in missing]
    words = _required_words(error.validator_value) if kind in ("oneOf", "anyOf") and isinstance(value, dict) else []
    if words and kind == "anyOf":
        return [Problem(f"{here} lacks {' or '.join(words)}", where, "it is required", f"add {words[0]}:", "P003")]
    if words:
        return [_outcome(value, where, here, list(dict.fromkeys(words)))]
    if kind in ("enum", "const", "oneOf"):
        return [_choice(error, marked, path, here, root)]
    if kind == "type":
        number = error.validator_value == "string" and isinstance(value, int | float)
        fix = f'put it in quotes: "{value}" (6.10 without quotes is the number 6.1)' if number else f"see {manual}"
        what = f"{here}: {_short(value)} is not {_KINDS.get(str(error.validator_value), error.validator_value)}"
        return [Problem(what, where, "wrong type", fix, "P006")]
    if kind == "dependentRequired" and isinstance(value, dict):
        lacks = [(k, n) for k, needs in error.validator_value.items() if k in value for n in needs if n not in value]
        return [Problem(f"{here}: {k} without {n}", where, f"{k} is about {n}", f"add {n}:", "P003") for k, n in lacks]
    if kind == "not" and isinstance(value, dict) and (words := _required_words(error.validator_value.get("anyOf", []))):
        clash = ", ".join(w for w in words if w in value)
        return [Problem(f"{here}: {clash} does not go with the rest", where, "they contradict", "keep one", "P004")]
    name = "the name is not allowed there" if kind == "propertyNames" or error.parent is not None else ""
    why, id = (name, "P005") if name else ("the schema does not allow it", "P007")
    return [Problem(f"{here}: {error.message[:200]}", where, why, f"see {manual}", id)]


def check_schema(marked: Marked, name: str = "policy", manual: str = "docs/policy-reference.md") -> list[Problem]:
    """Every way in which the text is not a document of that kind."""
    checker = validator(name)
    problems: list[Problem] = []
    for error in sorted(checker.iter_errors(marked.data), key=lambda e: [str(p) for p in e.absolute_path]):
        problems += _describe(error, marked, checker.schema, manual)
    return list(dict.fromkeys(problems))
