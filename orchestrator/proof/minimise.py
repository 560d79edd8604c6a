# SPDX-License-Identifier: Apache-2.0
"""The smallest reservation that still dumps, found by crashing with ever smaller ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from orchestrator.documents.proof import Proof
from orchestrator.proof.rehearse import Attempt, Rehearsal

MIB: Final = 1 << 20
STEP_MIB: Final = 16


@dataclass
class Search:
    """Sizes in MiB. ``works`` is the smallest that dumped, ``fails`` the largest that did not (0 = none did not)."""

    works: int = 0
    fails: int = 0

    def next(self, guess: int = 0) -> int:
        """The size to be tried next, a multiple of the step; 0 = the answer is there."""
        low = self.fails // STEP_MIB + 1
        high = (self.works + STEP_MIB - 1) // STEP_MIB - 1  # the largest that is smaller
        if low > high:
            return 0
        tried = -(-guess // STEP_MIB) if guess else (low + high) // 2
        return min(max(tried, low), high) * STEP_MIB

    def learn(self, size: int, dumped: bool) -> None:
        """Take the outcome of one try."""
        if dumped:
            self.works = min(self.works or size, size)
        else:
            self.fails = max(self.fails, size)


def minimise(rehearsal: Rehearsal, first: Attempt) -> Iterator[Proof]:
    """Each try's proof; the first one has the policy's own reservation, and the search ends there if that does not dump.

    The second begins where the first one's capture kernel was at its worst moment, the others go from there in steps of 16 MiB.
    """
    proof = rehearsal.attempt(first)
    yield proof
    if proof.outcome != "dumped" or not proof.reservation:
        return
    search = Search(works=proof.reservation // MIB)
    size = search.next((proof.capture.peak or 0) // MIB)
    while size:
        wish = {"reservation": {"crashkernel": f"{size}M"}}
        proof = rehearsal.attempt(replace(first, settings={**first.settings, **wish}))
        yield proof
        search.learn(size, proof.outcome == "dumped")
        # Below what was in use it is hopeless; above, a step at a time finds it sooner than halves do.
        size = search.next(size - STEP_MIB if proof.outcome == "dumped" else size + STEP_MIB)


def smallest(proofs: list[Proof]) -> int | None:
    """Bytes of the smallest reservation that dumped; None when none did."""
    return min((p.reservation for p in proofs if p.outcome == "dumped" and p.reservation), default=None)
