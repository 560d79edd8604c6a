# SPDX-License-Identifier: Apache-2.0
"""The match language: clauses compiled once into closures, evaluated in three-valued logic, explained on demand.

The grammar is in ``schemas/policy.schema.json`` ($defs/match); the knowledge data uses the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from orchestrator.crashkernel import format_size, parse_size
from orchestrator.documents.decision import Clause
from orchestrator.errors import InvalidInput
from orchestrator.policy.context import View
from orchestrator.versions import Version, at_least

Test = Callable[[Any], bool | None]

_WORDS = (
    "arch",
    "hypervisor",
    "role",
    "variant",
    "confidential",
    "confidential_host",
    "family",
    "distribution",
    "boot_stack",
    "cloud",
    "firmware",
    "page_size",
)
_GLOBS = ("product", "host")
_SETS = ("groups", "tags", "drivers")
_BOOLS = ("ambiguous", "paravisor", "target_encrypted")
_NUMBERS = ("cpus", "target_room")


def _show(value: Any) -> str:
    if value is None:
        return "cannot be told"
    if isinstance(value, frozenset):
        items = sorted(value)
        return ", ".join(items[:8]) + (f", … ({len(items)})" if len(items) > 8 else "") if items else "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if value != "" else "none"


def _as_list(wanted: Any) -> list[Any]:
    return wanted if isinstance(wanted, list) else [wanted]


def all_of(results: list[bool | None]) -> bool | None:
    """Kleene's and."""
    if False in results:
        return False
    return None if None in results else True


def any_of(results: list[bool | None]) -> bool | None:
    """Kleene's or."""
    if True in results:
        return True
    return None if None in results else False


@dataclass(frozen=True)
class Matcher:
    """A compiled node: ``test`` answers, ``explain`` shows its work, ``fields`` are the values that it looks at."""

    label: str
    wanted: str
    fields: frozenset[str]
    test: Callable[[View], bool | None]
    parts: tuple[Matcher, ...] = ()
    field: str = ""
    of_value: Test | None = None  # a leaf's test of a value that is known

    def leaves(self) -> Iterator[Matcher]:
        """Every leaf below (or this node itself)."""
        if self.of_value is not None:
            yield self
        for part in self.parts:
            yield from part.leaves()

    def explain(self, view: View) -> Clause:
        """The same answer with every clause's value beside it."""
        actual = _show_field(self.field, view) if self.field else ""
        return Clause(
            field=self.label,
            wanted=self.wanted,
            actual=actual,
            result=self.test(view),
            parts=[p.explain(view) for p in self.parts],
        )


def _show_field(field: str, view: View) -> str:
    value = view.value(field)
    return format_size(value // (1 << 20) * (1 << 20)) if field == "memory" and value else _show(value)


def _leaf(field: str, wanted: str, test: Test, label: str = "") -> Matcher:
    def run(view: View) -> bool | None:
        value = view.value(field)
        return None if value is None else test(value)

    return Matcher(label or field, wanted, frozenset((field,)), run, field=field, of_value=test)


def _words(field: str, wanted: Any) -> Matcher:
    options = frozenset(_as_list(wanted))
    return _leaf(field, " | ".join(_as_list(wanted)) or "none", lambda v: v in options)


def _globs(field: str, wanted: Any) -> Matcher:
    patterns = tuple(_as_list(wanted))
    return _leaf(field, " | ".join(patterns), lambda v: any(fnmatchcase(v, p) for p in patterns))


def _set(field: str, wanted: Any) -> Matcher:
    spec = wanted if isinstance(wanted, Mapping) else {"any": _as_list(wanted)}
    has_all, has_any, has_none = (frozenset(spec.get(k, ())) for k in ("all", "any", "none"))

    def test(value: frozenset[str]) -> bool:
        return has_all <= value and (not has_any or bool(has_any & value)) and not (has_none & value)

    text = "; ".join(
        f"{k} of {', '.join(sorted(v))}" for k, v in (("all", has_all), ("any", has_any), ("none", has_none)) if v
    )
    return _leaf(field, text, test)


def _version(field: str, wanted: Any) -> Matcher:
    low, below = wanted.get("min"), wanted.get("below")
    text = " and ".join(([f"≥ {low}"] if low else []) + ([f"< {below}"] if below else []))

    def kernel(value: str) -> bool:
        return (low is None or at_least(value, low)) and (below is None or not at_least(value, below))

    def plain(value: str) -> bool:
        v = Version(value)
        return (low is None or v >= Version(low)) and (below is None or v < Version(below))

    return _leaf(field, text, kernel if field == "kernel" else plain)


def _memory(field: str, wanted: Any) -> Matcher:
    low = parse_size(wanted["min"]) if "min" in wanted else 0
    below = parse_size(wanted["below"]) if "below" in wanted else None
    text = " and ".join(
        ([f"≥ {wanted['min']}"] if low else []) + ([f"< {wanted['below']}"] if below is not None else [])
    )
    return _leaf(field, text, lambda v: v >= low and (below is None or v < below))


def _number(field: str, wanted: Any) -> Matcher:
    low, below = wanted.get("min"), wanted.get("below")
    text = " and ".join(([f"≥ {low}"] if low is not None else []) + ([f"< {below}"] if below is not None else []))
    return _leaf(field, text, lambda v: (low is None or v >= low) and (below is None or v < below))


def _features(wanted: Any) -> Matcher:
    spec = wanted if isinstance(wanted, Mapping) else {"all": _as_list(wanted)}
    parts = []
    for kind, combine in (("all", all_of), ("any", any_of), ("none", None)):
        names = spec.get(kind, [])
        if not names:
            continue
        leaves = [_leaf(f"feature:{n}", "yes", lambda v: v is True, label=n) for n in names]
        if kind == "none":
            parts += [_negate(leaf) for leaf in leaves]
        else:
            parts.append(_group(f"features ({kind})", leaves, combine or all_of))
    return _group("features", parts, all_of) if len(parts) != 1 else parts[0]


def _group(label: str, parts: list[Matcher], combine: Callable[[list[bool | None]], bool | None]) -> Matcher:
    fields = frozenset().union(*(p.fields for p in parts)) if parts else frozenset()
    frozen = tuple(parts)
    return Matcher(label, "", fields, lambda view: combine([p.test(view) for p in frozen]), frozen)


def _negate(part: Matcher) -> Matcher:
    def run(view: View) -> bool | None:
        answer = part.test(view)
        return None if answer is None else not answer

    return Matcher(
        f"not {part.label}",
        "" if part.wanted == "yes" else part.wanted,
        part.fields,
        run,
        part.parts,
        part.field,
        part.of_value,
    )


def compile_match(match: Mapping[str, Any], known_features: Mapping[str, Any], where: str = "") -> Matcher:
    """Compile a ``match`` mapping: all its clauses must hold. An empty match holds for every host.

    The shape has been checked against the schema before; what a schema cannot say (does that feature exist?) is
    checked here. Raises :class:`InvalidInput`.
    """
    parts: list[Matcher] = []
    for field, wanted in match.items():
        if field in _WORDS:
            parts.append(_words(field, wanted))
        elif field in _GLOBS:
            parts.append(_globs(field, wanted))
        elif field in _SETS:
            parts.append(_set(field, wanted))
        elif field in _BOOLS:
            parts.append(_leaf(field, "yes" if wanted else "no", lambda v, w=wanted: v is w))  # type: ignore[misc]
        elif field in ("kernel", "distribution_version"):
            parts.append(_version(field, wanted))
        elif field == "memory":
            parts.append(_memory(field, wanted))
        elif field in _NUMBERS:
            parts.append(_number(field, wanted))
        elif field == "features":
            names = wanted if isinstance(wanted, list) else [n for v in wanted.values() for n in v]
            for name in names:
                if name not in known_features:
                    raise InvalidInput(
                        f"there is no feature {name!r}",
                        where=where,
                        why="features are probes of the knowledge data",
                        fix="one of: " + ", ".join(sorted(known_features)),
                    )
            parts.append(_features(wanted))
        elif field in ("any", "all"):
            inner = [compile_match(m, known_features, where) for m in wanted]
            parts.append(_group(field, inner, any_of if field == "any" else all_of))
        elif field == "not":
            parts.append(_negate(compile_match(wanted, known_features, where)))
        else:
            raise InvalidInput(f"unknown clause {field!r}", where=where)
    return _group("all", parts, all_of)
