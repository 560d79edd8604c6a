# SPDX-License-Identifier: Apache-2.0
"""One file: from wanted and present state to a typed change with its diff and the host's step."""

from __future__ import annotations

import difflib
import hashlib
from functools import lru_cache
from typing import Any

from orchestrator import hostside
from orchestrator.documents.facts import FileFact
from orchestrator.documents.plan import Change, DesiredFile


@lru_cache(maxsize=2048)
def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=2048)
def _diff(before: str, after: str, path: str, new: bool) -> str:
    return unified(before, after, "/dev/null" if new else f"a{path}", f"b{path}")


def unified(before: str, after: str, old: str, new: str) -> str:
    """The unified diff of two texts under these two names, with two lines of context; "" where they are the same."""
    lines = difflib.unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True), old, new, n=2)
    return "".join(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines)


@lru_cache(maxsize=2048)
def _edited(text: str, path: str, edit: tuple[str, Any, Any]) -> str:
    return hostside.edited(text, path, *edit)


def _edit(file: DesiredFile) -> tuple[str, Any, Any]:
    """(operation, what, what not) of an edit, as something that can be remembered."""
    if file.settings:
        return "settings", tuple(file.settings), ()
    if file.ensure or file.remove:
        return "arguments", tuple(file.ensure), tuple(file.remove)
    return "assign", tuple(file.assignments), ()


def text_after(file: DesiredFile, fact: FileFact | None) -> str | None:
    """The file's text once it is as wanted; None where nothing is wanted of it. Raises :func:`hostside.edit_error`."""
    if file.text is not None:
        return file.text
    if not (file.assignments or file.settings or file.ensure or file.remove):
        return None
    return _edited((fact.text or "") if fact is not None else "", file.path, _edit(file))


def file_change(file: DesiredFile, fact: FileFact | None) -> Change | None:
    """The change that makes a file what is wanted; None if it is that already. Raises :func:`hostside.edit_error`."""
    if file.text is not None:
        return _written(file, file.text, fact)
    operation, what, what_not = _edit(file)
    if not what and not what_not:
        return None
    step: dict[str, Any] = {"op": operation, "path": file.path}
    if operation == "arguments":
        step |= {"ensure": list(what), "remove": list(what_not)}
    else:
        step["assignments" if operation == "assign" else "settings"] = [[k, v] for k, v in what]
    if fact is None:
        return _of_package(file, step)
    before = fact.text or ""
    after = _edited(before, file.path, (operation, what, what_not))
    if after == before:
        return None
    # With a blanked secret in the text the controller cannot know the real bytes: the host checks its own hash only.
    known = None if fact.redacted else _sha(after)
    step |= {"before_sha256": fact.sha256, "after_sha256": known}
    diff = _diff(before, after, file.path, False)
    return Change(kind="file", what=f"change {file.path}", why=file.why, diff=diff, step=step)


def _written(file: DesiredFile, text: str, fact: FileFact | None) -> Change | None:
    if fact is not None and fact.text == text and fact.mode == file.mode:
        return None
    before = fact.text or "" if fact is not None else ""
    step: dict[str, Any] = {
        "op": "write",
        "path": file.path,
        "text": text,
        "mode": file.mode,
        "before_sha256": fact.sha256 if fact is not None else None,
    }
    what = f"{'write' if fact is None else 'change'} {file.path}"
    diff = _diff(before, text, file.path, fact is None)
    return Change(kind="file", what=what, why=file.why, diff=diff, step=step)


def _of_package(file: DesiredFile, step: dict[str, Any]) -> Change:
    """An edit of a file that a package of the same plan brings: its bytes are not known yet."""
    pairs = [*file.assignments, *file.settings]
    lines = "".join(f'+{k}="{v}"\n' if file.assignments else f"+{k} {v}\n" for k, v in pairs)
    origin = f"--- /dev/null\n+++ b{file.path}\n(the package {file.package or '?'} brings this file; in it:)\n"
    step |= {"before_sha256": "from-package", "after_sha256": None}
    what = f"set {', '.join(k for k, _ in pairs)} in {file.path}"
    return Change(kind="file", what=what, why=file.why, diff=origin + lines, step=step)
