# SPDX-License-Identifier: Apache-2.0
"""JUnit XML, which every CI system shows, and results of policy tests in it. No times: the same results give the same bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from orchestrator.planning.cases import CaseResult, FileResult, Uncovered

# What XML 1.0 cannot hold, not even escaped.
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _clean(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", text)


def junit(files: Sequence[FileResult], uncovered: Sequence[Uncovered], broken: Sequence[tuple[str, str]]) -> bytes:
    """One testsuite per file. ``uncovered``: what fails for lack of coverage; ``broken``: files that are not valid, and why."""
    root = ET.Element("testsuites", name="kdo policy test")
    for file in files:
        node = suite(root, file.file, len(file.cases), file.count("fail"), file.count("skip"))
        for case in file.cases:
            _case(node, file.file, case)
    if uncovered:
        node = suite(root, "coverage", len(uncovered), len(uncovered), 0)
        for entry in uncovered:
            text = f"no case of policy {entry.policy} reaches {entry.kind} {entry.id}"
            failure(testcase(node, "coverage", f"{entry.kind} {entry.id}"), text, entry.where)
    for name, why in broken:
        node = suite(root, name, 1, 0, 0, errors=1)
        error = ET.SubElement(testcase(node, name, "the file can be read"), "error")
        error.set("message", _clean(why.splitlines()[0] if why else "not valid"))
        error.text = _clean(why)
    return document(root)


def document(root: ET.Element) -> bytes:
    """The bytes, with the sums of all suites at the top."""
    for key in ("tests", "failures", "errors", "skipped"):
        root.set(key, str(sum(int(node.get(key, "0")) for node in root)))
    ET.indent(root)
    body: str = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{body}\n'.encode()


def suite(root: ET.Element, name: str, tests: int, failures: int, skipped: int, errors: int = 0) -> ET.Element:
    """A testsuite with its counts."""
    counts = {"tests": tests, "failures": failures, "errors": errors, "skipped": skipped}
    return ET.SubElement(root, "testsuite", {"name": _clean(name), **{k: str(v) for k, v in counts.items()}})


def testcase(node: ET.Element, file: str, name: str) -> ET.Element:
    """A testcase, without a result: it has passed."""
    return ET.SubElement(node, "testcase", {"classname": _clean(file), "name": _clean(name)})


def failure(case: ET.Element, message: str, text: str, kind: str = "failure") -> None:
    """``kind``: failure, or error where the question could not even be asked."""
    node = ET.SubElement(case, kind, message=_clean(message))
    node.text = _clean(text)


def _case(suite: ET.Element, file: str, case: CaseResult) -> None:
    node = testcase(suite, file, case.name)
    if case.result == "skip":
        ET.SubElement(node, "skipped", message=_clean(case.reason))
    if not case.differences:
        return
    # One failure element per case: that is what readers of the format expect.
    told = []
    for d in case.differences:
        told += [f"{d.where}: {d.what}: expected {d.expected}, came {d.came}", *([d.note] if d.note else []), *d.diff]
    first = case.differences[0]
    more = f" (and {len(case.differences) - 1} more)" if len(case.differences) > 1 else ""
    failure(node, f"{first.what}: expected {first.expected}, came {first.came}{more}", "\n".join(told))
