# SPDX-License-Identifier: Apache-2.0
"""What a stored proof still says of a host: a proof holds for one kernel and one desired state, and for no other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from orchestrator.documents.proof import Proof, Standing
from orchestrator.documents.verdict import Verdict


def standing(proofs: Sequence[Proof], state: str, kernel: str) -> Standing:
    """Of one host's crash tests (oldest first), held against its state and kernel of now."""
    ended = [proof for proof in proofs if proof.outcome != "unfinished"]
    if not ended:
        return Standing(why="no crash test of this host is on record")
    fitting = [proof for proof in ended if (proof.state, proof.kernel) == (state, kernel)]
    if fitting:
        last = fitting[-1]
        if last.proven:
            return Standing(state="proven", at=last.at, how=last.crash, why=f"a crash ({last.crash}) left a vmcore")
        return Standing(at=last.at, how=last.crash, why=f"its last crash test left no vmcore: {last.what}")
    good = [proof for proof in ended if proof.proven]
    if not good:
        return Standing(at=ended[-1].at, how=ended[-1].crash, why=f"no crash test has left a vmcore: {ended[-1].what}")
    last = good[-1]
    changed = [f"the kernel is {kernel}, it was {last.kernel}"] if last.kernel != kernel else []
    changed += ["what is wanted of the host has changed"] if last.state != state else []
    return Standing(state="proof expired", at=last.at, how=last.crash, why="; ".join(changed))


def with_standing(verdict: Verdict, proofs: Mapping[str, Sequence[Proof]]) -> Verdict:
    """The verdict of a host on which kdump is wanted, with what its proofs say (see ``store.by_host``); others stay as they are."""
    if verdict.status not in ("pass", "fail") or not verdict.state:
        return verdict
    found = standing(proofs.get(verdict.host, []), verdict.state, verdict.kernel)
    return msgspec.structs.replace(verdict, proof=found)
