# SPDX-License-Identifier: Apache-2.0
"""Matrix: what a policy does on every platform that there can be, arch × hypervisor."""

from __future__ import annotations

from orchestrator.documents.base import FORMAT_VERSION, Document


class MatrixCase(Document, frozen=True, kw_only=True):
    """One rule together with one row of knowledge, and what comes of it. ``layers`` as in a decision, or ``kept``."""

    example: str  # a host for which it holds
    rule: str
    rule_where: str
    row: str
    title: str
    outcome: str  # act | audit | refuse | disable
    strategy: str = ""
    layers: dict[str, str] = {}
    why: str = ""  # of a refusal
    needs: str = ""  # what the kernel must have besides
    ordinary: bool = False  # the case of an ordinary host of the cell


class MatrixCell(Document, frozen=True, kw_only=True):
    """One arch under one hypervisor. No case: there is no such platform."""

    arch: str
    hypervisor: str
    cases: list[MatrixCase] = []

    @property
    def ordinary(self) -> MatrixCase | None:
        """What holds for an ordinary host."""
        return next((c for c in self.cases if c.ordinary), self.cases[0] if self.cases else None)


class Matrix(Document, frozen=True, kw_only=True):
    """The whole table, hypervisors in rows and arches in columns."""

    format_version: str = FORMAT_VERSION
    policy: str
    policy_hash: str
    arches: list[str]
    hypervisors: list[str]
    cells: list[MatrixCell]

    def cell(self, arch: str, hypervisor: str) -> MatrixCell:
        """The cell of that name."""
        return next(c for c in self.cells if (c.arch, c.hypervisor) == (arch, hypervisor))
