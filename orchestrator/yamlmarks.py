# SPDX-License-Identifier: Apache-2.0
"""YAML with positions: every value knows its line, duplicate keys are errors, booleans are YAML 1.2's.

PyYAML alone silently keeps the last of two equal keys and reads ``no`` as false and ``12:30`` as 750; an operator's
policy must not depend on such surprises. Aliases, tags and merge keys are refused: a policy is data that a reviewer
reads from top to bottom.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from orchestrator.errors import InvalidInput

Path = tuple[str | int, ...]

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)\Z|0x[0-9a-fA-F]+\Z|0o[0-7]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_MAX_DEPTH = 64


@dataclass(frozen=True)
class Mark:
    """A position in a file, both numbers from 1."""

    line: int
    column: int


@dataclass
class Marked:
    """Plain data with the position of each value and each key."""

    data: Any
    name: str
    values: dict[Path, Mark] = field(default_factory=dict)
    keys: dict[Path, Mark] = field(default_factory=dict)

    def where(self, path: Path = (), *, key: bool = False) -> str:
        """``file:line:col`` of the value (or key) at ``path``, or of its nearest ancestor that has a position."""
        table = self.keys if key else self.values
        steps = tuple(path)
        while steps not in table and steps:
            steps = steps[:-1]
        mark = table.get(steps) or self.values.get((), Mark(1, 1))
        return f"{self.name}:{mark.line}:{mark.column}"


def _scalar(node: yaml.ScalarNode) -> Any:
    text: str = node.value
    if node.style in ("'", '"', "|", ">"):
        return text
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if _INT.match(text):
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    if _FLOAT.match(text):
        return float(text)
    return text


def _check_depth(text: str, name: str, loader: Any = _LOADER) -> None:
    """libyaml's composer calls itself for each level: text that is nested deep enough would end the process."""
    depth = 0
    try:
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > _MAX_DEPTH:
                    mark: Any = event.start_mark
                    where = f"{name}:{mark.line + 1}:{mark.column + 1}"
                    raise InvalidInput(f"nested deeper than {_MAX_DEPTH} levels", where=where)
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
    except (yaml.YAMLError, RecursionError) as error:
        # A libyaml with a limit of its own (1,000) meets it while it reads ahead, before its first event.
        if loader is not yaml.SafeLoader and "maximum nesting depth" in str(error):
            _check_depth(text, name, yaml.SafeLoader)
        return  # told better by the composer, which then meets the same end


def load(text: str, name: str) -> Marked:
    """Parse one document. ``name`` is what messages call it. Raises :class:`InvalidInput` with ``file:line:col``."""
    out = Marked(None, name)

    def fail(node_mark: Any, what: str, why: str = "", fix: str = "") -> InvalidInput:
        where = f"{name}:{node_mark.line + 1}:{node_mark.column + 1}" if node_mark is not None else name
        return InvalidInput(what, where=where, why=why, fix=fix)

    seen: set[int] = set()

    def build(node: yaml.Node, path: Path) -> Any:
        if id(node) in seen:
            raise fail(
                node.start_mark, "aliases are not allowed", "a policy is read from top to bottom", "write it out"
            )
        seen.add(id(node))
        if len(path) > _MAX_DEPTH:
            raise fail(node.start_mark, f"nested deeper than {_MAX_DEPTH} levels")
        out.values[path] = Mark(node.start_mark.line + 1, node.start_mark.column + 1)
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if isinstance(node, yaml.SequenceNode):
            return [build(item, (*path, i)) for i, item in enumerate(node.value)]
        assert isinstance(node, yaml.MappingNode)  # noqa: S101  (the composer makes three kinds of nodes)
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise fail(key_node.start_mark, "a key must be plain text")
            key = key_node.value
            here: Path = (*path, key)
            if key in data:
                first = out.keys[here]
                raise fail(
                    key_node.start_mark,
                    f"key {key!r} stands twice",
                    f"the first one is in line {first.line}",
                    "keep one of the two",
                )
            if key == "<<":
                raise fail(key_node.start_mark, "merge keys are not allowed", fix="write the keys out")
            out.keys[here] = Mark(key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            data[key] = build(value_node, here)
        return data

    _check_depth(text, name)
    try:
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        raise fail(
            mark, f"not valid YAML: {e.problem or e.context}", fix="check the indentation and quotes there"
        ) from None
    except (yaml.YAMLError, RecursionError) as e:
        raise InvalidInput(
            "not valid YAML", where=name, why=str(e).splitlines()[0] if str(e) else type(e).__name__
        ) from None
    if node is not None:
        out.data = build(node, ())
    return out
