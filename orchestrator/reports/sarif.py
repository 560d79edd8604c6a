# SPDX-License-Identifier: Apache-2.0
"""SARIF 2.1.0, for code scanning: each line of a policy with what is wrong on the hosts that it decided.

The format: https://docs.oasis-open.org/sarif/sarif/v2.1.0/. No times: the same report gives the same bytes.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from orchestrator import __version__
from orchestrator.documents.base import digest
from orchestrator.documents.findings import Report
from orchestrator.reports.grouped import Group, groups
from orchestrator.reports.text import one_line, some

_LINE = re.compile(r"(.+):([0-9]{1,9}):([0-9]{1,9})", re.DOTALL)
_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def sarif(report: Report) -> bytes:
    """One result for each kind of finding and line of the policy; which hosts it is about is in its message."""
    found = groups(report.hosts)
    ids = sorted({g.first.id for g in found})
    named = {g.first.id: g.first.what for g in reversed(found)}
    rules = [{"id": i, "shortDescription": {"text": one_line(named[i]) or i}} for i in ids]
    run = {
        "tool": {"driver": {"name": "kdump-orchestrator", "version": __version__, "rules": rules}},
        "columnKind": "unicodeCodePoints",
        "results": [_result(g, ids.index(g.first.id)) for g in found],
    }
    text = json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False)
    return f"{text}\n".encode()


def _result(group: Group, index: int) -> dict[str, Any]:
    f, count = group.first, len(group.hosts)
    told = f"{f.what} on {some(group.hosts)}" + (f": {group.why}" if f.why else "") + (f". {f.fix}" if f.fix else "")
    result: dict[str, Any] = {
        "ruleId": f.id,
        "ruleIndex": index,
        "level": f.level,
        "kind": "fail",
        "message": {"text": one_line(told, 1000)},
        "partialFingerprints": {"kdo/v1": digest([f.id, f.level, f.what, _LINE.sub(r"\1", f.where)])},
        "occurrenceCount": count,
        "properties": {"hosts": group.hosts[:100], "count": count},
    }
    if f.level == "note":
        result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": one_line(f.why, 500)}]
    written = _LINE.fullmatch(f.where)
    named = [{"name": n, "kind": "resource"} for n in ([f.where] if f.where and not written else group.hosts[:10])]
    result["locations"] = [{"logicalLocations": named}]
    if written:
        region = {"startLine": max(1, int(written[2])), "startColumn": max(1, int(written[3]))}
        place = {"artifactLocation": {"uri": _uri(written[1])}, "region": region}
        result["locations"] = [{"physicalLocation": place}]
    return result


def _uri(file: str) -> str:
    """Relative to where kdo runs, as scanners want it, wherever the policy is below that."""
    path = Path(file)
    if not path.is_absolute():
        return quote(path.as_posix())
    try:
        return quote(path.relative_to(Path.cwd()).as_posix())
    except ValueError:
        return path.as_uri()
