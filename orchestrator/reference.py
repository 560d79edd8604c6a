# SPDX-License-Identifier: Apache-2.0
"""Everything that is generated: JSON Schemas of the documents, the policy reference, the command reference.

``python -m orchestrator.reference DIR`` writes them below DIR; :func:`generate` gives path → text for the test that
compares them with what is committed.
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from orchestrator.checks.base import all_checks
from orchestrator.checks.run import verdict  # noqa: F401  (registers the checks)
from orchestrator.documents.bundle import Bundle
from orchestrator.documents.controls import ControlReport
from orchestrator.documents.decision import Decision
from orchestrator.documents.facts import Facts
from orchestrator.documents.findings import Report
from orchestrator.documents.matrix import Matrix
from orchestrator.documents.plan import Plan
from orchestrator.documents.platform import Platform
from orchestrator.documents.proof import Proof
from orchestrator.documents.report import HostReport
from orchestrator.documents.verdict import Outcome, Verdict
from orchestrator.documents.watch import WatchLine
from orchestrator.resources import read_text

_DOCUMENTS: dict[str, type[Any]] = {
    "facts": Facts,
    "platform": Platform,
    "decision": Decision,
    "plan": Plan,
    "outcome": Outcome,
    "verdict": Verdict,
    "matrix": Matrix,
    "proof": Proof,
    "bundle": Bundle,
    "host-report": HostReport,
    "watch-line": WatchLine,
    "report": Report,
    "control-report": ControlReport,
}
_BASE = "https://kdump-orchestrator.invalid/schemas"


def _schema(name: str, kind: type[Any]) -> str:
    (reference,), components = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    for component in components.values():
        if "description" in component:  # msgspec 0.23 takes the indentation away, those before did not
            component["description"] = inspect.cleandoc(component["description"])
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"{_BASE}/{name}.schema.json",
        **reference,
        "$defs": components,
    }
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _kind(node: dict[str, Any]) -> str:
    if "$ref" in node:
        return f"`{node['$ref'].rsplit('/', 1)[1]}`"
    if "enum" in node:
        return " \\| ".join(f"`{v}`" for v in node["enum"])
    if "const" in node:
        return f"`{node['const']}`"
    if "oneOf" in node and all("required" not in n for n in node["oneOf"]):
        return " or ".join(dict.fromkeys(_kind(n) for n in node["oneOf"]))
    kind = str(node.get("type", "any"))
    return (
        f"list of {_kind(node['items'])}"
        if kind == "array" and "items" in node
        else {"object": "mapping", "boolean": "true / false"}.get(kind, kind)
    )


def _rows(node: dict[str, Any], prefix: str, out: list[str]) -> None:
    required = set(node.get("required", []))
    for key, value in node.get("properties", {}).items():
        name = f"{prefix}{key}"
        description = value.get("description", "").replace("|", "\\|")
        out.append(f"| `{name}` | {_kind(value)} | {'yes' if key in required else ''} | {description} |")
        if "properties" in value:
            _rows(value, name + ".", out)


def _policy_reference() -> str:
    schema = json.loads(read_text("schemas/policy.schema.json"))
    lines = [
        "# Policy reference",
        "",
        "<!-- generated from schemas/policy.schema.json by `make docs`; do not edit -->",
        "",
        schema["description"],
        "",
        "Editors with a YAML language server complete and check a policy that begins with",
        "`# yaml-language-server: $schema=` and the path of `schemas/policy.schema.json`.",
        "",
    ]
    titles = {
        "": "The document",
        "rule": "A rule",
        "override": "An override",
        "rollout": "Rollout",
        "outcome": "The default",
        "settings": "Settings",
        "match": "Match",
        "set": "Sets of names",
        "features": "Features",
    }
    for name, title in titles.items():
        node = schema if not name else schema["$defs"][name]
        lines += [f"## {title}", ""]
        if name and node.get("description"):
            lines += [node["description"], ""]
        if "properties" not in node:
            node = next((n for n in node.get("oneOf", []) if "properties" in n), {})
        table: list[str] = []
        _rows(node, "", table)
        if table:
            lines += ["| key | value | required | meaning |", "| --- | --- | --- | --- |", *table, ""]
    lines += ["## Named values", ""]
    for name in ("strategy", "level", "arch", "hypervisor", "role", "confidential"):
        node = schema["$defs"][name]
        values = node.get("enum") or node["items"]["enum"]
        lines += [
            f"- `{name}`: "
            + ", ".join(f"`{v}`" for v in values)
            + (f". {node['description']}" if "description" in node else "")
        ]
    return "\n".join(lines) + "\n"


def _commands() -> str:
    from orchestrator.cli.main import cli  # noqa: PLC0415  (the command line is documented, not used)

    out = ["# Command reference", "", "<!-- generated from the command line by `make docs`; do not edit -->", ""]

    def add(command: click.Command, name: str, parent: click.Context | None) -> None:
        context = click.Context(command, info_name=name, parent=parent, max_content_width=100, terminal_width=100)
        out.extend([f"## {context.command_path}", "", "```text", command.get_help(context), "```", ""])
        if isinstance(command, click.Group):
            for child in command.list_commands(context):
                found = command.get_command(context, child)
                if found is not None:
                    add(found, child, context)

    add(cli, "kdo", None)
    return "\n".join(out)


def _checks() -> str:
    from orchestrator.checks import armed, base, disabled  # noqa: F401, PLC0415

    lines = [
        "# Checks of `kdo validate`",
        "",
        "<!-- generated from orchestrator/checks by `make docs`; do not edit -->",
        "",
    ]
    lines += ["| id | what is checked | how |", "| --- | --- | --- |"]
    for id, title in all_checks().items():
        function = base.function_of(id)
        lines.append(f"| `{id}` | {title} | {' '.join((function.__doc__ or '').split())} |")
    lines += [
        "",
        f"A check answers pass, fail, warn, skip or unknown, with what was seen ({armed.__name__.rsplit('.', 1)[0]}).",
    ]
    return "\n".join(lines) + "\n"


def _matrix() -> str:
    from orchestrator.knowledge.load import knowledge  # noqa: PLC0415
    from orchestrator.policy.load import load  # noqa: PLC0415
    from orchestrator.policy.matrix import matrix  # noqa: PLC0415
    from orchestrator.reports import matrix as report  # noqa: PLC0415
    from orchestrator.reports.picture import svg  # noqa: PLC0415

    known = knowledge()
    shapes, width, height, title = report.picture(matrix(load("default", known), known))
    return svg(shapes, width, height, title)


def _platforms() -> str:
    from orchestrator.reference_pages import platforms  # noqa: PLC0415

    return platforms()


def _documents(generated: dict[str, str]) -> str:
    from orchestrator.reference_pages import documents  # noqa: PLC0415

    return documents({path: text for path, text in generated.items() if path.startswith("schemas/")})


def _compliance() -> str | None:
    from orchestrator.reference_pages import compliance  # noqa: PLC0415

    return compliance(Path(__file__).resolve().parent.parent / "docs")


def _coverage() -> str | None:
    from orchestrator.coverage import page  # noqa: PLC0415
    from orchestrator.knowledge.load import knowledge  # noqa: PLC0415

    results = Path(__file__).resolve().parent.parent / "tests" / "results"
    return page(knowledge(), results) if results.is_dir() else None  # an installed package has no results


def _proof() -> str | None:
    from orchestrator.proof.page import page  # noqa: PLC0415

    results = Path(__file__).resolve().parent.parent / "tests" / "results"
    return page(results) if results.is_dir() else None


def generate() -> dict[str, str]:
    """Path below the top level → text."""
    out = {f"schemas/{name}.schema.json": _schema(name, kind) for name, kind in _DOCUMENTS.items()}
    out["docs/policy-reference.md"] = _policy_reference()
    out["docs/command-reference.md"] = _commands()
    out["docs/checks.md"] = _checks()
    out["docs/platforms.md"] = _platforms()
    out["docs/documents.md"] = _documents(out)
    out["docs/matrix.svg"] = _matrix()
    compliance = _compliance()
    if compliance is not None:
        out["docs/compliance.md"] = compliance
    coverage = _coverage()
    if coverage is not None:
        out["docs/coverage.md"] = coverage
    proof = _proof()
    if proof is not None:
        out["docs/proof.md"] = proof
    return out


def main() -> int:
    """Write everything below the directory that is given."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    for name, text in generate().items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
