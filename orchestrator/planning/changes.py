# SPDX-License-Identifier: Apache-2.0
"""One file or one knob: from wanted and present state to a typed change with its diff and the host's step."""

from __future__ import annotations

import difflib
import hashlib
from functools import lru_cache
from typing import Any

from orchestrator import hostside
from orchestrator.documents.facts import Facts, FileFact
from orchestrator.documents.plan import Change, DesiredFile, DesiredState

NOTIFIERS = "crash_kexec_post_notifiers"


@lru_cache(maxsize=2048)
def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=2048)
def _diff(before: str, after: str, path: str, new: bool) -> str:
    lines = difflib.unified_diff(
        before.splitlines(keepends=True),
        after.splitlines(keepends=True),
        "/dev/null" if new else f"a{path}",
        f"b{path}",
        n=2,
    )
    return "".join(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines)


@lru_cache(maxsize=2048)
def assigned(text: str, assignments: tuple[tuple[str, str], ...]) -> str:
    return hostside.assign(text, assignments)


def file_change(file: DesiredFile, fact: FileFact | None) -> Change | None:
    what = f"{'write' if fact is None else 'change'} {file.path}"
    if file.text is not None:
        before = fact.text or "" if fact is not None else ""
        if fact is not None and fact.text == file.text and fact.mode == file.mode:
            return None
        step: dict[str, Any] = {
            "op": "write",
            "path": file.path,
            "text": file.text,
            "mode": file.mode,
            "before_sha256": fact.sha256 if fact is not None else None,
        }
        return Change(
            kind="file", what=what, why=file.why, diff=_diff(before, file.text, file.path, fact is None), step=step
        )
    if not file.assignments:
        return None
    pairs = [[k, v] for k, v in file.assignments]
    if fact is None:
        lines = "".join(f'+{k}="{v}"\n' for k, v in file.assignments)
        origin = f"--- /dev/null\n+++ b{file.path}\n(the package {file.package or '?'} brings this file; in it:)\n"
        step = {
            "op": "assign",
            "path": file.path,
            "assignments": pairs,
            "before_sha256": "from-package",
            "after_sha256": None,
        }
        return Change(
            kind="file",
            what=f"set {', '.join(k for k, _ in file.assignments)} in {file.path}",
            why=file.why,
            diff=origin + lines,
            step=step,
        )
    before = fact.text or ""
    after = assigned(before, tuple(file.assignments))
    if after == before:
        return None
    # With a blanked secret in the text the controller cannot know the real bytes: the host checks its own hash only.
    known = None if fact.redacted else _sha(after)
    step = {
        "op": "assign",
        "path": file.path,
        "assignments": pairs,
        "before_sha256": fact.sha256,
        "after_sha256": known,
    }
    return Change(kind="file", what=what, why=file.why, diff=_diff(before, after, file.path, False), step=step)


def knob_changes(facts: Facts, desired: DesiredState) -> list[Change]:
    out = []
    for path, value in desired.knobs.items():
        name = path.rsplit("/", 1)[-1]
        have = (
            facts.kernel.post_notifiers
            if name == NOTIFIERS
            else facts.kernel.sysctls.get(path.removeprefix("/proc/sys/"))
        )
        if have is None or have == value:
            continue
        step = {"op": "knob", "path": path, "value": value, "before": have}
        out.append(
            Change(
                kind="knob",
                what=f"set {name} to {value} now",
                why=f"it is {have}",
                diff=f"-{path}: {have}\n+{path}: {value}\n",
                step=step,
            )
        )
    return out
