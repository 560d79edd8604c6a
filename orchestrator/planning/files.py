# SPDX-License-Identifier: Apache-2.0
"""Plan files: written privately, read back with their hash checked."""

from __future__ import annotations

from pathlib import Path

import msgspec

from orchestrator.documents.base import FORMAT_VERSION, digest, major, pretty
from orchestrator.documents.plan import Plan
from orchestrator.errors import PlanError
from orchestrator.files import write_atomically

MAX_BYTES = 1 << 30


def write_plan(path: Path, plan: Plan) -> None:
    """Write atomically, readable by the owner only: diffs may show what a site keeps to itself."""
    try:
        write_atomically(path, pretty(plan))
    except OSError as e:
        raise PlanError(
            "cannot write the plan", where=str(path), why=e.strerror or str(e), fix="choose another place with -o"
        ) from None


def read_plan(path: Path) -> Plan:
    """Read a plan that :func:`write_plan` wrote. Raises :class:`PlanError`."""
    fix = "make it again: kdo plan -o FILE"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise PlanError("the file is too large for a plan", where=str(path), fix=fix)
        plan = msgspec.json.decode(path.read_bytes(), type=Plan)
    except OSError as e:
        raise PlanError(
            "cannot read the plan", where=str(path), why=e.strerror or str(e), fix="give a file made by kdo plan -o"
        ) from None
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as e:
        raise PlanError("not a plan file", where=str(path), why=str(e)[:300], fix=fix) from None
    if plan.kind != "Plan" or major(plan.format_version) != major(FORMAT_VERSION):
        raise PlanError(
            "not a plan that this version can read", where=str(path), why=f"{plan.kind} {plan.format_version}", fix=fix
        )
    if digest(msgspec.structs.replace(plan, hash="")) != plan.hash:
        raise PlanError(
            "the plan was changed after it was made", where=str(path), why="its hash does not fit its content", fix=fix
        )
    return plan
